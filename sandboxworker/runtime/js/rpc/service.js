// A service binding in `env`: fetch(), and every other name is a method of the entrypoint bound to.

const notMethods = ObjectFreeze({ __proto__: null, then: true, catch: true, finally: true, constructor: true, toJSON: true });

// ask performs a call of target; see Subrequest for what it holds.
const ask = (target, args) => {
  let request;
  try {
    request = new Request("https://rpc.invalid/", { __proto__: null, method: "POST" });
    requestState(request).body = encodeBody(args, target.functions = bareList());
  } catch (error) {
    return PromiseReject(error);
  }
  const answer = fetchUnit.get().subrequest(requestState(request), target);
  return PromiseThen(answer, (response) => {
    const s = responseState(response);
    if (s.body === null) throw malformed();
    s.body.used = true;
    return PromiseThen(receive(s.body.source), (value) => {
      if (s.status !== 200) throw value;
      return value;
    });
  });
};

const serviceFetch = (binding, input, init) => {
  try {
    const request = new Request(input, init);
    const state = requestState(request);
    if (state.follow !== undefined) {
      const follow = eventsUnit.get().signalState(state.follow);
      if (follow.aborted) return PromiseReject(follow.reason);
    }
    return fetchUnit.get().subrequest(state, { __proto__: null, binding, call: "" });
  } catch (error) {
    return PromiseReject(error);
  }
};

// Names that are not own properties: a proxy answers for all of them.
const newService = (binding) => {
  const service = new Proxy(ObjectFreeze(ObjectCreate(null, {
    [SymbolToStringTag]: { __proto__: null, value: "Fetcher" },
    [SymbolToPrimitive]: { __proto__: null, value: () => "[object Fetcher]" },
  })), {
    __proto__: null,
    get(target, name) {
    if (typeof name === "symbol") return target[name];
    if (name === "fetch") return (input, init) => serviceFetch(binding, input, init);
    if (notMethods[name]) return undefined;
    return (...args) => ask({ __proto__: null, binding, call: name }, args);
  },
  });
  services.set(service, true);
  return service;
};
