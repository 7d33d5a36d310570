// Transferable streams (https://streams.spec.whatwg.org/#rs-transfer). The new stream is in this isolate
// too; as across a message port, each chunk that passes is cloned.

const cloning = () => createTransform((chunk, c) => transformEnqueue(c, cloneUnit.get().cloneWithTransfer(chunk, undefined).value), undefined, undefined);
const pipeQuietly = (from, to) => markHandled(readableStreamPipeTo(from, to,
  { __proto__: null, preventAbort: false, preventCancel: false, preventClose: false, signal: undefined }));

const moveReadable = (s) => {
  const t = cloning();
  pipeQuietly(s, t.writable);
  return t.readable;
};
const moveWritable = (s) => {
  const t = cloning();
  pipeQuietly(t.readable, s);
  return t.writable;
};
const refuseLocked = (locked) => {
  if (locked) throw newDOMException("A stream that is locked could not be cloned.", "DataCloneError");
};

// streamTransfer says how a stream moves; undefined for what is none.
const streamTransfer = (v) => {
  if (isReadableStream(v)) {
    const s = readableState(v);
    return { __proto__: null, check: () => refuseLocked(s.reader !== undefined), move: () => moveReadable(s).wrapper };
  }
  if (isWritableStream(v)) {
    const s = writableState(v);
    return { __proto__: null, check: () => refuseLocked(s.writer !== undefined), move: () => moveWritable(s).wrapper };
  }
  if (isTransformStream(v)) {
    const { readable, writable } = transformState(v);
    return {
      __proto__: null,
      check: () => refuseLocked(readable.reader !== undefined || writable.writer !== undefined),
      move: () => new TransformStream(kInternal, { __proto__: null, readable: moveReadable(readable), writable: moveWritable(writable) }),
    };
  }
  return undefined;
};
