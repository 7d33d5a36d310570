// AbortController and AbortSignal (https://dom.spec.whatwg.org/#aborting-ongoing-activities).

class SignalState {
  constructor() {
    this.aborted = false;
    this.reason = undefined;
    this.algorithms = undefined; // SafeSet of functions run before the event
    this.dependent = false;
    this.sources = undefined; // SafeSet of signals this one depends on
    this.dependents = undefined; // SafeSet of signals that depend on this one
  }
}
bare(SignalState);

let signalState, isAbortSignal;
class AbortSignal extends EventTarget {
  #s = new SignalState();
  static {
    signalState = (signal) => signal.#s;
    isAbortSignal = (v) => isObject(v) && #s in v;
  }
  constructor() {
    if (arguments[0] !== kInternal) throw illegalConstructor();
    super();
  }
  static abort(reason = undefined) {
    const signal = newSignal();
    const s = signal.#s;
    s.aborted = true;
    s.reason = abortReason(reason);
    return signal;
  }
  static timeout(milliseconds) {
    needArgs("AbortSignal.timeout", arguments.length, 1);
    const ms = toEnforced(milliseconds, "AbortSignal.timeout: milliseconds");
    const signal = newSignal();
    addTimer(() => signalAbort(signal, newDOMException("The operation was aborted due to timeout", "TimeoutError")),
      ms, false);
    return signal;
  }
  static any(signals) {
    needArgs("AbortSignal.any", arguments.length, 1);
    return dependentSignal(toSequence(signals, "AbortSignal.any: signals", (s) => {
      if (!isAbortSignal(s)) throw new TypeError("AbortSignal.any: an item is not an AbortSignal.");
      return s;
    }));
  }
  get aborted() { return this.#s.aborted; }
  get reason() { return this.#s.reason; }
  throwIfAborted() { if (this.#s.aborted) throw this.#s.reason; }
}
defineHandler(AbortSignal.prototype, "abort");
defineInterface(AbortSignal, "AbortSignal");

const newSignal = () => new AbortSignal(kInternal);
const abortReason = (reason) =>
  (reason === undefined ? newDOMException("The operation was aborted", "AbortError") : reason);

// signalAdd runs f when the signal aborts, before its event; it returns f, signalRemove takes it out.
const signalAdd = (signal, f) => {
  const s = signalState(signal);
  if (s.aborted) return f;
  if (s.algorithms === undefined) s.algorithms = new SafeSet();
  s.algorithms.add(f);
  return f;
};
const signalRemove = (signal, f) => { signalState(signal).algorithms?.delete(f); };

// https://dom.spec.whatwg.org/#create-a-dependent-abort-signal
const dependentSignal = (signals) => {
  const result = newSignal();
  const r = signalState(result);
  for (let i = 0; i < signals.length; i++) {
    const s = signalState(signals[i]);
    if (s.aborted) {
      r.aborted = true;
      r.reason = s.reason;
      return result;
    }
  }
  r.dependent = true;
  r.sources = new SafeSet();
  const link = (source) => {
    const s = signalState(source);
    r.sources.add(source);
    if (s.dependents === undefined) s.dependents = new SafeSet();
    s.dependents.add(result);
  };
  for (let i = 0; i < signals.length; i++) {
    const s = signalState(signals[i]);
    if (s.dependent) SetForEach(s.sources, link);
    else link(signals[i]);
  }
  return result;
};

// https://dom.spec.whatwg.org/#abortsignal-signal-abort
const signalAbort = (signal, reason) => {
  const s = signalState(signal);
  if (s.aborted) return;
  s.aborted = true;
  s.reason = abortReason(reason);
  const all = [signal];
  if (s.dependents !== undefined) {
    SetForEach(s.dependents, (d) => {
      const state = signalState(d);
      if (state.aborted) return;
      state.aborted = true;
      state.reason = s.reason;
      ArrayPush(all, d);
    });
  }
  for (let i = 0; i < all.length; i++) {
    const state = signalState(all[i]);
    const algorithms = state.algorithms;
    state.algorithms = undefined;
    if (algorithms !== undefined) SetForEach(algorithms, (f) => f());
    fire(targetState(all[i]), new Event("abort"));
  }
};

class AbortController {
  #signal = newSignal();
  constructor() {}
  get signal() { return this.#signal; }
  abort(reason = undefined) { signalAbort(this.#signal, reason); }
}
defineInterface(AbortController, "AbortController");

// signalHasListeners tells whether anything waits for the signal: the end of a request is then an
// event the invocation may be waiting for.
const signalHasListeners = (signal) => {
  const s = signalState(signal);
  return (s.algorithms?.size ?? 0) > 0 || (s.dependents?.size ?? 0) > 0 ||
    targetState(signal).listeners.length > 0;
};
