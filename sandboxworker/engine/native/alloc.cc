#include "alloc.h"

#include <memory>

// v8go keeps the allocator every isolate is created with in this global.
extern v8::ArrayBuffer::Allocator* default_allocator;

namespace {

// Must be process-global: it is V8's own allocator, made once by v8go with the sandbox's address
// space behind it. Written once before any isolate with a tenant exists.
v8::ArrayBuffer::Allocator* base_allocator = nullptr;

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
  if (!Take(length)) return nullptr;
  void* p = base_allocator->Allocate(length);
  if (p == nullptr) Give(length);
  return p;
}

void* bh_allocator::AllocateUninitialized(size_t length) {
  if (!Take(length)) return nullptr;
  void* p = base_allocator->AllocateUninitialized(length);
  if (p == nullptr) Give(length);
  return p;
}

void bh_allocator::Free(void* data, size_t length) {
  base_allocator->Free(data, length);
  Give(length);
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
