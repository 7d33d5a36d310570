package placement

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/supervisor/launcher/orders"
	"bulkhead/supervisor/tenants"
)

func TestBlame(t *testing.T) {
	flight := []gatewayside.InFlight{{Stream: 1, Tenant: 1}, {Stream: 2, Tenant: 2}, {Stream: 3, Tenant: 3}}
	hosted := []uint32{1, 2, 3, 4}
	segv := orders.Exit{Code: -1, Signal: syscall.SIGSEGV, Syscall: -1}
	killed := orders.Exit{Code: -1, Signal: syscall.SIGKILL, Syscall: -1}
	oom := killed
	oom.Detail = orders.DetailOutOfMemory
	stopped := killed
	stopped.Stopped = true
	runs := func(rs ...ipc.Running) []ipc.Running { return rs }
	for name, c := range map[string]struct {
		e         evidence
		suspects  []uint32
		executing []uint64
		proven    bool
	}{
		"the slot that faulted": {evidence{exit: segv, box: runs(ipc.Running{Tenant: 1, Stream: 1, Fault: 11}, ipc.Running{Tenant: 2, Stream: 2})},
			[]uint32{1}, []uint64{1, 2}, false},
		"two faulted":             {evidence{exit: segv, box: runs(ipc.Running{Tenant: 1, Stream: 1, Fault: 11}, ipc.Running{Tenant: 2, Stream: 2, Fault: 4})}, []uint32{1, 2}, []uint64{1, 2}, false},
		"no fault, who ran":       {evidence{exit: orders.Exit{Code: 2}, box: runs(ipc.Running{Tenant: 1, Stream: 1}, ipc.Running{Tenant: 3, Stream: 3})}, []uint32{1, 3}, []uint64{1, 3}, false},
		"a timer of no request":   {evidence{exit: segv, box: runs(ipc.Running{Tenant: 4, Fault: 11})}, []uint32{4}, nil, false},
		"no box":                  {evidence{exit: segv}, []uint32{1, 2, 3}, []uint64{1, 2, 3}, false},
		"nobody ran":              {evidence{exit: segv, boxed: true}, nil, nil, false},
		"only names from nowhere": {evidence{exit: segv, boxed: true, box: runs(ipc.Running{Tenant: 9, Stream: 9, Fault: 11})}, nil, nil, false},
		"loading ones too":        {evidence{exit: segv, loads: []uint32{4}}, []uint32{1, 2, 3, 4}, []uint64{1, 2, 3}, false},
		"the box adds nobody":     {evidence{exit: segv, box: runs(ipc.Running{Tenant: 9, Stream: 9, Fault: 11}, ipc.Running{Tenant: 1, Stream: 77, Fault: 11})}, []uint32{1, 2, 3}, []uint64{1, 2, 3}, false},
		"nor swaps streams":       {evidence{exit: segv, box: runs(ipc.Running{Tenant: 1, Stream: 2, Fault: 11})}, []uint32{1, 2, 3}, []uint64{1, 2, 3}, false},
		"SIGSYS: everybody":       {evidence{exit: orders.Exit{Signal: syscall.SIGSYS}, box: runs(ipc.Running{Tenant: 1, Stream: 1, Fault: 31})}, []uint32{1, 2, 3, 4}, []uint64{1, 2, 3}, false},
		"violation: everybody":    {evidence{exit: killed, why: ipc.Violation(ipc.KindState, 1, "x")}, []uint32{1, 2, 3, 4}, []uint64{1, 2, 3}, false},
		"overdue":                 {evidence{exit: killed, why: fmt.Errorf("x: %w", &gatewayside.OverdueError{Tenant: 2, Stream: 2}), box: runs(ipc.Running{Tenant: 3, Stream: 3})}, []uint32{2}, []uint64{2, 3}, false},
		"it hung up":              {evidence{exit: killed, why: fmt.Errorf("%w: %w", errHungUp, gatewayside.ErrPeerGone)}, []uint32{1, 2, 3, 4}, []uint64{1, 2, 3}, false},
		"killed for an eviction":  {evidence{exit: killed, ours: true, why: errors.New("evict x"), box: runs(ipc.Running{Tenant: 3, Stream: 3})}, []uint32{3}, []uint64{3}, false},
		"killed from outside":     {evidence{exit: killed, why: gatewayside.ErrPeerGone, box: runs(ipc.Running{Tenant: 3, Stream: 3})}, nil, []uint64{3}, false},
		"stopped from outside":    {evidence{exit: stopped, why: gatewayside.ErrUnresponsive, box: runs(ipc.Running{Tenant: 3, Stream: 3})}, nil, []uint64{3}, false},
		"killed for its silence":  {evidence{exit: killed, ours: true, why: gatewayside.ErrUnresponsive, box: runs(ipc.Running{Tenant: 3, Stream: 3})}, []uint32{3}, []uint64{3}, false},
		"a turn that made it silent, ended when it was killed": {evidence{exit: killed, ours: true, why: gatewayside.ErrUnresponsive, boxed: true, silent: runs(ipc.Running{Tenant: 3, Stream: 3})},
			[]uint32{3}, []uint64{3}, false},
		"a turn that made it silent, and who came after it": {evidence{exit: killed, ours: true, why: gatewayside.ErrUnresponsive, boxed: true, silent: runs(ipc.Running{Tenant: 3, Stream: 3}), box: runs(ipc.Running{Tenant: 1, Stream: 1})},
			[]uint32{3}, []uint64{1, 3}, false},
		"silence names only who is there": {evidence{exit: killed, ours: true, why: gatewayside.ErrUnresponsive, boxed: true, silent: runs(ipc.Running{Tenant: 9, Stream: 9}, ipc.Running{Tenant: 1, Stream: 77})}, nil, nil, false},
		"out of memory":                   {evidence{exit: oom, why: gatewayside.ErrPeerGone, box: runs(ipc.Running{Tenant: 3, Stream: 3})}, []uint32{3}, []uint64{3}, false},
	} {
		t.Run(name, func(t *testing.T) {
			e := c.e
			e.flight, e.hosted, e.mixed = flight, hosted, true
			f := find(&e)
			if !slices.Equal(f.suspects, c.suspects) || !slices.Equal(slices.Sorted(maps.Keys(f.executing)), c.executing) || f.proven != c.proven {
				t.Errorf("suspects %v, executing %v, proven %v; want %v, %v, %v", f.suspects, slices.Sorted(maps.Keys(f.executing)), f.proven, c.suspects, c.executing, c.proven)
			}
		})
	}
	alone := evidence{exit: segv, flight: flight[:1], hosted: hosted[:1]}
	if f := find(&alone); !f.proven {
		t.Error("the only tenant that was ever in the shard is not held to have ended it")
	}
}

// Sixty-four suspects are told apart by the deaths that follow: group testing.
func TestGroupTestingFindsTheOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		pool := newPool(t, p, func(o *Options) { o.Shard.MaxTenants = 64 })
		all := make([]*tenants.Version, 64)
		for i := range all {
			all[i] = version(fmt.Sprint("t", i))
			take(t, pool, all[i]).Release()
		}
		deaths := 0
		for ; deaths < 10; deaths++ {
			l := take(t, pool, all[7])
			s := l.pl.shard
			alone := len(s.hosted) == 1 && s.cohort != 0
			// The attacker's shard breaks the protocol: nothing it says tells who did it.
			fake := p.shard(int(l.Shard()) - 1)
			v := ipc.Violation(ipc.KindState, 1, "x")
			fake.end(v)
			fake.break_(v)
			synctest.Wait()
			l.Release()
			if alone {
				break
			}
			// The others come back meanwhile.
			for _, v := range all {
				take(t, pool, v).Release()
			}
		}
		if deaths > 3 {
			t.Errorf("it took %d deaths to have the attacker alone", deaths)
		}
		if st := pool.Standing("t7"); st == "" {
			t.Error("nothing is held against the attacker")
		}
		// Everybody is served, and the rest are free again in time.
		time.Sleep(quarantine + time.Minute)
		for _, v := range all[:7] {
			take(t, pool, v).Release()
			if st := pool.Standing(v.Tenant); st != "" {
				t.Errorf("%s is still %s", v.Tenant, st)
			}
		}
		pool.Close()
	})
}

// A tenant that ends every shard it gets is served on, at a pace.
func TestSerialKillersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		pool := newPool(t, p, nil)
		v := version("killer")
		began := time.Now()
		for range 12 {
			l, err := pool.Acquire(t.Context(), v)
			if err != nil {
				t.Fatal(err)
			}
			p.shard(int(l.Shard())-1).inFlight(1, l.pl.handle)
			p.shard(int(l.Shard()) - 1).exit(orders.Exit{Code: -1, Signal: syscall.SIGSEGV, Syscall: -1})
			synctest.Wait()
			l.Release()
		}
		if took := time.Since(began); took < 5*time.Second || took > 30*time.Second {
			t.Errorf("12 shards were had in %v", took)
		}
		take(t, pool, version("other")).Release()
		pool.Close()
	})
}

// Native code that ends one shard after another and names somebody else each time is found out.
func TestFramingOthersDoesNotGoOnForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{boxes: true}
		pool := newPool(t, p, func(o *Options) { o.Shard.MaxTenants = 64 })
		liar := version("liar")
		var victims []*tenants.Version
		for i := range 8 {
			victims = append(victims, version(fmt.Sprint("victim", i)))
		}
		for n := range metMost {
			l, v := take(t, pool, liar), take(t, pool, victims[n])
			s := p.shard(int(l.Shard()) - 1)
			if l.Shard() != v.Shard() {
				t.Fatalf("death %d: in shards %d and %d", n, l.Shard(), v.Shard())
			}
			s.inFlight(1, l.pl.handle)
			s.inFlight(2, v.pl.handle)
			s.box(t, ipc.Running{Slot: 0, Tenant: l.pl.handle, Stream: 1}, ipc.Running{Slot: 1, Tenant: v.pl.handle, Stream: 2, Fault: 11})
			s.exit(orders.Exit{Code: -1, Signal: syscall.SIGSEGV, Syscall: -1})
			synctest.Wait()
			l.Release()
			v.Release()
			if st := pool.Standing(victims[n].Tenant); st == "" {
				t.Errorf("death %d: who was named is not apart", n)
			}
		}
		if st := pool.Standing("liar"); st == "" {
			t.Error("who was there every time is not apart")
		}
		pool.Close()
	})
}

func TestOverdueStartIsAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		pool := newPool(t, p, nil)
		p.onLoad = func(s *fakeShard, r gatewayside.LoadRequest) (gatewayside.LoadResult, error) {
			s.end(&gatewayside.OverdueError{Tenant: r.Tenant, CPU: 1200 * time.Millisecond, Limit: time.Second})
			return gatewayside.LoadResult{}, fmt.Errorf("load: %w", s.err)
		}
		_, err := pool.Acquire(t.Context(), version("slow"))
		var le *LoadError
		if !errors.As(err, &le) || le.Outcome.String() != "exceededCpu" {
			t.Errorf("err %v", err)
		}
		pool.Close()
	})
}
