// The smallest runtime that serves the host binding: enough to try the engine by itself.
// "raw" is given to the worker so that tests can call host functions with hostile arguments.
(function (host) {
  "use strict";
  const invocations = new Map();
  let listener, handler, timers = [], nextTimer = 1;
  const ops = new Map();
  let nextOp = 1;

  function arm() {
    let due = -1;
    for (const t of timers) if (due < 0 || t.due < due) due = t.due;
    host.timer(due);
  }
  host.setDataCloneError((message) => { const e = new Error(message); e.name = "DataCloneError"; return e; });

  function settle(inv, response) {
    if (response === undefined || response === null) {
      host.finish(inv, 2, "no response");
      return;
    }
    if (typeof response === "object" && response.chunks) {
      host.respond(inv, response.status || 200, response.headers || "", 2, undefined);
      for (const c of response.chunks) host.chunk(inv, host.utf8Encode(c));
      host.end(inv);
    } else if (typeof response === "object" && !ArrayBuffer.isView(response)) {
      host.respond(inv, response.status || 200, response.headers || "", 1, response.body);
    } else {
      host.respond(inv, 200, "", 1, typeof response === "string" || ArrayBuffer.isView(response) ? response : String(response));
    }
    host.finish(inv, 1, "");
  }

  return {
    start() {
      globalThis.raw = host;
      globalThis.addEventListener = (name, f) => { listener = f; };
      globalThis.setTimeout = (f, ms) => {
        timers.push({ id: nextTimer, due: host.now() + Math.max(1, ms || 0), f });
        arm();
        return nextTimer++;
      };
      globalThis.Response = class { constructor(body) { return { body }; } };
      globalThis.op = (code, meta, data) => new Promise((resolve, reject) => {
        const id = nextOp++;
        ops.set(id, { resolve, reject });
        host.op(code, id, 0, meta, data);
      });
      globalThis.log = (text) => host.log(0, 1, String(text));
    },
    load(namespace, env) {
      handler = namespace.default;
      const e = {};
      for (let i = 0; i < env.length; i += 3) e[env[i]] = env[i + 1] === "json" ? JSON.parse(env[i + 2]) : env[i + 2];
      globalThis.env = e;
      if (listener) return ["fetch"];
      if (!handler) throw new TypeError("the worker has no default export");
      return Object.keys(handler);
    },
    request(inv, method, url, headers, mode, body, requestId, attempt) {
      const request = { inv, method, url, headers, mode, body, requestId, attempt, received: [], respond: (r) => settle(inv, r) };
      invocations.set(inv, request);
      let result;
      try {
        result = listener ? listener(request) : handler.fetch(request, globalThis.env);
      } catch (e) {
        host.finish(inv, 2, String(e && e.stack || e));
        return;
      }
      Promise.resolve(result).then((r) => { if (r !== "later") settle(inv, r); }, (e) => host.finish(inv, 2, String(e && e.stack || e)));
    },
    chunk(inv, u8) {
      const r = invocations.get(inv);
      host.credit(inv, u8.length);
      if (r.onchunk) r.onchunk(u8);
    },
    end(inv) { const r = invocations.get(inv); if (r.onend) r.onend(); },
    abort(inv, reason, message) { const r = invocations.get(inv); if (r && r.onabort) r.onabort(reason, message); },
    window(inv, n) { const r = invocations.get(inv); if (r.onwindow) r.onwindow(n); },
    timer(nominal) {
      timers.sort((a, b) => a.due - b.due || a.id - b.id);
      if (timers.length && timers[0].due <= nominal) timers.shift().f();
      arm();
      timers.sort((a, b) => a.due - b.due || a.id - b.id);
      return timers.length > 0 && timers[0].due <= nominal;
    },
    op(id, ok, meta, data) {
      const o = ops.get(id);
      ops.delete(id);
      ok ? o.resolve({ meta, data }) : o.reject(new Error(meta));
    },
    rejection(kind, promise, reason) { host.log(0, 4, "rejection " + kind + " " + String(reason)); },
    idle() {},
    builtin(name) { return name === "node:answers" ? { __proto__: null, answer: 42, default: { answer: 42 } } : undefined; },
    describeError(e) { return String(e && e.stack || e); },
  };
})
