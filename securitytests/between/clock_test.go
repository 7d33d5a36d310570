package between

import (
	"flag"
	"testing"

	"bulkhead/policy/seccomp"
)

// transcripts is how many the attacker writes. The whole measure is
// go test ./securitytests/between -run TimeStandsStill -timeout 90m -args -transcripts 1000 -each: half an hour.
var (
	transcripts = flag.Int("transcripts", 200, "how many transcripts the attacker writes in the profile jit; a tenth in the others")
	each        = flag.Bool("each", false, "as many in the other profiles")
)

// Whatever the attacker tries, and however busy the machine is, it sees the same.
func TestTimeStandsStill(t *testing.T) {
	for _, p := range seccomp.Profiles() {
		t.Run(p.String(), func(t *testing.T) {
			n := *transcripts
			if p != seccomp.JIT && !*each {
				n = max(n/10, 2)
			}
			v := Watch(t, p, "", n)
			t.Log(v)
			if !v.Stood() {
				t.Errorf("time could be told: %v", v)
			}
		})
	}
}
