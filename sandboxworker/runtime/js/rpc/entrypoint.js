// The other end: events that are not the default export's fetch.

const reserved = ObjectFreeze({
  __proto__: null, constructor: true, fetch: true, scheduled: true, queue: true, email: true, tail: true, trace: true, alarm: true,
  test: true, connect: true, dup: true, webSocketMessage: true, webSocketClose: true, webSocketError: true,
  then: true, catch: true, finally: true,
});

const branded = (C) => typeof C === "function" && isObject(C.prototype) && C.prototype[entrypointBrand] === true;

// find gives what the entrypoint's name stands for.
const find = (namespace, name) => {
  const key = name === "" ? "default" : name;
  if (!isObject(namespace) || !ObjectHasOwn(namespace, key)) {
    throw new TypeError(`The worker exports no entrypoint named ${JSONStringify(key)}.`);
  }
  return namespace[key];
};

// methodOf finds a method between the class and WorkerEntrypoint; nothing inherited beyond, no getter.
const methodOf = (C, name) => {
  if (!branded(C)) throw new TypeError("This entrypoint has no methods for other workers: it is not a class that extends WorkerEntrypoint.");
  if (!reserved[name]) {
    for (let p = C.prototype; isObject(p) && !ObjectHasOwn(p, entrypointBrand); p = ObjectGetPrototypeOf(p)) {
      const d = ObjectGetOwnPropertyDescriptor(p, name);
      if (d === undefined) continue;
      if (typeof d.value === "function") return d.value;
      break;
    }
  }
  throw new TypeError(`The entrypoint has no method ${JSONStringify(name)} for other workers.`);
};

// fetchOn runs fetch of a named entrypoint: a class, or an object as the default export may be.
const fetchOn = (namespace, name, request, e, ctx) => {
  const target = find(namespace, name);
  if (typeof target === "function" && isObject(target.prototype) && typeof target.prototype.fetch === "function") {
    return ReflectConstruct(target, [ctx, e]).fetch(request);
  }
  if (isObject(target) && typeof target.fetch === "function") return target.fetch(request, e, ctx);
  throw new TypeError(`The entrypoint ${JSONStringify(name)} has no fetch handler.`);
};

const reply = (inv, status, body) => {
  const s = new ResponseState();
  s.status = status;
  s.body = body;
  inv.settle(new Response(kInternal, s));
};

// failed answers with what the method threw. The invocation ends with an exception all the same.
const failed = (inv, error) => {
  if (inv.ended) return;
  let bytes;
  try { bytes = encode(error); } catch { bytes = encode(new Error(describeError(error))); }
  inv.outcome = OUTCOME_EXCEPTION;
  inv.message = describeError(error);
  writeLog(inv.id, 4, boundText(`Uncaught ${inv.message}`));
  reply(inv, 500, new Body(B_BYTES, bytes));
};

// call runs a method: its arguments are the request's body.
const call = (namespace, entrypoint, name, inv, e, ctx) => answerWith(inv, (args) => {
  const C = find(namespace, entrypoint);
  const method = methodOf(C, name);
  return ReflectApply(method, ReflectConstruct(C, [ctx, e]), args);
});

// answerWith answers with what run makes of the arguments in the request's body.
const answerWith = (inv, run) => {
  if (inv.wire === undefined) { failed(inv, malformed()); return; }
  PromiseThen(receive(inv.wire, stubsOf(inv)), (args) => {
    let result;
    try {
      if (!ArrayIsArray(args)) throw malformed();
      result = run(args);
    } catch (error) {
      failed(inv, error);
      return;
    }
    PromiseThen(PromiseResolve(result), (value) => {
      let out;
      try { out = encodeBody(value); } catch (error) { failed(inv, error); return; }
      reply(inv, 200, out);
    }, (error) => failed(inv, error));
  }, (error) => failed(inv, error));
};

return { __proto__: null, newService, fetchOn, call, runFunction, branded, encode, decode };
