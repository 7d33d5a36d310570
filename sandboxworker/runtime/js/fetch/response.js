// Response (https://fetch.spec.whatwg.org/#response-class).

class ResponseState {
  constructor() {
    this.type = "default";
    this.url = "";
    this.redirected = false;
    this.status = 200;
    this.statusText = "";
    this.implied = null; // content type that came with the body, while there is no HeaderList
    this.headers = undefined; // HeaderList
    this.headersObject = undefined;
    this.body = null;
    this.webSocket = undefined; // WebSocket that a response of status 101 comes with
  }
}
bare(ResponseState);

const reasonPhrase = /^[\t\x20-\x7e\x80-\xff]*$/;
const isNullBodyStatus = (n) => n === 101 || n === 103 || n === 204 || n === 205 || n === 304;

const responseHeaders = (s) => {
  if (s.headers === undefined) {
    s.headers = new HeaderList(s.implied === null ? [] : ["content-type", s.implied], false);
  }
  return s.headers;
};
// responseFlat is the response's header block as the wire wants it.
const responseFlat = (s) => (s.headers !== undefined ? s.headers.flat()
  : s.implied === null ? "" : `content-type\n${s.implied}\n`);

// initResponse is https://fetch.spec.whatwg.org/#initialize-a-response.
const initResponse = (s, init, body, type) => {
  if (init !== undefined && init !== null) {
    const d = toDictionary(init, "Response init");
    const headers = d.headers;
    if (headers !== undefined && headers !== null) {
      s.headers = new HeaderList([], false);
      fillHeaders(s.headers, headers, "Response init headers");
    }
    const { webSocket } = d;
    if (webSocket !== undefined && webSocket !== null) {
      if (!socketUnit.loaded || !socketUnit.get().isSocket(webSocket)) throw new TypeError("Response init: webSocket is not a WebSocket.");
      s.webSocket = webSocket;
    }
    const status = d.status;
    if (status === undefined && s.webSocket !== undefined) throw new RangeError("Response init: a webSocket needs the status 101.");
    if (status !== undefined) {
      const n = toUnsignedShort(status);
      if (s.webSocket !== undefined ? n !== 101 : n < 200 || n > 599) throw new RangeError(`Response init: the status ${n} is outside the range 200 to 599.`);
      s.status = n;
    }
    const text = d.statusText;
    if (text !== undefined) {
      s.statusText = toByteString(text, "Response init statusText");
      if (RegExpExec(reasonPhrase, s.statusText) === null) throw new TypeError("Response init: statusText is not a valid reason phrase.");
    }
  }
  if (body === null) return;
  if (isNullBodyStatus(s.status)) throw new TypeError(`Response with null body status (${s.status}) cannot have a body.`);
  s.body = body;
  if (type === null) return;
  if (s.headers === undefined) s.implied = type;
  else if (!s.headers.has("content-type")) s.headers.append("content-type", type);
};

let responseState, isResponse;
class Response {
  #r;
  static {
    responseState = (v) => v.#r;
    isResponse = (v) => isObject(v) && #r in v;
  }
  constructor(body = null, init = undefined) {
    if (body === kInternal) { this.#r = init; return; }
    const s = this.#r = new ResponseState();
    if (body === null || body === undefined) {
      initResponse(s, init, null, null);
      return;
    }
    // The dictionary is converted before the body is extracted, and its errors come first.
    const b = extractBody(body);
    initResponse(s, init, b, extractedType);
  }
  static error() {
    const s = new ResponseState();
    s.type = "error";
    s.status = 0;
    s.headers = new HeaderList([], true);
    return new Response(kInternal, s);
  }
  static redirect(url, status = 302) {
    needArgs("Response.redirect", arguments.length, 1);
    const input = toUSVString(url);
    const href = host.urlParse(input, undefined, new Uint32Array(9));
    const n = toUnsignedShort(status);
    if (href === undefined) {
      throw new TypeError(`Response.redirect: unable to parse the URL ${JSONStringify(StringSlice(input, 0, 200))}; it must be absolute.`);
    }
    if (n !== 301 && n !== 302 && n !== 303 && n !== 307 && n !== 308) throw new RangeError(`Response.redirect: invalid status code ${n}.`);
    const s = new ResponseState();
    s.status = n;
    s.headers = new HeaderList(["location", href], true);
    return new Response(kInternal, s);
  }
  static json(data, init = undefined) {
    needArgs("Response.json", arguments.length, 1);
    const text = JSONStringify(typeof data === "string" ? checkReadable(data) : data);
    if (text === undefined) throw new TypeError("Response.json: the value cannot be serialized as JSON.");
    const s = new ResponseState();
    initResponse(s, init, new Body(B_STRING, text), "application/json");
    return new Response(kInternal, s);
  }
  get type() { return this.#r.type; }
  get url() { return this.#r.url; }
  get redirected() { return this.#r.redirected; }
  get status() { return this.#r.status; }
  get ok() { const { status } = this.#r; return status >= 200 && status <= 299; }
  get webSocket() { return this.#r.webSocket ?? null; }
  get statusText() { return this.#r.statusText; }
  get headers() {
    const s = this.#r;
    return (s.headersObject ??= new Headers(kInternal, responseHeaders(s)));
  }
  clone() {
    const s = this.#r;
    if (s.webSocket !== undefined) throw new TypeError("Cannot clone a Response with a WebSocket.");
    if (s.body !== null && bodyUnusable(s.body)) throw new TypeError("Cannot clone a Response whose body was already used.");
    const c = new ResponseState();
    c.type = s.type;
    c.url = s.url;
    c.redirected = s.redirected;
    c.status = s.status;
    c.statusText = s.statusText;
    c.implied = s.implied;
    if (s.headers !== undefined) {
      c.headers = s.headers.copy();
      c.headers.immutable = s.headers.immutable;
    }
    if (s.body !== null) c.body = cloneBody(s.body);
    return new Response(kInternal, c);
  }
}
bodyMixin(Response, (v) => responseState(v).body, (v) => responseHeaders(responseState(v)).get("content-type") ?? "");
defineInterface(Response, "Response");
