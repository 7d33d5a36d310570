// json-api: a small REST service in TypeScript. Books live in the isolate's memory, so they are
// gone when the tenant is moved or evicted: real data belongs into a service behind it.
//
//   curl http://json-api.localhost:8080/
//   curl http://json-api.localhost:8080/books
//   curl -X POST http://json-api.localhost:8080/books -d '{"title":"Dune","author":"Frank Herbert","year":1965}'
//   curl -X PATCH http://json-api.localhost:8080/books/1 -d '{"read":true}'
//   curl -X DELETE http://json-api.localhost:8080/books/1

import { type Book, parseBook, type Problem } from "./book";
import { HttpError, json, readJSON } from "./http";

interface Env {
  TITLE: string;
  LIMITS: { books: number; titleLength: number };
}

const books = new Map<number, Book>();
let nextId = 1;

for (const [title, author, year] of [
  ["The Left Hand of Darkness", "Ursula K. Le Guin", 1969],
  ["Solaris", "Stanisław Lem", 1961],
] as const) {
  books.set(nextId, { id: nextId++, title, author, year, read: false });
}

export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    try {
      return await route(request, env);
    } catch (error) {
      if (error instanceof HttpError) return json(error.body, error.status, error.headers);
      throw error; // a bug: let the host say so
    }
  },
};

async function route(request: Request, env: Env): Promise<Response> {
  const url = new URL(request.url);
  const [collection, id, ...rest] = url.pathname.split("/").filter(Boolean);

  if (collection === undefined) {
    return json({ title: env.TITLE, books: books.size, links: { books: "/books", unread: "/books?read=false" } });
  }
  if (collection !== "books" || rest.length > 0) throw new HttpError(404, "no such resource");

  if (id === undefined) {
    switch (request.method) {
      case "GET":
        return json(list(url.searchParams));
      case "POST":
        return create(await readJSON(request), env);
      default:
        throw HttpError.method("GET, POST");
    }
  }

  const book = books.get(Number(id));
  if (book === undefined) throw new HttpError(404, `no book ${id}`);
  switch (request.method) {
    case "GET":
      return json(book);
    case "PUT":
    case "PATCH": {
      const base = request.method === "PATCH" ? book : { read: false };
      const changed = { ...check(parseBook(await readJSON(request), base, env.LIMITS)), id: book.id };
      books.set(book.id, changed);
      return json(changed);
    }
    case "DELETE":
      books.delete(book.id);
      return new Response(null, { status: 204 });
    default:
      throw HttpError.method("GET, PUT, PATCH, DELETE");
  }
}

function list(query: URLSearchParams): Book[] {
  const read = query.get("read");
  const text = query.get("q")?.toLowerCase();
  return [...books.values()].filter(
    (b) =>
      (read === null || String(b.read) === read) &&
      (text === undefined || `${b.title} ${b.author}`.toLowerCase().includes(text)),
  );
}

function create(input: unknown, env: Env): Response {
  if (books.size >= env.LIMITS.books) throw new HttpError(409, `the list is full (${env.LIMITS.books} books)`);
  const book = { ...check(parseBook(input, { read: false }, env.LIMITS)), id: nextId++ };
  books.set(book.id, book);
  return json(book, 201, { location: `/books/${book.id}` });
}

function check(parsed: Omit<Book, "id"> | Problem[]): Omit<Book, "id"> {
  if (Array.isArray(parsed)) throw new HttpError(422, "the book is not valid", { problems: parsed });
  return parsed;
}
