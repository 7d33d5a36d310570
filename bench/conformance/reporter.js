// What each test's tenant runs: it evaluates the checkout's harness and the test inside the first
// request, because a worker has no timers, randomness or I/O before, and answers with what the
// subtests came to. The request's headers say where the test stands in the checkout.
import source from "./test.txt";

const environment = (base, title) => {
  const url = new URL(base), location = {};
  for (const k of ["href", "origin", "protocol", "host", "hostname", "port", "pathname", "search", "hash"]) location[k] = url[k];
  Object.defineProperty(location, "toString", { value: () => url.href }); // no URL: a WorkerLocation has no searchParams
  const define = (name, value) => Object.defineProperty(globalThis, name, { value, writable: true, configurable: true });
  define("location", location);
  define("META_TITLE", title);
  define("GLOBAL", { isWindow: () => false, isWorker: () => true, isShadowRealm: () => false });
  // A worker has no address of its own, so relative references mean nothing to it. Tests take one for
  // granted: theirs are resolved against the test's place, and nothing else of the two is changed.
  const resolve = (input) => {
    if (typeof input !== "string") return input;
    try { return new URL(input, url).href; } catch { return input; }
  };
  const { apply, construct } = Reflect, OwnRequest = Request;
  define("Request", new Proxy(OwnRequest, {
    construct: (target, args, newTarget) => construct(target, args.length ? [resolve(args[0]), ...args.slice(1)] : args, newTarget === Request ? target : newTarget),
  }));
  Object.defineProperty(OwnRequest.prototype, "constructor", { value: Request, writable: true, configurable: true });
  define("fetch", new Proxy(fetch, { apply: (target, self, args) => apply(target, self, args.length ? [resolve(args[0]), ...args.slice(1)] : args) }));
};

const names = (table, code) => Object.keys(table).find((k) => table[k] === code) ?? String(code);
const HARNESS = { OK: 0, ERROR: 1, TIMEOUT: 2, PRECONDITION_FAILED: 3 };
const SUBTEST = { PASS: 0, FAIL: 1, TIMEOUT: 2, NOTRUN: 3, PRECONDITION_FAILED: 4 };

// Text of a result goes out as JSON: half a surrogate pair would not.
const text = (x) => String(x ?? "").toWellFormed().slice(0, 2000);

const run = (timeout, location) => new Promise((resolve, reject) => {
  globalThis.__conformance_ready = () => {
    delete globalThis.__conformance_ready;
    globalThis.add_completion_callback((tests, status) => resolve({
      harness: names(HARNESS, status.status), message: text(status.message),
      subtests: tests.map((t) => ({ name: text(t.name), status: names(SUBTEST, t.status), message: text(t.message) })),
    }));
    // The harness leaves a worker's time to whoever started it.
    setTimeout(() => globalThis.timeout(), timeout);
  };
  try {
    // Errors say where they happened: at the test's own address, as in a browser.
    Function(`${source}\n//# sourceURL=${location.origin}${location.pathname}`).call(globalThis);
  } catch (error) {
    if (globalThis.__conformance_ready) return reject(error); // nothing was run: a SyntaxError
    // What had ended before it is kept: the harness takes it as a page's uncaught exception.
    reportError(error);
  }
  // All scripts are there: a service worker's harness waits for this event.
  globalThis.dispatchEvent(new Event("install"));
});

export default {
  async fetch(request) {
    const { headers } = request, reply = Response;
    environment(headers.get("x-base"), decodeURIComponent(headers.get("x-title")));
    try {
      return new reply(JSON.stringify(await run(Number(headers.get("x-timeout")), globalThis.location)));
    } catch (error) {
      return new reply(JSON.stringify({ harness: "ERROR", message: text(`the file threw ${error?.name}: ${error?.message}`), subtests: [] }));
    }
  },
};
