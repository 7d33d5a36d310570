// Blob and File (https://w3c.github.io/FileAPI/). Bytes are kept in memory: one immutable array,
// which slices share.

class BlobState {
  constructor(bytes, type) { this.bytes = bytes; this.type = type; }
}
bare(BlobState);
const blobType = (s) => {
  for (let i = 0; i < s.length; i++) {
    const c = StringCharCodeAt(s, i);
    if (c < 0x20 || c > 0x7e) return "";
  }
  return StringToLowerCase(s);
};

const joinParts = (parts, endings) => {
  const arrays = [];
  let total = 0;
  for (let i = 0; i < parts.length; i++) {
    const p = parts[i];
    let u8;
    if (isBufferSource(p)) u8 = copyBytes(p);
    else if (isBlob(p)) u8 = blobState(p).bytes;
    else u8 = host.utf8Encode(endings ? nativeEndings(p) : p);
    ArrayPush(arrays, u8);
    total += TypedArrayByteLength(u8);
  }
  if (arrays.length === 0) return new Uint8Array(0);
  return concatBytes(arrays, total);
};
// nativeEndings is https://w3c.github.io/FileAPI/#convert-line-endings-to-native, native being "\n".
const nativeEndings = (s) => {
  let out = "", from = 0;
  for (let i = 0; i < s.length; i++) {
    if (StringCharCodeAt(s, i) !== 13) continue;
    out += StringSlice(s, from, i) + "\n";
    if (StringCharCodeAt(s, i + 1) === 10) i++;
    from = i + 1;
  }
  return from === 0 ? s : out + StringSlice(s, from);
};

// roundEven is what [Clamp] does with a fraction (https://webidl.spec.whatwg.org/#abstract-opdef-converttoint).
const roundEven = (k) => {
  const low = MathFloor(k), rest = k - low;
  return rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : low + 1;
};

let blobState, isBlob;
class Blob {
  #b;
  static {
    blobState = (v) => v.#b;
    isBlob = (v) => isObject(v) && #b in v;
  }
  constructor(blobParts = undefined, options = undefined) {
    if (blobParts === kInternal) { this.#b = options; return; }
    const parts = blobParts === undefined ? [] : toSequence(blobParts, "Blob parts",
      (p) => (isBufferSource(p) || isBlob(p) ? p : toUSVString(p)));
    const d = toDictionary(options, "Blob options");
    const endings = d.endings;
    let native = false;
    if (endings !== undefined) {
      const e = toDOMString(endings);
      if (e !== "transparent" && e !== "native") throw new TypeError(`Blob options: '${e}' is not a valid value for endings.`);
      native = e === "native";
    }
    const type = d.type;
    const typeText = type === undefined ? "" : blobType(toDOMString(type));
    this.#b = new BlobState(joinParts(parts, native), typeText);
  }
  get size() { return TypedArrayByteLength(this.#b.bytes); }
  get type() { return this.#b.type; }
  slice(start = undefined, end = undefined, contentType = undefined) {
    const { bytes } = this.#b;
    const n = TypedArrayByteLength(bytes);
    const clamp = (v, fallback) => {
      if (v === undefined) return fallback;
      let k = toNumber(v);
      if (NumberIsNaN(k)) k = 0;
      k = roundEven(MathMin(MathMax(k, -9007199254740991), 9007199254740991));
      return k < 0 ? MathMax(n + k, 0) : MathMin(k, n);
    };
    const a = clamp(start, 0), b = clamp(end, n);
    const type = contentType === undefined ? "" : blobType(toDOMString(contentType));
    return new Blob(kInternal, new BlobState(subarrayU8(bytes, a, MathMax(a, b)), type));
  }
  stream() { return bodyStream(new Body(B_BYTES, this.#b.bytes)); }
  text() {
    return isBlob(this) ? PromiseResolve(host.utf8Decode(this.#b.bytes, false, false)) : PromiseReject(illegalInvocation());
  }
  arrayBuffer() {
    return isBlob(this) ? PromiseResolve(TypedArrayBuffer(copyBytes(this.#b.bytes))) : PromiseReject(illegalInvocation());
  }
  bytes() { return isBlob(this) ? PromiseResolve(copyBytes(this.#b.bytes)) : PromiseReject(illegalInvocation()); }
}
defineInterface(Blob, "Blob");

let isFile, fileModified;
class File extends Blob {
  #name; #lastModified;
  static {
    isFile = (v) => isObject(v) && #name in v;
    fileModified = (v) => v.#lastModified;
  }
  constructor(fileBits, fileName, options = undefined) {
    needArgs("File constructor", arguments.length, 2);
    super(fileBits, fileBits === kInternal ? arguments[3] : options);
    this.#name = toUSVString(fileName);
    const modified = fileBits === kInternal ? options : toDictionary(options, "File options").lastModified;
    this.#lastModified = modified === undefined ? host.now() : MathTrunc(toNumber(modified)) || 0;
  }
  get name() { return this.#name; }
  get lastModified() { return this.#lastModified; }
  get webkitRelativePath() { void this.#name; return ""; }
}
defineInterface(File, "File");

// typedBlob takes the type as it is: that of a body is a MIME type, whose parameters keep their case.
const typedBlob = (bytes, type) => new Blob(kInternal, new BlobState(bytes, type));
const newFile = (bytes, name, type, modified = undefined) => new File(kInternal, name, modified, new BlobState(bytes, type));
