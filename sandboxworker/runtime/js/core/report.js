// How errors become text, and where uncaught ones go.

const LOG_LIMIT = 16384; // characters of one line; the host bounds the bytes of an invocation

// writeLog hands a line to the host. What one turn may log is bounded here, far above what the log
// itself keeps: the host's output buffer must have room left for how the invocations end.
const TURN_LOG_LIMIT = 4 << 20; // characters
let loggedThisTurn = 0;
const writeLog = (inv, level, text) => {
  if (loggedThisTurn > TURN_LOG_LIMIT) return;
  loggedThisTurn += text.length + 64;
  try {
    host.log(inv, level, loggedThisTurn > TURN_LOG_LIMIT ? "Too much was logged at once: the rest is dropped." : text);
  } catch { /* the output is full of other things: a line is what can be missed */ }
};

// shown is a string as people get to see it: itself, or a word in its place.
const shown = (s) => (readable(s) ? s : `(a string of ${s.length} characters, too long to show)`);

const boundText = (s) => (!readable(s) ? shown(s) : s.length > LOG_LIMIT ? `${StringSlice(s, 0, LOG_LIMIT)}... (${s.length - LOG_LIMIT} more characters)` : s);

const tryGet = (o, key) => { try { return o[key]; } catch { return undefined; } };

// ownFrames takes the runtime's own frames out of a stack: they are noise to the tenant's developer.
const ownFrames = (stack) => {
  if (!readable(stack)) return shown(stack);
  if (!StringIncludes(stack, "bulkhead:runtime:")) return stack;
  let out = "", from = 0;
  while (from <= stack.length) {
    let end = StringIndexOf(stack, "\n", from);
    if (end < 0) end = stack.length;
    const line = StringSlice(stack, from, end);
    if (!StringIncludes(line, "bulkhead:runtime:") || !StringStartsWith(line, "    at ")) out += from === 0 ? line : `\n${line}`;
    from = end + 1;
  }
  return out;
};

// describeError gives an error's stack, with its causes, or the value's text. It never throws,
// whatever getters the value has.
const describeError = (e, depth = 0) => shown(describeAny(e, depth));
const describeAny = (e, depth) => {
  try {
    if (!isObject(e)) return typeof e === "string" ? e : typeof e === "symbol" ? SymbolToString(e) : `${e}`;
    if (host.classOf(e) === "NativeError" || (domExceptionUnit.loaded && domExceptionUnit.get().is(e))) {
      const stack = tryGet(e, "stack");
      let text = typeof stack === "string" && stack !== "" ? ownFrames(stack) : ErrorToString(e);
      // A message set after construction is not in the stack.
      const message = tryGet(e, "message");
      if (typeof message === "string" && !readable(message)) text = `${shown(message)}\n${text}`;
      else if (typeof message === "string" && !StringIncludes(text, message)) text = `${ErrorToString(e)}\n${text}`;
      if (depth < 4 && ObjectHasOwn(e, "cause")) text += `\n  [cause]: ${describeError(e.cause, depth + 1)}`;
      return text;
    }
    return inspectUnit.get().inspect(e);
  } catch {
    return "an error that cannot be described: its own code threw";
  }
};

// describeKind names what a value is, for messages such as "returned X instead of a Response".
const describeKind = (v) => {
  if (v === undefined || v === null) return `${v}`;
  if (typeof v === "string" && !readable(v)) return shown(v);
  if (typeof v === "string") return `a string (${JSONStringify(StringSlice(v, 0, 40))}${v.length > 40 ? "..." : ""})`;
  if (typeof v !== "object") return `a ${typeof v}`;
  try {
    const name = host.constructorName(v);
    return name === "Object" ? "a plain object" : name === "Array" ? "an array" : `an object of class ${shown(name)}`;
  } catch {
    return "an object";
  }
};

// placeOf reads file, line and column of the first frame that is not the runtime's from a stack.
const placeOf = (stack) => {
  const none = { __proto__: null, filename: "", lineno: 0, colno: 0 };
  if (typeof stack !== "string" || !readable(stack)) return none;
  for (let from = 0; from <= stack.length;) {
    let end = StringIndexOf(stack, "\n", from);
    if (end < 0) end = stack.length;
    let line = StringSlice(stack, from, end);
    from = end + 1;
    if (!StringStartsWith(line, "    at ") || StringIncludes(line, "bulkhead:runtime:")) continue;
    if (StringEndsWith(line, ")")) line = StringSlice(line, 0, line.length - 1);
    const last = StringLastIndexOf(line, ":"), before = StringLastIndexOf(line, ":", last - 1);
    const lineno = +StringSlice(line, before + 1, last), colno = +StringSlice(line, last + 1);
    if (before < 0 || !(lineno > 0) || !(colno > 0)) continue;
    const open = StringLastIndexOf(line, " (", before);
    return { __proto__: null, filename: StringToWellFormed(StringSlice(line, open < 0 ? 7 : open + 2, before)), lineno, colno };
  }
  return none;
};
// hereOf is placeOf the code that called the runtime.
const hereOf = () => {
  const holder = { __proto__: null };
  ErrorCaptureStackTrace(holder);
  return placeOf(holder.stack);
};

// reportException is https://html.spec.whatwg.org/#report-an-exception: the error event first, the log
// if nobody handled it.
let reporting = false;
const reportException = (error, asked = false) => {
  const inv = currentInvocation();
  if (!reporting && eventsUnit.loaded) {
    const { ErrorEvent, globalTarget, hasListener, fire } = eventsUnit.get();
    if (hasListener(globalTarget, "error")) {
      reporting = true; // an error in the handler of errors is only logged
      try {
        let message = "Uncaught";
        try { message = `Uncaught ${isObject(error) && host.classOf(error) === "NativeError" ? ErrorToString(error) : describeError(error)}`; } catch { /* keep */ }
        const { filename, lineno, colno } = asked ? hereOf() : host.classOf(error) === "NativeError" ? placeOf(tryGet(error, "stack")) : placeOf(undefined);
        if (!fire(globalTarget, new ErrorEvent("error", { __proto__: null, message, filename, lineno, colno, error, cancelable: true }))) return;
      } finally {
        reporting = false;
      }
    }
  }
  writeLog(inv === undefined || inv.ended ? 0 : inv.id, 4, boundText(`Uncaught ${describeError(error)}`));
};
