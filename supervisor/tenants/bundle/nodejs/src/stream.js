// node:stream, of the npm package.

import npm from "readable-stream/lib/stream.js";

export const {
  Duplex, PassThrough, Readable, Stream, Transform, Writable, addAbortSignal, compose, destroy, finished, isDisturbed, isErrored, isReadable,
  pipeline, promises,
} = npm;
export default npm;
