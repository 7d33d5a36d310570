// upload: reads a body of any size, never holding more than one chunk of it.
//
//   curl -T big.log http://upload.localhost:8080/count
//   curl -T big.log http://upload.localhost:8080/upper > upper.log
//   head -c 100M /dev/zero | curl -T - http://upload.localhost:8080/count
//
// /upper answers while the upload is still running: the response is the request's body piped
// through a transform, so a slow reader slows the upload down and nothing piles up in between.

/** Upper case of ASCII letters, in place; everything else passes through, whatever its encoding. */
function upperCase() {
  return new TransformStream({
    transform(chunk, controller) {
      for (let i = 0; i < chunk.length; i++) {
        const c = chunk[i];
        if (c >= 97 && c <= 122) chunk[i] = c - 32;
      }
      controller.enqueue(chunk);
    },
  });
}

async function count(body) {
  const totals = { bytes: 0, lines: 0, words: 0, chunks: 0, largestChunk: 0 };
  let inWord = false;
  for (const reader = body.getReader(); ; ) {
    const { value, done } = await reader.read();
    if (done) return totals;
    totals.chunks++;
    totals.bytes += value.length;
    totals.largestChunk = Math.max(totals.largestChunk, value.length);
    for (let i = 0; i < value.length; i++) {
      const c = value[i];
      if (c === 10) totals.lines++;
      const space = c === 32 || (c >= 9 && c <= 13);
      if (!space && !inWord) totals.words++;
      inWord = !space;
    }
  }
}

export default {
  async fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname !== "/count" && pathname !== "/upper") {
      return new Response("curl -T FILE http://upload.localhost:8080/count   (or /upper)\n", {
        status: pathname === "/" ? 200 : 404,
      });
    }
    if (request.method !== "PUT" && request.method !== "POST") {
      return new Response("send a file with PUT or POST\n", { status: 405, headers: { allow: "PUT, POST" } });
    }
    if (pathname === "/upper") {
      return new Response(request.body?.pipeThrough(upperCase()) ?? null, {
        headers: { "content-type": request.headers.get("content-type") ?? "application/octet-stream" },
      });
    }
    const totals = request.body ? await count(request.body) : { bytes: 0, lines: 0, words: 0, chunks: 0, largestChunk: 0 };
    return Response.json(totals);
  },
};
