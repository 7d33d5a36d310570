package scheduler

import (
	"strings"
	"testing"
	"time"

	"bulkhead/ipc"
	"bulkhead/policy/limits"
	"bulkhead/schema/gen"
)

// eventually waits for something that holds under mu.
func (h *shard) eventually(what string, ok func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		h.s.mu.Lock()
		held := ok()
		h.s.mu.Unlock()
		if held {
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatal(what)
		}
	}
}

func patient(l *limits.Tenant) { l.CPU, l.Wall = 10*time.Minute, 10*time.Minute }

// What the host does for a tenant around its turns is its share too: reading megabytes of records, the
// end of an isolate, the making of the next.
func TestTheHostsWorkIsCharged(t *testing.T) {
	for _, c := range []struct {
		name, path string
		outcome    gen.Outcome
		least      time.Duration
	}{
		{"records", "/log", gen.Outcome_ok, 200 * time.Microsecond},
		{"an isolate's end", "/loop", gen.Outcome_exceededCpu, 100 * time.Microsecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := startShard(t, Options{Executors: 1, Ready: 1})
			n := h.load(`export default { fetch(r) {
				if (r.url.endsWith("/loop")) for (;;);
				if (r.url.endsWith("/log")) for (let i = 0; i < 2000; i++) console.log("x".repeat(500));
				return new Response("fine");
			} }`)
			x := h.s.tenants[n]
			account := func() (virtual, cpu time.Duration) {
				h.eventually("it runs on", func() bool { return !x.running && !x.queued })
				h.s.mu.Lock()
				defer h.s.mu.Unlock()
				return x.virtual, time.Duration(x.cpu.Load())
			}
			virtual, cpu := account()
			h.wantOutcome(h.get(n, c.path), c.outcome)
			v, u := account()
			around := (v - virtual) - (u - cpu)
			t.Logf("%v of CPU in turns, %v around them", u-cpu, around)
			if around < c.least {
				t.Error("what the host did for it is not charged")
			}
		})
	}
}

// An order to end a turn that has not quite begun does not reach V8: it must be given again.
func TestAnOrderToShedIsGivenUntilItIsTaken(t *testing.T) {
	s := &Scheduler{opt: Options{MemoryBytes: 64 << 20}.withDefaults()}
	x := newExecutor(s, 0)
	s.executors = []*executor{x}
	greedy := &tenant{limits: tenantLimits{memory: 1 << 30}, admitted: true}
	greedy.held = footprint{heap: 60 << 20, all: 60 << 20}
	s.memory.held = greedy.held
	x.seenTenant, x.t = greedy, greedy // and no isolate yet
	s.watchMemory()
	if greedy.shed {
		t.Error("it counts as stopped, and nobody has stopped it")
	}
}

// A turn that begins while its tenant's eviction is ordered is stopped as well.
func TestAnEvictionStopsTheTurnThatBeginsAfterIt(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`export default { fetch() { for (;;); } }`, patient)
	st := h.open(n, "/")
	x := h.s.tenants[n]
	h.eventually("it does not run", func() bool { return x.running })
	gone := make(chan struct{})
	h.s.mu.Lock()
	x.evict = append(x.evict, gone) // as Evict does; its order to stop has come too early
	h.s.mu.Unlock()
	select {
	case <-gone:
	case <-time.After(20 * time.Second):
		t.Fatal("the turn goes on")
	}
	h.wantOutcome(h.finish(st), gen.Outcome_killed)
}

// The same at the end of everything: Run returns (startShard waits for it).
func TestTheEndStopsTheTurnThatBeginsAfterIt(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`export default { fetch() { for (;;); } }`, patient)
	h.open(n, "/")
	h.eventually("it does not run", func() bool { return h.s.tenants[n].running })
	h.s.mu.Lock()
	h.s.stopped = true // as halt does
	close(h.s.stop)
	h.s.threads.idle.Broadcast()
	h.s.mu.Unlock()
}

// An executor is stuck when it has been in one step for long, however often it was looked at.
func TestStuckIsAMatterOfTime(t *testing.T) {
	x := newExecutor(&Scheduler{}, 0)
	now := time.Now()
	x.step.Store(1)
	for range 5 {
		if busy, stuck := x.seen(now); !busy || stuck {
			t.Fatalf("busy %v, stuck %v", busy, stuck)
		}
		now = now.Add(watchLeast)
	}
	if _, stuck := x.seen(now.Add(watchEvery)); !stuck {
		t.Error("in the same step for longer than a tick, and not stuck")
	}
	x.step.Store(3)
	if _, stuck := x.seen(now.Add(watchEvery)); stuck {
		t.Error("stuck in a step that has just begun")
	}
}

// A shard whose tenants have gone gives their memory back too.
func TestAnEmptiedShardComesToRest(t *testing.T) {
	h := startShard(t, Options{TrimAfter: 50 * time.Millisecond})
	n := h.load(counted)
	h.wantOK(h.get(n, "/"), "1")
	h.eventually("it does not rest", func() bool { return h.s.rested })
	h.s.mu.Lock()
	before := h.s.lastRun
	h.s.mu.Unlock()
	if err := h.Evict(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	h.s.mu.Lock()
	if !h.s.lastRun.After(before) || len(h.s.tenants) > 0 {
		t.Error("it rests on what it did before")
	}
	h.s.mu.Unlock()
	h.eventually("it does not rest when it is empty", func() bool { return h.s.rested })
}

// Requests that wait for a load that fails end with it: none starts the code of a tenant that is not
// on the list any more.
func TestAFailedLoadLeavesNobodyBehind(t *testing.T) {
	r := startRaw(t, Options{})
	l := limits.DefaultTenant()
	l.StartupCPU = time.Minute
	fut, release := r.load(5, `for (let i = 0; i < 2e8; i++); throw new Error("never");`, l)
	defer release()
	for i := 0; ; i++ {
		r.s.mu.Lock()
		x := r.s.tenants[5]
		r.s.mu.Unlock()
		if x != nil {
			break
		}
		if i > 20_000 {
			t.Fatal("the load does not arrive")
		}
		time.Sleep(time.Millisecond)
	}
	for id := range uint64(3) {
		r.get(id+1, 5, "/")
	}
	for range 3 {
		f := r.next()
		d, err := ipc.DecodeDone(f, &r.s.opt.Wire)
		if err != nil || d.Outcome != gen.Outcome_notLoaded || !strings.HasPrefix(d.Message, "the code did not start: ") {
			t.Errorf("%s %+v %v", f.Which(), d, err)
		}
	}
	res, err := fut.Struct()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := res.Result(); err != nil || got.Which() != gen.LoadResult_Which_failed {
		t.Errorf("load: %v, %v", got.Which(), err)
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if len(r.s.tenants) != 0 || len(r.s.streams) != 0 {
		t.Errorf("%d tenants and %d streams are left", len(r.s.tenants), len(r.s.streams))
	}
}
