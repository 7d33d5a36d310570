// structuredClone over V8's own serializer (HTML standard, "Safe passing of structured data").
//
// Getters of the value run in the middle of serialization and may detach, resize or re-enter:
// everything about the transfer list is checked again after them.

#include <cstdlib>

#include "host.h"

namespace bulkhead {
namespace {

// Serialized bytes are outside V8's heap and no ArrayBuffer: they are charged to the tenant's cap,
// and have a bound of their own where the tenant has none.
constexpr size_t kMaxSerialized = 256u << 20;

void ThrowDataClone(v8::Isolate* iso, v8::Local<v8::String> message) {
  bh_isolate* i = bh_isolate::From(iso);
  if (!i->data_clone_error.IsEmpty()) {
    v8::Local<v8::Value> argv[] = {message}, error;
    v8::Local<v8::Context> context = iso->GetCurrentContext();
    if (i->data_clone_error.Get(iso)->Call(context, v8::Undefined(iso), 1, argv).ToLocal(&error)) {
      iso->ThrowException(error);
    }
    return;  // else what it threw is pending
  }
  iso->ThrowException(v8::Exception::Error(message));
}

class Writer final : public v8::ValueSerializer::Delegate {
 public:
  // known: the runtime's function that knows platform objects, or nothing.
  Writer(v8::Isolate* iso, v8::Local<v8::Function> known)
      : iso_(iso), known_(known), charge_(bh_isolate::From(iso)->allocator.get()) {}

  void Serializer(v8::ValueSerializer* serializer) { serializer_ = serializer; }

  bool HasCustomHostObject(v8::Isolate*) override { return !known_.IsEmpty(); }

  // Asked of every object just before it is written. Plain ones, nearly all of them, need no answer
  // of the runtime's.
  v8::Maybe<bool> IsHostObject(v8::Isolate*, v8::Local<v8::Object> object) override {
    v8::Local<v8::Context> context = iso_->GetCurrentContext();
    v8::Local<v8::Value> proto = object->GetPrototypeV2();
    if (proto->IsNull() || proto == plain_) return v8::Just(false);
    v8::Local<v8::Value> argv[] = {object}, index;
    if (!known_->Call(context, v8::Undefined(iso_), 1, argv).ToLocal(&index)) {
      return v8::Nothing<bool>();
    }
    if (index->IsUint32()) {
      index_ = index.As<v8::Uint32>()->Value();
      return v8::Just(true);
    }
    if (plain_.IsEmpty() && index->IsObject()) plain_ = index;  // it says what plain is
    return v8::Just(false);
  }

  v8::Maybe<bool> WriteHostObject(v8::Isolate*, v8::Local<v8::Object>) override {
    serializer_->WriteUint32(index_);
    return v8::Just(true);
  }

  void ThrowDataCloneError(v8::Local<v8::String> message) override {
    ThrowDataClone(iso_, message);
  }

  void* ReallocateBufferMemory(void* old, size_t size, size_t* actual) override {
    *actual = 0;
    if (size > kMaxSerialized || !charge_.Resize(size)) return nullptr;
    void* p = realloc(old, size);
    if (p != nullptr) *actual = size;
    return p;
  }

  void FreeBufferMemory(void* p) override { free(p); }

 private:
  v8::Isolate* iso_;
  v8::Local<v8::Function> known_;
  v8::Local<v8::Value> plain_;  // Object.prototype, once known
  v8::ValueSerializer* serializer_ = nullptr;
  uint32_t index_ = 0;
  Charge charge_;  // until the clone is made: the serializer's buffer lives as long
};

// Gives the place of a platform object to what the runtime made of it. V8 lets no JavaScript run while
// it reads: the objects are there before.
class Reader final : public v8::ValueDeserializer::Delegate {
 public:
  void Deserializer(v8::ValueDeserializer* deserializer) { deserializer_ = deserializer; }
  std::vector<v8::Local<v8::Object>>& objects() { return objects_; }

  v8::MaybeLocal<v8::Object> ReadHostObject(v8::Isolate*) override {
    uint32_t index;
    if (!deserializer_->ReadUint32(&index) || index >= objects_.size()) return {};
    return objects_[index];
  }

 private:
  v8::ValueDeserializer* deserializer_ = nullptr;
  std::vector<v8::Local<v8::Object>> objects_;
};

struct Freer {
  void operator()(uint8_t* p) const { free(p); }
};

bool Collect(v8::Isolate* iso, v8::Local<v8::Context> context, v8::Local<v8::Value> list,
             std::vector<v8::Local<v8::ArrayBuffer>>* out) {
  if (list->IsUndefined()) return true;
  if (!list->IsArray()) {
    ThrowTypeError(iso, "host: the transfer list must be an array");
    return false;
  }
  v8::Local<v8::Array> array = list.As<v8::Array>();
  for (uint32_t n = 0; n < array->Length(); n++) {
    v8::Local<v8::Value> item;
    if (!array->Get(context, n).ToLocal(&item)) return false;
    if (!item->IsArrayBuffer()) {
      ThrowDataClone(iso, OneByte(iso, "Value at index " + std::to_string(n) +
                                           " of the transfer list is not transferable"));
      return false;
    }
    v8::Local<v8::ArrayBuffer> buffer = item.As<v8::ArrayBuffer>();
    if (!buffer->IsDetachable() || buffer->WasDetached()) {
      ThrowDataClone(iso, OneByte(iso, "An ArrayBuffer is detached and could not be cloned"));
      return false;
    }
    for (const auto& seen : *out) {
      if (seen == buffer) {
        ThrowDataClone(iso, OneByte(iso, "An ArrayBuffer stands twice in the transfer list"));
        return false;
      }
    }
    if (out->size() >= 4096) {
      ThrowRangeError(iso, "The transfer list is too long");
      return false;
    }
    out->push_back(buffer);
  }
  return true;
}

// structuredClone(value, transferArray, known, revive) -> value. known(object) is a number for a
// platform object, Object.prototype itself for any other, or throws; revive() lists all clones by number.
void StructuredClone(const Args& args) {
  v8::Isolate* iso = args.GetIsolate();
  v8::Local<v8::Context> context = iso->GetCurrentContext();
  if (args[0]->IsString() && TooLongToRead(bh_isolate::From(iso), args[0].As<v8::String>())) {
    return ThrowDataClone(iso, OneByte(iso, "The string is too long for this worker's memory limit"));
  }
  std::vector<v8::Local<v8::ArrayBuffer>> transfer;
  if (!Collect(iso, context, args[1], &transfer)) return;

  v8::Local<v8::Function> known, revive;
  if (args[2]->IsFunction()) known = args[2].As<v8::Function>();
  if (args[3]->IsFunction()) revive = args[3].As<v8::Function>();
  Writer delegate(iso, known);
  v8::ValueSerializer serializer(iso, &delegate);
  delegate.Serializer(&serializer);
  serializer.WriteHeader();
  for (size_t n = 0; n < transfer.size(); n++) {
    serializer.TransferArrayBuffer(static_cast<uint32_t>(n), transfer[n]);
  }
  bool written;
  if (!serializer.WriteValue(context, args[0]).To(&written) || !written) return;
  std::pair<uint8_t*, size_t> bytes = serializer.Release();
  std::unique_ptr<uint8_t, Freer> owned(bytes.first);

  // Only in an isolate that has had any, for the bytes do not tell a tag from a letter.
  bh_isolate* i = bh_isolate::From(iso);
  size_t resizable = i->resizables_made ? MostResizable({reinterpret_cast<char*>(bytes.first), bytes.second}) : 0;
  constexpr size_t kMostResizable = 2048;
  if (resizable > kMostResizable) {
    return ThrowDataClone(iso, OneByte(iso, "Too many resizable buffers, or text that looks like them"));
  }

  // First all checks, then all detaching: a refused clone leaves the buffers alone.
  for (auto& buffer : transfer) {
    if (!buffer->IsDetachable() || buffer->WasDetached()) {
      return ThrowDataClone(iso, OneByte(iso, "An ArrayBuffer is detached and could not be cloned"));
    }
  }
  Reader reader;
  if (!revive.IsEmpty()) {
    v8::Local<v8::Value> list, item;
    if (!revive->Call(context, v8::Undefined(iso), 0, nullptr).ToLocal(&list)) return;
    if (!list->IsArray()) return ThrowTypeError(iso, "host: an array was expected");
    for (uint32_t n = 0; n < list.As<v8::Array>()->Length(); n++) {
      if (!list.As<v8::Array>()->Get(context, n).ToLocal(&item)) return;
      if (!item->IsObject()) return ThrowTypeError(iso, "host: an object was expected");
      reader.objects().push_back(item.As<v8::Object>());
    }
  }
  v8::ValueDeserializer deserializer(iso, bytes.first, bytes.second, &reader);
  reader.Deserializer(&deserializer);
  bool header;
  if (!deserializer.ReadHeader(context).To(&header) || !header) return;
  for (size_t n = 0; n < transfer.size(); n++) {
    std::shared_ptr<v8::BackingStore> store = transfer[n]->GetBackingStore();
    if (transfer[n]->Detach(v8::Local<v8::Value>()).IsNothing()) return;
    v8::Local<v8::ArrayBuffer> moved = v8::ArrayBuffer::New(iso, std::move(store));
    deserializer.TransferArrayBuffer(static_cast<uint32_t>(n), moved);
    // Counted even if nothing refers to it; the one it was counted as is empty, and soon collected.
    if (moved->IsResizableByUserJavaScript()) KeepCount(i, moved);
  }
  v8::Local<v8::Value> out;
  if (!deserializer.ReadValue(context).ToLocal(&out)) return;
  if (resizable > 0 && !CountResizable(i, context, out)) {
    if (iso->HasPendingException()) return;
    return ThrowDataClone(iso, OneByte(iso, "Too many resizable buffers"));
  }
  args.GetReturnValue().Set(out);
}

// setDataCloneError(fn): fn(message) makes the DOMException this file throws.
void SetDataCloneError(const Args& args) {
  v8::Isolate* iso = args.GetIsolate();
  if (!args[0]->IsFunction()) return ThrowTypeError(iso, "host: a function was expected");
  bh_isolate::From(iso)->data_clone_error.Reset(iso, args[0].As<v8::Function>());
}

}  // namespace

void InstallCloneFunctions(v8::Isolate* iso, v8::Local<v8::Context> c,
                           v8::Local<v8::Object> host) {
  SetFunction(iso, c, host, "structuredClone", StructuredClone);
  SetFunction(iso, c, host, "setDataCloneError", SetDataCloneError);
}

}  // namespace bulkhead
