#include "alloc.h"

#include <cstring>
#include <memory>
#include <mutex>

#include "scrub.h"

namespace {

// Must be process-global: it is V8's own allocator with the sandbox's address space behind it, as
// there is one sandbox. Written once, before the first isolate; lives as long as the process.
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
    bulkhead::WipeMemory(p, used);
    base_allocator->Free(p, kSize);
  }

  void Drop() {
    for (;;) {
      void* p;
      {
        std::lock_guard<std::mutex> lock(mu_);
        if (kept_ == 0) return;
        p = blocks_[--kept_];
      }
      base_allocator->Free(p, kSize);
    }
  }

 private:
  std::mutex mu_;
  size_t kept_ = 0;       // guarded by mu_
  void* blocks_[kKeep];   // guarded by mu_; all zero
};
Blocks blocks;

// V8's allocator gives addresses in the sandbox in steps of this.
constexpr size_t kStep = 128;
// And keeps this much to find them again. Measured, like the step, over 100,000 buffers of 1 to 129
// bytes; what operator new gives for a buffer is counted where it is given (blocks.h).
constexpr size_t kOverhead = 128;

// What a buffer of `length` really takes.
size_t Rounded(size_t length) {
  if (Blocks::Fits(length)) return Blocks::kSize;
  return length > SIZE_MAX - 2 * kStep ? length : (length + kStep - 1) / kStep * kStep + kOverhead;
}

// V8 moves an array this small off its heap when its buffer is first asked for, and aborts the
// process when that is refused. The array itself is far larger and counted as heap.
constexpr size_t kOnHeap = 64;

}  // namespace

bool bh_allocator::Take(size_t length, bool always) {
  uint64_t cap = always ? UINT64_MAX : cap_.load(std::memory_order_relaxed);
  uint64_t used = used_.load(std::memory_order_relaxed);
  do {
    if (length > cap || used > cap - length) return false;
  } while (!used_.compare_exchange_weak(used, used + length, std::memory_order_relaxed));
  return true;
}

void* bh_allocator::Allocate(size_t length) {
  if (!Take(Rounded(length), length <= kOnHeap)) return nullptr;
  void* p = Blocks::Fits(length) ? blocks.Take() : base_allocator->Allocate(length);
  if (p == nullptr) Give(Rounded(length));
  return p;
}

void* bh_allocator::AllocateUninitialized(size_t length) {
  if (!Take(Rounded(length), length <= kOnHeap)) return nullptr;
  void* p = Blocks::Fits(length) ? blocks.Take() : base_allocator->AllocateUninitialized(length);
  if (p == nullptr) Give(Rounded(length));
  return p;
}

void bh_allocator::Free(void* data, size_t length) {
  if (Blocks::Fits(length)) {
    blocks.Give(data, length);
  } else {
    bulkhead::WipeMemory(data, length);
    base_allocator->Free(data, length);
  }
  Give(Rounded(length));
}

size_t bh_allocator::MaxAllocationSize() const { return base_allocator->MaxAllocationSize(); }

v8::PageAllocator* bh_allocator::GetPageAllocator() { return base_allocator->GetPageAllocator(); }

namespace bulkhead {

void MakeBaseAllocator() {
  base_allocator = v8::ArrayBuffer::Allocator::NewDefaultAllocator();
}

void DropBlocks() { blocks.Drop(); }

}  // namespace bulkhead
