// upload: reads a body of any size, never holding more than one chunk of it.
//
//   curl -T big.log http://upload.localhost:8080/count
//   curl -T big.log http://upload.localhost:8080/upper > upper.log
//   head -c 10M /dev/zero | curl -T - http://upload.localhost:8080/count
//
// /upper answers while the upload is still running: the response is the request's body piped
// through a transform, so a slow reader slows the upload down and nothing piles up in between.
//
// What bounds the size is CPU time, not memory: under the preset "standard" an invocation has
// 50 ms, and 2 ms more for each megabyte that is moved in or out. Operators give a tenant that
// does more with its bytes more time in their policy: tenants: {upload: {limits: {cpu: 5s}}}

/**
 * ASCII upper case in place, four bytes at a time; everything else stays, whatever its encoding.
 * CPU time is what a tenant is limited by, so a loop over every byte of a large body must be cheap.
 */
function upperCase(bytes) {
  let i = 0;
  for (; i < bytes.length && (bytes.byteOffset + i) % 4 !== 0; i++) bytes[i] = upperByte(bytes[i]);
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset + i, (bytes.length - i) >> 2);
  for (let w = 0; w < words.length; w++) {
    const x = words[w];
    const low = x & 0x7f7f7f7f; // so that no addition carries into the next byte
    const isLower = ((low + 0x1f1f1f1f) ^ (low + 0x05050505)) & ~x & 0x80808080; // "a" and above, not above "z"
    words[w] = x ^ (isLower >>> 2); // 0x80 >> 2 is 0x20, the bit between the cases
  }
  for (i += words.length * 4; i < bytes.length; i++) bytes[i] = upperByte(bytes[i]);
  return bytes;
}

const upperByte = (c) => (c >= 97 && c <= 122 ? c - 32 : c);

async function count(body) {
  const totals = { bytes: 0, lines: 0, chunks: 0, largestChunk: 0 };
  for await (const chunk of body) {
    totals.chunks++;
    totals.bytes += chunk.length;
    totals.largestChunk = Math.max(totals.largestChunk, chunk.length);
    for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, at + 1)) totals.lines++;
  }
  return totals;
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
      const transform = new TransformStream({
        transform: (chunk, controller) => controller.enqueue(upperCase(chunk)),
      });
      return new Response(request.body?.pipeThrough(transform) ?? null, {
        headers: { "content-type": request.headers.get("content-type") ?? "application/octet-stream" },
      });
    }
    return Response.json(await count(request.body ?? []));
  },
};
