// Resizable ArrayBuffers go round the allocator: each reserves its greatest length in the address space
// that all tenants of the process share, and splits it into mappings, of which the kernel allows a
// process 65,530. Thirty-two thousand of one byte took a tenant a tenth of a second, counted as 32 KB
// and ended the process at the next page that V8 gave back to the kernel. So an isolate may have few.
//
// The runtime's ArrayBuffer (js/core/resizable.js) asks here before it makes one. A collection says
// when one is gone.

#include <memory>
#include <unordered_map>

#include "host.h"

namespace bulkhead {
namespace {

constexpr size_t kMost = 128;        // an isolate
constexpr uint64_t kMostSpace = 4;   // times the memory limit, of all together

uint64_t Limit(const bh_isolate* i) { return i->memory_limit == 0 ? i->heap_max : i->memory_limit; }

bool Fits(const bh_isolate* i, uint64_t max) {
  return i->resizables.size() + i->resizables_asked < kMost &&
         i->resizable_space + max <= kMostSpace * Limit(i);
}

void Gone(const v8::WeakCallbackInfo<Resizable>& info) {
  Resizable* r = info.GetParameter();
  r->buffer.Reset();
  auto& all = r->owner->resizables;
  r->owner->resizable_space -= r->max;
  all[r->at].swap(all.back());
  all[r->at]->at = r->at;
  all.pop_back();  // r
}

bool MaxArg(const Args& args, uint64_t* out) {
  if (!args[0]->IsNumber()) {
    ThrowTypeError(args.GetIsolate(), "host: a number was expected");
    return false;
  }
  double max = args[0].As<v8::Number>()->Value();
  *out = max >= 0 ? max < 9e15 ? static_cast<uint64_t>(max) : UINT64_MAX / 2 : 0;
  return true;
}

// askResizable(maxByteLength): throws where there can be no more, else one is expected by
// keepResizable or dropped by dropResizable.
void AskResizable(const Args& args) {
  bh_isolate* i = bh_isolate::From(args.GetIsolate());
  uint64_t max;
  if (!MaxArg(args, &max)) return;
  if (max > Limit(i)) {
    return ThrowRangeError(i->iso, "A resizable buffer cannot be longer than this worker's memory limit");
  }
  if (!Fits(i, max)) {
    // Those that are garbage count until it is collected.
    i->iso->LowMemoryNotification();
    if (!Fits(i, max)) {
      return ThrowRangeError(i->iso, "Too many resizable buffers at once: a worker may have 128, "
                                     "and four times its memory limit of their greatest lengths");
    }
  }
  i->resizables_asked++;
  i->resizable_space += max;
}

// dropResizable(maxByteLength): it was not made after all.
void DropResizable(const Args& args) {
  bh_isolate* i = bh_isolate::From(args.GetIsolate());
  uint64_t max;
  if (!MaxArg(args, &max) || i->resizables_asked == 0 || i->resizable_space < max) return;
  i->resizables_asked--;
  i->resizable_space -= max;
}

// keepResizable(buffer): it was made.
void KeepResizable(const Args& args) {
  bh_isolate* i = bh_isolate::From(args.GetIsolate());
  if (!args[0]->IsArrayBuffer()) return ThrowTypeError(i->iso, "host: an ArrayBuffer was expected");
  v8::Local<v8::ArrayBuffer> buffer = args[0].As<v8::ArrayBuffer>();
  if (i->resizables_asked == 0) return;
  i->resizables_asked--;
  i->resizable_space -= std::min<uint64_t>(i->resizable_space, buffer->MaxByteLength());
  KeepCount(i, buffer);
}

// What a deserializer made is new: it holds data properties only, and to read them runs no one's code.
class Walk {
 public:
  Walk(v8::Isolate* iso, v8::Local<v8::Context> context) : iso_(iso), context_(context) {}

  // Calls `found` with each resizable buffer reachable from `value`. False: an exception is pending.
  template <typename F>
  bool Run(v8::Local<v8::Value> value, F found) {
    Add(value);
    while (!todo_.empty()) {
      v8::Local<v8::Object> object = todo_.back();
      todo_.pop_back();
      if (object->IsArrayBuffer()) {
        if (object.As<v8::ArrayBuffer>()->IsResizableByUserJavaScript()) {
          found(object.As<v8::ArrayBuffer>());
        }
        continue;
      }
      if (object->IsArrayBufferView()) {
        Add(object.As<v8::ArrayBufferView>()->Buffer());
        continue;
      }
      if (object->IsMap()) AddAll(object.As<v8::Map>()->AsArray());
      if (object->IsSet()) AddAll(object.As<v8::Set>()->AsArray());
      v8::Local<v8::Array> names;
      if (!object->GetOwnPropertyNames(context_, v8::ALL_PROPERTIES).ToLocal(&names)) return false;
      for (uint32_t n = 0; n < names->Length(); n++) {
        v8::Local<v8::Value> name, item;
        if (!names->Get(context_, n).ToLocal(&name) || !object->Get(context_, name).ToLocal(&item)) {
          return false;
        }
        Add(item);
      }
    }
    return true;
  }

 private:
  void Add(v8::Local<v8::Value> value) {
    if (!value->IsObject()) return;
    v8::Local<v8::Object> object = value.As<v8::Object>();
    auto range = seen_.equal_range(object->GetIdentityHash());
    for (auto it = range.first; it != range.second; ++it) {
      if (it->second == object) return;
    }
    seen_.emplace(object->GetIdentityHash(), object);
    todo_.push_back(object);
  }
  void AddAll(v8::Local<v8::Array> items) {
    for (uint32_t n = 0; n < items->Length(); n++) {
      v8::Local<v8::Value> item;
      if (items->Get(context_, n).ToLocal(&item)) Add(item);
    }
  }

  v8::Isolate* iso_;
  v8::Local<v8::Context> context_;
  std::vector<v8::Local<v8::Object>> todo_;
  std::unordered_multimap<int, v8::Local<v8::Object>> seen_;
};

}  // namespace

void KeepCount(bh_isolate* i, v8::Local<v8::ArrayBuffer> buffer) {
  auto r = std::make_unique<Resizable>();
  r->owner = i;
  r->at = i->resizables.size();
  r->max = buffer->MaxByteLength();
  r->buffer.Reset(i->iso, buffer);
  r->buffer.SetWeak(r.get(), Gone, v8::WeakCallbackType::kParameter);
  i->resizable_space += r->max;
  i->resizables_made = true;
  i->resizables.push_back(std::move(r));
}

size_t MostResizable(std::string_view serialized) {
  constexpr char kTag = '~';  // v8/src/objects/value-serializer.cc, kResizableArrayBuffer
  size_t count = 0;
  for (size_t at = 0; (at = serialized.find(kTag, at)) != std::string_view::npos; at++) count++;
  return count;
}

bool CountResizable(bh_isolate* i, v8::Local<v8::Context> context, v8::Local<v8::Value> clone) {
  bool fits = true;
  v8::HandleScope scope(i->iso);
  bool walked = Walk(i->iso, context).Run(clone, [&](v8::Local<v8::ArrayBuffer> buffer) {
    if (!Fits(i, buffer->MaxByteLength())) fits = false;
    KeepCount(i, buffer);
  });
  return walked && fits;
}

void InstallResizableFunctions(v8::Isolate* iso, v8::Local<v8::Context> c,
                               v8::Local<v8::Object> host) {
  SetFunction(iso, c, host, "askResizable", AskResizable);
  SetFunction(iso, c, host, "dropResizable", DropResizable);
  SetFunction(iso, c, host, "keepResizable", KeepResizable);
}

}  // namespace bulkhead
