package engine

import (
	"encoding/binary"
	"fmt"
	"iter"
	"time"

	"bulkhead/sandboxworker/engine/native"
	"bulkhead/schema/gen"
)

// TurnStatus is how a turn ended.
type TurnStatus uint8

// The statuses. After OutOfMemory and Fatal the isolate must be disposed of.
const (
	OK          TurnStatus = native.OK
	Terminated  TurnStatus = native.Terminated  // by Terminate; pending microtasks are lost, code was cut anywhere
	OutOfMemory TurnStatus = native.OutOfMemory // the tenant passed its memory limit
	Fatal       TurnStatus = native.Fatal       // the isolate was not usable
)

// String names the status for logs.
func (s TurnStatus) String() string {
	switch s {
	case OK:
		return "ok"
	case Terminated:
		return "terminated"
	case OutOfMemory:
		return "out of memory"
	case Fatal:
		return "fatal"
	}
	return fmt.Sprintf("status %d", uint8(s))
}

// Turn is what one event led to.
type Turn struct {
	Status      TurnStatus
	Reason      Reason        // why, unless Status is OK
	CPU         time.Duration // of the executor's thread
	NextTimerMs float64       // JS time of the next Timer call, < 0: none
	// NextTimerInv is the invocation that call will run for, 0: none. The tenant's word.
	NextTimerInv uint32

	out    []byte
	of     *Isolate
	output uint64 // which of its outputs
}

// keepOutput is how much output an isolate keeps until its next turn overwrites it.
const keepOutput = 64 << 10

// RecordKind says which fields of a Record count.
type RecordKind uint8

// What JavaScript did, in the order it did it.
const (
	RecordHead     RecordKind = native.Head     // Inv, Status, Headers, Data, BodyMode: the response begins
	RecordChunk    RecordKind = native.Chunk    // Inv, Data, Frame: response body
	RecordEnd      RecordKind = native.End      // Inv: the response body is complete
	RecordAbort    RecordKind = native.Abort    // Inv, Text: the response body failed
	RecordCredit   RecordKind = native.Credit   // Inv, N: bytes of the request body consumed
	RecordFinished RecordKind = native.Finished // Inv, Outcome, Text: the invocation is over
	RecordLog      RecordKind = native.Log      // Inv (0: none), Level, Text
	RecordOp       RecordKind = native.Op       // ID, Inv, Code, Text (the meta), Data: do it, answer by OpResult
	RecordRefuse   RecordKind = native.Refuse   // Inv: the rest of the request body is not wanted
)

// Record is one thing JavaScript did. Its slices are memory of the isolate and live until its
// next turn. Everything in it is the tenant's word: ids it was never given, bodies beyond the
// window and unknown codes must be expected.
type Record struct {
	Kind     RecordKind
	Inv      uint32
	Status   int
	BodyMode gen.BodyMode
	Outcome  gen.Outcome
	Level    gen.LogEntry_Level
	N        uint32
	ID       uint32
	Code     uint32
	Headers  []byte
	Text     []byte // UTF-8
	Data     []byte
	// Chunk only: ChunkRoom bytes, Data, and zeros to a multiple of eight, for a frame to be made of it
	// in place. Writing there leaves the other records as they are.
	Frame []byte
}

// ChunkRoom is where Data begins in Frame.
const ChunkRoom = native.ChunkRoom

// Records yields what JavaScript did, in order.
func (t *Turn) Records() iter.Seq[Record] {
	return func(yield func(Record) bool) {
		for r := range t.all() {
			if r.Kind <= RecordRefuse && !yield(r) {
				return
			}
		}
	}
}

// all decodes the native buffer. It is written by our own code: a length that does not fit is a
// bug there, and ends the process rather than read past it. So does reading it too late: the memory
// may be another tenant's by then.
func (t *Turn) all() iter.Seq[Record] {
	return func(yield func(Record) bool) {
		for b := t.out; len(b) > 0; {
			if t.of.outputs != t.output {
				panic("BUG: a turn's records are read after the isolate's next turn")
			}
			n1 := uint64(binary.LittleEndian.Uint32(b[16:]))
			n2 := uint64(binary.LittleEndian.Uint32(b[20:]))
			end := native.RecordSize + n1 + n2
			one, two := b[native.RecordSize:native.RecordSize+n1:native.RecordSize+n1], b[native.RecordSize+n1:end:end]
			r := Record{Kind: RecordKind(b[0]), Inv: binary.LittleEndian.Uint32(b[4:]), Data: two}
			mode, a := b[1], binary.LittleEndian.Uint32(b[8:])
			r.ID = binary.LittleEndian.Uint32(b[12:])
			switch r.Kind {
			case RecordHead:
				r.Status, r.BodyMode, r.Headers = int(binary.LittleEndian.Uint16(b[2:])), gen.BodyMode(mode), one
			case RecordFinished:
				r.Outcome, r.Text = gen.Outcome(mode), one
			case RecordLog:
				r.Level, r.Text = gen.LogEntry_Level(mode), one
			case RecordOp:
				r.Code, r.Text = a, one
			case RecordChunk:
				r.Data, r.Frame = two[:a:a], b[native.RecordSize:end:end]
			default:
				r.N, r.Text = a, one
			}
			if !yield(r) {
				return
			}
			b = b[end:]
		}
	}
}
