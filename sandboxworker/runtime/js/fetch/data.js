// fetch() of a data: URL (https://fetch.spec.whatwg.org/#data-url-processor): answered here, without the
// gateway. It is no I/O: time does not move.

// percentDecode decodes within the bytes and gives what is left of them.
const percentDecode = (u8) => {
  const hex = (c) => (c >= 48 && c <= 57 ? c - 48 : c >= 65 && c <= 70 ? c - 55 : c >= 97 && c <= 102 ? c - 87 : -1);
  const n = TypedArrayLength(u8);
  let at = 0;
  for (let i = 0; i < n; i++, at++) {
    const c = u8[i];
    if (c === 37 && i + 2 < n) {
      const high = hex(u8[i + 1]), low = hex(u8[i + 2]);
      if (high >= 0 && low >= 0) {
        u8[at] = high * 16 + low;
        i += 2;
        continue;
      }
    }
    u8[at] = c;
  }
  return subarrayU8(u8, 0, at);
};

const isASCIISpace = (c) => c === 0x20 || c === 0x09 || c === 0x0a || c === 0x0c || c === 0x0d;

// dataURL gives the bytes and the MIME type of a serialized URL without fragment; undefined for failure.
const dataURL = (url) => {
  const comma = StringIndexOf(url, ",");
  if (comma < 0) return undefined;
  let from = 5, to = comma;
  while (from < to && isASCIISpace(StringCharCodeAt(url, from))) from++;
  while (to > from && isASCIISpace(StringCharCodeAt(url, to - 1))) to--;
  let type = StringSlice(url, from, to);
  let bytes = percentDecode(host.utf8Encode(StringSlice(url, comma + 1)));
  if (type.length >= 7 && StringToLowerCase(StringSlice(type, type.length - 6)) === "base64") {
    let end = type.length - 6;
    while (end > 0 && type[end - 1] === " ") end--;
    if (end > 0 && type[end - 1] === ";") {
      bytes = decodeBase64(host.latin1Decode(bytes));
      if (bytes === undefined) return undefined;
      type = StringSlice(type, 0, end - 1);
    }
  }
  const { parseMime, serializeMime } = mimeUnit.get();
  const mime = parseMime(StringStartsWith(type, ";") ? `text/plain${type}` : type);
  return { __proto__: null, bytes, type: mime === undefined ? "text/plain;charset=US-ASCII" : serializeMime(mime) };
};

const fetchData = (request) => {
  const { url } = request;
  const hash = StringIndexOf(url, "#");
  const data = dataURL(hash < 0 ? url : StringSlice(url, 0, hash));
  if (data === undefined) {
    return PromiseReject(new TypeError(`fetch failed: ${JSONStringify(StringSlice(url, 0, 100))} is no valid data: URL.`));
  }
  const r = new ResponseState();
  r.type = "basic";
  r.statusText = "OK";
  r.url = hash < 0 ? url : StringSlice(url, 0, hash);
  r.headers = new HeaderList(["content-type", data.type], true);
  if (request.method !== "HEAD") r.body = new Body(B_BYTES, data.bytes);
  return PromiseResolve(new Response(kInternal, r));
};

return { __proto__: null, fetchData };
