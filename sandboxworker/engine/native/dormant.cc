#include "dormant.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>

namespace bulkhead {
namespace {

constexpr size_t kPage = 4096;

// Set once, by tests. Process-global because the death of one is that of all.
std::atomic<bool> guard{false};

// Not libc's name: to segments.cc the protection of a part would be the end of the segment. V8 would
// not live with what it finds there if this failed.
void Protect(uintptr_t at, size_t size, int prot) {
  if (syscall(SYS_mprotect, at, size, prot) != 0) abort();
}

// Lets this thread write to protected memory.
class Writable {
 public:
  Writable(uintptr_t at, size_t size, Protection p)
      : at_(at), size_(size), protection_(p) {
    if (p.read_only) Protect(at_, size_, PROT_READ | PROT_WRITE);
    if (p.key > 0) {
      rights_ = pkey_get(p.key);
      if (rights_ < 0 || pkey_set(p.key, 0) != 0) abort();
    }
  }
  ~Writable() {
    if (protection_.key > 0 && pkey_set(protection_.key, static_cast<unsigned>(rights_)) != 0) abort();
    if (protection_.read_only) Protect(at_, size_, PROT_READ);
  }
  Writable(const Writable&) = delete;
  Writable& operator=(const Writable&) = delete;

 private:
  uintptr_t at_;
  size_t size_;
  Protection protection_;
  int rights_ = 0;
};

}  // namespace

// How many bytes from `at` on follow the pattern of its first words.
size_t Dormant::Regular(uintptr_t at, size_t size, Run* run) {
  auto* words = reinterpret_cast<const uint64_t*>(at);
  size_t n = size / sizeof(uint64_t);
  for (size_t k = 0; k < kPeriod; k++) {
    run->first[k] = words[k];
    run->step[k] = words[k + kPeriod] - words[k];
  }
  size_t k = 2 * kPeriod;
  while (k < n && words[k] - words[k - kPeriod] == run->step[k % kPeriod]) k++;
  return k * sizeof(uint64_t);
}

void Dormant::Sleep(uintptr_t at, size_t size, Protection protection) {
  uintptr_t end = at + size;
  for (uintptr_t p = (at + kPage - 1) & ~(kPage - 1); p + kPage <= end;) {
    Run run{.at = p, .pages = 0, .protection = protection, .guarded = false, .first = {}, .step = {}};
    run.pages = Regular(p, end - p, &run) / kPage;
    if (run.pages == 0) {
      p += kPage;
      continue;
    }
    // Noted first: what could not be noted is not given back.
    runs_.push_back(run);
    if (madvise(reinterpret_cast<void*>(p), run.pages * kPage, MADV_DONTNEED) != 0) {
      runs_.pop_back();
    } else if (guard.load(std::memory_order_relaxed)) {
      Protect(p, run.pages * kPage, PROT_NONE);
      runs_.back().guarded = true;
    }
    p += run.pages * kPage;
  }
}

void Dormant::Wake() {
  for (const Run& run : runs_) {
    if (run.guarded) {
      Protect(run.at, run.pages * kPage, run.protection.read_only ? PROT_READ : PROT_READ | PROT_WRITE);
    }
    bool zeros = true;
    for (size_t k = 0; k < kPeriod; k++) zeros = zeros && run.first[k] == 0 && run.step[k] == 0;
    if (zeros) continue;  // are there already, or what was written since
    size_t size = run.pages * kPage;
    Writable writable(run.at, size, run.protection);
    auto* words = reinterpret_cast<uint64_t*>(run.at);
    for (size_t k = 0; k < kPeriod; k++) words[k] = run.first[k];
    for (size_t k = kPeriod; k < size / sizeof(uint64_t); k++) {
      words[k] = words[k - kPeriod] + run.step[k % kPeriod];
    }
  }
  runs_.clear();
}

void Dormant::Guard() { guard.store(true, std::memory_order_relaxed); }

size_t Dormant::bytes() const {
  size_t n = 0;
  for (const Run& run : runs_) n += run.pages * kPage;
  return n;
}

}  // namespace bulkhead
