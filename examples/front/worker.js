// front: service bindings. It calls the worker in examples/greeter, which runs in another process:
//
//   curl 'http://front.localhost:8080/?name=you&l=en,sv'   a method of an entrypoint
//   curl 'http://front.localhost:8080/?l=tlh'              what a method throws, the caller catches
//   curl -d 'hi' http://front.localhost:8080/echo          a request, passed on

export default {
  async fetch(request, env) {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname === "/echo") return env.GREETER.fetch(request);
    try {
      const lines = await env.GREETINGS.greet(searchParams.get("name") ?? "world", (searchParams.get("l") ?? "en").split(","));
      return new Response(lines.join("\n") + "\n");
    } catch (error) {
      return new Response(`${error.name}: ${error.message}\n`, { status: 400 });
    }
  },
};
