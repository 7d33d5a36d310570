// packages-wasm: a Markdown renderer in WebAssembly, straight from npm. POST Markdown, get HTML.

import { init, mdToHtml } from "md4w";

init(); // compiled when the worker was loaded

export default {
  async fetch(request: Request): Promise<Response> {
    const text = request.method === "POST" ? await request.text() : "# Rendered\n\nby *WebAssembly*\n";
    return new Response(mdToHtml(text), { headers: { "content-type": "text/html; charset=utf-8" } });
  },
};
