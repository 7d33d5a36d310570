// preact-ssr: pages rendered on the server with Preact components; no script reaches the browser.
//
//   http://preact-ssr.localhost:8080/              today's tides
//   http://preact-ssr.localhost:8080/?place=Brest&days=5

import { renderToString } from "preact-render-to-string";
import { App } from "./app";
import styles from "./styles.css";
import { places, tides } from "./tides";

interface Env {
  SITE: string;
}

export default {
  fetch(request: Request, env: Env): Response {
    const url = new URL(request.url);
    if (url.pathname !== "/") return new Response("not found\n", { status: 404 });
    if (request.method !== "GET" && request.method !== "HEAD") {
      return new Response("GET only\n", { status: 405, headers: { allow: "GET, HEAD" } });
    }

    const asked = url.searchParams.get("place");
    const place = places.find((p) => p.name === asked) ?? places[0];
    const days = Math.min(14, Math.max(1, Math.floor(Number(url.searchParams.get("days") ?? 2)) || 2));
    const from = new Date();
    from.setUTCHours(0, 0, 0, 0);

    const body = renderToString(
      <App site={env.SITE} styles={styles} places={places} place={place} days={days} tides={tides(place, from, days)} />,
    );
    return new Response("<!doctype html>" + body, {
      headers: { "content-type": "text/html; charset=utf-8", "cache-control": "max-age=60" },
    });
  },
};
