// streaming: an answer that is sent while it is being made. Watch the lines arrive one by one:
//
//   curl -N http://streaming.localhost:8080/          ten lines, five a second
//   curl -N http://streaming.localhost:8080/events    server-sent events
//   curl http://streaming.localhost:8080/bytes?mb=100 | wc -c
//
// Open http://streaming.localhost:8080/page in a browser to see the events on a page.

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const encoder = new TextEncoder();

/** A body made of what an async generator yields; the next piece is made when the client has taken the last. */
function bodyOf(generator) {
  return new ReadableStream({
    async pull(controller) {
      const { value, done } = await generator.next();
      if (done) controller.close();
      else controller.enqueue(typeof value === "string" ? encoder.encode(value) : value);
    },
    async cancel() {
      await generator.return(); // the client left
    },
  });
}

async function* lines(count) {
  for (let i = 1; i <= count; i++) {
    yield `${String(i).padStart(2)} ${"▇".repeat(i * 3)}\n`;
    if (i < count) await pause(200);
  }
}

async function* events(count) {
  for (let i = 1; i <= count; i++) {
    yield `id: ${i}\ndata: ${JSON.stringify({ step: i, of: count, at: new Date().toISOString() })}\n\n`;
    await pause(500);
  }
  yield "event: end\ndata: {}\n\n";
}

async function* bytes(total) {
  const block = new Uint8Array(64 * 1024).fill(46);
  for (let left = total; left > 0; left -= block.length) {
    yield left < block.length ? block.subarray(0, left) : block;
  }
}

const page = `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Streaming</title>
<style>
  :root { color-scheme: light dark }
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem }
  progress { width: 100%; height: 1.25rem; accent-color: #0a7d5a }
  li { font-variant-numeric: tabular-nums }
</style>
<h1>Server-sent events</h1>
<progress value="0" max="20"></progress>
<ol></ol>
<script type="module">
  const source = new EventSource("/events");
  source.onmessage = ({ data }) => {
    const { step, of, at } = JSON.parse(data);
    Object.assign(document.querySelector("progress"), { value: step, max: of });
    document.querySelector("ol").append(Object.assign(document.createElement("li"), { textContent: at }));
  };
  source.addEventListener("end", () => source.close());
</script>`;

export default {
  fetch(request) {
    const { pathname, searchParams } = new URL(request.url);
    switch (pathname) {
      case "/":
        return new Response(bodyOf(lines(10)), { headers: { "content-type": "text/plain; charset=utf-8" } });
      case "/events":
        return new Response(bodyOf(events(20)), {
          headers: { "content-type": "text/event-stream", "cache-control": "no-store" },
        });
      case "/bytes": {
        const mb = Math.min(1000, Math.max(0, Number(searchParams.get("mb") ?? 1)));
        if (Number.isNaN(mb)) return new Response("mb must be a number\n", { status: 400 });
        return new Response(bodyOf(bytes(Math.floor(mb * 1024 * 1024))), {
          headers: { "content-type": "application/octet-stream" },
        });
      }
      case "/page":
        return new Response(page, { headers: { "content-type": "text/html; charset=utf-8" } });
      default:
        return new Response("try /, /events, /bytes?mb=10 or /page\n", { status: 404 });
    }
  },
};
