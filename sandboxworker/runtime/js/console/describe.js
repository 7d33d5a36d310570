// What inspect says of functions, classes, boxed values and the platform's own objects.

// className is the name of the first constructor on the prototype chain, undefined for none.
const className = (v) => {
  let o = v;
  for (let hops = 0; o !== null && hops < 100; hops++) {
    if (host.classOf(o) === "Proxy") return "Object";
    const d = ObjectGetOwnPropertyDescriptor(o, "constructor");
    if (d !== undefined && typeof d.value === "function") {
      const name = ObjectGetOwnPropertyDescriptor(d.value, "name");
      if (name !== undefined && typeof name.value === "string" && name.value !== "") return shown(name.value);
    }
    o = ObjectGetPrototypeOf(o);
  }
  return undefined;
};
// tagOf is the class string where it says more than the class name. Accessors are not called.
const tagOf = (v, name) => {
  let o = v;
  for (let hops = 0; o !== null && hops < 100 && host.classOf(o) !== "Proxy"; hops++) {
    const d = ObjectGetOwnPropertyDescriptor(o, SymbolToStringTag);
    if (d !== undefined) return typeof d.value === "string" && d.value !== "" && shown(d.value) !== name ? shown(d.value) : "";
    o = ObjectGetPrototypeOf(o);
  }
  return "";
};

const functionBase = (f, kind, name) => {
  const d = ObjectGetOwnPropertyDescriptor(f, "name");
  const own = d !== undefined && typeof d.value === "string" ? shown(d.value) : "";
  let source = "";
  try { source = FunctionToString(f); } catch { /* not callable any more */ }
  if (kind === "Function" && StringStartsWith(source, "class") && StringEndsWith(source, "}")) {
    const parent = ObjectGetPrototypeOf(f);
    const pd = parent === null || host.classOf(parent) === "Proxy" ? undefined : ObjectGetOwnPropertyDescriptor(parent, "name");
    const parentName = pd !== undefined && typeof pd.value === "string" ? shown(pd.value) : "";
    return `[class ${own === "" ? "(anonymous)" : own}${parentName === "" ? "" : ` extends ${parentName}`}]`;
  }
  const type = name === undefined ? `${kind} (null prototype)` : kind;
  return own === "" ? `[${type} (anonymous)]` : `[${type}: ${own}]`;
};

const regExpText = (v) => { try { return `/${RegExpSource(v)}/${RegExpFlags(v)}`; } catch { return "[RegExp]"; } };

const unboxers = ObjectFreeze({
  __proto__: null,
  NumberObject: NumberValueOf, StringObject: StringValueOf,
  BooleanObject: BooleanValueOf, SymbolObject: SymbolValueOf,
  BigIntObject: BigIntValueOf,
});
const unbox = (v, kind) => unboxers[kind](v);

const pairsObject = (list) => {
  const o = {};
  for (let i = 0; i < list.length; i += 2) {
    ObjectDefineProperty(o, list[i], { __proto__: null, value: list[i + 1], enumerable: true, configurable: true, writable: true });
  }
  return o;
};
const headersObject = (h) => {
  const pairs = h.sortedPairs(), flat = [];
  for (let i = 0; i < pairs.length; i++) { ArrayPush(flat, pairs[i][0]); ArrayPush(flat, pairs[i][1]); }
  return pairsObject(flat);
};

// platformView shows the state of our own classes, which reflection does not:
// {base} or {name, entries: [key, value, ...]}, undefined for anything else.
const platformView = (v) => {
  if (isHeaders(v)) {
    const o = headersObject(headerList(v)), keys = ObjectKeys(o), entries = [];
    for (let i = 0; i < keys.length; i++) { ArrayPush(entries, keyText(keys[i], true)); ArrayPush(entries, o[keys[i]]); }
    return { __proto__: null, name: "Headers", entries };
  }
  if (isRequest(v)) {
    const s = requestState(v);
    return { __proto__: null, name: "Request",
      entries: ["method", s.method, "url", requestURL(s), "headers", headersObject(requestHeaders(s)), "bodyUsed", s.body !== null && bodyDisturbed(s.body)] };
  }
  if (isResponse(v)) {
    const s = responseState(v);
    return { __proto__: null, name: "Response",
      entries: ["status", s.status, "statusText", s.statusText, "headers", headersObject(responseHeaders(s)), "ok", s.status >= 200 && s.status <= 299,
        "bodyUsed", s.body !== null && bodyDisturbed(s.body), "redirected", s.redirected, "type", s.type, "url", s.url] };
  }
  if (domExceptionUnit.loaded && domExceptionUnit.get().is(v)) {
    const d = ObjectGetOwnPropertyDescriptor(v, "stack");
    return { __proto__: null, base: typeof d?.value === "string" ? d.value : describeError(v) };
  }
  if (urlUnit.loaded) {
    const { isURL, isParams, paramsState, URL: PlatformURL } = urlUnit.get();
    if (isURL(v)) {
      const entries = [];
      const keys = ["href", "origin", "protocol", "username", "password", "host", "hostname", "port", "pathname", "search", "hash"];
      for (let i = 0; i < keys.length; i++) {
        ArrayPush(entries, keys[i]);
        ArrayPush(entries, urlGetter(PlatformURL, keys[i])(v));
      }
      return { __proto__: null, name: "URL", entries };
    }
    if (isParams(v)) {
      const { list } = paramsState(v), entries = [];
      for (let i = 0; i < list.length; i += 2) { ArrayPush(entries, quoteString(list[i])); ArrayPush(entries, list[i + 1]); }
      return { __proto__: null, name: "URLSearchParams", entries };
    }
  }
  if (blobUnit.loaded) {
    const { isBlob, blobState } = blobUnit.get();
    if (isBlob(v)) {
      const s = blobState(v);
      return { __proto__: null, name: "Blob", entries: ["size", TypedArrayByteLength(s.bytes), "type", s.type] };
    }
  }
  return undefined;
};
// The getters as they are now: a tenant that replaced one gets to see its own.
const urlGetter = (C, key) => {
  const d = ObjectGetOwnPropertyDescriptor(C.prototype, key);
  return (v) => { try { return ReflectApply(d.get, v, []); } catch { return undefined; } };
};

const inspect = (v, depth = 2, showHidden = false) => {
  const i = new Inspector(depth, showHidden);
  i.noted = 0;
  const text = i.format(v, 0, true);
  return !readable(text) ? shown(text) : text.length > INSPECT_LIMIT * 2 ? `${StringSlice(text, 0, INSPECT_LIMIT * 2)}...` : text;
};

// formatLog is the console's formatter (https://console.spec.whatwg.org/#formatter): %s %d %i %f %j %o
// %O %c %% in the first argument, the rest separated by spaces.
const formatLog = (args) => {
  const n = args.length;
  if (n === 0) return "";
  let out = "", at = 0;
  if (typeof args[0] === "string") {
    const f = shown(args[0]);
    at = 1;
    if (n === 1) return f;
    let from = 0;
    for (let i = 0; i + 1 < f.length; i++) {
      if (StringCharCodeAt(f, i) !== 37) continue;
      const c = f[i + 1];
      let text;
      if (c === "%") text = "%";
      else if (at < n) {
        const v = args[at];
        switch (c) {
          case "s": text = formatS(v); break;
          case "d": text = typeof v === "bigint" ? `${v}n` : typeof v === "symbol" || isObject(v) ? "NaN" : `${typeof v === "string" ? +shown(v) : +v}`; break;
          case "i": text = typeof v === "bigint" ? `${v}n` : typeof v === "symbol" || isObject(v) ? "NaN" : `${MathTrunc(parseFloatOf(v))}`; break;
          case "f": text = typeof v === "symbol" ? "NaN" : `${parseFloatOf(v)}`; break;
          case "j": try { text = typeof v === "string" && !readable(v) ? shown(v) : shown(`${JSONStringify(v)}`); } catch { text = "[Circular]"; } break;
          case "o": text = inspect(v, 4, true); break;
          case "O": text = inspect(v, 4); break;
          case "c": text = ""; break;
          default: continue;
        }
        at++;
      } else continue;
      out += StringSlice(f, from, i) + text;
      from = i + 2;
      i++;
    }
    out += StringSlice(f, from);
  }
  for (let i = at; i < n && out.length < 2 * INSPECT_LIMIT; i++) {
    out += `${i > 0 ? " " : ""}${typeof args[i] === "string" ? shown(args[i]) : inspect(args[i])}`;
  }
  return out;
};
const parseFloatOf = (v) => {
  if (typeof v === "number") return v;
  if (typeof v === "string" && !readable(v)) return NaN;
  try { return parseFloatBuiltin(v); } catch { return NaN; }
};
const formatS = (v) => {
  if (typeof v === "string") return shown(v);
  if (typeof v === "bigint") return `${v}n`;
  if (typeof v === "number" && ObjectIs(v, -0)) return "-0";
  if (!isObject(v)) return typeof v === "symbol" ? symbolText(v) : `${v}`;
  if (host.classOf(v) === "NativeError") return describeError(v);
  return inspect(v, 0);
};

return { __proto__: null, inspect, formatLog };
