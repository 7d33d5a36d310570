// ReadableByteStreamController (https://streams.spec.whatwg.org/#rbs-controller-class) and
// ReadableStreamBYOBRequest (https://streams.spec.whatwg.org/#rs-byob-request-class).

// A pull-into descriptor: the part of a reader's buffer that waits to be filled.
class PullInto {
  constructor(buffer, byteOffset, byteLength, minimumFill, elementSize, makeView, readerType) {
    this.buffer = buffer;
    this.bufferByteLength = ArrayBufferByteLength(buffer);
    this.byteOffset = byteOffset;
    this.byteLength = byteLength;
    this.bytesFilled = 0;
    this.minimumFill = minimumFill;
    this.elementSize = elementSize;
    this.makeView = makeView;
    this.readerType = readerType; // "default", "byob" or "none"
  }
}
bare(PullInto);

const makeUint8View = (buffer, offset, length) => new Uint8Array(buffer, offset, length);

class ByteController {
  constructor() {
    this.stream = undefined;
    this.queue = new Fifo(); // of {buffer, byteOffset, byteLength}
    this.total = 0;
    this.started = false;
    this.closeRequested = false;
    this.pullAgain = false;
    this.pulling = false;
    this.highWaterMark = 0;
    this.autoAllocateChunkSize = undefined;
    this.pull = undefined;
    this.cancel = undefined;
    this.pendingPullIntos = new Fifo();
    this.byobRequest = undefined;
    this.shell = undefined;
  }
  get wrapper() { return (this.shell ??= new ReadableByteStreamController(kInternal, this)); }
  cancelSteps(reason) {
    byteControllerClearPending(this);
    this.queue.clear();
    this.total = 0;
    const cancel = this.cancel;
    byteControllerClear(this);
    return cancel === undefined ? undefinedPromise() : cancel(reason);
  }
  pullSteps(request) {
    const s = this.stream;
    if (this.total > 0) {
      byteControllerFillReadRequest(this, request);
      return;
    }
    const size = this.autoAllocateChunkSize;
    if (size !== undefined) {
      let buffer;
      try { buffer = new ArrayBuffer(size); } catch (e) { request.error(e); return; }
      this.pendingPullIntos.push(new PullInto(buffer, 0, size, 1, 1, makeUint8View, "default"));
    }
    s.reader.requests.push(request);
    byteControllerCallPull(this);
  }
  releaseSteps() {
    if (this.pendingPullIntos.length > 0) {
      const first = this.pendingPullIntos.peek();
      first.readerType = "none";
      this.pendingPullIntos.clear();
      this.pendingPullIntos.push(first);
    }
  }
}
bare(ByteController);

const byteControllerClear = (c) => { c.pull = undefined; c.cancel = undefined; };
const byteControllerInvalidateRequest = (c) => {
  if (c.byobRequest === undefined) return;
  byobRequestState(c.byobRequest).controller = undefined;
  byobRequestState(c.byobRequest).view = null;
  c.byobRequest = undefined;
};
const byteControllerClearPending = (c) => {
  byteControllerInvalidateRequest(c);
  c.pendingPullIntos.clear();
};
const byteControllerDesiredSize = (c) => {
  const { state } = c.stream;
  return state === ERRORED ? null : state === CLOSED ? 0 : c.highWaterMark - c.total;
};
const byteControllerShouldPull = (c) => {
  const s = c.stream;
  if (s.state !== READABLE || c.closeRequested || !c.started) return false;
  if (s.reader !== undefined && numReadRequests(s) > 0) return true;
  return byteControllerDesiredSize(c) > 0;
};
const byteControllerCallPull = (c) => {
  if (!byteControllerShouldPull(c)) return;
  if (c.pulling) { c.pullAgain = true; return; }
  if (c.pull === undefined) return;
  c.pulling = true;
  PromiseThen(c.pull(), () => {
    c.pulling = false;
    if (c.pullAgain) {
      c.pullAgain = false;
      byteControllerCallPull(c);
    }
  }, (e) => byteControllerError(c, e));
};
const byteControllerError = (c, e) => {
  if (c.stream.state !== READABLE) return;
  byteControllerClearPending(c);
  c.queue.clear();
  c.total = 0;
  byteControllerClear(c);
  readableStreamError(c.stream, e);
};
const byteControllerClose = (c) => {
  const s = c.stream;
  if (c.closeRequested || s.state !== READABLE) return;
  if (c.total > 0) { c.closeRequested = true; return; }
  if (c.pendingPullIntos.length > 0) {
    const first = c.pendingPullIntos.peek();
    if (first.bytesFilled % first.elementSize !== 0) {
      const e = new TypeError("The stream was closed with a partly filled element in a reader's buffer.");
      byteControllerError(c, e);
      throw e;
    }
  }
  byteControllerClear(c);
  readableStreamClose(s);
};

const convertPullInto = (p) => p.makeView(ArrayBufferTransfer(p.buffer), p.byteOffset, p.bytesFilled / p.elementSize);
const commitPullInto = (s, p) => {
  const done = s.state === CLOSED;
  const view = convertPullInto(p);
  if (p.readerType === "default") fulfillReadRequest(s, view, done);
  else fulfillReadIntoRequest(s, view, done);
};

const enqueueChunkToQueue = (c, buffer, byteOffset, byteLength) => {
  c.queue.push({ __proto__: null, buffer, byteOffset, byteLength });
  c.total += byteLength;
};
const enqueueClonedChunk = (c, buffer, byteOffset, byteLength) => {
  let clone;
  try {
    clone = TypedArrayBuffer(TypedArraySliceU8(new Uint8Array(buffer, byteOffset, byteLength)));
  } catch (e) {
    byteControllerError(c, e);
    throw e;
  }
  enqueueChunkToQueue(c, clone, 0, byteLength);
};
const enqueueDetachedPullInto = (c, p) => {
  if (p.bytesFilled > 0) enqueueClonedChunk(c, p.buffer, p.byteOffset, p.bytesFilled);
  c.pendingPullIntos.shift();
};

const fillHead = (c, n, p) => { byteControllerInvalidateRequest(c); p.bytesFilled += n; };

// fillPullIntoFromQueue copies what is queued; true if the descriptor is then ready.
const fillPullIntoFromQueue = (c, p) => {
  const most = MathMin(c.total, p.byteLength - p.bytesFilled);
  const filled = p.bytesFilled + most;
  let left = most, ready = false;
  const aligned = filled - (filled % p.elementSize);
  if (aligned >= p.minimumFill) {
    left = aligned - p.bytesFilled;
    ready = true;
  }
  while (left > 0) {
    const head = c.queue.peek();
    const n = MathMin(left, head.byteLength);
    const at = p.byteOffset + p.bytesFilled;
    TypedArraySet(new Uint8Array(p.buffer, at, n), new Uint8Array(head.buffer, head.byteOffset, n));
    if (head.byteLength === n) {
      c.queue.shift();
    } else {
      head.byteOffset += n;
      head.byteLength -= n;
    }
    c.total -= n;
    fillHead(c, n, p);
    left -= n;
  }
  return ready;
};

const handleQueueDrain = (c) => {
  if (c.total === 0 && c.closeRequested) {
    byteControllerClear(c);
    readableStreamClose(c.stream);
  } else {
    byteControllerCallPull(c);
  }
};
const byteControllerFillReadRequest = (c, request) => {
  const entry = c.queue.shift();
  c.total -= entry.byteLength;
  handleQueueDrain(c);
  request.chunk(new Uint8Array(entry.buffer, entry.byteOffset, entry.byteLength));
};
const processReadRequestsUsingQueue = (c) => {
  const { reader } = c.stream;
  while (reader.requests.length > 0) {
    if (c.total === 0) return;
    byteControllerFillReadRequest(c, reader.requests.shift());
  }
};
const processPullIntosUsingQueue = (c) => {
  const filled = bareList();
  while (c.pendingPullIntos.length > 0) {
    if (c.total === 0) break;
    const p = c.pendingPullIntos.peek();
    if (!fillPullIntoFromQueue(c, p)) break;
    c.pendingPullIntos.shift();
    filled[filled.length] = p;
  }
  return filled;
};
const commitAll = (s, list) => { for (let i = 0; i < list.length; i++) commitPullInto(s, list[i]); };

const detachedError = () => new TypeError("The chunk's buffer is detached or cannot be transferred.");

// byteControllerEnqueue takes the chunk's buffer away from whoever passed it.
const byteControllerEnqueue = (c, chunk) => {
  const s = c.stream;
  if (c.closeRequested || s.state !== READABLE) return;
  const buffer = viewBuffer(chunk), byteOffset = viewByteOffset(chunk), byteLength = viewByteLength(chunk);
  if (ArrayBufferDetached(buffer)) throw detachedError();
  const transferred = ArrayBufferTransfer(buffer);
  if (c.pendingPullIntos.length > 0) {
    const first = c.pendingPullIntos.peek();
    if (ArrayBufferDetached(first.buffer)) throw detachedError();
    byteControllerInvalidateRequest(c);
    first.buffer = ArrayBufferTransfer(first.buffer);
    if (first.readerType === "none") enqueueDetachedPullInto(c, first);
  }
  if (hasDefaultReader(s)) {
    processReadRequestsUsingQueue(c);
    if (numReadRequests(s) === 0) {
      enqueueChunkToQueue(c, transferred, byteOffset, byteLength);
    } else {
      if (c.pendingPullIntos.length > 0) c.pendingPullIntos.shift();
      fulfillReadRequest(s, new Uint8Array(transferred, byteOffset, byteLength), false);
    }
  } else if (hasBYOBReader(s)) {
    enqueueChunkToQueue(c, transferred, byteOffset, byteLength);
    commitAll(s, processPullIntosUsingQueue(c));
  } else {
    enqueueChunkToQueue(c, transferred, byteOffset, byteLength);
  }
  byteControllerCallPull(c);
};

const typedArrayConstructors = { __proto__: null };
for (let i = 0; i < typedArrayClasses.length; i++) {
  const { T, name, size } = typedArrayClasses[i];
  typedArrayConstructors[name] = { __proto__: null, size, make: (b, o, n) => new T(b, o, n) };
}
const makeDataView = (b, o, n) => new DataView(b, o, n);

const byteControllerPullInto = (c, view, min, request) => {
  const s = c.stream;
  const tag = TypedArrayTag(view);
  const type = tag === undefined ? undefined : typedArrayConstructors[tag];
  const elementSize = type === undefined ? 1 : type.size;
  const make = type === undefined ? makeDataView : type.make;
  const byteOffset = viewByteOffset(view), byteLength = viewByteLength(view);
  let buffer;
  try { buffer = ArrayBufferTransfer(viewBuffer(view)); } catch (e) { request.error(e); return; }
  const p = new PullInto(buffer, byteOffset, byteLength, min * elementSize, elementSize, make, "byob");
  if (c.pendingPullIntos.length > 0) {
    c.pendingPullIntos.push(p);
    s.reader.requests.push(request);
    return;
  }
  if (s.state === CLOSED) {
    request.close(make(p.buffer, p.byteOffset, 0));
    return;
  }
  if (c.total > 0) {
    if (fillPullIntoFromQueue(c, p)) {
      const filled = convertPullInto(p);
      handleQueueDrain(c);
      request.chunk(filled);
      return;
    }
    if (c.closeRequested) {
      const e = new TypeError("The stream was closed with too few bytes to fill an element.");
      byteControllerError(c, e);
      request.error(e);
      return;
    }
  }
  c.pendingPullIntos.push(p);
  s.reader.requests.push(request);
  byteControllerCallPull(c);
};

const byteControllerRespondInClosedState = (c, first) => {
  if (first.readerType === "none") c.pendingPullIntos.shift();
  const s = c.stream;
  if (!hasBYOBReader(s)) return;
  const filled = bareList();
  while (filled.length < numReadRequests(s)) filled[filled.length] = c.pendingPullIntos.shift();
  commitAll(s, filled);
};
const byteControllerRespondInReadableState = (c, n, p) => {
  const s = c.stream;
  fillHead(c, n, p);
  if (p.readerType === "none") {
    enqueueDetachedPullInto(c, p);
    commitAll(s, processPullIntosUsingQueue(c));
    return;
  }
  if (p.bytesFilled < p.minimumFill) return;
  c.pendingPullIntos.shift();
  const rest = p.bytesFilled % p.elementSize;
  if (rest > 0) {
    enqueueClonedChunk(c, p.buffer, p.byteOffset + p.bytesFilled - rest, rest);
    p.bytesFilled -= rest;
  }
  const filled = processPullIntosUsingQueue(c);
  commitPullInto(s, p);
  commitAll(s, filled);
};
const byteControllerRespondInternal = (c, n) => {
  const first = c.pendingPullIntos.peek();
  byteControllerInvalidateRequest(c);
  if (c.stream.state === CLOSED) byteControllerRespondInClosedState(c, first);
  else byteControllerRespondInReadableState(c, n, first);
  byteControllerCallPull(c);
};
