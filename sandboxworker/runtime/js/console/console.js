// The console namespace (https://console.spec.whatwg.org/). Lines go to the tenant's log with the
// invocation they belong to.

const LEVEL_DEBUG = 0, LEVEL_LOG = 1, LEVEL_INFO = 2, LEVEL_WARN = 3, LEVEL_ERROR = 4;

const counts = new SafeMap();
const clocks = new SafeMap();
let groupIndent = "";

const emitLog = (level, text) => {
  const inv = currentInvocation();
  let line = boundText(text);
  if (groupIndent !== "") line = groupIndent + indentLog(line, groupIndent);
  writeLog(inv === undefined || inv.ended ? 0 : inv.id, level, line);
};
const indentLog = (s, pad) => {
  let out = "", from = 0;
  for (let i = StringIndexOf(s, "\n"); i >= 0; i = StringIndexOf(s, "\n", from)) {
    out += StringSlice(s, from, i + 1) + pad;
    from = i + 1;
  }
  return out + StringSlice(s, from);
};
// printLog formats and logs. One plain string, the common case, needs no formatter.
const printLog = (level, args) => emitLog(level,
  args.length === 1 && typeof args[0] === "string" ? args[0] : inspectUnit.get().formatLog(args));

const labelOf = (label) => (label === undefined ? "default" : toDOMString(label));
const elapsed = (since) => `${host.now() - since}ms`;

const consoleMethods = {
  assert(condition = false, ...data) {
    if (condition) return;
    if (data.length > 0 && typeof data[0] === "string") data[0] = `Assertion failed: ${shown(data[0])}`;
    else { const d = ["Assertion failed:"]; for (let i = 0; i < data.length; i++) ArrayPush(d, data[i]); data = data.length === 0 ? ["Assertion failed"] : d; }
    printLog(LEVEL_ERROR, data);
  },
  clear() { groupIndent = ""; },
  debug(...data) { printLog(LEVEL_DEBUG, data); },
  error(...data) { printLog(LEVEL_ERROR, data); },
  info(...data) { printLog(LEVEL_INFO, data); },
  log(...data) { printLog(LEVEL_LOG, data); },
  table(data = undefined, properties = undefined) {
    const text = tableText(data, properties);
    if (text === undefined) printLog(LEVEL_LOG, [data]); else emitLog(LEVEL_LOG, text);
  },
  trace(...data) {
    const holder = { name: "Trace", message: inspectUnit.get().formatLog(data) };
    ErrorCaptureStackTrace(holder, consoleMethods.trace);
    emitLog(LEVEL_LOG, `${holder.stack}`);
  },
  warn(...data) { printLog(LEVEL_WARN, data); },
  dir(item = undefined, options = undefined) {
    const d = isObject(options) ? options : emptyDictionary;
    const { depth, showHidden } = d;
    emitLog(LEVEL_LOG, inspectUnit.get().inspect(item, depth === null ? Infinity : depth === undefined ? 2 : toNumber(depth), !!showHidden));
  },
  dirxml(...data) { printLog(LEVEL_LOG, data); },
  count(label = "default") {
    const l = labelOf(label), n = (counts.get(l) ?? 0) + 1;
    if (counts.size < 1000 || n > 1) counts.set(l, n);
    emitLog(LEVEL_INFO, `${l}: ${n}`);
  },
  countReset(label = "default") {
    const l = labelOf(label);
    if (!counts.delete(l)) emitLog(LEVEL_WARN, `Count for '${l}' does not exist`);
  },
  group(...data) {
    if (data.length > 0) printLog(LEVEL_LOG, data);
    if (groupIndent.length < 40) groupIndent += "  ";
  },
  groupCollapsed(...data) {
    if (data.length > 0) printLog(LEVEL_LOG, data);
    if (groupIndent.length < 40) groupIndent += "  ";
  },
  groupEnd() { groupIndent = StringSlice(groupIndent, 2); },
  time(label = "default") {
    const l = labelOf(label);
    if (clocks.has(l)) emitLog(LEVEL_WARN, `Timer '${l}' already exists`);
    else if (clocks.size < 1000) clocks.set(l, host.now());
  },
  timeLog(label = "default", ...data) {
    const l = labelOf(label), since = clocks.get(l);
    if (since === undefined) { emitLog(LEVEL_WARN, `Timer '${l}' does not exist`); return; }
    emitLog(LEVEL_LOG, `${l}: ${elapsed(since)}${data.length > 0 ? ` ${inspectUnit.get().formatLog(data)}` : ""}`);
  },
  timeEnd(label = "default") {
    const l = labelOf(label), since = clocks.get(l);
    if (since === undefined) { emitLog(LEVEL_WARN, `Timer '${l}' does not exist`); return; }
    clocks.delete(l);
    emitLog(LEVEL_INFO, `${l}: ${elapsed(since)}`);
  },
  timeStamp() {},
  profile() {},
  profileEnd() {},
};

const TABLE_CELL = 500; // characters

// tableText draws console.table; undefined where there is nothing tabular.
const tableText = (data, properties) => {
  if (!isObject(data)) return undefined;
  const { inspect } = inspectUnit.get();
  // Every cell of a column is as wide as its widest: a few long ones would make a table of gigabytes.
  const cut = (s) => (!readable(s) ? shown(s) : s.length > TABLE_CELL ? `${StringSlice(s, 0, TABLE_CELL)}...` : s);
  const cell = (v) => cut(isObject(v) ? inspect(v, 0) : inspect(v));
  const rows = [], columns = ["(index)"];
  const column = new SafeMap();
  column.set("(index)", 0);
  let hasValues = false;
  const wanted = properties === undefined ? undefined : toSequence(properties, "console.table: properties", toDOMString);
  if (wanted !== undefined) for (let i = 0; i < wanted.length; i++) { column.set(wanted[i], columns.length); ArrayPush(columns, wanted[i]); }
  const kind = host.classOf(data);
  const preview = kind === "Map" || kind === "Set" ? host.previewEntries(data) : undefined;
  const keys = preview === undefined ? ObjectKeys(data) : undefined;
  const n = MathMin(preview === undefined ? keys.length : preview[1] ? preview[0].length / 2 : preview[0].length, 200);
  for (let i = 0; i < n; i++) {
    const key = preview === undefined ? keys[i] : preview[1] ? cell(preview[0][2 * i]) : `${i}`;
    const value = preview === undefined ? data[keys[i]] : preview[1] ? preview[0][2 * i + 1] : preview[0][i];
    const row = [cut(key)];
    row.value = undefined;
    if (isObject(value) && typeof value !== "function") {
      const names = wanted === undefined ? ObjectKeys(value) : wanted;
      for (let j = 0; j < names.length && j < 50; j++) {
        let at = column.get(names[j]);
        if (at === undefined) { at = columns.length; column.set(names[j], at); ArrayPush(columns, names[j]); }
        if (ObjectHasOwn(value, names[j])) row[at] = cell(value[names[j]]);
      }
    } else {
      row.value = cell(value);
      hasValues = true;
    }
    ArrayPush(rows, row);
  }
  if (hasValues) {
    for (let i = 0; i < rows.length; i++) if (rows[i].value !== undefined) rows[i][columns.length] = rows[i].value;
    ArrayPush(columns, "Values");
  }
  for (let c = 0; c < columns.length; c++) columns[c] = cut(columns[c]);
  const widths = [];
  for (let c = 0; c < columns.length; c++) {
    widths[c] = columns[c].length + 2;
    for (let i = 0; i < rows.length; i++) widths[c] = MathMax(widths[c], (rows[i][c] ?? "").length + 2);
  }
  const rule = (l, m, r) => {
    let s = l;
    for (let c = 0; c < widths.length; c++) s += StringRepeat("-", widths[c]) + (c + 1 < widths.length ? m : r);
    return s;
  };
  const line = (row) => {
    let s = "|";
    for (let c = 0; c < widths.length; c++) s += ` ${StringPadEnd(row[c] ?? "", widths[c] - 1)}|`;
    return s;
  };
  let text = `${rule("+", "+", "+")}\n${line(columns)}\n${rule("+", "+", "+")}`;
  for (let i = 0; i < rows.length && text.length < LOG_LIMIT; i++) text += `\n${line(rows[i])}`;
  return `${text}\n${rule("+", "+", "+")}`;
};

// The namespace object's prototype is an object of its own (https://console.spec.whatwg.org/#console-namespace).
const consoleObject = ObjectCreate(ObjectCreate(ObjectPrototype));
const consoleNames = ObjectKeys(consoleMethods);
for (let i = 0; i < consoleNames.length; i++) consoleObject[consoleNames[i]] = consoleMethods[consoleNames[i]];
ObjectDefineProperty(consoleObject, SymbolToStringTag, { __proto__: null, value: "console", configurable: true });
return { __proto__: null, console: consoleObject };
