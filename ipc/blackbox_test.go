package ipc

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

// Last words are read without trust: bounded, printable, and a fault only where it can be a signal.
func TestBlackBoxLastWords(t *testing.T) {
	words := make([]uint64, BlackBoxBytes/8)
	mem := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), BlackBoxBytes) // aligned
	box, err := NewBlackBox(mem)
	if err != nil {
		t.Fatal(err)
	}
	box.Enter(0, 7, 70)
	binary.LittleEndian.PutUint32(box.Slot(0)[20:], 5)
	copy(box.Slot(0)[24:], "Fatal \x1b[31m\xff\x00hidden")
	copy(box.Slot(1)[20:], bytes.Repeat([]byte{0xff}, 44)) // no signal, no turn
	binary.LittleEndian.PutUint32(box.Slot(2)[20:], 11)    // between turns
	copy(box.Slot(2)[24:], bytes.Repeat([]byte{'x'}, 40))
	want := []Running{{Slot: 0, Tenant: 7, Stream: 70, Turns: 1, Fault: 5, Detail: "Fatal .[31m."}, {Slot: 2, Fault: 11, Detail: strings.Repeat("x", 40)}}
	if got := ReadBlackBox(mem); !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	box.Leave(0)
	box.Enter(0, 8, 80)
	if got := ReadBlackBox(mem)[0]; got.Tenant != 8 || got.Fault != 0 || got.Detail != "" {
		t.Errorf("the next turn inherits a fault: %+v", got)
	}
	if (*BlackBox)(nil).Slot(3) != nil {
		t.Error("a slot of no black box")
	}
}
