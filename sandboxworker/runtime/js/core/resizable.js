// Resizable ArrayBuffers are few (see the host's resizable.cc): whatever makes one asks first. These
// are the constructor and transfer(); structuredClone asks by itself.

const OriginalArrayBuffer = ArrayBuffer;

// makeResizable calls make, which makes a resizable buffer of at most `max` bytes.
const makeResizable = (max, make) => {
  host.askResizable(max);
  let buffer;
  try { buffer = make(); } catch (error) { host.dropResizable(max); throw error; }
  host.keepResizable(buffer);
  return buffer;
};

// The runtime's own transfers may be of a tenant's resizable buffer.
const ArrayBufferTransfer = (buffer, length = undefined) => (ArrayBufferResizable(buffer)
  ? makeResizable(ArrayBufferMaxByteLength(buffer), () => RawArrayBufferTransfer(buffer, length))
  : RawArrayBufferTransfer(buffer, length));

// A length that is a rope of 2^28 characters, or turns itself into one, would end the process.
const lengthOf = (v) => (isObject(v) || typeof v === "string" ? toNumber(v) : v);

if (typeof host.askResizable === "function") {
  const gated = new Proxy(OriginalArrayBuffer, {
    __proto__: null,
    construct(target, args, newTarget) {
      const options = args[1];
      if (!((typeof options === "object" && options !== null) || typeof options === "function")) {
        return ReflectConstruct(target, [lengthOf(args[0])], newTarget);
      }
      let asked = -1;
      // Read where the standard reads it: after the length is converted.
      const once = {
        __proto__: null,
        get maxByteLength() {
          const max = options.maxByteLength;
          if (max === undefined) return undefined;
          const n = MathTrunc(toNumber(max)) || 0;
          host.askResizable(n);
          asked = n;
          return n;
        },
      };
      let buffer;
      try {
        buffer = ReflectConstruct(target, [lengthOf(args[0]), once], newTarget);
      } catch (error) {
        if (asked >= 0) host.dropResizable(asked);
        throw error;
      }
      if (asked !== -1) host.keepResizable(buffer);
      return buffer;
    },
  });
  const hidden = (object, name, value) => ObjectDefineProperty(object, name,
    { __proto__: null, value, writable: true, enumerable: false, configurable: true });
  hidden(OriginalArrayBuffer.prototype, "constructor", gated);
  hidden(global, "ArrayBuffer", gated);
  hidden(OriginalArrayBuffer.prototype, "transfer", ObjectGetOwnPropertyDescriptor({
    transfer() {
      const length = arguments[0];
      return ArrayBufferTransfer(this, lengthOf(length));
    },
  }, "transfer").value);
}
