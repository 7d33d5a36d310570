// Routes of Hono, with a parameter, a query and a middleware.
import { Hono } from "hono";

const app = new Hono();
app.use("*", async (c, next) => {
  await next();
  c.header("x-app", "bench");
});
for (const name of ["users", "orders", "items", "carts", "teams", "plans"]) {
  app.get(`/${name}`, (c) => c.json({ list: name, page: Number(c.req.query("page") ?? 1) }));
  app.get(`/${name}/:id`, (c) => c.json({ kind: name, id: c.req.param("id"), page: Number(c.req.query("page") ?? 1) }));
  app.post(`/${name}/:id/notes/:note`, (c) => c.text(c.req.param("note")));
}
export default { fetch: (request, env, ctx) => app.fetch(request, env, ctx) };
