// hono-app: an application on the Hono framework, with its router, middleware and JSX.
//
//   http://hono-app.localhost:8080/            a page
//   curl http://hono-app.localhost:8080/api/posts
//   curl http://hono-app.localhost:8080/api/posts/2
//   curl -X POST http://hono-app.localhost:8080/api/posts -H 'content-type: application/json' -d '{"title":"New","text":"Words"}'

import { Hono } from "hono";
import { etag } from "hono/etag";
import { HTTPException } from "hono/http-exception";
import { secureHeaders } from "hono/secure-headers";
import { timing } from "hono/timing";
import { validator } from "hono/validator";
import { Page, type Post } from "./page";

type Bindings = { GREETING: string };

const posts: Post[] = [
  { id: 1, title: "Sealed", text: "This page was made in a process that has no files and no network." },
  { id: 2, title: "Small", text: "The worker is one folder: a source file, a manifest and a package." },
  { id: 3, title: "Quick", text: "Save a change and the next request is answered by it." },
];

const app = new Hono<{ Bindings: Bindings }>();

app.use(timing());
app.use(secureHeaders());

app.get("/", etag(), (c) => c.html(<Page greeting={c.env.GREETING} posts={posts} />));

const api = new Hono();
api.get("/posts", (c) => c.json(posts));
api.get("/posts/:id{[0-9]+}", (c) => {
  const post = posts.find((p) => p.id === Number(c.req.param("id")));
  if (!post) throw new HTTPException(404, { message: "no such post" });
  return c.json(post);
});
api.post(
  "/posts",
  validator("json", (value, c) => {
    const { title, text } = value as Partial<Post>;
    if (typeof title !== "string" || title === "" || typeof text !== "string") {
      return c.json({ error: "title and text are needed" }, 422);
    }
    return { title, text };
  }),
  (c) => {
    const post = { id: posts.length + 1, ...c.req.valid("json") };
    posts.push(post);
    return c.json(post, 201);
  },
);
app.route("/api", api);

app.notFound((c) => c.json({ error: `nothing at ${c.req.path}` }, 404));
app.onError((error, c) => {
  if (error instanceof HTTPException) return c.json({ error: error.message }, error.status);
  console.error(error);
  return c.json({ error: "internal error" }, 500);
});

export default app;
