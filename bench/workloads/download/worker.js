// Streams 1 MiB, made chunk by chunk.
const chunk = new Uint8Array(65536).fill(97);
export default {
  fetch() {
    let n = 0;
    return new Response(new ReadableStream({
      pull(controller) {
        controller.enqueue(chunk.slice());
        if (++n === 16) controller.close();
      },
    }, { highWaterMark: 0 }));
  },
};
