// Package native is the C++ between V8 and package engine: what v8go does not expose.
//
// Duty: ES modules, the host object, the frozen clock, counting allocators, turns. One call
// delivers one event, runs microtasks dry and leaves the output in a buffer of the isolate.
//
// Trust: the code on the far side of V8 is hostile. No function here coerces a value of
// JavaScript, keeps a pointer into its memory across a call into it, or lets an exception of it
// become anything but a record. V8 itself is trusted with nothing beyond this process.
//
// Invariants: an Isolate is used by one thread at a time and not after Dispose; what a Turn points
// to is overwritten by the isolate's next turn. Only package engine may import this.
package native

// The flags must be those V8's archive was built with: anything else corrupts memory silently.

/*
#cgo CFLAGS: -O2 -Wall -Werror
#cgo CXXFLAGS: -std=c++20 -O2 -fno-rtti -fPIC -Wall -Werror
#cgo CXXFLAGS: -DV8_COMPRESS_POINTERS -DV8_31BIT_SMIS_ON_64BIT_ARCH -DV8_ENABLE_SANDBOX
#cgo CXXFLAGS: -isystem ${SRCDIR}/v8include -isystem ${SRCDIR}/adainclude
#cgo noescape bh_request
#cgo noescape bh_chunk
#cgo noescape bh_end
#cgo noescape bh_abort
#cgo noescape bh_window
#cgo noescape bh_timer
#cgo noescape bh_op_result
#cgo nocallback bh_request
#cgo nocallback bh_chunk
#cgo nocallback bh_end
#cgo nocallback bh_abort
#cgo nocallback bh_window
#cgo nocallback bh_timer
#cgo nocallback bh_op_result
#include <stdlib.h>
#include "native.h"
*/
import "C"

import (
	"errors"
	"syscall"
	"unsafe"

	_ "github.com/ada-url/goada" // links Ada, whose C API url.cc calls
	_ "github.com/tommie/v8go"   // links V8
)

// Turn statuses and the one reason native code itself gives.
const (
	OK          = C.BH_OK
	Terminated  = C.BH_TERMINATED
	OutOfMemory = C.BH_OUT_OF_MEMORY
	Fatal       = C.BH_FATAL

	ReasonMemory = C.BH_REASON_MEMORY
)

// Record kinds, as in native.h.
const (
	Head       = C.BH_HEAD
	Chunk      = C.BH_CHUNK
	End        = C.BH_END
	Abort      = C.BH_ABORT
	Credit     = C.BH_CREDIT
	Finished   = C.BH_FINISHED
	Log        = C.BH_LOG
	Op         = C.BH_OP
	Refuse     = C.BH_REFUSE
	Loaded     = C.BH_LOADED
	Diagnostic = C.BH_DIAGNOSTIC
	Excerpt    = C.BH_EXCERPT
)

// HeapOvershoot is how far past its maximum, in bytes, V8's heap may grow before it aborts.
const HeapOvershoot = C.BH_HEAP_OVERSHOOT

// RecordSize is the size of a record's header in bytes.
const RecordSize = C.sizeof_bh_record

// ChunkRoom is what a Chunk record has before its data.
const ChunkRoom = C.BH_CHUNK_ROOM

// Isolate is the native half of an isolate. The zero value is none: its turns end Fatal, and nothing else
// it is asked does anything.
type Isolate struct{ p *C.bh_isolate }

// Turn is the result of one turn. Out is memory of the isolate.
type Turn struct {
	Status, Reason uint8
	CPUNanos       int64
	NextTimerMs    float64
	NextTimerInv   uint32
	Out            []byte
}

// Init initialises V8 with its flags, entropy and platform, and says whether there is WebAssembly.
// Once, before the first isolate.
func Init(flags string, wasm bool) {
	f := C.CString(flags)
	defer C.free(unsafe.Pointer(f))
	C.bh_process_init(f, flag(wasm))
}

// SetSource keeps the runtime's source for the life of the process. It must be ASCII.
func SetSource(src []byte) error {
	if C.bh_process_set_source((*C.char)(bytesPtr(src)), C.size_t(len(src))) == 0 {
		return errors.New("the runtime's source is not ASCII")
	}
	return nil
}

// SetData lets the runtime ask for bytes by number, for the life of the process. They are not copied:
// s must be a constant, or a part of one, which no collector ever frees. Before the first isolate.
func SetData(n int, s string) {
	C.bh_process_set_data(C.uint32_t(n), unsafe.Pointer(unsafe.StringData(s)), C.size_t(len(s)))
}

// CodeCacheSize returns the bytes of the code cache isolates bootstrap from, 0 before it is made.
func CodeCacheSize() int { return int(C.bh_process_code_cache_size()) }

// HandleFaults takes over the signals of faults outside Go's code, which lies between from and to.
func HandleFaults(from, to uintptr) error {
	if errno := C.bh_handle_faults(C.uintptr_t(from), C.uintptr_t(to)); errno != 0 {
		return syscall.Errno(errno)
	}
	return nil
}

// BindBlackBox makes slot the calling thread's place for last words. It must be mapped memory, not
// Go's; nil: none.
func BindBlackBox(slot []byte) { C.bh_bind_black_box(bytesPtr(slot)) }

// FaultForTest is a fault of native code by this signal.
func FaultForTest(sig syscall.Signal) { C.bh_fault_for_test(C.int(sig)) }

// New makes an isolate with one context and a heap of at most heapMax bytes.
func New(heapMax uint64) Isolate { return Isolate{C.bh_isolate_new(C.uint64_t(heapMax))} }

// Bootstrap compiles and starts the runtime. memoryLimit is in bytes.
func (i Isolate) Bootstrap(memoryLimit uint64) error {
	return message(C.bh_bootstrap(i.p, C.uint64_t(memoryLimit)))
}

// MakeCodeCache makes the process's code cache of what this isolate has compiled so far. Only
// the first isolate can.
func (i Isolate) MakeCodeCache() error { return message(C.bh_make_code_cache(i.p)) }

// Trim gives spare memory back to the kernel. Garbage is collected before if collect is set, or if there can be
// more than 64 KiB of what has come since the last time; it reports whether it was.
func (i Isolate) Trim(collect bool) bool {
	if i.p == nil {
		return true
	}
	want := C.int(0)
	if collect {
		want = 1
	}
	return C.bh_trim(i.p, want) != 0
}

// DormantCheck is for tests: bytes that Trim gives back of V8's own memory, and in how many ranges they
// are written anew wrongly.
func (i Isolate) DormantCheck() (given, wrong int) {
	var w C.size_t
	n := C.bh_dormant_check(i.p, &w)
	return int(n), int(w)
}

// DormantGuard is for tests: from now on who touches what an idle isolate gave back ends the process.
func DormantGuard() { C.bh_dormant_guard() }

// Dispose wipes the isolate's buffers and gives everything back.
func (i Isolate) Dispose() { C.bh_isolate_dispose(i.p) }

// Terminate stops the turn that runs and reports whether there was one. Any thread.
func (i Isolate) Terminate(reason uint8) bool {
	return i.p != nil && C.bh_terminate(i.p, C.uint8_t(reason)) != 0
}

// Usage returns bytes on the heap, bytes outside it, and the limit of their sum. Any thread.
func (i Isolate) Usage() (heap, external, limit uint64) {
	if i.p == nil {
		return 0, 0, 0
	}
	var u C.bh_usage_t
	C.bh_usage(i.p, &u)
	return uint64(u.heap_bytes), uint64(u.external_bytes), uint64(u.limit_bytes)
}

// DropOutput wipes and gives back the output of the last turn.
func (i Isolate) DropOutput() {
	if i.p != nil {
		C.bh_drop_output(i.p)
	}
}

// SetLimits is called once, before Load.
func (i Isolate) SetLimits(memory uint64, eval, wasm bool, timers, pending uint32) {
	if i.p == nil {
		return
	}
	C.bh_set_limits(i.p, C.uint64_t(memory), flag(eval), flag(wasm), C.uint32_t(timers), C.uint32_t(pending))
}

// AddModule adds a module of the bundle. kind is a gen.Module_Kind.
func (i Isolate) AddModule(name string, kind uint8, code []byte) {
	if i.p == nil {
		return
	}
	C.bh_add_module(i.p, stringPtr(name), C.size_t(len(name)), C.uint8_t(kind), bytesPtr(code), C.size_t(len(code)))
}

// AddEnv adds a variable of the tenant's env.
func (i Isolate) AddEnv(name string, json bool, value string) {
	if i.p == nil {
		return
	}
	C.bh_add_env(i.p, stringPtr(name), C.size_t(len(name)), flag(json), stringPtr(value), C.size_t(len(value)))
}

// AddCodeCache offers a code cache of the modules that were added.
func (i Isolate) AddCodeCache(blob []byte) {
	if i.p == nil {
		return
	}
	C.bh_add_code_cache(i.p, bytesPtr(blob), C.size_t(len(blob)))
}

// CodeCache returns the code cache of what is compiled now, nil for none.
func (i Isolate) CodeCache() []byte {
	if i.p == nil {
		return nil
	}
	var n C.size_t
	p := C.bh_code_cache(i.p, &n)
	if p == nil {
		return nil
	}
	defer C.free(unsafe.Pointer(p))
	return C.GoBytes(unsafe.Pointer(p), C.int(n))
}

// CachedModules returns how many modules were compiled from the code cache.
func (i Isolate) CachedModules() int { return int(C.bh_cached_modules(i.p)) }

// Load compiles and starts the bundle that was added.
func (i Isolate) Load(nowMs float64, main string) Turn {
	if i.p == nil {
		return gone
	}
	return turn(C.bh_load(i.p, C.double(nowMs), stringPtr(main), C.size_t(len(main))))
}

// Request starts an invocation.
func (i Isolate) Request(nowMs float64, inv uint32, method, url string, headers []byte, mode uint8, body []byte, requestID string, attempt uint8) Turn {
	if i.p == nil {
		return gone
	}
	return turn(C.bh_request(i.p, C.double(nowMs), C.uint32_t(inv),
		stringPtr(method), C.size_t(len(method)), stringPtr(url), C.size_t(len(url)),
		bytesPtr(headers), C.size_t(len(headers)), C.uint8_t(mode), bytesPtr(body), C.size_t(len(body)),
		stringPtr(requestID), C.size_t(len(requestID)), C.uint8_t(attempt)))
}

// Chunk delivers bytes of a request body.
func (i Isolate) Chunk(nowMs float64, inv uint32, data []byte) Turn {
	if i.p == nil {
		return gone
	}
	return turn(C.bh_chunk(i.p, C.double(nowMs), C.uint32_t(inv), bytesPtr(data), C.size_t(len(data))))
}

// End says that a request body is complete.
func (i Isolate) End(nowMs float64, inv uint32) Turn {
	if i.p == nil {
		return gone
	}
	return turn(C.bh_end(i.p, C.double(nowMs), C.uint32_t(inv)))
}

// Abort says that the client left or a body failed. reason is a gen.Abort_Reason.
func (i Isolate) Abort(nowMs float64, inv uint32, reason uint8, msg string) Turn {
	if i.p == nil {
		return gone
	}
	return turn(C.bh_abort(i.p, C.double(nowMs), C.uint32_t(inv), C.uint8_t(reason), stringPtr(msg), C.size_t(len(msg))))
}

// Window grants n more bytes of a response body.
func (i Isolate) Window(nowMs float64, inv uint32, n uint32) Turn {
	if i.p == nil {
		return gone
	}
	return turn(C.bh_window(i.p, C.double(nowMs), C.uint32_t(inv), C.uint32_t(n)))
}

// Timer runs what is due at or before nominalMs.
func (i Isolate) Timer(nominalMs float64) Turn {
	if i.p == nil {
		return gone
	}
	return turn(C.bh_timer(i.p, C.double(nominalMs)))
}

// OpResult answers an operation.
func (i Isolate) OpResult(nowMs float64, op uint32, ok bool, meta string, data []byte) Turn {
	if i.p == nil {
		return gone
	}
	return turn(C.bh_op_result(i.p, C.double(nowMs), C.uint32_t(op), flag(ok), stringPtr(meta), C.size_t(len(meta)), bytesPtr(data), C.size_t(len(data))))
}

// gone is the turn of an isolate that is none.
var gone = Turn{Status: Fatal, NextTimerMs: -1}

func turn(t *C.bh_turn) Turn {
	return Turn{
		Status:      uint8(t.status),
		Reason:      uint8(t.reason),
		CPUNanos:    int64(t.cpu_ns),
		NextTimerMs: float64(t.next_timer_ms), NextTimerInv: uint32(t.next_timer_inv),
		Out: unsafe.Slice((*byte)(unsafe.Pointer(t.out)), int(t.out_len)),
	}
}

func message(m *C.char) error {
	if m == nil {
		return nil
	}
	defer C.bh_free(m)
	return errors.New(C.GoString(m))
}

func bytesPtr(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }

func stringPtr(s string) *C.char { return (*C.char)(unsafe.Pointer(unsafe.StringData(s))) }

func flag(b bool) C.int {
	if b {
		return 1
	}
	return 0
}

// WipeStack zeroes what is left below on the calling thread's C stack.
func WipeStack() { C.bh_wipe_stack() }

// LeaveTraces turns off the wiping of freed memory and of stacks, for good.
func LeaveTraces() { C.bh_leave_traces() }

// LetClockMove turns off the frozen clock, for good.
func LetClockMove() { C.bh_let_clock_move() }

// TrimProcess gives pages of the C++ heap that hold nothing back to the kernel.
func TrimProcess() { C.bh_process_trim() }
