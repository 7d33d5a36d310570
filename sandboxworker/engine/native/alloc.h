// An ArrayBuffer allocator per isolate that counts and caps, in front of V8's own.

#ifndef BULKHEAD_ALLOC_H_
#define BULKHEAD_ALLOC_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "native.h"
#include "v8-array-buffer.h"

// V8 keeps a raw pointer to it in every backing store it makes, and a backing store can outlive
// its isolate's disposal by a little: the object deletes itself when the isolate's hold and the
// last allocation are both gone.
struct bh_allocator final : public v8::ArrayBuffer::Allocator {
 public:
  void* Allocate(size_t length) override;
  void* AllocateUninitialized(size_t length) override;
  void Free(void* data, size_t length) override;
  size_t MaxAllocationSize() const override;
  v8::PageAllocator* GetPageAllocator() override;

  void SetCap(uint64_t bytes) { cap_.store(bytes, std::memory_order_relaxed); }
  uint64_t used() const { return used_.load(std::memory_order_relaxed); }
  // Drop one hold; the last one deletes the allocator.
  void Release();

 private:
  // Reserve `length` bytes of the cap and a hold, or refuse.
  bool Take(size_t length);
  void Give(size_t length);

  std::atomic<uint64_t> used_{0};
  std::atomic<uint64_t> cap_{UINT64_MAX};
  std::atomic<uint64_t> holds_{1};  // the isolate's, and one for each allocation
};

#endif  // BULKHEAD_ALLOC_H_
