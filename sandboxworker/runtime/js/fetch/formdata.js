// FormData (https://xhr.spec.whatwg.org/#interface-formdata), multipart/form-data (RFC 7578) both ways.

let formEntries, isFormData;
const formAt = (target, i) => formEntries(target)[i];
const FormDataIterator = pairIterator("FormData", formAt);

// formEntry is https://html.spec.whatwg.org/#create-an-entry: a Blob becomes a File.
const formEntry = (name, value, filename) => {
  if (!isBlob(value)) return [name, toUSVString(value)];
  if (isFile(value) && filename === undefined) return [name, value];
  const s = blobState(value);
  return [name, newFile(s.bytes, filename ?? "blob", s.type, isFile(value) ? fileModified(value) : undefined)];
};

class FormData {
  #list = [];
  static {
    formEntries = (v) => v.#list;
    isFormData = (v) => isObject(v) && #list in v;
  }
  constructor(form = undefined) {
    if (form !== undefined && form !== kInternal) throw new TypeError("FormData: there are no HTML forms here.");
  }
  // A third argument chooses the overload that wants a Blob; undefined there still means no name.
  #args(what, got, name, value, filename) {
    const n = toUSVString(name);
    if (got > 2 && !isBlob(value)) throw new TypeError(`${what}: a file name needs a Blob.`);
    return formEntry(n, value, filename === undefined ? undefined : toUSVString(filename));
  }
  append(name, value, filename = undefined) {
    void this.#list;
    needArgs("FormData.append", arguments.length, 2);
    ArrayPush(this.#list, this.#args("FormData.append", arguments.length, name, value, filename));
  }
  delete(name) {
    void this.#list;
    needArgs("FormData.delete", arguments.length, 1);
    const n = toUSVString(name), kept = [];
    for (let i = 0; i < this.#list.length; i++) if (this.#list[i][0] !== n) ArrayPush(kept, this.#list[i]);
    this.#list = kept;
  }
  get(name) {
    const list = this.#list;
    needArgs("FormData.get", arguments.length, 1);
    const n = toUSVString(name);
    for (let i = 0; i < list.length; i++) if (list[i][0] === n) return list[i][1];
    return null;
  }
  getAll(name) {
    const list = this.#list;
    needArgs("FormData.getAll", arguments.length, 1);
    const n = toUSVString(name), out = [];
    for (let i = 0; i < list.length; i++) if (list[i][0] === n) ArrayPush(out, list[i][1]);
    return out;
  }
  has(name) {
    const list = this.#list;
    needArgs("FormData.has", arguments.length, 1);
    const n = toUSVString(name);
    for (let i = 0; i < list.length; i++) if (list[i][0] === n) return true;
    return false;
  }
  set(name, value, filename = undefined) {
    void this.#list;
    needArgs("FormData.set", arguments.length, 2);
    const entry = this.#args("FormData.set", arguments.length, name, value, filename);
    const out = [];
    let done = false;
    for (let i = 0; i < this.#list.length; i++) {
      if (this.#list[i][0] !== entry[0]) ArrayPush(out, this.#list[i]);
      else if (!done) { done = true; ArrayPush(out, entry); }
    }
    if (!done) ArrayPush(out, entry);
    this.#list = out;
  }
  entries() { void this.#list; return new FormDataIterator(this, 2); }
  forEach(callback, thisArg = undefined) { void this.#list; forEachPair(this, formAt, callback, thisArg, "FormData.forEach"); }
  keys() { void this.#list; return new FormDataIterator(this, 0); }
  values() { void this.#list; return new FormDataIterator(this, 1); }
}
defineInterface(FormData, "FormData");
alias(FormData, SymbolIterator, "entries");

// escapeName is https://html.spec.whatwg.org/#multipart-form-data: the three characters that would
// end the quoted string or the line.
const escapeName = (s) => {
  let out = "";
  for (let i = 0; i < s.length; i++) {
    const c = s[i];
    out += c === "\n" ? "%0A" : c === "\r" ? "%0D" : c === "\"" ? "%22" : c;
  }
  return out;
};
const crlfEndings = (s) => {
  let out = "";
  for (let i = 0; i < s.length; i++) {
    const c = StringCharCodeAt(s, i);
    if (c === 13) { out += "\r\n"; if (StringCharCodeAt(s, i + 1) === 10) i++; } else out += c === 10 ? "\r\n" : s[i];
  }
  return out;
};

const serializeMultipart = (form) => {
  const random = new Uint8Array(16);
  host.randomFill(random);
  let boundary = "----bulkhead-formdata-";
  for (let i = 0; i < 16; i++) boundary += StringPadStart(NumberToString(random[i], 16), 2, "0");
  const list = formEntries(form);
  const parts = [];
  let total = 0;
  const add = (u8) => { ArrayPush(parts, u8); total += TypedArrayByteLength(u8); };
  for (let i = 0; i < list.length; i++) {
    const value = list[i][1];
    const head = `--${boundary}\r\nContent-Disposition: form-data; name="${escapeName(crlfEndings(list[i][0]))}"`;
    if (typeof value === "string") {
      add(host.utf8Encode(`${head}\r\n\r\n${crlfEndings(value)}\r\n`));
    } else {
      const s = blobState(value);
      const name = ReflectApply(fileNameGetter, value, []);
      add(host.utf8Encode(`${head}; filename="${escapeName(name)}"\r\nContent-Type: ${s.type || "application/octet-stream"}\r\n\r\n`));
      add(s.bytes);
      add(host.utf8Encode("\r\n"));
    }
  }
  add(host.utf8Encode(`--${boundary}--\r\n`));
  return { __proto__: null, bytes: concatBytes(parts, total), type: `multipart/form-data; boundary=${boundary}` };
};
const fileNameGetter = ObjectGetOwnPropertyDescriptor(File.prototype, "name").get;

const encodingTrim = (s) => mimeUnit.get().trimHTTP(s);

const parseFormData = (bytes, contentType) => {
  const mime = mimeUnit.get().extractMime(contentType);
  const essence = mime?.essence;
  if (essence === "application/x-www-form-urlencoded") {
    const list = urlUnit.get().parseForm(host.utf8Decode(bytes, false, true));
    const form = new FormData();
    for (let i = 0; i < list.length; i += 2) ArrayPush(formEntries(form), [list[i], list[i + 1]]);
    return form;
  }
  if (essence === "multipart/form-data") {
    const boundary = mime.get("boundary");
    if (boundary === undefined || boundary === "") throw new TypeError("formData: the Content-Type has no boundary.");
    return parseMultipart(bytes, boundary);
  }
  throw new TypeError(`formData: the Content-Type '${StringSlice(contentType, 0, 100)}' is neither multipart/form-data nor application/x-www-form-urlencoded.`);
};
