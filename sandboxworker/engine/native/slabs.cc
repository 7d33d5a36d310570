#include "slabs.h"

#include <cstdlib>
#include <cstring>
#include <mutex>

namespace bulkhead {
namespace {

// As many as turns say much at once on a machine of a few cores: 1.25 MiB, until the process rests.
constexpr size_t kKeep = 4;

// Process-global because tenants take turns, and each needs a slab for no longer than one.
struct Slabs {
  std::mutex mu;
  size_t kept = 0;      // guarded by mu
  uint8_t* slab[kKeep];  // guarded by mu; all zero
};
Slabs slabs;

}  // namespace

uint8_t* TakeSlab() {
  {
    std::lock_guard<std::mutex> lock(slabs.mu);
    if (slabs.kept > 0) return slabs.slab[--slabs.kept];
  }
  return static_cast<uint8_t*>(calloc(1, kSlabBytes));
}

void GiveSlab(uint8_t* slab, size_t used) {
  explicit_bzero(slab, used);
  {
    std::lock_guard<std::mutex> lock(slabs.mu);
    if (slabs.kept < kKeep) {
      slabs.slab[slabs.kept++] = slab;
      return;
    }
  }
  free(slab);
}

void DropSlabs() {
  for (;;) {
    uint8_t* slab;
    {
      std::lock_guard<std::mutex> lock(slabs.mu);
      if (slabs.kept == 0) return;
      slab = slabs.slab[--slabs.kept];
    }
    free(slab);
  }
}

}  // namespace bulkhead
