// Host functions over text and random bytes.

#include <sys/random.h>

#include <cerrno>
#include <cstring>

#include "host.h"

namespace bulkhead {
namespace {

bool IsAscii(std::string_view s) {
  size_t i = 0;
  for (; i + 8 <= s.size(); i += 8) {
    uint64_t w;
    std::memcpy(&w, s.data() + i, 8);
    if (w & 0x8080808080808080ull) return false;
  }
  for (; i < s.size(); i++) {
    if (static_cast<unsigned char>(s[i]) >= 0x80) return false;
  }
  return true;
}

// Well-formed UTF-8 by the Unicode Standard, table 3-7.
bool IsUtf8(std::string_view s) {
  auto at = [&](size_t i) { return static_cast<unsigned char>(s[i]); };
  for (size_t i = 0; i < s.size();) {
    unsigned char c = at(i);
    size_t more;
    unsigned char low = 0x80, high = 0xBF;  // of the second byte
    if (c < 0x80) {
      i++;
      continue;
    } else if (c >= 0xC2 && c <= 0xDF) {
      more = 1;
    } else if (c >= 0xE0 && c <= 0xEF) {
      more = 2;
      if (c == 0xE0) low = 0xA0;
      if (c == 0xED) high = 0x9F;  // no surrogates
    } else if (c >= 0xF0 && c <= 0xF4) {
      more = 3;
      if (c == 0xF0) low = 0x90;
      if (c == 0xF4) high = 0x8F;
    } else {
      return false;
    }
    if (s.size() - i <= more) return false;
    if (at(i + 1) < low || at(i + 1) > high) return false;
    for (size_t k = 2; k <= more; k++) {
      if ((at(i + k) & 0xC0) != 0x80) return false;
    }
    i += more + 1;
  }
  return true;
}

// A view that JavaScript will receive or fill: its memory when it is ours to write, else null.
// Valid until the next call into JavaScript.
uint8_t* Writable(v8::Local<v8::ArrayBufferView> view, size_t* len) {
  // Buffer() moves a small array off V8's heap, so the address holds still.
  v8::Local<v8::ArrayBuffer> buffer = view->Buffer();
  size_t offset = view->ByteOffset();
  *len = view->ByteLength();
  if (buffer->WasDetached() || *len == 0 || offset > buffer->ByteLength() ||
      *len > buffer->ByteLength() - offset) {
    *len = 0;
    return nullptr;
  }
  return static_cast<uint8_t*>(buffer->Data()) + offset;
}

void Utf8Encode(const Args& args) {
  v8::Isolate* iso = args.GetIsolate();
  v8::Local<v8::String> s;
  if (!StringArg(args, 0, &s)) return;
  size_t len = s->Utf8LengthV2(iso);
  v8::Local<v8::ArrayBuffer> buffer;
  if (!v8::ArrayBuffer::MaybeNew(iso, len).ToLocal(&buffer)) {
    return ThrowRangeError(iso, "Array buffer allocation failed");
  }
  if (len > 0) {
    s->WriteUtf8V2(iso, static_cast<char*>(buffer->Data()), len,
                   v8::String::WriteFlags::kReplaceInvalidUtf8);
  }
  args.GetReturnValue().Set(v8::Uint8Array::New(buffer, 0, len));
}

// utf8EncodeInto(string, u8) -> read * 2^32 + written
void Utf8EncodeInto(const Args& args) {
  v8::Isolate* iso = args.GetIsolate();
  v8::Local<v8::String> s;
  v8::Local<v8::ArrayBufferView> view;
  if (!StringArg(args, 0, &s) || !ViewArg(args, 1, &view)) return;
  size_t len, read = 0, written = 0;
  uint8_t* at = Writable(view, &len);
  if (at != nullptr) {
    written = s->WriteUtf8V2(iso, reinterpret_cast<char*>(at), len,
                             v8::String::WriteFlags::kReplaceInvalidUtf8, &read);
  }
  args.GetReturnValue().Set(static_cast<double>(read) * 4294967296.0 +
                            static_cast<double>(written));
}

// utf8Decode(u8, fatal, ignoreBOM) -> string
void Utf8Decode(const Args& args) {
  v8::Isolate* iso = args.GetIsolate();
  v8::Local<v8::ArrayBufferView> view;
  if (!ViewArg(args, 0, &view)) return;
  ViewBytes contents(view);
  std::string_view bytes = contents.view();
  if (!args[2]->IsTrue() && bytes.size() >= 3 && std::memcmp(bytes.data(), "\xEF\xBB\xBF", 3) == 0) {
    bytes.remove_prefix(3);
  }
  bool ascii = IsAscii(bytes);
  // Each byte may become one character of two bytes.
  if (bytes.size() > static_cast<size_t>(v8::String::kMaxLength) ||
      !HasRoom(bh_isolate::From(iso), ascii ? bytes.size() : 2 * bytes.size())) {
    return ThrowRangeError(iso, "The decoded string would be too long");
  }
  v8::Local<v8::String> out;
  bool made;
  if (ascii) {
    made = v8::String::NewFromOneByte(iso, reinterpret_cast<const uint8_t*>(bytes.data()),
                                      v8::NewStringType::kNormal, static_cast<int>(bytes.size()))
               .ToLocal(&out);
  } else {
    if (args[1]->IsTrue() && !IsUtf8(bytes)) {
      return ThrowTypeError(iso, "The encoded data was not valid for encoding utf-8");
    }
    made = v8::String::NewFromUtf8(iso, bytes.data(), v8::NewStringType::kNormal,
                                   static_cast<int>(bytes.size()))
               .ToLocal(&out);
  }
  if (!made) return ThrowRangeError(iso, "The decoded string would be too long");
  args.GetReturnValue().Set(out);
}

void Latin1Decode(const Args& args) {
  v8::Isolate* iso = args.GetIsolate();
  v8::Local<v8::ArrayBufferView> view;
  if (!ViewArg(args, 0, &view)) return;
  ViewBytes contents(view);
  std::string_view bytes = contents.view();
  v8::Local<v8::String> out;
  if (bytes.size() > static_cast<size_t>(v8::String::kMaxLength) ||
      !HasRoom(bh_isolate::From(iso), bytes.size()) ||
      !v8::String::NewFromOneByte(iso, reinterpret_cast<const uint8_t*>(bytes.data()),
                                  v8::NewStringType::kNormal, static_cast<int>(bytes.size()))
           .ToLocal(&out)) {
    return ThrowRangeError(iso, "The decoded string would be too long");
  }
  args.GetReturnValue().Set(out);
}

// data(n) -> a copy of the process's bytes of that number
void Data(const Args& args) {
  v8::Isolate* iso = args.GetIsolate();
  uint32_t n;
  if (!UintArg(args, 0, &n)) return;
  std::string_view bytes = ProcessData(n);
  v8::Local<v8::Uint8Array> out;
  if (!Bytes(iso, bytes.data(), bytes.size()).ToLocal(&out)) {
    return ThrowRangeError(iso, "Array buffer allocation failed");
  }
  args.GetReturnValue().Set(out);
}

void RandomFill(const Args& args) {
  v8::Isolate* iso = args.GetIsolate();
  v8::Local<v8::ArrayBufferView> view;
  if (!ViewArg(args, 0, &view)) return;
  size_t len;
  uint8_t* at = Writable(view, &len);
  while (len > 0) {
    ssize_t n = getrandom(at, len, 0);
    if (n < 0) {
      if (errno == EINTR) continue;
      return ThrowTypeError(iso, "host: the kernel gave no random bytes");
    }
    at += n;
    len -= static_cast<size_t>(n);
  }
}

}  // namespace

void InstallTextFunctions(v8::Isolate* iso, v8::Local<v8::Context> c, v8::Local<v8::Object> host) {
  SetFunction(iso, c, host, "utf8Encode", Utf8Encode);
  SetFunction(iso, c, host, "utf8EncodeInto", Utf8EncodeInto);
  SetFunction(iso, c, host, "utf8Decode", Utf8Decode);
  SetFunction(iso, c, host, "latin1Decode", Latin1Decode);
  SetFunction(iso, c, host, "randomFill", RandomFill);
  SetFunction(iso, c, host, "data", Data);
}

}  // namespace bulkhead
