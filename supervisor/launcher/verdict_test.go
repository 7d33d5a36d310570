package launcher

import (
	"fmt"
	"strings"
	"testing"

	"bulkhead/policy/seccomp"
)

// What the launcher compiles and a worker installs must mean what the table of trials says. The security
// suites make the same calls, and every number besides, where V8 runs; here a worker without it tells
// at once that a row was compiled wrong.
func TestVerdictsOfTheWorkersFilter(t *testing.T) {
	c := start(t, modes()[len(modes())-1], built.child, "--allow-profile", "jitless", "--allow-profile", "jit", "--allow-profile", "jit+wasm").dial()
	for _, profile := range seccomp.Profiles() {
		id := 0
		for _, tr := range seccomp.Trials(profile) {
			if tr.Want == seccomp.Silent || tr.Want == seccomp.Faults || tr.Want == seccomp.Exits {
				continue // the end of this worker, or of its thread, is its own affair
			}
			if id == 0 {
				id, _ = c.spawn("shard %v %d", profile, gigabyte)
			}
			got, errno := try(c, id, tr)
			if got == seccomp.Dies {
				id = 0
			}
			if want := tr.Want; want == seccomp.Refused && errno != int(tr.Errno) || (got == seccomp.Dies) != (want == seccomp.Dies) {
				t.Errorf("%v: %v: %v, errno %d; want %v, errno %d: %s", profile, tr, got, errno, want, tr.Errno, tr.Why)
			}
		}
	}
}

// try has the worker make the call and says what came of it.
func try(c *conn, id int, tr seccomp.Trial) (seccomp.Verdict, int) {
	nr, ok := seccomp.CallNumber(tr.Call)
	if !ok {
		c.t.Fatalf("%s has no number here", tr.Call)
	}
	words := []string{fmt.Sprintf("say %d syscall %d", id, nr)}
	for _, a := range tr.Args {
		words = append(words, fmt.Sprint(int64(a)))
	}
	answer := c.ask("%s", strings.Join(words, " "))
	var r int64
	var errno int
	if n, _ := fmt.Sscanf(answer, "%d %d", &r, &errno); n == 2 {
		return seccomp.Lives, errno
	}
	if end := c.ask("exit %d", id); !strings.Contains(end, "signal=31 ") {
		c.t.Errorf("%v: the worker ended as %s", tr, end)
	}
	return seccomp.Dies, 0
}
