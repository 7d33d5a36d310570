// What the host calls: see the binding in sandboxworker/runtime/doc.go. Each call is one turn; the host
// drains microtasks after it and then calls idle.

let fetchHandler; // (request, env, ctx) => Response or promise
let fetchListener = false; // service-worker syntax: someone listens for "fetch"
let env; // of the configuration
let mainNamespace; // of the main module
let loaded = false;

const noteGlobalListener = (type) => { if (type === "fetch") fetchListener = true; };

// The isolate waits for its tenant with everything in place: a cold start pays for none of it.
host.setDataCloneError((message) => newDOMException(message, "DataCloneError"));
installGlobals();

// rehearse serves a request of nobody's: what every tenant's first request would make or look up for the
// first time is there when it comes. Called while the isolate is made; what it says to the host is
// thrown away.
const rehearse = () => {
  fetchHandler = (r) => {
    const u = new (urlUnit.get().URL)(r.url);
    return new Response(u.pathname, { __proto__: null, headers: { __proto__: null, "content-type": r.headers.get("accept") } });
  };
  request(1, "GET", "http://rehearsal.localhost/", "accept\n*/*\n", 0, undefined, "", 1);
  idle();
  fetchHandler = undefined;
};

// start is the first outside event of the isolate: time begins.
const start = () => { timeOrigin = host.now(); };

// knownEvents are the handlers a module may export, in the order load reports them.
const knownEvents = ["fetch", "scheduled", "queue", "email", "tail", "trace", "alarm"];

const load = (namespace, vars) => {
  if (loaded) throw new Error("BUG: load was called twice");
  loaded = true;
  env = {};
  mainNamespace = namespace;
  for (let i = 0; i + 2 < vars.length; i += 3) {
    let value = vars[i + 2];
    if (vars[i + 1] === "json" && StringStartsWith(value, "\u0001")) { // no JSON begins so: a service binding
      value = rpcUnit.get().newService(+StringSlice(value, 1));
    } else if (vars[i + 1] === "json") {
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
  if (isObject(namespace) && exportsEntrypoint(namespace)) names[names.length] = "call";
  if (names.length === 0) {
    throw new TypeError(main === undefined
      ? "The worker handles no event: its main module has no default export, and it called no addEventListener(\"fetch\", ...)."
      : "The worker handles no event: its default export has no fetch() method, and it called no addEventListener(\"fetch\", ...).");
  }
  return names;
};

const exportsEntrypoint = (namespace) => {
  const keys = ObjectKeys(namespace);
  for (let i = 0; i < keys.length; i++) {
    const C = namespace[keys[i]];
    if (typeof C === "function" && isObject(C.prototype) && C.prototype[entrypointBrand] === true) return true;
  }
  return false;
};

// request starts an invocation. What is not the default export's fetch stands behind the method:
// event, entrypoint, name and, if there are any, props, each after a line feed (see EventMethod in sandboxworker/runtime/fetch.go).
const request = (id, method, url, flat, bodyMode, body, requestId, attempt) => {
  let event, entrypoint = "", name = "", props;
  const cut = StringIndexOf(method, "\n");
  if (cut >= 0) {
    const a = StringIndexOf(method, "\n", cut + 1), b = StringIndexOf(method, "\n", a + 1);
    event = StringSlice(method, cut + 1, a);
    entrypoint = StringSlice(method, a + 1, b);
    name = StringSlice(method, b + 1);
    const c = StringIndexOf(name, "\n");
    if (c >= 0) {
      props = StringSlice(name, c + 1);
      name = StringSlice(name, 0, c);
    }
    method = StringSlice(method, 0, cut);
  }
  const inv = new Invocation(id, method, requestId, attempt);
  inv.props = props;
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
    if (event === "scheduled") {
      eventHandlersUnit.get().scheduled(inv, mainNamespace, env, newExecutionContext(inv), name, url);
      host.setContext(undefined);
      return;
    }
    if (event === "tail") {
      eventHandlersUnit.get().tail(inv, mainNamespace, env, newExecutionContext(inv));
      host.setContext(undefined);
      return;
    }
    if (event === "function") {
      rpcUnit.get().runFunction(inv, +entrypoint, +name);
      host.setContext(undefined);
      return;
    }
    if (event === "call") {
      rpcUnit.get().call(mainNamespace, entrypoint, name, inv, env, newExecutionContext(inv));
      host.setContext(undefined);
      return;
    }
    if (entrypoint !== "") result = rpcUnit.get().fetchOn(mainNamespace, entrypoint, req, env, newExecutionContext(inv));
    else if (fetchHandler !== undefined) result = fetchHandler(req, env, newExecutionContext(inv));
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

// Tasks of the runtime's own (messages of ports): they run one at a time, each followed by its microtasks,
// after what the event led to.
const tasks = new Fifo();
const addTask = (run, argument) => tasks.push({ __proto__: null, run, argument });

// idle says whether it wants to be called again, after microtasks.
const idle = () => {
  reporting = false; // a turn may have been cut off anywhere
  if (tasks.length > 0) {
    const { run, argument } = tasks.shift();
    run(argument);
    return true;
  }
  loggedThisTurn = 0;
  retryFinish();
  finishSettled();
  endStuck();
  finishSettled();
  armTimers();
  return tasks.length > 0;
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

rehearse();

const handlers = ObjectFreeze({
  __proto__: null,
  start, load, request, rejection, idle, describeError, builtin,
  chunk: (id, u8) => (isFetch(id) ? deliverFetch(id, (s) => s.chunk(u8)) : deliver(id, (inv) => (inv.socket ?? inv.wire)?.chunk(u8))),
  end: (id) => (isFetch(id) ? deliverFetch(id, (s) => s.end()) : deliver(id, (inv) => inv.wire?.end())),
  abort: (id, reason, message) => (isFetch(id) ? deliverFetch(id, (s) => s.aborted(reason, message))
    : deliver(id, (inv) => inv.abort(reason, message))),
  window: (id, n) => (isFetch(id) ? deliverFetch(id, (s) => (s.socket ?? s.pump)?.grant(n)) : deliver(id, (inv) => (inv.socket ?? inv.pump)?.grant(n))),
  timer: runTimer,
  op: (id, ok, meta, data) => (isFetch(id) ? deliverFetch(id, (s) => s.result(ok, meta)) : finishOp(id, ok, meta, data)),
});
