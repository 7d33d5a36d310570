package scheduler

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead/ipc/gatewayside"
	"bulkhead/policy/limits"
	"bulkhead/schema/gen"
)

// hoard keeps about 110 MB of live heap, within the usual limit of 128 MiB.
const hoard = `let kept = []; export default { fetch(r) {
	if (r.url.endsWith("/grow")) while (kept.length < 13_500) kept.push(new Array(1000).fill(1.5));
	return new Response(String(kept.length));
} }`

// memoryEnv marks the child of TestHeapsOfAShardAreBudgeted and says how its tenants grow.
const memoryEnv = "SCHEDULER_TEST_MEMORY"

// Tenants that keep to their own limits would fill the cage that they share, which ends the process.
func TestHeapsOfAShardAreBudgeted(t *testing.T) {
	how := os.Getenv(memoryEnv)
	if how == "" {
		for _, how := range []string{"one by one", "at once", "and wait"} {
			t.Run(how, func(t *testing.T) {
				end, out := childOf(t, "TestHeapsOfAShardAreBudgeted", memoryEnv+"="+how)
				if !end.Success() || strings.Contains(out, "Fatal") {
					t.Errorf("%v", end)
				}
				t.Log("\n" + out)
			})
		}
		return
	}
	h := startShard(t, Options{})
	const tenants = 64
	ids := make([]uint32, tenants)
	source := hoard
	if how == "and wait" {
		source = strings.Replace(hoard, "return", `if (r.url.endsWith("/grow")) return new Promise((f) => setTimeout(() => f(new Response("late")), 4000)); return`, 1)
	}
	for i := range ids {
		ids[i] = h.load(source, func(l *limits.Tenant) { l.CPU, l.Wall = 10*time.Second, 5*time.Minute }) // a busy machine's
	}
	count := map[gen.Outcome]int{}
	note := func(a answer) {
		switch o := a.result.Outcome; o {
		case gen.Outcome_loadShed:
			if !strings.Contains(a.result.Message, "of a budget of 2867 MiB") {
				t.Errorf("message = %q", a.result.Message)
			}
			fallthrough
		case gen.Outcome_ok, gen.Outcome_exceededMemory:
			count[o]++
		default:
			t.Errorf("outcome %s: %s", o, a.result.Message)
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var peak uint64
	var waiting []*gatewayside.Stream
	for _, id := range ids {
		switch how {
		case "one by one":
			note(h.get(id, "/grow"))
		case "and wait":
			waiting = append(waiting, h.open(id, "/grow"))
			time.Sleep(20 * time.Millisecond)
		default:
			wg.Go(func() {
				a := h.get(id, "/grow")
				mu.Lock()
				defer mu.Unlock()
				note(a)
			})
		}
		h.s.mu.Lock()
		peak = max(peak, h.s.memory.held.heap)
		h.s.mu.Unlock()
	}
	wg.Wait()
	for _, st := range waiting {
		note(h.finish(st))
	}
	fmt.Printf("outcomes %v; heaps held at most %d MiB as measured; peak RSS %s\n", count, peak>>20, peakRSS(t))
	if count[gen.Outcome_ok] < 10 {
		t.Errorf("hardly anybody was served")
	}
	// All are served again, whether their isolates are still there or not.
	for _, id := range ids {
		h.wantOutcome(h.get(id, "/"), gen.Outcome_ok)
	}
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	var sum footprint
	for _, x := range h.s.tenants {
		sum.add(x.held)
	}
	if m := h.s.memory; m.held != sum || m.growth != (footprint{}) || m.reserve != (footprint{}) || m.running != 0 {
		t.Errorf("at rest the account is %+v, tenants hold %+v", m, sum)
	}
}

func peakRSS(t *testing.T) string {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

// An idle tenant is made smaller, lightly at first, until there is no more to be had, and again after it has run.
func TestIdleTenantsAreTrimmedOnce(t *testing.T) {
	h := startShard(t, Options{TrimAfter: 20 * time.Millisecond})
	idle, busy := h.load(counted), h.load(counted)
	trimmed := func(id uint32) bool {
		h.s.mu.Lock()
		defer h.s.mu.Unlock()
		x := h.s.tenants[id]
		return !x.running && !x.queued && x.size == collected
	}
	for round := 1; round <= 2; round++ {
		h.wantOK(h.get(idle, "/"), fmt.Sprint(round))
		deadline := time.Now().Add(20 * time.Second)
		for !trimmed(idle) {
			if time.Now().After(deadline) {
				t.Fatal("an idle tenant is not trimmed")
			}
			if a := h.get(busy, "/"); a.status != 200 {
				t.Fatalf("%+v", a)
			}
			time.Sleep(time.Millisecond)
		}
		h.s.mu.Lock()
		if h.s.stale(time.Now().Add(time.Hour)) == h.s.tenants[idle] {
			t.Error("it would be trimmed again")
		}
		h.s.mu.Unlock()
	}
	h.wantOK(h.get(idle, "/"), "3")
}

// A shard that nobody asks anything wakes up seldom, and the wall clock of who comes then is watched as ever.
func TestTheJanitorDozes(t *testing.T) {
	h := startShard(t, Options{TrimAfter: 10 * time.Millisecond})
	n := h.load(`export default { fetch() { return new Promise((resolve) => setTimeout(resolve, 1e8)); } }`, func(l *limits.Tenant) { l.Wall = 50 * time.Millisecond })
	for range 3 {
		h.eventually("it does not doze", func() bool { return h.s.dozing })
		h.wantOutcome(h.get(n, "/"), gen.Outcome_exceededWallTime)
	}
}
