import { css, Style } from "hono/css";
import type { FC } from "hono/jsx";

export interface Post {
  id: number;
  title: string;
  text: string;
}

const layout = css`
  font: 17px/1.6 system-ui, sans-serif;
  color: light-dark(#1c1c28, #e8e8f0);
  background: light-dark(#fafafc, #15151d);
  max-width: 42rem;
  margin: 4rem auto;
  padding: 0 1.25rem;
`;

const card = css`
  border-left: 4px solid #ff5b11;
  padding: 0.25rem 1.25rem;
  margin: 1.5rem 0;
  h2 {
    margin: 0;
    font-size: 1.15rem;
  }
  p {
    margin: 0.25rem 0;
  }
`;

export const Page: FC<{ greeting: string; posts: Post[] }> = ({ greeting, posts }) => (
  <html lang="en" style="color-scheme: light dark">
    <head>
      <meta charset="utf-8" />
      <meta name="viewport" content="width=device-width" />
      <title>{greeting}</title>
      <Style />
    </head>
    <body class={layout}>
      <h1>{greeting}</h1>
      {posts.map((post) => (
        <article class={card}>
          <h2>{post.title}</h2>
          <p>{post.text}</p>
          <a href={`/api/posts/${post.id}`}>as JSON</a>
        </article>
      ))}
    </body>
  </html>
);
