// The tables in which V8 keeps an isolate's pointers out of its sandbox's reach (external pointers,
// trusted pointers, dispatch entries, ...): segments of 64 KiB, mapped when the isolate is made.

#ifndef BULKHEAD_SEGMENTS_H_
#define BULKHEAD_SEGMENTS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace bulkhead {

// What keeps this thread from writing to memory.
struct Protection {
  bool read_only = false;
  int key = 0;  // of pkeys(7); 0: none
};

// Those of one isolate that were mapped while it was made and are still there.
class Segments {
 public:
  Segments() = default;
  ~Segments();
  Segments(const Segments&) = delete;
  Segments& operator=(const Segments&) = delete;
  // Calls f(address, bytes, how to write to it) for each. None is unmapped meanwhile.
  void Each(const std::function<void(uintptr_t, size_t, Protection)>& f);

 private:
  friend class SegmentsBeingMade;
  // Keys of the table of all segments in segments.cc. Under one there may be another's by now.
  std::vector<uintptr_t> at_;
};

// While one of these lives, what this thread makes accessible is noted.
class SegmentsBeingMade {
 public:
  explicit SegmentsBeingMade(Segments* segments);
  ~SegmentsBeingMade();
  SegmentsBeingMade(const SegmentsBeingMade&) = delete;
  SegmentsBeingMade& operator=(const SegmentsBeingMade&) = delete;
};

}  // namespace bulkhead

#endif  // BULKHEAD_SEGMENTS_H_
