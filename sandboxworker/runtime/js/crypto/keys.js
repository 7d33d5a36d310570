// Making, importing and exporting keys (https://w3c.github.io/webcrypto/#algorithms).

const finishKey = (k, usages, extractable, what) => {
  checkUsages(usages, keyUsages[k.name][k.type], k.name, what);
  if (k.type !== "public") checkNotEmpty(usages, what);
  k.usages = usages;
  k.extractable = extractable;
  return new CryptoKey(kInternal, k);
};

// fromHost makes the state of a key that the host has parsed; note says what it is. Throws where that is
// not what the algorithm asked for.
const fromHost = (type, params, bytes, note, what) => {
  const { name } = params;
  const k = new KeyState(type, name, bytes);
  if (isRSA(name)) {
    if (!StringStartsWith(note, "RSA:")) throw dataError(`${what}: the key is no RSA key.`);
    const colon = StringIndexOf(note, ":", 4);
    k.hash = params.hash;
    k.length = +StringSlice(note, 4, colon);
    k.exponent = fromHex(StringSlice(note, colon + 1));
  } else {
    const wanted = params.curve ?? name;
    if (note !== wanted) throw dataError(`${what}: the key is not of the curve ${wanted}.`);
    k.curve = wanted;
  }
  return k;
};
const fromHex = (s) => {
  const out = new Uint8Array(s.length / 2);
  const digit = (c) => (c < 58 ? c - 48 : c - 87);
  for (let i = 0; i < TypedArrayLength(out); i++) out[i] = digit(StringCharCodeAt(s, 2 * i)) * 16 + digit(StringCharCodeAt(s, 2 * i + 1));
  return out;
};

const checkCurve = (params, what) => {
  if (params.curve !== undefined && curves[params.curve] === undefined) {
    throw notSupported(`${what}: the curve '${StringSlice(params.curve, 0, 40)}' is not supported.`);
  }
};

// ---- generateKey

// later calls f when the caller's code has gone on. What is wrong with the parameters is said at once, what is
// wrong with the usages by the operation itself, which the standard has run in parallel: scripts can tell.
const later = (f) => PromiseThen(PromiseResolve(undefined), f);

const generateKey = (params, extractable, usages, what) => {
  const { name } = params;
  const allowed = keyUsages[name];
  if (allowed.secret !== undefined) {
    const bits = secretLength(params, what);
    if (bits === 0) throw operationError(`${what}: the length must not be 0.`);
    if (bits > 8 * 65536 * 16) throw operationError(`${what}: a key of ${bits} bits is too long.`);
    return later(() => {
      checkUsages(usages, allowed.secret, name, what);
      checkNotEmpty(usages, what);
      const bytes = new Uint8Array(MathCeil(bits / 8));
      host.randomFill(bytes);
      const k = new KeyState("secret", name, bytes);
      k.hash = params.hash;
      k.length = bits;
      return finishKey(k, usages, extractable, what);
    });
  }
  checkCurve(params, what);
  let words = `generate-ec ${params.curve ?? name}`;
  if (isRSA(name)) {
    let e = 0;
    for (let i = 0; i < TypedArrayLength(params.exponent); i++) e = MathMin(e * 256 + params.exponent[i], 2 ** 40);
    if (e > 2 ** 31 - 1 || e < 3 || e % 2 === 0) throw operationError(`${what}: the public exponent must be odd, at least 3 and below 2^31.`);
    if (params.length > 2 ** 31 - 1) throw operationError(`${what}: the modulus is too long.`);
    words = `generate-rsa ${params.length} ${e}`;
  }
  return later(() => {
    for (let i = 0; i < usages.length; i++) {
      if (!ArrayIncludes(allowed.private, usages[i]) && !ArrayIncludes(allowed.public, usages[i])) {
        throw syntaxError(`${what}: ${name} keys cannot have the usage '${usages[i]}'.`);
      }
    }
    const forPrivate = someUsages(usages, allowed.private), forPublic = someUsages(usages, allowed.public);
    checkNotEmpty(forPrivate, what);
    return PromiseThen(askHost(words, []), (r) => {
      const publicKey = finishKey(fromHost("public", params, r.fields[1], r.note, what), forPublic, true, what);
      const privateKey = finishKey(fromHost("private", params, r.fields[0], r.note, what), forPrivate, extractable, what);
      return { publicKey, privateKey };
    });
  });
};

// secretLength is the length in bits of a new secret of these parameters ("get key length" as well).
const secretLength = (params, what) => {
  if (isAES(params.name)) {
    if (params.length !== 128 && params.length !== 192 && params.length !== 256) throw operationError(`${what}: an AES key has 128, 192 or 256 bits.`);
    return params.length;
  }
  return params.length ?? hashes[params.hash].block;
};

// ---- importKey

const formats = ["raw", "pkcs8", "spki", "jwk"];
const toFormat = (v, what) => {
  const s = toDOMString(v);
  if (!ArrayIncludes(formats, s)) throw new TypeError(`${what}: '${s}' is not a key format.`);
  return s;
};
const formatError = (format, name, what) => notSupported(`${what}: the format '${format}' is not supported for ${name}.`);

// importKey takes data that is bytes, or with "jwk" what readJWK gave. It returns a promise of a CryptoKey.
const importKey = (format, data, params, extractable, usages, what) => {
  const { name } = params;
  if (keyUsages[name].secret !== undefined) return PromiseResolve(importSecret(format, data, params, extractable, usages, what));
  if (format === "raw" && isRSA(name)) throw formatError(format, name, what);
  const type = format === "pkcs8" || (format === "jwk" && data.d !== undefined) ? "private" : "public";
  checkUsages(usages, keyUsages[name][type], name, what);
  checkCurve(params, what);
  const curve = params.curve ?? name;
  let asked;
  if (format !== "jwk") {
    asked = askHost(`import ${isRSA(name) ? "RSA" : curve} ${format}`, [data], dataError);
  } else {
    checkJWK(data, jwkAlg(params), isRSA(name) ? "RSA" : params.curve !== undefined ? "EC" : "OKP", name === "RSA-OAEP" ? "enc" : isCurve(name) && keyUsages[name] === deriveUsages ? "enc" : "sig", usages, extractable, what);
    const part = (key, need) => {
      if (data[key] === undefined) {
        if (need) throw dataError(`${what}: the JWK has no '${key}'.`);
        return new Uint8Array(0);
      }
      const bytes = fromBase64url(data[key]);
      if (bytes === undefined) throw dataError(`${what}: the JWK's '${key}' is not base64url.`);
      return bytes;
    };
    if (isRSA(name)) {
      if (data.oth !== undefined) throw notSupported(`${what}: RSA keys of more than two primes are not supported.`);
      const p = type === "private";
      asked = askHost("import-rsa", [part("n", true), part("e", true), part("d", p), part("p", p), part("q", p), part("dp", p), part("dq", p), part("qi", p)], dataError);
    } else {
      if (data.crv !== curve) throw dataError(`${what}: the JWK's crv is not "${curve}".`);
      asked = askHost(`import-ec ${curve}`, [part("x", true), part("y", params.curve !== undefined), part("d", false)], dataError);
    }
  }
  return PromiseThen(asked, (r) => finishKey(fromHost(type, params, r.fields[0], r.note, what), usages, extractable, what));
};

const importSecret = (format, data, params, extractable, usages, what) => {
  const { name } = params;
  const derives = name === "HKDF" || name === "PBKDF2";
  if (format !== "raw" && (format !== "jwk" || derives)) throw formatError(format, name, what);
  checkUsages(usages, keyUsages[name].secret, name, what);
  if (derives && extractable) throw syntaxError(`${what}: ${name} keys must not be extractable.`);
  let bytes = data;
  if (format === "jwk") {
    if (data.kty !== "oct") throw dataError(`${what}: the JWK's kty must be "oct".`);
    bytes = data.k === undefined ? undefined : fromBase64url(data.k);
    if (bytes === undefined) throw dataError(`${what}: the JWK's k is not base64url.`);
    bytes = TypedArraySliceU8(bytes);
  }
  const k = new KeyState("secret", name, bytes);
  const bits = TypedArrayLength(bytes) * 8;
  if (isAES(name)) {
    if (bits !== 128 && bits !== 192 && bits !== 256) throw dataError(`${what}: an AES key has 128, 192 or 256 bits, not ${bits}.`);
    k.length = bits;
  } else if (name === "HMAC") {
    if (bits === 0) throw dataError(`${what}: the key is empty.`);
    k.length = params.length ?? bits;
    if (k.length > bits || k.length <= bits - 8) throw dataError(`${what}: the length ${k.length} does not fit a key of ${bits} bits.`);
    k.hash = params.hash;
  }
  if (format === "jwk") checkJWK(data, jwkAlg(k), "oct", name === "HMAC" ? "sig" : "enc", usages, extractable, what);
  return finishKey(k, usages, extractable, what);
};

// jwkAlg is the `alg` of a key, undefined where any will do.
const jwkAlg = (k) => {
  switch (k.name) {
    case "HMAC": return `HS${hashes[k.hash].number}`;
    case "RSASSA-PKCS1-v1_5": return `RS${hashes[k.hash].number}`;
    case "RSA-PSS": return `PS${hashes[k.hash].number}`;
    case "RSA-OAEP": return k.hash === "SHA-1" ? "RSA-OAEP" : `RSA-OAEP-${hashes[k.hash].number}`;
    case "AES-CBC": case "AES-CTR": case "AES-GCM": case "AES-KW":
      return `A${k.length}${StringSlice(k.name, 4)}`;
    case "ECDSA": return k.curve === "P-521" ? "ES512" : k.curve === "P-384" ? "ES384" : "ES256";
    case "Ed25519": return "Ed25519";
  }
  return undefined;
};

const jwkStrings = ["alg", "crv", "d", "dp", "dq", "e", "k", "kty", "n", "p", "q", "qi", "use", "x", "y"];
// readJWK reads a JsonWebKey dictionary.
const readJWK = (v, what) => {
  if (!isObject(v) || isBufferSource(v)) throw new TypeError(`${what}: the key data is not a JsonWebKey.`);
  const out = { __proto__: null };
  for (let i = 0; i < jwkStrings.length; i++) {
    const s = v[jwkStrings[i]];
    if (s !== undefined) out[jwkStrings[i]] = toDOMString(s);
  }
  const { ext, key_ops: ops, oth } = v;
  if (ext !== undefined) out.ext = !!ext;
  if (ops !== undefined) out.ops = toSequence(ops, `${what}: key_ops`, toDOMString);
  if (oth !== undefined) out.oth = true;
  return out;
};
const checkJWK = (jwk, alg, kty, use, usages, extractable, what) => {
  if (jwk.kty !== kty) throw dataError(`${what}: the JWK's kty must be "${kty}".`);
  if (usages.length > 0 && jwk.use !== undefined && jwk.use !== use) throw dataError(`${what}: the JWK's use is not "${use}".`);
  const list = jwk.ops;
  if (list !== undefined) {
    for (let i = 0; i < list.length; i++) {
      for (let j = i + 1; j < list.length; j++) if (list[i] === list[j]) throw dataError(`${what}: the JWK's key_ops has duplicates.`);
    }
    for (let i = 0; i < usages.length; i++) if (!ArrayIncludes(list, usages[i])) throw dataError(`${what}: the JWK's key_ops lacks '${usages[i]}'.`);
  }
  if (jwk.ext === false && extractable) throw dataError(`${what}: the JWK is not extractable.`);
  if (jwk.alg !== undefined && alg !== undefined && jwk.alg !== alg && !(alg === "Ed25519" && jwk.alg === "EdDSA")) {
    throw dataError(`${what}: the JWK's alg is not "${alg}".`);
  }
};

// ---- exportKey

// exportKey gives a promise of bytes, or of a JsonWebKey.
const exportKey = (format, k, what) => {
  const { name, type } = k;
  if (algorithms[name].exportKey === undefined) throw notSupported(`${what}: ${name} keys cannot be exported.`);
  if (type === "secret" ? format === "spki" || format === "pkcs8" : format === "raw" && isRSA(name)) throw formatError(format, name, what);
  if (!k.extractable) throw invalidAccess(`${what}: the key is not extractable.`);
  if (format === "jwk") return exportJWK(k, what);
  if (type === "secret") return PromiseResolve(TypedArraySliceU8(k.bytes));
  if ((format === "pkcs8") !== (type === "private")) throw invalidAccess(`${what}: a ${type} key has no format '${format}'.`);
  if (format === "raw") return PromiseThen(askHost("export-raw", [k.bytes]), (r) => r.fields[0]);
  return PromiseResolve(TypedArraySliceU8(k.bytes));
};
const rsaParts = ["n", "e", "d", "p", "q", "dp", "dq", "qi"], curveParts = ["x", "y", "d"];
const exportJWK = (k, what) => {
  const jwk = { key_ops: ArraySlice(k.usages), ext: k.extractable };
  const put = (key, value) => ObjectDefineProperty(jwk, key, { __proto__: null, value, writable: true, enumerable: true, configurable: true });
  const alg = k.name === "ECDSA" ? undefined : jwkAlg(k);
  if (alg !== undefined) put("alg", alg);
  if (k.type === "secret") {
    put("kty", "oct");
    put("k", base64url(k.bytes));
    return PromiseResolve(jwk);
  }
  return PromiseThen(askHost(`export-jwk ${k.type}`, [k.bytes]), (r) => {
    const names = isRSA(k.name) ? rsaParts : curveParts;
    put("kty", isRSA(k.name) ? "RSA" : k.curve === k.name ? "OKP" : "EC");
    if (names === curveParts) put("crv", k.curve);
    for (let i = 0; i < r.fields.length; i++) if (TypedArrayLength(r.fields[i]) > 0) put(names[i], base64url(r.fields[i]));
    return jwk;
  });
};
