package placement

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/policy/seccomp"
	"bulkhead/schema/gen"
	"bulkhead/supervisor/launcher/orders"
	"bulkhead/supervisor/observe"
	"bulkhead/supervisor/tenants"
)

func TestDeathBringsIncidentSpareAndTenantsBack(t *testing.T) {
	for name, c := range map[string]struct {
		end     func(*fakeShard)
		kind    observe.IncidentKind
		outcome string
		tenants []string
		signal  string
		syscall string
	}{
		"killed":    {func(s *fakeShard) { s.exit(orders.Exit{Code: -1, Signal: syscall.SIGSEGV, Syscall: -1}) }, observe.ShardDied, "crashed", []string{"running"}, "SIGSEGV", ""},
		"forbidden": {func(s *fakeShard) { s.exit(orders.Exit{Code: -1, Signal: syscall.SIGSYS, Syscall: 257}) }, observe.ShardDied, "crashed", []string{"resting", "running"}, "SIGSYS", "257"},
		"stopped":   {func(s *fakeShard) { s.exit(orders.Exit{Code: -1, Signal: syscall.SIGKILL, Syscall: -1, Stopped: true}) }, observe.ShardStopped, "crashed", []string{}, "SIGKILL", ""},
		"violation": {func(s *fakeShard) {
			v := ipc.Violation(ipc.KindState, 7, "second head")
			s.end(v)
			s.break_(v)
		}, observe.ShardViolation, "protocolViolation", []string{"resting", "running"}, "SIGKILL", ""},
		"silent": {func(s *fakeShard) { s.end(fmt.Errorf("ping: %w", gatewayside.ErrUnresponsive)) }, observe.ShardSilent, "crashed", []string{"running"}, "SIGKILL", ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &plant{}
				pool := newPool(t, p, nil)
				running, resting := version("running"), version("resting")
				l := take(t, pool, running)
				take(t, pool, resting).Release()
				before := l.Shard()
				p.shard(int(before)-1).inFlight(7, l.pl.handle)
				c.end(p.shard(int(before) - 1))
				synctest.Wait()
				list := pool.opt.Observer.Incidents.List()
				if len(list) != 1 {
					t.Fatalf("incidents: %+v", list)
				}
				i := list[0]
				got := ""
				if i.Syscall != nil {
					got = *i.Syscall
				}
				if i.Kind != c.kind || i.Outcome != c.outcome || !slices.Equal(i.Tenants, c.tenants) || i.Signal == nil || *i.Signal != c.signal || got != c.syscall || i.Shard != before {
					t.Errorf("incident %+v", i)
				}
				if l.Alive() {
					t.Error("the lease says the shard lives")
				}
				l.Release()
				l = take(t, pool, running)
				if l.Shard() == before {
					t.Error("back in the dead shard")
				}
				l.Release()
				synctest.Wait()
				if g := pool.Gauges(); g.Spares != 2 {
					t.Errorf("gauges %+v, want warm spares", g)
				}
				checkSlots(t, pool, p)
				pool.Close()
			})
		})
	}
}

func TestSpawnFailuresBackOffAndRecover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{err: &orders.SpawnError{Step: "cgroup", Errno: syscall.EACCES, Detail: "memory.max"}}
		var attempts atomic.Int32
		pool := newPool(t, p, func(o *Options) {
			inner := o.Spawn
			o.Spawn = func(ctx context.Context, pr seccomp.Profile, m uint64, v func(error)) (Process, Conn, error) {
				attempts.Add(1)
				return inner(ctx, pr, m, v)
			}
		})
		began := time.Now()
		_, err := pool.Acquire(t.Context(), version("a"))
		var ns *NoShardError
		var se *orders.SpawnError
		if !errors.As(err, &ns) || !errors.As(err, &se) || se.Step != "cgroup" || time.Since(began) > time.Second {
			t.Fatalf("err %v after %v", err, time.Since(began))
		}
		if err := pool.Warm(t.Context()); !errors.As(err, &ns) {
			t.Errorf("warm: %v", err)
		}
		// A minute of requests does not become a minute of attempts.
		for range 600 {
			pool.Acquire(t.Context(), version("a"))
			time.Sleep(100 * time.Millisecond)
		}
		if n := attempts.Load(); n < 8 || n > 20 {
			t.Errorf("%d attempts in a minute", n)
		}
		p.mu.Lock()
		p.err = nil
		p.mu.Unlock()
		time.Sleep(backoffLast + time.Second)
		take(t, pool, version("a")).Release()
		if n := len(pool.opt.Observer.Incidents.List()); n == 0 || n > 5 {
			t.Errorf("%d incidents", n)
		}
		pool.Close()
	})
}

func TestFailedLoadIsAnsweredFromMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		var loads, rejected atomic.Int32
		good := version("a")
		pool := newPool(t, p, func(o *Options) {
			o.OnRejected = func(v *tenants.Version, f gatewayside.LoadFailure) *tenants.Version {
				rejected.Add(1)
				return good
			}
		})
		p.onLoad = func(*fakeShard, gatewayside.LoadRequest) (gatewayside.LoadResult, error) {
			loads.Add(1)
			return gatewayside.LoadResult{Failed: &gatewayside.LoadFailure{Outcome: gen.Outcome_exception, Message: "boom", File: "w.js", Line: 3}}, nil
		}
		v := version("a")
		for range 100 {
			_, err := pool.Acquire(t.Context(), v)
			var le *LoadError
			if !errors.As(err, &le) || le.Failure.Message != "boom" || le.Instead != good {
				t.Fatalf("err %v", err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if loads.Load() != 1 || rejected.Load() != 1 {
			t.Errorf("%d loads, %d rejections in ten seconds", loads.Load(), rejected.Load())
		}
		time.Sleep(2 * time.Minute)
		pool.Acquire(t.Context(), v)
		if loads.Load() != 2 {
			t.Errorf("%d loads after the failure was forgotten", loads.Load())
		}
		pool.Close()
	})
}

// A version that ends two shards while it loads is not given a third at once.
func TestLoadThatKillsShards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		pool := newPool(t, p, nil)
		p.onLoad = func(s *fakeShard, _ gatewayside.LoadRequest) (gatewayside.LoadResult, error) {
			s.exit(orders.Exit{Code: 2, Syscall: -1})
			return gatewayside.LoadResult{}, gatewayside.ErrPeerGone
		}
		v := version("bomb")
		for range 20 {
			if _, err := pool.Acquire(t.Context(), v); err == nil {
				t.Fatal("loaded")
			}
			time.Sleep(100 * time.Millisecond)
		}
		list := pool.opt.Observer.Incidents.List()
		if len(list) != 2 {
			t.Fatalf("%d shards died in two seconds", len(list))
		}
		for _, i := range list {
			if !slices.Equal(i.Tenants, []string{"bomb"}) {
				t.Errorf("incident names %v", i.Tenants)
			}
		}
		pool.Close()
	})
}

// A shard that does not answer a load is killed, and the tenant comes up elsewhere.
func TestLoadWithoutAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		pool := newPool(t, p, nil)
		var first atomic.Bool
		first.Store(true)
		p.onLoad = func(s *fakeShard, _ gatewayside.LoadRequest) (gatewayside.LoadResult, error) {
			if first.Swap(false) {
				time.Sleep(16 * time.Second)
				return gatewayside.LoadResult{}, fmt.Errorf("load: %w", context.DeadlineExceeded)
			}
			return gatewayside.LoadResult{}, nil
		}
		l := take(t, pool, version("a"))
		if l.Shard() == 1 {
			t.Error("in the silent shard")
		}
		l.Release()
		synctest.Wait()
		if list := pool.opt.Observer.Incidents.List(); len(list) != 1 || list[0].Kind != observe.ShardSilent {
			t.Errorf("%+v", list)
		}
		pool.Close()
	})
}

func TestRetireKeepsOldVersionsUnderTheirRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		pool := newPool(t, p, nil)
		v1, v2 := version("a"), version("a")
		pool.Retire("a", v1)
		old := take(t, pool, v1)
		pool.Retire("a", v2)
		take(t, pool, v2).Release()
		late := take(t, pool, v1) // looked up before the change, acquired after it
		if n := len(pool.Tenants()["a"]); n != 2 {
			t.Errorf("%d versions, want 2", n)
		}
		late.Release()
		old.Release()
		time.Sleep(time.Second)
		if ws := pool.Tenants()["a"]; len(ws) != 1 || ws[0].Version != v2 || ws[0].State != "loaded" {
			t.Errorf("%+v", ws)
		}
		pool.Retire("a", nil) // the folder is gone
		time.Sleep(time.Second)
		if ws := pool.Tenants(); len(ws) != 0 {
			t.Errorf("%+v", ws)
		}
		checkSlots(t, pool, p)
		pool.Close()
	})
}

func TestCloseEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{takes: time.Second}
		pool := newPool(t, p, nil)
		l := take(t, pool, version("a"))
		go func() { time.Sleep(time.Second); l.Release() }()
		if err := pool.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		pool.Close()
		if _, err := pool.Acquire(t.Context(), version("b")); !errors.Is(err, ErrDraining) {
			t.Errorf("err %v", err)
		}
		if n := len(pool.opt.Observer.Incidents.List()); n != 0 {
			t.Errorf("%d incidents of an orderly end", n)
		}
	})
}

// Many requests, versions, deaths and evictions at once: no lease on a dead place for long, the
// books right in the end. Real time: the races are the point.
func TestHammer(t *testing.T) {
	p := &plant{}
	pool := newPool(t, p, func(o *Options) { o.MaxShards = 4 })
	p.onLoad = func(s *fakeShard, _ gatewayside.LoadRequest) (gatewayside.LoadResult, error) {
		if err := (&fakeConn{fakeShard: s}).Err(); err != nil {
			return gatewayside.LoadResult{}, err
		}
		return gatewayside.LoadResult{}, nil
	}
	var current [6]atomic.Pointer[tenants.Version]
	for i := range current {
		current[i].Store(version(fmt.Sprint("t", i)))
	}
	stop := time.Now().Add(500 * time.Millisecond)
	var wg sync.WaitGroup
	var served atomic.Int64
	for w := range 8 {
		wg.Go(func() {
			for n := 0; time.Now().Before(stop); n++ {
				v := current[(n+w)%len(current)].Load()
				if l, err := pool.Acquire(t.Context(), v); err == nil {
					if l.Shard() == 0 {
						t.Error("a lease without a shard")
					}
					served.Add(1)
					l.Release()
				}
			}
		})
	}
	wg.Go(func() {
		for n := 0; time.Now().Before(stop); n++ {
			i := n % len(current)
			v := version(fmt.Sprint("t", i))
			current[i].Store(v)
			pool.Retire(v.Tenant, v)
			pool.Evict(fmt.Sprint("t", (n+3)%len(current)))
			time.Sleep(time.Millisecond)
			if n%20 == 0 {
				p.mu.Lock()
				var s *fakeShard
				if n := len(p.shards); n > 0 { // on a busy machine there may be none yet
					s = p.shards[n-1]
				}
				p.mu.Unlock()
				if s != nil {
					s.exit(orders.Exit{Code: -1, Signal: syscall.SIGKILL, Syscall: -1})
				}
			}
		}
	})
	wg.Wait()
	if served.Load() < 1000 {
		t.Errorf("%d leases in half a second", served.Load())
	}
	if err := pool.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	// What was superseded is gone once its last lease is.
	for range 100 {
		if n := len(pool.Tenants()); n <= len(current) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	for id, ws := range pool.Tenants() {
		loaded := 0
		for _, w := range ws {
			if w.State == "loaded" {
				loaded++
			}
		}
		if loaded > 1 {
			t.Errorf("%s is loaded %d times", id, loaded)
		}
	}
	pool.Close()
}
