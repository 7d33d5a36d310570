// Bodies (https://fetch.spec.whatwg.org/#bodies): what Request and Response have in common.
//
// A body is kept as what it was given (a string, bytes, a Blob, the wire) until someone asks for a
// stream. Most are never streamed, and a string goes to the wire as it is.

const B_STRING = 0, B_BYTES = 1, B_WIRE = 2, B_STREAM = 3;

class Body {
  constructor(kind, source) {
    this.kind = kind;
    this.source = source; // string, Uint8Array, WireBody; undefined for B_STREAM
    this.stream = undefined; // ReadableStream, once asked for
    this.used = false; // consumed without a stream
    this.prefix = undefined; // bytes that go to the wire before those of the stream
  }
}
bare(Body);

const bodyStreamState = (b) => (b.stream === undefined ? undefined : streamsUnit.get().readableState(b.stream));
const bodyDisturbed = (b) => b.used || (b.stream !== undefined && bodyStreamState(b).disturbed);
const bodyUnusable = (b) => b.used || (b.stream !== undefined && (bodyStreamState(b).disturbed || bodyStreamState(b).reader !== undefined));

const isStreamObject = (v) => streamsUnit.loaded && streamsUnit.get().isReadableStream(v);
const isBlobObject = (v) => blobUnit.loaded && blobUnit.get().isBlob(v);
const isFormDataObject = (v) => blobUnit.loaded && blobUnit.get().isFormData(v);
const isParamsObject = (v) => urlUnit.loaded && urlUnit.get().isParams(v);

// extractBody gives the body of a BodyInit and sets `extractedType` to the content type that comes
// with it, or null (https://fetch.spec.whatwg.org/#concept-bodyinit-extract).
let extractedType = null;
const extractBody = (v) => {
  extractedType = null;
  if (typeof v === "string") {
    extractedType = "text/plain;charset=UTF-8";
    return new Body(B_STRING, checkReadable(v));
  }
  if (isObject(v)) {
    if (isStreamObject(v)) {
      const s = streamsUnit.get().readableState(v);
      if (s.disturbed || s.reader !== undefined) {
        throw new TypeError("The body is a ReadableStream that was already read from or is locked to a reader.");
      }
      const b = new Body(B_STREAM, undefined);
      b.stream = v;
      return b;
    }
    if (isBufferSource(v)) return new Body(B_BYTES, copyBytes(v));
    if (isBlobObject(v)) {
      const { type, bytes } = blobUnit.get().blobState(v);
      if (type !== "") extractedType = type;
      return new Body(B_BYTES, bytes);
    }
    if (isParamsObject(v)) {
      extractedType = "application/x-www-form-urlencoded;charset=UTF-8";
      const { serializeForm, paramsState } = urlUnit.get();
      return new Body(B_STRING, serializeForm(paramsState(v).list));
    }
    if (isFormDataObject(v)) {
      const { bytes, type } = blobUnit.get().serializeMultipart(v);
      extractedType = type;
      return new Body(B_BYTES, bytes);
    }
  }
  extractedType = "text/plain;charset=UTF-8";
  return new Body(B_STRING, toUSVString(v));
};

// sourceBytes gives the bytes of a string or bytes body. They may be shared with a clone: never write.
const sourceBytes = (b) => (b.kind === B_STRING ? host.utf8Encode(b.source) : b.source);

const STREAM_CHUNK = 65536;
const bodyStream = (b) => {
  if (b.stream !== undefined) return b.stream;
  const streams = streamsUnit.get();
  let s;
  if (b.used) {
    s = streams.createByteStream(undefined, undefined, undefined);
    s.disturbed = true;
    streams.byteControllerClose(s.controller);
  } else if (b.kind === B_WIRE) {
    s = b.source.toStream();
  } else {
    const { source } = b; // b may become another one's before somebody reads; most often nobody does, see contentOf
    let bytes, n = 0, at = 0;
    s = streams.createByteStream(undefined, () => {
      if (bytes === undefined) {
        bytes = typeof source === "string" ? host.utf8Encode(source) : source;
        n = TypedArrayByteLength(bytes);
      }
      if (at < n) {
        const end = MathMin(n, at + STREAM_CHUNK);
        streams.byteControllerEnqueue(s.controller, TypedArraySliceU8(bytes, at, end));
        at = end;
      }
      if (at >= n) closeByteStream(s);
      return PromiseResolve(undefined);
    }, undefined);
    if ((typeof source === "string" ? source.length : TypedArrayByteLength(source)) === 0) streams.byteControllerClose(s.controller);
    else s.content = source;
  }
  b.stream = s.wrapper;
  return b.stream;
};
// contentOf gives the string or the bytes that a body's stream is all of, and takes them out of it, if it was
// made of them and nobody has read it: what `new Response(response.body, response)` leads to. Else undefined.
// Nobody holds a reader.
const contentOf = (stream) => {
  const { content } = stream;
  if (content === undefined || stream.disturbed) return undefined;
  const streams = streamsUnit.get();
  stream.disturbed = true;
  streams.acquireDefaultReader(stream);
  streams.byteControllerClose(stream.controller);
  return content;
};
const closeByteStream = (s) => {
  const streams = streamsUnit.get();
  streams.byteControllerClose(s.controller);
  if (s.controller.pendingPullIntos.length > 0) streams.byteControllerRespond(s.controller, 0);
};

// cloneBody tees: both bodies give the same bytes (https://fetch.spec.whatwg.org/#concept-body-clone).
const cloneBody = (b) => {
  if (b.stream === undefined && (b.kind === B_STRING || b.kind === B_BYTES)) return new Body(b.kind, b.source);
  const streams = streamsUnit.get();
  const { a, b: second } = streams.readableStreamTee(streams.readableState(bodyStream(b)), true);
  const copy = new Body(B_STREAM, undefined);
  copy.stream = second.wrapper;
  const length = streams.fixedLengthOf(bodyStreamState(b));
  b.kind = B_STREAM;
  b.source = undefined;
  b.stream = a.wrapper;
  if (length !== undefined) { streams.setFixedLength(a, length); streams.setFixedLength(second, length); }
  return copy;
};

// moveBody makes another body of b's content and leaves b used: `new Request(request)`.
const moveBody = (b) => {
  const moved = new Body(b.kind, b.source);
  if (b.stream !== undefined) {
    moved.kind = B_STREAM;
    moved.source = undefined;
    moved.stream = streamsUnit.get().proxyStream(bodyStreamState(b)).wrapper;
    return moved;
  }
  b.used = true;
  return moved;
};

// A reader of a whole stream of byte chunks.
class Collector {
  constructor(reader, d) { this.reader = reader; this.d = d; this.parts = []; this.total = 0; this.sync = false; this.more = false; }
  run() { // a loop, not recursion: chunks that are there come synchronously
    this.sync = true;
    do {
      this.more = false;
      streamsUnit.get().defaultReaderRead(this.reader, this);
    } while (this.more);
    this.sync = false;
  }
  chunk(c) {
    if (!isUint8Array(c)) {
      const e = new TypeError("The body's stream gave a chunk that is not a Uint8Array.");
      this.d.reject(e);
      markHandled(streamsUnit.get().readerCancel(this.reader, e));
      return;
    }
    ArrayPush(this.parts, c);
    this.total += TypedArrayByteLength(c);
    if (this.sync) this.more = true; else this.run();
  }
  close() { this.d.resolve(this.parts.length === 0 ? new Uint8Array(0) : concatBytes(this.parts, this.total)); }
  error(e) { this.d.reject(e); }
}
bare(Collector);

// readBody gives a promise of all bytes, or the bytes, or the string of a body, and marks it used.
const readBody = (b) => {
  if (b.stream === undefined) {
    b.used = true;
    if (b.kind === B_STRING) return b.source;
    if (b.kind === B_BYTES) return b.source;
    return b.source.readAll();
  }
  const d = deferred();
  const reader = streamsUnit.get().acquireDefaultReader(bodyStreamState(b));
  new Collector(reader, d).run();
  return d.promise;
};

const stripBOM = (s) => (StringCharCodeAt(s, 0) === 0xfeff ? StringSlice(s, 1) : s);
const asText = (v) => (typeof v === "string" ? stripBOM(StringToWellFormed(v)) : host.utf8Decode(v, false, false));
const asOwnBytes = (v) => (typeof v === "string" ? host.utf8Encode(v) : copyBytes(v));
const converters = ObjectFreeze({
  __proto__: null,
  text: asText,
  json: (v) => JSONParse(asText(v)),
  arrayBuffer: (v) => TypedArrayBuffer(asOwnBytes(v)),
  bytes: asOwnBytes,
  blob: (v, type) => {
    const mime = type === "" ? undefined : mimeUnit.get().extractMime(type);
    return blobUnit.get().typedBlob(asOwnBytes(v), mime === undefined ? "" : mimeUnit.get().serializeMime(mime));
  },
  formData: (v, type) => blobUnit.get().parseFormData(typeof v === "string" ? host.utf8Encode(v) : v, type),
});

// consumeBody is https://fetch.spec.whatwg.org/#concept-body-consume-body; contentType is asked for
// only where it matters.
const consumeBody = (b, kind, contentType) => {
  if (b === null) {
    return new Promise((resolve) => resolve(converters[kind]("", kind === "blob" || kind === "formData" ? contentType() : "")));
  }
  if (bodyUnusable(b)) return PromiseReject(new TypeError("Body has already been used. It can only be used once. Use clone() first if you need it twice."));
  const type = kind === "blob" || kind === "formData" ? contentType() : "";
  const content = readBody(b);
  const convert = converters[kind];
  if (typeof content === "string" || TypedArrayTag(content) !== undefined) {
    return new Promise((resolve) => resolve(convert(content, type)));
  }
  return PromiseThen(content, (v) => convert(v, type));
};

// bodyMixin adds the Body mixin to a class. bodyOf(this) returns a Body or null and throws on a
// foreign this; typeOf gives the content type.
const bodyMixin = (C, bodyOf, typeOf) => {
  const consume = (self, kind) => {
    let b;
    try { b = bodyOf(self); } catch { return PromiseReject(illegalInvocation()); }
    return consumeBody(b, kind, () => typeOf(self));
  };
  const members = {
    get body() { const b = bodyOf(this); return b === null ? null : bodyStream(b); },
    get bodyUsed() { const b = bodyOf(this); return b !== null && bodyDisturbed(b); },
    arrayBuffer() { return consume(this, "arrayBuffer"); },
    blob() { return consume(this, "blob"); },
    bytes() { return consume(this, "bytes"); },
    formData() { return consume(this, "formData"); },
    json() { return consume(this, "json"); },
    text() { return consume(this, "text"); },
  };
  const keys = ReflectOwnKeys(members);
  for (let i = 0; i < keys.length; i++) {
    ObjectDefineProperty(C.prototype, keys[i], ObjectGetOwnPropertyDescriptor(members, keys[i]));
  }
};
