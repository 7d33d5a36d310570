package scheduler

import (
	"fmt"
	"testing"
)

// What counts as measuring was frozen together with policy/suspicion's thresholds; see the test of the
// same name there.
func TestThresholdsAreFrozen(t *testing.T) {
	const frozen = "touches 8, turn 300µs, short 700µs, body 4ms/MiB, credit 1ms, lockstep 64 within 100ms missing 12 by 3, talk 64 within 10ms below 8192 bytes beyond 120µs"
	got := fmt.Sprintf("touches %d, turn %v, short %v, body %v/MiB, credit %v, lockstep %d within %v missing %d by %d, talk %d within %v below %d bytes beyond %v", clockTouches, turnCost, turnShort, bodyCPU, mostCredit, lockstepRun, lockstepGap, lockstepMissed, lockstepForgets, talkRun, talkGap, talkBytes, talkCost)
	if got != frozen {
		t.Errorf("they are\n%s\nand were frozen as\n%s", got, frozen)
	}
}
