// node:util, of the npm package, and what it lacks.

import npm from "util/";
import comparisons from "assert/build/internal/util/comparisons";

const { isDeepStrictEqual } = comparisons;
const { TextDecoder, TextEncoder } = globalThis;
const stripVTControlCharacters = (text) => {
  if (typeof text !== "string") throw new TypeError('The "str" argument must be of type string.');
  return text.replace(/[\u001b\u009b](?:\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[[()#;?]*(?:\d{1,4}(?:;\d{0,4})*)?[\dA-PR-TZcf-nq-uy=><~])/g, "");
};
const toUSVString = (text) => String(text).toWellFormed();
const all = { ...npm, isDeepStrictEqual: (a, b) => comparisons.isDeepStrictEqual(a, b), stripVTControlCharacters, toUSVString, TextDecoder, TextEncoder };

export const {
  callbackify, debuglog, deprecate, format, inherits, inspect, isArray, isBoolean, isBuffer, isDate, isError, isFunction, isNull,
  isNullOrUndefined, isNumber, isObject, isPrimitive, isRegExp, isString, isSymbol, isUndefined, log, promisify, types,
} = npm;
export const debug = debuglog;
export { isDeepStrictEqual, stripVTControlCharacters, toUSVString, TextDecoder, TextEncoder };
export default all;
