// node:buffer, of the npm package. It reads base64url already, but does not know it by that name.

import * as npm from "buffer/";

const { Buffer, SlowBuffer, kMaxLength, INSPECT_MAX_BYTES } = npm;

const isURLSafe = (encoding) => typeof encoding === "string" && encoding.toLowerCase() === "base64url";
const known = (encoding) => (isURLSafe(encoding) ? "base64" : encoding);

const { from, alloc, byteLength, isEncoding } = Buffer;
const { toString, write, fill, indexOf, lastIndexOf, includes } = Buffer.prototype;
const define = (object, methods) => {
  for (const [name, value] of Object.entries(methods)) {
    Object.defineProperty(object, name, { value, writable: true, configurable: true, enumerable: false });
  }
};
define(Buffer, {
  from(value, encoding, length) { return from.call(Buffer, value, known(encoding), length); },
  alloc(size, value, encoding) { return alloc.call(Buffer, size, value, known(encoding)); },
  byteLength(value, encoding) {
    if (typeof value === "string" && isURLSafe(encoding)) return Math.floor((value.replace(/=+$/, "").length * 3) / 4);
    return byteLength.call(Buffer, value, encoding);
  },
  isEncoding(encoding) { return isURLSafe(encoding) || isEncoding.call(Buffer, encoding); },
});
define(Buffer.prototype, {
  toString(encoding, start, end) {
    if (!isURLSafe(encoding)) return toString.apply(this, arguments);
    return toString.call(this, "base64", start, end).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
  },
  write(string, ...rest) { return write.call(this, string, ...rest.map(known)); },
  fill(value, ...rest) { return fill.call(this, value, ...rest.map(known)); },
  indexOf(value, ...rest) { return indexOf.call(this, value, ...rest.map(known)); },
  lastIndexOf(value, ...rest) { return lastIndexOf.call(this, value, ...rest.map(known)); },
  includes(value, ...rest) { return includes.call(this, value, ...rest.map(known)); },
});

const valid = (fatal) => (input) => {
  try { fatal.decode(input); return true; } catch { return false; }
};
const isUtf8 = valid({ decode: (input) => new TextDecoder("utf-8", { fatal: true }).decode(input) });
const isAscii = (input) => Buffer.from(input.buffer ?? input, input.byteOffset, input.byteLength).every((b) => b < 128);
const constants = Object.freeze({ MAX_LENGTH: kMaxLength, MAX_STRING_LENGTH: 2 ** 29 - 24 });
const { Blob, File, atob, btoa } = globalThis;

export { Buffer, SlowBuffer, kMaxLength, INSPECT_MAX_BYTES, constants, isUtf8, isAscii, Blob, File, atob, btoa };
export default { Buffer, SlowBuffer, kMaxLength, INSPECT_MAX_BYTES, constants, isUtf8, isAscii, Blob, File, atob, btoa };
