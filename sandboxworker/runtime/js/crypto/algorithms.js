// The algorithms of WebCrypto and how their parameters are read (https://w3c.github.io/webcrypto/#algorithm-normalization).

const hashes = ObjectFreeze({
  __proto__: null,
  "SHA-1": ObjectFreeze({ __proto__: null, block: 512, number: "1" }),
  "SHA-256": ObjectFreeze({ __proto__: null, block: 512, number: "256" }),
  "SHA-384": ObjectFreeze({ __proto__: null, block: 1024, number: "384" }),
  "SHA-512": ObjectFreeze({ __proto__: null, block: 1024, number: "512" }),
});
const curves = ObjectFreeze({ __proto__: null, "P-256": 256, "P-384": 384, "P-521": 521 });

const notSupported = (message) => newDOMException(message, "NotSupportedError");
const dataError = (message) => newDOMException(message, "DataError");
const invalidAccess = (message) => newDOMException(message, "InvalidAccessError");
const operationError = (message) => newDOMException(message, "OperationError");
const syntaxError = (message) => newDOMException(message, "SyntaxError");

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

// Readers of members. They throw what Web IDL does.
const member = (d, key, what) => {
  const v = d[key];
  if (v === undefined) throw new TypeError(`${what}: the algorithm needs a '${key}'.`);
  return v;
};
const readBytes = (d, key, what) => {
  const v = member(d, key, what);
  if (!isBufferSource(v)) throw new TypeError(`${what}: '${key}' is not an ArrayBuffer or a view on one.`);
  return copyBytes(v);
};
const readOptionalBytes = (d, key, what) => (d[key] === undefined ? new Uint8Array(0) : readBytes(d, key, what));
const readNumber = (d, key, what, max) => toEnforced(member(d, key, what), `${what}: ${key}`, max);
const readHash = (d, what) => hashName(member(d, "hash", what), what);
const readCurve = (d, what) => toDOMString(member(d, "namedCurve", what));

const none = () => ({ __proto__: null });
const withHash = (d, what) => ({ __proto__: null, hash: readHash(d, what) });
const withLength = (d, what) => ({ __proto__: null, length: readNumber(d, "length", what, 65535) });
const hmacKey = (d, what) => {
  const hash = readHash(d, what);
  return { __proto__: null, hash, length: d.length === undefined ? undefined : toEnforced(d.length, `${what}: length`, 4294967295) };
};
const withCurve = (d, what) => ({ __proto__: null, curve: readCurve(d, what) });
const rsaKey = (d, what) => {
  const hash = readHash(d, what), length = readNumber(d, "modulusLength", what, 4294967295);
  const exponent = member(d, "publicExponent", what);
  if (!isUint8Array(exponent)) throw new TypeError(`${what}: 'publicExponent' is not a Uint8Array.`);
  return { __proto__: null, hash, length, exponent: copyBytes(exponent) };
};
const gcm = (d, what) => {
  const extra = readOptionalBytes(d, "additionalData", what), iv = readBytes(d, "iv", what);
  return { __proto__: null, iv, extra, tag: d.tagLength === undefined ? 128 : toEnforced(d.tagLength, `${what}: tagLength`, 255) };
};
const peer = (d, what) => {
  const key = member(d, "public", what);
  if (!isCryptoKey(key)) throw new TypeError(`${what}: 'public' is not a CryptoKey.`);
  return { __proto__: null, public: keyState(key) };
};

const aesOps = (cipher) => ({
  __proto__: null, encrypt: cipher, decrypt: cipher, generateKey: withLength, importKey: none, exportKey: none, "get key length": withLength,
});
const rsaSign = (params) => ({ __proto__: null, sign: params, verify: params, generateKey: rsaKey, importKey: withHash, exportKey: none });
const agreement = (keys) => ({ __proto__: null, deriveBits: peer, generateKey: keys, importKey: keys, exportKey: none });

// What each algorithm can do, and how the parameters of each operation are read.
const algorithms = ObjectFreeze({
  __proto__: null,
  "AES-CBC": aesOps((d, what) => ({ __proto__: null, iv: readBytes(d, "iv", what) })),
  "AES-CTR": aesOps((d, what) => {
    const counter = readBytes(d, "counter", what);
    return { __proto__: null, counter, length: readNumber(d, "length", what, 255) };
  }),
  "AES-GCM": aesOps(gcm),
  "AES-KW": { __proto__: null, wrapKey: none, unwrapKey: none, generateKey: withLength, importKey: none, exportKey: none, "get key length": withLength },
  HMAC: { __proto__: null, sign: none, verify: none, generateKey: hmacKey, importKey: hmacKey, exportKey: none, "get key length": hmacKey },
  "RSASSA-PKCS1-v1_5": rsaSign(none),
  "RSA-PSS": rsaSign((d, what) => ({ __proto__: null, salt: readNumber(d, "saltLength", what, 4294967295) })),
  "RSA-OAEP": (() => {
    const label = (d, what) => ({ __proto__: null, label: readOptionalBytes(d, "label", what) });
    return { __proto__: null, encrypt: label, decrypt: label, generateKey: rsaKey, importKey: withHash, exportKey: none };
  })(),
  ECDSA: { __proto__: null, sign: withHash, verify: withHash, generateKey: withCurve, importKey: withCurve, exportKey: none },
  ECDH: agreement(withCurve),
  Ed25519: { __proto__: null, sign: none, verify: none, generateKey: none, importKey: none, exportKey: none },
  X25519: agreement(none),
  HKDF: {
    __proto__: null, importKey: none, "get key length": none,
    deriveBits(d, what) {
      const hash = readHash(d, what), info = readBytes(d, "info", what);
      return { __proto__: null, hash, info, salt: readBytes(d, "salt", what) };
    },
  },
  PBKDF2: {
    __proto__: null, importKey: none, "get key length": none,
    deriveBits(d, what) {
      const hash = readHash(d, what), iterations = readNumber(d, "iterations", what, 4294967295);
      return { __proto__: null, hash, iterations, salt: readBytes(d, "salt", what) };
    },
  },
  "SHA-1": { __proto__: null, digest: none }, "SHA-256": { __proto__: null, digest: none },
  "SHA-384": { __proto__: null, digest: none }, "SHA-512": { __proto__: null, digest: none },
});
const algorithmNames = new SafeMap(); // in upper case -> as spelled
const spelled = ObjectKeys(algorithms);
for (let i = 0; i < spelled.length; i++) algorithmNames.set(StringToUpperCase(spelled[i]), spelled[i]);

// normalize gives {name, ...parameters} for an operation, or throws NotSupportedError.
const normalize = (v, operation, what) => {
  const asked = algorithmName(v, what);
  const name = algorithmNames.get(StringToUpperCase(asked));
  const read = name === undefined ? undefined : algorithms[name][operation];
  if (read === undefined) throw notSupported(`${what}: the algorithm '${StringSlice(asked, 0, 40)}' is not supported.`);
  const out = read(isObject(v) ? v : emptyDictionary, what);
  out.name = name;
  return out;
};
const canNormalize = (v, operation, what) => {
  const name = algorithmNames.get(StringToUpperCase(algorithmName(v, what)));
  return name !== undefined && algorithms[name][operation] !== undefined;
};

const allUsages = ["encrypt", "decrypt", "sign", "verify", "deriveKey", "deriveBits", "wrapKey", "unwrapKey"];
const toUsages = (v, what) => {
  const list = toSequence(v, `${what}: keyUsages`, (u) => {
    const s = toDOMString(u);
    if (!ArrayIncludes(allUsages, s)) throw new TypeError(`${what}: '${s}' is not a key usage.`);
    return s;
  });
  return someUsages(list, allUsages);
};
// someUsages are those of list that are among `of`, in the standard's order.
const someUsages = (list, of) => {
  const out = [];
  for (let i = 0; i < allUsages.length; i++) {
    if (ArrayIncludes(list, allUsages[i]) && ArrayIncludes(of, allUsages[i])) ArrayPush(out, allUsages[i]);
  }
  return out;
};
const signUsages = { __proto__: null, private: ["sign"], public: ["verify"] };
const deriveUsages = { __proto__: null, private: ["deriveKey", "deriveBits"], public: [] };
const cipherUsages = { __proto__: null, secret: ["encrypt", "decrypt", "wrapKey", "unwrapKey"] };
// What a key of each kind may be used for.
const keyUsages = ObjectFreeze({
  __proto__: null,
  "AES-CBC": cipherUsages, "AES-CTR": cipherUsages, "AES-GCM": cipherUsages,
  "AES-KW": { __proto__: null, secret: ["wrapKey", "unwrapKey"] }, HMAC: { __proto__: null, secret: ["sign", "verify"] },
  HKDF: { __proto__: null, secret: ["deriveKey", "deriveBits"] }, PBKDF2: { __proto__: null, secret: ["deriveKey", "deriveBits"] },
  "RSASSA-PKCS1-v1_5": signUsages, "RSA-PSS": signUsages, ECDSA: signUsages, Ed25519: signUsages,
  "RSA-OAEP": { __proto__: null, private: ["decrypt", "unwrapKey"], public: ["encrypt", "wrapKey"] },
  ECDH: deriveUsages, X25519: deriveUsages,
});
const checkUsages = (usages, allowed, name, what) => {
  for (let i = 0; i < usages.length; i++) {
    if (!ArrayIncludes(allowed, usages[i])) throw syntaxError(`${what}: this ${name} key cannot have the usage '${usages[i]}'.`);
  }
};
const checkNotEmpty = (usages, what) => {
  if (usages.length === 0) throw syntaxError(`${what}: usages must not be empty for a secret or private key.`);
};
const isRSA = (name) => name === "RSASSA-PKCS1-v1_5" || name === "RSA-PSS" || name === "RSA-OAEP";
const isAES = (name) => StringStartsWith(name, "AES-");
const isCurve = (name) => name === "ECDSA" || name === "ECDH" || name === "Ed25519" || name === "X25519";

// askHost runs one of the host's operations (sandboxworker/runtime/crypto.go): words, then fields of
// bytes. The promise gives {fields, note}. fail makes the exception of a refusal.
const askHost = (words, fields, fail = operationError) => {
  let lengths = "", total = 0;
  for (let i = 0; i < fields.length; i++) {
    lengths += (i === 0 ? "" : ":") + TypedArrayLength(fields[i]);
    total += TypedArrayLength(fields[i]);
  }
  const data = fields.length === 1 ? fields[0] : new Uint8Array(total);
  for (let i = 0, at = 0; fields.length > 1 && i < fields.length; i++) {
    TypedArraySet(data, fields[i], at);
    at += TypedArrayLength(fields[i]);
  }
  return PromiseThen(startOp(OP_CRYPTO, `${words} ${lengths}`, data, fail), (r) => {
    const space = StringIndexOf(r.meta, " ");
    const list = space < 0 ? r.meta : StringSlice(r.meta, 0, space);
    const out = [];
    for (let i = 0, at = 0; i < list.length;) {
      let end = StringIndexOf(list, ":", i);
      if (end < 0) end = list.length;
      const n = +StringSlice(list, i, end);
      out[out.length] = n === 0 ? new Uint8Array(0) : TypedArraySliceU8(r.data, at, at + n);
      at += n;
      i = end + 1;
    }
    return { __proto__: null, fields: out, note: space < 0 ? "" : StringSlice(r.meta, space + 1) };
  });
};
const firstBuffer = (r) => TypedArrayBuffer(r.fields[0]);
