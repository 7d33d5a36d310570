// Functions in the arguments of a call. Whoever is called has a stub of each, which runs the function where it is, in
// an invocation of its own that is part of the caller's (sandboxworker/scheduler/calls.go). It can be called until
// the call is over.

const FUNCTION_BINDING = 65534; // ipc.FunctionBinding

// stubsOf gives what makes the stubs of functions in what inv was sent.
const stubsOf = (inv) => (n) => (...args) => {
  if (inv.ended) return PromiseReject(callOver());
  return ask({ __proto__: null, binding: FUNCTION_BINDING, call: `${n}`, inv }, args);
};
const callOver = () => new TypeError("The call that this function came with is over: it can be called until the method it was given to has answered.");

// runFunction runs the nth function that subrequest `id` carries.
const runFunction = (inv, id, n) => {
  const functions = fetchUnit.get().fetchOf(id)?.target?.functions;
  if (functions === undefined || n > functions.length) { failed(inv, callOver()); return; }
  const f = functions[n - 1];
  answerWith(inv, (args) => ReflectApply(f, undefined, args));
};
