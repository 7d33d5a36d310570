// Nothing of a tenant stays behind in memory that is given back or not used any more.

#ifndef BULKHEAD_SCRUB_H_
#define BULKHEAD_SCRUB_H_

#include <cstddef>

namespace bulkhead {

// Zero `size` bytes of private anonymous memory. The whole pages of long pieces are given back to the
// kernel instead, which costs less and touches none that was never written.
void WipeMemory(void* p, size_t size);

// Zero what calls have left below this frame on this thread's stack. JavaScript must not be running
// on it.
void WipeStack();

// From now on both do nothing. Before the first tenant.
void LeaveTraces();

}  // namespace bulkhead

#endif  // BULKHEAD_SCRUB_H_
