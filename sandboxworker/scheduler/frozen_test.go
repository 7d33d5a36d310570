package scheduler

import (
	"fmt"
	"testing"
)

// What counts as measuring was frozen together with policy/suspicion's thresholds; see the test of the
// same name there.
func TestThresholdsAreFrozen(t *testing.T) {
	const frozen = "touches 8, turn 300µs, short 700µs, body 4ms/MiB, credit 1ms, lockstep 32 within 10ms"
	got := fmt.Sprintf("touches %d, turn %v, short %v, body %v/MiB, credit %v, lockstep %d within %v", clockTouches, turnCost, turnShort, bodyCPU, mostCredit, lockstepRun, lockstepGap)
	if got != frozen {
		t.Errorf("they are\n%s\nand were frozen as\n%s", got, frozen)
	}
}
