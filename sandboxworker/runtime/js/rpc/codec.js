// Values between workers: structured clone (HTML standard, "Safe passing of structured data") in a form
// of our own, because the bytes come from another process, which may be broken: what reads them is
// this script, in the isolate they are for, and not V8's deserializer, which was made for its own words.
//
// A message is a length in decimal, a line feed, that many bytes of JSON, then the bytes of all
// ArrayBuffers. The JSON is [nodes, value]. A value is a string, boolean, null or finite number, or an
// array: [0] undefined, [1, text] another number, [2, text] a BigInt, [3, n] the nth node. A node is
// [kind, ...]; nodes name each other, so there is no nesting, however deep or cyclic the value is.
//
// With a stream in it, of which there can be one, the first line is that length, "s", and the length of all
// ArrayBuffers; after them come the stream's bytes, as long as the body goes on.
//
// A function is a node with its number among those of the message, from 1: the other end makes a stub of it
// that asks for that number. They stand in arguments alone; see rpc/function.js.

const MESSAGE_BYTES = 33554432; // one message
// Of its JSON: parsing is one builtin that nothing interrupts, on the account of whoever is called.
const JSON_BYTES = 2097152;
const BIGINT_DIGITS = 10000; // as above
const MAX_FUNCTIONS = 64; // of one message
// Holes of an array: what is done with a long one, by whoever gets it, can end its process.
const MAX_HOLES = 1024;

const V_UNDEFINED = 0, V_NUMBER = 1, V_BIGINT = 2, V_NODE = 3;
const N_OBJECT = 0, N_ARRAY = 1, N_DATE = 2, N_REGEXP = 3, N_MAP = 4, N_SET = 5, N_ERROR = 6, N_BOXED = 7,
  N_BUFFER = 8, N_TYPED = 9, N_VIEW = 10, N_STREAM = 11, N_FUNCTION = 12;

const typedArrayNames = new SafeMap();
for (let i = 0; i < typedArrayClasses.length; i++) typedArrayNames.set(typedArrayClasses[i].name, typedArrayClasses[i]);
const NumberOf = Number, StringOf = String, BigIntOf = BigInt;

const cloneError = (what) => newDOMException(`${what} cannot be sent to another worker. ` +
  "Plain values, arrays, Map, Set, Date, RegExp, Error and ArrayBuffers and their views can, and one ReadableStream of bytes.", "DataCloneError");
const functionError = () => newDOMException("A function cannot be sent to another worker but in the arguments of a call. Make it a method of an exported " +
  "WorkerEntrypoint, and bind the other worker to that; or take a function as an argument and call that.", "DataCloneError");
const services = new SafeWeakMap(); // service binding -> true
const malformed = () => new TypeError("The other worker's message is malformed.");
const has = (f, v) => { try { f(v); return true; } catch { return false; } };

class Encoder {
  // functions: the list that takes the message's functions; undefined: it may have none.
  constructor(functions) {
    this.functions = functions;
    this.nodes = bareList();
    this.seen = new SafeMap(); // object -> number of its node
    this.todo = new Fifo();
    this.buffers = bareList();
    this.total = 0;
    this.stream = undefined; // ReadableStream
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
      case "function":
        if (this.functions === undefined) throw functionError();
        return listOf(V_NODE, this.node(v));
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
    if (typeof o === "function") {
      const { functions } = this;
      if (functions.length >= MAX_FUNCTIONS) throw cloneError(`More than ${MAX_FUNCTIONS} functions`);
      functions[functions.length] = o;
      out[0] = N_FUNCTION;
      out[1] = functions.length;
      return;
    }
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
    } else if (isStreamObject(o)) {
      if (this.stream !== undefined) throw cloneError("A second ReadableStream");
      this.stream = o;
      out[0] = N_STREAM;
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
    const head = host.utf8Encode(`${TypedArrayByteLength(json)}${this.stream === undefined ? "" : `s${this.total}`}\n`);
    const parts = [head, json];
    let total = TypedArrayByteLength(head) + TypedArrayByteLength(json) + this.total;
    if (total > MESSAGE_BYTES) throw tooLarge();
    for (let i = 0; i < this.buffers.length; i++) ArrayPush(parts, this.buffers[i]);
    return concatBytes(parts, total);
  }
  // body is finish for what goes out as a body: the stream follows, locked from now on.
  body(v) {
    const bytes = this.finish(v);
    if (this.stream === undefined) return new Body(B_BYTES, bytes);
    const streams = streamsUnit.get();
    const s = streams.readableState(this.stream);
    if (s.disturbed || s.reader !== undefined) throw cloneError("A ReadableStream that was read from or is locked");
    const b = new Body(B_STREAM, undefined);
    b.prefix = bytes;
    b.stream = streams.proxyStream(s).wrapper;
    return b;
  }
}
bare(Encoder);

const tooLarge = () => newDOMException(`A message between workers can have ${JSON_BYTES} bytes, and ${MESSAGE_BYTES} with its ArrayBuffers; ` +
  "this one has more. Send a ReadableStream instead.", "DataCloneError");
const isDOMException = (o) => domExceptionUnit.loaded && domExceptionUnit.get().is(o);
// unsendable knows what has identity or state that a copy of its properties would lose.
const unsendable = (o) => isResponse(o) || isRequest(o) || isHeaders(o) || isStreamObject(o) || isBlobObject(o) || isFormDataObject(o) ||
  identityTags.has(ObjectToString(o));
const identityTags = new SafeSet();
for (let i = 0, tags = ["Promise", "WeakMap", "WeakSet", "WeakRef", "Fetcher", "AbortSignal", "Generator", "AsyncGenerator"]; i < tags.length; i++) {
  identityTags.add(`[object ${tags[i]}]`);
}
const listOf = (...items) => { ObjectSetPrototypeOf(items, null); return items; };

// encode is for what can hold no stream.
const encode = (v) => {
  const e = new Encoder(undefined), bytes = e.finish(v);
  if (e.stream !== undefined) throw cloneError("A ReadableStream in an error");
  return bytes;
};
const encodeBody = (v, functions) => new Encoder(functions).body(v);

// Decoder makes the shells of all nodes, then fills them.
class Decoder {
  constructor(nodes, rest, stub) {
    this.stub = stub; // makes what stands for a function; undefined: there are none
    this.rest = rest; // makes the stream; undefined: there is none, or it was made
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
        case N_STREAM: {
          const { rest } = this;
          if (rest === undefined) throw malformed();
          this.rest = undefined;
          made[i] = rest();
          break;
        }
        case N_FUNCTION: {
          const { stub } = this, n = w[1];
          if (stub === undefined || typeof n !== "number" || n >>> 0 !== n || n < 1 || n > MAX_FUNCTIONS) throw malformed();
          made[i] = stub(n);
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

// headOf reads a message's first line: at is where the JSON begins, length and buffers its and the buffers'
// bytes; buffers is -1 if no stream follows. undefined: it is malformed, or not whole.
const headOf = (bytes) => {
  const all = TypedArrayByteLength(bytes);
  let length = 0, buffers = -1;
  for (let at = 0, digits = 0; at < all; at++) {
    const c = bytes[at];
    if (c === 10) return { __proto__: null, at: at + 1, length, buffers };
    if (c === 115 && buffers < 0) { buffers = digits = 0; continue; }
    if (c < 48 || c > 57 || ++digits > 9) return undefined;
    if (buffers < 0) length = length * 10 + (c - 48); else buffers = buffers * 10 + (c - 48);
  }
  return undefined;
};
const HEAD_BYTES = 20;
const tooMuch = (h) => h.length > JSON_BYTES || h.buffers > MESSAGE_BYTES;

// decode gives the value of a message, or throws. It believes nothing of the bytes. wire: where they are from; stub:
// see Decoder.
const decode = (bytes, wire, stub) => {
  const all = TypedArrayByteLength(bytes);
  const h = headOf(bytes);
  if (h === undefined || tooMuch(h)) throw malformed();
  const { at, length, buffers } = h;
  const end = buffers < 0 ? all : at + length + buffers;
  if (at + length > all || end > all) throw malformed();
  const doc = JSONParse(host.utf8Decode(subarrayU8(bytes, at, at + length), false, false));
  if (!ArrayIsArray(doc) || !ArrayIsArray(doc[0])) throw malformed();
  const d = new Decoder(doc[0], buffers < 0 || wire === undefined ? undefined : () => {
    wire.unread(TypedArraySliceU8(bytes, end, all));
    return wire.toStream().wrapper;
  }, stub);
  d.shells(subarrayU8(bytes, at + length, end));
  if (d.rest !== undefined) throw malformed(); // bytes of no stream
  d.fill();
  return d.value(doc[1]);
};

// receive gives a promise of the value that a body brings, once it is here; its stream may go on.
const receive = (wire, stub) => {
  let need = 0; // bytes of the message; 0: not known, -1: all there are
  const content = wire.readAll((parts, total) => {
    if (need === 0) {
      const h = headOf(parts.length === 1 ? parts[0] : concatBytes(parts, total));
      if (h !== undefined) need = h.buffers < 0 ? -1 : tooMuch(h) ? 1 : h.at + h.length + h.buffers;
      else if (total >= HEAD_BYTES) need = -1; // malformed, as will be seen
    }
    if (need < 0) return total > 2 * MESSAGE_BYTES;
    return need > 0 && total >= need;
  });
  return PromiseThen(content, (bytes) => {
    try { return decode(bytes, wire, stub); } catch (error) {
      wire.drop();
      throw error;
    }
  });
};
