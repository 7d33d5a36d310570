// What a tenant sees of a byte stream's controller; the algorithms are in byte_controller.js.

const byteControllerRespond = (c, n) => {
  const first = c.pendingPullIntos.peek();
  if (c.stream.state === CLOSED) {
    if (n !== 0) throw new TypeError("respond: the stream is closed, bytesWritten must be 0.");
  } else {
    if (n === 0) throw new TypeError("respond: bytesWritten must be greater than 0 while the stream is readable.");
    if (first.bytesFilled + n > first.byteLength) throw new RangeError("respond: more bytes than the view has room for.");
  }
  first.buffer = ArrayBufferTransfer(first.buffer);
  byteControllerRespondInternal(c, n);
};
const byteControllerRespondWithNewView = (c, view) => {
  const first = c.pendingPullIntos.peek();
  const length = viewByteLength(view);
  if (c.stream.state === CLOSED) {
    if (length !== 0) throw new TypeError("respondWithNewView: the stream is closed, the view must be empty.");
  } else if (length === 0) {
    throw new TypeError("respondWithNewView: the view must not be empty while the stream is readable.");
  }
  const buffer = viewBuffer(view);
  if (first.byteOffset + first.bytesFilled !== viewByteOffset(view)) {
    throw new RangeError("respondWithNewView: the view does not start where the last one did.");
  }
  if (first.bufferByteLength !== ArrayBufferByteLength(buffer)) {
    throw new RangeError("respondWithNewView: the view's buffer has another length than the last one.");
  }
  if (first.bytesFilled + length > first.byteLength) throw new RangeError("respondWithNewView: the view is too long.");
  first.buffer = ArrayBufferTransfer(buffer);
  byteControllerRespondInternal(c, length);
};

let byobRequestState;
class ReadableStreamBYOBRequest {
  #q;
  static { byobRequestState = (v) => v.#q; }
  constructor() {
    if (arguments[0] !== kInternal) throw illegalConstructor();
    this.#q = { __proto__: null, controller: arguments[1], view: arguments[2] };
  }
  get view() { return this.#q.view; }
  respond(bytesWritten) {
    const q = this.#q;
    needArgs("respond", arguments.length, 1);
    const n = toEnforced(bytesWritten, "respond: bytesWritten");
    if (q.controller === undefined) throw new TypeError("respond: this request was already answered.");
    if (ArrayBufferDetached(TypedArrayBuffer(q.view))) throw new TypeError("respond: the view's buffer is detached.");
    byteControllerRespond(q.controller, n);
  }
  respondWithNewView(view) {
    const q = this.#q;
    needArgs("respondWithNewView", arguments.length, 1);
    if (!ArrayBufferIsView(view)) throw new TypeError("respondWithNewView: the argument is not a view.");
    if (q.controller === undefined) throw new TypeError("respondWithNewView: this request was already answered.");
    if (ArrayBufferDetached(viewBuffer(view))) throw new TypeError("respondWithNewView: the view's buffer is detached.");
    byteControllerRespondWithNewView(q.controller, view);
  }
}
defineInterface(ReadableStreamBYOBRequest, "ReadableStreamBYOBRequest");

class ReadableByteStreamController {
  #c;
  constructor() {
    if (arguments[0] !== kInternal) throw illegalConstructor();
    this.#c = arguments[1];
  }
  get byobRequest() {
    const c = this.#c;
    if (c.byobRequest === undefined && c.pendingPullIntos.length > 0) {
      const first = c.pendingPullIntos.peek();
      c.byobRequest = new ReadableStreamBYOBRequest(kInternal, c,
        new Uint8Array(first.buffer, first.byteOffset + first.bytesFilled, first.byteLength - first.bytesFilled));
    }
    return c.byobRequest === undefined ? null : c.byobRequest;
  }
  get desiredSize() { return byteControllerDesiredSize(this.#c); }
  close() {
    const c = this.#c;
    if (c.closeRequested || c.stream.state !== READABLE) throw new TypeError("The stream is not in a state that permits close.");
    byteControllerClose(c);
  }
  enqueue(chunk) {
    const c = this.#c;
    needArgs("enqueue", arguments.length, 1);
    if (!ArrayBufferIsView(chunk)) throw new TypeError("enqueue: the chunk is not a view on an ArrayBuffer.");
    if (viewByteLength(chunk) === 0) throw new TypeError("enqueue: the chunk is empty.");
    if (ArrayBufferByteLength(viewBuffer(chunk)) === 0) throw new TypeError("enqueue: the chunk's buffer is empty.");
    if (c.closeRequested || c.stream.state !== READABLE) throw new TypeError("The stream is not in a state that permits enqueue.");
    byteControllerEnqueue(c, chunk);
  }
  error(e = undefined) { byteControllerError(this.#c, e); }
}
defineInterface(ReadableByteStreamController, "ReadableByteStreamController");

const setUpByteController = (s, c, start, pull, cancel, highWaterMark, autoAllocateChunkSize) => {
  c.stream = s;
  c.highWaterMark = highWaterMark;
  c.pull = pull;
  c.cancel = cancel;
  c.autoAllocateChunkSize = autoAllocateChunkSize;
  s.controller = c;
  const started = start === undefined ? undefined : start();
  PromiseThen(PromiseResolve(started), () => {
    c.started = true;
    byteControllerCallPull(c);
  }, (e) => byteControllerError(c, e));
};
const setUpByteControllerFromSource = (s, source, d, highWaterMark) => {
  const c = new ByteController();
  if (d.autoAllocateChunkSize === 0) throw new TypeError("autoAllocateChunkSize must be greater than 0.");
  setUpByteController(s, c,
    d.start === undefined ? undefined : () => ReflectApply(d.start, source, [c.wrapper]),
    d.pull === undefined ? undefined : () => promiseCall(d.pull, source, [c.wrapper]),
    d.cancel === undefined ? undefined : (reason) => promiseCall(d.cancel, source, [reason]),
    highWaterMark, d.autoAllocateChunkSize);
};
