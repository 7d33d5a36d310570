// The code cache of a tenant's bundle: one blob for all its ES modules.
//
//   "BHC1", u32 count, then for each module:
//   u32 name length, u32 source length, u64 fingerprint of the source,
//   u32 data length, u64 fingerprint of the data, name, data
//
// Little-endian, unaligned. V8 checks its own version, flags and the source's length in the data, and
// no more: it trusts the rest. So does this file, once the lengths and fingerprints fit; they are
// there against accidents. Who made the blob is the caller's concern (engine.Bundle).

#include "codecache.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "modules.h"

namespace bulkhead {
namespace {

constexpr char kMagic[4] = {'B', 'H', 'C', '1'};
// A worker of 1 MB whose every function was called makes some 3 MB.
constexpr size_t kMost = 4u << 20;

#pragma pack(push, 1)
struct Entry {
  uint32_t name_len, source_len;
  uint64_t source;
  uint32_t data_len;
  uint64_t data;
};
#pragma pack(pop)

// Takes n bytes off the front, or nothing when there are fewer.
bool Cut(std::string_view* from, size_t n, std::string_view* out) {
  if (n > from->size()) return false;
  *out = from->substr(0, n);
  from->remove_prefix(n);
  return true;
}

bool CutEntry(std::string_view* from, Entry* e, std::string_view* name, std::string_view* data) {
  std::string_view head;
  if (!Cut(from, sizeof *e, &head)) return false;
  std::memcpy(e, head.data(), sizeof *e);
  return Cut(from, e->name_len, name) && Cut(from, e->data_len, data);
}

template <typename T>
void Put(std::string* out, const T& v) {
  out->append(reinterpret_cast<const char*>(&v), sizeof v);
}

}  // namespace

uint64_t Fingerprint(std::string_view s) {
  constexpr uint64_t kOdd = 0x9E3779B97F4A7C15;
  uint64_t h = s.size() * kOdd;
  for (size_t i = 0; i < s.size(); i += 8) {
    uint64_t w = 0;
    std::memcpy(&w, s.data() + i, std::min<size_t>(8, s.size() - i));
    h = (h ^ w) * kOdd;
    h ^= h >> 32;
  }
  return h;
}

}  // namespace bulkhead

extern "C" {

void bh_add_code_cache(bh_isolate* i, const void* bytes, size_t len) {
  using namespace bulkhead;
  std::string_view blob(static_cast<const char*>(bytes), len), magic, count;
  if (len > kMost || !Cut(&blob, sizeof kMagic, &magic) ||
      std::memcmp(magic.data(), kMagic, sizeof kMagic) != 0 || !Cut(&blob, 4, &count)) {
    return;
  }
  uint32_t left;
  std::memcpy(&left, count.data(), sizeof left);
  for (; left > 0; left--) {
    Entry e;
    std::string_view name, data;
    if (!CutEntry(&blob, &e, &name, &data)) return;
    size_t at = Lookup(i, std::string(name));
    if (at == kNotFound || Fingerprint(data) != e.data) continue;
    BundleModule& m = i->modules[at];
    if (m.kind != kEsm || m.code.size() != e.source_len || m.source != e.source) continue;
    if (!m.cache.empty()) continue;
    m.cache = data;
    i->bundle_bytes += m.cache.size();
  }
}

uint8_t* bh_code_cache(bh_isolate* i, size_t* len) {
  using namespace bulkhead;
  *len = 0;
  if (!i->usable) return nullptr;
  v8::Isolate* iso = i->iso;
  bulkhead::Held held(i);
  v8::Isolate::Scope isolate_scope(iso);
  std::string body;
  uint32_t count = 0;
  for (const BundleModule& m : i->modules) {
    v8::HandleScope scope(iso);
    if (m.kind != kEsm || m.module.IsEmpty()) continue;
    v8::Local<v8::Module> module = m.module.Get(iso);
    if (module->GetStatus() == v8::Module::kErrored) continue;
    std::unique_ptr<v8::ScriptCompiler::CachedData> made(
        v8::ScriptCompiler::CreateCodeCache(module->GetUnboundModuleScript()));
    if (made == nullptr || made->length <= 0) continue;
    std::string_view data(reinterpret_cast<const char*>(made->data),
                          static_cast<size_t>(made->length));
    if (data.size() + m.name.size() + body.size() > kMost - 1024) return nullptr;
    Put(&body, Entry{static_cast<uint32_t>(m.name.size()), m.source_len, m.source,
                     static_cast<uint32_t>(data.size()), Fingerprint(data)});
    body.append(m.name).append(data);
    count++;
  }
  if (count == 0) return nullptr;
  std::string head(kMagic, sizeof kMagic);
  Put(&head, count);
  auto* out = static_cast<uint8_t*>(malloc(head.size() + body.size()));
  if (out == nullptr) return nullptr;
  std::memcpy(out, head.data(), head.size());
  std::memcpy(out + head.size(), body.data(), body.size());
  *len = head.size() + body.size();
  return out;
}

uint32_t bh_cached_modules(const bh_isolate* i) { return i->cached_modules; }

}  // extern "C"
