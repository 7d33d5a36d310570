package between

import (
	"testing"

	"bulkhead/policy/seccomp"
)

// transcripts is how many the attacker writes.
const transcripts = 1000

// Whatever the attacker tries, and however busy the machine is, it sees the same.
func TestTimeStandsStill(t *testing.T) {
	for _, p := range seccomp.Profiles() {
		t.Run(p.String(), func(t *testing.T) {
			n := transcripts
			if p != seccomp.JIT {
				n /= 10
			}
			v := Watch(t, p, "", n)
			t.Log(v)
			if !v.Stood() {
				t.Errorf("time could be told: %v", v)
			}
		})
	}
}
