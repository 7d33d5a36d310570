// nodejs: packages that were written for Node.js, as they come from npm, and the modules they import.
// `/` lists the routes.

import assert from "node:assert";
import { Buffer } from "node:buffer";
import { createHash, createHmac, pbkdf2Sync, randomBytes, randomInt, randomUUID, scryptSync, timingSafeEqual } from "node:crypto";
import { EventEmitter, once } from "node:events";
import path from "node:path";
import process, { env } from "node:process";
import querystring from "node:querystring";
import { pipeline, Readable, Transform } from "node:stream";
import { text } from "./text.js";
import { StringDecoder } from "node:string_decoder";
import { fileURLToPath, parse, pathToFileURL } from "node:url";
import { format, inspect, isDeepStrictEqual, promisify } from "node:util";

import BufferList from "bl";
import cookie from "cookie-signature";
import { parse as parseCSV } from "csv-parse";
import mime from "mime-types";
import objectHash from "object-hash";

const thrown = (f) => {
  try { return f(); } catch (error) { return error.code ?? error.name; }
};

const routes = {
  // Modules of Node.js.
  assert: () => thrown(() => assert.deepStrictEqual({ a: [1] }, { a: [2] })),
  buffer: () => [Buffer.from("åäö").toString("base64url"), Buffer.from("w6XDpMO2", "base64url").toString(), Buffer.concat([Buffer.of(1), Buffer.alloc(2, 7)]).toString("hex"), Buffer.from([1, 2, 3, 4]).readUInt32BE(0)],
  crypto: () => [
    createHash("sha256").update("a").update(Buffer.from("bc")).digest("hex"), createHash("md5").update("").digest("hex"),
    createHmac("sha1", "key").update("The quick brown fox jumps over the lazy dog").digest("base64"),
    pbkdf2Sync("password", "salt", 2, 20, "sha1").toString("hex"), scryptSync("", "", 16, { N: 16, r: 1, p: 1 }).toString("hex"),
    randomBytes(8).length, randomUUID().length, randomInt(5, 6), timingSafeEqual(Buffer.from("a"), Buffer.from("a")), thrown(() => createHash("crc32")),
  ],
  async events() {
    const emitter = new EventEmitter();
    process.nextTick(() => emitter.emit("tide", "high"));
    return once(emitter, "tide");
  },
  path: () => [path.join("/a", "../b", "c.txt"), path.extname("c.tar.gz"), path.relative("/a/b", "/a/c")],
  process: () => [env.GREETING, process.env.NODE_ENV, process.env.MISSING ?? "none", Object.keys(env).sort()],
  querystring: () => [querystring.parse("a=1&a=2&b=%20"), querystring.stringify({ x: ["1", "2"], y: "å" }), querystring.parse("a:1;b:2", ";", ":")],
  async stream() {
    const upper = new Transform({ transform(chunk, _, done) { done(null, chunk.toString().toUpperCase()); } });
    await promisify(pipeline)(Readable.from(["to ", "all"]), upper, async (source) => { routes.stream.last = await text(source); });
    return routes.stream.last;
  },
  string_decoder: () => { const d = new StringDecoder("utf8"); return d.write(Buffer.of(0xe2, 0x82)) + d.write(Buffer.of(0xac)) + d.end(); },
  url: () => [parse("http://u:p@a.example:8080/p?q=1#h").host, fileURLToPath("file:///a%20b"), pathToFileURL("/a b").href],
  util: () => [format("%s=%d %j", "a", 1, { b: 2 }), inspect({ a: { b: [1, "x"] } }), isDeepStrictEqual([1, { a: 2 }], [1, { a: 2 }])],
  // Packages.
  bl: () => { const list = new BufferList([Buffer.from("one"), "two"]); list.append(Buffer.from("three")); return list.slice(2, 8).toString(); },
  "cookie-signature": () => { const signed = cookie.sign("tide", "secret"); return [signed, cookie.unsign(signed, "secret"), cookie.unsign(signed, "other")]; },
  "csv-parse": () => new Promise((resolve, reject) => parseCSV("a,b\n1,\"x,\ny\"\n", { columns: true }, (error, rows) => (error ? reject(error) : resolve(rows)))),
  "mime-types": () => [mime.lookup("tide.svg"), mime.contentType("table.html")],
  "object-hash": () => objectHash({ b: [1, 2], a: "x" }),
};

export default {
  async fetch(request) {
    const name = new URL(request.url).pathname.slice(1);
    if (!Object.hasOwn(routes, name)) return Response.json(Object.keys(routes), { status: name === "" ? 200 : 404 });
    return Response.json(await routes[name]());
  },
};
