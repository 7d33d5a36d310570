// Headers (https://fetch.spec.whatwg.org/#headers-class).
//
// A HeaderList is flat: name, value, name, value, names in lower case as on our wire. What the
// standard says of a name's case cannot be observed by a script.

// Loops and not regular expressions: V8 makes native code of one that is used twice, which costs an
// isolate 80 KiB.
const tokenChars = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
let tokenTable; // by character code, 1 for those of a token (RFC 9110 section 5.6.2)
const isToken = (s) => {
  if (tokenTable === undefined) {
    tokenTable = new Uint8Array(128);
    for (let i = 0; i < tokenChars.length; i++) tokenTable[StringCharCodeAt(tokenChars, i)] = 1;
  }
  const n = s.length;
  for (let i = 0; i < n; i++) {
    const c = StringCharCodeAt(s, i);
    if (c > 127 || tokenTable[c] === 0) return false;
  }
  return n > 0;
};

// isPlain: printable ASCII, no space at either end. Nothing needs to be done to such a value.
const isPlain = (s) => {
  const n = s.length;
  if (n === 0) return true;
  for (let i = 0; i < n; i++) {
    const c = StringCharCodeAt(s, i);
    if (c < 0x20 || c > 0x7e) return false;
  }
  return StringCharCodeAt(s, 0) !== 0x20 && StringCharCodeAt(s, n - 1) !== 0x20;
};

// lowerNames remembers names already checked; bounded, as names come from tenants.
let lowerNames = new SafeMap();
const headerName = (v, what) => {
  const s = typeof v === "string" ? checkReadable(v) : toByteString(v, what);
  const known = lowerNames.get(s);
  if (known !== undefined) return known;
  if (!isToken(s)) {
    toByteString(s, what);
    throw new TypeError(`${what}: ${JSONStringify(StringSlice(s, 0, 100))} is not a valid header name.`);
  }
  const lower = StringToLowerCase(s);
  if (s.length <= 64) {
    if (lowerNames.size >= 512) lowerNames = new SafeMap();
    lowerNames.set(s, lower);
  }
  return lower;
};

const isHTTPSpace = (c) => c === 0x20 || c === 0x09 || c === 0x0a || c === 0x0d;
const headerValue = (v, what) => {
  let s = toDOMString(v);
  if (isPlain(s)) return s;
  s = toByteString(s, what);
  let a = 0, b = s.length;
  while (a < b && isHTTPSpace(StringCharCodeAt(s, a))) a++;
  while (b > a && isHTTPSpace(StringCharCodeAt(s, b - 1))) b--;
  s = StringSlice(s, a, b);
  for (let i = 0; i < s.length; i++) {
    const c = StringCharCodeAt(s, i);
    if (c === 0 || c === 10 || c === 13) throw new TypeError(`${what}: the header value holds a NUL, CR or LF.`);
  }
  return s;
};

class HeaderList {
  constructor(list, immutable) {
    this.list = list;
    this.immutable = immutable;
    this.sorted = undefined; // pairs for iteration, until the next change
  }
  get(name) {
    const { list } = this;
    let out = null;
    for (let i = 0; i < list.length; i += 2) {
      if (list[i] === name) out = out === null ? list[i + 1] : `${out}, ${list[i + 1]}`;
    }
    return out;
  }
  has(name) {
    const { list } = this;
    for (let i = 0; i < list.length; i += 2) if (list[i] === name) return true;
    return false;
  }
  append(name, value) {
    ArrayPush(this.list, name);
    ArrayPush(this.list, value);
    this.sorted = undefined;
  }
  set(name, value) {
    const { list } = this;
    for (let i = 0; i < list.length; i += 2) {
      if (list[i] !== name) continue;
      list[i + 1] = value;
      this.sorted = undefined;
      for (let j = list.length - 2; j > i; j -= 2) if (list[j] === name) ArraySplice(list, j, 2);
      return;
    }
    this.append(name, value);
  }
  delete(name) {
    const { list } = this;
    for (let i = list.length - 2; i >= 0; i -= 2) if (list[i] === name) ArraySplice(list, i, 2);
    this.sorted = undefined;
  }
  // distinct: few names, none of them twice. Such a list is its own combination but for the order.
  get distinct() {
    const { list } = this;
    if (list.length > 32) return false;
    for (let i = 2; i < list.length; i += 2) {
      for (let j = 0; j < i; j += 2) if (list[i] === list[j]) return false;
    }
    return true;
  }
  copy() { return new HeaderList(ArraySlice(this.list), false); }
  // flat is the wire form, "name\nvalue\n" repeated, one character a byte.
  flat() {
    const { list } = this;
    let out = "";
    for (let i = 0; i < list.length; i += 2) out += `${list[i]}\n${list[i + 1]}\n`;
    return out;
  }
  // sortedPairs is https://fetch.spec.whatwg.org/#concept-header-list-sort-and-combine.
  sortedPairs() {
    if (this.sorted !== undefined) return this.sorted;
    const { list } = this;
    const names = [];
    const seen = new SafeSet();
    for (let i = 0; i < list.length; i += 2) {
      if (!seen.has(list[i])) { seen.add(list[i]); ArrayPush(names, list[i]); }
    }
    ArraySort(names, (a, b) => (a < b ? -1 : a > b ? 1 : 0));
    const out = [];
    for (let i = 0; i < names.length; i++) {
      if (names[i] !== "set-cookie") { ArrayPush(out, [names[i], this.get(names[i])]); continue; }
      for (let j = 0; j < list.length; j += 2) {
        if (list[j] === "set-cookie") ArrayPush(out, ["set-cookie", list[j + 1]]);
      }
    }
    return (this.sorted = out);
  }
}
bare(HeaderList);

// headerListFromFlat reads the wire form. The gateway has checked names and values.
const headerListFromFlat = (flat, immutable) => {
  const list = [];
  let at = 0;
  while (at < flat.length) {
    const end = StringIndexOf(flat, "\n", at);
    if (end < 0) break;
    ArrayPush(list, StringSlice(flat, at, end));
    at = end + 1;
  }
  if (list.length % 2 !== 0) ArrayPop(list);
  return new HeaderList(list, immutable);
};

// fillHeaders appends a HeadersInit: (sequence<sequence<ByteString>> or record<ByteString, ByteString>).
const fillHeaders = (h, init, what) => {
  if (!isObject(init)) throw new TypeError(`${what} is not an object.`);
  const method = init[SymbolIterator];
  if (method !== undefined && method !== null) {
    if (isHeaders(init) && method === headersEntries) { // as iteration would do, without it
      const given = headerList(init);
      if (h.list.length === 0 && given.distinct) {
        for (let i = 0; i < given.list.length; i++) ArrayPush(h.list, given.list[i]);
        return;
      }
      const pairs = given.sortedPairs();
      for (let i = 0; i < pairs.length; i++) h.append(pairs[i][0], pairs[i][1]);
      return;
    }
    if (typeof method !== "function") throw new TypeError(`${what} is not iterable.`);
    const pairs = sequenceFrom(init, method, what, (pair) => toSequence(pair, `${what}: a pair`, (v) => toByteString(v, what)));
    for (let i = 0; i < pairs.length; i++) {
      if (pairs[i].length !== 2) throw new TypeError(`${what}: each pair must be a name and a value.`);
      h.append(headerName(pairs[i][0], what), headerValue(pairs[i][1], what));
    }
    return;
  }
  const keys = ReflectOwnKeys(init), values = [];
  let n = 0; // of what is enumerable; all is read before any of it is checked, as a record is converted first
  for (let i = 0; i < keys.length; i++) {
    const key = keys[i];
    const d = ObjectGetOwnPropertyDescriptor(init, key);
    if (d === undefined || !d.enumerable) continue;
    if (typeof key === "symbol") throw new TypeError(`${what}: a symbol is not a header name.`);
    keys[n++] = toByteString(key, what);
    ArrayPush(values, toByteString(init[key], what));
  }
  for (let i = 0; i < n; i++) h.append(headerName(keys[i], what), headerValue(values[i], what));
};

let headerList, isHeaders;
const headersAt = (target, i) => headerList(target).sortedPairs()[i];
const HeadersIterator = pairIterator("Headers", headersAt);

class Headers {
  #h;
  static {
    headerList = (v) => v.#h;
    isHeaders = (v) => isObject(v) && #h in v;
  }
  constructor(init = undefined) {
    if (init === kInternal) { this.#h = arguments[1]; return; }
    this.#h = new HeaderList([], false);
    if (init !== undefined) fillHeaders(this.#h, init, "Headers init");
  }
  #writable() {
    const h = this.#h;
    if (h.immutable) throw new TypeError("Can't modify immutable headers.");
    return h;
  }
  append(name, value) {
    void this.#h;
    needArgs("Headers.append", arguments.length, 2);
    const n = headerName(toDOMString(name), "Headers.append"), v = headerValue(value, "Headers.append");
    this.#writable().append(n, v);
  }
  delete(name) {
    void this.#h;
    needArgs("Headers.delete", arguments.length, 1);
    const n = headerName(toDOMString(name), "Headers.delete");
    this.#writable().delete(n);
  }
  get(name) {
    const h = this.#h;
    needArgs("Headers.get", arguments.length, 1);
    return h.get(headerName(toDOMString(name), "Headers.get"));
  }
  getSetCookie() {
    const { list } = this.#h, out = [];
    for (let i = 0; i < list.length; i += 2) if (list[i] === "set-cookie") ArrayPush(out, list[i + 1]);
    return out;
  }
  has(name) {
    const h = this.#h;
    needArgs("Headers.has", arguments.length, 1);
    return h.has(headerName(toDOMString(name), "Headers.has"));
  }
  set(name, value) {
    void this.#h;
    needArgs("Headers.set", arguments.length, 2);
    const n = headerName(toDOMString(name), "Headers.set"), v = headerValue(value, "Headers.set");
    this.#writable().set(n, v);
  }
  entries() { void this.#h; return new HeadersIterator(this, 2); }
  forEach(callback, thisArg = undefined) { void this.#h; forEachPair(this, headersAt, callback, thisArg, "Headers.forEach"); }
  keys() { void this.#h; return new HeadersIterator(this, 0); }
  values() { void this.#h; return new HeadersIterator(this, 1); }
}
defineInterface(Headers, "Headers");
alias(Headers, SymbolIterator, "entries");
const headersEntries = Headers.prototype.entries;
