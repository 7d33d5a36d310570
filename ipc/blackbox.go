package ipc

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"unsafe"
)

// The black box is memory shared between a shard and the gateway that survives the shard. Each
// executor owns one slot, a cache line, and writes into it what it is about to run. The gateway
// reads it when the shard is dead, as a claim: it may narrow the gateway's own list of running
// invocations, never add to it.
const (
	// BlackBoxSlotBytes is the size of a slot: one cache line.
	BlackBoxSlotBytes = 64
	// BlackBoxSlots is the number of slots in a black box.
	BlackBoxSlots = 64
	// BlackBoxBytes is the size of the memory: a page.
	BlackBoxBytes = BlackBoxSlots * BlackBoxSlotBytes
)

// Offsets in a slot. seq is odd while a turn runs.
const (
	slotSeq    = 0  // u64
	slotStream = 8  // u64, 0: no stream (a timer, a start)
	slotTenant = 16 // u32
	slotFault  = 20 // u32, a signal
)

// BlackBox is the writer's view.
type BlackBox struct{ mem []byte }

// NewBlackBox writes into mem, which must be BlackBoxBytes long and 8-byte aligned (a mapping
// is).
func NewBlackBox(mem []byte) (*BlackBox, error) {
	if len(mem) < BlackBoxBytes || uintptr(unsafe.Pointer(&mem[0]))%8 != 0 {
		return nil, fmt.Errorf("black box of %d bytes: need %d, aligned", len(mem), BlackBoxBytes)
	}
	return &BlackBox{mem: mem}, nil
}

func (b *BlackBox) word(slot, off int) *uint64 {
	return (*uint64)(unsafe.Pointer(&b.mem[slot*BlackBoxSlotBytes+off]))
}

// Enter notes that slot's executor is about to run tenant for stream. A nil BlackBox does
// nothing.
func (b *BlackBox) Enter(slot int, tenant uint32, stream uint64) {
	if b == nil {
		return
	}
	atomic.StoreUint64(b.word(slot, slotStream), stream)
	atomic.StoreUint64(b.word(slot, slotTenant), uint64(tenant)) // and no fault
	atomic.AddUint64(b.word(slot, slotSeq), 1)
}

// Leave notes that the turn is over.
func (b *BlackBox) Leave(slot int) {
	if b == nil {
		return
	}
	atomic.AddUint64(b.word(slot, slotSeq), 1)
}

// Running is one executor's claim of what it was running.
type Running struct {
	Slot   int
	Tenant uint32
	Stream uint64 // 0 when no request was concerned
	Turns  uint64 // turns begun in this slot
	Fault  uint32 // signal of the fault that ended the process in this slot's thread, 0: none
	Detail string // V8's last words about it, printable ASCII
}

// ReadBlackBox returns what a black box says was running. mem is hostile: whatever it holds,
// the result has at most BlackBoxSlots entries.
func ReadBlackBox(mem []byte) []Running {
	var out []Running
	for i := 0; i < BlackBoxSlots && (i+1)*BlackBoxSlotBytes <= len(mem); i++ {
		s := mem[i*BlackBoxSlotBytes:]
		seq := binary.LittleEndian.Uint64(s[slotSeq:])
		if seq%2 == 0 {
			continue
		}
		out = append(out, Running{Slot: i, Tenant: binary.LittleEndian.Uint32(s[slotTenant:]),
			Stream: binary.LittleEndian.Uint64(s[slotStream:]), Turns: seq/2 + 1, Fault: binary.LittleEndian.Uint32(s[slotFault:])})
	}
	return out
}
