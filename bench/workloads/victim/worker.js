// A tenant that does a little of everything and never anything wrong.
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export default {
  async fetch(request) {
    const url = new URL(request.url);
    switch (url.pathname) {
      case "/echo":
        return new Response(await request.arrayBuffer());
      case "/wait":
        await pause(Number(url.searchParams.get("ms")));
        break;
      case "/cpu": {
        // A few ms of work that cannot be compiled away; its clock stands still, so it counts.
        let x = 1;
        for (let i = 0; i < 100_000; i++) x = Math.imul(x ^ i, 0x9e3779b1) ^ (x >>> 13);
        if (x === 0.5) return new Response("never");
        break;
      }
      case "/stream": {
        let left = 8;
        const line = new TextEncoder().encode("0123456789\n");
        return new Response(new ReadableStream({
          async pull(controller) {
            await pause(5);
            controller.enqueue(line.slice());
            if (--left === 0) controller.close();
          },
        }));
      }
    }
    return new Response(url.hostname + "\n");
  },
};
