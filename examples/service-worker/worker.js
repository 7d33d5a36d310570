// service-worker: the older syntax, with an event listener instead of an export. It runs as it is.
//
//   curl -i http://service-worker.localhost:8080/teapot

addEventListener("fetch", (event) => {
  event.respondWith(answer(event.request));
});

async function answer(request) {
  const { pathname } = new URL(request.url);
  if (pathname === "/teapot") return new Response("short and stout\n", { status: 418 });
  return new Response(`You asked for ${pathname} with ${request.method}.\n`);
}
