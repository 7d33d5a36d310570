// An idle isolate's memory without what can be worked out.
//
// Much of what V8 writes when it makes an isolate is regular: each entry of a free list names the next
// one, each entry of an empty cache is the same. A page of that is a few numbers; while nobody runs the
// isolate they are kept instead. The kernel gets the pages back, some 400 KiB an isolate, and they are
// written anew before the isolate is entered, in some 0.1 ms.

#ifndef BULKHEAD_DORMANT_H_
#define BULKHEAD_DORMANT_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "segments.h"

namespace bulkhead {

// What was given back of one isolate. The caller of Sleep and Wake holds the isolate; between the two
// nobody looks at its memory: V8's cache of Wasm code, which other isolates clear, is left where it is.
class Dormant {
 public:
  // Gives back the regular pages of a range of memory.
  void Sleep(uintptr_t at, size_t size, Protection protection);
  // Writes them anew.
  void Wake();
  // How many bytes are given back.
  size_t bytes() const;
  // For tests: from now on nobody may touch what is given back, on pain of death.
  static void Guard();

 private:
  // Words come in entries of 8, 16 or 24 bytes, or in such of 12 bytes, two of which are three words:
  // all repeat, but for a fixed step, after six words.
  static constexpr size_t kPeriod = 6;
  struct Run {
    uintptr_t at;
    size_t pages;
    Protection protection;
    bool guarded;
    uint64_t first[kPeriod];
    uint64_t step[kPeriod];
  };
  static size_t Regular(uintptr_t at, size_t size, Run* run);

  std::vector<Run> runs_;
};

}  // namespace bulkhead

#endif  // BULKHEAD_DORMANT_H_
