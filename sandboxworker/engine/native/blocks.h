// What V8 takes from malloc for an isolate and leaves empty: a table that only collections use, mark
// bits. V8 clears them, so they take memory although they hold nothing but zeros. The kernel gives
// zeros to whoever reads a page it was given back: nobody can tell.

#ifndef BULKHEAD_BLOCKS_H_
#define BULKHEAD_BLOCKS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace bulkhead {

// The large blocks of one isolate, from its making to its disposal.
class Blocks {
 public:
  Blocks() = default;
  ~Blocks();
  Blocks(const Blocks&) = delete;
  Blocks& operator=(const Blocks&) = delete;
  // Calls f(address, bytes) for each that is still there. None is freed meanwhile.
  void Each(const std::function<void(uintptr_t, size_t)>& f);

 private:
  friend class BlocksBeingMade;
  // Keys of the table of all blocks in blocks.cc. Under one there may be another's by now.
  std::vector<uintptr_t> at_;
};

// While one of these lives, small pieces that this thread takes from operator new are added to a count,
// and what it frees is taken off.
class CountSmall {
 public:
  explicit CountSmall(int64_t* count);
  ~CountSmall();
  CountSmall(const CountSmall&) = delete;
  CountSmall& operator=(const CountSmall&) = delete;

 private:
  int64_t* before_;
};

// While one of these lives, what this thread gets from operator new is noted: the large blocks in
// `blocks`. When it goes, the zeros in all that is still there are dropped: nobody but this thread
// has seen it yet.
class BlocksBeingMade {
 public:
  explicit BlocksBeingMade(Blocks* blocks);
  ~BlocksBeingMade();
  BlocksBeingMade(const BlocksBeingMade&) = delete;
  BlocksBeingMade& operator=(const BlocksBeingMade&) = delete;

 private:
  Blocks* blocks_;
};

}  // namespace bulkhead

#endif  // BULKHEAD_BLOCKS_H_
