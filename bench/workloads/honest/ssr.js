// A page of components, rendered for each request.
const h = (tag, attrs, ...kids) => `<${tag}${Object.entries(attrs ?? {}).map(([k, v]) => ` ${k}="${String(v).replace(/"/g, "&quot;")}"`).join("")}>${kids.flat().join("")}</${tag}>`;
const Item = (i) => h("li", { class: i % 2 ? "odd" : "even", id: "item-" + i }, h("a", { href: "/item/" + i }, "Item ", i), h("span", {}, (i * 1.17).toFixed(2)));
export default { fetch(request) {
	const n = Number(new URL(request.url).searchParams.get("n") ?? 50);
	const page = h("html", {}, h("head", {}, h("title", {}, "Shop")), h("body", {}, h("ul", {}, Array.from({ length: n }, (_, i) => Item(i)))));
	return new Response("<!doctype html>" + page, { headers: { "content-type": "text/html" } });
} };
