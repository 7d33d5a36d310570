// node:crypto: hashes, MACs and key derivation by @noble/hashes; randomness and WebCrypto are the host's.
//
// Hashes run in the worker's own isolate: one without end is stopped like any other loop, and no function
// of the host works through data of any size while the isolate waits. WebCrypto's digest is faster.

import { Buffer } from "./buffer.js";
import { blake2b, blake2s } from "@noble/hashes/blake2.js";
import { hkdf as deriveHKDF } from "@noble/hashes/hkdf.js";
import { hmac } from "@noble/hashes/hmac.js";
import { md5, ripemd160, sha1 } from "@noble/hashes/legacy.js";
import { pbkdf2 as derivePBKDF2 } from "@noble/hashes/pbkdf2.js";
import { scrypt as deriveScrypt } from "@noble/hashes/scrypt.js";
import { sha224, sha256, sha384, sha512, sha512_224, sha512_256 } from "@noble/hashes/sha2.js";
import { sha3_224, sha3_256, sha3_384, sha3_512 } from "@noble/hashes/sha3.js";

export const webcrypto = globalThis.crypto;
export const { subtle } = webcrypto;
export const getRandomValues = (array) => webcrypto.getRandomValues(array);
export const randomUUID = () => webcrypto.randomUUID();

const algorithms = new Map(Object.entries({
  md5, sha1, sha224, sha256, sha384, sha512, "sha512-224": sha512_224, "sha512-256": sha512_256, ripemd160, rmd160: ripemd160,
  "sha3-224": sha3_224, "sha3-256": sha3_256, "sha3-384": sha3_384, "sha3-512": sha3_512, blake2b512: blake2b, blake2s256: blake2s,
}));

const fail = (Kind, code, message) => Object.assign(new Kind(message), { code });
const argument = (name, what) => fail(TypeError, "ERR_INVALID_ARG_TYPE", `The "${name}" argument must be ${what}.`);
const text = (value, name) => {
  if (typeof value !== "string") throw argument(name, "of type string");
  return value;
};
const algorithm = (name) => {
  const found = algorithms.get(text(name, "algorithm").toLowerCase().replace(/^rsa-/, "").replace(/^sha-/, "sha"));
  if (found === undefined) throw new Error(`Digest method not supported: ${name.slice(0, 40)}; there are ${getHashes().join(", ")}`);
  return found;
};
// bytes takes a copy: another may change the data while it is worked on.
const bytes = (data, name, encoding = "utf8") => {
  if (typeof data === "string") return new Uint8Array(Buffer.from(data, encoding === "buffer" ? "utf8" : encoding));
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice();
  if (data instanceof ArrayBuffer) return new Uint8Array(data.slice(0));
  throw argument(name, "a string, a Buffer, a TypedArray, a DataView or an ArrayBuffer");
};
const buffer = (u8) => Buffer.from(u8.buffer, u8.byteOffset, u8.byteLength);
const encoded = (u8, encoding) => (encoding === undefined || encoding === null || encoding === "buffer" ? buffer(u8) : buffer(u8).toString(text(encoding, "outputEncoding")));
const whole = (n, name, max) => {
  if (typeof n !== "number") throw argument(name, "of type number");
  if (!Number.isInteger(n) || n < 0 || n > max) throw fail(RangeError, "ERR_OUT_OF_RANGE", `The value of "${name}" is out of range. It must be >= 0 and <= ${max}. Received ${n}`);
  return n;
};

class Digest {
  #state; #done = false;
  constructor(state) { this.#state = state; }
  update(data, encoding = undefined) {
    if (this.#done) throw fail(Error, "ERR_CRYPTO_HASH_FINALIZED", "Digest already called");
    this.#state.update(bytes(data, "data", encoding));
    return this;
  }
  digest(encoding = undefined) {
    if (this.#done) throw fail(Error, "ERR_CRYPTO_HASH_FINALIZED", "Digest already called");
    if (encoding !== undefined && encoding !== null && encoding !== "buffer" && !Buffer.isEncoding(encoding)) throw fail(TypeError, "ERR_UNKNOWN_ENCODING", "Unknown encoding");
    this.#done = true;
    return encoded(this.#state.digest(), encoding);
  }
  _copy() {
    if (this.#done) throw fail(Error, "ERR_CRYPTO_HASH_FINALIZED", "Digest already called");
    return this.#state.clone();
  }
}
export class Hash extends Digest {
  copy() { return new Hash(this._copy()); }
}
export class Hmac extends Digest {}

export const getHashes = () => [...algorithms.keys()];
export const createHash = (name) => new Hash(algorithm(name).create());
export const createHmac = (name, key) => new Hmac(hmac.create(algorithm(name), bytes(key, "key")));
export const hash = (name, data, encoding = "hex") => createHash(name).update(data).digest(encoding);

const maxRandom = 2 ** 31 - 1;
export const randomFillSync = (view, offset = 0, size = undefined) => {
  const u8 = ArrayBuffer.isView(view) ? new Uint8Array(view.buffer, view.byteOffset, view.byteLength) : view instanceof ArrayBuffer ? new Uint8Array(view) : undefined;
  if (u8 === undefined) throw argument("buf", "an ArrayBuffer or a view on one");
  const begin = whole(offset, "offset", u8.length), end = begin + whole(size ?? u8.length - begin, "size", u8.length - begin);
  for (let at = begin; at < end; at += 65536) webcrypto.getRandomValues(u8.subarray(at, Math.min(end, at + 65536)));
  return view;
};
// later gives a result to a callback after the turn, as those do that work on another thread.
const later = (callback, f) => {
  if (typeof callback !== "function") throw argument("callback", "of type function");
  queueMicrotask(() => {
    let result;
    try { result = f(); } catch (error) { return callback(error); }
    callback(null, result);
  });
};
export const randomFill = (view, ...rest) => later(rest.pop(), () => randomFillSync(view, ...rest));
export const randomBytes = (size, callback = undefined) => {
  whole(size, "size", maxRandom);
  if (callback !== undefined) return later(callback, () => randomBytes(size));
  return buffer(randomFillSync(new Uint8Array(size)));
};
export const pseudoRandomBytes = randomBytes;
export const randomInt = (min, max = undefined, callback = undefined) => {
  if (max === undefined || typeof max === "function") [min, max, callback] = [0, min, max];
  if (!Number.isSafeInteger(min)) throw argument("min", "a safe integer");
  if (!Number.isSafeInteger(max)) throw argument("max", "a safe integer");
  const range = max - min, limit = 2 ** 48;
  if (!(range > 0 && range < limit)) throw fail(RangeError, "ERR_OUT_OF_RANGE", `The value of "max" is out of range. It must be greater than "min" by less than 2 ** 48. Received ${max}`);
  if (callback !== undefined) return later(callback, () => randomInt(min, max));
  const fair = limit - (limit % range), b = new Uint8Array(6); // what is above would come too often
  for (;;) {
    webcrypto.getRandomValues(b);
    const n = b.reduce((sum, byte) => sum * 256 + byte, 0);
    if (n < fair) return min + (n % range);
  }
};

export const timingSafeEqual = (a, b) => {
  const of = (v, name) => {
    if (typeof v === "string") throw argument(name, "an ArrayBuffer or a view on one");
    return bytes(v, name);
  };
  const [x, y] = [of(a, "buf1"), of(b, "buf2")];
  if (x.length !== y.length) throw fail(RangeError, "ERR_CRYPTO_TIMING_SAFE_EQUAL_LENGTH", "Input buffers must have the same byte length");
  return subtle.timingSafeEqual(x, y);
};

const maxKey = 2 ** 31 - 1;
export const pbkdf2Sync = (password, salt, iterations, length, name) => {
  const n = whole(iterations, "iterations", maxKey);
  if (n === 0) throw fail(RangeError, "ERR_OUT_OF_RANGE", 'The value of "iterations" is out of range. It must be >= 1.');
  return buffer(derivePBKDF2(algorithm(name), bytes(password, "password"), bytes(salt, "salt"), { c: n, dkLen: whole(length, "keylen", maxKey) }));
};
export const pbkdf2 = (password, salt, iterations, length, name, callback) => later(callback, () => pbkdf2Sync(password, salt, iterations, length, name));
export const scryptSync = (password, salt, length, options = {}) => {
  const { cost = 16384, blockSize = 8, parallelization = 1, N = cost, r = blockSize, p = parallelization, maxmem = 32 * 1024 * 1024 } = options;
  return buffer(deriveScrypt(bytes(password, "password"), bytes(salt, "salt"), { N, r, p, dkLen: whole(length, "keylen", maxKey), maxmem: maxmem + 1024 }));
};
export const scrypt = (password, salt, length, ...rest) => later(rest.pop(), () => scryptSync(password, salt, length, ...rest));
export const hkdfSync = (name, key, salt, info, length) => {
  const u8 = deriveHKDF(algorithm(name), bytes(key, "ikm"), bytes(salt, "salt"), bytes(info, "info"), whole(length, "length", maxKey));
  return u8.buffer.slice(u8.byteOffset, u8.byteOffset + u8.byteLength);
};
export const hkdf = (name, key, salt, info, length, callback) => later(callback, () => hkdfSync(name, key, salt, info, length));

export default {
  webcrypto, subtle, getRandomValues, randomUUID, Hash, Hmac, getHashes, createHash, createHmac, hash, randomFillSync, randomFill, randomBytes,
  pseudoRandomBytes, randomInt, timingSafeEqual, pbkdf2Sync, pbkdf2, scryptSync, scrypt, hkdfSync, hkdf,
};
