package between

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/policy/seccomp"
	"bulkhead/securitytests/clock"
	"bulkhead/securitytests/hosttest"
)

// attackers look for a clock at once: each request waits for its isolate's other requests, and those are
// I/O, so each has an isolate to itself.
const attackers = 5

// Watch has attackers look for a clock, n times in all, on a machine that is idle one moment and
// overloaded the next.
func Watch(t *testing.T, p seccomp.Profile, workerDir string, n int) *clock.Verdict {
	t.Helper()
	tenants := map[string]hosttest.Files{}
	for i := range attackers {
		tenants[fmt.Sprintf("t%d", i)] = hosttest.Worker(clock.Worker)
	}
	h := hosttest.Start(t, hosttest.Options{Tenants: tenants, Quiet: true, WorkerDir: workerDir,
		Policy: fmt.Sprintf("profile: %v\nlimits: {wasm: %t, cpu: 1m, startupCpu: 10s, wall: 2m}\n", p, p == seccomp.JITWasm)})
	var load atomic.Int32 // threads that burn
	stop := make(chan struct{})
	var all sync.WaitGroup
	for i := range 2 * runtime.NumCPU() {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if int(load.Load()) <= i {
					time.Sleep(5 * time.Millisecond)
					continue
				}
				for began := time.Now(); time.Since(began) < 2*time.Millisecond; {
				}
			}
		})
	}
	var v clock.Verdict
	var mu sync.Mutex
	var left atomic.Int32
	left.Store(int32(n))
	var work sync.WaitGroup
	for i := range attackers {
		work.Go(func() {
			for {
				at := left.Add(-1)
				if at < 0 {
					return
				}
				load.Store(at / 10 % int32(2*runtime.NumCPU()+1))
				a, err := h.Do("GET", fmt.Sprintf("t%d", i), "/", nil)
				mu.Lock()
				if err == nil && a.Status != 200 {
					err = fmt.Errorf("status %d: %.500s", a.Status, a.Body)
				}
				if err == nil {
					err = v.Add(a.Body)
				}
				mu.Unlock()
				if err != nil {
					t.Errorf("attacker %d: %v", i, err)
					return
				}
			}
		})
	}
	work.Wait()
	close(stop)
	all.Wait()
	return &v
}
