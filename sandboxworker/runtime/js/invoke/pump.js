// A body on its way out: the response, or the request of a subrequest.

const CHUNK_BYTES = 65536; // limits.DefaultWire().ChunkBytes
const WINDOW_BYTES = 262144; // limits.DefaultWire().Window

// sendHead answers with a Response. Small bodies go whole, with one host call; larger ones and streams
// go through a Pump. Throws if the response cannot be sent.
const sendHead = (inv, s) => {
  if (s.type === "error") throw new TypeError("The handler returned Response.error(), which cannot be sent to a client.");
  if (s.webSocket !== undefined) {
    socketUnit.get().couple(inv, s);
    return;
  }
  const b = s.body;
  if (b === null) {
    host.respond(inv.id, s.status, responseFlat(s), 0, undefined);
    inv.answered();
    return;
  }
  if (bodyUnusable(b)) {
    throw new TypeError("The handler returned a Response whose body was already used or is locked to a reader. " +
      "Return response.clone() or build a new Response.");
  }
  if (inv.method === "HEAD") { // the client gets no body; a stream is told so
    host.respond(inv.id, s.status, responseFlat(s), 0, undefined);
    if (b.kind === B_STREAM) markHandled(streamsUnit.get().readableStreamCancel(bodyStreamState(b), undefined));
    b.used = true;
    inv.answered();
    return;
  }
  if (b.stream === undefined && b.kind !== B_WIRE) {
    b.used = true;
    sendContent(inv, s, b.source);
    return;
  }
  const streams = streamsUnit.get();
  const stream = streams.readableState(bodyStream(b));
  const content = b.prefix === undefined ? contentOf(stream) : undefined;
  if (content !== undefined) {
    sendContent(inv, s, content);
    return;
  }
  const length = b.prefix === undefined ? streams.fixedLengthOf(stream) : undefined;
  const reader = streams.acquireDefaultReader(stream);
  host.respond(inv.id, s.status, length === undefined ? responseFlat(s) : flatWithLength(s, length), 2, undefined);
  inv.pump = new Pump(inv, reader);
  inv.pump.pending = b.prefix;
  inv.pump.run();
};

// sendContent answers with a string or bytes that are the whole body.
const sendContent = (inv, s, source) => {
  if (typeof source === "string") {
    if (source.length * 3 <= CHUNK_BYTES) {
      host.respond(inv.id, s.status, responseFlat(s), 1, source);
      inv.answered();
      return;
    }
    source = host.utf8Encode(source);
  }
  const length = TypedArrayByteLength(source);
  if (length <= CHUNK_BYTES) {
    host.respond(inv.id, s.status, responseFlat(s), 1, source);
    inv.answered();
    return;
  }
  host.respond(inv.id, s.status, flatWithLength(s, length), 2, undefined);
  inv.pump = new Pump(inv, undefined);
  inv.pump.pending = source;
  inv.pump.closing = true;
  inv.pump.run();
};

const flatWithLength = (s, length) => {
  const flat = responseFlat(s);
  return s.headers !== undefined && s.headers.has("content-length") ? flat : `${flat}content-length\n${length}\n`;
};

// Pump moves a body to the gateway within the stream's window. It reads from the tenant's stream only
// while there is room, which is the back-pressure the tenant sees.
class Pump {
  constructor(inv, reader) {
    this.inv = inv; // Invocation or Subrequest
    this.reader = reader; // reader state; undefined: only `pending`
    this.window = WINDOW_BYTES;
    this.pending = undefined; // bytes taken and not yet sent
    this.at = 0;
    this.closing = false; // nothing follows `pending`
    this.reading = false;
    this.running = false;
    this.stopped = false;
    // A byte stream has taken its chunks' buffers from everyone: their memory can be given back at
    // once instead of with the next collection.
    this.owned = reader !== undefined && streamsUnit.get().isByteStream(reader.stream);
  }
  // blocked says whether only the client's reading can move it on.
  get blocked() { return !this.stopped && this.window <= 0; }
  run() {
    if (this.running) return; // a chunk that came synchronously: the loop goes on
    this.running = true;
    try { this.loop(); } catch (error) { this.fail(error); } // the host's output was full
    this.running = false;
  }
  loop() {
    while (!this.stopped) {
      if (this.pending !== undefined && !this.flush()) break;
      if (this.closing) {
        this.stopped = true;
        host.end(this.inv.id);
        this.inv.answered();
        break;
      }
      if (this.reading || this.window <= 0) break;
      this.reading = true;
      streamsUnit.get().defaultReaderRead(this.reader, this);
    }
  }
  // flush sends what it may; true when nothing is left.
  flush() {
    const u8 = this.pending;
    const n = TypedArrayByteLength(u8);
    while (this.at < n) {
      if (this.window <= 0) return false;
      const end = MathMin(n, this.at + MathMin(CHUNK_BYTES, this.window));
      const left = host.chunk(this.inv.id, this.at === 0 && end === n ? u8 : subarrayU8(u8, this.at, end));
      this.window = typeof left === "number" ? left : this.window - (end - this.at);
      this.at = end;
    }
    this.pending = undefined;
    this.at = 0;
    if (this.owned) ArrayBufferTransfer(TypedArrayBuffer(u8), 0);
    return true;
  }
  grant(n) {
    this.window += n;
    this.run();
  }
  // stop ends it from our side; the tenant's stream is told why.
  stop(reason) {
    if (this.stopped) return;
    this.stopped = true;
    this.pending = undefined;
    const { reader } = this;
    if (reader === undefined || reader.stream === undefined) return;
    const streams = streamsUnit.get();
    markHandled(streams.readerCancel(reader, reason));
  }
  // The read request's side, called by the stream.
  chunk(c) {
    this.reading = false;
    if (this.stopped) return;
    if (!isBufferSource(c)) {
      const e = new TypeError(`The body's stream gave ${describeKind(c)} instead of bytes. Enqueue Uint8Arrays, ` +
        "or pipe text through a TextEncoderStream.");
      this.fail(e);
      if (this.reader.stream !== undefined) markHandled(streamsUnit.get().readerCancel(this.reader, e));
      return;
    }
    // The chunk stays the tenant's: what is not sent at once must be a copy.
    const u8 = bytesOf(c);
    if (TypedArrayByteLength(u8) > 0) {
      this.pending = u8;
      this.at = 0;
      let sent;
      try { sent = this.flush(); } catch (error) { this.fail(error); return; }
      if (!sent && !this.owned) { this.pending = TypedArraySliceU8(this.pending, this.at); this.at = 0; }
    }
    this.run();
  }
  close() {
    this.reading = false;
    this.closing = true;
    this.run();
  }
  error(e) {
    this.reading = false;
    if (!this.stopped) this.fail(e);
  }
  fail(e) {
    this.stopped = true;
    this.pending = undefined;
    this.inv.bodyFailed(e);
  }
}
bare(Pump);
