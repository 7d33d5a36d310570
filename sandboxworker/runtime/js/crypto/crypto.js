// Crypto and CryptoKey (https://w3c.github.io/webcrypto/).

class Crypto {
  #brand;
  constructor() { if (arguments[0] !== kInternal) throw illegalConstructor(); }
  get subtle() { void this.#brand; return subtleObject; }
  getRandomValues(array) {
    void this.#brand;
    needArgs("getRandomValues", arguments.length, 1);
    const tag = isObject(array) ? TypedArrayTag(array) : undefined;
    if (!ArrayBufferIsView(array)) throw new TypeError("getRandomValues: the argument is not a view on an ArrayBuffer.");
    if (tag === undefined || StringStartsWith(tag, "Float")) {
      throw newDOMException("getRandomValues: the array is not of an integer type.", "TypeMismatchError");
    }
    const u8 = bytesOf(array);
    const n = TypedArrayByteLength(u8);
    if (n > 65536) throw newDOMException(`getRandomValues: ${n} bytes exceed the limit of 65536.`, "QuotaExceededError");
    if (n > 0) host.randomFill(u8);
    return array;
  }
  randomUUID() {
    void this.#brand;
    return randomUUIDText();
  }
}
defineInterface(Crypto, "Crypto");

// KeyState is what a key is. Its material stays in JS memory of the tenant that made it; nothing
// outside refers to it.
class KeyState {
  constructor(type, name, bytes) {
    this.type = type; // "secret", "private", "public"
    this.name = name;
    this.bytes = bytes; // the secret; PKCS #8 or SPKI
    this.extractable = false;
    this.usages = undefined;
    this.hash = undefined;
    this.length = undefined; // bits, of secrets and of RSA's modulus
    this.curve = undefined;
    this.exponent = undefined; // RSA's, bytes
  }
}
bare(KeyState);

let keyState, isCryptoKey;
class CryptoKey {
  #k;
  #algorithm; #usages; // the objects a script sees, made once
  static {
    keyState = (v) => v.#k;
    isCryptoKey = (v) => isObject(v) && #k in v;
  }
  constructor() {
    if (arguments[0] !== kInternal) throw illegalConstructor();
    this.#k = arguments[1];
  }
  get type() { return this.#k.type; }
  get extractable() { return this.#k.extractable; }
  get algorithm() { return (this.#algorithm ??= describeAlgorithm(this.#k)); }
  get usages() { return (this.#usages ??= ArraySlice(this.#k.usages)); }
}
defineInterface(CryptoKey, "CryptoKey");

const describeAlgorithm = (k) => {
  const { name } = k;
  if (k.exponent !== undefined) {
    return { name, modulusLength: k.length, publicExponent: TypedArraySliceU8(k.exponent), hash: { name: k.hash } };
  }
  if (k.curve !== undefined) return k.curve === name ? { name } : { name, namedCurve: k.curve };
  if (k.hash !== undefined) return { name, hash: { name: k.hash }, length: k.length };
  return k.length === undefined ? { name } : { name, length: k.length };
};

const cloneKey = (key) => new CryptoKey(kInternal, keyState(key));
