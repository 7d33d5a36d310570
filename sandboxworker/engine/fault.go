package engine

import (
	"fmt"

	"bulkhead/sandboxworker/engine/native"
)

// textRange returns the bounds of Go's code. The linker knows them; no public function tells.
func textRange() (from, to uintptr)

// HandleFaults makes faults of native code end the process by their true signal within a millisecond,
// with the signal in the black box of the thread (BindBlackBox). Left to Go, they would print 125 KB
// and exit with code 2. Faults of Go code stay Go's: a nil dereference can be recovered, a fatal one
// is explained on stderr. Call it once, after Init and before the seal.
//
// Signals that no instruction caused may come out different in the first process of a pid namespace,
// which ignores what it sends itself: SIGABRT (abort of the C library) as SIGILL, SIGBUS as SIGSEGV.
// The black box says the true one.
func HandleFaults() error {
	from, to := textRange()
	if err := native.HandleFaults(from, to); err != nil {
		return fmt.Errorf("engine: handle faults: %w", err)
	}
	return nil
}

// blackBoxSlotBytes is ipc.BlackBoxSlotBytes; native/fault.cc knows the layout. A test compares.
const blackBoxSlotBytes = 64

// BindBlackBox says which slot of a black box (ipc.BlackBox.Slot: 64 mapped bytes) is that of the
// calling thread, which must be locked to its goroutine; nil: none any more. What V8 says when
// it gives up is left there, and the signal it ends with. The memory must stay mapped.
func BindBlackBox(slot []byte) {
	if len(slot) < blackBoxSlotBytes {
		slot = nil
	}
	native.BindBlackBox(slot)
}
