// Request (https://fetch.spec.whatwg.org/#request-class).
//
// A request from the wire keeps its method, URL and headers as they came and parses each on first use.

class RequestState {
  constructor() {
    this.method = "GET";
    this.blob = undefined; // BlobState that a blob: URL stood for when the request was made
    this.rawURL = undefined; // as the client named it, until `url` is asked for
    this.url = undefined; // serialized
    this.flat = undefined; // wire headers, until a HeaderList is needed
    this.headers = undefined; // HeaderList
    this.headersObject = undefined;
    this.body = null;
    this.inv = undefined; // the invocation that brought it
    this.signal = undefined;
    this.follow = undefined; // signal this request's signal depends on
    this.options = requestDefaults;
  }
}
bare(RequestState);

const requestDefaults = ObjectFreeze({
  __proto__: null, cache: "default", credentials: "same-origin", integrity: "", keepalive: false, mode: "cors",
  redirect: "follow", referrer: "about:client", referrerPolicy: "", cf: undefined,
});
// A request of a client: redirects are not followed by passing it on, and `cf`, which examples read
// without a check, is there and knows nothing.
const wireDefaults = ObjectFreeze({
  __proto__: null, cache: "default", credentials: "same-origin", integrity: "", keepalive: false, mode: "cors",
  redirect: "manual", referrer: "about:client", referrerPolicy: "", cf: ObjectFreeze({}),
});

const requestEnums = ObjectFreeze({
  __proto__: null,
  cache: ["default", "no-store", "reload", "no-cache", "force-cache", "only-if-cached"],
  credentials: ["omit", "same-origin", "include"],
  mode: ["navigate", "same-origin", "no-cors", "cors"],
  redirect: ["follow", "error", "manual"],
  referrerPolicy: ["", "no-referrer", "no-referrer-when-downgrade", "same-origin", "origin", "strict-origin",
    "origin-when-cross-origin", "strict-origin-when-cross-origin", "unsafe-url"],
  priority: ["high", "low", "auto"],
  duplex: ["half"],
});
const toEnum = (v, name) => {
  const s = toDOMString(v);
  if (!ArrayIncludes(requestEnums[name], s)) throw new TypeError(`Request init: '${s}' is not a valid value for ${name}.`);
  return s;
};

const toMethod = (v) => {
  const s = toByteString(v, "Request method");
  if (!isToken(s)) throw new TypeError(`Request method '${StringSlice(s, 0, 100)}' is not a valid HTTP method.`);
  const upper = StringToUpperCase(s);
  if (upper === "CONNECT" || upper === "TRACE" || upper === "TRACK") throw new TypeError(`Request method '${s}' is forbidden.`);
  // https://fetch.spec.whatwg.org/#concept-method-normalize
  return upper === "GET" || upper === "POST" || upper === "PUT" || upper === "DELETE" || upper === "HEAD" || upper === "OPTIONS"
    ? upper : s;
};

// serializedURL parses an absolute URL; Fetch wants no credentials in a request's.
const serializedURL = (input, what) => {
  const at = new Uint32Array(9);
  const href = host.urlParse(input, undefined, at);
  if (href === undefined) throw new TypeError(`${what}: invalid URL ${JSONStringify(StringSlice(input, 0, 200))}.`);
  if (at[1] > at[0] + 2 || at[2] > at[1]) throw new TypeError(`${what}: the URL includes credentials.`);
  return href;
};

// blobOfURL is the Blob a blob: URL stands for now, undefined for none.
const blobOfURL = (url) => (blobURLUnit.loaded ? blobURLUnit.get().lookUp(url) : undefined);

const requestURL = (s) => {
  if (s.url === undefined) s.url = host.urlParse(s.rawURL, undefined, new Uint32Array(9)) ?? s.rawURL;
  return s.url;
};
const requestHeaders = (s) => (s.headers ??= headerListFromFlat(s.flat, true));

let requestState, isRequest;
class Request {
  #r;
  static {
    requestState = (v) => v.#r;
    isRequest = (v) => isObject(v) && #r in v;
  }
  constructor(input, init = undefined) {
    if (input === kInternal) { this.#r = init; return; }
    needArgs("Request constructor", arguments.length, 1);
    const s = new RequestState();
    const given = isRequest(input) ? input.#r : undefined;
    const url = given === undefined ? toUSVString(input) : undefined;
    const d = toDictionary(init, "Request init");
    // Members are read once each, in the order Web IDL gives them.
    const { body, cache, cf, credentials, duplex, headers, integrity, keepalive, method, mode, priority, redirect,
      referrer, referrerPolicy, signal, window } = d;
    if (given === undefined) {
      s.url = serializedURL(url, "Request constructor");
      if (StringStartsWith(s.url, "blob:")) s.blob = blobOfURL(s.url);
    } else {
      s.blob = given.blob;
      s.url = requestURL(given);
      s.method = given.method;
      s.options = given.options;
    }
    if (window !== undefined && window !== null) throw new TypeError("Request init: window must be null.");
    const o = ObjectAssign({ __proto__: null }, s.options);
    if (cache !== undefined) o.cache = toEnum(cache, "cache");
    if (credentials !== undefined) o.credentials = toEnum(credentials, "credentials");
    if (duplex !== undefined) toEnum(duplex, "duplex");
    if (integrity !== undefined) o.integrity = toDOMString(integrity);
    if (keepalive !== undefined) o.keepalive = !!keepalive;
    if (mode !== undefined) {
      o.mode = toEnum(mode, "mode");
      if (o.mode === "navigate") throw new TypeError("Request init: mode must not be 'navigate'.");
    }
    if (priority !== undefined) toEnum(priority, "priority");
    if (redirect !== undefined) o.redirect = toEnum(redirect, "redirect");
    if (referrer !== undefined) {
      const text = toUSVString(referrer);
      if (text === "") {
        o.referrer = "";
      } else {
        const href = host.urlParse(text, undefined, new Uint32Array(9));
        if (href === undefined) throw new TypeError("Request init: referrer is not a valid URL.");
        o.referrer = href === "about:client" ? href : "about:client";
      }
    }
    if (referrerPolicy !== undefined) o.referrerPolicy = toEnum(referrerPolicy, "referrerPolicy");
    if (cf !== undefined) o.cf = cf;
    if (o.cache === "only-if-cached" && o.mode !== "same-origin") {
      throw new TypeError("Request init: cache 'only-if-cached' needs mode 'same-origin'.");
    }
    s.options = o;
    if (method !== undefined) s.method = toMethod(method);
    if (o.mode === "no-cors" && s.method !== "GET" && s.method !== "HEAD" && s.method !== "POST") {
      throw new TypeError(`Request with mode 'no-cors' cannot have the method '${s.method}'.`);
    }
    if (signal === undefined) {
      if (given !== undefined) s.follow = signalOfRequest(given);
    } else if (signal !== null) {
      if (!(eventsUnit.loaded && eventsUnit.get().isAbortSignal(signal))) throw new TypeError("Request init: signal is not an AbortSignal.");
      s.follow = signal;
    }
    if (headers !== undefined) {
      s.headers = new HeaderList([], false);
      fillHeaders(s.headers, headers, "Request init headers");
    } else {
      s.headers = given === undefined ? new HeaderList([], false) : requestHeaders(given).copy();
    }
    const inputBody = given === undefined ? null : given.body;
    if (((body !== undefined && body !== null) || (body === undefined && inputBody !== null)) &&
      (s.method === "GET" || s.method === "HEAD")) {
      throw new TypeError("Request with a GET or HEAD method cannot have a body.");
    }
    if (body !== undefined && body !== null) {
      s.body = extractBody(body);
      if (o.keepalive && s.body.kind === B_STREAM) throw new TypeError("Request with keepalive cannot have a stream for a body.");
      if (extractedType !== null && !s.headers.has("content-type")) s.headers.append("content-type", extractedType);
    } else if (inputBody !== null && body === undefined) {
      if (bodyUnusable(inputBody)) throw new TypeError("Cannot construct a Request from a Request whose body was already used.");
      s.body = moveBody(inputBody);
    }
    this.#r = s;
  }
  get method() { return this.#r.method; }
  get url() { return requestURL(this.#r); }
  get headers() {
    const s = this.#r;
    return (s.headersObject ??= new Headers(kInternal, requestHeaders(s)));
  }
  get destination() { void this.#r; return ""; }
  get referrer() { return this.#r.options.referrer; }
  get referrerPolicy() { return this.#r.options.referrerPolicy; }
  get mode() { return this.#r.options.mode; }
  get credentials() { return this.#r.options.credentials; }
  get cache() { return this.#r.options.cache; }
  get redirect() { return this.#r.options.redirect; }
  get integrity() { return this.#r.options.integrity; }
  get keepalive() { return this.#r.options.keepalive; }
  get isReloadNavigation() { void this.#r; return false; }
  get isHistoryNavigation() { void this.#r; return false; }
  get signal() { return signalOfRequest(this.#r); }
  get duplex() { void this.#r; return "half"; }
  get cf() { return this.#r.options.cf; }
  clone() {
    const s = this.#r;
    if (s.body !== null && bodyUnusable(s.body)) throw new TypeError("Cannot clone a Request whose body was already used.");
    const c = new RequestState();
    c.method = s.method;
    c.url = requestURL(s);
    c.headers = requestHeaders(s).copy();
    c.headers.immutable = s.headers.immutable;
    c.options = s.options;
    c.blob = s.blob;
    c.inv = s.inv;
    if (s.body !== null) c.body = cloneBody(s.body);
    c.follow = signalOfRequest(s);
    return new Request(kInternal, c);
  }
}
bodyMixin(Request, (v) => requestState(v).body, (v) => requestHeaders(requestState(v)).get("content-type") ?? "");
defineInterface(Request, "Request");

// signalOfRequest makes a request's signal when it is first asked for. That of a request from the
// wire aborts when its client leaves.
const signalOfRequest = (s) => {
  if (s.signal !== undefined) return s.signal;
  const { newSignal, dependentSignal } = eventsUnit.get();
  if (s.inv !== undefined && s.follow === undefined) {
    s.signal = s.inv.requestSignal();
  } else {
    s.signal = s.follow === undefined ? newSignal() : dependentSignal([s.follow]);
  }
  return s.signal;
};
