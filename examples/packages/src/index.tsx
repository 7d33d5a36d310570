// packages: npm packages as they come, one route for each. `/` lists the routes.

import { hmac } from "@noble/hashes/hmac.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex, utf8ToBytes } from "@noble/hashes/utils.js";
import { addMonths, differenceInCalendarDays, formatISO } from "date-fns";
import { graphql, buildSchema } from "graphql";
import { AutoRouter, type IRequest } from "itty-router";
import { jwtVerify, SignJWT, errors } from "jose";
import { marked } from "marked";
import { customAlphabet, nanoid } from "nanoid";
import { renderToReadableStream } from "react-dom/server.edge";
import { v5 as uuidV5, v4 as uuidV4, validate } from "uuid";
import { z } from "zod";

const router = AutoRouter();

const secret = new TextEncoder().encode("a secret of the example, 32 bytes or more");
const schema = buildSchema("type Query { add(a: Int!, b: Int!): Int! }");
const order = z.object({ item: z.string().min(1), count: z.coerce.number().int().positive() });

function Page({ name }: { name: string }) {
  return (
    <html lang="en">
      <body>
        <h1>Hello, {name}</h1>
      </body>
    </html>
  );
}

router
  .get("/itty-router/:name", ({ params }: IRequest) => ({ hello: params.name }))
  .get("/jose", async () => {
    const token = await new SignJWT({ role: "reader" }).setProtectedHeader({ alg: "HS256" }).setSubject("ada").sign(secret);
    const { payload } = await jwtVerify(token, secret);
    let forged = "accepted";
    try {
      await jwtVerify(token.slice(0, -2) + "AA", secret);
    } catch (error) {
      forged = error instanceof errors.JWSSignatureVerificationFailed ? "refused" : String(error);
    }
    return { token, sub: payload.sub, forged };
  })
  .get("/zod", ({ query }: IRequest) => {
    const result = order.safeParse(query);
    return result.success ? result.data : { issues: result.error.issues.map((i) => i.path.join(".")) };
  })
  .get("/graphql", ({ query }: IRequest) =>
    graphql({ schema, source: String(query.query ?? "{ add(a: 2, b: 3) }"), rootValue: { add: ({ a, b }: { a: number; b: number }) => a + b } }))
  .get("/react-dom", async ({ query }: IRequest) =>
    new Response(await renderToReadableStream(<Page name={String(query.name ?? "you")} />), {
      headers: { "content-type": "text/html; charset=utf-8" },
    }))
  .get("/marked", async () => new Response(await marked.parse("# Tides\n\n- *high*\n- low"), { headers: { "content-type": "text/html" } }))
  .get("/date-fns", () => {
    const begin = new Date(2024, 0, 31);
    return { later: formatISO(addMonths(begin, 1), { representation: "date" }), days: differenceInCalendarDays(addMonths(begin, 1), begin) };
  })
  .get("/uuid", () => ({ named: uuidV5("bulkhead.example", uuidV5.DNS), random: validate(uuidV4()) }))
  .get("/nanoid", () => ({ length: nanoid().length, digits: /^[0-9]{9}$/.test(customAlphabet("0123456789", 9)()) }))
  .get("/noble-hashes", () => ({
    sha256: bytesToHex(sha256(utf8ToBytes("abc"))),
    hmac: bytesToHex(hmac(sha256, utf8ToBytes("Jefe"), utf8ToBytes("what do ya want for nothing?"))),
  }))
  .get("/", ({ url }: IRequest) =>
    ["itty-router/ada", "jose", "zod?item=tea&count=2", "graphql", "react-dom", "marked", "date-fns", "uuid", "nanoid", "noble-hashes"].map((r) => url + r));

export default router;
