// Cache and CacheStorage (https://w3c.github.io/ServiceWorker/#cache-interface), as far as Workers have
// them. What is kept is kept by the gateway: an operation is a subrequest that never leaves it.
//
// Differences that Workers have too: a response that may not be kept (Cache-Control, Set-Cookie, its size)
// is not, and put() fulfils; what is stale is not found; ignoreSearch and ignoreVary do nothing. Vary counts.

const CACHE_BINDING = 65535; // ipc.CacheBinding
const MAX_NAME = 512; // supervisor/cache; bytes of UTF-8
const cacheTarget = ObjectFreeze({ __proto__: null, binding: CACHE_BINDING, call: "", label: "cache" });

// operation performs one and gives the answer's word and response.
const operation = (method, url, fields, body) => {
  const s = new RequestState();
  s.method = method;
  s.url = url;
  s.headers = new HeaderList(fields, false);
  s.body = body;
  return PromiseThen(fetchUnit.get().subrequest(s, cacheTarget), (response) => {
    const r = responseState(response), word = r.url;
    r.url = "";
    return { __proto__: null, word, response };
  });
};

const toCacheRequest = (v) => requestState(isRequest(v) ? v : new Request(v));
const toIgnoreMethod = (options, what) => !!toDictionary(options, what).ignoreMethod;

// varyNames are the fields that a response varies by, in lower case; undefined for "*".
const varyNames = (headers) => {
  const text = StringToLowerCase(headers.get("vary") ?? ""), names = [];
  for (let at = 0; at <= text.length;) {
    let end = StringIndexOf(text, ",", at);
    if (end < 0) end = text.length;
    let a = at, b = end;
    while (a < b && isHTTPSpace(StringCharCodeAt(text, a))) a++;
    while (b > a && isHTTPSpace(StringCharCodeAt(text, b - 1))) b--;
    const name = StringSlice(text, a, b);
    if (name === "*") return undefined;
    if (name !== "") ArrayPush(names, name);
    at = end + 1;
  }
  return names;
};

// checkKept throws for what put() and add() must refuse aloud.
const checkKept = (s, what) => {
  if (s.type === "error") throw new TypeError(`${what}: the response is an error.`);
  if (s.webSocket !== undefined) throw new TypeError(`${what}: the response is a WebSocket.`);
  if (s.status === 206) throw new TypeError(`${what}: the response is partial (status 206).`);
  const names = varyNames(responseHeaders(s));
  if (names === undefined) throw new TypeError(`${what}: the response has Vary: *.`);
  if (s.body !== null && bodyUnusable(s.body)) throw new TypeError(`${what}: the response's body was already used or is locked.`);
  return names;
};

const checkGet = (r, what) => {
  if (r.method !== "GET") throw new TypeError(`${what}: the request's method is not GET.`);
  if (!isWebURL(requestURL(r))) throw new TypeError(`${what}: the request's scheme is not http or https.`);
};
const isWebURL = (url) => StringStartsWith(url, "http://") || StringStartsWith(url, "https://");

const keep = (name, r, s, what) => {
  const names = checkKept(s, what);
  if (s.status === 304) return PromiseResolve(undefined);
  const fields = ["cache", ""], asked = requestHeaders(r).list, kept = responseHeaders(s).list;
  for (let i = 0; i < asked.length; i += 2) {
    // The length is the wire's own field.
    if (asked[i] === "content-length" || !ArrayIncludes(names, asked[i])) continue;
    ArrayPush(fields, asked[i]);
    ArrayPush(fields, asked[i + 1]);
  }
  fields[1] = `${name} ${s.status} ${(fields.length - 2) / 2} ${s.statusText}`;
  for (let i = 0; i < kept.length; i++) ArrayPush(fields, kept[i]);
  return PromiseThen(operation("PUT", requestURL(r), fields, s.body), noop);
};

// fieldsOf is what a request is found by.
const fieldsOf = (name, r) => {
  const fields = ArraySlice(requestHeaders(r).list);
  ArraySplice(fields, 0, 0, "cache", name);
  return fields;
};

// whenAll gives a promise of `undefined` once all have fulfilled.
const whenAll = (promises) => {
  const d = deferred();
  let left = promises.length;
  if (left === 0) d.resolve(undefined);
  for (let i = 0; i < promises.length; i++) PromiseThen(promises[i], () => { if (--left === 0) d.resolve(undefined); }, d.reject);
  return d.promise;
};

class Cache {
  #name; // as the gateway has it, percent-encoded; "" is the default one's
  constructor() {
    if (arguments[0] !== kInternal) throw illegalConstructor();
    this.#name = arguments[1];
  }
  add(request) {
    try {
      const name = this.#name;
      needArgs("Cache.add", arguments.length, 1);
      return addAll(name, [new Request(request)], "Cache.add");
    } catch (error) { return PromiseReject(error); }
  }
  addAll(requests) {
    try {
      const name = this.#name;
      needArgs("Cache.addAll", arguments.length, 1);
      return addAll(name, toSequence(requests, "Cache.addAll", (v) => new Request(v)), "Cache.addAll");
    } catch (error) { return PromiseReject(error); }
  }
  delete(request, options = undefined) {
    try {
      const name = this.#name;
      needArgs("Cache.delete", arguments.length, 1);
      const r = toCacheRequest(request), ignoreMethod = toIgnoreMethod(options, "Cache.delete options");
      if ((r.method !== "GET" && !ignoreMethod) || !isWebURL(requestURL(r))) return PromiseResolve(false);
      return PromiseThen(operation("DELETE", requestURL(r), fieldsOf(name, r), null), ({ word }) => word === "deleted");
    } catch (error) { return PromiseReject(error); }
  }
  match(request, options = undefined) {
    try {
      const name = this.#name;
      needArgs("Cache.match", arguments.length, 1);
      const r = toCacheRequest(request), ignoreMethod = toIgnoreMethod(options, "Cache.match options");
      if ((r.method !== "GET" && !ignoreMethod) || !isWebURL(requestURL(r))) return PromiseResolve(undefined);
      return PromiseThen(operation("GET", requestURL(r), fieldsOf(name, r), null), ({ word, response }) => (word === "hit" ? response : undefined));
    } catch (error) { return PromiseReject(error); }
  }
  put(request, response) {
    try {
      const name = this.#name;
      needArgs("Cache.put", arguments.length, 2);
      const r = toCacheRequest(request);
      if (!isResponse(response)) throw new TypeError("Cache.put: the second argument is not a Response.");
      checkGet(r, "Cache.put");
      return keep(name, r, responseState(response), "Cache.put");
    } catch (error) { return PromiseReject(error); }
  }
}
defineInterface(Cache, "Cache");

// addAll keeps all of the answers or, if one is not fit, none.
const addAll = (name, requests, what) => {
  const answers = [], asked = [];
  for (let i = 0; i < requests.length; i++) checkGet(requestState(requests[i]), what);
  for (let i = 0; i < requests.length; i++) {
    ArrayPush(asked, PromiseThen(fetch(requests[i]), (response) => {
      const s = responseState(response);
      if (s.status < 200 || s.status > 299) throw new TypeError(`${what}: the answer has status ${s.status}.`);
      checkKept(s, what);
      answers[i] = s;
    }));
  }
  return PromiseThen(whenAll(asked), () => {
    const kept = [];
    for (let i = 0; i < requests.length; i++) ArrayPush(kept, keep(name, requestState(requests[i]), answers[i], what));
    return whenAll(kept);
  });
};

class CacheStorage {
  #default;
  constructor() {
    if (arguments[0] !== kInternal) throw illegalConstructor();
    this.#default = new Cache(kInternal, "");
  }
  get default() { return this.#default; }
  open(cacheName) {
    try {
      void this.#default;
      needArgs("CacheStorage.open", arguments.length, 1);
      const name = toUSVString(cacheName);
      if (name.length > MAX_NAME || TypedArrayByteLength(host.utf8Encode(name)) > MAX_NAME) {
        throw new TypeError(`CacheStorage.open: the name is longer than ${MAX_NAME} bytes.`);
      }
      return PromiseResolve(new Cache(kInternal, `n${encodeURIComponent(name)}`));
    } catch (error) { return PromiseReject(error); }
  }
}
defineInterface(CacheStorage, "CacheStorage");

return { __proto__: null, Cache, CacheStorage, caches: new CacheStorage(kInternal) };
