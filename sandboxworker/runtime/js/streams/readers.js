// The readers (https://streams.spec.whatwg.org/#default-reader-class, #byob-reader-class) and the
// async iterator of a stream (https://streams.spec.whatwg.org/#rs-asynciterator).

class ReaderState {
  constructor(byob) {
    this.byob = byob;
    this.stream = undefined;
    this.closed = undefined;
    this.requests = new Fifo();
  }
}
bare(ReaderState);

// A read request of `read()`; internal readers bring records of their own with the same methods.
class PromiseReadRequest {
  constructor(d) { this.d = d; }
  chunk(value) { this.d.resolve({ value, done: false }); }
  close(value) { this.d.resolve({ value, done: true }); }
  error(e) { this.d.reject(e); }
}
bare(PromiseReadRequest);

const readerInitialize = (r, s) => {
  r.stream = s;
  s.reader = r;
  r.closed = deferred();
  if (s.state === CLOSED) {
    r.closed.resolve(undefined);
  } else if (s.state === ERRORED) {
    markHandled(r.closed.promise);
    r.closed.reject(s.error);
  }
};
const acquireDefaultReader = (s) => {
  if (s.reader !== undefined) throw new TypeError("The stream is already locked to a reader.");
  const r = new ReaderState(false);
  readerInitialize(r, s);
  return r;
};
const acquireBYOBReader = (s) => {
  if (s.reader !== undefined) throw new TypeError("The stream is already locked to a reader.");
  if (!(s.controller instanceof ByteController)) {
    throw new TypeError("A BYOB reader needs a stream constructed with type \"bytes\".");
  }
  const r = new ReaderState(true);
  readerInitialize(r, s);
  return r;
};

const readerGenericRelease = (r) => {
  const s = r.stream;
  const error = new TypeError("The reader was released and can no longer be used to read from or monitor the stream.");
  if (s.state === READABLE) {
    markHandled(r.closed.promise);
    r.closed.reject(error);
  } else {
    r.closed = deferred();
    markHandled(r.closed.promise);
    r.closed.reject(error);
  }
  s.controller.releaseSteps();
  s.reader = undefined;
  r.stream = undefined;
};
const readerRelease = (r) => {
  if (r.stream === undefined) return;
  readerGenericRelease(r);
  errorReadRequests(r, new TypeError("The reader was released while a read was pending."));
};
const readerCancel = (r, reason) => readableStreamCancel(r.stream, reason);

// defaultReaderRead: request has chunk(value), close(), error(e).
const defaultReaderRead = (r, request) => {
  const s = r.stream;
  s.disturbed = true;
  if (s.state === CLOSED) request.close();
  else if (s.state === ERRORED) request.error(s.error);
  else s.controller.pullSteps(request);
};
const byobReaderRead = (r, view, min, request) => {
  const s = r.stream;
  s.disturbed = true;
  if (s.state === ERRORED) request.error(s.error);
  else byteControllerPullInto(s.controller, view, min, request);
};

const releasedError = () => new TypeError("The reader was released.");

let isDefaultReader;
class ReadableStreamDefaultReader {
  #r;
  static { isDefaultReader = (v) => isObject(v) && #r in v; }
  constructor(stream) {
    needArgs("ReadableStreamDefaultReader constructor", arguments.length, 1);
    if (!isReadableStream(stream)) throw new TypeError("ReadableStreamDefaultReader: the argument is not a ReadableStream.");
    this.#r = acquireDefaultReader(readableState(stream));
  }
  get closed() { return isDefaultReader(this) ? this.#r.closed.promise : PromiseReject(illegalInvocation()); }
  cancel(reason = undefined) {
    if (!isDefaultReader(this)) return PromiseReject(illegalInvocation());
    return this.#r.stream === undefined ? PromiseReject(releasedError()) : readerCancel(this.#r, reason);
  }
  read() {
    if (!isDefaultReader(this)) return PromiseReject(illegalInvocation());
    if (this.#r.stream === undefined) return PromiseReject(releasedError());
    const d = deferred();
    defaultReaderRead(this.#r, new PromiseReadRequest(d));
    return d.promise;
  }
  releaseLock() { readerRelease(this.#r); }
}
defineInterface(ReadableStreamDefaultReader, "ReadableStreamDefaultReader");

let isBYOBReader;
class ReadableStreamBYOBReader {
  #r;
  static { isBYOBReader = (v) => isObject(v) && #r in v; }
  constructor(stream) {
    needArgs("ReadableStreamBYOBReader constructor", arguments.length, 1);
    if (!isReadableStream(stream)) throw new TypeError("ReadableStreamBYOBReader: the argument is not a ReadableStream.");
    this.#r = acquireBYOBReader(readableState(stream));
  }
  get closed() { return isBYOBReader(this) ? this.#r.closed.promise : PromiseReject(illegalInvocation()); }
  cancel(reason = undefined) {
    if (!isBYOBReader(this)) return PromiseReject(illegalInvocation());
    return this.#r.stream === undefined ? PromiseReject(releasedError()) : readerCancel(this.#r, reason);
  }
  read(view, options = undefined) {
    if (!isBYOBReader(this)) return PromiseReject(illegalInvocation());
    try {
      needArgs("ReadableStreamBYOBReader.read", arguments.length, 1);
      if (!ArrayBufferIsView(view)) throw new TypeError("read: the argument is not a view on an ArrayBuffer.");
      const d = toDictionary(options, "read options");
      const given = d.min;
      const min = given === undefined ? 1 : toEnforced(given, "read option min");
      const tag = TypedArrayTag(view);
      const buffer = tag === undefined ? DataViewBuffer(view) : TypedArrayBuffer(view);
      if (!isArrayBuffer(buffer)) throw new TypeError("read: the view is on a SharedArrayBuffer.");
      if (viewByteLength(view) === 0) throw new TypeError("read: the view has no room.");
      if (ArrayBufferByteLength(buffer) === 0) throw new TypeError("read: the view's buffer is empty or detached.");
      if (min === 0) throw new TypeError("read: min must be greater than 0.");
      if (min > (tag === undefined ? DataViewByteLength(view) : TypedArrayLength(view))) {
        throw new RangeError("read: min is greater than the view.");
      }
      if (this.#r.stream === undefined) throw releasedError();
      const p = deferred();
      byobReaderRead(this.#r, view, min, new PromiseReadRequest(p));
      return p.promise;
    } catch (error) {
      return PromiseReject(error);
    }
  }
  releaseLock() { readerRelease(this.#r); }
}
defineInterface(ReadableStreamBYOBReader, "ReadableStreamBYOBReader");

const viewByteLength = (view) => (TypedArrayTag(view) === undefined ? DataViewByteLength(view) : TypedArrayByteLength(view));
const viewByteOffset = (view) => (TypedArrayTag(view) === undefined ? DataViewByteOffset(view) : TypedArrayByteOffset(view));
const viewBuffer = (view) => (TypedArrayTag(view) === undefined ? DataViewBuffer(view) : TypedArrayBuffer(view));

// StreamIterator follows Web IDL's default asynchronous iterator: calls queue behind each other.
class StreamIterator {
  #reader; #preventCancel; #ongoing = undefined; #finished = false;
  constructor(reader, preventCancel) { this.#reader = reader; this.#preventCancel = preventCancel; }
  #chain(step) {
    const p = this.#ongoing === undefined ? step() : PromiseThen(this.#ongoing, step, step);
    this.#ongoing = p;
    return p;
  }
  #nextStep() {
    if (this.#finished) return PromiseResolve({ value: undefined, done: true });
    const d = deferred();
    defaultReaderRead(this.#reader, {
      __proto__: null,
      chunk: (value) => { this.#ongoing = undefined; d.resolve({ value, done: false }); },
      close: () => {
        this.#ongoing = undefined;
        this.#finished = true;
        readerRelease(this.#reader);
        d.resolve({ value: undefined, done: true });
      },
      error: (e) => {
        this.#ongoing = undefined;
        this.#finished = true;
        readerRelease(this.#reader);
        d.reject(e);
      },
    });
    return d.promise;
  }
  next() {
    if (!(isObject(this) && #reader in this)) return PromiseReject(illegalInvocation());
    return this.#chain(() => this.#nextStep());
  }
  return(value) {
    if (!(isObject(this) && #reader in this)) return PromiseReject(illegalInvocation());
    return this.#chain(() => {
      if (this.#finished) return PromiseResolve({ value, done: true });
      this.#finished = true;
      const r = this.#reader;
      if (this.#preventCancel) {
        readerRelease(r);
        return PromiseResolve({ value, done: true });
      }
      const canceled = readerCancel(r, value);
      readerRelease(r);
      return PromiseThen(canceled, () => ({ value, done: true }));
    });
  }
}
delete StreamIterator.prototype.constructor;
ObjectSetPrototypeOf(StreamIterator.prototype, AsyncIteratorPrototype);
ObjectDefineProperty(StreamIterator.prototype, "next", { __proto__: null, enumerable: true });
ObjectDefineProperty(StreamIterator.prototype, "return", { __proto__: null, enumerable: true });
ObjectDefineProperty(StreamIterator.prototype, SymbolToStringTag,
  { __proto__: null, value: "ReadableStream AsyncIterator", configurable: true });
