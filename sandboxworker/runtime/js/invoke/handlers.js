// What the host calls: see the binding in sandboxworker/runtime/doc.go. Each call is one turn; the host
// drains microtasks after it and then calls idle.

let fetchHandler; // (request, env, ctx) => Response or promise
let fetchListener = false; // service-worker syntax: someone listens for "fetch"
let env; // of the configuration
let loaded = false;

const noteGlobalListener = (type) => { if (type === "fetch") fetchListener = true; };

const start = () => {
  host.setDataCloneError((message) => newDOMException(message, "DataCloneError"));
  installGlobals();
};

// knownEvents are the handlers a module may export, in the order load reports them.
const knownEvents = ["fetch", "scheduled", "queue", "email", "tail", "trace", "alarm"];

const load = (namespace, vars) => {
  if (loaded) throw new Error("BUG: load was called twice");
  loaded = true;
  env = {};
  for (let i = 0; i + 2 < vars.length; i += 3) {
    let value = vars[i + 2];
    if (vars[i + 1] === "json") {
      try { value = JSONParse(value); } catch (error) {
        throw new SyntaxError(`The variable ${vars[i]} is not valid JSON: ${error.message}`);
      }
    }
    ObjectDefineProperty(env, vars[i], { __proto__: null, value, writable: true, enumerable: true, configurable: true });
  }
  const main = namespace === undefined || namespace === null ? undefined : namespace.default;
  const names = bareList();
  if (typeof main === "function") {
    // A class (WorkerEntrypoint style): an instance for each invocation.
    for (let i = 0; i < knownEvents.length; i++) {
      if (isObject(main.prototype) && typeof main.prototype[knownEvents[i]] === "function") names[names.length] = knownEvents[i];
    }
    if (ArrayIncludes(names, "fetch")) {
      fetchHandler = (request, e, ctx) => ReflectConstruct(main, [ctx, e]).fetch(request);
    }
    if (names.length === 0 && typeof main.fetch === "function") { // a callable app object
      names[names.length] = "fetch";
      fetchHandler = FunctionBind(main.fetch, main);
    }
  } else if (isObject(main)) {
    for (let i = 0; i < knownEvents.length; i++) {
      if (typeof main[knownEvents[i]] === "function") names[names.length] = knownEvents[i];
    }
    if (typeof main.fetch === "function") fetchHandler = FunctionBind(main.fetch, main);
  }
  if (fetchListener && !ArrayIncludes(names, "fetch")) names[names.length] = "fetch";
  if (names.length === 0) {
    throw new TypeError(main === undefined
      ? "The worker handles no event: its main module has no default export, and it called no addEventListener(\"fetch\", ...)."
      : "The worker handles no event: its default export has no fetch() method, and it called no addEventListener(\"fetch\", ...).");
  }
  return names;
};

const request = (id, method, url, flat, bodyMode, body, requestId, attempt) => {
  const inv = new Invocation(id, method, requestId, attempt);
  live.set(id, inv);
  const s = new RequestState();
  s.method = method;
  s.rawURL = url;
  s.flat = flat;
  s.inv = inv;
  s.options = wireDefaults;
  if (bodyMode !== 0) {
    inv.wire = new WireBody(inv, body, bodyMode === 1, "request");
    s.body = new Body(B_WIRE, inv.wire);
  }
  const req = new Request(kInternal, s);
  host.setContext(inv.frame);
  try {
    let result;
    if (fetchHandler !== undefined) result = fetchHandler(req, env, newExecutionContext(inv));
    else if (fetchListener) result = dispatchFetch(inv, req);
    else throw new TypeError("The worker has no fetch handler.");
    if (isResponse(result)) {
      inv.settle(result);
    } else {
      PromiseThen(PromiseResolve(result), (value) => inv.settle(value), (error) => inv.fail(error));
    }
  } catch (error) {
    inv.fail(error);
  }
  host.setContext(undefined);
};

const dispatchFetch = (inv, req) => {
  const { FetchEvent, eventState, fire, globalTarget, fetchEventAnswer } = eventsUnit.get();
  const event = new FetchEvent("fetch", { __proto__: null, request: req, cancelable: true });
  eventState(event).inner = inv;
  fire(globalTarget, event);
  const answer = fetchEventAnswer(event);
  if (answer === undefined) throw new TypeError("No fetch listener called event.respondWith(), and there is no origin to pass the request to.");
  return answer.value;
};

const rejection = (kind, promise, reason, context) => {
  const inv = isObject(context) ? context.inv : undefined;
  if (eventsUnit.loaded) {
    const { PromiseRejectionEvent, globalTarget, hasListener, fire } = eventsUnit.get();
    const type = kind === 0 ? "unhandledrejection" : "rejectionhandled";
    if (hasListener(globalTarget, type)) {
      host.setContext(context);
      const handled = !fire(globalTarget, new PromiseRejectionEvent(type, { __proto__: null, promise, reason, cancelable: kind === 0 }));
      host.setContext(undefined);
      if (handled) return;
    }
  }
  if (kind === 0) writeLog(inv === undefined || inv.ended ? 0 : inv.id, 4, boundText(`Uncaught (in promise) ${describeError(reason)}`));
};

const idle = () => {
  reporting = false; // a turn may have been cut off anywhere
  loggedThisTurn = 0;
  retryFinish();
  finishSettled();
  endStuck();
  finishSettled();
  armTimers();
};

// deliver hands an event to its invocation, in its async context: a stream's pull may run at once.
const deliver = (id, f) => {
  const inv = live.get(id);
  if (inv === undefined) return; // ended meanwhile
  host.setContext(inv.frame);
  f(inv);
  host.setContext(undefined);
};
// deliverFetch is deliver for what concerns a subrequest.
const deliverFetch = (id, f) => {
  const s = fetchUnit.get().fetchOf(id);
  if (s === undefined) return;
  host.setContext(s.inv.frame);
  f(s);
  host.setContext(undefined);
};
const isFetch = (id) => id >= FETCH_BIT;

const handlers = ObjectFreeze({
  __proto__: null,
  start, load, request, rejection, idle, describeError,
  chunk: (id, u8) => (isFetch(id) ? deliverFetch(id, (s) => s.chunk(u8)) : deliver(id, (inv) => inv.wire?.chunk(u8))),
  end: (id) => (isFetch(id) ? deliverFetch(id, (s) => s.end()) : deliver(id, (inv) => inv.wire?.end())),
  abort: (id, reason, message) => (isFetch(id) ? deliverFetch(id, (s) => s.aborted(reason, message))
    : deliver(id, (inv) => inv.abort(reason, message))),
  window: (id, n) => (isFetch(id) ? deliverFetch(id, (s) => s.pump?.grant(n)) : deliver(id, (inv) => inv.pump?.grant(n))),
  timer: runTimer,
  op: (id, ok, meta, data) => (isFetch(id) ? deliverFetch(id, (s) => s.result(ok, meta)) : finishOp(id, ok, meta, data)),
});
