package sabotage

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"bulkhead/policy/seccomp"
	"bulkhead/securitytests/suites"
)

// The presence check of each filter of arguments: the program is read back from the kernel and held against
// the policy. Without the conditions on one call it says so, of that call.
func TestAMissingFilterOfArgumentsIsRead(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may read a filter back from the kernel")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	for _, p := range seccomp.Profiles() {
		for _, call := range append([]string{""}, filteredCalls(p)...) {
			t.Run(p.String()+" without "+call, func(t *testing.T) {
				gone := sabotage{}
				if call != "" {
					gone = inLauncher("row " + call)
				}
				stand, err := suites.OpenStand(ctx, sabotaged(t, gone), suites.Root)
				if err != nil {
					t.Fatal(err)
				}
				defer stand.Close()
				seat, err := stand.Sit(ctx, p, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer seat.Leave()
				program, threads, err := seat.Filter()
				if err != nil {
					t.Fatal(err)
				}
				r, err := suites.CompareFilter(p, program)
				if err != nil {
					t.Fatal(err)
				}
				if (len(r.Wrong) > 0) != (call != "") {
					t.Errorf("found: %q", r.Wrong)
				}
				for _, w := range r.Wrong {
					if !strings.HasPrefix(w, call) {
						t.Errorf("%q is said to be wrong without %q", w, call)
					}
				}
				if call == "" {
					t.Logf("%v: %d calls allowed, %d of them only with listed arguments, by %d conditions; %d instructions on %d threads", p, r.Allowed, r.Filtered, r.Conditions, len(program), threads)
				}
			})
		}
	}
}
