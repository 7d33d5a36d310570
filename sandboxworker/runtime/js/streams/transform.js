// TransformStream (https://streams.spec.whatwg.org/#ts-class).

class TransformState {
  constructor() {
    this.readable = undefined;
    this.writable = undefined;
    this.controller = undefined;
    this.backpressure = undefined;
    this.change = undefined; // deferred of the next change of backpressure
  }
}
bare(TransformState);

class TransformController {
  constructor() {
    this.stream = undefined;
    this.transform = this.flush = this.cancel = undefined;
    this.finish = undefined; // deferred, once closing, aborting or cancelling has begun
    this.shell = undefined;
  }
  get wrapper() { return (this.shell ??= new TransformStreamDefaultController(kInternal, this)); }
}
bare(TransformController);

let transformState, isTransformStream;
class TransformStream {
  #t;
  static {
    transformState = (v) => v.#t;
    isTransformStream = (v) => isObject(v) && #t in v;
  }
  constructor(transformer = undefined, writableStrategy = undefined, readableStrategy = undefined) {
    if (transformer === kInternal) { this.#t = writableStrategy; return; }
    if (transformer !== undefined && !isObject(transformer)) {
      throw new TypeError("TransformStream: the transformer is not an object.");
    }
    const ws = readStrategy(writableStrategy), rs = readStrategy(readableStrategy);
    const d = transformer === undefined ? emptyDictionary : transformer;
    const cancel = d.cancel, flush = d.flush, readableType = d.readableType, start = d.start, transform = d.transform,
      writableType = d.writableType;
    if (cancel !== undefined) toCallback(cancel, "The transformer's cancel");
    if (flush !== undefined) toCallback(flush, "The transformer's flush");
    if (start !== undefined) toCallback(start, "The transformer's start");
    if (transform !== undefined) toCallback(transform, "The transformer's transform");
    if (readableType !== undefined) throw new RangeError("The transformer's readableType must be undefined.");
    if (writableType !== undefined) throw new RangeError("The transformer's writableType must be undefined.");
    const readableHWM = extractHighWaterMark(rs, 0), readableSize = extractSize(rs);
    const writableHWM = extractHighWaterMark(ws, 1), writableSize = extractSize(ws);
    const started = deferred();
    const t = this.#t = initializeTransform(() => started.promise, writableHWM, writableSize, readableHWM, readableSize);
    const c = setUpTransformController(t,
      transform === undefined ? undefined : (chunk, controller) => promiseCall(transform, d, [chunk, controller.wrapper]),
      flush === undefined ? undefinedPromise : (controller) => promiseCall(flush, d, [controller.wrapper]),
      cancel === undefined ? undefinedPromise : (reason) => promiseCall(cancel, d, [reason]));
    started.resolve(start === undefined ? undefined : ReflectApply(start, d, [c.wrapper]));
  }
  get readable() { return this.#t.readable.wrapper; }
  get writable() { return this.#t.writable.wrapper; }
}
defineInterface(TransformStream, "TransformStream");

// createTransform makes a transform whose algorithms are the runtime's own; each returns a promise
// or throws. It returns the state.
const createTransform = (transform, flush, cancel, writableHWM = 1, readableHWM = 0) => {
  const t = initializeTransform(undefined, writableHWM, undefined, readableHWM, undefined);
  const guard = (f) => (f === undefined ? undefinedPromise : (a, b) => {
    try { return PromiseResolve(f(a, b)); } catch (e) { return PromiseReject(e); }
  });
  setUpTransformController(t, guard(transform), guard(flush), guard(cancel));
  return t;
};

const initializeTransform = (start, writableHWM, writableSize, readableHWM, readableSize) => {
  const t = new TransformState();
  t.writable = createWritableStream(start, (chunk) => transformSinkWrite(t, chunk), () => transformSinkClose(t),
    (reason) => transformSinkAbort(t, reason), writableHWM, writableSize);
  t.readable = createReadableStream(start, () => {
    transformSetBackpressure(t, false);
    return t.change.promise;
  }, (reason) => transformSourceCancel(t, reason), readableHWM, readableSize);
  transformSetBackpressure(t, true);
  return t;
};
const setUpTransformController = (t, transform, flush, cancel) => {
  const c = new TransformController();
  c.stream = t;
  t.controller = c;
  c.transform = transform === undefined ? (chunk) => {
    try { transformEnqueue(c, chunk); return undefinedPromise(); } catch (e) { return PromiseReject(e); }
  } : (chunk) => transform(chunk, c);
  c.flush = () => flush(c);
  c.cancel = cancel;
  return c;
};
const transformClear = (c) => { c.transform = c.flush = c.cancel = undefined; };
const transformError = (t, e) => {
  defaultControllerError(t.readable.controller, e);
  transformErrorWritable(t, e);
};
const transformErrorWritable = (t, e) => {
  transformClear(t.controller);
  writableControllerErrorIfNeeded(t.writable.controller, e);
  transformUnblockWrite(t);
};
const transformUnblockWrite = (t) => { if (t.backpressure) transformSetBackpressure(t, false); };
const transformSetBackpressure = (t, backpressure) => {
  if (t.change !== undefined) t.change.resolve(undefined);
  t.change = deferred();
  t.backpressure = backpressure;
};
const transformEnqueue = (c, chunk) => {
  const t = c.stream;
  const rc = t.readable.controller;
  if (!defaultControllerCanCloseOrEnqueue(rc)) throw new TypeError("The readable side is not in a state that permits enqueue.");
  try { defaultControllerEnqueue(rc, chunk); } catch (e) {
    transformErrorWritable(t, e);
    throw t.readable.error;
  }
  const backpressure = !defaultControllerShouldPull(rc);
  if (backpressure !== t.backpressure) transformSetBackpressure(t, true);
};
const transformPerform = (c, chunk) => PromiseThen(c.transform(chunk), undefined, (e) => {
  transformError(c.stream, e);
  throw e;
});
const transformTerminate = (c) => {
  const t = c.stream;
  defaultControllerClose(t.readable.controller);
  transformErrorWritable(t, new TypeError("The transform stream was terminated."));
};

const transformSinkWrite = (t, chunk) => {
  const c = t.controller;
  if (!t.backpressure) return transformPerform(c, chunk);
  return PromiseThen(t.change.promise, () => {
    const w = t.writable;
    if (w.state === W_ERRORING) throw w.error;
    return transformPerform(c, chunk);
  });
};
const transformSinkAbort = (t, reason) => {
  const c = t.controller;
  if (c.finish !== undefined) return c.finish.promise;
  const { readable } = t;
  c.finish = deferred();
  const canceled = c.cancel(reason);
  transformClear(c);
  PromiseThen(canceled, () => {
    if (readable.state === ERRORED) {
      c.finish.reject(readable.error);
    } else {
      defaultControllerError(readable.controller, reason);
      c.finish.resolve(undefined);
    }
  }, (e) => {
    defaultControllerError(readable.controller, e);
    c.finish.reject(e);
  });
  return c.finish.promise;
};
const transformSinkClose = (t) => {
  const c = t.controller;
  if (c.finish !== undefined) return c.finish.promise;
  const { readable } = t;
  c.finish = deferred();
  const flushed = c.flush();
  transformClear(c);
  PromiseThen(flushed, () => {
    if (readable.state === ERRORED) {
      c.finish.reject(readable.error);
    } else {
      defaultControllerClose(readable.controller);
      c.finish.resolve(undefined);
    }
  }, (e) => {
    defaultControllerError(readable.controller, e);
    c.finish.reject(e);
  });
  return c.finish.promise;
};
const transformSourceCancel = (t, reason) => {
  const c = t.controller;
  if (c.finish !== undefined) return c.finish.promise;
  const { writable } = t;
  c.finish = deferred();
  const canceled = c.cancel(reason);
  transformClear(c);
  PromiseThen(canceled, () => {
    if (writable.state === W_ERRORED) {
      c.finish.reject(writable.error);
    } else {
      writableControllerErrorIfNeeded(writable.controller, reason);
      transformUnblockWrite(t);
      c.finish.resolve(undefined);
    }
  }, (e) => {
    writableControllerErrorIfNeeded(writable.controller, e);
    transformUnblockWrite(t);
    c.finish.reject(e);
  });
  return c.finish.promise;
};

class TransformStreamDefaultController {
  #c;
  constructor() {
    if (arguments[0] !== kInternal) throw illegalConstructor();
    this.#c = arguments[1];
  }
  get desiredSize() { return defaultControllerDesiredSize(this.#c.stream.readable.controller); }
  enqueue(chunk = undefined) { transformEnqueue(this.#c, chunk); }
  error(reason = undefined) { transformError(this.#c.stream, reason); }
  terminate() { transformTerminate(this.#c); }
}
defineInterface(TransformStreamDefaultController, "TransformStreamDefaultController");
