// FileReader (https://w3c.github.io/FileAPI/#APIASynch) and ProgressEvent (https://xhr.spec.whatwg.org/#interface-progressevent).
// A Blob's bytes are at hand: what takes time in a browser is here a row of tasks, one for each event.

const { Event, EventTarget, fire, targetState, defineHandler } = eventsUnit.get();

class ProgressEvent extends Event {
  #computable = false; #loaded = 0; #total = 0;
  constructor(type, init = undefined) {
    needArgs("ProgressEvent constructor", arguments.length, 1);
    super(type, init);
    const d = toDictionary(init, "ProgressEvent init");
    this.#computable = !!d.lengthComputable;
    if (d.loaded !== undefined) this.#loaded = toDouble(d.loaded, "ProgressEvent init: loaded");
    if (d.total !== undefined) this.#total = toDouble(d.total, "ProgressEvent init: total");
  }
  get lengthComputable() { return this.#computable; }
  get loaded() { return this.#loaded; }
  get total() { return this.#total; }
}
defineInterface(ProgressEvent, "ProgressEvent");
const toDouble = (v, what) => {
  const n = toNumber(v);
  if (!NumberIsFinite(n)) throw new TypeError(`${what} is not a finite number.`);
  return n;
};

const EMPTY = 0, LOADING = 1, DONE = 2;

class ReaderState {
  constructor(wrapper) {
    this.wrapper = wrapper;
    this.state = EMPTY;
    this.result = null;
    this.error = null;
    this.round = 0; // of the read that goes on; tasks of an older one do nothing
  }
}
bare(ReaderState);

let isReader;
class FileReader extends EventTarget {
  #r = new ReaderState(this);
  static { isReader = (v) => isObject(v) && #r in v; }
  constructor() { super(); }
  readAsArrayBuffer(blob) {
    const r = this.#r;
    startRead(r, "readAsArrayBuffer", arguments.length, blob, (b) => TypedArrayBuffer(copyBytes(b.bytes)));
  }
  readAsBinaryString(blob) {
    const r = this.#r;
    startRead(r, "readAsBinaryString", arguments.length, blob, (b) => host.latin1Decode(b.bytes));
  }
  readAsText(blob, encoding = undefined) {
    const r = this.#r;
    const label = encoding === undefined ? undefined : toDOMString(encoding);
    startRead(r, "readAsText", arguments.length, blob, (b) => textOf(b, label));
  }
  readAsDataURL(blob) {
    const r = this.#r;
    startRead(r, "readAsDataURL", arguments.length, blob, (b) =>
      `data:${b.type === "" ? "application/octet-stream" : b.type};base64,${encodeBase64(TypedArrayLength(b.bytes), (i) => b.bytes[i])}`);
  }
  abort() {
    const r = this.#r;
    const loading = r.state === LOADING;
    r.result = null;
    if (!loading) return;
    r.state = DONE;
    r.round++;
    tell(r, "abort", 0, 0);
    if (r.state !== LOADING) tell(r, "loadend", 0, 0);
  }
  get readyState() { return this.#r.state; }
  get result() { return this.#r.result; }
  get error() { return this.#r.error; }
}
const readerEvents = ["loadstart", "progress", "load", "abort", "error", "loadend"];
for (let i = 0; i < readerEvents.length; i++) {
  defineHandler(FileReader.prototype, readerEvents[i], (v) => { if (!isReader(v)) throw illegalInvocation(); });
}
defineInterface(FileReader, "FileReader", { EMPTY, LOADING, DONE });

const tell = (r, type, loaded, total) => fire(targetState(r.wrapper),
  new ProgressEvent(type, { __proto__: null, lengthComputable: total > 0, loaded, total }));

// textOf decodes as https://w3c.github.io/FileAPI/#packaging-data says: the label given, that of the type, or
// UTF-8; a byte order mark has the last word.
const textOf = (b, label) => {
  const { bytes } = b;
  const decoder = (name) => {
    try { return encodingUnit.get().newDecoder(name, undefined); } catch { return undefined; }
  };
  let d;
  if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) d = decoder("utf-8");
  else if (bytes[0] === 0xfe && bytes[1] === 0xff) d = decoder("utf-16be");
  else if (bytes[0] === 0xff && bytes[1] === 0xfe) d = decoder("utf-16le");
  else if (label !== undefined) d = decoder(label);
  if (d === undefined && b.type !== "") {
    const charset = mimeUnit.get().parseMime(b.type)?.get("charset");
    if (charset !== undefined) d = decoder(charset);
  }
  return (d ?? decoder("utf-8")).decode(bytes, false);
};

// startRead is https://w3c.github.io/FileAPI/#readOperation; make gives the result of a BlobState.
const startRead = (r, name, got, blob, make) => {
  needArgs(`FileReader.${name}`, got, 1);
  if (!isBlobObject(blob)) throw new TypeError(`FileReader.${name}: the argument is not a Blob.`);
  if (r.state === LOADING) throw newDOMException(`FileReader.${name}: the reader is busy with another read.`, "InvalidStateError");
  const b = blobUnit.get().blobState(blob), total = TypedArrayByteLength(b.bytes), round = ++r.round, frame = host.getContext();
  r.state = LOADING;
  r.result = r.error = null;
  const step = (f) => addTask(() => {
    if (r.round !== round || (frame !== undefined && frame.inv !== undefined && frame.inv.ended)) return;
    host.setContext(frame);
    f();
    host.setContext(undefined);
  }, undefined);
  step(() => tell(r, "loadstart", 0, total));
  if (total > 0) step(() => tell(r, "progress", total, total));
  step(() => {
    r.state = DONE;
    try { r.result = make(b); } catch (error) { r.error = newDOMException(`FileReader.${name}: ${error.message}`, "NotReadableError"); }
    tell(r, r.error === null ? "load" : "error", r.error === null ? total : 0, total);
  });
  step(() => tell(r, "loadend", total, total));
};

return { __proto__: null, FileReader, ProgressEvent };
