// Streams as many bytes as it is asked for, and counts those it is sent.
const chunk = new Uint8Array(65536).fill(97);
export default {
  async fetch(request) {
    if (request.method === "POST") {
      let n = 0;
      for await (const part of request.body) n += part.byteLength;
      return new Response(String(n));
    }
    let left = Number(new URL(request.url).searchParams.get("n"));
    return new Response(new ReadableStream({
      pull(controller) {
        const n = Math.min(left, chunk.length);
        controller.enqueue(chunk.slice(0, n));
        if ((left -= n) === 0) controller.close();
      },
    }, { highWaterMark: 0 }));
  },
};
