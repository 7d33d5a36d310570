// SubtleCrypto (https://w3c.github.io/webcrypto/#subtlecrypto-interface). The work is done by the host after
// the turn, in the order of the calls.

const toKey = (v, what) => {
  if (!isCryptoKey(v)) throw new TypeError(`${what}: the key is not a CryptoKey.`);
  return keyState(v);
};
const toData = (v, what) => {
  if (!isBufferSource(v)) throw new TypeError(`${what}: the data is not an ArrayBuffer or a view on one.`);
  return copyBytes(v);
};
// checkKey is what every use of a key begins with.
const checkKey = (params, k, usage, what) => {
  if (params.name !== k.name) throw invalidAccess(`${what}: the key is for ${k.name}, not for ${params.name}.`);
  if (!ArrayIncludes(k.usages, usage)) throw invalidAccess(`${what}: the key's usages do not include '${usage}'.`);
};
const checkType = (k, type, what) => {
  if (k.type !== type) throw invalidAccess(`${what}: the key is not a ${type} key.`);
};

// settleWith turns what f does, exceptions included, into a promise.
const settleWith = (f) => {
  try { return PromiseResolve(f()); } catch (error) { return PromiseReject(error); }
};

// cipher encrypts or decrypts; it gives a promise of an ArrayBuffer.
const cipher = (forward, params, k, data, what) => {
  const way = forward ? "encrypt" : "decrypt";
  switch (params.name) {
    case "AES-CBC":
      if (TypedArrayLength(params.iv) !== 16) throw operationError(`${what}: the iv must have 16 bytes.`);
      return PromiseThen(askHost(`aes-cbc-${way}`, [k.bytes, params.iv, data]), firstBuffer);
    case "AES-CTR":
      if (TypedArrayLength(params.counter) !== 16) throw operationError(`${what}: the counter must have 16 bytes.`);
      if (params.length < 1 || params.length > 128) throw operationError(`${what}: the counter's length must be 1 to 128 bits.`);
      return PromiseThen(askHost(`aes-ctr ${params.length}`, [k.bytes, params.counter, data]), firstBuffer);
    case "AES-GCM":
      if (params.tag < 32 || params.tag > 128 || (params.tag < 96 ? params.tag !== 32 && params.tag !== 64 : params.tag % 8 !== 0)) {
        throw operationError(`${what}: a tag of ${params.tag} bits is not possible.`);
      }
      return PromiseThen(askHost(`aes-gcm-${way} ${params.tag}`, [k.bytes, params.iv, params.extra, data]), firstBuffer);
    case "AES-KW":
      return PromiseThen(askHost(forward ? "aes-kw-wrap" : "aes-kw-unwrap", [k.bytes, data]), firstBuffer);
    default: // RSA-OAEP
      checkType(k, forward ? "public" : "private", what);
      return PromiseThen(askHost(`oaep-${way} ${k.hash}`, [k.bytes, params.label, data]), firstBuffer);
  }
};

// signWords are those of sign and verify for keys of two halves.
const signWords = (params, k) => `${k.name} ${params.hash ?? k.hash ?? "-"} ${params.salt ?? 0}`;

// deriveBits gives a promise of `length` bits, or of all there are for null.
const deriveBits = (params, k, length, what) => {
  if (params.name === "ECDH" || params.name === "X25519") {
    checkType(k, "private", what);
    const other = params.public;
    checkType(other, "public", what);
    if (other.name !== k.name || other.curve !== k.curve) throw invalidAccess(`${what}: the public key is not of the same kind.`);
    return PromiseThen(askHost("ecdh", [k.bytes, other.bytes]), (r) => {
      const secret = r.fields[0];
      if (length === null) return TypedArrayBuffer(secret);
      if (length > TypedArrayLength(secret) * 8) throw operationError(`${what}: ${length} bits are more than the secret has.`);
      const out = TypedArraySliceU8(secret, 0, MathCeil(length / 8));
      if (length % 8 !== 0) out[TypedArrayLength(out) - 1] &= 0xff << (8 - (length % 8));
      return TypedArrayBuffer(out);
    });
  }
  if (length === null || length % 8 !== 0) throw operationError(`${what}: the length must be a multiple of 8 bits.`);
  if (params.name === "PBKDF2" && params.iterations === 0) throw operationError(`${what}: there must be iterations.`);
  if (length > 2 ** 31 - 1 || params.iterations > 2 ** 31 - 1) throw operationError(`${what}: too much is asked for.`);
  return PromiseThen(params.name === "HKDF" ? askHost(`hkdf ${params.hash} ${length}`, [k.bytes, params.salt, params.info])
    : askHost(`pbkdf2 ${params.hash} ${params.iterations} ${length}`, [k.bytes, params.salt]), firstBuffer);
};

let isSubtle;
class SubtleCrypto {
  #brand;
  static { isSubtle = (v) => isObject(v) && #brand in v; }
  constructor() { if (arguments[0] !== kInternal) throw illegalConstructor(); }
  encrypt(algorithm, key, data) {
    const params = normalize(algorithm, "encrypt", "encrypt"), k = toKey(key, "encrypt"), bytes = toData(data, "encrypt");
    checkKey(params, k, "encrypt", "encrypt");
    return cipher(true, params, k, bytes, "encrypt");
  }
  decrypt(algorithm, key, data) {
    const params = normalize(algorithm, "decrypt", "decrypt"), k = toKey(key, "decrypt"), bytes = toData(data, "decrypt");
    checkKey(params, k, "decrypt", "decrypt");
    return cipher(false, params, k, bytes, "decrypt");
  }
  sign(algorithm, key, data) {
    const params = normalize(algorithm, "sign", "sign"), k = toKey(key, "sign"), bytes = toData(data, "sign");
    checkKey(params, k, "sign", "sign");
    if (k.name === "HMAC") {
      return PromiseThen(startOp(OP_HMAC_SIGN, `${k.hash}:${TypedArrayLength(k.bytes)}`, concatBytes([k.bytes, bytes], TypedArrayLength(k.bytes) + TypedArrayLength(bytes)), operationError),
        (r) => exactBuffer(r.data));
    }
    checkType(k, "private", "sign");
    return PromiseThen(askHost(`sign ${signWords(params, k)}`, [k.bytes, bytes]), firstBuffer);
  }
  verify(algorithm, key, signature, data) {
    const params = normalize(algorithm, "verify", "verify"), k = toKey(key, "verify");
    const mac = toData(signature, "verify"), bytes = toData(data, "verify");
    checkKey(params, k, "verify", "verify");
    if (k.name === "HMAC") {
      const n = TypedArrayLength(k.bytes), m = TypedArrayLength(mac);
      return PromiseThen(startOp(OP_HMAC_VERIFY, `${k.hash}:${n}:${m}`, concatBytes([k.bytes, mac, bytes], n + m + TypedArrayLength(bytes)), operationError), (r) => r.meta === "1");
    }
    checkType(k, "public", "verify");
    return PromiseThen(askHost(`verify ${signWords(params, k)}`, [k.bytes, mac, bytes]), (r) => r.note === "1");
  }
  digest(algorithm, data) {
    const params = normalize(algorithm, "digest", "digest"), bytes = toData(data, "digest");
    return PromiseThen(startOp(OP_DIGEST, params.name, bytes, operationError), (r) => exactBuffer(r.data));
  }
  generateKey(algorithm, extractable, keyUsages) {
    const params = normalize(algorithm, "generateKey", "generateKey");
    return generateKey(params, !!extractable, toUsages(keyUsages, "generateKey"), "generateKey");
  }
  deriveKey(algorithm, baseKey, derivedKeyType, extractable, keyUsages) {
    const what = "deriveKey", params = normalize(algorithm, "deriveBits", what), k = toKey(baseKey, what);
    const imported = normalize(derivedKeyType, "importKey", what), sized = normalize(derivedKeyType, "get key length", what);
    const usages = toUsages(keyUsages, what), may = !!extractable;
    checkKey(params, k, "deriveKey", what);
    const open = sized.name === "HKDF" || sized.name === "PBKDF2";
    if (sized.length === 0) throw new TypeError(`${what}: the length must not be 0.`);
    const bits = deriveBits(params, k, open ? null : secretLength(sized, what), what);
    return PromiseThen(bits, (secret) => importKey("raw", new Uint8Array(secret), imported, may, usages, what));
  }
  deriveBits(algorithm, baseKey, length = null) {
    const what = "deriveBits", params = normalize(algorithm, "deriveBits", what), k = toKey(baseKey, what);
    const bits = length === null || length === undefined ? null : toEnforced(length, `${what}: length`, 4294967295);
    checkKey(params, k, "deriveBits", what);
    return deriveBits(params, k, bits, what);
  }
  importKey(format, keyData, algorithm, extractable, keyUsages) {
    const what = "importKey", f = toFormat(format, what);
    const jwk = isObject(keyData) && !isBufferSource(keyData);
    const data = jwk ? readJWK(keyData, what) : toData(keyData, what);
    const params = normalize(algorithm, "importKey", what);
    const usages = toUsages(keyUsages, what);
    if (jwk !== (f === "jwk")) throw new TypeError(`${what}: the key data does not fit the format '${f}'.`);
    return importKey(f, data, params, !!extractable, usages, what);
  }
  exportKey(format, key) {
    const f = toFormat(format, "exportKey"), k = toKey(key, "exportKey");
    return PromiseThen(exportKey(f, k, "exportKey"), (v) => (f === "jwk" ? v : TypedArrayBuffer(v)));
  }
  wrapKey(format, key, wrappingKey, wrapAlgorithm) {
    const what = "wrapKey", f = toFormat(format, what), k = toKey(key, what), w = toKey(wrappingKey, what);
    const params = normalize(wrapAlgorithm, canNormalize(wrapAlgorithm, "wrapKey", what) ? "wrapKey" : "encrypt", what);
    checkKey(params, w, "wrapKey", what);
    return PromiseThen(exportKey(f, k, what), (v) => {
      let bytes = v;
      if (f === "jwk") {
        let text = JSONStringify(v);
        // Key wrap takes whole blocks; JSON may end in spaces.
        if (params.name === "AES-KW") while (text.length % 8 !== 0) text += " ";
        bytes = host.utf8Encode(text);
      }
      return cipher(true, params, w, bytes, what);
    });
  }
  unwrapKey(format, wrappedKey, unwrappingKey, unwrapAlgorithm, unwrappedKeyAlgorithm, extractable, keyUsages) {
    const what = "unwrapKey", f = toFormat(format, what), bytes = toData(wrappedKey, what), w = toKey(unwrappingKey, what);
    const params = normalize(unwrapAlgorithm, canNormalize(unwrapAlgorithm, "unwrapKey", what) ? "unwrapKey" : "decrypt", what);
    const imported = normalize(unwrappedKeyAlgorithm, "importKey", what), may = !!extractable, usages = toUsages(keyUsages, what);
    checkKey(params, w, "unwrapKey", what);
    return PromiseThen(cipher(false, params, w, bytes, what), (clear) => {
      let data = new Uint8Array(clear);
      if (f === "jwk") {
        try { data = readJWK(JSONParse(host.utf8Decode(data, true, true)), what); } catch { throw dataError(`${what}: the key is no JSON Web Key.`); }
      }
      return importKey(f, data, imported, may, usages, what);
    });
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
}
// What throws above must come as a rejection: the methods are wrapped.
const subtleNames = ObjectGetOwnPropertyNames(SubtleCrypto.prototype);
for (let i = 0; i < subtleNames.length; i++) {
  const name = subtleNames[i];
  if (name === "constructor" || name === "timingSafeEqual") continue;
  const f = SubtleCrypto.prototype[name], need = f.length;
  const guarded = { [name](...args) {
    if (!isSubtle(this)) return PromiseReject(illegalInvocation());
    return settleWith(() => {
      needArgs(`SubtleCrypto.${name}`, args.length, need);
      return ReflectApply(f, this, args);
    });
  } }[name];
  ObjectDefineProperty(guarded, "length", { __proto__: null, value: need, configurable: true });
  ObjectDefineProperty(SubtleCrypto.prototype, name, { __proto__: null, value: guarded });
}
defineInterface(SubtleCrypto, "SubtleCrypto");

const subtleObject = new SubtleCrypto(kInternal);
const cryptoObject = new Crypto(kInternal);
return { __proto__: null, Crypto, CryptoKey, SubtleCrypto, crypto: cryptoObject, isCryptoKey, cloneKey };
