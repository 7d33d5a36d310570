package sabotage

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"bulkhead/policy/seccomp"
	"bulkhead/securitytests/between"
	"bulkhead/securitytests/hosttest"
)

var buildWorker sync.Once

// workerWithout is a folder with a worker that leaves a layer out; without one, it leaves out none.
func workerWithout(t *testing.T, layer string) string {
	t.Helper()
	dir, err := os.MkdirTemp(binaries(t), "w")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	worker := filepath.Join(dir, "bulkhead-worker")
	buildWorker.Do(func() {
		hosttest.Build(t, "./cmd/bulkhead-worker", filepath.Join(binaries(t), "worker"), "-tags", "bulkhead_sabotage")
	})
	if err := os.Link(filepath.Join(binaries(t), "worker"), worker); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(worker+".skip", []byte(layer), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Without the scrub, what an evicted tenant held is found in its former process.
func TestWithoutTheScrubSecretsStay(t *testing.T) {
	for layer, stays := range map[string]bool{"": false, "scrub": true} {
		t.Run("without "+layer, func(t *testing.T) {
			h := between.Open(t, seccomp.JIT, false, workerWithout(t, layer))
			home := h.VisitShared()
			if err := h.AdminPost("/v1/evict/a"); err != nil {
				t.Fatal(err)
			}
			left := h.Scan(home.PID)
			t.Logf("%d parts of secrets are left", len(left))
			if (len(left) > 0) != stays {
				t.Errorf("left behind:\n%s", between.Details(left))
			}
		})
	}
}

// With a clock that moves, the attacker's transcripts differ.
func TestWithoutTheFrozenClockTimeIsTold(t *testing.T) {
	for layer, stands := range map[string]bool{"": true, "clock": false} {
		t.Run("without "+layer, func(t *testing.T) {
			v := between.Watch(t, seccomp.JIT, workerWithout(t, layer), 20)
			t.Log(v)
			if v.Stood() != stands || stands == (v.Ticks > 0) {
				t.Errorf("%v", v)
			}
		})
	}
}
