// hello: the smallest worker. An object with a fetch function is all there is to it.
//
//   curl http://hello.localhost:8080/
//   curl http://hello.localhost:8080/?name=Ada

export default {
  fetch(request) {
    const name = new URL(request.url).searchParams.get("name") ?? "world";
    return new Response(`Hello, ${name}!\n`);
  },
};
