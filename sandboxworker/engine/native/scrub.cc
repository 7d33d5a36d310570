#include "scrub.h"

#include <malloc.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "instance.h"

extern "C" {
void __libc_free(void* p);
void* __libc_realloc(void* p, size_t size);
}

namespace bulkhead {
namespace {

constexpr uintptr_t kPage = 4096;
// From here on madvise(2) and the faults after it cost less than to write zeros.
constexpr size_t kLong = 128u << 10;

bool leave_traces = false;  // written once, before there is a tenant

}  // namespace

void LeaveTraces() { leave_traces = true; }

void WipeMemory(void* p, size_t size) {
  if (leave_traces) return;
  auto* at = static_cast<char*>(p);
  if (size >= kLong) {
    uintptr_t from = (reinterpret_cast<uintptr_t>(at) + kPage - 1) & ~(kPage - 1);
    uintptr_t to = (reinterpret_cast<uintptr_t>(at) + size) & ~(kPage - 1);
    if (madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED) == 0) {
      auto end = reinterpret_cast<uintptr_t>(at) + size;
      explicit_bzero(at, from - reinterpret_cast<uintptr_t>(at));
      explicit_bzero(reinterpret_cast<void*>(to), end - to);
      return;
    }
  }
  explicit_bzero(at, size);
}

__attribute__((noinline)) void WipeStack() {
  if (leave_traces) return;
  // The frames of what is called here lie within kOwn below this one.
  constexpr uintptr_t kOwn = 4 * kPage, kLocals = 512;
  auto here = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
  uintptr_t top = (here - kOwn) & ~(kPage - 1);
  // A little less than all of it: this frame may be higher than the one that StackLimit was told of.
  uintptr_t low = (StackLimit() - kReserve * 3 / 4 + kPage - 1) & ~(kPage - 1);
  if (low < top) madvise(reinterpret_cast<void*>(low), top - low, MADV_DONTNEED);
  // No call from here on.
  for (uintptr_t p = top; p < here - kLocals; p += sizeof(uint64_t)) {
    *reinterpret_cast<volatile uint64_t*>(p) = 0;
  }
}

}  // namespace bulkhead

extern "C" {

void bh_wipe_stack(void) { bulkhead::WipeStack(); }

void bh_leave_traces(void) { bulkhead::LeaveTraces(); }

}  // extern "C"

// In place of glibc's: V8, ICU and the C++ library call these too. glibc writes its lists into blocks
// it is given back and leaves the rest as it is (and M_PERTURB spares the small ones, which it caches
// for the thread). AddressSanitizer has its own.
#ifndef __SANITIZE_ADDRESS__

extern "C" {

void free(void* p) noexcept {
  if (p == nullptr) return;
  int saved = errno;  // of a wipe; free leaves it alone (POSIX.1-2024)
  bulkhead::WipeMemory(p, malloc_usable_size(p));
  errno = saved;
  __libc_free(p);
}

void* realloc(void* p, size_t size) noexcept {
  if (p == nullptr) return malloc(size);
  size_t room = malloc_usable_size(p);
  if (size <= room) {
    bulkhead::WipeMemory(static_cast<char*>(p) + size, room - size);
    // glibc gives what it cuts off back by a way of its own.
    return __libc_realloc(p, size);
  }
  // Not glibc's: it may move the block and leave the old one as it was.
  void* larger = malloc(size);
  if (larger == nullptr) return nullptr;
  memcpy(larger, p, room);
  free(p);
  return larger;
}

}  // extern "C"

#endif
