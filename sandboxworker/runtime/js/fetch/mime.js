// MIME types (https://mimesniff.spec.whatwg.org/#mime-type-representation), as the content type of a body
// and as what a data: URL begins with. Strings here hold bytes, one a character.

const trimHTTP = (s) => {
  let a = 0, b = s.length;
  while (a < b && isHTTPSpace(StringCharCodeAt(s, a))) a++;
  while (b > a && isHTTPSpace(StringCharCodeAt(s, b - 1))) b--;
  return StringSlice(s, a, b);
};
const isQuotable = (s) => {
  for (let i = 0; i < s.length; i++) {
    const c = StringCharCodeAt(s, i);
    if (c !== 9 && (c < 0x20 || c === 0x7f || c > 0xff)) return false;
  }
  return true;
};

class MimeType {
  constructor(essence) {
    this.essence = essence;
    this.names = bareList(); // of the parameters, in order, in lower case
    this.values = bareList();
  }
  get(name) {
    for (let i = 0; i < this.names.length; i++) if (this.names[i] === name) return this.values[i];
    return undefined;
  }
  set(name, value) {
    this.names[this.names.length] = name;
    this.values[this.values.length] = value;
  }
}
bare(MimeType);

// quotedAt reads the quoted string that begins at i and sets quotedEnd to what follows it
// (https://fetch.spec.whatwg.org/#collect-an-http-quoted-string, with its extract-value).
let quotedEnd = 0;
const quotedAt = (s, i) => {
  let value = "", from = ++i;
  for (; i < s.length && s[i] !== "\""; i++) {
    if (s[i] !== "\\") continue;
    value += StringSlice(s, from, i);
    from = ++i; // what is escaped stands for itself; a backslash at the end as well
    if (i >= s.length) { value += "\\"; break; }
  }
  value += StringSlice(s, from, i);
  quotedEnd = i + 1;
  return value;
};

const indexOr = (s, sign, from) => {
  const i = StringIndexOf(s, sign, from);
  return i < 0 ? s.length : i;
};

const MAX_PARAMETERS = 256; // each is compared with all before it; those beyond are as good as absent

// parseMime is https://mimesniff.spec.whatwg.org/#parse-a-mime-type; undefined for failure.
const parseMime = (input) => {
  const s = trimHTTP(input);
  const slash = StringIndexOf(s, "/");
  if (slash < 0) return undefined;
  let i = indexOr(s, ";", slash + 1);
  // Only what follows the subtype may be white space; a blank before it is no token either.
  let end = i;
  while (end > slash && isHTTPSpace(StringCharCodeAt(s, end - 1))) end--;
  const type = StringSlice(s, 0, slash), subtype = StringSlice(s, slash + 1, end);
  if (!isToken(type) || !isToken(subtype)) return undefined;
  const mime = new MimeType(StringToLowerCase(`${type}/${subtype}`));
  while (i < s.length && mime.names.length < MAX_PARAMETERS) {
    i++; // the semicolon
    while (i < s.length && isHTTPSpace(StringCharCodeAt(s, i))) i++;
    const from = i;
    while (i < s.length && s[i] !== ";" && s[i] !== "=") i++;
    const name = StringToLowerCase(StringSlice(s, from, i));
    if (i >= s.length) break;
    if (s[i] === ";") continue;
    i++; // the equals sign
    if (i >= s.length) break;
    let value;
    if (s[i] === "\"") {
      value = quotedAt(s, i);
      i = indexOr(s, ";", quotedEnd);
    } else {
      const from = i;
      i = indexOr(s, ";", i);
      let last = i;
      while (last > from && isHTTPSpace(StringCharCodeAt(s, last - 1))) last--;
      value = StringSlice(s, from, last);
      if (value === "") continue;
    }
    if (isToken(name) && isQuotable(value) && mime.get(name) === undefined) mime.set(name, value);
  }
  return mime;
};

// serializeMime is https://mimesniff.spec.whatwg.org/#serialize-a-mime-type.
const serializeMime = (mime) => {
  let out = mime.essence;
  for (let i = 0; i < mime.names.length; i++) {
    const value = mime.values[i];
    out += `;${mime.names[i]}=`;
    if (isToken(value)) { out += value; continue; }
    out += "\"";
    for (let j = 0; j < value.length; j++) out += value[j] === "\"" || value[j] === "\\" ? `\\${value[j]}` : value[j];
    out += "\"";
  }
  return out;
};

// extractMime is https://fetch.spec.whatwg.org/#concept-header-extract-mime-type of the combined value of
// Content-Type, whose parts stand between commas outside of quotes. undefined for failure.
const extractMime = (combined) => {
  let charset, mime, from = 0;
  for (let i = 0; i <= combined.length; i++) {
    if (i < combined.length && combined[i] === "\"") { quotedAt(combined, i); i = quotedEnd - 1; }
    if (i < combined.length && combined[i] !== ",") continue;
    const one = parseMime(StringSlice(combined, from, i));
    from = i + 1;
    if (one === undefined || one.essence === "*/*") continue;
    const before = mime;
    mime = one;
    const own = one.get("charset");
    if (before === undefined || one.essence !== before.essence) charset = own;
    else if (own === undefined && charset !== undefined) one.set("charset", charset);
  }
  return mime;
};

return { __proto__: null, parseMime, serializeMime, extractMime, trimHTTP };
