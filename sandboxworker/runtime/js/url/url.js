// URL (https://url.spec.whatwg.org/#url-class) over the host's parser. The host returns the href and
// nine offsets into it; every getter is a slice.

const OMITTED = 0xffffffff;
const PROTOCOL_END = 0, USERNAME_END = 1, HOST_START = 2, HOST_END = 3, PORT = 4, PATHNAME_START = 5,
  SEARCH_START = 6, HASH_START = 7, SCHEME_TYPE = 8;
const SCHEME_NOT_SPECIAL = 1, SCHEME_FILE = 6;

class URLParts {
  constructor() { this.href = ""; this.at = new Uint32Array(9); this.params = undefined; }
}
bare(URLParts);

const invalidURL = (input) => {
  const e = new TypeError(`Invalid URL: ${StringSlice(input, 0, 200)}`);
  ObjectDefineProperty(e, "code", { __proto__: null, value: "ERR_INVALID_URL", writable: true, enumerable: false, configurable: true });
  return e;
};

// parseURL returns the parts, or undefined for an invalid URL.
const parseURL = (input, base) => {
  const u = new URLParts();
  const href = host.urlParse(input, base, u.at);
  if (href === undefined) return undefined;
  u.href = href;
  return u;
};

const hostStart = (u) => {
  const start = u.at[HOST_START];
  return u.at[HOST_END] > start && u.href[start] === "@" ? start + 1 : start;
};
const hostOf = (u) => {
  const start = hostStart(u);
  // With an empty host, "/." may stand between the host and a path that starts with "//".
  return start === u.at[HOST_END] ? "" : StringSlice(u.href, start, u.at[PATHNAME_START]);
};
const originOf = (u) => {
  const type = u.at[SCHEME_TYPE];
  if (type === SCHEME_NOT_SPECIAL) {
    if (StringSlice(u.href, 0, u.at[PROTOCOL_END]) !== "blob:") return "null";
    const end = u.at[SEARCH_START] !== OMITTED ? u.at[SEARCH_START] : u.at[HASH_START] !== OMITTED ? u.at[HASH_START] : u.href.length;
    const inner = parseURL(StringSlice(u.href, u.at[PATHNAME_START], end), undefined);
    if (inner === undefined) return "null";
    const scheme = StringSlice(inner.href, 0, inner.at[PROTOCOL_END]);
    return scheme === "http:" || scheme === "https:" ? originOf(inner) : "null";
  }
  if (type === SCHEME_FILE) return "null";
  return `${StringSlice(u.href, 0, u.at[PROTOCOL_END])}//${hostOf(u)}`;
};

let isURL;
class URL {
  #u;
  static { isURL = (v) => isObject(v) && #u in v; }
  constructor(url, base = undefined) {
    if (url === kInternal) { this.#u = base; return; }
    needArgs("URL constructor", arguments.length, 1);
    const input = toUSVString(url);
    const against = base === undefined ? undefined : toUSVString(base);
    const u = parseURL(input, against);
    if (u === undefined) throw invalidURL(input);
    this.#u = u;
  }
  static parse(url, base = undefined) {
    needArgs("URL.parse", arguments.length, 1);
    const input = toUSVString(url);
    const u = parseURL(input, base === undefined ? undefined : toUSVString(base));
    return u === undefined ? null : new URL(kInternal, u);
  }
  static canParse(url, base = undefined) {
    needArgs("URL.canParse", arguments.length, 1);
    const input = toUSVString(url);
    return host.urlCanParse(input, base === undefined ? undefined : toUSVString(base));
  }
  static createObjectURL(blob) {
    needArgs("URL.createObjectURL", arguments.length, 1);
    return blobURLUnit.get().createBlobURL(blob);
  }
  static revokeObjectURL(url) {
    needArgs("URL.revokeObjectURL", arguments.length, 1);
    const text = toDOMString(url);
    if (blobURLUnit.loaded) blobURLUnit.get().revokeBlobURL(text);
  }
  #set(which, value) {
    const u = this.#u;
    const href = host.urlSet(u.href, which, value, u.at);
    if (href === undefined) return false;
    u.href = href;
    return true;
  }
  // #refresh makes searchParams show what the query has become.
  #refresh() {
    const { params } = this.#u;
    if (params !== undefined) paramsState(params).list = parseForm(StringSlice(this.#search(), 1));
  }
  get href() { return this.#u.href; }
  set href(v) {
    void this.#u;
    const input = toUSVString(v);
    if (!this.#set(0, input)) throw invalidURL(input);
    this.#refresh();
  }
  toString() { return this.#u.href; }
  get origin() { return originOf(this.#u); }
  get protocol() { return StringSlice(this.#u.href, 0, this.#u.at[PROTOCOL_END]); }
  set protocol(v) { void this.#u; this.#set(1, toUSVString(v)); }
  get username() {
    const { href, at } = this.#u;
    return at[PROTOCOL_END] + 2 < at[USERNAME_END] ? StringSlice(href, at[PROTOCOL_END] + 2, at[USERNAME_END]) : "";
  }
  set username(v) { void this.#u; this.#set(2, toUSVString(v)); }
  get password() {
    const { href, at } = this.#u;
    return at[HOST_START] > at[USERNAME_END] ? StringSlice(href, at[USERNAME_END] + 1, at[HOST_START]) : "";
  }
  set password(v) { void this.#u; this.#set(3, toUSVString(v)); }
  get host() { return hostOf(this.#u); }
  set host(v) { void this.#u; this.#set(4, toUSVString(v)); }
  get hostname() { const u = this.#u; return StringSlice(u.href, hostStart(u), u.at[HOST_END]); }
  set hostname(v) { void this.#u; this.#set(5, toUSVString(v)); }
  get port() { const { at } = this.#u; return at[PORT] === OMITTED ? "" : `${at[PORT]}`; }
  set port(v) { void this.#u; this.#set(6, toUSVString(v)); }
  get pathname() {
    const { href, at } = this.#u;
    const end = at[SEARCH_START] !== OMITTED ? at[SEARCH_START] : at[HASH_START] !== OMITTED ? at[HASH_START] : href.length;
    return StringSlice(href, at[PATHNAME_START], end);
  }
  set pathname(v) { void this.#u; this.#set(7, toUSVString(v)); }
  get search() {
    const { href, at } = this.#u;
    if (at[SEARCH_START] === OMITTED) return "";
    const end = at[HASH_START] !== OMITTED ? at[HASH_START] : href.length;
    return end - at[SEARCH_START] <= 1 ? "" : StringSlice(href, at[SEARCH_START], end);
  }
  set search(v) { void this.#u; this.#set(8, toUSVString(v)); this.#refresh(); }
  get searchParams() {
    const u = this.#u;
    if (u.params === undefined) {
      const state = new ParamsState(parseForm(StringSlice(this.#search(), 1)),
        (query) => { this.#set(8, query); });
      u.params = new URLSearchParams(kInternal, state);
    }
    return u.params;
  }
  #search() {
    const { href, at } = this.#u;
    return at[SEARCH_START] === OMITTED ? "" : StringSlice(href, at[SEARCH_START], at[HASH_START] !== OMITTED ? at[HASH_START] : href.length);
  }
  get hash() {
    const { href, at } = this.#u;
    return at[HASH_START] === OMITTED || href.length - at[HASH_START] <= 1 ? "" : StringSlice(href, at[HASH_START]);
  }
  set hash(v) { void this.#u; this.#set(9, toUSVString(v)); }
  toJSON() { return this.#u.href; }
}
defineInterface(URL, "URL");

// componentsOf gives a URL's eight parts as URLPattern matches them, undefined for an invalid one.
const getters = [];
const gettersOf = ["protocol", "username", "password", "hostname", "port", "pathname", "search", "hash"];
for (let i = 0; i < 8; i++) getters[i] = ObjectGetOwnPropertyDescriptor(URL.prototype, gettersOf[i]).get;
const componentsOf = (input, base) => {
  const u = parseURL(input, base);
  if (u === undefined) return undefined;
  const url = new URL(kInternal, u), out = [];
  for (let i = 0; i < 8; i++) out[i] = ReflectApply(getters[i], url, []);
  out[0] = StringSlice(out[0], 0, out[0].length - 1);
  out[6] = StringSlice(out[6], 1);
  out[7] = StringSlice(out[7], 1);
  return out;
};

return { __proto__: null, componentsOf, URL, URLSearchParams, isURL, isParams, paramsState, serializeForm, parseForm };
