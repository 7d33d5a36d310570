// ReadableStream (https://streams.spec.whatwg.org/#rs-class) and its abstract operations.

class ReadableState {
  constructor(wrapper) {
    this.wrapper = wrapper;
    this.state = READABLE;
    this.reader = undefined;
    this.error = undefined;
    this.disturbed = false;
    this.controller = undefined;
    this.content = undefined; // the string or the bytes that it was made of, if it was
  }
}
bare(ReadableState);

let readableState, isReadableStream;
class ReadableStream {
  #s;
  static {
    readableState = (v) => v.#s;
    isReadableStream = (v) => isObject(v) && #s in v;
  }
  constructor(underlyingSource = undefined, strategy = undefined) {
    if (underlyingSource === kInternal) {
      this.#s = new ReadableState(this);
      return;
    }
    if (underlyingSource !== undefined && !isObject(underlyingSource)) {
      throw new TypeError("ReadableStream: the underlying source is not an object.");
    }
    const qs = readStrategy(strategy);
    const source = readSource(underlyingSource === undefined ? emptyDictionary : underlyingSource);
    const s = this.#s = new ReadableState(this);
    if (source.type === "bytes") {
      if (qs.size !== undefined) throw new RangeError("A byte stream's strategy must not have a size function.");
      setUpByteControllerFromSource(s, underlyingSource, source, extractHighWaterMark(qs, 0));
    } else {
      const size = extractSize(qs);
      setUpDefaultControllerFromSource(s, underlyingSource, source, extractHighWaterMark(qs, 1), size);
    }
  }
  static from(asyncIterable) {
    needArgs("ReadableStream.from", arguments.length, 1);
    return readableStreamFromIterable(asyncIterable);
  }
  get locked() { return this.#s.reader !== undefined; }
  cancel(reason = undefined) {
    if (!isReadableStream(this)) return PromiseReject(illegalInvocation());
    if (this.#s.reader !== undefined) return PromiseReject(new TypeError("Cannot cancel a stream that is locked to a reader."));
    return readableStreamCancel(this.#s, reason);
  }
  getReader(options = undefined) {
    const s = this.#s;
    const mode = toDictionary(options, "getReader options").mode;
    if (mode === undefined) return new ReadableStreamDefaultReader(this);
    if (toDOMString(mode) !== "byob") throw new TypeError(`getReader: the mode '${toDOMString(mode)}' is not "byob".`);
    void s;
    return new ReadableStreamBYOBReader(this);
  }
  pipeThrough(transform, options = undefined) {
    const s = this.#s;
    needArgs("pipeThrough", arguments.length, 1);
    if (!isObject(transform)) throw new TypeError("pipeThrough: the transform is not an object.");
    const readable = transform.readable;
    if (!isReadableStream(readable)) throw new TypeError("pipeThrough: transform.readable is not a ReadableStream.");
    const writable = transform.writable;
    if (!isWritableStream(writable)) throw new TypeError("pipeThrough: transform.writable is not a WritableStream.");
    const o = readPipeOptions(options);
    if (s.reader !== undefined) throw new TypeError("pipeThrough: the readable stream is locked.");
    if (writableState(writable).writer !== undefined) throw new TypeError("pipeThrough: the writable stream is locked.");
    markHandled(readableStreamPipeTo(s, writableState(writable), o));
    return readable;
  }
  pipeTo(destination, options = undefined) {
    if (!isReadableStream(this)) return PromiseReject(illegalInvocation());
    let o;
    try {
      needArgs("pipeTo", arguments.length, 1);
      if (!isWritableStream(destination)) throw new TypeError("pipeTo: the destination is not a WritableStream.");
      o = readPipeOptions(options);
    } catch (error) {
      return PromiseReject(error);
    }
    if (this.#s.reader !== undefined) return PromiseReject(new TypeError("pipeTo: the readable stream is locked."));
    if (writableState(destination).writer !== undefined) return PromiseReject(new TypeError("pipeTo: the writable stream is locked."));
    return readableStreamPipeTo(this.#s, writableState(destination), o);
  }
  tee() {
    const { a, b } = readableStreamTee(this.#s, false);
    return [a.wrapper, b.wrapper];
  }
  values(options = undefined) {
    const s = this.#s;
    const preventCancel = !!toDictionary(options, "values options").preventCancel;
    return new StreamIterator(acquireDefaultReader(s), preventCancel);
  }
}
defineInterface(ReadableStream, "ReadableStream");
alias(ReadableStream, SymbolAsyncIterator, "values");

const readSource = (d) => {
  const auto = d.autoAllocateChunkSize;
  const out = { __proto__: null, autoAllocateChunkSize: auto === undefined ? undefined : toEnforced(auto, "autoAllocateChunkSize") };
  const cancel = d.cancel, pull = d.pull, start = d.start, type = d.type;
  if (cancel !== undefined) out.cancel = toCallback(cancel, "The underlying source's cancel");
  if (pull !== undefined) out.pull = toCallback(pull, "The underlying source's pull");
  if (start !== undefined) out.start = toCallback(start, "The underlying source's start");
  if (type !== undefined) {
    out.type = toDOMString(type);
    if (out.type !== "bytes") throw new TypeError(`The underlying source's type '${out.type}' is not "bytes".`);
  }
  return out;
};

const readPipeOptions = (options) => {
  const d = toDictionary(options, "The pipe options");
  const preventAbort = !!d.preventAbort, preventCancel = !!d.preventCancel, preventClose = !!d.preventClose;
  const signal = d.signal;
  if (signal !== undefined && !(eventsUnit.loaded && eventsUnit.get().isAbortSignal(signal))) {
    throw new TypeError("The pipe option signal is not an AbortSignal.");
  }
  return { __proto__: null, preventAbort, preventCancel, preventClose, signal };
};

// createReadableStream and createByteStream make streams whose algorithms are the runtime's own
// (https://streams.spec.whatwg.org/#create-readable-stream). They return the state.
const createReadableStream = (start, pull, cancel, highWaterMark = 1, size = undefined) => {
  const s = readableState(new ReadableStream(kInternal));
  setUpDefaultController(s, new DefaultController(), start, pull, cancel, highWaterMark, size);
  return s;
};
const createByteStream = (start, pull, cancel, highWaterMark = 0) => {
  const s = readableState(new ReadableStream(kInternal));
  setUpByteController(s, new ByteController(), start, pull, cancel, highWaterMark, undefined);
  return s;
};

const readableStreamCancel = (s, reason) => {
  s.disturbed = true;
  if (s.state === CLOSED) return undefinedPromise();
  if (s.state === ERRORED) return PromiseReject(s.error);
  readableStreamClose(s);
  const reader = s.reader;
  if (reader !== undefined && reader.byob) {
    const requests = reader.requests;
    reader.requests = new Fifo();
    while (requests.length > 0) requests.shift().close(undefined);
  }
  return PromiseThen(s.controller.cancelSteps(reason), noop);
};

const readableStreamClose = (s) => {
  s.state = CLOSED;
  const reader = s.reader;
  if (reader === undefined) return;
  reader.closed.resolve(undefined);
  if (!reader.byob) {
    const requests = reader.requests;
    reader.requests = new Fifo();
    while (requests.length > 0) requests.shift().close();
  }
};

const readableStreamError = (s, error) => {
  s.state = ERRORED;
  s.error = error;
  const reader = s.reader;
  if (reader === undefined) return;
  markHandled(reader.closed.promise);
  reader.closed.reject(error);
  errorReadRequests(reader, error);
};

const errorReadRequests = (reader, error) => {
  const requests = reader.requests;
  reader.requests = new Fifo();
  while (requests.length > 0) requests.shift().error(error);
};

const fulfillReadRequest = (s, chunk, done) => {
  const request = s.reader.requests.shift();
  if (done) request.close(); else request.chunk(chunk);
};
const fulfillReadIntoRequest = (s, chunk, done) => {
  const request = s.reader.requests.shift();
  if (done) request.close(chunk); else request.chunk(chunk);
};
const numReadRequests = (s) => s.reader.requests.length;
const hasDefaultReader = (s) => s.reader !== undefined && !s.reader.byob;
const hasBYOBReader = (s) => s.reader !== undefined && s.reader.byob;
