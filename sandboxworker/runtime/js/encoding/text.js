// TextEncoder and TextDecoder (https://encoding.spec.whatwg.org/#api).
//
// Here are utf-8, utf-16le, utf-16be and windows-1252 (which is what the labels "latin1" and "ascii" mean
// on the web); the others are in legacy.js, for those who ask.

const labels = {
  __proto__: null,
  "unicode-1-1-utf-8": "utf-8", "unicode11utf8": "utf-8", "unicode20utf8": "utf-8", "utf-8": "utf-8",
  "utf8": "utf-8", "x-unicode20utf8": "utf-8",
  "csunicode": "utf-16le", "iso-10646-ucs-2": "utf-16le", "ucs-2": "utf-16le", "unicode": "utf-16le",
  "unicodefeff": "utf-16le", "utf-16": "utf-16le", "utf-16le": "utf-16le",
  "unicodefffe": "utf-16be", "utf-16be": "utf-16be",
  "ansi_x3.4-1968": "windows-1252", "ascii": "windows-1252", "cp1252": "windows-1252", "cp819": "windows-1252",
  "csisolatin1": "windows-1252", "ibm819": "windows-1252", "iso-8859-1": "windows-1252", "iso-ir-100": "windows-1252",
  "iso8859-1": "windows-1252", "iso88591": "windows-1252", "iso_8859-1": "windows-1252",
  "iso_8859-1:1987": "windows-1252", "l1": "windows-1252", "latin1": "windows-1252", "us-ascii": "windows-1252",
  "windows-1252": "windows-1252", "x-cp1252": "windows-1252",
};

// windows-1252 differs from latin1 in 0x80 to 0x9F (https://encoding.spec.whatwg.org/index-windows-1252.txt).
const c1252 = "\u20AC\x81\u201A\u0192\u201E\u2026\u2020\u2021\u02C6\u2030\u0160\u2039\u0152\x8D\u017D\x8F" +
  "\x90\u2018\u2019\u201C\u201D\u2022\u2013\u2014\u02DC\u2122\u0161\u203A\u0153\x9D\u017E\u0178";

const asciiTrim = (s) => {
  let a = 0, b = s.length;
  const blank = (c) => c === 9 || c === 10 || c === 12 || c === 13 || c === 32;
  while (a < b && blank(StringCharCodeAt(s, a))) a++;
  while (b > a && blank(StringCharCodeAt(s, b - 1))) b--;
  return StringSlice(s, a, b);
};

class TextEncoder {
  #brand;
  constructor() {}
  get encoding() { void this.#brand; return "utf-8"; }
  encode(input = "") {
    void this.#brand;
    return host.utf8Encode(toDOMString(input));
  }
  encodeInto(source, destination) {
    void this.#brand;
    needArgs("TextEncoder.encodeInto", arguments.length, 2);
    const s = toDOMString(source);
    if (!isUint8Array(destination)) throw new TypeError("TextEncoder.encodeInto: destination is not a Uint8Array.");
    const r = host.utf8EncodeInto(s, destination);
    if (typeof r === "number") return { read: MathFloor(r / 4294967296), written: r % 4294967296 };
    return { read: r[0], written: r[1] };
  }
}
defineInterface(TextEncoder, "TextEncoder");

// incompleteTail says how many bytes at the end of u8 begin a UTF-8 sequence that more bytes could
// complete (https://encoding.spec.whatwg.org/#utf-8-decoder gives the bounds of the second byte).
const incompleteTail = (u8) => {
  const n = TypedArrayLength(u8);
  for (let back = 1; back <= 3 && back <= n; back++) {
    const lead = u8[n - back];
    if (lead < 0x80) return 0;
    if (lead < 0xc0) continue;
    const need = lead >= 0xc2 && lead <= 0xdf ? 2 : lead >= 0xe0 && lead <= 0xef ? 3 : lead >= 0xf0 && lead <= 0xf4 ? 4 : 0;
    if (need <= back) return 0;
    if (back > 1) {
      const second = u8[n - back + 1];
      if ((lead === 0xe0 && second < 0xa0) || (lead === 0xed && second > 0x9f) ||
        (lead === 0xf0 && second < 0x90) || (lead === 0xf4 && second > 0x8f)) return 0;
    }
    return back;
  }
  return 0;
};

// DecoderState decodes a stream of chunks. It is used by TextDecoder and TextDecoderStream.
class DecoderState {
  constructor(encoding, fatal, ignoreBOM) {
    this.encoding = encoding;
    this.fatal = fatal;
    this.ignoreBOM = ignoreBOM;
    this.rest = undefined; // bytes of an unfinished character
    this.bomDone = false; // something was already output (or the mark removed)
    this.high = 0; // a high surrogate awaiting its partner (utf-16)
    this.legacy = undefined; // LegacyDecoder
  }
  reset() {
    this.rest = undefined;
    this.bomDone = false;
    this.high = 0;
    if (this.legacy !== undefined) this.legacy.reset();
  }
  decode(u8, stream) {
    let out;
    try {
      out = this.encoding === "utf-8" ? this.utf8(u8, stream) : this.legacy !== undefined ? this.old(u8, stream)
        : this.encoding === "windows-1252" ? this.windows1252(u8) : this.utf16(u8, stream);
    } catch (error) {
      this.reset();
      throw error;
    }
    if (!this.bomDone && out.length > 0 && this.encoding !== "windows-1252" && this.legacy === undefined) {
      this.bomDone = true;
      if (!this.ignoreBOM && StringCharCodeAt(out, 0) === 0xfeff) out = StringSlice(out, 1);
    }
    if (!stream) this.reset();
    return out;
  }
  take(u8) {
    if (this.rest === undefined) return u8;
    const all = concatBytes([this.rest, u8], TypedArrayLength(this.rest) + TypedArrayLength(u8));
    this.rest = undefined;
    return all;
  }
  utf8(u8, stream) {
    let all = this.take(u8);
    if (stream) {
      const tail = incompleteTail(all);
      if (tail > 0) {
        const cut = TypedArrayLength(all) - tail;
        this.rest = TypedArraySliceU8(all, cut);
        all = subarrayU8(all, 0, cut);
      }
    }
    return TypedArrayLength(all) === 0 ? "" : host.utf8Decode(all, this.fatal, true);
  }
  windows1252(u8) {
    const s = host.latin1Decode(u8);
    let out = "", from = 0;
    for (let i = 0; i < s.length; i++) {
      const c = StringCharCodeAt(s, i);
      if (c >= 0x80 && c <= 0x9f) {
        out += StringSlice(s, from, i) + c1252[c - 0x80];
        from = i + 1;
      }
    }
    return from === 0 ? s : out + StringSlice(s, from);
  }
  old(u8, stream) {
    const s = this.legacy.decode(u8, stream, this.fatal);
    return s === undefined ? this.bad() : s;
  }
  bad() {
    if (this.fatal) throw new TypeError(`The encoded data was not valid for encoding ${this.encoding}`);
    return "\uFFFD";
  }
  utf16(u8, stream) {
    const all = this.take(u8);
    const n = TypedArrayLength(all), be = this.encoding === "utf-16be";
    let out = "";
    let i = 0;
    for (; i + 1 < n; i += 2) {
      const c = be ? (all[i] << 8) | all[i + 1] : all[i] | (all[i + 1] << 8);
      if (this.high !== 0) {
        const high = this.high;
        this.high = 0;
        if (c >= 0xdc00 && c <= 0xdfff) { out += StringFromCharCode(high, c); continue; }
        out += this.bad();
      }
      if (c >= 0xd800 && c <= 0xdbff) this.high = c;
      else out += c >= 0xdc00 && c <= 0xdfff ? this.bad() : StringFromCharCode(c);
    }
    if (stream) {
      if (i < n) this.rest = TypedArraySliceU8(all, i);
    } else if (i < n || this.high !== 0) {
      this.high = 0;
      out += this.bad();
    }
    return out;
  }
}
bare(DecoderState);

const newDecoder = (label, options) => {
  const wanted = StringToLowerCase(asciiTrim(toDOMString(label)));
  let encoding = labels[wanted], old = false;
  if (encoding === undefined) {
    encoding = legacyUnit.get().legacyLabel(wanted);
    if (encoding === "replacement") encoding = undefined; // decoders refuse it
    old = true;
  }
  const d = toDictionary(options, "TextDecoder options");
  const fatal = !!d.fatal, ignoreBOM = !!d.ignoreBOM;
  if (encoding === undefined) throw new RangeError(`TextDecoder: the encoding '${toDOMString(label)}' is not supported.`);
  const state = new DecoderState(encoding, fatal, ignoreBOM);
  if (old) state.legacy = new (legacyUnit.get().LegacyDecoder)(encoding);
  return state;
};

class TextDecoder {
  #d;
  #streaming = false;
  constructor(label = "utf-8", options = undefined) { this.#d = newDecoder(label, options); }
  get encoding() { return this.#d.encoding; }
  get fatal() { return this.#d.fatal; }
  get ignoreBOM() { return this.#d.ignoreBOM; }
  decode(input = undefined, options = undefined) {
    const d = this.#d;
    const u8 = input === undefined ? new Uint8Array(0) : bytesOf(input);
    const stream = !!toDictionary(options, "TextDecoder.decode options").stream;
    if (!this.#streaming) {
      if (!stream && d.encoding === "utf-8") return host.utf8Decode(u8, d.fatal, d.ignoreBOM); // all at once
      d.reset();
    }
    this.#streaming = stream;
    return d.decode(u8, stream);
  }
}
defineInterface(TextDecoder, "TextDecoder");

return { __proto__: null, TextEncoder, TextDecoder, DecoderState, newDecoder };
