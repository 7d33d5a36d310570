// URLPattern (https://urlpattern.spec.whatwg.org/). The host parses patterns and canonicalizes inputs; the
// components' regular expressions are V8's and run here, where they can be stopped.

const partNames = ["protocol", "username", "password", "hostname", "port", "pathname", "search", "hash"];
const initNames = ["baseURL", "hash", "hostname", "password", "pathname", "port", "protocol", "search", "username"]; // as Web IDL reads them

// expression compiles a component's source as the standard wants it; undefined if it is none.
const expression = (source, ignoreCase) => {
  try { return new RegExp(source, ignoreCase ? "vi" : "v"); } catch { return undefined; }
};

class Component {
  constructor(list, ignoreCase) {
    this.pattern = list[0];
    this.kind = list[1] & 3;
    this.custom = (list[1] & 4) !== 0;
    this.text = list[2];
    this.names = ArraySlice(list, 3);
    this.regexp = this.kind === 3 ? expression(this.text, ignoreCase) : undefined;
  }
  // match gives the groups' values, or undefined.
  match(input) {
    switch (this.kind) {
      case 0: return input === "" ? [] : undefined;
      case 1: return input === this.text ? [] : undefined;
      case 2: return [input];
    }
    const m = RegExpExec(this.regexp, input);
    return m === null ? undefined : ArraySlice(m, 1);
  }
  result(input, values) {
    const groups = {};
    for (let i = 0; i < this.names.length; i++) {
      ObjectDefineProperty(groups, this.names[i], { __proto__: null, value: values[i], writable: true, enumerable: true, configurable: true });
    }
    return { input, groups };
  }
}
bare(Component);

// toInit reads a URLPatternInit: {list for the host, given: what the dictionary becomes in `inputs`}.
const toInit = (v) => {
  const d = toDictionary(v, "URLPattern init");
  const given = {}, values = { __proto__: null };
  for (let i = 0; i < initNames.length; i++) {
    const value = d[initNames[i]];
    if (value === undefined) continue;
    values[initNames[i]] = toUSVString(value);
    ObjectDefineProperty(given, initNames[i], { __proto__: null, value: values[initNames[i]], writable: true, enumerable: true, configurable: true });
  }
  const list = [];
  for (let i = 0; i < 8; i++) list[i] = values[partNames[i]];
  list[8] = values.baseURL;
  return { __proto__: null, list, given };
};
const isInit = (v) => v === undefined || v === null || isObject(v);

class PatternState {
  constructor(input, base, ignoreCase) {
    const source = isInit(input) ? toInit(input).list : toUSVString(input);
    if (typeof source !== "string" && base !== undefined) throw new TypeError("URLPattern: a base URL needs a pattern that is a string.");
    const parts = host.urlPatternParse(source, base, ignoreCase, (text, against) => {
      const r = expression(text, ignoreCase);
      return r !== undefined && (against === undefined || RegExpExec(r, against) !== null);
    });
    if (parts === undefined) throw new TypeError(`Invalid URLPattern${typeof source === "string" ? `: ${StringSlice(source, 0, 200)}` : ""}`);
    this.parts = bareList();
    this.custom = false;
    for (let i = 0; i < 8; i++) {
      const c = this.parts[i] = new Component(parts[i], ignoreCase);
      if (c.kind === 3 && c.regexp === undefined) throw new TypeError("Invalid URLPattern: its regular expression is none.");
      this.custom ||= c.custom;
    }
  }
}
bare(PatternState);

// inputParts gives {inputs, parts} of what is matched, parts undefined for what is no URL.
const inputParts = (input, baseURL) => {
  const base = baseURL === undefined ? undefined : toUSVString(baseURL);
  if (isInit(input)) {
    const { list, given } = toInit(input);
    if (base !== undefined) throw new TypeError("URLPattern: a base URL needs an input that is a string.");
    return { __proto__: null, inputs: [given], parts: host.urlPatternInput(list) };
  }
  const text = toUSVString(input);
  const parts = urlUnit.get().componentsOf(text, base);
  return { __proto__: null, inputs: base === undefined ? [text] : [text, base], parts };
};
const matchAll = (state, parts) => {
  const out = bareList();
  for (let i = 0; i < 8; i++) {
    const values = state.parts[i].match(parts[i]);
    if (values === undefined) return undefined;
    out[i] = values;
  }
  return out;
};

class URLPattern {
  #p;
  constructor(input = undefined, baseURL = undefined, options = undefined) {
    // (input, baseURL, options) or (input, options): a dictionary in second place is the options.
    let base;
    if (arguments.length >= 3 || !isInit(baseURL)) base = toUSVString(baseURL);
    else options = baseURL;
    this.#p = new PatternState(input, base, !!toDictionary(options, "URLPattern options").ignoreCase);
  }
  test(input = undefined, baseURL = undefined) {
    const p = this.#p;
    const { parts } = inputParts(input, baseURL);
    return parts !== undefined && matchAll(p, parts) !== undefined;
  }
  exec(input = undefined, baseURL = undefined) {
    const p = this.#p;
    const { inputs, parts } = inputParts(input, baseURL);
    const values = parts === undefined ? undefined : matchAll(p, parts);
    if (values === undefined) return null;
    const out = { inputs };
    for (let i = 0; i < 8; i++) {
      ObjectDefineProperty(out, partNames[i],
        { __proto__: null, value: p.parts[i].result(parts[i], values[i]), writable: true, enumerable: true, configurable: true });
    }
    return out;
  }
  get protocol() { return this.#p.parts[0].pattern; }
  get username() { return this.#p.parts[1].pattern; }
  get password() { return this.#p.parts[2].pattern; }
  get hostname() { return this.#p.parts[3].pattern; }
  get port() { return this.#p.parts[4].pattern; }
  get pathname() { return this.#p.parts[5].pattern; }
  get search() { return this.#p.parts[6].pattern; }
  get hash() { return this.#p.parts[7].pattern; }
  get hasRegExpGroups() { return this.#p.custom; }
}
defineInterface(URLPattern, "URLPattern");

return { __proto__: null, URLPattern };
