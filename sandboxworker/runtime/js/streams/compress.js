// CompressionStream and DecompressionStream (https://compression.spec.whatwg.org/). The host does the work in
// pieces; between them what compression remembers is here, on the tenant's account.

const { createTransform, transformEnqueue } = streamsUnit.get();

const PIECE_BYTES = 65536; // collected before the host is asked
const DICTIONARY_BYTES = 8192; // of what came before, as far as the host looks back
const compressionFormats = ["deflate", "deflate-raw", "gzip"];

const toFormatName = (v, what) => {
  const s = toDOMString(v);
  if (!ArrayIncludes(compressionFormats, s)) throw new TypeError(`${what}: the format '${StringSlice(s, 0, 40)}' is not supported.`);
  return s;
};
const toChunk = (v, what) => {
  if (!isBufferSource(v)) throw new TypeError(`${what}: the chunk is not an ArrayBuffer or a view on one.`);
  return copyBytes(v);
};
const fourBytes = (u8, at, n, big) => {
  for (let i = 0; i < 4; i++) u8[at + i] = (n >>> (8 * (big ? 3 - i : i))) & 255;
};
const gzipHead = () => {
  const out = new Uint8Array(10); // no name, no time
  out[0] = 0x1f;
  out[1] = 0x8b;
  out[2] = 8;
  out[9] = 255; // system unknown
  return out;
};
const zlibHead = () => {
  const out = new Uint8Array(2);
  out[0] = 0x78;
  out[1] = 0x9c;
  return out;
};
const failure = (what) => (message) => new TypeError(`${what}: ${message}.`);

class Compressor {
  constructor(format) {
    this.format = format;
    this.parts = []; // collected
    this.total = 0;
    this.size = 0; // of all input, modulo 2^32
    this.checksum = format === "deflate" ? 1 : 0;
    this.dictionary = new Uint8Array(0);
    this.begun = false;
  }
  // piece compresses what is collected; gives a promise.
  piece(c, last) {
    const dict = this.dictionary, n = TypedArrayLength(dict);
    const data = new Uint8Array(n + this.total);
    TypedArraySet(data, dict);
    for (let i = 0, at = n; i < this.parts.length; i++) {
      TypedArraySet(data, this.parts[i], at);
      at += TypedArrayLength(this.parts[i]);
    }
    this.parts = [];
    this.total = 0;
    this.dictionary = TypedArraySliceU8(data, MathMax(0, TypedArrayLength(data) - DICTIONARY_BYTES));
    this.size = (this.size + TypedArrayLength(data) - n) >>> 0;
    if (!this.begun) {
      this.begun = true;
      if (this.format === "gzip") transformEnqueue(c, gzipHead());
      if (this.format === "deflate") transformEnqueue(c, zlibHead());
    }
    return PromiseThen(startOp(OP_DEFLATE, `${this.format} ${this.checksum} ${last ? 1 : 0} ${n}`, data, failure("CompressionStream")), (r) => {
      this.checksum = +r.meta;
      if (r.data !== undefined) transformEnqueue(c, r.data);
      if (!last || this.format === "deflate-raw") return;
      const tail = new Uint8Array(this.format === "gzip" ? 8 : 4);
      fourBytes(tail, 0, this.checksum, this.format === "deflate");
      if (this.format === "gzip") fourBytes(tail, 4, this.size, false);
      transformEnqueue(c, tail);
    });
  }
}
bare(Compressor);

class CompressionStream {
  #t;
  constructor(format) {
    needArgs("CompressionStream constructor", arguments.length, 1);
    const z = new Compressor(toFormatName(format, "CompressionStream"));
    this.#t = createTransform((chunk, c) => {
      const u8 = toChunk(chunk, "CompressionStream");
      ArrayPush(z.parts, u8);
      z.total += TypedArrayLength(u8);
      return z.total < PIECE_BYTES ? undefined : z.piece(c, false);
    }, (c) => z.piece(c, true), undefined);
  }
  get readable() { return this.#t.readable.wrapper; }
  get writable() { return this.#t.writable.wrapper; }
}
defineInterface(CompressionStream, "CompressionStream");

// whenRoom goes on when the reader has taken what there was; gives a promise.
const whenRoom = (t, f) => (t.backpressure ? PromiseThen(t.change.promise, () => whenRoom(t, f)) : f());

let lastInflater = 0;
const inflateStep = (id, format, verb, data) => startOp(OP_INFLATE, `${id} ${format} ${verb}`, data, failure("DecompressionStream"));

class DecompressionStream {
  #t;
  constructor(format) {
    needArgs("DecompressionStream constructor", arguments.length, 1);
    const name = toFormatName(format, "DecompressionStream");
    const id = ++lastInflater;
    let begun = false, complete = false;
    // run feeds the host and passes on what comes, piece by piece, as fast as the reader takes it.
    const run = (t, c, verb, data) => {
      begun = true;
      return PromiseThen(inflateStep(id, name, verb, data), (r) => {
        if (r.meta === "done") complete = true;
        if (r.data !== undefined) transformEnqueue(c, r.data);
        if (r.meta !== "more") return undefined;
        return whenRoom(t, () => run(t, c, verb === "in" ? "more" : verb, undefined));
      });
    };
    const t = this.#t = createTransform((chunk, c) => {
      const u8 = toChunk(chunk, "DecompressionStream");
      if (TypedArrayLength(u8) === 0) return undefined;
      if (complete) throw failure("DecompressionStream")("there is data behind the end of the compressed data");
      return run(t, c, "in", u8);
    }, (c) => run(t, c, "end", undefined), () => {
      if (begun) markHandled(inflateStep(id, name, "close", undefined));
    });
  }
  get readable() { return this.#t.readable.wrapper; }
  get writable() { return this.#t.writable.wrapper; }
}
defineInterface(DecompressionStream, "DecompressionStream");

return { __proto__: null, CompressionStream, DecompressionStream };
