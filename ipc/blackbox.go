package ipc

import (
	"bytes"
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
	slotTenant = 16 // u32; Enter writes 0 into slotFault with it
	slotFault  = 20 // u32, the signal the process died of while this executor ran, 0: none
	slotDetail = 24 // 40 bytes, NUL padded: V8's reason
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

// Slot returns a slot's memory, nil of a nil BlackBox: for who writes its fault and detail.
func (b *BlackBox) Slot(slot int) []byte {
	if b == nil {
		return nil
	}
	return b.mem[slot*BlackBoxSlotBytes : (slot+1)*BlackBoxSlotBytes : (slot+1)*BlackBoxSlotBytes]
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
	Tenant uint32 // 0 when it faulted between turns
	Stream uint64 // 0 when no request was concerned
	Turns  uint64 // turns begun in this slot
	Fault  uint32 // the signal the process died of here, 0: not here, or not by a fault
	Detail string // why, in V8's words: printable ASCII, at most 40 bytes
}

// ReadBlackBox returns what a black box says was running, and who faulted. mem is hostile: whatever
// it holds, the result has at most BlackBoxSlots entries.
func ReadBlackBox(mem []byte) []Running {
	var out []Running
	for i := 0; i < BlackBoxSlots && (i+1)*BlackBoxSlotBytes <= len(mem); i++ {
		s := mem[i*BlackBoxSlotBytes:]
		seq := binary.LittleEndian.Uint64(s[slotSeq:])
		r := Running{Slot: i, Turns: (seq + 1) / 2, Fault: fault(binary.LittleEndian.Uint32(s[slotFault:]))}
		if r.Fault != 0 {
			r.Detail = printable(s[slotDetail:BlackBoxSlotBytes])
		}
		switch {
		case seq%2 != 0:
			r.Tenant, r.Stream = binary.LittleEndian.Uint32(s[slotTenant:]), binary.LittleEndian.Uint64(s[slotStream:])
		case r.Fault == 0:
			continue
		}
		out = append(out, r)
	}
	return out
}

// fault returns n where it can be a signal, else 0.
func fault(n uint32) uint32 {
	if n > 64 {
		return 0
	}
	return n
}

// printable returns b up to its first NUL, with a dot for every byte that is not printable ASCII.
func printable(b []byte) string {
	if n := bytes.IndexByte(b, 0); n >= 0 {
		b = b[:n]
	}
	out := bytes.Clone(b)
	for i, c := range out {
		if c < ' ' || c > '~' {
			out[i] = '.'
		}
	}
	return string(out)
}

// ExitOverdue is the exit code of a worker that ended itself because a turn could not be stopped
// and the gateway did not kill it.
const ExitOverdue = 97
