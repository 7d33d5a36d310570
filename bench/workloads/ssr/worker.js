// Renders a page of a hundred rows with Preact.
import { h } from "preact";
import { renderToString } from "preact-render-to-string";

const Row = ({ id, name, tags }) =>
  h("li", { class: id % 2 ? "odd" : "even", "data-id": id }, h("b", null, name), tags.map((t) => h("span", { class: "tag" }, t)));
const Page = ({ title, rows }) =>
  h("html", null, h("head", null, h("title", null, title)), h("body", null, h("h1", null, title), h("ul", null, rows.map((r) => h(Row, r)))));

export default {
  fetch(request) {
    const page = Number(new URL(request.url).searchParams.get("page") ?? 1);
    const rows = Array.from({ length: 100 }, (_, i) => ({ id: page * 100 + i, name: `Row <${i}>`, tags: ["a" + (i % 7), "b&c"] }));
    return new Response("<!doctype html>" + renderToString(h(Page, { title: `Page ${page}`, rows })), { headers: { "content-type": "text/html" } });
  },
};
