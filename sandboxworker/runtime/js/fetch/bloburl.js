// Blob URLs (https://w3c.github.io/FileAPI/#url): each keeps its Blob until it is revoked, in this isolate
// and at the tenant's cost.

const blobURLs = new SafeMap(); // URL -> BlobState

const createBlobURL = (blob) => {
  if (!isBlobObject(blob)) throw new TypeError("URL.createObjectURL: the argument is not a Blob.");
  const { type, bytes } = blobUnit.get().blobState(blob);
  const url = `blob:null/${randomUUIDText()}`; // a worker has no origin
  blobURLs.set(url, { __proto__: null, type, bytes });
  return url;
};
const revokeBlobURL = (url) => { blobURLs.delete(url); };

// withoutFragment: a fragment says nothing about which Blob is meant.
const withoutFragment = (url) => {
  const hash = StringIndexOf(url, "#");
  return hash < 0 ? url : StringSlice(url, 0, hash);
};
const lookUp = (url) => blobURLs.get(withoutFragment(url));

// fetchBlob is https://fetch.spec.whatwg.org/#scheme-fetch for blob:, with one range of bytes.
const fetchBlob = (request) => {
  const { blob, url } = request;
  const refuse = (why) => PromiseReject(new TypeError(`fetch failed: ${JSONStringify(StringSlice(url, 0, 100))} ${why}.`));
  if (blob === undefined) return refuse("stands for no Blob");
  if (request.method !== "GET") return refuse("can only be fetched with the method GET");
  const r = new ResponseState();
  r.type = "basic";
  r.url = withoutFragment(url);
  const total = TypedArrayByteLength(blob.bytes), range = requestHeaders(request).get("range");
  let { bytes } = blob;
  if (range === null) {
    r.statusText = "OK";
  } else {
    const span = rangeOf(range, total);
    if (span === undefined) return refuse("has no such range of bytes");
    bytes = subarrayU8(bytes, span[0], span[1] + 1);
    r.status = 206;
    r.statusText = "Partial Content";
  }
  const list = ["content-length", `${TypedArrayByteLength(bytes)}`, "content-type", blob.type];
  if (range !== null) { ArrayPush(list, "content-range"); ArrayPush(list, `bytes ${rangeOf(range, total)[0]}-${rangeOf(range, total)[1]}/${total}`); }
  r.headers = new HeaderList(list, true);
  r.body = new Body(B_BYTES, bytes);
  return PromiseResolve(new Response(kInternal, r));
};

// rangeOf is https://fetch.spec.whatwg.org/#simple-range-header-value, blanks allowed, against a length:
// [first, last], undefined for none.
const rangeOf = (value, total) => {
  let i = 0;
  const blanks = () => { while (value[i] === " " || value[i] === "\t") i++; };
  const number = () => {
    const from = i;
    while (i < value.length && StringCharCodeAt(value, i) >= 48 && StringCharCodeAt(value, i) <= 57) i++;
    return i === from ? undefined : +StringSlice(value, from, i);
  };
  if (StringToLowerCase(StringSlice(value, 0, 5)) !== "bytes") return undefined;
  i = 5;
  blanks();
  if (value[i++] !== "=") return undefined;
  blanks();
  const first = number();
  blanks();
  if (value[i++] !== "-") return undefined;
  blanks();
  const last = number();
  if (i < value.length) return undefined;
  if (first === undefined) return last === undefined || last === 0 || total === 0 ? undefined : [MathMax(0, total - last), total - 1];
  if (first >= total || (last !== undefined && last < first)) return undefined;
  return [first, last === undefined ? total - 1 : MathMin(last, total - 1)];
};

return { __proto__: null, createBlobURL, revokeBlobURL, lookUp, fetchBlob };
