package launcher

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A worker that leaves out any one step must be refused, and for that reason. The binary is
// built with the tag bulkhead_sabotage and skips the step that the file beside it names.
func TestAWorkerThatSkipsAStepIsRefused(t *testing.T) {
	cases := []struct {
		skip string
		by   string // the check that finds it
	}{
		{"cgroup-namespace", "check namespaces"},
		{"root", "check root"},
		{"names", "check names"},
		{"keyring", "check keyring"},
		{"rlimits", "check limits"},
		{"bounding-set", "check capabilities"},
		{"securebits", "check securebits"},
		{"capabilities", "check capabilities"},
		{"no-new-privs", "step start"}, // without it neither Landlock nor seccomp can be had: the child ends itself
		{"mdwe", "check mdwe"},
		{"landlock", "check landlock"},
		{"dumpable", "check dumpable"},
		{"speculation", "check speculation"},
		{"seccomp", "check seccomp"},
		{"seccomp-all-threads", "check seccomp"},
	}
	eachMode(t, func(t *testing.T, m mode) {
		for _, tc := range cases {
			t.Run(tc.skip, func(t *testing.T) {
				var args []string
				if tc.skip == "speculation" {
					if !speculationCanBeSwitched(t) {
						t.Skip("this CPU or its hypervisor lets no process switch its speculation (prctl PR_SET_SPECULATION_CTRL)")
					}
					args = append(args, "--force-mitigations")
				}
				c := start(t, m, built.child, append(args, "--worker", sabotaged(t, tc.skip))...).dial()
				got := c.ask("shard jitless %d", gigabyte)
				if !strings.HasPrefix(got, "refused: ") || !strings.Contains(got, tc.by) {
					t.Errorf("got %s, want a refusal by %q", got, tc.by)
				}
			})
		}
	})
}

// The parent-death signal is set by the launcher's own code in the child before exec, and once
// more by the constructor; a child that leaves out the latter still has it.
func TestTheParentDeathSignalDoesNotDependOnTheChild(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		c := start(t, m, built.child, "--worker", sabotaged(t, "parent-death")).dial()
		c.spawn("shard jitless %d", gigabyte)
	})
}

// A gateway that skips a step does not get to serve either, and the launcher says so and ends.
func TestAGatewayThatSkipsAStepIsRefused(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		r := start(t, m, built.child, "--gateway", sabotaged(t, "seccomp"))
		if err := r.wait(30 * time.Second); err == nil || !strings.Contains(r.text(), "check seccomp") {
			t.Errorf("the launcher ended with %v", err)
		}
	})
}

func speculationCanBeSwitched(t *testing.T) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	how, _ := statusField(string(b), "Speculation_Store_Bypass")
	return strings.HasPrefix(how, "thread ")
}

// The step "descriptors" matters only where somebody leaks one.
func TestALeakedDescriptorIsRefused(t *testing.T) {
	e := expectation{files: map[int]identity{}}
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	k := newLook(nil, &child{want: e, pid: os.Getpid()}, "/proc/self")
	if err := k.descriptors(); err == nil || !strings.Contains(err.Error(), "descriptor ") {
		t.Errorf("descriptors() = %v, want an error that names one", err)
	}
}

// sabotaged returns a binary that skips a step.
func sabotaged(t *testing.T, step string) string {
	t.Helper()
	dir, err := os.MkdirTemp(built.dir, "sabotage")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "child")
	if err := os.Link(built.sabotage, bin); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bin+".skip", []byte(step), 0o644); err != nil {
		t.Fatal(err)
	}
	return bin
}
