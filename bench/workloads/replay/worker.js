// A tenant whose process ends in the middle of a request, the first time or every time. It learns
// which time it is from an upstream that counts: nothing else may tell it.
export default {
  async fetch(request) {
    const url = new URL(request.url);
    if (url.pathname === "/hello") return new Response("hello\n");
    const up = url.searchParams.get("up"), id = url.searchParams.get("id");
    const body = await request.text();
    if (url.searchParams.has("effect")) {
      await fetch(`${up}/effect?id=${id}`, { method: "POST", body: "done" });
    }
    const hook = url.searchParams.has("hook") ? "&hook=1" : "";
    const attempts = await (await fetch(`${up}/attempt?id=${id}${hook}`)).text();
    if (url.searchParams.has("always") || (attempts === "I" && !hook)) new Array(1e8).fill(0);
    return new Response(`${body} ${attempts}\n`);
  },
};
