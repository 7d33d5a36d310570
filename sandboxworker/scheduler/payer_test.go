package scheduler

import (
	"testing"
	"time"
)

// Whatever is used by invocations that run functions of another one is that one's too: many of them, called at
// once, have no more CPU between them than it has, nor more bytes that excuse CPU than have moved.
func TestFunctionsUseWhatTheirCallerHas(t *testing.T) {
	payer := &invocation{}
	outer := &invocation{payer: payer}
	tn := &tenant{invs: map[uint32]*invocation{1: payer, 2: outer}}
	for id := range uint32(6) {
		tn.invs[3+id] = &invocation{payer: outer}
	}
	payer.t, outer.t = tn, tn
	for _, inv := range tn.invs {
		inv.t = tn
	}
	tn.limits.cpu = time.Hour
	const used = 80 * time.Millisecond
	(&executor{}).share(tn, used)
	if payer.cpu != used {
		t.Errorf("of %v that eight invocations of one caller share it is charged %v", used, payer.cpu)
	}
	inner := tn.invs[3]
	if inner.cpu != used/8 {
		t.Errorf("one of them is charged %v of its own", inner.cpu)
	}
	inner.move(1000)
	if inner.moved != 1000 || outer.moved != 1000 || payer.moved != 1000 {
		t.Errorf("1000 bytes moved: %d, %d, %d", inner.moved, outer.moved, payer.moved)
	}
	payer.cpu = payer.limit()
	if inner.poorest() != payer || inner.poorest().left() > 0 {
		t.Error("who is part of an invocation that has nothing left has some")
	}
}
