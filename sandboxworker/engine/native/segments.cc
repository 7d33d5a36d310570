#include "segments.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <unordered_map>

namespace bulkhead {
namespace {

// V8's kSegmentSize of its pointer tables. Its heap pages are larger, and malloc's requests do not
// pass here. Another size in another V8 finds nothing and costs memory, not safety: what is noted is
// memory of this isolate, whatever it is for.
constexpr size_t kSegment = 64u << 10;

// A table is at least so large.
constexpr size_t kReservation = 16u << 20;

// Memory with a protection key. V8 gives one to all of a table's reservation, once.
struct Keyed {
  uintptr_t at;
  size_t size;
  int key;
};

struct Segment {
  bool read_only;
  const void* owner;  // the Segments that lists it
};

// All segments of all isolates, by address. Process-global because mprotect is not told whose memory
// it is for.
struct Table {
  std::mutex mu;
  std::unordered_map<uintptr_t, Segment> segments;  // guarded by mu
  std::vector<Keyed> keyed;                         // guarded by mu
  std::atomic<size_t> size{0};                      // of segments, to be read without mu
};

Table& table() {
  // Never destroyed: memory is unmapped until the process is gone.
  static Table* const all = std::make_unique<Table>().release();
  return *all;
}

// For whom this thread makes an isolate.
thread_local const void* owner = nullptr;
thread_local std::vector<uintptr_t>* made = nullptr;

// Whatever was there is not any more, or is not what it was.
void Forget(uintptr_t at, size_t size) {
  Table& t = table();
  if (t.size.load(std::memory_order_relaxed) == 0) return;
  std::lock_guard<std::mutex> lock(t.mu);
  // A reservation of V8's is larger than all the segments there are.
  if (size / kSegment > t.segments.size()) {
    std::erase_if(t.segments, [&](const auto& s) { return s.first < at + size && at < s.first + kSegment; });
  } else {
    for (uintptr_t p = at & ~(kSegment - 1); p < at + size; p += kSegment) t.segments.erase(p);
  }
  t.size.store(t.segments.size(), std::memory_order_relaxed);
}

// Only ever called by V8, through libc's names: malloc and Go's runtime have their own ways.
[[maybe_unused]] void Protected(uintptr_t at, size_t size, int prot) {
  if (size != kSegment || at % kSegment != 0 || prot == PROT_NONE) return Forget(at, size);
  Table& t = table();
  std::lock_guard<std::mutex> lock(t.mu);
  auto it = t.segments.find(at);
  if (it != t.segments.end()) {
    it->second.read_only = prot == PROT_READ;
  } else if (made != nullptr && (prot == PROT_READ || prot == (PROT_READ | PROT_WRITE))) {
    t.segments.emplace(at, Segment{.read_only = prot == PROT_READ, .owner = owner});
    t.size.store(t.segments.size(), std::memory_order_relaxed);
    made->push_back(at);
  }
}

[[maybe_unused]] void KeyGiven(uintptr_t at, size_t size, int key) {
  if (size < kReservation) return;  // code of a Wasm module: there may be any number
  Table& t = table();
  std::lock_guard<std::mutex> lock(t.mu);
  t.keyed.push_back({at, size, key});
}

}  // namespace

Segments::~Segments() {
  Table& t = table();
  std::lock_guard<std::mutex> lock(t.mu);
  for (uintptr_t at : at_) {
    auto it = t.segments.find(at);
    if (it != t.segments.end() && it->second.owner == this) t.segments.erase(it);
  }
  t.size.store(t.segments.size(), std::memory_order_relaxed);
}

void Segments::Each(const std::function<void(uintptr_t, size_t, Protection)>& f) {
  Table& t = table();
  std::lock_guard<std::mutex> lock(t.mu);
  for (uintptr_t at : at_) {
    auto it = t.segments.find(at);
    // V8 gives a segment back, and then to another isolate, of tables that all share.
    if (it == t.segments.end() || it->second.owner != this) continue;
    Protection p{.read_only = it->second.read_only, .key = 0};
    for (const Keyed& k : t.keyed) {  // the last one counts
      if (k.at <= at && at < k.at + k.size) p.key = k.key;
    }
    f(at, kSegment, p);
  }
}

SegmentsBeingMade::SegmentsBeingMade(Segments* segments) {
  owner = segments;
  made = &segments->at_;
}

SegmentsBeingMade::~SegmentsBeingMade() {
  owner = nullptr;
  made = nullptr;
}

}  // namespace bulkhead

// AddressSanitizer has its own of these: then nothing is noted.
#ifndef __SANITIZE_ADDRESS__

extern "C" {

int mprotect(void* at, size_t size, int prot) noexcept {
  auto r = static_cast<int>(syscall(SYS_mprotect, at, size, prot));
  if (r == 0) bulkhead::Protected(reinterpret_cast<uintptr_t>(at), size, prot);
  return r;
}

int pkey_mprotect(void* at, size_t size, int prot, int key) noexcept {
  auto r = static_cast<int>(syscall(SYS_pkey_mprotect, at, size, prot, key));
  if (r == 0) {
    bulkhead::Protected(reinterpret_cast<uintptr_t>(at), size, prot);
    bulkhead::KeyGiven(reinterpret_cast<uintptr_t>(at), size, key);
  }
  return r;
}

void* mmap(void* at, size_t size, int prot, int flags, int fd, off_t offset) noexcept {
  auto r = syscall(SYS_mmap, at, size, prot, flags, fd, offset);
  if (r != -1 && (flags & MAP_FIXED) != 0) bulkhead::Forget(reinterpret_cast<uintptr_t>(at), size);
  return reinterpret_cast<void*>(r);
}

void* mmap64(void* at, size_t size, int prot, int flags, int fd, off_t offset) noexcept {
  return mmap(at, size, prot, flags, fd, offset);
}

int munmap(void* at, size_t size) noexcept {
  bulkhead::Forget(reinterpret_cast<uintptr_t>(at), size);
  return static_cast<int>(syscall(SYS_munmap, at, size));
}

}  // extern "C"

#endif
