// Buffers for what a turn says, kept by the process for the next turn that says much.

#ifndef BULKHEAD_SLABS_H_
#define BULKHEAD_SLABS_H_

#include <cstddef>
#include <cstdint>

namespace bulkhead {

// A window of body in chunks, their records, and as much again of one chunk.
constexpr size_t kSlabBytes = 320u << 10;

// A slab whose bytes are all zero, or null.
uint8_t* TakeSlab();
// Takes a slab back, of which `used` bytes were written, and wipes them.
void GiveSlab(uint8_t* slab, size_t used);
// Gives the slabs that nobody has back to the kernel.
void DropSlabs();

}  // namespace bulkhead

#endif  // BULKHEAD_SLABS_H_
