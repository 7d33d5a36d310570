// Events that no client waits for: a handler of the default export, whose result is awaited and dropped.

class ScheduledController {
  #time; #cron;
  constructor(marker, time, cron) {
    if (marker !== kInternal) throw illegalConstructor();
    this.#time = time;
    this.#cron = cron;
  }
  get scheduledTime() { return this.#time; }
  get cron() { return this.#cron; }
  get type() { void this.#time; return "scheduled"; }
  noRetry() { void this.#time; } // nothing is run again here
}
defineInterface(ScheduledController, "ScheduledController");

// handlerOf finds a method of the default export, which is an object or a class.
const handlerOf = (namespace, name, e, ctx) => {
  const main = isObject(namespace) ? namespace.default : undefined;
  if (typeof main === "function" && isObject(main.prototype) && typeof main.prototype[name] === "function") {
    const instance = ReflectConstruct(main, [ctx, e]);
    return (event) => instance[name](event);
  }
  if (isObject(main) && typeof main[name] === "function") return (event) => main[name](event, e, ctx);
  throw new TypeError(`The worker has no ${name}() handler: export default { ${name}(event, env, ctx) { ... } }.`);
};

const done = (inv) => {
  const s = new ResponseState();
  s.status = 204;
  inv.settle(new Response(kInternal, s));
};

const run = (inv, namespace, name, e, ctx, event) => {
  const result = handlerOf(namespace, name, e, ctx)(event);
  PromiseThen(PromiseResolve(result), () => done(inv), (error) => inv.fail(error));
};

const scheduled = (inv, namespace, e, ctx, cron, url) => {
  const time = +StringSlice(url, StringLastIndexOf(url, "/") + 1);
  run(inv, namespace, "scheduled", e, ctx, new ScheduledController(kInternal, time, cron));
};

// tail gives what others did: the body is a JSON array of it.
const tail = (inv, namespace, e, ctx) => {
  PromiseThen(readBody(new Body(B_WIRE, inv.wire)), (bytes) => {
    try {
      run(inv, namespace, "tail", e, ctx, JSONParse(host.utf8Decode(bytes, false, false)));
    } catch (error) {
      inv.fail(error);
    }
  }, (error) => inv.fail(error));
};

return { __proto__: null, scheduled, tail };
