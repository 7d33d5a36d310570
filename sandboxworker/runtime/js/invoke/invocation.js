// One invocation: from the request's arrival to its single outcome.

// Outcomes of schema/outcome.capnp that the runtime itself decides.
const OUTCOME_OK = 1, OUTCOME_EXCEPTION = 2, OUTCOME_WALL_TIME = 5, OUTCOME_CANCELED = 9;
const MESSAGE_LIMIT = 4000; // characters; at most 8 KiB of UTF-8 after the wire's own bound
const ABORT_CLIENT_GONE = 0, ABORT_DEADLINE = 2, ABORT_REFUSED = 3; // schema/frame.capnp Abort.Reason

const live = new SafeMap(); // id -> Invocation
let settled = bareList(); // invocations whose answer is complete, to be looked at when the turn ends
let opsPending = 0;
let waitsPending = 0; // promises given to waitUntil
let fetchesPending = 0; // subrequests that are not over

// pendingRefusal is the error for what would pass the limit of pending things, or undefined.
const pendingRefusal = () => {
  const limit = typeof host.pendingLimit === "number" ? host.pendingLimit : 4096;
  const now = opsPending + waitsPending + fetchesPending;
  if (now < limit) return undefined;
  return newDOMException(`Too much is pending: the limit is ${limit} operations, subrequests and waitUntil() promises at once, and ${now} have not settled.`, "QuotaExceededError");
};

const ANSWERING = 0, SENDING = 1, ANSWERED = 2;

class Invocation {
  constructor(id, method, requestId, attempt) {
    this.id = id;
    this.method = method;
    this.requestId = requestId;
    this.attempt = attempt;
    // The async context carried over every await (host.getContext). Later parts of it, such as
    // AsyncLocalStorage, make frames of their own with the same `inv`.
    this.frame = { __proto__: null, inv: this, store: undefined };
    this.state = ANSWERING;
    this.wire = undefined; // WireBody
    this.pump = undefined;
    this.socket = undefined; // SocketWire, once it is a WebSocket
    this.signal = undefined;
    this.gone = undefined; // {reason} once the client has left
    this.waiting = 0; // promises given to waitUntil and still pending
    this.timers = undefined;
    this.ops = 0;
    this.fetches = undefined; // SafeSet of Subrequests
    this.fetchQueue = undefined; // those beyond what may be open at once
    this.fetching = 0; // open
    this.props = undefined; // JSON of ctx.props
    this.passThrough = false; // accepted for compatibility: there is no origin to pass to
    this.outcome = OUTCOME_OK;
    this.message = "";
    this.ended = false;
    this.killed = false;
    this.listed = false;
  }
  ownTimers() { return (this.timers ??= new SafeSet()); }
  refuse() { host.refuse(this.id); } // the tenant cancelled the request's body
  requestSignal() {
    if (this.signal === undefined) {
      const { newSignal, signalAbort } = eventsUnit.get();
      this.signal = newSignal();
      if (this.gone !== undefined) signalAbort(this.signal, this.gone.reason);
    }
    return this.signal;
  }
  // settle takes what the handler returned.
  settle(value) {
    if (this.ended || this.state !== ANSWERING) return;
    if (!isResponse(value)) {
      this.fail(new TypeError(`The fetch handler returned ${describeKind(value)} instead of a Response. ` +
        (value === undefined ? "Is a `return` missing?" : "Return `new Response(...)`.")));
      return;
    }
    this.state = SENDING;
    try {
      sendHead(this, responseState(value));
    } catch (error) {
      this.state = ANSWERING;
      this.fail(error);
    }
  }
  socketOver() { this.answered(); }
  // answered: the response is complete, as far as it goes.
  answered() {
    this.state = ANSWERED;
    this.review();
  }
  review() {
    if (this.listed || this.ended) return;
    this.listed = true;
    settled[settled.length] = this;
  }
  fail(error) {
    if (this.ended || this.state === ANSWERED) return;
    this.outcome = OUTCOME_EXCEPTION;
    this.message = describeError(error);
    writeLog(this.id, 4, boundText(`Uncaught ${this.message}`));
    this.answered();
  }
  // bodyFailed: the head is out, the rest of the body will not come.
  bodyFailed(error) {
    if (this.ended) return;
    this.outcome = OUTCOME_EXCEPTION;
    this.message = describeError(error);
    writeLog(this.id, 4, boundText(`The response body failed: ${this.message}`));
    try { host.abort(this.id, StringSlice(this.message, 0, 500)); } catch { /* full: its finish says the same */ }
    this.answered();
  }
  waitUntil(promise) {
    if (this.ended) throw new TypeError("waitUntil() was called after its invocation had ended.");
    const refusal = pendingRefusal();
    if (refusal !== undefined) throw refusal;
    this.waiting++;
    waitsPending++;
    PromiseThen(PromiseResolve(promise), () => this.waited(), (error) => {
      if (!this.ended) {
        const text = describeError(error);
        if (this.outcome === OUTCOME_OK) {
          this.outcome = OUTCOME_EXCEPTION;
          this.message = `A promise given to waitUntil() rejected: ${text}`;
        }
        writeLog(this.id, 4, boundText(`Uncaught (in waitUntil) ${text}`));
      }
      this.waited();
    });
  }
  waited() {
    if (this.ended) return;
    this.waiting--;
    waitsPending--;
    if (this.waiting === 0 && this.state === ANSWERED) this.review();
  }
  // abort: the gateway gave up on a direction of this stream.
  abort(reason, message) {
    if (this.ended) return;
    if (reason === ABORT_REFUSED) { // the client wants no more of the body; that is no fault
      if (this.pump === undefined || this.pump.stopped) return;
      this.pump.stop(newDOMException("The client wants no more of the response.", "AbortError"));
      this.answered();
      return;
    }
    if (reason !== ABORT_CLIENT_GONE && reason !== ABORT_DEADLINE) {
      this.wire?.fail(new TypeError(`The request body ended early: ${message || "the client sent a malformed body"}.`));
      return;
    }
    if (reason === ABORT_DEADLINE) { // a limit was passed: none of its code runs again
      this.killed = true;
      this.outcome = OUTCOME_WALL_TIME;
      this.message = message || "The request's deadline passed.";
      this.finish();
      return;
    }
    const error = newDOMException(message || "The client disconnected.", "AbortError");
    this.gone = { __proto__: null, reason: error };
    if (this.state !== ANSWERED) {
      this.outcome = OUTCOME_CANCELED;
      this.message = error.message;
    }
    this.wire?.fail(error);
    this.pump?.stop(error);
    this.socket?.lost();
    if (this.signal !== undefined) eventsUnit.get().signalAbort(this.signal, error);
    this.answered();
  }
  // expectsInput says whether anything outside may still wake this invocation.
  get expectsInput() {
    return this.ops > 0 || (this.socket !== undefined && this.socket.open) || (this.fetches !== undefined && fetchUnit.get().fetchesExpect(this)) || (this.timers !== undefined && this.timers.size > 0) ||
      (this.wire !== undefined && this.wire.waiting) || (this.pump !== undefined && this.pump.blocked) ||
      (this.gone === undefined && this.signal !== undefined && eventsUnit.get().signalHasListeners(this.signal));
  }
  // stuck: nothing inside or outside can ever settle what it waits for.
  stuck() {
    if (this.state === ANSWERED) {
      const text = "A promise given to waitUntil() can never settle: no timer, no I/O pending.";
      if (this.outcome === OUTCOME_OK) { this.outcome = OUTCOME_EXCEPTION; this.message = text; }
      writeLog(this.id, 3, text);
      this.finish();
      return;
    }
    if (this.state === ANSWERING) {
      this.fail(new Error("The fetch handler can never settle: it awaits a promise that nothing will resolve (no timer, no I/O pending)."));
    } else {
      const e = new Error("The response body can never end: its stream awaits something that nothing will do (no timer, no I/O pending). " +
        "Was close() forgotten?");
      this.pump.stop(e);
      this.bodyFailed(e);
    }
    this.finish();
  }
  // finish ends it, once. What it left behind (timers, bodies) is dead from here on.
  finish() {
    if (this.ended) return;
    this.ended = true;
    waitsPending -= this.waiting;
    this.waiting = 0;
    live.delete(this.id);
    if (this.timers !== undefined && this.timers.size > 0) {
      const all = bareList();
      SetForEach(this.timers, (t) => { all[all.length] = t; });
      for (let i = 0; i < all.length; i++) killTimer(all[i]);
    }
    if (this.socket !== undefined) { if (this.killed) this.socket.forget(); else this.socket.lost(); }
    if (this.killed) { // not even the handlers of what fails
      this.wire?.forget();
      if (this.pump !== undefined) this.pump.stopped = true;
    } else if (this.wire !== undefined) {
      this.wire.fail(new TypeError("The request's body cannot be read any more: the invocation it belongs to has ended."));
    }
    if (this.pump !== undefined && !this.pump.stopped) this.pump.stop(newDOMException("The invocation has ended.", "AbortError"));
    if (this.fetches !== undefined) fetchUnit.get().orphanFetches(this);
    sendFinish(this);
  }
}
bare(Invocation);

// sendFinish reports the end. If the turn's output is full the next turn does.
let unfinished = bareList();
const sendFinish = (inv) => {
  try {
    host.finish(inv.id, inv.outcome, boundMessage(inv.message));
  } catch {
    unfinished[unfinished.length] = inv;
  }
};
const retryFinish = () => {
  if (unfinished.length === 0) return;
  const list = unfinished;
  unfinished = bareList();
  for (let i = 0; i < list.length; i++) sendFinish(list[i]);
};

const boundMessage = (s) => (!readable(s) ? shown(s) : s.length > MESSAGE_LIMIT ? `${StringSlice(s, 0, MESSAGE_LIMIT)}...` : s);

// currentInvocation is the one whose async context runs, or undefined.
const currentInvocation = () => {
  const frame = host.getContext();
  return frame === undefined ? undefined : frame.inv;
};

// finishSettled ends the invocations whose answers are out and that wait for nothing more.
const finishSettled = () => {
  if (settled.length === 0) return;
  const list = settled;
  settled = bareList();
  for (let i = 0; i < list.length; i++) {
    const inv = list[i];
    inv.listed = false;
    if (inv.state === ANSWERED && inv.waiting === 0) inv.finish();
  }
};

// endStuck ends every invocation if nothing in the isolate can wake any: one of them may be waited for
// by the others, so all must be idle.
const endStuck = () => {
  if (live.size === 0 || opsPending > 0 || nextTimer() !== undefined) return;
  if (typeof host.pending === "function" && host.pending()) return;
  const all = bareList();
  MapForEach(live, (inv) => { all[all.length] = inv; });
  for (let i = 0; i < all.length; i++) if (all[i].expectsInput) return;
  for (let i = 0; i < all.length; i++) all[i].stuck();
};

// ExecutionContext is the `ctx` of module handlers (Workers runtime API).
let newExecutionContext;
class ExecutionContext {
  #inv; #props;
  static { newExecutionContext = (inv) => new ExecutionContext(kInternal, inv); }
  constructor() {
    if (arguments[0] !== kInternal) throw illegalConstructor();
    this.#inv = arguments[1];
  }
  waitUntil(promise) {
    const inv = this.#inv;
    needArgs("waitUntil", arguments.length, 1);
    inv.waitUntil(promise);
  }
  passThroughOnException() { this.#inv.passThrough = true; }
  get props() { const { props } = this.#inv; return (this.#props ??= props === undefined ? {} : JSONParse(props)); }
}
defineInterface(ExecutionContext, "ExecutionContext");
