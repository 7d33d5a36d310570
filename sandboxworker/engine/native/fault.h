// Last words: what native code leaves in the black box when the process cannot go on.

#ifndef BULKHEAD_FAULT_H_
#define BULKHEAD_FAULT_H_

#include "v8.h"

namespace bulkhead {

// V8's handlers for CHECK failures and for memory that no isolate asked for. Once, before V8 starts.
void RecordFatalErrors();
// V8's handlers for the misuse of its interface and for a heap that is full.
void RecordFatalErrorsOf(v8::Isolate* iso);

}  // namespace bulkhead

#endif  // BULKHEAD_FAULT_H_
