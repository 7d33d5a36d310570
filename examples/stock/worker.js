// stock: a web API of the platform, called on the platform's own machine. The service in inventory/ listens
// on a unix socket; it is told by bulkhead, not by this worker, whose code is calling:
//
//   curl http://stock.localhost:8080/                     what there is
//   curl -X PUT -d 12 http://stock.localhost:8080/bolts   an effect: this request would not be replayed
//   curl http://stock.localhost:8080/whoami               what the service knows of the caller

export default {
  async fetch(request, env) {
    const { pathname } = new URL(request.url);
    try {
      // Only the path of the URL means something: where the API is, the operator says.
      const answer = await env.INVENTORY.fetch(new Request("http://inventory" + pathname, request));
      return new Response(answer.body, answer);
    } catch (error) {
      return new Response(`${error.message}\n`, { status: 503 });
    }
  },
};
