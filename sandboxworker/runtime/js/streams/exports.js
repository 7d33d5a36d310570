// What the rest of the runtime takes from the streams unit.

// proxyStream gives a stream of s's chunks and leaves s locked to it (https://streams.spec.whatwg.org/#readablestream-create-a-proxy).
const proxyStream = (s) => {
  const t = createTransform((chunk, c) => transformEnqueue(c, chunk), undefined, undefined);
  markHandled(readableStreamPipeTo(s, t.writable, { __proto__: null, preventAbort: false, preventCancel: false, preventClose: false, signal: undefined }));
  return t.readable;
};

return {
  __proto__: null,
  ReadableStream, ReadableStreamDefaultReader, ReadableStreamBYOBReader, ReadableStreamDefaultController,
  ReadableByteStreamController, ReadableStreamBYOBRequest, WritableStream, WritableStreamDefaultWriter,
  WritableStreamDefaultController, TransformStream, TransformStreamDefaultController, ByteLengthQueuingStrategy,
  CountQueuingStrategy, TextEncoderStream, TextDecoderStream, IdentityTransformStream, FixedLengthStream,
  READABLE, CLOSED, ERRORED,
  isReadableStream, readableState, createReadableStream, createByteStream, readableStreamTee, readableStreamCancel,
  acquireDefaultReader, defaultReaderRead, readerRelease, readerCancel, fixedLengthOf,
  byteControllerEnqueue, byteControllerClose, byteControllerError, defaultControllerError, byteControllerRespond,
  isByteStream: (s) => s.controller instanceof ByteController,
  createTransform, transformEnqueue, isWritableStream, writableState, proxyStream, streamTransfer, readableStreamPipeTo, setFixedLength: (s, n) => fixedLengths.set(s, n),
};
