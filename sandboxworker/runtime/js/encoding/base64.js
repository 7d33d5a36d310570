// atob and btoa (https://html.spec.whatwg.org/#atob, forgiving-base64 of https://infra.spec.whatwg.org/#forgiving-base64).

const base64Alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
let base64Values; // made on first use: char code to value, 255 for none

const invalidCharacter = (message) => newDOMException(message, "InvalidCharacterError");

const encodeBase64 = (length, at, alphabet = base64Alphabet, pad = "=") => {
  let out = "";
  let i = 0;
  for (; i + 2 < length; i += 3) {
    const n = (at(i) << 16) | (at(i + 1) << 8) | at(i + 2);
    out += alphabet[n >> 18] + alphabet[(n >> 12) & 63] + alphabet[(n >> 6) & 63] + alphabet[n & 63];
  }
  if (i + 1 === length) {
    const n = at(i) << 16;
    out += alphabet[n >> 18] + alphabet[(n >> 12) & 63] + pad + pad;
  } else if (i + 2 === length) {
    const n = (at(i) << 16) | (at(i + 1) << 8);
    out += alphabet[n >> 18] + alphabet[(n >> 12) & 63] + alphabet[(n >> 6) & 63] + pad;
  }
  return out;
};

// decodeBase64 returns bytes, or undefined if s is not forgiving base64.
const decodeBase64 = (s) => {
  if (base64Values === undefined) {
    base64Values = new Uint8Array(128);
    for (let i = 0; i < 128; i++) base64Values[i] = 255;
    for (let i = 0; i < 64; i++) base64Values[StringCharCodeAt(base64Alphabet, i)] = i;
  }
  const out = new Uint8Array(MathFloor(s.length * 3 / 4) + 3);
  let bits = 0, have = 0, count = 0, pads = 0, at = 0;
  for (let i = 0; i < s.length; i++) {
    const c = StringCharCodeAt(s, i);
    if (c === 9 || c === 10 || c === 12 || c === 13 || c === 32) continue;
    if (c === 61) { pads++; continue; }
    const v = c < 128 ? base64Values[c] : 255;
    if (v === 255 || pads > 0) return undefined;
    bits = (bits << 6) | v;
    have += 6;
    count++;
    if (have >= 8) {
      have -= 8;
      out[at++] = (bits >> have) & 255;
      bits &= (1 << have) - 1;
    }
  }
  if (pads > 0 && (pads > 2 || (count + pads) % 4 !== 0)) return undefined;
  if (count % 4 === 1) return undefined;
  return subarrayU8(out, 0, at);
};

const { btoa, atob } = {
  btoa(data) {
    needArgs("btoa", arguments.length, 1);
    const s = toDOMString(data);
    for (let i = 0; i < s.length; i++) {
      if (StringCharCodeAt(s, i) > 255) throw invalidCharacter("btoa: the string holds characters outside of the Latin1 range.");
    }
    return encodeBase64(s.length, (i) => StringCharCodeAt(s, i));
  },

  atob(data) {
    needArgs("atob", arguments.length, 1);
    const bytes = decodeBase64(toDOMString(data));
    if (bytes === undefined) throw invalidCharacter("atob: the string is not correctly encoded.");
    return host.latin1Decode(bytes);
  },
};

// randomUUIDText is a version 4 UUID (RFC 9562, section 5.4).
const randomUUIDText = () => {
  const b = new Uint8Array(16);
  host.randomFill(b);
  b[6] = (b[6] & 0x0f) | 0x40;
  b[8] = (b[8] & 0x3f) | 0x80;
  let out = "";
  for (let i = 0; i < 16; i++) {
    out += (i === 4 || i === 6 || i === 8 || i === 10 ? "-" : "") + StringPadStart(NumberToString(b[i], 16), 2, "0");
  }
  return out;
};

const base64url = (u8) => encodeBase64(TypedArrayLength(u8), (i) => u8[i],
  "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", "");
const fromBase64url = (s) => {
  for (let i = 0; i < s.length; i++) {
    const c = s[i];
    if (c === "+" || c === "/" || c === "=" || StringCharCodeAt(c, 0) <= 32) return undefined;
  }
  let t = "";
  for (let i = 0; i < s.length; i++) t += s[i] === "-" ? "+" : s[i] === "_" ? "/" : s[i];
  return decodeBase64(t);
};
