// No pool of heap pages.
//
// V8 keeps pages that young generations have given up, with what was in them, for eight seconds and for
// whichever isolate of the process asks first: it takes all isolates for one party's. No flag and no
// function of its interface turns that off, and to have the pool emptied after each disposal would come
// too late for an isolate that grows at that moment. So this is the pool, in place of V8's own
// (v8::internal::PagePool): what is put into it goes back to the kernel at once, just as the pages of old
// generations do. A version of V8 with another pool does not link: what is declared here would be
// missing, or be there twice.

#include <cstddef>

namespace v8::internal {

class Isolate;

class MutablePageMetadata {
 public:
  void ReleaseAllAllocatedMemory();
};

class MemoryAllocator {
 public:
  static void DeleteMemoryChunk(MutablePageMetadata* page);
};

class PagePool {
 public:
  ~PagePool();
  void Add(Isolate* isolate, MutablePageMetadata* page);
  MutablePageMetadata* Remove(Isolate* isolate);
  void ReleaseImmediately(Isolate* isolate);
  void ReleaseOnTearDown(Isolate* isolate);
  void ReleaseUpTo(size_t time);
  void TearDown();
  size_t GetCount(Isolate* isolate) const;
  size_t GetSharedCount() const;
  size_t GetTotalCount() const;
};

PagePool::~PagePool() {}

// As MemoryAllocator::Free does with pages that are not to be pooled.
void PagePool::Add(Isolate*, MutablePageMetadata* page) {
  page->ReleaseAllAllocatedMemory();
  MemoryAllocator::DeleteMemoryChunk(page);
}

MutablePageMetadata* PagePool::Remove(Isolate*) { return nullptr; }
void PagePool::ReleaseImmediately(Isolate*) {}
void PagePool::ReleaseOnTearDown(Isolate*) {}
void PagePool::ReleaseUpTo(size_t) {}
void PagePool::TearDown() {}
size_t PagePool::GetCount(Isolate*) const { return 0; }
size_t PagePool::GetSharedCount() const { return 0; }
size_t PagePool::GetTotalCount() const { return 0; }

}  // namespace v8::internal
