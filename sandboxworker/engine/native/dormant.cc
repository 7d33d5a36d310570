#include "dormant.h"

#include <sys/mman.h>

#include <cstdlib>

namespace bulkhead {
namespace {

constexpr size_t kPage = 4096;

// Lets this thread write to protected memory.
class Writable {
 public:
  Writable(uintptr_t at, size_t size, Protection p)
      : at_(reinterpret_cast<void*>(at)), size_(size), protection_(p) {
    // V8 would not live with what it finds there otherwise.
    if (p.read_only && mprotect(at_, size_, PROT_READ | PROT_WRITE) != 0) abort();
    if (p.key > 0) {
      rights_ = pkey_get(p.key);
      if (rights_ < 0 || pkey_set(p.key, 0) != 0) abort();
    }
  }
  ~Writable() {
    if (protection_.key > 0 && pkey_set(protection_.key, static_cast<unsigned>(rights_)) != 0) abort();
    if (protection_.read_only && mprotect(at_, size_, PROT_READ) != 0) abort();
  }
  Writable(const Writable&) = delete;
  Writable& operator=(const Writable&) = delete;

 private:
  void* at_;
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
    Run run{.at = p, .pages = 0, .protection = protection, .first = {}, .step = {}};
    run.pages = Regular(p, end - p, &run) / kPage;
    if (run.pages == 0) {
      p += kPage;
      continue;
    }
    // Noted first: what could not be noted is not given back.
    runs_.push_back(run);
    if (madvise(reinterpret_cast<void*>(p), run.pages * kPage, MADV_DONTNEED) != 0) runs_.pop_back();
    p += run.pages * kPage;
  }
}

void Dormant::Wake() {
  for (const Run& run : runs_) {
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

size_t Dormant::bytes() const {
  size_t n = 0;
  for (const Run& run : runs_) n += run.pages * kPage;
  return n;
}

}  // namespace bulkhead
