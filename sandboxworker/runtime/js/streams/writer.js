// WritableStreamDefaultWriter (https://streams.spec.whatwg.org/#default-writer-class) and the
// controller a sink sees (https://streams.spec.whatwg.org/#ws-default-controller-class).

class WriterState {
  constructor() { this.stream = undefined; this.closed = undefined; this.ready = undefined; }
}
bare(WriterState);

const rejectedDeferred = (error) => {
  const d = deferred();
  markHandled(d.promise);
  d.reject(error);
  return d;
};
const resolvedDeferred = () => { const d = deferred(); d.resolve(undefined); return d; };

const acquireWriter = (s) => {
  if (s.writer !== undefined) throw new TypeError("The stream is already locked to a writer.");
  const w = new WriterState();
  w.stream = s;
  s.writer = w;
  if (s.state === W_WRITABLE) {
    w.ready = !closeQueuedOrInFlight(s) && s.backpressure ? deferred() : resolvedDeferred();
    w.closed = deferred();
  } else if (s.state === W_ERRORING) {
    w.ready = rejectedDeferred(s.error);
    w.closed = deferred();
  } else if (s.state === W_CLOSED) {
    w.ready = resolvedDeferred();
    w.closed = resolvedDeferred();
  } else {
    w.ready = rejectedDeferred(s.error);
    w.closed = rejectedDeferred(s.error);
  }
  return w;
};
// A promise already settled cannot be rejected again: a new one takes its place.
const rejectOrReplace = (w, field, error) => {
  const d = w[field];
  if (host.promiseDetails(d.promise)[0] === 0) {
    markHandled(d.promise);
    d.reject(error);
  } else {
    w[field] = rejectedDeferred(error);
  }
};
const writerEnsureReadyRejected = (w, error) => rejectOrReplace(w, "ready", error);
const writerRelease = (w) => {
  const s = w.stream;
  if (s === undefined) return;
  const error = new TypeError("The writer was released and can no longer be used to monitor the stream.");
  rejectOrReplace(w, "ready", error);
  rejectOrReplace(w, "closed", error);
  s.writer = undefined;
  w.stream = undefined;
};
const writerCloseWithErrorPropagation = (w) => {
  const s = w.stream;
  if (closeQueuedOrInFlight(s) || s.state === W_CLOSED) return undefinedPromise();
  if (s.state === W_ERRORED) return PromiseReject(s.error);
  return writableStreamClose(s);
};
const writerWrite = (w, chunk) => {
  const s = w.stream;
  const c = s.controller;
  const size = writableControllerChunkSize(c, chunk);
  if (s !== w.stream) return PromiseReject(new TypeError("The writer was released."));
  if (s.state === W_ERRORED) return PromiseReject(s.error);
  if (closeQueuedOrInFlight(s) || s.state === W_CLOSED) {
    return PromiseReject(new TypeError("The stream is closing or closed and cannot be written to."));
  }
  if (s.state === W_ERRORING) return PromiseReject(s.error);
  const d = deferred();
  s.writeRequests.push(d);
  writableControllerWrite(c, chunk, size);
  return d.promise;
};

const writerReleased = () => new TypeError("The writer was released.");
let isWriter;
class WritableStreamDefaultWriter {
  #w;
  static { isWriter = (v) => isObject(v) && #w in v; }
  constructor(stream) {
    needArgs("WritableStreamDefaultWriter constructor", arguments.length, 1);
    if (!isWritableStream(stream)) throw new TypeError("WritableStreamDefaultWriter: the argument is not a WritableStream.");
    this.#w = acquireWriter(writableState(stream));
  }
  get closed() { return isWriter(this) ? this.#w.closed.promise : PromiseReject(illegalInvocation()); }
  get desiredSize() {
    const s = this.#w.stream;
    if (s === undefined) throw writerReleased();
    if (s.state === W_ERRORED || s.state === W_ERRORING) return null;
    return s.state === W_CLOSED ? 0 : writableControllerDesiredSize(s.controller);
  }
  get ready() { return isWriter(this) ? this.#w.ready.promise : PromiseReject(illegalInvocation()); }
  abort(reason = undefined) {
    if (!isWriter(this)) return PromiseReject(illegalInvocation());
    return this.#w.stream === undefined ? PromiseReject(writerReleased()) : writableStreamAbort(this.#w.stream, reason);
  }
  close() {
    if (!isWriter(this)) return PromiseReject(illegalInvocation());
    const s = this.#w.stream;
    if (s === undefined) return PromiseReject(writerReleased());
    if (closeQueuedOrInFlight(s)) return PromiseReject(new TypeError("The stream is already closing."));
    return writableStreamClose(s);
  }
  releaseLock() { writerRelease(this.#w); }
  write(chunk = undefined) {
    if (!isWriter(this)) return PromiseReject(illegalInvocation());
    return this.#w.stream === undefined ? PromiseReject(writerReleased()) : writerWrite(this.#w, chunk);
  }
}
defineInterface(WritableStreamDefaultWriter, "WritableStreamDefaultWriter");

class WritableStreamDefaultController {
  #c;
  constructor() {
    if (arguments[0] !== kInternal) throw illegalConstructor();
    this.#c = arguments[1];
  }
  get signal() {
    const c = this.#c;
    if (c.abortController === undefined) {
      const { newSignal, signalAbort } = eventsUnit.get();
      const signal = newSignal();
      c.abortController = { __proto__: null, signal, abort: (reason) => signalAbort(signal, reason) };
      if (c.abortReason !== undefined) signalAbort(signal, c.abortReason.reason);
    }
    return c.abortController.signal;
  }
  error(e = undefined) {
    const c = this.#c;
    if (c.stream.state === W_WRITABLE) writableControllerError(c, e);
  }
}
defineInterface(WritableStreamDefaultController, "WritableStreamDefaultController");
