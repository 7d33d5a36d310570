// SubtleCrypto (https://w3c.github.io/webcrypto/#subtlecrypto-interface): digest and HMAC. The work is
// done by the host after the turn; other algorithms are NotSupportedError.

const hashes = ObjectFreeze({
  __proto__: null,
  "SHA-1": ObjectFreeze({ __proto__: null, block: 512, output: 160, jwk: "HS1" }),
  "SHA-256": ObjectFreeze({ __proto__: null, block: 512, output: 256, jwk: "HS256" }),
  "SHA-384": ObjectFreeze({ __proto__: null, block: 1024, output: 384, jwk: "HS384" }),
  "SHA-512": ObjectFreeze({ __proto__: null, block: 1024, output: 512, jwk: "HS512" }),
});
const allUsages = ["encrypt", "decrypt", "sign", "verify", "deriveKey", "deriveBits", "wrapKey", "unwrapKey"];

const notSupported = (message) => newDOMException(message, "NotSupportedError");
const dataError = (message) => newDOMException(message, "DataError");
const invalidAccess = (message) => newDOMException(message, "InvalidAccessError");
const operationError = (message) => newDOMException(message, "OperationError");

// algorithmName reads an AlgorithmIdentifier: a string or a dictionary with a name.
const algorithmName = (v, what) => {
  if (isObject(v)) {
    const { name } = v;
    if (name === undefined) throw new TypeError(`${what}: the algorithm has no name.`);
    return toDOMString(name);
  }
  return toDOMString(v);
};
const hashName = (v, what) => {
  const name = algorithmName(v, what);
  const upper = StringToUpperCase(name);
  if (hashes[upper] === undefined) throw notSupported(`${what}: the hash algorithm '${StringSlice(name, 0, 40)}' is not supported.`);
  return upper;
};
const wantHMAC = (v, what) => {
  const name = algorithmName(v, what);
  if (StringToUpperCase(name) !== "HMAC") throw notSupported(`${what}: the algorithm '${StringSlice(name, 0, 40)}' is not supported yet.`);
};
const hmacParams = (v, what) => {
  wantHMAC(v, what);
  if (!isObject(v)) throw new TypeError(`${what}: HMAC needs a hash.`);
  const { hash, length } = v;
  if (hash === undefined) throw new TypeError(`${what}: HMAC needs a hash.`);
  return { __proto__: null, hash: hashName(hash, what), length: length === undefined ? undefined : toEnforced(length, `${what}: length`, 4294967295) };
};
const toUsages = (v, what) => {
  const list = toSequence(v, `${what}: keyUsages`, (u) => {
    const s = toDOMString(u);
    if (!ArrayIncludes(allUsages, s)) throw new TypeError(`${what}: '${s}' is not a key usage.`);
    return s;
  });
  const out = [];
  for (let i = 0; i < allUsages.length; i++) if (ArrayIncludes(list, allUsages[i])) ArrayPush(out, allUsages[i]);
  return out;
};
const checkHMACUsages = (usages, what) => {
  for (let i = 0; i < usages.length; i++) {
    if (usages[i] !== "sign" && usages[i] !== "verify") {
      throw newDOMException(`${what}: an HMAC key cannot have the usage '${usages[i]}'.`, "SyntaxError");
    }
  }
  if (usages.length === 0) throw newDOMException(`${what}: usages must not be empty for a secret key.`, "SyntaxError");
};
const toFormat = (v, what) => {
  const s = toDOMString(v);
  if (!ArrayIncludes(["raw", "pkcs8", "spki", "jwk"], s)) throw new TypeError(`${what}: '${s}' is not a key format.`);
  return s;
};
const toKey = (v, what) => {
  if (!isCryptoKey(v)) throw new TypeError(`${what}: the key is not a CryptoKey.`);
  return keyState(v);
};

const importJWK = (jwk, hash, usages, extractable, what) => {
  if (!isObject(jwk) || isBufferSource(jwk)) throw new TypeError(`${what}: the key data is not a JsonWebKey.`);
  const { alg, ext, k, key_ops: ops, kty, use } = jwk;
  if (kty !== "oct") throw dataError(`${what}: the JWK's kty must be "oct".`);
  const bytes = k === undefined ? undefined : fromBase64url(toDOMString(k));
  if (bytes === undefined) throw dataError(`${what}: the JWK's k is not base64url.`);
  if (alg !== undefined && alg !== hashes[hash].jwk) throw dataError(`${what}: the JWK's alg is not "${hashes[hash].jwk}".`);
  if (use !== undefined && use !== "sig") throw dataError(`${what}: the JWK's use is not "sig".`);
  if (ops !== undefined) {
    const list = toSequence(ops, `${what}: key_ops`, toDOMString);
    for (let i = 0; i < list.length; i++) {
      for (let j = i + 1; j < list.length; j++) if (list[i] === list[j]) throw dataError(`${what}: the JWK's key_ops has duplicates.`);
    }
    for (let i = 0; i < usages.length; i++) if (!ArrayIncludes(list, usages[i])) throw dataError(`${what}: the JWK's key_ops lacks '${usages[i]}'.`);
  }
  if (ext !== undefined && !ext && extractable) throw dataError(`${what}: the JWK is not extractable.`);
  return TypedArraySliceU8(bytes);
};

// trimToLength cuts a key to a length in bits (https://w3c.github.io/webcrypto/#hmac-operations-import-key).
const trimToLength = (bytes, length, what) => {
  const bits = TypedArrayLength(bytes) * 8;
  if (bits === 0) throw dataError(`${what}: the key is empty.`);
  if (length === undefined) return bytes;
  if (length > bits || length <= bits - 8) throw dataError(`${what}: the length ${length} does not fit a key of ${bits} bits.`);
  return bytes;
};

// settleWith turns what f does, exceptions included, into a promise.
const settleWith = (f) => {
  try { return PromiseResolve(f()); } catch (error) { return PromiseReject(error); }
};
const hmacInput = (key, data) => {
  const n = TypedArrayLength(key), m = TypedArrayLength(data);
  const out = new Uint8Array(n + m);
  TypedArraySet(out, key, 0);
  TypedArraySet(out, data, n);
  return out;
};
const bufferResult = (r) => exactBuffer(r.data);

let isSubtle;
class SubtleCrypto {
  #brand;
  static { isSubtle = (v) => isObject(v) && #brand in v; }
  constructor() { if (arguments[0] !== kInternal) throw illegalConstructor(); }
  digest(algorithm, data) {
    const got = arguments.length;
    return this.#run("digest", got, 2, () => {
      const bytes = copyBytes(data);
      const hash = hashName(algorithm, "digest");
      return PromiseThen(startOp(OP_DIGEST, hash, bytes, operationError), bufferResult);
    });
  }
  importKey(format, keyData, algorithm, extractable, keyUsages) {
    const got = arguments.length;
    return this.#run("importKey", got, 5, () => {
      const what = "importKey";
      const f = toFormat(format, what);
      const params = hmacParams(algorithm, what);
      const usages = toUsages(keyUsages, what);
      const may = !!extractable;
      checkHMACUsages(usages, what);
      let bytes;
      if (f === "raw") bytes = copyBytes(keyData);
      else if (f === "jwk") bytes = importJWK(keyData, params.hash, usages, may, what);
      else throw notSupported(`${what}: the format '${f}' is not supported for HMAC.`);
      return newKey("HMAC", params.hash, trimToLength(bytes, params.length, what), may, usages);
    });
  }
  generateKey(algorithm, extractable, keyUsages) {
    const got = arguments.length;
    return this.#run("generateKey", got, 3, () => {
      const what = "generateKey";
      const params = hmacParams(algorithm, what);
      const usages = toUsages(keyUsages, what);
      checkHMACUsages(usages, what);
      const bits = params.length === undefined ? hashes[params.hash].block : params.length;
      if (bits === 0) throw operationError(`${what}: the length must not be 0.`);
      if (bits > 1 << 20) throw operationError(`${what}: a key of ${bits} bits is not sensible.`);
      const bytes = new Uint8Array(MathCeil(bits / 8));
      host.randomFill(bytes);
      return newKey("HMAC", params.hash, bytes, !!extractable, usages);
    });
  }
  exportKey(format, key) {
    const got = arguments.length;
    return this.#run("exportKey", got, 2, () => {
      const f = toFormat(format, "exportKey");
      const k = toKey(key, "exportKey");
      if (!k.extractable) throw invalidAccess("exportKey: the key is not extractable.");
      if (f === "raw") return TypedArrayBuffer(TypedArraySliceU8(k.bytes));
      if (f === "jwk") return { kty: "oct", k: base64url(k.bytes), alg: hashes[k.hash].jwk, key_ops: ArraySlice(k.usages), ext: true };
      throw notSupported(`exportKey: the format '${f}' is not supported for HMAC.`);
    });
  }
  sign(algorithm, key, data) {
    const got = arguments.length;
    return this.#run("sign", got, 3, () => {
      wantHMAC(algorithm, "sign");
      const k = toKey(key, "sign");
      const bytes = copyBytes(data);
      if (!ArrayIncludes(k.usages, "sign")) throw invalidAccess("sign: the key's usages do not include 'sign'.");
      return PromiseThen(startOp(OP_HMAC_SIGN, `${k.hash}:${TypedArrayLength(k.bytes)}`, hmacInput(k.bytes, bytes), operationError), bufferResult);
    });
  }
  verify(algorithm, key, signature, data) {
    const got = arguments.length;
    return this.#run("verify", got, 4, () => {
      wantHMAC(algorithm, "verify");
      const k = toKey(key, "verify");
      const mac = copyBytes(signature), bytes = copyBytes(data);
      if (!ArrayIncludes(k.usages, "verify")) throw invalidAccess("verify: the key's usages do not include 'verify'.");
      const meta = `${k.hash}:${TypedArrayLength(k.bytes)}:${TypedArrayLength(mac)}`;
      return PromiseThen(startOp(OP_HMAC_VERIFY, meta, hmacInput(hmacInput(k.bytes, mac), bytes), operationError), (r) => r.meta === "1");
    });
  }
  encrypt(algorithm, key, data) { void key; void data; return this.#unsupported("encrypt", arguments.length, 3, algorithm); }
  decrypt(algorithm, key, data) { void key; void data; return this.#unsupported("decrypt", arguments.length, 3, algorithm); }
  deriveKey(algorithm, baseKey, derivedKeyType, extractable, keyUsages) {
    void baseKey; void derivedKeyType; void extractable; void keyUsages;
    return this.#unsupported("deriveKey", arguments.length, 5, algorithm);
  }
  deriveBits(algorithm, baseKey, length = null) { void baseKey; void length; return this.#unsupported("deriveBits", arguments.length, 2, algorithm); }
  wrapKey(format, key, wrappingKey, wrapAlgorithm) {
    void format; void key; void wrappingKey;
    return this.#unsupported("wrapKey", arguments.length, 4, wrapAlgorithm);
  }
  unwrapKey(format, wrappedKey, unwrappingKey, unwrapAlgorithm, unwrappedKeyAlgorithm, extractable, keyUsages) {
    void format; void wrappedKey; void unwrappingKey; void unwrappedKeyAlgorithm; void extractable; void keyUsages;
    return this.#unsupported("unwrapKey", arguments.length, 7, unwrapAlgorithm);
  }
  // timingSafeEqual (Workers runtime API) compares two buffers of one length in constant time.
  timingSafeEqual(a, b) {
    void this.#brand;
    needArgs("timingSafeEqual", arguments.length, 2);
    const x = copyBytes(a), y = copyBytes(b);
    if (TypedArrayLength(x) !== TypedArrayLength(y)) throw new TypeError("timingSafeEqual: the buffers differ in length.");
    let diff = 0;
    for (let i = 0; i < TypedArrayLength(x); i++) diff |= x[i] ^ y[i];
    return diff === 0;
  }
  #unsupported(what, got, need, algorithm) {
    return this.#run(what, got, need, () => {
      throw notSupported(`${what}: the algorithm '${StringSlice(algorithmName(algorithm, what), 0, 40)}' is not supported yet.`);
    });
  }
  #run(what, got, need, f) {
    return settleWith(() => {
      needArgs(`SubtleCrypto.${what}`, got, need);
      return f();
    });
  }
}
// A foreign `this` must give a rejected promise, which a private method cannot: wrap the promise ones.
const subtleNames = ObjectGetOwnPropertyNames(SubtleCrypto.prototype);
for (let i = 0; i < subtleNames.length; i++) {
  const name = subtleNames[i];
  if (name === "constructor" || name === "timingSafeEqual") continue;
  const f = SubtleCrypto.prototype[name];
  const guarded = { [name](...args) { return isSubtle(this) ? ReflectApply(f, this, args) : PromiseReject(illegalInvocation()); } }[name];
  ObjectDefineProperty(guarded, "length", { __proto__: null, value: f.length, configurable: true });
  ObjectDefineProperty(SubtleCrypto.prototype, name, { __proto__: null, value: guarded });
}
defineInterface(SubtleCrypto, "SubtleCrypto");

const subtleObject = new SubtleCrypto(kInternal);
const cryptoObject = new Crypto(kInternal);
return { __proto__: null, Crypto, CryptoKey, SubtleCrypto, crypto: cryptoObject, isCryptoKey, cloneKey };
