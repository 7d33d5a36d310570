#include "blocks.h"

#include <malloc.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <unordered_map>

namespace bulkhead {
namespace {

constexpr size_t kPage = 4096;
// Smaller blocks need not hold a whole page.
constexpr size_t kNoted = 2 * kPage;
// Blocks of this size stay with the isolate. Below are V8's descriptions of heap pages, which it
// pools, and so may hand from one isolate to another behind our back.
constexpr size_t kOwned = 4 * kPage;
constexpr size_t kMost = 64;  // an isolate has some 20

struct Block {
  uintptr_t at;
  size_t size;
};

// What the thread that makes an isolate has got so far.
thread_local bool making = false;
thread_local size_t made = 0;
thread_local Block blocks[kMost];

// Where this thread counts small pieces, or null.
thread_local int64_t* counted = nullptr;
constexpr size_t kSmallPiece = 1024;
constexpr size_t kMallocHeader = 8;

struct OwnedBlock {
  size_t size;
  const Blocks* owner;
};

// Owned blocks of all isolates, by address. Process-global because operator delete is not told
// whose block it frees. Owned blocks, and no others that operator new gives, begin at a page.
struct Owned {
  std::mutex mu;
  std::unordered_map<uintptr_t, OwnedBlock> blocks;  // guarded by mu
};

Owned& owned() {
  // Never destroyed: blocks are freed until the process is gone.
  static Owned* const all = std::make_unique<Owned>().release();
  return *all;
}

// Holds the table. Its own memory is nobody's block, wherever malloc puts it.
class Hold {
 public:
  Hold() : lock_(owned().mu) { holding = true; }
  ~Hold() { holding = false; }

  static thread_local bool holding;

 private:
  std::lock_guard<std::mutex> lock_;
};
thread_local bool Hold::holding = false;

bool IsZero(uintptr_t page) {
  auto* p = reinterpret_cast<const unsigned char*>(page);
  return p[0] == 0 && memcmp(p, p + 1, kPage - 1) == 0;
}

void DropZerosIn(uintptr_t at, size_t size) {
  uintptr_t end = at + size;
  for (uintptr_t p = (at + kPage - 1) & ~(kPage - 1); p + kPage <= end;) {
    uintptr_t to = p;
    while (to + kPage <= end && IsZero(to)) to += kPage;
    if (to > p) madvise(reinterpret_cast<void*>(p), to - p, MADV_DONTNEED);
    p = to + kPage;
  }
}

// AddressSanitizer has operators of its own: then nothing is noted.
#ifndef __SANITIZE_ADDRESS__

void* New(size_t size) {
  if (!making || size < kNoted || made == kMost) {
    void* p = malloc(size == 0 ? 1 : size);
    if (counted != nullptr && size <= kSmallPiece && p != nullptr) {
      *counted += static_cast<int64_t>(malloc_usable_size(p) + kMallocHeader);
    }
    return p;
  }
  void* p = size < kOwned ? malloc(size) : aligned_alloc(kPage, (size + 15) & ~size_t{15});
  if (p != nullptr) blocks[made++] = {reinterpret_cast<uintptr_t>(p), size};
  return p;
}

void Delete(void* p) {
  auto at = reinterpret_cast<uintptr_t>(p);
  if (counted != nullptr && p != nullptr) {
    size_t size = malloc_usable_size(p);
    if (size <= kSmallPiece) *counted -= static_cast<int64_t>(size + kMallocHeader);
  }
  // A block that is freed belongs to somebody else.
  if (making) {
    for (size_t n = 0; n < made; n++) {
      if (blocks[n].at == at) blocks[n--] = blocks[--made];
    }
  }
  if (at % kPage == 0 && p != nullptr && !Hold::holding) {
    Hold hold;
    owned().blocks.erase(at);
  }
  free(p);
}

#endif

}  // namespace

Blocks::~Blocks() {
  Hold hold;
  for (uintptr_t at : at_) {
    auto it = owned().blocks.find(at);
    if (it != owned().blocks.end() && it->second.owner == this) owned().blocks.erase(it);
  }
}

void Blocks::Each(const std::function<void(uintptr_t, size_t)>& f) {
  // Held throughout, so that no block is freed, and another's, before f is done with it.
  Hold hold;
  for (uintptr_t at : at_) {
    auto it = owned().blocks.find(at);
    // What was freed may be a block of another isolate by now.
    if (it != owned().blocks.end() && it->second.owner == this) f(at, it->second.size);
  }
}

CountSmall::CountSmall(int64_t* count) : before_(counted) { counted = count; }

CountSmall::~CountSmall() { counted = before_; }

BlocksBeingMade::BlocksBeingMade(Blocks* blocks) : blocks_(blocks) {
  making = true;
  made = 0;
}

BlocksBeingMade::~BlocksBeingMade() {
  making = false;
  Hold hold;
  for (size_t n = 0; n < made; n++) {
    DropZerosIn(blocks[n].at, blocks[n].size);
    if (blocks[n].size < kOwned) continue;
    owned().blocks.insert_or_assign(blocks[n].at, OwnedBlock{.size = blocks[n].size, .owner = blocks_});
    blocks_->at_.push_back(blocks[n].at);
  }
}

}  // namespace bulkhead

#ifndef __SANITIZE_ADDRESS__

void* operator new(size_t size) {
  void* p = bulkhead::New(size);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

void operator delete(void* p) noexcept { bulkhead::Delete(p); }

void operator delete(void* p, size_t) noexcept { bulkhead::Delete(p); }

#endif
