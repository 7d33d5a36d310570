// node:querystring, of the npm package where the separators are the usual ones.

import fast from "fast-querystring";

export const escape = (text) => encodeURIComponent(String(text).toWellFormed());
export const unescape = (text) => {
  try { return decodeURIComponent(text); } catch { return text; }
};

export const parse = (text, separator = "&", equals = "=", options = undefined) => {
  const decode = options?.decodeURIComponent ?? api.unescape, max = options?.maxKeys ?? 1000;
  const out = Object.create(null);
  if (typeof text !== "string" || text === "") return out;
  const [sep, eq] = [String(separator || "&"), String(equals || "=")];
  let parts = text.split(sep);
  if (max > 0 && parts.length > max) parts = parts.slice(0, max);
  if (sep === "&" && eq === "=" && decode === unescape) return Object.assign(out, fast.parse(parts.join("&")));
  for (const part of parts) {
    if (part === "") continue;
    const at = part.indexOf(eq);
    const [key, value] = (at < 0 ? [part, ""] : [part.slice(0, at), part.slice(at + eq.length)]).map((s) => decode(s.replaceAll("+", " ")));
    if (!(key in out)) out[key] = value;
    else if (Array.isArray(out[key])) out[key].push(value);
    else out[key] = [out[key], value];
  }
  return out;
};
export const stringify = (object, separator = "&", equals = "=", options = undefined) => {
  const encode = options?.encodeURIComponent ?? api.escape;
  if (typeof object !== "object" || object === null) return "";
  const [sep, eq] = [separator || "&", equals || "="];
  if (sep === "&" && eq === "=" && encode === escape) return fast.stringify(object);
  const text = (v) => (typeof v === "string" || typeof v === "bigint" || typeof v === "boolean" || (typeof v === "number" && Number.isFinite(v)) ? String(v) : "");
  return Object.entries(object)
    .flatMap(([key, value]) => (Array.isArray(value) ? value : [value]).map((v) => `${encode(key)}${eq}${encode(text(v))}`))
    .join(sep);
};
export { parse as decode, stringify as encode };

// escape and unescape may be replaced by assigning to the module's members, as in Node.js.
const api = { parse, stringify, escape, unescape, decode: parse, encode: stringify };
export default api;
