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

  // Reserve `length` bytes of the cap, or refuse. Also for memory of our own that is the tenant's
  // doing, so that one cap holds for all of it. `always`: whatever the cap.
  bool Take(size_t length, bool always = false);
  void Give(size_t length) { used_.fetch_sub(length, std::memory_order_relaxed); }

  void SetCap(uint64_t bytes) { cap_.store(bytes, std::memory_order_relaxed); }
  uint64_t used() const { return used_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> used_{0};
  std::atomic<uint64_t> cap_{UINT64_MAX};
};

namespace bulkhead {

// Memory of ours taken from a tenant's cap for as long as this lives.
class Charge {
 public:
  explicit Charge(bh_allocator* from) : from_(from) {}
  ~Charge() { from_->Give(size_); }
  Charge(const Charge&) = delete;
  Charge& operator=(const Charge&) = delete;
  // Change the charge to `size` bytes. False, and nothing changed, when the cap does not allow it.
  bool Resize(size_t size) {
    if (size > size_ && !from_->Take(size - size_)) return false;
    if (size < size_) from_->Give(size_ - size);
    size_ = size;
    return true;
  }

 private:
  bh_allocator* from_;
  size_t size_ = 0;
};

// Once, when V8 is initialised and before the first isolate.
void MakeBaseAllocator();

// Gives the blocks that were kept for the next chunk of a body back to the kernel.
void DropBlocks();

}  // namespace bulkhead

#endif  // BULKHEAD_ALLOC_H_
