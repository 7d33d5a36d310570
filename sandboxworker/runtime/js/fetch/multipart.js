// The multipart/form-data parser (RFC 7578, https://andreubotella.github.io/multipart-form-data/).

const badMultipart = (why) => new TypeError(`formData: malformed multipart/form-data body: ${why}.`);

// findBytes is Boyer-Moore-Horspool over bytes: the boundary is looked for in whole uploads.
const findBytes = (hay, needle, skip, from) => {
  const n = TypedArrayLength(hay), m = TypedArrayLength(needle);
  const last = m - 1;
  for (let i = from; i + m <= n;) {
    let j = last;
    while (j >= 0 && hay[i + j] === needle[j]) j--;
    if (j < 0) return i;
    i += skip[hay[i + last]];
  }
  return -1;
};
const skipTable = (needle) => {
  const m = TypedArrayLength(needle);
  const skip = new Uint32Array(256);
  for (let i = 0; i < 256; i++) skip[i] = m;
  for (let i = 0; i < m - 1; i++) skip[needle[i]] = m - 1 - i;
  return skip;
};

// dispositionValue reads name="..." from a Content-Disposition line; %22, %0A and %0D are undone.
const dispositionValue = (line, wanted) => {
  const lower = StringToLowerCase(line);
  let at = 0;
  for (;;) {
    at = StringIndexOf(lower, `${wanted}=`, at);
    if (at < 0) return undefined;
    const before = at === 0 ? ";" : line[at - 1];
    if (before === " " || before === ";" || before === "\t") break;
    at++;
  }
  let i = at + wanted.length + 1;
  let out = "";
  if (line[i] !== "\"") {
    while (i < line.length && line[i] !== ";") out += line[i++];
    return encodingTrim(out);
  }
  for (i++; i < line.length && line[i] !== "\""; i++) {
    if (line[i] === "\\" && line[i + 1] === "\"") { out += "\""; i++; continue; }
    if (line[i] === "%") {
      const code = StringToUpperCase(StringSlice(line, i + 1, i + 3));
      if (code === "22" || code === "0A" || code === "0D") {
        out += code === "22" ? "\"" : code === "0A" ? "\n" : "\r";
        i += 2;
        continue;
      }
    }
    out += line[i];
  }
  if (i >= line.length) throw badMultipart("a quoted value does not end");
  return out;
};

const parseMultipart = (bytes, boundary) => {
  const form = new FormData();
  const n = TypedArrayLength(bytes);
  const first = host.utf8Encode(`--${boundary}`);
  const delimiter = host.utf8Encode(`\r\n--${boundary}`);
  const skip = skipTable(delimiter);
  const firstSkip = skipTable(first);
  let at = findBytes(bytes, first, firstSkip, 0);
  if (at < 0) throw badMultipart("the boundary does not occur");
  if (at !== 0 && !(at >= 2 && bytes[at - 2] === 13 && bytes[at - 1] === 10)) throw badMultipart("the first boundary is not on a line of its own");
  at += TypedArrayLength(first);
  const headEnd = host.utf8Encode("\r\n\r\n");
  const headSkip = skipTable(headEnd);
  for (;;) {
    if (bytes[at] === 45 && bytes[at + 1] === 45) return form;
    while (bytes[at] === 32 || bytes[at] === 9) at++;
    if (bytes[at] !== 13 || bytes[at + 1] !== 10) throw badMultipart("a boundary is not followed by a line end");
    // `at` stays on the line end so that a part without headers is found too.
    const headStop = findBytes(bytes, headEnd, headSkip, at);
    if (headStop < 0) throw badMultipart("a part's headers do not end");
    const head = headStop === at ? "" : host.utf8Decode(subarrayU8(bytes, at + 2, headStop), false, true);
    const start = headStop + 4;
    const stop = findBytes(bytes, delimiter, skip, start - 2);
    if (stop < 0) throw badMultipart("the last part does not end");
    let name, filename, type = "text/plain";
    let line = 0;
    while (line < head.length) {
      let eol = StringIndexOf(head, "\r\n", line);
      if (eol < 0) eol = head.length;
      const text = StringSlice(head, line, eol);
      line = eol + 2;
      const colon = StringIndexOf(text, ":");
      if (colon < 0) throw badMultipart("a header line has no colon");
      const field = StringToLowerCase(encodingTrim(StringSlice(text, 0, colon)));
      const value = encodingTrim(StringSlice(text, colon + 1));
      if (field === "content-disposition") {
        if (!StringStartsWith(StringToLowerCase(value), "form-data")) throw badMultipart("a part is not form-data");
        name = dispositionValue(value, "name");
        filename = dispositionValue(value, "filename");
      } else if (field === "content-type") {
        type = value;
      }
    }
    if (name === undefined) throw badMultipart("a part has no name");
    const content = subarrayU8(bytes, start, MathMax(start, stop));
    ArrayPush(formEntries(form), filename === undefined
      ? [name, host.utf8Decode(content, false, true)]
      : [name, newFile(TypedArraySliceU8(content), filename, blobType(type))]);
    at = stop + TypedArrayLength(delimiter);
  }
};

const cloneBlob = (b) => {
  const s = blobState(b);
  return isFile(b) ? newFile(s.bytes, ReflectApply(fileNameGetter, b, []), s.type, fileModified(b)) : new Blob(kInternal, s);
};

return { __proto__: null, cloneBlob, Blob, File, FormData, isBlob, blobState, typedBlob, isFormData, serializeMultipart, parseFormData };
