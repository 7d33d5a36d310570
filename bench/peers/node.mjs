// Serves a worker module with Node's own fetch classes: what a platform gets that starts a process for each
// tenant. Usage: node node.mjs WORKER PORT
import { createServer } from "node:http";
import { Readable } from "node:stream";
import { pathToFileURL } from "node:url";

const { default: worker } = await import(pathToFileURL(process.argv[2]).href);
const context = { waitUntil() {}, passThroughOnException() {} };

createServer(async (req, res) => {
  try {
    const method = req.method;
    const body = method === "GET" || method === "HEAD" ? undefined : Readable.toWeb(req);
    const headers = new Headers();
    for (let i = 0; i < req.rawHeaders.length; i += 2) headers.append(req.rawHeaders[i], req.rawHeaders[i + 1]);
    const answer = await worker.fetch(new Request(`http://${req.headers.host}${req.url}`, { method, headers, body, duplex: "half" }), {}, context);
    res.writeHead(answer.status, [...answer.headers].flat());
    if (answer.body === null) res.end();
    else {
      for await (const chunk of answer.body) if (!res.write(chunk)) await new Promise((go) => res.once("drain", go));
      res.end();
    }
  } catch (error) {
    if (!res.headersSent) res.writeHead(500);
    res.end(String(error?.stack ?? error));
  }
}).listen(Number(process.argv[3]), "127.0.0.1");
