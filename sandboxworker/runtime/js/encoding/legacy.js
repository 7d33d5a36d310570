// The encodings of the web's past (https://encoding.spec.whatwg.org/#legacy-single-byte-encodings and what
// follows there). The indexes are the host's; an isolate copies those it decodes with.

const DATA_SINGLE = 0, DATA_GB = 1, DATA_GB_RANGES = 2, DATA_BIG5 = 3, DATA_0208 = 4, DATA_0212 = 5, DATA_EUCKR = 6; // encodings.go

// Encoding, then its labels, as https://encoding.spec.whatwg.org/#names-and-labels lists them. The first 26
// are the single-byte ones, in the order of the host's data.
const legacyNames = [
  "ibm866 866 cp866 csibm866 ibm866", "iso-8859-2 csisolatin2 iso-8859-2 iso-ir-101 iso8859-2 iso88592 iso_8859-2 iso_8859-2:1987 l2 latin2",
  "iso-8859-3 csisolatin3 iso-8859-3 iso-ir-109 iso8859-3 iso88593 iso_8859-3 iso_8859-3:1988 l3 latin3",
  "iso-8859-4 csisolatin4 iso-8859-4 iso-ir-110 iso8859-4 iso88594 iso_8859-4 iso_8859-4:1988 l4 latin4",
  "iso-8859-5 csisolatincyrillic cyrillic iso-8859-5 iso-ir-144 iso8859-5 iso88595 iso_8859-5 iso_8859-5:1988",
  "iso-8859-6 arabic asmo-708 csiso88596e csiso88596i csisolatinarabic ecma-114 iso-8859-6 iso-8859-6-e iso-8859-6-i iso-ir-127 iso8859-6 iso88596 iso_8859-6 iso_8859-6:1987",
  "iso-8859-7 csisolatingreek ecma-118 elot_928 greek greek8 iso-8859-7 iso-ir-126 iso8859-7 iso88597 iso_8859-7 iso_8859-7:1987 sun_eu_greek",
  "iso-8859-8 csiso88598e csisolatinhebrew hebrew iso-8859-8 iso-8859-8-e iso-ir-138 iso8859-8 iso88598 iso_8859-8 iso_8859-8:1988 visual",
  "iso-8859-10 csisolatin6 iso-8859-10 iso-ir-157 iso8859-10 iso885910 l6 latin6", "iso-8859-13 iso-8859-13 iso8859-13 iso885913",
  "iso-8859-14 iso-8859-14 iso8859-14 iso885914", "iso-8859-15 csisolatin9 iso-8859-15 iso8859-15 iso885915 iso_8859-15 l9",
  "iso-8859-16 iso-8859-16", "koi8-r cskoi8r koi koi8 koi8-r koi8_r", "koi8-u koi8-ru koi8-u", "macintosh csmacintosh mac macintosh x-mac-roman",
  "windows-874 dos-874 iso-8859-11 iso8859-11 iso885911 tis-620 windows-874", "windows-1250 cp1250 windows-1250 x-cp1250",
  "windows-1251 cp1251 windows-1251 x-cp1251", "windows-1253 cp1253 windows-1253 x-cp1253",
  "windows-1254 cp1254 csisolatin5 iso-8859-9 iso-ir-148 iso8859-9 iso88599 iso_8859-9 iso_8859-9:1989 l5 latin5 windows-1254 x-cp1254",
  "windows-1255 cp1255 windows-1255 x-cp1255", "windows-1256 cp1256 windows-1256 x-cp1256", "windows-1257 cp1257 windows-1257 x-cp1257",
  "windows-1258 cp1258 windows-1258 x-cp1258", "x-mac-cyrillic x-mac-cyrillic x-mac-ukrainian",
  "iso-8859-8-i csiso88598i iso-8859-8-i logical", "gbk chinese csgb2312 csiso58gb231280 gb2312 gb_2312 gb_2312-80 gbk iso-ir-58 x-gbk",
  "gb18030 gb18030", "big5 big5 big5-hkscs cn-big5 csbig5 x-x-big5", "euc-jp cseucpkdfmtjapanese euc-jp x-euc-jp",
  "iso-2022-jp csiso2022jp iso-2022-jp", "shift_jis csshiftjis ms932 ms_kanji shift-jis shift_jis sjis windows-31j x-sjis",
  "euc-kr cseuckr csksc56011987 euc-kr iso-ir-149 korean ks_c_5601-1987 ks_c_5601-1989 ksc5601 ksc_5601 windows-949",
  "replacement csiso2022kr hz-gb-2312 iso-2022-cn iso-2022-cn-ext iso-2022-kr replacement", "x-user-defined x-user-defined",
];
const SINGLE_BYTE = 26;

let legacyLabels; // label -> index into legacyNames
const legacyLabel = (label) => {
  if (legacyLabels === undefined) {
    legacyLabels = new SafeMap();
    for (let i = 0; i < legacyNames.length; i++) {
      const s = legacyNames[i];
      for (let at = StringIndexOf(s, " ") + 1; at > 0 && at < s.length;) {
        let end = StringIndexOf(s, " ", at);
        if (end < 0) end = s.length;
        legacyLabels.set(StringSlice(s, at, end), i);
        at = end + 1;
      }
    }
  }
  const i = legacyLabels.get(label);
  return i === undefined ? undefined : StringSlice(legacyNames[i], 0, StringIndexOf(legacyNames[i], " "));
};
const legacyIndex = (name) => legacyLabels.get(name);

const indexes = new SafeMap();
const dataIndex = (n, wide) => {
  let a = indexes.get(n);
  if (a === undefined) {
    const buffer = TypedArrayBuffer(host.data(n));
    a = wide ? new Uint32Array(buffer) : new Uint16Array(buffer);
    indexes.set(n, a);
  }
  return a;
};

// What a decoder's step gives besides a code point.
const MORE = -1, ERROR = -2, FINISHED = -3;
const EOF = -1;

// Each decoder is a class with step(byte): it may put bytes back with d.back, the last one first.
class Single {
  constructor(table) { this.table = table; }
  step(b) {
    if (b === EOF) return FINISHED;
    if (b < 0x80) return b;
    const c = this.table[b - 0x80];
    return c === 0xfffd ? ERROR : c;
  }
}
class UserDefined {
  step(b) { return b === EOF ? FINISHED : b < 0x80 ? b : 0xf700 + b; }
}
class Replacement {
  constructor() { this.said = false; }
  step(b) {
    if (b === EOF || this.said) return FINISHED;
    this.said = true;
    return ERROR;
  }
}

const gbPoint = (pointer) => {
  if ((pointer > 39419 && pointer < 189000) || pointer > 1237575) return undefined;
  if (pointer === 7457) return 0xe7c7;
  const ranges = dataIndex(DATA_GB_RANGES, true);
  let a = 0, b = TypedArrayLength(ranges) / 2 - 1;
  while (a < b) {
    const m = (a + b + 1) >> 1;
    if (ranges[2 * m] <= pointer) a = m; else b = m - 1;
  }
  return ranges[2 * a + 1] + pointer - ranges[2 * a];
};
class GB18030 {
  constructor(d) { this.d = d; this.first = this.second = this.third = 0; }
  step(b) {
    const { d, first, second, third } = this;
    if (b === EOF) {
      this.first = this.second = this.third = 0;
      return first === 0 ? FINISHED : ERROR;
    }
    if (third !== 0) {
      this.first = this.second = this.third = 0;
      if (b < 0x30 || b > 0x39) { d.back(b, third, second); return ERROR; }
      return gbPoint((first - 0x81) * 12600 + (second - 0x30) * 1260 + (third - 0x81) * 10 + b - 0x30) ?? ERROR;
    }
    if (second !== 0) {
      if (b >= 0x81 && b <= 0xfe) { this.third = b; return MORE; }
      this.first = this.second = 0;
      d.back(b, second);
      return ERROR;
    }
    if (first !== 0) {
      if (b >= 0x30 && b <= 0x39) { this.second = b; return MORE; }
      this.first = 0;
      if ((b >= 0x40 && b <= 0x7e) || (b >= 0x80 && b <= 0xfe)) {
        const c = dataIndex(DATA_GB)[(first - 0x81) * 190 + b - (b < 0x7f ? 0x40 : 0x41)];
        if (c !== 0 && c !== undefined) return c;
      }
      if (b < 0x80) d.back(b);
      return ERROR;
    }
    if (b < 0x80) return b;
    if (b === 0x80) return 0x20ac;
    if (b === 0xff) return ERROR;
    this.first = b;
    return MORE;
  }
}

// The decoders of two bytes a character: point(lead, byte) is a code point, or 0 for none.
class Double {
  constructor(d) { this.d = d; this.lead = 0; }
  step(b) {
    const { lead } = this;
    if (b === EOF) { this.lead = 0; return lead === 0 ? FINISHED : ERROR; }
    if (lead !== 0) {
      this.lead = 0;
      const c = this.point(lead, b);
      if (c !== 0 && c !== undefined) return c;
      if (b < 0x80) this.d.back(b);
      return ERROR;
    }
    return this.single(b);
  }
  single(b) {
    if (b < 0x80) return b;
    if (b < 0x81 || b > 0xfe) return ERROR;
    this.lead = b;
    return MORE;
  }
}
class EUCKR extends Double {
  point(lead, b) { return b >= 0x41 && b <= 0xfe ? dataIndex(DATA_EUCKR)[(lead - 0x81) * 190 + b - 0x41] : 0; }
}
class Big5 extends Double {
  point(lead, b) {
    if (!((b >= 0x40 && b <= 0x7e) || (b >= 0xa1 && b <= 0xfe))) return 0;
    const pointer = (lead - 0x81) * 157 + b - (b < 0x7f ? 0x40 : 0x62);
    // Four letters with a mark that no code point holds together.
    if (pointer === 1133 || pointer === 1135) return this.d.pair(0xca, pointer === 1133 ? 0x304 : 0x30c);
    if (pointer === 1164 || pointer === 1166) return this.d.pair(0xea, pointer === 1164 ? 0x304 : 0x30c);
    return dataIndex(DATA_BIG5, true)[pointer];
  }
}
class ShiftJIS extends Double {
  point(lead, b) {
    if (!((b >= 0x40 && b <= 0x7e) || (b >= 0x80 && b <= 0xfc))) return 0;
    const pointer = (lead - (lead < 0xa0 ? 0x81 : 0xc1)) * 188 + b - (b < 0x7f ? 0x40 : 0x41);
    return pointer >= 8836 && pointer <= 10715 ? 0xe000 - 8836 + pointer : dataIndex(DATA_0208)[pointer];
  }
  single(b) {
    if (b <= 0x80) return b;
    if (b >= 0xa1 && b <= 0xdf) return 0xff61 - 0xa1 + b;
    if (b === 0xa0 || b > 0xfc) return ERROR;
    this.lead = b;
    return MORE;
  }
}
const jis0208 = (a, b) => dataIndex(DATA_0208)[(a - 0x21) * 94 + b - 0x21];
class EUCJP extends Double {
  constructor(d) { super(d); this.more = false; }
  step(b) {
    const { lead } = this;
    if (lead === 0x8e && b >= 0xa1 && b <= 0xdf) { this.lead = 0; return 0xff61 - 0xa1 + b; }
    if (lead === 0x8f && b >= 0xa1 && b <= 0xfe) { this.more = true; this.lead = b; return MORE; }
    return super.step(b);
  }
  point(lead, b) {
    const { more } = this;
    this.more = false;
    if (lead < 0xa1 || lead > 0xfe || b < 0xa1 || b > 0xfe) return 0;
    return more ? dataIndex(DATA_0212)[(lead - 0xa1) * 94 + b - 0xa1] : jis0208(lead - 0x80, b - 0x80);
  }
  single(b) {
    if (b < 0x80) return b;
    if (b !== 0x8e && b !== 0x8f && (b < 0xa1 || b > 0xfe)) return ERROR;
    this.lead = b;
    return MORE;
  }
}

const JP_ASCII = 0, JP_ROMAN = 1, JP_KATAKANA = 2, JP_LEAD = 3, JP_TRAIL = 4, JP_START = 5, JP_ESCAPE = 6;
class ISO2022JP {
  constructor(d) { this.d = d; this.state = this.outState = JP_ASCII; this.lead = 0; this.output = false; }
  step(b) {
    const { state } = this;
    if (state === JP_START) {
      if (b === 0x24 || b === 0x28) { this.lead = b; this.state = JP_ESCAPE; return MORE; }
      if (b !== EOF) this.d.back(b);
      return this.bad();
    }
    if (state === JP_ESCAPE) {
      const l = this.lead;
      this.lead = 0;
      const to = l === 0x28 ? (b === 0x42 ? JP_ASCII : b === 0x4a ? JP_ROMAN : b === 0x49 ? JP_KATAKANA : undefined)
        : b === 0x40 || b === 0x42 ? JP_LEAD : undefined;
      if (to === undefined) {
        if (b === EOF) this.d.back(l); else this.d.back(b, l);
        return this.bad();
      }
      this.state = this.outState = to;
      const { output } = this;
      this.output = true;
      return output ? ERROR : MORE;
    }
    if (b === 0x1b) {
      this.state = JP_START;
      return state === JP_TRAIL ? ERROR : MORE;
    }
    if (state === JP_TRAIL) {
      this.state = JP_LEAD;
      if (b < 0x21 || b > 0x7e) return ERROR;
      const c = jis0208(this.lead, b);
      return c === 0 || c === undefined ? ERROR : c;
    }
    if (b === EOF) return FINISHED;
    this.output = false;
    if (state === JP_LEAD) {
      if (b < 0x21 || b > 0x7e) return ERROR;
      this.lead = b;
      this.state = JP_TRAIL;
      return MORE;
    }
    if (state === JP_KATAKANA) return b >= 0x21 && b <= 0x5f ? 0xff61 - 0x21 + b : ERROR;
    if (b > 0x7f || b === 0x0e || b === 0x0f) return ERROR;
    return state === JP_ROMAN && b === 0x5c ? 0xa5 : state === JP_ROMAN && b === 0x7e ? 0x203e : b;
  }
  bad() {
    this.output = false;
    this.state = this.outState;
    return ERROR;
  }
}

// LegacyDecoder runs a decoder over chunks. It keeps what a character that is not complete needs.
class LegacyDecoder {
  constructor(encoding) {
    this.encoding = encoding;
    this.backs = bareList(); // bytes put back, the next one last
    this.second = 0; // the mark that follows a letter of Big5
    this.reset();
  }
  reset() {
    this.backs.length = 0;
    const i = legacyIndex(this.encoding);
    this.decoder = i < SINGLE_BYTE || this.encoding === "iso-8859-8-i" ? new Single(subTable(i < SINGLE_BYTE ? i : legacyIndex("iso-8859-8")))
      : new (decoders[this.encoding])(this);
  }
  back(...bytes) { for (let i = 0; i < bytes.length; i++) this.backs[this.backs.length] = bytes[i]; }
  pair(letter, mark) { this.second = mark; return letter; }
  // decode gives the text, or undefined where `fatal` forbids what it found.
  decode(u8, stream, fatal) {
    const { decoder, backs } = this;
    const n = TypedArrayLength(u8);
    let out = "", i = 0;
    for (;;) {
      let b;
      if (backs.length > 0) { b = backs[backs.length - 1]; backs.length--; }
      else if (i < n) b = u8[i++];
      else if (!stream) b = EOF;
      else return out;
      const c = decoder.step(b);
      if (c >= 0) {
        out += c < 0x10000 ? StringFromCharCode(c) : StringFromCharCode(0xd7c0 + (c >> 10), 0xdc00 + (c & 0x3ff));
        if (this.second !== 0) { out += StringFromCharCode(this.second); this.second = 0; }
      } else if (c === ERROR) {
        if (fatal) return undefined;
        out += "\uFFFD";
      } else if (c === FINISHED) {
        return out;
      }
    }
  }
}
const decoders = ObjectFreeze({
  __proto__: null, gbk: GB18030, gb18030: GB18030, big5: Big5, "euc-jp": EUCJP, "iso-2022-jp": ISO2022JP, shift_jis: ShiftJIS,
  "euc-kr": EUCKR, replacement: Replacement, "x-user-defined": UserDefined,
});
const subTable = (i) => {
  const all = dataIndex(DATA_SINGLE);
  const out = new Uint16Array(128);
  for (let k = 0; k < 128; k++) out[k] = all[128 * i + k];
  return out;
};
const own = [Single, UserDefined, Replacement, GB18030, Double, ISO2022JP, LegacyDecoder];
for (let i = 0; i < own.length; i++) bare(own[i]);

return { __proto__: null, legacyLabel, LegacyDecoder };
