// Values between workers: structured clone (HTML standard, "Safe passing of structured data") in a form
// of our own, because the bytes come from another process, which may be broken: what reads them is
// this script, in the isolate they are for, and not V8's deserializer, which was made for its own words.
//
// A message is a length in decimal, a line feed, that many bytes of JSON, then the bytes of all
// ArrayBuffers. The JSON is [nodes, value]. A value is a string, boolean, null or finite number, or an
// array: [0] undefined, [1, text] another number, [2, text] a BigInt, [3, n] the nth node. A node is
// [kind, ...]; nodes name each other, so there is no nesting, however deep or cyclic the value is.

const MESSAGE_BYTES = 33554432; // one message
// Of its JSON: parsing is one builtin that nothing interrupts, on the account of whoever is called.
const JSON_BYTES = 2097152;
const BIGINT_DIGITS = 10000; // as above
// Holes of an array: what is done with a long one, by whoever gets it, can end its process.
const MAX_HOLES = 1024;

const V_UNDEFINED = 0, V_NUMBER = 1, V_BIGINT = 2, V_NODE = 3;
const N_OBJECT = 0, N_ARRAY = 1, N_DATE = 2, N_REGEXP = 3, N_MAP = 4, N_SET = 5, N_ERROR = 6, N_BOXED = 7,
  N_BUFFER = 8, N_TYPED = 9, N_VIEW = 10;

const typedArrayNames = new SafeMap();
for (let i = 0; i < typedArrayClasses.length; i++) typedArrayNames.set(typedArrayClasses[i].name, typedArrayClasses[i]);
const NumberOf = Number, StringOf = String, BigIntOf = BigInt;

const cloneError = (what) => newDOMException(`${what} cannot be sent to another worker. ` +
  "Plain values, arrays, Map, Set, Date, RegExp, Error and ArrayBuffers and their views can.", "DataCloneError");
const services = new SafeWeakMap(); // service binding -> true
const malformed = () => new TypeError("The other worker's message is malformed.");
const has = (f, v) => { try { f(v); return true; } catch { return false; } };

class Encoder {
  constructor() {
    this.nodes = bareList();
    this.seen = new SafeMap(); // object -> number of its node
    this.todo = new Fifo();
    this.buffers = bareList();
    this.total = 0;
  }
  value(v) {
    switch (typeof v) {
      case "string": case "boolean": return v;
      case "undefined": return listOf(V_UNDEFINED);
      case "number":
        if (NumberIsFinite(v) && !ObjectIs(v, -0)) return v;
        return listOf(V_NUMBER, ObjectIs(v, -0) ? "-0" : `${v}`);
      case "bigint": {
        const digits = `${v}`;
        if (digits.length > BIGINT_DIGITS) throw cloneError(`A BigInt of more than ${BIGINT_DIGITS} digits`);
        return listOf(V_BIGINT, digits);
      }
      case "object": return v === null ? null : listOf(V_NODE, this.node(v));
      case "function": throw cloneError("A function");
      default: throw cloneError("A symbol");
    }
  }
  // node numbers an object; what it holds is written later, in a loop.
  node(o) {
    const known = this.seen.get(o);
    if (known !== undefined) return known;
    const n = this.nodes.length;
    this.seen.set(o, n);
    const out = bareList();
    this.nodes[n] = out;
    this.todo.push({ __proto__: null, o, out });
    return n;
  }
  fill(o, out) {
    if (ArrayIsArray(o)) {
      const { length } = o;
      out[0] = N_ARRAY;
      out[1] = length;
      this.properties(o, out, 2);
      if (length > (out.length - 2) / 2 + MAX_HOLES) throw cloneError(`An array with more than ${MAX_HOLES} holes`);
      return;
    }
    if (services.has(o)) throw cloneError("A service binding");
    const proto = ObjectGetPrototypeOf(o);
    if (proto !== ObjectPrototype && proto !== null && this.special(o, out)) return;
    out[0] = N_OBJECT;
    this.properties(o, out, 1);
  }
  properties(o, out, at) {
    const keys = ObjectKeys(o);
    for (let i = 0; i < keys.length; i++) {
      if (!ObjectHasOwn(o, keys[i])) continue; // a getter has deleted it
      out[at++] = keys[i];
      out[at++] = this.value(o[keys[i]]);
    }
  }
  // special writes what is no plain object; false: it is one after all.
  special(o, out) {
    const tag = TypedArrayTag(o);
    if (tag !== undefined) {
      out[0] = N_TYPED; out[1] = tag;
      out[2] = this.node(TypedArrayBuffer(o)); out[3] = TypedArrayByteOffset(o); out[4] = TypedArrayLength(o);
    } else if (ArrayBufferIsView(o)) {
      out[0] = N_VIEW; out[1] = "DataView";
      out[2] = this.node(DataViewBuffer(o)); out[3] = DataViewByteOffset(o); out[4] = DataViewByteLength(o);
    } else if (has(ArrayBufferByteLength, o)) {
      if (ArrayBufferDetached(o)) throw cloneError("A detached ArrayBuffer");
      const bytes = TypedArraySliceU8(new Uint8Array(o), 0);
      out[0] = N_BUFFER; out[1] = TypedArrayByteLength(bytes);
      this.total += TypedArrayByteLength(bytes);
      if (this.total > MESSAGE_BYTES) throw tooLarge();
      this.buffers[this.buffers.length] = bytes;
    } else if (has(DateGetTime, o)) {
      const ms = DateGetTime(o);
      out[0] = N_DATE; out[1] = NumberIsNaN(ms) ? null : ms;
    } else if (has(MapSize, o)) {
      out[0] = N_MAP;
      const entries = bareList();
      MapForEach(o, (v, k) => { entries[entries.length] = k; entries[entries.length] = v; });
      for (let i = 0; i < entries.length; i++) out[i + 1] = this.value(entries[i]);
    } else if (has(SetSize, o)) {
      out[0] = N_SET;
      const entries = bareList();
      SetForEach(o, (v) => { entries[entries.length] = v; });
      for (let i = 0; i < entries.length; i++) out[i + 1] = this.value(entries[i]);
    } else if (ObjectToString(o) === "[object Error]" || isDOMException(o)) {
      this.error(o, out);
    } else if (ObjectToString(o) === "[object RegExp]" && has(RegExpSource, o)) {
      out[0] = N_REGEXP; out[1] = RegExpSource(o); out[2] = RegExpFlags(o);
    } else if (has(NumberValueOf, o)) { out[0] = N_BOXED; out[1] = this.value(NumberValueOf(o));
    } else if (has(StringValueOf, o)) { out[0] = N_BOXED; out[1] = StringValueOf(o);
    } else if (has(BooleanValueOf, o)) { out[0] = N_BOXED; out[1] = BooleanValueOf(o);
    } else if (has(BigIntValueOf, o)) { out[0] = N_BOXED; out[1] = this.value(BigIntValueOf(o));
    } else if (unsendable(o)) { throw cloneError(describeKind(o));
    } else { return false; }
    return true;
  }
  error(o, out) {
    out[0] = N_ERROR;
    const name = o.name, message = o.message;
    out[1] = typeof name === "string" ? name : "Error";
    out[2] = typeof message === "string" ? message : "";
    if (ObjectHasOwn(o, "cause")) out[3] = this.value(o.cause);
  }
  finish(v) {
    const root = this.value(v);
    while (this.todo.length > 0) {
      const { o, out } = this.todo.shift();
      this.fill(o, out);
    }
    // Lists without a prototype: nobody's toJSON is asked.
    const json = host.utf8Encode(JSONStringify(listOf(this.nodes, root)));
    if (TypedArrayByteLength(json) > JSON_BYTES) throw tooLarge();
    const head = host.utf8Encode(`${TypedArrayByteLength(json)}\n`);
    const parts = [head, json];
    let total = TypedArrayByteLength(head) + TypedArrayByteLength(json) + this.total;
    if (total > MESSAGE_BYTES) throw tooLarge();
    for (let i = 0; i < this.buffers.length; i++) ArrayPush(parts, this.buffers[i]);
    return concatBytes(parts, total);
  }
}
bare(Encoder);

const tooLarge = () => newDOMException(`A message between workers can have ${JSON_BYTES} bytes, and ${MESSAGE_BYTES} with its ArrayBuffers; ` +
  "this one has more. Send a stream with fetch() instead.", "DataCloneError");
const isDOMException = (o) => domExceptionUnit.loaded && domExceptionUnit.get().is(o);
// unsendable knows what has identity or state that a copy of its properties would lose.
const unsendable = (o) => isResponse(o) || isRequest(o) || isHeaders(o) || isStreamObject(o) || isBlobObject(o) || isFormDataObject(o) ||
  identityTags.has(ObjectToString(o));
const identityTags = new SafeSet();
for (let i = 0, tags = ["Promise", "WeakMap", "WeakSet", "WeakRef", "Fetcher", "AbortSignal", "Generator", "AsyncGenerator"]; i < tags.length; i++) {
  identityTags.add(`[object ${tags[i]}]`);
}
const listOf = (...items) => { ObjectSetPrototypeOf(items, null); return items; };

const encode = (v) => new Encoder().finish(v);

// Decoder makes the shells of all nodes, then fills them.
class Decoder {
  constructor(nodes) {
    this.nodes = nodes;
    this.made = bareList();
  }
  ref(n) {
    if (typeof n !== "number" || n >>> 0 !== n || n >= this.made.length) throw malformed();
    return this.made[n];
  }
  value(w) {
    if (!isObject(w)) return w;
    if (!ArrayIsArray(w)) throw malformed();
    switch (w[0]) {
      case V_UNDEFINED: return undefined;
      case V_NUMBER: return NumberOf(text(w[1]));
      case V_BIGINT:
        if (text(w[1]).length > BIGINT_DIGITS) throw malformed();
        return BigIntOf(w[1]);
      case V_NODE: return this.ref(w[1]);
      default: throw malformed();
    }
  }
  shells(bytes) {
    let at = 0;
    const { nodes, made } = this;
    for (let i = 0; i < nodes.length; i++) {
      const w = nodes[i];
      if (!ArrayIsArray(w)) throw malformed();
      switch (w[0]) {
        case N_OBJECT: made[i] = {}; break;
        case N_ARRAY: {
          if (typeof w[1] !== "number" || w[1] >>> 0 !== w[1] || w[1] > (w.length - 2) / 2 + MAX_HOLES) throw malformed();
          const a = [];
          a.length = w[1];
          made[i] = a;
          break;
        }
        case N_DATE: made[i] = new Date(w[1] === null ? NaN : NumberOf(w[1])); break;
        case N_REGEXP: made[i] = new RegExp(text(w[1]), text(w[2])); break;
        case N_MAP: made[i] = new Map(); break;
        case N_SET: made[i] = new Set(); break;
        case N_ERROR: made[i] = newError(text(w[1]), text(w[2])); break;
        case N_BOXED: made[i] = Object(this.value(isObject(w[1]) && w[1][0] === V_NODE ? undefined : w[1])); break;
        case N_BUFFER: {
          const n = w[1];
          if (typeof n !== "number" || n >>> 0 !== n || at + n > TypedArrayByteLength(bytes)) throw malformed();
          made[i] = TypedArrayBuffer(TypedArraySliceU8(bytes, at, at + n));
          at += n;
          break;
        }
        case N_TYPED: case N_VIEW: made[i] = undefined; break; // need their buffers
        default: throw malformed();
      }
    }
    for (let i = 0; i < nodes.length; i++) {
      const w = nodes[i];
      if (w[0] !== N_TYPED && w[0] !== N_VIEW) continue;
      const buffer = this.ref(w[2]), offset = w[3], length = w[4];
      if (!has(ArrayBufferByteLength, buffer) || typeof offset !== "number" || typeof length !== "number") throw malformed();
      if (w[0] === N_VIEW) { made[i] = new DataView(buffer, offset, length); continue; }
      const c = typedArrayNames.get(text(w[1]));
      if (c === undefined) throw malformed();
      const { T } = c;
      made[i] = new T(buffer, offset, length);
    }
  }
  fill() {
    const { nodes, made } = this;
    for (let i = 0; i < nodes.length; i++) {
      const w = nodes[i], o = made[i];
      switch (w[0]) {
        case N_OBJECT: case N_ARRAY:
          for (let k = w[0] === N_ARRAY ? 2 : 1; k + 1 < w.length; k += 2) define(o, text(w[k]), this.value(w[k + 1]));
          if (w[0] === N_ARRAY && o.length !== w[1]) throw malformed(); // an element beyond the length that was checked
          break;
        case N_MAP:
          for (let k = 1; k + 1 < w.length; k += 2) MapSet(o, this.value(w[k]), this.value(w[k + 1]));
          break;
        case N_SET:
          for (let k = 1; k < w.length; k++) SetAdd(o, this.value(w[k]));
          break;
        case N_ERROR:
          if (w.length > 3) ObjectDefineProperty(o, "cause", { __proto__: null, value: this.value(w[3]), writable: true, configurable: true });
          break;
      }
    }
  }
}
bare(Decoder);

const text = (s) => { if (typeof s !== "string") throw malformed(); return s; };
const define = (o, key, value) => {
  ObjectDefineProperty(o, key, { __proto__: null, value, writable: true, enumerable: true, configurable: true });
};
const newError = (name, message) => {
  const E = errorClasses[name];
  if (E !== undefined) return new E(message);
  const e = new Error(message);
  ObjectDefineProperty(e, "name", { __proto__: null, value: name, writable: true, configurable: true });
  return e;
};

// decode gives the value of a message, or throws. It believes nothing of the bytes.
const decode = (bytes) => {
  let at = 0, length = 0;
  const all = TypedArrayByteLength(bytes);
  for (; ; at++) {
    const c = at < all && at < 9 ? bytes[at] : -1;
    if (c === 10) break;
    if (c < 48 || c > 57) throw malformed();
    length = length * 10 + (c - 48);
  }
  at++;
  if (at + length > all) throw malformed();
  if (length > JSON_BYTES) throw malformed();
  const doc = JSONParse(host.utf8Decode(subarrayU8(bytes, at, at + length), false, false));
  if (!ArrayIsArray(doc) || !ArrayIsArray(doc[0])) throw malformed();
  const d = new Decoder(doc[0]);
  d.shells(subarrayU8(bytes, at + length, all));
  d.fill();
  return d.value(doc[1]);
};
