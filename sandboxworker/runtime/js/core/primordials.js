// The intrinsics the runtime relies on, captured before any tenant code runs.
//
// A tenant may replace Array.prototype.push or Promise.prototype.then; that must change what the
// tenant's own calls do and nothing of what the runtime does. So runtime code never looks a method up
// on a value a tenant can reach: it calls the captured function, `uncurry` turning `a.f(b)` into
// `f(a, b)`. It walks arrays by index (iteration is patchable), gives internal records a null
// prototype or a class of our own, and keeps state in private fields, which no reflection shows.

const global = globalThis;
const {
  Array, ArrayBuffer, BigInt, Boolean, DataView, Date, Error, Function, JSON, Map, Math, Number,
  Object, Promise, Proxy, RangeError, Reflect, RegExp, Set, String, Symbol, SyntaxError, TypeError,
  Uint8Array, Uint16Array, Uint32Array, WeakMap, WeakSet, encodeURIComponent,
} = global;

const uncurry = Function.prototype.bind.bind(Function.prototype.call);
const FunctionBind = uncurry(Function.prototype.bind);
const FunctionToString = uncurry(Function.prototype.toString);
const FunctionHasInstance = uncurry(Function.prototype[Symbol.hasInstance]);

const { apply: ReflectApply, construct: ReflectConstruct, ownKeys: ReflectOwnKeys, setPrototypeOf: ReflectSetPrototypeOf } = Reflect;
const {
  assign: ObjectAssign, create: ObjectCreate, defineProperty: ObjectDefineProperty,
  defineProperties: ObjectDefineProperties, entries: ObjectEntries, freeze: ObjectFreeze,
  getOwnPropertyDescriptor: ObjectGetOwnPropertyDescriptor, getOwnPropertyNames: ObjectGetOwnPropertyNames,
  getOwnPropertySymbols: ObjectGetOwnPropertySymbols, getPrototypeOf: ObjectGetPrototypeOf,
  setPrototypeOf: ObjectSetPrototypeOf, keys: ObjectKeys, is: ObjectIs,
} = Object;
const ObjectPrototype = Object.prototype;
const globalPrototype = ObjectGetPrototypeOf(global);
const ObjectHasOwn = Object.hasOwn;
const ObjectToString = uncurry(Object.prototype.toString);
const ObjectPropertyIsEnumerable = uncurry(Object.prototype.propertyIsEnumerable);

const ArrayIsArray = Array.isArray;
const ArrayPush = uncurry(Array.prototype.push);
const ArrayPop = uncurry(Array.prototype.pop);
const ArrayShift = uncurry(Array.prototype.shift);
const ArraySplice = uncurry(Array.prototype.splice);
const ArraySlice = uncurry(Array.prototype.slice);
const ArrayJoin = uncurry(Array.prototype.join);
const ArraySort = uncurry(Array.prototype.sort);
const ArrayIncludes = uncurry(Array.prototype.includes);

const StringSlice = uncurry(String.prototype.slice);
const StringIndexOf = uncurry(String.prototype.indexOf);
const StringLastIndexOf = uncurry(String.prototype.lastIndexOf);
const StringIncludes = uncurry(String.prototype.includes);
const StringCharCodeAt = uncurry(String.prototype.charCodeAt);
const StringToLowerCase = uncurry(String.prototype.toLowerCase);
const StringToUpperCase = uncurry(String.prototype.toUpperCase);
const StringToWellFormed = uncurry(String.prototype.toWellFormed);
const StringIsWellFormed = uncurry(String.prototype.isWellFormed);
const StringStartsWith = uncurry(String.prototype.startsWith);
const StringEndsWith = uncurry(String.prototype.endsWith);
const StringRepeat = uncurry(String.prototype.repeat);
const StringPadStart = uncurry(String.prototype.padStart);
const StringPadEnd = uncurry(String.prototype.padEnd);
const StringFromCharCode = String.fromCharCode;
const SymbolIterator = Symbol.iterator;
const SymbolAsyncIterator = Symbol.asyncIterator;
const SymbolToPrimitive = Symbol.toPrimitive;
const SymbolToStringTag = Symbol.toStringTag;
const SymbolToString = uncurry(Symbol.prototype.toString);
const RegExpExec = uncurry(RegExp.prototype.exec);
const NumberIsFinite = Number.isFinite;
const NumberIsInteger = Number.isInteger;
const NumberIsNaN = Number.isNaN;
const NumberToString = uncurry(Number.prototype.toString);
const { ceil: MathCeil, floor: MathFloor, max: MathMax, min: MathMin, trunc: MathTrunc, abs: MathAbs } = Math;
const JSONParse = JSON.parse;
const JSONStringify = JSON.stringify;
const DateToISOString = uncurry(Date.prototype.toISOString);
const DateGetTime = uncurry(Date.prototype.getTime);
const ErrorCaptureStackTrace = Error.captureStackTrace;
const ErrorToString = uncurry(Error.prototype.toString);

const PromiseThen = uncurry(Promise.prototype.then);
const PromiseResolve = FunctionBind(Promise.resolve, Promise);
const PromiseReject = FunctionBind(Promise.reject, Promise);

const TypedArray = ObjectGetPrototypeOf(Uint8Array);
const getterOf = (object, name) => uncurry(ObjectGetOwnPropertyDescriptor(object, name).get);
const TypedArrayBuffer = getterOf(TypedArray.prototype, "buffer");
const TypedArrayByteLength = getterOf(TypedArray.prototype, "byteLength");
const TypedArrayByteOffset = getterOf(TypedArray.prototype, "byteOffset");
const TypedArrayLength = getterOf(TypedArray.prototype, "length");
const TypedArrayTag = getterOf(TypedArray.prototype, SymbolToStringTag); // undefined: not a typed array
const TypedArraySet = uncurry(TypedArray.prototype.set);
const TypedArraySubarray = uncurry(TypedArray.prototype.subarray);
const TypedArraySlice = uncurry(TypedArray.prototype.slice);
const DataViewBuffer = getterOf(DataView.prototype, "buffer");
const DataViewByteLength = getterOf(DataView.prototype, "byteLength");
const DataViewByteOffset = getterOf(DataView.prototype, "byteOffset");
const ArrayBufferByteLength = getterOf(ArrayBuffer.prototype, "byteLength");
const ArrayBufferSlice = uncurry(ArrayBuffer.prototype.slice);
const ArrayBufferIsView = ArrayBuffer.isView;
const ArrayBufferDetached = getterOf(ArrayBuffer.prototype, "detached");
const ArrayBufferResizable = getterOf(ArrayBuffer.prototype, "resizable");
const ArrayBufferMaxByteLength = getterOf(ArrayBuffer.prototype, "maxByteLength");
const RawArrayBufferTransfer = uncurry(ArrayBuffer.prototype.transfer); // use ArrayBufferTransfer of resizable.js

const RegExpSource = getterOf(RegExp.prototype, "source");
const RegExpFlags = getterOf(RegExp.prototype, "flags");
const NumberValueOf = uncurry(Number.prototype.valueOf);
const StringValueOf = uncurry(String.prototype.valueOf);
const BooleanValueOf = uncurry(Boolean.prototype.valueOf);
const SymbolValueOf = uncurry(Symbol.prototype.valueOf);
const BigIntValueOf = uncurry(BigInt.prototype.valueOf);

const typedArrayClasses = [];
for (const name of ["Int8Array", "Uint8Array", "Uint8ClampedArray", "Int16Array", "Uint16Array", "Int32Array", "Uint32Array",
  "Float16Array", "Float32Array", "Float64Array", "BigInt64Array", "BigUint64Array"]) {
  const T = global[name];
  if (T !== undefined) ArrayPush(typedArrayClasses, { __proto__: null, T, name, size: T.BYTES_PER_ELEMENT });
}

const IteratorPrototype = ObjectGetPrototypeOf(ObjectGetPrototypeOf([][SymbolIterator]()));
const AsyncIteratorPrototype = ObjectGetPrototypeOf(ObjectGetPrototypeOf(async function* () {}).prototype);

// makeSafe gives `Copy`, an otherwise empty subclass of a collection, its own copies of the
// collection's methods and cuts it off from the patchable prototype.
const makeSafe = (Copy, original) => {
  const keys = ReflectOwnKeys(original.prototype);
  for (let i = 0; i < keys.length; i++) {
    if (!ObjectHasOwn(Copy.prototype, keys[i])) {
      ObjectDefineProperty(Copy.prototype, keys[i], ObjectGetOwnPropertyDescriptor(original.prototype, keys[i]));
    }
  }
  ObjectSetPrototypeOf(Copy.prototype, null);
  ObjectFreeze(Copy.prototype);
  return Copy;
};
const SafeMap = makeSafe(class SafeMap extends Map { constructor() { super(); } }, Map);
const SafeSet = makeSafe(class SafeSet extends Set { constructor() { super(); } }, Set);
const SafeWeakMap = makeSafe(class SafeWeakMap extends WeakMap { constructor() { super(); } }, WeakMap);
const MapForEach = uncurry(Map.prototype.forEach);
const SetForEach = uncurry(Set.prototype.forEach);

const parseFloatBuiltin = global.parseFloat;

// bare cuts a class of the runtime's own off from Object.prototype, where a tenant could put an
// accessor that an assignment to a field would run.
const bare = (C) => { ObjectSetPrototypeOf(C.prototype, null); };

// bareList makes an array of the runtime's own records. Storing an element asks the prototype chain
// for a setter (push does too): on Array.prototype a tenant could wait there for what we store.
const bareList = () => ObjectSetPrototypeOf([], null);

const noop = () => {};

// deferred makes a promise with its settling functions.
const deferred = () => {
  let resolve, reject;
  const promise = new Promise((a, b) => { resolve = a; reject = b; });
  return { __proto__: null, promise, resolve, reject };
};

// markHandled keeps a rejection of p out of the unhandled-rejection report.
const markHandled = (p) => { PromiseThen(p, undefined, noop); return p; };

// A unit is a group of files whose classes are made on first use: a tenant that never touches
// streams pays for one closure instead of two hundred.
class Unit {
  constructor(make) { this.make = make; this.value = undefined; }
  get() {
    if (this.value === undefined) {
      const make = this.make;
      this.make = undefined;
      this.value = make();
    }
    return this.value;
  }
  get loaded() { return this.value !== undefined; }
}
bare(Unit);
