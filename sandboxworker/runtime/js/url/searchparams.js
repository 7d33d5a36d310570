// URLSearchParams (https://url.spec.whatwg.org/#interface-urlsearchparams) and the
// application/x-www-form-urlencoded format (https://url.spec.whatwg.org/#application/x-www-form-urlencoded).

const hexValue = (c) => (c >= 48 && c <= 57 ? c - 48 : c >= 65 && c <= 70 ? c - 55 : c >= 97 && c <= 102 ? c - 87 : -1);

// decodeForm undoes '+' and percent-encoding. Most pieces need neither and are returned as they are.
const decodeForm = (s) => {
  if (!StringIncludes(s, "%") && !StringIncludes(s, "+")) return s;
  const bytes = host.utf8Encode(s);
  const n = TypedArrayLength(bytes);
  let at = 0;
  for (let i = 0; i < n; i++) {
    let b = bytes[i];
    if (b === 43) {
      b = 32;
    } else if (b === 37 && i + 2 < n) {
      const hi = hexValue(bytes[i + 1]), lo = hexValue(bytes[i + 2]);
      if (hi >= 0 && lo >= 0) { b = hi * 16 + lo; i += 2; }
    }
    bytes[at++] = b;
  }
  return host.utf8Decode(subarrayU8(bytes, 0, at), false, true);
};

// parseForm turns a query into a flat list: name, value, name, value, ...
const parseForm = (input) => {
  const out = [];
  let start = 0;
  const n = input.length;
  while (start <= n) {
    let end = StringIndexOf(input, "&", start);
    if (end < 0) end = n;
    if (end > start) {
      const eq = StringIndexOf(input, "=", start);
      const split = eq < 0 || eq > end ? end : eq;
      ArrayPush(out, decodeForm(StringSlice(input, start, split)));
      ArrayPush(out, split < end ? decodeForm(StringSlice(input, split + 1, end)) : "");
    }
    start = end + 1;
  }
  return out;
};

const plainForm = /^[A-Za-z0-9*\-._]*$/;
const hexDigits = "0123456789ABCDEF";
const encodeForm = (s) => {
  if (RegExpExec(plainForm, s) !== null) return s;
  const bytes = host.utf8Encode(s);
  let out = "";
  for (let i = 0, n = TypedArrayLength(bytes); i < n; i++) {
    const b = bytes[i];
    if ((b >= 48 && b <= 57) || (b >= 65 && b <= 90) || (b >= 97 && b <= 122) || b === 42 || b === 45 || b === 46 || b === 95) {
      out += StringFromCharCode(b);
    } else {
      out += b === 32 ? "+" : "%" + hexDigits[b >> 4] + hexDigits[b & 15];
    }
  }
  return out;
};
const serializeForm = (list) => {
  let out = "";
  for (let i = 0; i < list.length; i += 2) {
    out += `${i === 0 ? "" : "&"}${encodeForm(list[i])}=${encodeForm(list[i + 1])}`;
  }
  return out;
};

// ParamsState is shared by a URLSearchParams and the URL it belongs to, if any.
class ParamsState {
  constructor(list, onChange) { this.list = list; this.onChange = onChange; }
  changed() { if (this.onChange !== undefined) this.onChange(serializeForm(this.list)); }
}
bare(ParamsState);

let paramsState, isParams;
const paramsAt = (target, i) => {
  const list = paramsState(target).list;
  return i * 2 < list.length ? [list[i * 2], list[i * 2 + 1]] : undefined;
};
const ParamsIterator = pairIterator("URLSearchParams", paramsAt);

class URLSearchParams {
  #p;
  static {
    paramsState = (v) => v.#p;
    isParams = (v) => isObject(v) && #p in v;
  }
  constructor(init = "") {
    if (init === kInternal) { this.#p = arguments[1]; return; }
    this.#p = new ParamsState(initParams(init), undefined);
  }
  get size() { return this.#p.list.length / 2; }
  append(name, value) {
    const p = this.#p;
    needArgs("URLSearchParams.append", arguments.length, 2);
    const n = toUSVString(name), v = toUSVString(value);
    ArrayPush(p.list, n);
    ArrayPush(p.list, v);
    p.changed();
  }
  delete(name, value = undefined) {
    const p = this.#p;
    needArgs("URLSearchParams.delete", arguments.length, 1);
    const n = toUSVString(name), v = value === undefined ? undefined : toUSVString(value);
    const kept = [];
    for (let i = 0; i < p.list.length; i += 2) {
      if (p.list[i] === n && (v === undefined || p.list[i + 1] === v)) continue;
      ArrayPush(kept, p.list[i]);
      ArrayPush(kept, p.list[i + 1]);
    }
    p.list = kept;
    p.changed();
  }
  get(name) {
    const { list } = this.#p;
    needArgs("URLSearchParams.get", arguments.length, 1);
    const n = toUSVString(name);
    for (let i = 0; i < list.length; i += 2) if (list[i] === n) return list[i + 1];
    return null;
  }
  getAll(name) {
    const { list } = this.#p;
    needArgs("URLSearchParams.getAll", arguments.length, 1);
    const n = toUSVString(name), out = [];
    for (let i = 0; i < list.length; i += 2) if (list[i] === n) ArrayPush(out, list[i + 1]);
    return out;
  }
  has(name, value = undefined) {
    const { list } = this.#p;
    needArgs("URLSearchParams.has", arguments.length, 1);
    const n = toUSVString(name), v = value === undefined ? undefined : toUSVString(value);
    for (let i = 0; i < list.length; i += 2) {
      if (list[i] === n && (v === undefined || list[i + 1] === v)) return true;
    }
    return false;
  }
  set(name, value) {
    const p = this.#p;
    needArgs("URLSearchParams.set", arguments.length, 2);
    const n = toUSVString(name), v = toUSVString(value), out = [];
    let done = false;
    for (let i = 0; i < p.list.length; i += 2) {
      if (p.list[i] !== n) {
        ArrayPush(out, p.list[i]);
        ArrayPush(out, p.list[i + 1]);
      } else if (!done) {
        done = true;
        ArrayPush(out, n);
        ArrayPush(out, v);
      }
    }
    if (!done) { ArrayPush(out, n); ArrayPush(out, v); }
    p.list = out;
    p.changed();
  }
  sort() {
    const p = this.#p, pairs = [];
    for (let i = 0; i < p.list.length; i += 2) ArrayPush(pairs, [p.list[i], p.list[i + 1]]);
    ArraySort(pairs, (a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0)); // code units, stable
    const out = [];
    for (let i = 0; i < pairs.length; i++) { ArrayPush(out, pairs[i][0]); ArrayPush(out, pairs[i][1]); }
    p.list = out;
    p.changed();
  }
  toString() { return serializeForm(this.#p.list); }
  entries() { void this.#p; return new ParamsIterator(this, 2); }
  forEach(callback, thisArg = undefined) { void this.#p; forEachPair(this, paramsAt, callback, thisArg, "URLSearchParams.forEach"); }
  keys() { void this.#p; return new ParamsIterator(this, 0); }
  values() { void this.#p; return new ParamsIterator(this, 1); }
}
defineInterface(URLSearchParams, "URLSearchParams");
alias(URLSearchParams, SymbolIterator, "entries");

// initParams reads (sequence<sequence<USVString>> or record<USVString, USVString> or USVString).
const initParams = (init) => {
  if (!isObject(init)) {
    const s = toUSVString(init);
    return parseForm(StringStartsWith(s, "?") ? StringSlice(s, 1) : s);
  }
  const method = init[SymbolIterator];
  const out = [];
  if (method !== undefined && method !== null) {
    if (typeof method !== "function") throw new TypeError("URLSearchParams init is not iterable.");
    const pairs = sequenceFrom(init, method, "URLSearchParams init",
      (pair) => toSequence(pair, "URLSearchParams init: a pair", toUSVString));
    for (let i = 0; i < pairs.length; i++) {
      if (pairs[i].length !== 2) throw new TypeError("URLSearchParams init: each pair must be a name and a value.");
      ArrayPush(out, pairs[i][0]);
      ArrayPush(out, pairs[i][1]);
    }
    return out;
  }
  const keys = ReflectOwnKeys(init);
  const seen = new SafeMap();
  for (let i = 0; i < keys.length; i++) {
    const d = ObjectGetOwnPropertyDescriptor(init, keys[i]);
    if (d === undefined || !d.enumerable) continue;
    const name = toUSVString(keys[i]);
    const value = toUSVString(init[keys[i]]);
    const at = seen.get(name); // two keys may become one when surrogates are replaced
    if (at !== undefined) { out[at] = value; continue; }
    seen.set(name, out.length + 1);
    ArrayPush(out, name);
    ArrayPush(out, value);
  }
  return out;
};
