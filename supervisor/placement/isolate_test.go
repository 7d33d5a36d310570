package placement

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bulkhead/schema/gen"
	"bulkhead/supervisor/observe"
)

// The suspect stays, its neighbours leave: the idle at once, the busy when they are done, and those that
// are just coming do not stay.
func TestIsolationMovesTheNeighbours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		pol := parsed(t, "placement: {spread: 1}")
		pool := newPool(t, p, func(o *Options) { o.Policy, o.MaxShards = pol, 20 })
		suspect := take(t, pool, of(pol, "suspect"))
		busy := []Lease{take(t, pool, of(pol, "busy1")), take(t, pool, of(pol, "busy2"))}
		for i := range 60 {
			take(t, pool, of(pol, fmt.Sprintf("idle%d", i))).Release()
		}
		s := suspect.pl.shard
		if len(s.hosted) != 63 {
			t.Fatalf("%d tenants in the suspect's shard, want all 63", len(s.hosted))
		}
		coming := make(chan Lease)
		go func() { coming <- take(t, pool, of(pol, "coming")) }()
		time.Sleep(time.Millisecond) // half-way through its load
		ev := pool.Isolate("suspect", "104 points", "suspicion")
		if ev.Left != 60 || ev.Busy != 3 || !slices.Equal(ev.Shards, []uint32{s.proc.ID}) {
			t.Errorf("%+v", ev)
		}
		late := <-coming
		if late.Shard() == s.proc.ID {
			t.Error("who was just coming stayed with the suspect")
		}
		synctest.Wait()
		for _, l := range append(busy, suspect) {
			if !l.Alive() || l.pl.shard != s {
				t.Error("a request that ran was disturbed")
			}
		}
		for i := range 60 {
			l := take(t, pool, of(pol, fmt.Sprintf("idle%d", i)))
			if l.Shard() == s.proc.ID {
				t.Fatalf("idle%d came back to the suspect", i)
			}
			l.Release()
		}
		for _, id := range []string{"busy1", "busy2"} {
			l := take(t, pool, of(pol, id))
			if l.Shard() == s.proc.ID {
				t.Errorf("%s is still given to the suspect's shard", id)
			}
			l.Release()
		}
		for _, l := range busy {
			l.Release()
		}
		synctest.Wait()
		pool.mu.Lock()
		if len(s.hosted) != 1 {
			t.Errorf("%d tenants in the shard, want the suspect alone", len(s.hosted))
		}
		pool.mu.Unlock()
		again := take(t, pool, suspect.pl.v)
		if again.pl.shard != s {
			t.Error("the suspect itself was moved")
		}
		again.Release()
		// A new version of it is alone as well, in the same shard or another.
		v2 := of(pol, "suspect")
		v2.Hash = "second"
		pool.Retire("suspect", v2)
		l := take(t, pool, v2)
		if l.pl.shard.cohort != s.cohort {
			t.Error("a new version of the suspect is among others")
		}
		l.Release()
		suspect.Release()
		if got := pool.Standing("suspect"); got != "alone by suspicion: 104 points" {
			t.Errorf("standing %q", got)
		}
		kinds := map[observe.IncidentKind]int{}
		for _, i := range pool.opt.Observer.Incidents.List() {
			kinds[i.Kind]++
			if i.Kind == observe.Isolated && (!slices.Equal(i.Tenants, []string{"suspect"}) || !strings.Contains(i.Detail, "104 points (by suspicion); 60 neighbours left at once")) {
				t.Errorf("%+v", i)
			}
		}
		if kinds[observe.Isolated] != 1 {
			t.Errorf("events %v", kinds)
		}

		if err := pool.Release("suspect", "a false alarm", "uid 0"); err != nil {
			t.Fatal(err)
		}
		if err := pool.Release("suspect", "again", "uid 0"); !errors.Is(err, ErrNoMeasure) {
			t.Errorf("released twice: %v", err)
		}
		free := take(t, pool, v2)
		if free.pl.shard.cohort != 0 || pool.Standing("suspect") != "" {
			t.Errorf("after its release: cohort %d, %q", free.pl.shard.cohort, pool.Standing("suspect"))
		}
		free.Release()
		time.Sleep(time.Minute)
		checkSlots2(t, pool, p)
	})
}

// checkSlots2 is checkSlots under a policy's own bounds.
func checkSlots2(t *testing.T, pool *Pool, p *plant) {
	t.Helper()
	pool.opt.Shard.MaxTenants = 64
	checkSlots(t, pool, p)
}

// Two suspects of one process: the second goes, the first stays, and neither is with anybody.
func TestTwoSuspectsOfOneShard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		pol := parsed(t, "placement: {spread: 1}")
		pool := newPool(t, p, func(o *Options) { o.Policy, o.MaxShards = pol, 20 })
		a, b := take(t, pool, of(pol, "a")), take(t, pool, of(pol, "b"))
		take(t, pool, of(pol, "c")).Release()
		pool.Isolate("a", "x", "y")
		pool.Isolate("b", "x", "y")
		a2, b2, c := take(t, pool, a.pl.v), take(t, pool, b.pl.v), take(t, pool, of(pol, "c"))
		if a2.Shard() != a.Shard() || b2.Shard() == a.Shard() || c.Shard() == a.Shard() || c.Shard() == b2.Shard() {
			t.Errorf("a in %d, b in %d, c in %d", a2.Shard(), b2.Shard(), c.Shard())
		}
		for _, l := range []Lease{a, b, a2, b2, c} {
			l.Release()
		}
	})
}

// A conversation of a suspect goes on where it is over its isolation, its release and the next isolation.
func TestASuspectsConversationOutlivesItsRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pol := parsed(t, "placement: {spread: 1}")
		pool := newPool(t, &plant{}, func(o *Options) { o.Policy, o.MaxShards = pol, 20 })
		v := of(pol, "a")
		talk := take(t, pool, v)
		take(t, pool, of(pol, "b")).Release()
		for range 2 {
			pool.Isolate("a", "x", "y")
			if err := pool.Release("a", "x", "y"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
			if !talk.Alive() || talk.Retired() {
				t.Fatal("what talks with it is told to go")
			}
			beside := take(t, pool, v)
			if beside.Shard() == talk.Shard() {
				t.Error("its next request is still alone")
			}
			beside.Release()
		}
		s := talk.pl.shard
		talk.Release()
		synctest.Wait()
		pool.mu.Lock()
		defer pool.mu.Unlock()
		if !s.dead {
			t.Error("its old process is still there")
		}
	})
}

func TestIsolationOfWhoIsNowhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		pol := parsed(t, "placement: {spread: 1}")
		pool := newPool(t, p, func(o *Options) { o.Policy, o.MaxShards = pol, 20 })
		other := take(t, pool, of(pol, "other"))
		if ev := pool.Isolate("absent", "by hand", "uid 0"); len(ev.Shards)+ev.Left+ev.Busy != 0 {
			t.Errorf("%+v", ev)
		}
		l := take(t, pool, of(pol, "absent"))
		third := take(t, pool, of(pol, "third"))
		if l.Shard() == other.Shard() || third.Shard() == l.Shard() {
			t.Error("it is not alone from its next start")
		}
		for _, x := range []Lease{other, l, third} {
			x.Release()
		}
	})
}

func TestStopEndsAndRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		pol := parsed(t, "placement: {spread: 1}")
		pool := newPool(t, p, func(o *Options) { o.Policy, o.MaxShards = pol, 20 })
		v := of(pol, "bad")
		l := take(t, pool, v)
		good := take(t, pool, of(pol, "good"))
		handle, shard := l.pl.handle, p.shard(int(l.Shard())-1)
		pool.Stop("bad", "1200 points", "suspicion")
		synctest.Wait()
		shard.mu.Lock()
		there := shard.loads[handle]
		shard.mu.Unlock()
		if there {
			t.Error("it still runs")
		}
		var le *LoadError
		if _, err := pool.Acquire(t.Context(), v); !errors.As(err, &le) || le.Outcome != gen.Outcome_killed {
			t.Errorf("a stopped tenant: %v", err)
		}
		if !good.Alive() {
			t.Error("its neighbour was disturbed")
		}
		l.Release()
		good.Release()
		if err := pool.Release("bad", "pardon", "uid 0"); err != nil {
			t.Fatal(err)
		}
		take(t, pool, v).Release()
	})
}

// Deaths of an isolated tenant leave it in its own cohort, and its release from them does not end the
// measure.
func TestMeasuresOutliveQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pol := parsed(t, "placement: {spread: 1}")
		pool := newPool(t, &plant{}, func(o *Options) { o.Policy, o.MaxShards = pol, 20 })
		pool.Isolate("s", "x", "y")
		pool.mu.Lock()
		cohort := pool.standings["s"].cohort
		pool.accuseLocked([]string{"s"}, true)
		if got := pool.standings["s"].cohort; got != cohort {
			t.Errorf("cohort %d, was %d", got, cohort)
		}
		pool.releaseLocked(time.Now().Add(30 * 24 * time.Hour))
		if st := pool.standings["s"]; st == nil || st.cohort != cohort {
			t.Errorf("after a month: %+v", st)
		}
		pool.mu.Unlock()
	})
}

// Reshuffled tenants come to other processes, and what ran goes on where it was.
func TestReshuffle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		pol := parsed(t, "placement: {spread: 4}\nreshuffle: {maxAge: 1h, jitter: 50}\nidleEvict: 24h")
		pool := newPool(t, p, func(o *Options) { o.Policy, o.MaxShards = pol, 40 })
		was := map[string]uint32{}
		for i := range 100 {
			id := fmt.Sprintf("t%d", i)
			l := take(t, pool, of(pol, id))
			was[id] = l.Shard()
			l.Release()
		}
		running := take(t, pool, of(pol, "running"))
		shards, n, err := pool.Reshuffle()
		if err != nil || shards < 4 || n != 101 {
			t.Errorf("%d shards, %d tenants, %v", shards, n, err)
		}
		if _, _, err := pool.Reshuffle(9999); err == nil {
			t.Error("a shard that is not there was reshuffled")
		}
		time.Sleep(time.Minute) // they are moved one after the other
		synctest.Wait()
		if !running.Alive() {
			t.Error("what ran was ended")
		}
		for id, old := range was {
			l := take(t, pool, of(pol, id))
			if l.Shard() == old {
				t.Fatalf("%s is where it was", id)
			}
			l.Release()
		}
		running.Release()
		// By age: between half an hour and an hour after their birth all have gone, not all at once.
		young := map[uint32]bool{}
		pool.mu.Lock()
		for id, s := range pool.shards {
			if s.used && !s.closed {
				young[id] = true
			}
		}
		pool.mu.Unlock()
		gone := func() (n int) {
			pool.mu.Lock()
			defer pool.mu.Unlock()
			for id := range young {
				if pool.shards[id] == nil {
					n++
				}
			}
			return n
		}
		time.Sleep(29 * time.Minute)
		if n := gone(); n != 0 {
			t.Errorf("%d of %d went before their time", n, len(young))
		}
		time.Sleep(32 * time.Minute)
		if n := gone(); n != len(young) {
			t.Errorf("%d of %d went in time", n, len(young))
		}
	})
}

// A shard whose tenants come and go is replaced after so many loads, whatever its age.
func TestShardsTakeALimitedNumberOfLoads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		pool := newPool(t, p, nil)
		l := take(t, pool, version("first"))
		worn := pool.shards[l.Shard()]
		l.Release()
		pool.mu.Lock()
		worn.handles = maxHosted
		pool.mu.Unlock()
		time.Sleep(2 * reshuffleTick)
		l = take(t, pool, version("first"))
		defer l.Release()
		if l.Shard() == worn.proc.ID {
			t.Errorf("after %d loads shard %d takes another", maxHosted, worn.proc.ID)
		}
		pool.Close()
	})
}
