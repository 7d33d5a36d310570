// An ArrayBuffer allocator per isolate that counts and caps, in front of V8's own.

#ifndef BULKHEAD_ALLOC_H_
#define BULKHEAD_ALLOC_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "v8-array-buffer.h"

// Shared: every backing store holds the allocator it came from, and can outlive its isolate's
// disposal by a little.
struct bh_allocator final : public v8::ArrayBuffer::Allocator {
 public:
  void* Allocate(size_t length) override;
  void* AllocateUninitialized(size_t length) override;
  void Free(void* data, size_t length) override;
  size_t MaxAllocationSize() const override;
  v8::PageAllocator* GetPageAllocator() override;

  void SetCap(uint64_t bytes) { cap_.store(bytes, std::memory_order_relaxed); }
  uint64_t used() const { return used_.load(std::memory_order_relaxed); }

 private:
  // Reserve `length` bytes of the cap, or refuse.
  bool Take(size_t length);
  void Give(size_t length) { used_.fetch_sub(length, std::memory_order_relaxed); }

  std::atomic<uint64_t> used_{0};
  std::atomic<uint64_t> cap_{UINT64_MAX};
};

namespace bulkhead {
// Once, when V8 is initialised and before the first isolate.
void MakeBaseAllocator();
}  // namespace bulkhead

#endif  // BULKHEAD_ALLOC_H_
