package suites

import (
	"context"
	"encoding/xml"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"bulkhead/policy/seccomp"
	"bulkhead/securitytests/hosttest"
)

// binaries are the real ones, and the seat.
func binaries(t *testing.T) Binaries {
	t.Helper()
	dir := hosttest.Binaries(t)
	b := Binaries{Launcher: filepath.Join(dir, "bulkhead-launcher"), Bulkhead: filepath.Join(dir, "bulkhead"), Seat: filepath.Join(t.TempDir(), "bulkhead-securityseat")}
	hosttest.Build(t, "./securitytests/seat", b.Seat)
	for p := b.Seat; p != "/"; p = filepath.Dir(p) { // the rootless launcher is another user
		if st, err := os.Stat(p); err != nil {
			t.Fatal(err)
		} else if st.Mode()&0o001 == 0 {
			if err := os.Chmod(p, st.Mode()|0o011); err != nil {
				t.Fatal(err)
			}
		}
	}
	return b
}

func modes() []Mode {
	if os.Getuid() != 0 {
		return []Mode{Rootless}
	}
	return []Mode{Root, Rootless}
}

// TestPromises is `bulkhead securitytest` as a test.
func TestPromises(t *testing.T) {
	begin := time.Now()
	results, err := Run(context.Background(), Options{Binaries: binaries(t), Modes: modes(), Progress: func(_ Promise, r Result) {
		t.Logf("%5.1f s  %-9s  %s (%s, %s): %s", time.Since(begin).Seconds(), r.Status, r.Promise, r.Profile, r.Mode, r.Detail)
	}})
	if err != nil {
		t.Fatal(err)
	}
	held := map[string]bool{}
	for _, r := range results {
		if r.Status == Broken {
			t.Errorf("%s (%s, %s): %s", r.Promise, r.Profile, r.Mode, r.Detail)
		}
		held[r.Promise] = held[r.Promise] || r.Status == Held
	}
	for _, p := range Promises() {
		// What depends on the machine may not be shown on this one.
		if !held[p.Name] && p.Suite != "speculation" && p.Name != "is alone in a cgroup, with limits" {
			t.Errorf("%q was held nowhere", p.Name)
		}
	}
	for _, p := range seccomp.Profiles() {
		allowed, filtered := seccomp.Calls(seccomp.Worker(p))
		t.Logf("%v: %d calls allowed, %d of them only with listed arguments", p, allowed, filtered)
	}
}

// A launcher that cannot start shows nothing; it does not hold anything.
func TestWhatCannotBeTriedIsNotShown(t *testing.T) {
	results, err := Run(context.Background(), Options{Binaries: Binaries{Launcher: "/bin/false", Bulkhead: "/bin/false", Seat: "/bin/false"}, Modes: modes(), Suite: "files"})
	if err != nil {
		t.Fatal(err)
	}
	if len(results) == 0 {
		t.Error("no results")
	}
	for _, r := range results {
		if r.Status != NotShown || r.Detail == "" {
			t.Errorf("%+v", r)
		}
	}
}

func TestEveryPromiseSaysWhatIsLostAndWhatToDo(t *testing.T) {
	var names []string
	for _, p := range Promises() {
		if p.Gain == "" || p.Repair == "" || p.Suite == "" || p.try == nil {
			t.Errorf("%q does not say enough", p.Name)
		}
		names = append(names, p.Name)
	}
	slices.Sort(names)
	if len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Errorf("a name stands twice: %q", names)
	}
}

func TestJUnit(t *testing.T) {
	text, err := JUnit([]Result{
		{Promise: "cannot open a file", Profile: "jit", Mode: "root", Status: Held, Detail: "fine"},
		{Promise: "cannot open a file", Profile: "jit", Mode: "rootless", Status: Broken, Detail: "a <file>"},
		{Promise: "cannot open a file", Profile: "jitless", Mode: "root", Status: NotShown, Detail: "no root"},
	}, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var s junitSuite
	if err := xml.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	if s.Tests != 3 || s.Failures != 1 || s.Skipped != 1 || s.Cases[1].Failure.Message != "a <file>" || s.Cases[0].Failure != nil {
		t.Errorf("%s", text)
	}
}
