// Reads a body chunk by chunk and says its length.
export default {
  async fetch(request) {
    let n = 0;
    for await (const chunk of request.body) n += chunk.byteLength;
    return new Response(String(n));
  },
};
