// ReadableStreamDefaultController (https://streams.spec.whatwg.org/#rs-default-controller-class).

class DefaultController {
  constructor() {
    this.stream = undefined;
    this.queue = new SizedQueue();
    this.started = false;
    this.closeRequested = false;
    this.pullAgain = false;
    this.pulling = false;
    this.highWaterMark = 0;
    this.size = undefined; // undefined: every chunk is 1
    this.pull = undefined;
    this.cancel = undefined;
    this.shell = undefined;
  }
  get wrapper() { return (this.shell ??= new ReadableStreamDefaultController(kInternal, this)); }
  cancelSteps(reason) {
    this.queue.reset();
    const cancel = this.cancel;
    defaultControllerClear(this);
    return cancel === undefined ? undefinedPromise() : cancel(reason);
  }
  pullSteps(request) {
    const s = this.stream;
    if (this.queue.length > 0) {
      const chunk = this.queue.shift();
      if (this.closeRequested && this.queue.length === 0) {
        defaultControllerClear(this);
        readableStreamClose(s);
      } else {
        defaultControllerCallPull(this);
      }
      request.chunk(chunk);
    } else {
      s.reader.requests.push(request);
      defaultControllerCallPull(this);
    }
  }
  releaseSteps() {}
}
bare(DefaultController);

const defaultControllerClear = (c) => { c.pull = undefined; c.cancel = undefined; c.size = undefined; };
const defaultControllerDesiredSize = (c) => {
  const { state } = c.stream;
  return state === ERRORED ? null : state === CLOSED ? 0 : c.highWaterMark - c.queue.total;
};
const defaultControllerCanCloseOrEnqueue = (c) => !c.closeRequested && c.stream.state === READABLE;
const defaultControllerShouldPull = (c) => {
  const s = c.stream;
  if (!defaultControllerCanCloseOrEnqueue(c) || !c.started) return false;
  if (s.reader !== undefined && numReadRequests(s) > 0) return true;
  return defaultControllerDesiredSize(c) > 0;
};
const defaultControllerCallPull = (c) => {
  if (!defaultControllerShouldPull(c)) return;
  if (c.pulling) { c.pullAgain = true; return; }
  if (c.pull === undefined) return;
  c.pulling = true;
  PromiseThen(c.pull(), () => {
    c.pulling = false;
    if (c.pullAgain) {
      c.pullAgain = false;
      defaultControllerCallPull(c);
    }
  }, (e) => defaultControllerError(c, e));
};
const defaultControllerClose = (c) => {
  if (!defaultControllerCanCloseOrEnqueue(c)) return;
  c.closeRequested = true;
  if (c.queue.length === 0) {
    defaultControllerClear(c);
    readableStreamClose(c.stream);
  }
};
const defaultControllerEnqueue = (c, chunk) => {
  if (!defaultControllerCanCloseOrEnqueue(c)) return;
  const s = c.stream;
  if (s.reader !== undefined && numReadRequests(s) > 0) {
    fulfillReadRequest(s, chunk, false);
  } else {
    let size = 1;
    try {
      if (c.size !== undefined) size = c.size(chunk);
      c.queue.push(chunk, size);
    } catch (e) {
      defaultControllerError(c, e);
      throw e;
    }
  }
  defaultControllerCallPull(c);
};
const defaultControllerError = (c, e) => {
  if (c.stream.state !== READABLE) return;
  c.queue.reset();
  defaultControllerClear(c);
  readableStreamError(c.stream, e);
};

const setUpDefaultController = (s, c, start, pull, cancel, highWaterMark, size) => {
  c.stream = s;
  c.size = size;
  c.highWaterMark = highWaterMark;
  c.pull = pull;
  c.cancel = cancel;
  s.controller = c;
  const started = start === undefined ? undefined : start();
  PromiseThen(PromiseResolve(started), () => {
    c.started = true;
    defaultControllerCallPull(c);
  }, (e) => defaultControllerError(c, e));
};
const setUpDefaultControllerFromSource = (s, source, d, highWaterMark, size) => {
  const c = new DefaultController();
  setUpDefaultController(s, c,
    d.start === undefined ? undefined : () => ReflectApply(d.start, source, [c.wrapper]),
    d.pull === undefined ? undefined : () => promiseCall(d.pull, source, [c.wrapper]),
    d.cancel === undefined ? undefined : (reason) => promiseCall(d.cancel, source, [reason]),
    highWaterMark, size);
};

class ReadableStreamDefaultController {
  #c;
  constructor() {
    if (arguments[0] !== kInternal) throw illegalConstructor();
    this.#c = arguments[1];
  }
  get desiredSize() { return defaultControllerDesiredSize(this.#c); }
  close() {
    if (!defaultControllerCanCloseOrEnqueue(this.#c)) throw new TypeError("The stream is not in a state that permits close.");
    defaultControllerClose(this.#c);
  }
  enqueue(chunk = undefined) {
    if (!defaultControllerCanCloseOrEnqueue(this.#c)) throw new TypeError("The stream is not in a state that permits enqueue.");
    defaultControllerEnqueue(this.#c, chunk);
  }
  error(e = undefined) { defaultControllerError(this.#c, e); }
}
defineInterface(ReadableStreamDefaultController, "ReadableStreamDefaultController");
