#include "alloc.h"

#include <cstring>
#include <memory>
#include <mutex>

// v8go keeps the allocator every isolate is created with in this global.
extern v8::ArrayBuffer::Allocator* default_allocator;

namespace {

// Must be process-global: it is V8's own allocator, made once by v8go with the sandbox's address
// space behind it. Written once before any isolate with a tenant exists.
v8::ArrayBuffer::Allocator* base_allocator = nullptr;

// Blocks of the size of a body chunk, kept for the next one. V8's allocator gives the pages of each
// freed block back to the kernel; to fault them in again for the next chunk cost more than all else
// that is done with it. Process-global because tenants take turns: one block serves all of them.
// No tenant sees another's bytes: a block is zeroed when it comes back.
class Blocks {
 public:
  static constexpr size_t kSize = 64u << 10;
  static constexpr size_t kLeast = kSize / 2 + 1;  // shorter buffers are V8's own affair
  static constexpr size_t kKeep = 64;              // 4 MiB a process

  static bool Fits(size_t length) { return length >= kLeast && length <= kSize; }

  void* Take() {
    {
      std::lock_guard<std::mutex> lock(mu_);
      if (kept_ > 0) return blocks_[--kept_];
    }
    return base_allocator->Allocate(kSize);
  }

  void Give(void* p, size_t used) {
    {
      std::lock_guard<std::mutex> lock(mu_);
      if (kept_ < kKeep) {
        memset(p, 0, used);
        blocks_[kept_++] = p;
        return;
      }
    }
    base_allocator->Free(p, kSize);
  }

 private:
  std::mutex mu_;
  size_t kept_ = 0;       // guarded by mu_
  void* blocks_[kKeep];   // guarded by mu_; all zero
};
Blocks blocks;

// What a buffer of `length` really takes.
size_t Rounded(size_t length) { return Blocks::Fits(length) ? Blocks::kSize : length; }

}  // namespace

bool bh_allocator::Take(size_t length) {
  uint64_t cap = cap_.load(std::memory_order_relaxed);
  uint64_t used = used_.load(std::memory_order_relaxed);
  do {
    if (length > cap || used > cap - length) return false;
  } while (!used_.compare_exchange_weak(used, used + length, std::memory_order_relaxed));
  holds_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

void bh_allocator::Give(size_t length) {
  used_.fetch_sub(length, std::memory_order_relaxed);
  Release();
}

void bh_allocator::Release() {
  if (holds_.fetch_sub(1, std::memory_order_acq_rel) == 1) std::unique_ptr<bh_allocator> gone(this);
}

void* bh_allocator::Allocate(size_t length) {
  if (!Take(Rounded(length))) return nullptr;
  void* p = Blocks::Fits(length) ? blocks.Take() : base_allocator->Allocate(length);
  if (p == nullptr) Give(Rounded(length));
  return p;
}

void* bh_allocator::AllocateUninitialized(size_t length) {
  if (!Take(Rounded(length))) return nullptr;
  void* p = Blocks::Fits(length) ? blocks.Take() : base_allocator->AllocateUninitialized(length);
  if (p == nullptr) Give(Rounded(length));
  return p;
}

void bh_allocator::Free(void* data, size_t length) {
  if (Blocks::Fits(length)) {
    blocks.Give(data, length);
  } else {
    base_allocator->Free(data, length);
  }
  Give(Rounded(length));
}

size_t bh_allocator::MaxAllocationSize() const { return base_allocator->MaxAllocationSize(); }

v8::PageAllocator* bh_allocator::GetPageAllocator() { return base_allocator->GetPageAllocator(); }

extern "C" {

void bh_process_adopt_allocator(void) { base_allocator = default_allocator; }

bh_allocator* bh_allocator_install(void) {
  bh_allocator* a = std::make_unique<bh_allocator>().release();
  default_allocator = a;
  return a;
}

void bh_allocator_restore(void) { default_allocator = base_allocator; }

void bh_allocator_release(bh_allocator* a) { a->Release(); }

}  // extern "C"
