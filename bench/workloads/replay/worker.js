// A tenant whose process ends in the middle of a request. It learns how often it has run from an
// upstream that counts: nothing else may tell it. With a hook the upstream has the process killed
// before it answers; with own this code ends it the first time.
export default {
  async fetch(request) {
    const url = new URL(request.url);
    const up = url.searchParams.get("up"), id = url.searchParams.get("id");
    const body = await request.text();
    if (url.searchParams.has("effect")) {
      await fetch(`${up}/effect?id=${id}`, { method: "POST", body: "done" });
    }
    const hook = url.searchParams.get("hook") ?? "never";
    const runs = await (await fetch(`${up}/attempt?id=${id}&hook=${hook}`)).text();
    if (url.searchParams.has("own") && runs === "I") "a".repeat(2 ** 28).split("");
    return new Response(`${body} ${runs}\n`);
  },
};
