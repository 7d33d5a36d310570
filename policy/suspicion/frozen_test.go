package suspicion

import (
	"fmt"
	"testing"
)

// The thresholds were frozen when half of the attackers of `bench -only spies` had been written
// (spyRows); the other half (laterSpyRows) was written after that and had to be met as it is. Whoever
// changes a number here says in docs/POLICY.md that, when and why they were frozen anew, and which
// attackers were known by then.
func TestThresholdsAreFrozen(t *testing.T) {
	const frozen = "watch 50, isolate 100, stop 1000, halfLife 10m0s, every 250ms; bracketedCpu 1/500 remoteCpu 0.001/15 lockstepCpu 0.2/110 " +
		"cpu 0.2/10 kills 0.5/15 nearMisses 0.1/4 aborts 60/300 churn 1/10 wasm 5/5 buffers 0.2/5 starts 5/20 violations 100/0 traits 1/5"
	c := Default()
	got := fmt.Sprintf("watch %d, isolate %d, stop %d, halfLife %v, every %v;", c.Watch, c.Isolate, c.Stop, c.HalfLife, c.Every)
	for _, k := range Kinds() {
		got += fmt.Sprintf(" %s %v/%v", k.Name, k.Weight, k.Most)
	}
	if got != frozen {
		t.Errorf("they are\n%s\nand were frozen as\n%s", got, frozen)
	}
}
