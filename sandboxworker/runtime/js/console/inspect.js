// inspect turns any value into text as people know it from other runtimes' consoles. No code of the
// tenant runs except proxies' absence of it: getters are named, not called, proxies are shown as their
// targets. Output, depth and breadth are bounded.

const INSPECT_LIMIT = 16384; // characters, after which everything is cut short
const LINE = 76;
const MAX_ITEMS = 100;
const MAX_KEYS = 200;
const MAX_STRING = 10000;

class Inspector {
  constructor(depth, showHidden) {
    this.depth = MathMin(depth, 200); // beyond, the stack would end first
    this.showHidden = showHidden;
    this.seen = []; // ancestors of the value in work
    this.circular = new SafeMap(); // object -> number of its <ref *n>
    this.budget = INSPECT_LIMIT;
    this.height = 0; // levels below the value formatted last
  }

  format(v, level, quote) {
    this.height = 0;
    if (this.budget <= 0) return "...";
    const text = isObject(v) ? this.formatObject(v, level) : this.formatPrimitive(v, quote);
    return text;
  }
  spend(s) { this.budget -= s.length; return s; }

  formatPrimitive(v, quote) {
    switch (typeof v) {
      case "string": {
        if (!readable(v)) return this.spend(shown(v));
        if (!quote) return this.spend(v);
        const cut = v.length > MAX_STRING ? StringSlice(v, 0, MAX_STRING) : v;
        const more = v.length - cut.length;
        return this.spend(quoteString(cut) + (more > 0 ? `... ${more} more character${more > 1 ? "s" : ""}` : ""));
      }
      case "bigint": return this.spend(`${v}n`);
      case "number": return this.spend(ObjectIs(v, -0) ? "-0" : `${v}`);
      case "symbol": return this.spend(symbolText(v));
      default: return this.spend(`${v}`);
    }
  }

  formatObject(v, level) {
    let kind = host.classOf(v);
    for (let hops = 0; kind === "Proxy" && hops < 10; hops++) {
      const details = host.proxyDetails(v);
      const target = details === undefined ? null : details[0];
      if (target === null) return this.spend("<Revoked Proxy>");
      v = target;
      kind = host.classOf(v);
    }
    if (kind === "Proxy") return this.spend("[Proxy]");
    if (ArrayIncludes(this.seen, v)) {
      let n = this.circular.get(v);
      if (n === undefined) { n = this.circular.size + 1; this.circular.set(v, n); }
      return this.spend(`[Circular *${n}]`);
    }
    return this.formatRaw(v, kind, level);
  }

  formatRaw(v, kind, level) {
    const name = className(v);
    const tag = tagOf(v, name);
    let braces = ["{", "}"];
    let base = "";
    let prefix = "";
    let fill; // (out) => void: the entries that are not properties
    const named = (fallback, size) => {
      const n = name === undefined ? `[${fallback}: null prototype]` : name;
      return `${n}${size === undefined ? "" : `(${size})`}${tag === "" || tag === fallback ? "" : ` [${tag}]`} `;
    };
    switch (kind) {
      case "Array":
        prefix = name === "Array" && tag === "" ? "" : named("Array", v.length);
        braces = ["[", "]"];
        fill = (out) => this.fillArray(v, level, out);
        break;
      case "TypedArray": {
        const n = TypedArrayLength(v);
        prefix = named(TypedArrayTag(v), n);
        braces = ["[", "]"];
        fill = (out) => {
          for (let i = 0; i < MathMin(n, MAX_ITEMS); i++) ArrayPush(out, this.formatPrimitive(v[i], true));
          more(out, n - MAX_ITEMS, "item");
        };
        break;
      }
      case "Map": case "Set": case "WeakMap": case "WeakSet": case "MapIterator": case "SetIterator": {
        if (kind === "WeakMap" || kind === "WeakSet") {
          prefix = named(kind);
          fill = (out) => ArrayPush(out, "<items unknown>");
          break;
        }
        const preview = host.previewEntries(v);
        if (preview === undefined) { // no room for a copy of them
          prefix = named(kind);
          fill = (out) => ArrayPush(out, "<entries too many to show>");
          break;
        }
        const entries = preview[0];
        const pairs = preview[1];
        const n = pairs ? entries.length / 2 : entries.length;
        prefix = kind === "Map" || kind === "Set" ? named(kind, n) : `[${kind === "MapIterator" ? "Map" : "Set"} ${pairs ? "Entries" : "Iterator"}] `;
        fill = (out) => {
          for (let i = 0; i < MathMin(n, MAX_ITEMS); i++) {
            ArrayPush(out, pairs ? `${this.child(entries[2 * i], level)} => ${this.child(entries[2 * i + 1], level)}`
              : this.child(entries[i], level));
          }
          more(out, n - MAX_ITEMS, "item");
        };
        break;
      }
      case "Function": case "AsyncFunction": case "GeneratorFunction": case "AsyncGeneratorFunction":
        base = functionBase(v, kind, name);
        break;
      case "NativeError":
        base = this.errorBase(v, level);
        break;
      case "RegExp":
        base = regExpText(v);
        break;
      case "Date": {
        const t = DateGetTime(v);
        base = NumberIsNaN(t) ? "Invalid Date" : DateToISOString(v);
        break;
      }
      case "Promise":
        prefix = named("Promise");
        fill = (out) => {
          const d = host.promiseDetails(v);
          if (d[0] === 0) ArrayPush(out, "<pending>");
          else ArrayPush(out, `${d[0] === 2 ? "<rejected> " : ""}${this.child(d[1], level)}`);
        };
        break;
      case "ArrayBuffer": case "SharedArrayBuffer":
        prefix = named(kind);
        fill = (out) => this.fillBuffer(v, out);
        break;
      case "DataView":
        prefix = named("DataView");
        fill = (out) => {
          ArrayPush(out, `byteLength: ${DataViewByteLength(v)}`);
          ArrayPush(out, `byteOffset: ${DataViewByteOffset(v)}`);
        };
        break;
      case "NumberObject": case "StringObject": case "BooleanObject": case "SymbolObject": case "BigIntObject":
        base = `[${StringSlice(kind, 0, -6)}: ${this.formatPrimitive(unbox(v, kind), true)}]`;
        break;
      case "Arguments":
        prefix = "[Arguments] ";
        braces = ["[", "]"];
        fill = (out) => this.fillArray(v, level, out);
        break;
      case "ModuleNamespace":
        prefix = "[Module: null prototype] ";
        break;
      case "WeakRef":
        prefix = named("WeakRef");
        fill = (out) => ArrayPush(out, "<ref>");
        break;
      case "GeneratorObject":
        prefix = "Object [Generator] ";
        break;
      default: {
        const platform = platformView(v);
        if (platform !== undefined) {
          if (platform.base !== undefined) base = platform.base;
          else {
            prefix = `${name ?? platform.name} `;
            fill = (out) => {
              for (let i = 0; i < platform.entries.length; i += 2) {
                ArrayPush(out, `${platform.entries[i]}: ${this.child(platform.entries[i + 1], level)}`);
              }
            };
          }
          break;
        }
        if (name === undefined) prefix = `[Object: null prototype] ${tag === "" ? "" : `[${tag}] `}`;
        else if (name !== "Object" || tag !== "") prefix = `${name} ${tag === "" ? "" : `[${tag}] `}`;
      }
    }
    const keys = this.keysOf(v, kind);
    if (base !== "" && keys.length === 0) return this.spend(base);
    if (level > this.depth) {
      const shown = kind === "Array" ? (name === undefined || name === "Array" ? "Array" : name) : name === undefined ? "Object: null prototype" : name;
      return this.spend(base !== "" ? base : `[${shown}]`);
    }
    ArrayPush(this.seen, v);
    const out = [];
    let height = 0;
    const note = () => { if (this.height > height) height = this.height; };
    this.heights = note;
    if (fill !== undefined) { this.noted = 0; fill(out); height = MathMax(height, this.noted); }
    const listed = out.length;
    this.noted = 0;
    for (let i = 0; i < keys.length && i < MAX_KEYS; i++) {
      ArrayPush(out, this.property(v, keys[i], level));
      height = MathMax(height, this.noted);
    }
    more(out, keys.length - MAX_KEYS, "key");
    ArrayPop(this.seen);
    let start = prefix + braces[0];
    if (base !== "") start = `${base} ${braces[0]}`;
    const ref = this.circular.get(v);
    if (ref !== undefined) start = `<ref *${ref}> ${start}`;
    this.height = height + 1;
    this.noted = MathMax(this.noted, this.height);
    if (out.length === 0) return this.spend(`${start}${braces[1]}`);
    const text = layOut(out, start, braces[1], level, height, braces[0] === "[" && listed === out.length);
    this.budget -= start.length + 4;
    return text;
  }

  // child formats a value one level down and keeps track of how deep it goes.
  child(v, level) {
    const before = this.noted;
    this.noted = 0;
    const text = this.format(v, level + 1, true);
    this.noted = MathMax(before, this.height);
    return text;
  }

  fillArray(v, level, out) {
    const n = v.length;
    let shown = 0, i = 0;
    for (; i < n && shown < MAX_ITEMS && this.budget > 0; shown++) {
      const d = ObjectGetOwnPropertyDescriptor(v, i);
      if (d !== undefined) {
        ArrayPush(out, "value" in d ? this.child(d.value, level) : accessorText(d));
        i++;
        continue;
      }
      const end = nextIndex(v, i, n);
      ArrayPush(out, `<${end - i} empty item${end - i > 1 ? "s" : ""}>`);
      i = end;
    }
    more(out, n - i, "item");
  }
  fillBuffer(v, out) {
    let u8;
    try { u8 = new Uint8Array(v); } catch { ArrayPush(out, "(detached)"); }
    if (u8 !== undefined) {
      let hex = "";
      const n = TypedArrayLength(u8);
      for (let i = 0; i < MathMin(n, 50); i++) hex += `${i > 0 ? " " : ""}${StringPadStart(NumberToString(u8[i], 16), 2, "0")}`;
      if (n > 50) hex += ` ... ${n - 50} more byte${n > 51 ? "s" : ""}`;
      ArrayPush(out, `[Uint8Contents]: <${hex}>`);
    }
    ArrayPush(out, `byteLength: ${u8 === undefined ? 0 : TypedArrayLength(u8)}`);
  }
  errorBase(v, level) {
    let text;
    const d = ObjectGetOwnPropertyDescriptor(v, "stack");
    // V8's own stack accessor formats the trace; a tenant's getter is not called.
    try {
      text = d !== undefined && ("value" in d || host.classOf(d.get) === "Function") ? v.stack : undefined;
    } catch { text = undefined; }
    if (typeof text !== "string" || text === "") {
      try { text = `[${ErrorToString(v)}]`; } catch { text = "[Error]"; }
    }
    text = ownFrames(text);
    this.spend(text);
    const pad = StringRepeat("  ", level);
    return pad === "" ? text : indentLines(text, pad);
  }
  keysOf(v, kind) {
    const out = [];
    const indexed = kind === "Array" || kind === "TypedArray" || kind === "Arguments" || kind === "StringObject";
    const all = indexed ? host.getOwnNonIndexProperties(v, !this.showHidden) : ReflectOwnKeys(v);
    for (let i = 0; i < all.length; i++) {
      const key = all[i];
      const enumerable = kind === "ModuleNamespace" || ObjectPropertyIsEnumerable(v, key);
      if (kind === "NativeError" && (key === "stack" || key === "message")) continue;
      if (kind === "NativeError" && (key === "cause" || key === "errors")) { ArrayPush(out, key); continue; }
      if (enumerable || (this.showHidden && typeof key === "string")) ArrayPush(out, key);
    }
    return out;
  }
  property(v, key, level) {
    let d;
    try { d = ObjectGetOwnPropertyDescriptor(v, key); } catch { // a module binding before its initialisation
      return `${keyText(key, true)}: <uninitialized>`;
    }
    const text = d === undefined ? "undefined" : "value" in d ? this.child(d.value, level) : this.spend(accessorText(d));
    return `${keyText(key, d === undefined || d.enumerable)}: ${text}`;
  }
}
bare(Inspector);

// nextIndex finds the end of a hole: by looking, and in a very large one by asking for all keys.
const nextIndex = (v, from, n) => {
  let i = from;
  for (; i < n && i - from < 10000; i++) if (ObjectHasOwn(v, i)) return i;
  if (i >= n) return n;
  const keys = ReflectOwnKeys(v);
  for (let k = 0; k < keys.length; k++) {
    const index = typeof keys[k] === "string" ? +keys[k] : NaN;
    if (index > from && index < n) return index;
  }
  return n;
};
const more = (out, n, what) => { if (n > 0) ArrayPush(out, `... ${n} more ${what}${n > 1 ? "s" : ""}`); };
const accessorText = (d) => (d.get !== undefined ? (d.set !== undefined ? "[Getter/Setter]" : "[Getter]") : d.set !== undefined ? "[Setter]" : "undefined");
const symbolText = (v) => { try { return shown(SymbolToString(v)); } catch { return "Symbol(...)"; } }; // longer than a string may be
const identifier = /^[A-Za-z_$][A-Za-z0-9_$]*$/;
const keyText = (key, enumerable) => {
  const s = typeof key === "symbol" ? `[${symbolText(key)}]` : !readable(key) ? shown(key) : RegExpExec(identifier, key) !== null ? key : quoteString(key);
  return enumerable ? s : `[${s}]`;
};

// layOut puts entries on one line if they are few, short and shallow, else one or several a line.
const layOut = (out, start, end, level, height, isList) => {
  let total = out.length + start.length;
  let multiline = false, longest = 0;
  for (let i = 0; i < out.length; i++) {
    total += out[i].length;
    longest = MathMax(longest, out[i].length);
    if (StringIncludes(out[i], "\n")) multiline = true;
  }
  if (!multiline && height < 3 && total + 2 * level <= LINE && (!isList || out.length <= 6 || total <= LINE)) {
    return `${start} ${ArrayJoin(out, ", ")} ${end}`;
  }
  const pad = `\n${StringRepeat("  ", level)}`;
  if (isList && !multiline && out.length > 6 && longest <= 16) { // rows, as in a table
    let text = start, row = "";
    for (let i = 0; i < out.length; i++) {
      const cell = out[i] + (i + 1 < out.length ? "," : "");
      if (row !== "" && row.length + cell.length + 1 > LINE) { text += `${pad}  ${row}`; row = ""; }
      row += row === "" ? cell : ` ${cell}`;
    }
    return `${text}${pad}  ${row}${pad}${end}`;
  }
  let text = start;
  for (let i = 0; i < out.length; i++) text += `${pad}  ${out[i]}${i + 1 < out.length ? "," : ""}`;
  return `${text}${pad}${end}`;
};

const indentLines = (s, pad) => {
  let out = "", from = 0;
  for (let i = StringIndexOf(s, "\n"); i >= 0; i = StringIndexOf(s, "\n", from)) {
    out += `${StringSlice(s, from, i + 1)}${pad}`;
    from = i + 1;
  }
  return out + StringSlice(s, from);
};

const quoteString = (s) => {
  const q = !StringIncludes(s, "'") ? "'" : !StringIncludes(s, "\"") ? "\"" : !StringIncludes(s, "`") ? "`" : "'";
  let out = q;
  for (let i = 0; i < s.length; i++) {
    const c = StringCharCodeAt(s, i);
    if (s[i] === q || c === 92) out += `\\${s[i]}`;
    else if (c >= 32 && c !== 127 && !(c >= 0xd800 && c <= 0xdfff)) out += s[i];
    else if (c === 10) out += "\\n";
    else if (c === 13) out += "\\r";
    else if (c === 9) out += "\\t";
    else if (c >= 0xd800 && c <= 0xdbff && StringCharCodeAt(s, i + 1) >= 0xdc00 && StringCharCodeAt(s, i + 1) <= 0xdfff) out += s[i] + s[++i];
    else out += c < 256 ? `\\x${StringPadStart(NumberToString(c, 16), 2, "0")}` : `\\u${StringPadStart(NumberToString(c, 16), 4, "0")}`;
  }
  return out + q;
};
