// Web IDL's ECMAScript binding (https://webidl.spec.whatwg.org/): conversions and interface shapes.

// kInternal as first constructor argument means "made by the runtime". It never reaches a tenant.
const kInternal = ObjectFreeze({ __proto__: null });

const isObject = (v) => (typeof v === "object" && v !== null) || typeof v === "function";

const illegalInvocation = () => new TypeError("Illegal invocation");
const illegalConstructor = () => new TypeError("Illegal constructor");

// needArgs throws as Web IDL does when a required argument is missing.
const needArgs = (what, got, need) => {
  if (got < need) {
    throw new TypeError(`${what}: ${need} argument${need === 1 ? "" : "s"} required, but only ${got} present.`);
  }
};

// readable says whether a string may be read. A rope of 2^28 characters costs nothing until its first
// character is looked at: then V8 makes it flat, and a heap that has no room for it ends the process.
const LONG_STRING = 1 << 20;
const readable = (s) => s.length < LONG_STRING || host.readable(s);
const checkReadable = (s) => {
  if (s.length >= LONG_STRING && !host.readable(s)) throw new RangeError("The string is too long for this worker's memory limit");
  return s;
};

// toDOMString converts to DOMString. A symbol throws TypeError.
const toDOMString = (v) => checkReadable(typeof v === "string" ? v : `${v}`);

// toUSVString converts to a string without lone surrogates.
const toUSVString = (v) => StringToWellFormed(toDOMString(v));

// toByteString converts to a string whose characters are bytes; others throw TypeError.
const toByteString = (v, what) => {
  const s = toDOMString(v);
  for (let i = 0; i < s.length; i++) {
    if (StringCharCodeAt(s, i) > 255) {
      throw new TypeError(`${what}: cannot convert to a ByteString, the character at index ${i} has a value of ` +
        `${StringCharCodeAt(s, i)} which is greater than 255.`);
    }
  }
  return s;
};

// toNumber is ECMAScript's ToNumber. What an object turns itself into may be a string, and is looked at
// before it is read.
const toNumber = (v) => {
  const p = isObject(v) ? toPrimitive(v) : v;
  return typeof p === "string" ? +checkReadable(p) : +p;
};
const toPrimitive = (v) => {
  const exotic = v[SymbolToPrimitive];
  if (exotic !== undefined && exotic !== null) {
    if (typeof exotic !== "function") throw new TypeError("Symbol.toPrimitive is not a function.");
    const p = ReflectApply(exotic, v, ["number"]);
    if (isObject(p)) throw new TypeError("Cannot convert object to primitive value");
    return p;
  }
  let f = v.valueOf;
  if (typeof f === "function") {
    const p = ReflectApply(f, v, []);
    if (!isObject(p)) return p;
  }
  f = v.toString;
  if (typeof f === "function") {
    const p = ReflectApply(f, v, []);
    if (!isObject(p)) return p;
  }
  throw new TypeError("Cannot convert object to primitive value");
};

// toUnsignedShort is [unsigned short] without attributes: modulo 2^16.
const toUnsignedShort = (v) => toNumber(v) & 0xffff;

// toEnforced is [EnforceRange] unsigned long long (or up to max).
const toEnforced = (v, what, max = 9007199254740991) => {
  const n = toNumber(v);
  if (!NumberIsFinite(n)) throw new TypeError(`${what} is not a finite number.`);
  const t = MathTrunc(n) + 0;
  if (t < 0 || t > max) throw new TypeError(`${what} is outside the accepted range 0 to ${max}.`);
  return t;
};

// toDictionary accepts what Web IDL accepts for a dictionary; undefined and null are the empty one.
const emptyDictionary = ObjectFreeze({ __proto__: null });
const toDictionary = (v, what) => {
  if (v === undefined || v === null) return emptyDictionary;
  if (!isObject(v)) throw new TypeError(`${what} must be an object.`);
  return v;
};

// toCallback returns v or throws if it is not callable.
const toCallback = (v, what) => {
  if (typeof v !== "function") throw new TypeError(`${what} is not a function.`);
  return v;
};

// toSequence reads an iterable into a fresh array, converting each item, with the iterator protocol
// as Web IDL spells it (the tenant's own iterator runs, ours is not involved).
const toSequence = (v, what, convert) => {
  if (!isObject(v)) throw new TypeError(`${what} is not iterable.`);
  const method = v[SymbolIterator];
  if (typeof method !== "function") throw new TypeError(`${what} is not iterable.`);
  return sequenceFrom(v, method, what, convert);
};
const sequenceFrom = (v, method, what, convert) => {
  const iterator = ReflectApply(method, v, []);
  if (!isObject(iterator)) throw new TypeError(`${what}: iterator is not an object.`);
  const next = iterator.next;
  const out = [];
  for (;;) {
    const step = ReflectApply(next, iterator, []);
    if (!isObject(step)) throw new TypeError(`${what}: iterator result is not an object.`);
    if (step.done) return out;
    ArrayPush(out, convert(step.value));
  }
};

// The host is asked, and not a getter that throws: an exception with its stack takes as long as the rest of
// a small response.
const isArrayBuffer = (v) => isObject(v) && host.classOf(v) === "ArrayBuffer";
const isBufferSource = (v) => ArrayBufferIsView(v) || isArrayBuffer(v);
const isUint8Array = (v) => isObject(v) && TypedArrayTag(v) === "Uint8Array";

// viewOf returns a Uint8Array over the bytes of a buffer source, without a copy. A detached or
// out-of-bounds view has no bytes. Resizable buffers are allowed: callers copy at once.
const viewOf = (v) => {
  if (!ArrayBufferIsView(v)) return new Uint8Array(v);
  if (TypedArrayTag(v) !== undefined) {
    return new Uint8Array(TypedArrayBuffer(v), TypedArrayByteOffset(v), TypedArrayByteLength(v));
  }
  return new Uint8Array(DataViewBuffer(v), DataViewByteOffset(v), DataViewByteLength(v));
};
const bytesOf = (v) => {
  if (!isBufferSource(v)) throw new TypeError("The value is not an ArrayBuffer or a view on one.");
  try { return viewOf(v); } catch { return new Uint8Array(0); } // detached
};
// copyBytes snapshots a buffer source.
const copyBytes = (v) => TypedArraySliceU8(bytesOf(v));
// %TypedArray%.prototype.slice asks the (patchable) species; a fresh array and `set` do not.
const TypedArraySliceU8 = (u8, start = 0, end = TypedArrayLength(u8)) => {
  const out = new Uint8Array(end - start);
  TypedArraySet(out, start === 0 && end === TypedArrayLength(u8)
    ? u8 : new Uint8Array(TypedArrayBuffer(u8), TypedArrayByteOffset(u8) + start, end - start));
  return out;
};
const subarrayU8 = (u8, start, end) =>
  new Uint8Array(TypedArrayBuffer(u8), TypedArrayByteOffset(u8) + start, end - start);
// exactBuffer returns an ArrayBuffer holding just these bytes; u8 must be the runtime's own.
const exactBuffer = (u8) => {
  const buffer = TypedArrayBuffer(u8);
  return ArrayBufferByteLength(buffer) === TypedArrayByteLength(u8)
    ? buffer : TypedArrayBuffer(TypedArraySliceU8(u8));
};
// concatBytes joins Uint8Arrays of `total` bytes together.
const concatBytes = (parts, total) => {
  if (parts.length === 1) return parts[0];
  const out = new Uint8Array(total);
  let at = 0;
  for (let i = 0; i < parts.length; i++) {
    TypedArraySet(out, parts[i], at);
    at += TypedArrayByteLength(parts[i]);
  }
  return out;
};

// defineInterface gives a class the property shape of a Web IDL interface: enumerable operations
// and attributes, a class string, constants on both objects.
const interfacePrototypes = new SafeSet(); // of all interfaces made so far
const defineInterface = (C, name, constants = undefined) => {
  interfacePrototypes.add(C.prototype);
  const makeEnumerable = (object, skip) => {
    const keys = ReflectOwnKeys(object);
    for (let i = 0; i < keys.length; i++) {
      const key = keys[i];
      if (typeof key !== "string" || ArrayIncludes(skip, key)) continue;
      const d = ObjectGetOwnPropertyDescriptor(object, key);
      if (!d.configurable) continue;
      ObjectDefineProperty(object, key, { __proto__: null, enumerable: true });
    }
  };
  makeEnumerable(C.prototype, ["constructor"]);
  makeEnumerable(C, ["prototype", "name", "length"]);
  ObjectDefineProperty(C.prototype, SymbolToStringTag, { __proto__: null, value: name, configurable: true });
  if (constants !== undefined) {
    const keys = ObjectKeys(constants);
    for (let i = 0; i < keys.length; i++) {
      const d = { __proto__: null, value: constants[keys[i]], enumerable: true };
      ObjectDefineProperty(C, keys[i], d);
      ObjectDefineProperty(C.prototype, keys[i], d);
    }
  }
  return C;
};

// alias makes C.prototype[symbol] the same function as C.prototype[name] (iterables do this).
const alias = (C, symbol, name) => ObjectDefineProperty(C.prototype, symbol, {
  __proto__: null, value: C.prototype[name], writable: true, configurable: true,
});

// pairIterator makes the "NAME Iterator" class of an interface with a pair iterable declaration
// (https://webidl.spec.whatwg.org/#es-default-iterator-object). `at(target, index)` returns
// [key, value] or undefined past the end; it is asked anew for each step, so changes show.
const pairIterator = (name, at) => {
  class PairIterator {
    #target; #kind; #index = 0;
    constructor(target, kind) { this.#target = target; this.#kind = kind; }
    next() {
      if (!(isObject(this) && #target in this)) {
        throw new TypeError(`'next' called on an object that is not a valid instance of ${name} Iterator.`);
      }
      const pair = this.#target === undefined ? undefined : at(this.#target, this.#index);
      if (pair === undefined) {
        return { value: undefined, done: true };
      }
      this.#index++;
      const kind = this.#kind;
      return { value: kind === 0 ? pair[0] : kind === 1 ? pair[1] : [pair[0], pair[1]], done: false };
    }
  }
  delete PairIterator.prototype.constructor;
  ObjectSetPrototypeOf(PairIterator.prototype, IteratorPrototype);
  ObjectDefineProperty(PairIterator.prototype, "next", { __proto__: null, enumerable: true });
  ObjectDefineProperty(PairIterator.prototype, SymbolToStringTag,
    { __proto__: null, value: `${name} Iterator`, configurable: true });
  return PairIterator;
};

// forEachPair is the forEach of pair iterables.
const forEachPair = (target, at, callback, thisArg, what) => {
  if (typeof callback !== "function") throw new TypeError(`${what}: the callback is not a function.`);
  for (let i = 0, pair; (pair = at(target, i)) !== undefined; i++) {
    ReflectApply(callback, thisArg, [pair[1], pair[0], target]);
  }
};

// defineLazy installs a global that is made on first use. The host's version looks like a plain data
// property from the start; without it an accessor replaces itself.
const defineLazy = (object, name, make) => {
  if (typeof host.defineLazy === "function") {
    host.defineLazy(object, name, make);
    return;
  }
  const put = (value) => ObjectDefineProperty(object, name,
    { __proto__: null, value, writable: true, enumerable: false, configurable: true });
  ObjectDefineProperty(object, name, {
    __proto__: null, enumerable: false, configurable: true,
    get() { const value = make(name); put(value); return value; },
    set(value) { put(value); },
  });
};
