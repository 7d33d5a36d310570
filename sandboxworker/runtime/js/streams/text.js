// TextEncoderStream and TextDecoderStream (https://encoding.spec.whatwg.org/#interface-textencoderstream),
// and the two pass-through transforms Workers code uses.

class TextEncoderStream {
  #t;
  constructor() {
    let high = "";
    this.#t = createTransform((chunk, c) => {
      let s = toDOMString(chunk);
      if (s.length === 0) return;
      if (high !== "") { s = high + s; high = ""; }
      const last = StringCharCodeAt(s, s.length - 1);
      if (last >= 0xd800 && last <= 0xdbff) {
        high = s[s.length - 1];
        s = StringSlice(s, 0, s.length - 1);
      }
      if (s.length > 0) transformEnqueue(c, host.utf8Encode(s));
    }, (c) => {
      if (high !== "") transformEnqueue(c, host.utf8Encode("\uFFFD"));
    }, undefined);
  }
  get encoding() { void this.#t; return "utf-8"; }
  get readable() { return this.#t.readable.wrapper; }
  get writable() { return this.#t.writable.wrapper; }
}
defineInterface(TextEncoderStream, "TextEncoderStream");

class TextDecoderStream {
  #t; #d;
  constructor(label = "utf-8", options = undefined) {
    const d = this.#d = encodingUnit.get().newDecoder(label, options);
    this.#t = createTransform((chunk, c) => {
      if (!isBufferSource(chunk)) throw new TypeError("TextDecoderStream: the chunk is not an ArrayBuffer or a view on one.");
      const s = d.decode(bytesOf(chunk), true);
      if (s.length > 0) transformEnqueue(c, s);
    }, (c) => {
      const s = d.decode(new Uint8Array(0), false);
      if (s.length > 0) transformEnqueue(c, s);
    }, undefined);
  }
  get encoding() { return this.#d.encoding; }
  get fatal() { return this.#d.fatal; }
  get ignoreBOM() { return this.#d.ignoreBOM; }
  get readable() { return this.#t.readable.wrapper; }
  get writable() { return this.#t.writable.wrapper; }
}
defineInterface(TextDecoderStream, "TextDecoderStream");

// IdentityTransformStream (Cloudflare Workers runtime API): bytes in, the same bytes out, its readable
// side a byte stream. `expected` bytes of a FixedLengthStream become the response's Content-Length.
const fixedLengths = new SafeWeakMap(); // readable state -> expected length
const fixedLengthOf = (s) => fixedLengths.get(s);

const identityPair = (expected) => {
  let room = deferred();
  let sent = 0;
  let readable;
  const fail = (e) => { byteControllerError(readable.controller, e); throw e; };
  const writable = createWritableStream(undefined, (chunk) => {
    try {
      let u8;
      if (typeof chunk === "string") u8 = host.utf8Encode(chunk);
      else if (isBufferSource(chunk)) u8 = copyBytes(chunk);
      else fail(new TypeError("The stream takes only ArrayBuffers, views on them and strings."));
      const n = TypedArrayByteLength(u8);
      if (n === 0) return undefinedPromise();
      if (expected !== undefined && sent + n > expected) {
        fail(new TypeError(`Attempt to write too many bytes through a FixedLengthStream: ${sent + n} of ${expected}.`));
      }
      sent += n;
      return PromiseThen(room.promise, () => {
        room = deferred();
        if (readable.state === READABLE) byteControllerEnqueue(readable.controller, u8);
      });
    } catch (e) {
      return PromiseReject(e);
    }
  }, () => {
    if (expected !== undefined && sent !== expected) {
      const e = new TypeError(`FixedLengthStream did not see all expected bytes before close(): ${sent} of ${expected}.`);
      byteControllerError(readable.controller, e);
      return PromiseReject(e);
    }
    byteControllerClose(readable.controller);
    if (readable.controller.pendingPullIntos.length > 0) byteControllerRespond(readable.controller, 0);
    return undefinedPromise();
  }, (reason) => {
    byteControllerError(readable.controller, reason);
    return undefinedPromise();
  });
  readable = createByteStream(undefined, () => {
    room.resolve(undefined);
    return undefinedPromise();
  }, (reason) => {
    writableControllerErrorIfNeeded(writable.controller, reason);
    room.resolve(undefined);
    return undefinedPromise();
  });
  if (expected !== undefined) fixedLengths.set(readable, expected);
  return { __proto__: null, readable, writable };
};

class IdentityTransformStream extends TransformStream {
  constructor(queuingStrategy = undefined) {
    // FixedLengthStream passes its pair; a tenant cannot make the sentinel.
    super(kInternal, queuingStrategy === kInternal ? arguments[1] : identityPair(undefined));
  }
}
defineInterface(IdentityTransformStream, "IdentityTransformStream");

class FixedLengthStream extends IdentityTransformStream {
  constructor(expectedLength, queuingStrategy = undefined) {
    needArgs("FixedLengthStream constructor", arguments.length, 1);
    void queuingStrategy;
    super(kInternal, identityPair(toEnforced(
      typeof expectedLength === "bigint" ? Number(expectedLength) : expectedLength, "FixedLengthStream: expectedLength")));
  }
}
defineInterface(FixedLengthStream, "FixedLengthStream");
