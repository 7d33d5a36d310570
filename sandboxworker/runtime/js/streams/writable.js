// WritableStream and its default controller (https://streams.spec.whatwg.org/#ws-class).

const W_WRITABLE = 0, W_CLOSED = 1, W_ERRORING = 2, W_ERRORED = 3;

class WritableState {
  constructor(wrapper) {
    this.wrapper = wrapper;
    this.state = W_WRITABLE;
    this.error = undefined;
    this.writer = undefined;
    this.controller = undefined;
    this.writeRequests = new Fifo();
    this.inFlightWrite = undefined;
    this.closeRequest = undefined;
    this.inFlightClose = undefined;
    this.pendingAbort = undefined;
    this.backpressure = false;
  }
}
bare(WritableState);

let writableState, isWritableStream;
class WritableStream {
  #s;
  static {
    writableState = (v) => v.#s;
    isWritableStream = (v) => isObject(v) && #s in v;
  }
  constructor(underlyingSink = undefined, strategy = undefined) {
    if (underlyingSink === kInternal) {
      this.#s = new WritableState(this);
      return;
    }
    if (underlyingSink !== undefined && !isObject(underlyingSink)) {
      throw new TypeError("WritableStream: the underlying sink is not an object.");
    }
    const qs = readStrategy(strategy);
    const sink = underlyingSink === undefined ? emptyDictionary : underlyingSink;
    const abort = sink.abort, close = sink.close, start = sink.start, type = sink.type, write = sink.write;
    if (abort !== undefined) toCallback(abort, "The underlying sink's abort");
    if (close !== undefined) toCallback(close, "The underlying sink's close");
    if (start !== undefined) toCallback(start, "The underlying sink's start");
    if (write !== undefined) toCallback(write, "The underlying sink's write");
    if (type !== undefined) throw new RangeError("The underlying sink's type must be undefined.");
    const s = this.#s = new WritableState(this);
    const size = extractSize(qs), highWaterMark = extractHighWaterMark(qs, 1);
    const c = new WritableController();
    setUpWritableController(s, c,
      start === undefined ? undefined : () => ReflectApply(start, sink, [c.wrapper]),
      write === undefined ? undefinedPromise : (chunk) => promiseCall(write, sink, [chunk, c.wrapper]),
      close === undefined ? undefinedPromise : () => promiseCall(close, sink, []),
      abort === undefined ? undefinedPromise : (reason) => promiseCall(abort, sink, [reason]),
      highWaterMark, size);
  }
  get locked() { return this.#s.writer !== undefined; }
  abort(reason = undefined) {
    if (!isWritableStream(this)) return PromiseReject(illegalInvocation());
    if (this.#s.writer !== undefined) return PromiseReject(new TypeError("Cannot abort a stream that is locked to a writer."));
    return writableStreamAbort(this.#s, reason);
  }
  close() {
    if (!isWritableStream(this)) return PromiseReject(illegalInvocation());
    if (this.#s.writer !== undefined) return PromiseReject(new TypeError("Cannot close a stream that is locked to a writer."));
    if (closeQueuedOrInFlight(this.#s)) return PromiseReject(new TypeError("The stream is already closing."));
    return writableStreamClose(this.#s);
  }
  getWriter() { return new WritableStreamDefaultWriter(this); }
}
defineInterface(WritableStream, "WritableStream");

const createWritableStream = (start, write, close, abort, highWaterMark = 1, size = undefined) => {
  const s = writableState(new WritableStream(kInternal));
  setUpWritableController(s, new WritableController(), start, write, close, abort, highWaterMark, size);
  return s;
};

const closeQueuedOrInFlight = (s) => s.closeRequest !== undefined || s.inFlightClose !== undefined;
const hasOperationInFlight = (s) => s.inFlightWrite !== undefined || s.inFlightClose !== undefined;

const writableStreamAbort = (s, reason) => {
  if (s.state === W_CLOSED || s.state === W_ERRORED) return undefinedPromise();
  s.controller.abortController?.abort(reason);
  s.controller.abortReason = { __proto__: null, reason };
  if (s.state === W_CLOSED || s.state === W_ERRORED) return undefinedPromise(); // the signal's listeners may do anything
  if (s.pendingAbort !== undefined) return s.pendingAbort.d.promise;
  let wasErroring = false;
  if (s.state === W_ERRORING) { wasErroring = true; reason = undefined; }
  const d = deferred();
  s.pendingAbort = { __proto__: null, d, reason, wasErroring };
  if (!wasErroring) writableStreamStartErroring(s, reason);
  return d.promise;
};
const writableStreamClose = (s) => {
  if (s.state === W_CLOSED || s.state === W_ERRORED) {
    return PromiseReject(new TypeError("The stream is closed or errored and cannot be closed."));
  }
  const d = s.closeRequest = deferred();
  if (s.writer !== undefined && s.backpressure && s.state === W_WRITABLE) s.writer.ready.resolve(undefined);
  writableControllerClose(s.controller);
  return d.promise;
};
const writableStreamStartErroring = (s, reason) => {
  const c = s.controller;
  s.state = W_ERRORING;
  s.error = reason;
  if (s.writer !== undefined) writerEnsureReadyRejected(s.writer, reason);
  if (!hasOperationInFlight(s) && c.started) writableStreamFinishErroring(s);
};
const writableStreamDealWithRejection = (s, error) => {
  if (s.state === W_WRITABLE) { writableStreamStartErroring(s, error); return; }
  writableStreamFinishErroring(s);
};
const writableStreamFinishErroring = (s) => {
  s.state = W_ERRORED;
  s.controller.queue.reset();
  const stored = s.error;
  while (s.writeRequests.length > 0) s.writeRequests.shift().reject(stored);
  const pending = s.pendingAbort;
  if (pending === undefined) { rejectCloseAndClosed(s); return; }
  s.pendingAbort = undefined;
  if (pending.wasErroring) {
    pending.d.reject(stored);
    rejectCloseAndClosed(s);
    return;
  }
  const c = s.controller;
  const aborted = c.abort(pending.reason);
  writableControllerClear(c);
  PromiseThen(aborted, () => {
    pending.d.resolve(undefined);
    rejectCloseAndClosed(s);
  }, (e) => {
    pending.d.reject(e);
    rejectCloseAndClosed(s);
  });
};
const rejectCloseAndClosed = (s) => {
  if (s.closeRequest !== undefined) {
    s.closeRequest.reject(s.error);
    s.closeRequest = undefined;
  }
  if (s.writer !== undefined) {
    markHandled(s.writer.closed.promise);
    s.writer.closed.reject(s.error);
  }
};
const writableStreamFinishWrite = (s) => { s.inFlightWrite.resolve(undefined); s.inFlightWrite = undefined; };
const writableStreamFinishWriteWithError = (s, e) => {
  s.inFlightWrite.reject(e);
  s.inFlightWrite = undefined;
  writableStreamDealWithRejection(s, e);
};
const writableStreamFinishClose = (s) => {
  s.inFlightClose.resolve(undefined);
  s.inFlightClose = undefined;
  if (s.state === W_ERRORING) {
    s.error = undefined;
    if (s.pendingAbort !== undefined) {
      s.pendingAbort.d.resolve(undefined);
      s.pendingAbort = undefined;
    }
  }
  s.state = W_CLOSED;
  if (s.writer !== undefined) s.writer.closed.resolve(undefined);
};
const writableStreamFinishCloseWithError = (s, e) => {
  s.inFlightClose.reject(e);
  s.inFlightClose = undefined;
  if (s.pendingAbort !== undefined) {
    s.pendingAbort.d.reject(e);
    s.pendingAbort = undefined;
  }
  writableStreamDealWithRejection(s, e);
};
const writableStreamUpdateBackpressure = (s, backpressure) => {
  if (s.writer !== undefined && backpressure !== s.backpressure) {
    if (backpressure) s.writer.ready = deferred(); else s.writer.ready.resolve(undefined);
  }
  s.backpressure = backpressure;
};

const kClose = ObjectFreeze({ __proto__: null }); // the close sentinel in the queue

class WritableController {
  constructor() {
    this.stream = undefined;
    this.queue = new SizedQueue();
    this.started = false;
    this.highWaterMark = 0;
    this.size = undefined;
    this.write = this.close = this.abort = undefined;
    this.abortController = undefined; // made when the signal is asked for
    this.abortReason = undefined;
    this.shell = undefined;
  }
  get wrapper() { return (this.shell ??= new WritableStreamDefaultController(kInternal, this)); }
}
bare(WritableController);

const writableControllerClear = (c) => { c.write = c.close = c.abort = c.size = undefined; };
const writableControllerDesiredSize = (c) => c.highWaterMark - c.queue.total;
const writableControllerBackpressure = (c) => writableControllerDesiredSize(c) <= 0;
const setUpWritableController = (s, c, start, write, close, abort, highWaterMark, size) => {
  c.stream = s;
  s.controller = c;
  c.size = size;
  c.highWaterMark = highWaterMark;
  c.write = write;
  c.close = close;
  c.abort = abort;
  writableStreamUpdateBackpressure(s, writableControllerBackpressure(c));
  const started = start === undefined ? undefined : start();
  PromiseThen(PromiseResolve(started), () => {
    c.started = true;
    writableControllerAdvance(c);
  }, (e) => {
    c.started = true;
    writableStreamDealWithRejection(s, e);
  });
};
const writableControllerClose = (c) => {
  c.queue.push(kClose, 0);
  writableControllerAdvance(c);
};
const writableControllerChunkSize = (c, chunk) => {
  if (c.size === undefined) return 1;
  try { return c.size(chunk); } catch (e) {
    writableControllerErrorIfNeeded(c, e);
    return 1;
  }
};
const writableControllerWrite = (c, chunk, size) => {
  try { c.queue.push(chunk, size); } catch (e) {
    writableControllerErrorIfNeeded(c, e);
    return;
  }
  const s = c.stream;
  if (!closeQueuedOrInFlight(s) && s.state === W_WRITABLE) {
    writableStreamUpdateBackpressure(s, writableControllerBackpressure(c));
  }
  writableControllerAdvance(c);
};
const writableControllerAdvance = (c) => {
  const s = c.stream;
  if (!c.started || s.inFlightWrite !== undefined) return;
  if (s.state === W_CLOSED || s.state === W_ERRORED) return;
  if (s.state === W_ERRORING) { writableStreamFinishErroring(s); return; }
  if (c.queue.length === 0) return;
  const value = c.queue.peek();
  if (value === kClose) writableControllerProcessClose(c); else writableControllerProcessWrite(c, value);
};
const writableControllerProcessClose = (c) => {
  const s = c.stream;
  s.inFlightClose = s.closeRequest;
  s.closeRequest = undefined;
  c.queue.shift();
  const closed = c.close();
  writableControllerClear(c);
  PromiseThen(closed, () => writableStreamFinishClose(s), (e) => writableStreamFinishCloseWithError(s, e));
};
const writableControllerProcessWrite = (c, chunk) => {
  const s = c.stream;
  s.inFlightWrite = s.writeRequests.shift();
  PromiseThen(c.write(chunk), () => {
    writableStreamFinishWrite(s);
    const { state } = s;
    c.queue.shift();
    if (!closeQueuedOrInFlight(s) && state === W_WRITABLE) {
      writableStreamUpdateBackpressure(s, writableControllerBackpressure(c));
    }
    writableControllerAdvance(c);
  }, (e) => {
    if (s.state === W_WRITABLE) writableControllerClear(c);
    writableStreamFinishWriteWithError(s, e);
  });
};
const writableControllerErrorIfNeeded = (c, e) => { if (c.stream.state === W_WRITABLE) writableControllerError(c, e); };
const writableControllerError = (c, e) => {
  const s = c.stream;
  writableControllerClear(c);
  writableStreamStartErroring(s, e);
};
