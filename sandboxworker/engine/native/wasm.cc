// Shared Wasm memory is refused: it would bring SharedArrayBuffer back (DESIGN, invariant 7), and
// V8 13.6 has no flag against it. The constructors and functions that take bytes or a memory
// descriptor are wrapped; the bytes are copied before they are looked at, and what is looked at
// is what V8 gets.

#include <cstring>

#include "host.h"

namespace bulkhead {
namespace {

// Reads just enough of the binary format to find memory types (WebAssembly core specification
// 2.0, section 5.5, with the multi-byte reference types and memory flags of later proposals).
class Scanner {
 public:
  explicit Scanner(std::string_view s) : s_(s) {}

  enum Found { kNone, kShared, kMalformed };

  Found Scan() {
    if (s_.size() < 8) return kMalformed;
    at_ = 8;
    while (at_ < s_.size()) {
      uint8_t id = Byte();
      uint64_t size = Leb();
      if (bad_ || size > s_.size() - at_) return kMalformed;
      size_t end = at_ + static_cast<size_t>(size);
      if (id == 2 || id == 5) {
        uint64_t count = Leb();
        for (uint64_t n = 0; n < count && !bad_; n++) {
          if (id == 2 ? Import() : Limits()) return kShared;
        }
        if (bad_ || at_ != end) return kMalformed;
      }
      at_ = end;
    }
    return kNone;
  }

 private:
  uint8_t Byte() {
    if (at_ >= s_.size()) {
      bad_ = true;
      return 0;
    }
    return static_cast<uint8_t>(s_[at_++]);
  }

  // Signed and unsigned alike: only the length matters for the signed ones.
  uint64_t Leb() {
    uint64_t v = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      uint8_t b = Byte();
      if (shift < 64) v |= uint64_t{b & 0x7Fu} << shift;
      if (bad_ || (b & 0x80) == 0) return v;
    }
    bad_ = true;
    return 0;
  }

  void Name() {
    uint64_t n = Leb();
    if (bad_ || n > s_.size() - at_) {
      bad_ = true;
      return;
    }
    at_ += static_cast<size_t>(n);
  }

  void Type() {
    uint8_t b = Byte();
    if (b == 0x63 || b == 0x64) Leb();  // (ref null ht), (ref ht)
  }

  // True when the limits say "shared".
  bool Limits() {
    uint8_t flags = Byte();
    Leb();
    if (flags & 1) Leb();
    if (flags & 8) Leb();  // custom page size
    return (flags & 2) != 0;
  }

  bool Import() {
    Name();
    Name();
    switch (Byte()) {
      case 0: Leb(); return false;
      case 1: Type(); return Limits();
      case 2: return Limits();
      case 3: Type(); Byte(); return false;
      case 4: Byte(); Leb(); return false;
      default: bad_ = true; return false;
    }
  }

  std::string_view s_;
  size_t at_ = 0;
  bool bad_ = false;
};

// check(bytes) -> a copy of the bytes; 1 when they hold a shared memory; 2 when they are no module
void Check(const Args& args) {
  v8::Isolate* iso = args.GetIsolate();
  // Of the copy here: the one V8 gets is a buffer.
  Charge charge(bh_isolate::From(iso)->allocator.get());
  size_t size = args[0]->IsArrayBufferView() ? args[0].As<v8::ArrayBufferView>()->ByteLength()
                : args[0]->IsArrayBuffer()   ? args[0].As<v8::ArrayBuffer>()->ByteLength()
                                             : 0;
  if (!charge.Resize(size)) return ThrowRangeError(iso, "Array buffer allocation failed");
  std::string copy;
  if (args[0]->IsArrayBufferView()) {
    copy = ViewBytes(args[0].As<v8::ArrayBufferView>()).view();
  } else if (args[0]->IsArrayBuffer()) {
    v8::Local<v8::ArrayBuffer> b = args[0].As<v8::ArrayBuffer>();
    copy = std::string(static_cast<const char*>(b->Data()), b->ByteLength());
  } else {
    return;  // undefined: let V8 say what it thinks of it
  }
  switch (Scanner(copy).Scan()) {
    case Scanner::kShared: return args.GetReturnValue().Set(1);
    case Scanner::kMalformed: return args.GetReturnValue().Set(2);
    case Scanner::kNone: break;
  }
  v8::Local<v8::Uint8Array> bytes;
  if (!Bytes(iso, copy.data(), copy.size()).ToLocal(&bytes)) {
    return ThrowRangeError(iso, "Array buffer allocation failed");
  }
  args.GetReturnValue().Set(bytes);
}

// Runs before any tenant; keeps the originals it needs. "wasm" cannot be reached past it: the
// prototypes' constructor properties are replaced too.
constexpr char kGate[] = R"((function (check) {
  "use strict";
  const { apply, construct, defineProperty } = Reflect;
  const W = WebAssembly, { CompileError } = W, E = TypeError;
  const { reject } = Promise, P = Promise;
  const no = "Shared WebAssembly memories are off";
  const put = (o, k, value) => defineProperty(o, k, { value, writable: true, configurable: true, enumerable: false });
  const gate = (name, handler) => {
    const proxy = new Proxy(W[name], { __proto__: null, construct: handler });
    put(W[name].prototype, "constructor", proxy);
    put(W, name, proxy);
  };
  gate("Module", (t, args, n) => {
    if (args.length === 0) return construct(t, [], n);
    const c = check(args[0]);
    if (c === 1) throw new CompileError(no);
    if (c === 2) return construct(t, [new Uint8Array(0)], n);
    return construct(t, [c === undefined ? args[0] : c], n);
  });
  gate("Memory", (t, args, n) => {
    const d = args[0];
    if (d === null || (typeof d !== "object" && typeof d !== "function")) return construct(t, [d], n);
    const { address, initial, maximum, minimum, shared } = d;
    if (shared) throw new E(no);
    const plain = { __proto__: null };
    if (address !== undefined) plain.address = address;
    if (initial !== undefined) plain.initial = initial;
    if (maximum !== undefined) plain.maximum = maximum;
    if (minimum !== undefined) plain.minimum = minimum;
    return construct(t, [plain], n);
  });
  const wrap = (name, sync) => {
    const original = W[name];
    put(W, name, { [name](bytes) {
      // No spread: its iterator is the tenant's to change.
      const args = arguments.length > 1 ? [bytes, arguments[1], arguments[2]] : [bytes];
      try {
        const c = check(bytes);
        if (c === 1) { if (sync) return false; throw new CompileError(no); }
        if (c === 2) args[0] = new Uint8Array(0);
        else if (c !== undefined) args[0] = c;
      } catch (e) {
        if (sync) throw e;
        return apply(reject, P, [e]);
      }
      return apply(original, W, args);
    } }[name]);
  };
  wrap("compile", false);
  wrap("instantiate", false);
  wrap("validate", true);
}))";

}  // namespace

bool GateWasm(v8::Isolate* iso, v8::Local<v8::Context> context) {
  v8::ScriptOrigin origin(OneByte(iso, "bulkhead:wasm"));
  v8::Local<v8::Script> script;
  v8::Local<v8::Value> gate;
  if (!v8::Script::Compile(context, OneByte(iso, kGate), &origin).ToLocal(&script) ||
      !script->Run(context).ToLocal(&gate) || !gate->IsFunction()) {
    return false;
  }
  v8::Local<v8::Value> argv[] = {
      v8::Function::New(context, Check, {}, 1, v8::ConstructorBehavior::kThrow).ToLocalChecked()};
  return !gate.As<v8::Function>()->Call(context, v8::Undefined(iso), 1, argv).IsEmpty();
}

bool WasmIsShared(std::string_view bytes) { return Scanner(bytes).Scan() == Scanner::kShared; }

}  // namespace bulkhead
