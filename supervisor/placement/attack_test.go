package placement

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"bulkhead/ipc/gatewayside"
	"bulkhead/schema/gen"
	"bulkhead/supervisor/launcher/orders"
	"bulkhead/supervisor/observe"
	"bulkhead/supervisor/tenants"
)

// A shard in which a tenant has taken over says of every other that it does not start. It is not
// believed: a shard of the victim's own is asked.
func TestAShardCannotTalkItsNeighboursDown(t *testing.T) {
	for _, outcome := range []gen.Outcome{gen.Outcome_exception, gen.Outcome_internalError, gen.Outcome_exceededMemory} {
		t.Run(outcome.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &plant{}
				var rejected atomic.Int32
				pool := newPool(t, p, func(o *Options) {
					o.OnRejected = func(*tenants.Version, gatewayside.LoadFailure) *tenants.Version { rejected.Add(1); return nil }
				})
				take(t, pool, version("evil")) // its lease holds it in shard 1
				p.onLoad = func(s *fakeShard, _ gatewayside.LoadRequest) (gatewayside.LoadResult, error) {
					if s.id == 1 {
						return gatewayside.LoadResult{Failed: &gatewayside.LoadFailure{Outcome: outcome, Message: "I say so"}}, nil
					}
					return gatewayside.LoadResult{}, nil
				}
				for i := range 3 {
					l, err := pool.Acquire(t.Context(), version(fmt.Sprint("victim", i)))
					if err != nil {
						t.Fatalf("victim %d: %v", i, err)
					}
					if l.Shard() == 1 {
						t.Error("in the shard that refused it")
					}
					l.Release()
				}
				if n := rejected.Load(); n != 0 {
					t.Errorf("%d innocent versions were rejected", n)
				}
				checkSlots(t, pool, p)
				pool.Close()
			})
		})
	}
}

// A version that is broken is still found to be so, once, wherever it is tried.
func TestABrokenVersionIsStillRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		var rejected, loads atomic.Int32
		pool := newPool(t, p, func(o *Options) {
			o.OnRejected = func(*tenants.Version, gatewayside.LoadFailure) *tenants.Version { rejected.Add(1); return nil }
		})
		take(t, pool, version("neighbour"))
		p.onLoad = func(*fakeShard, gatewayside.LoadRequest) (gatewayside.LoadResult, error) {
			loads.Add(1)
			return gatewayside.LoadResult{Failed: &gatewayside.LoadFailure{Outcome: gen.Outcome_exception, Message: "boom"}}, nil
		}
		v := version("broken")
		for range 20 {
			var le *LoadError
			if _, err := pool.Acquire(t.Context(), v); !errors.As(err, &le) {
				t.Fatalf("err %v", err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if rejected.Load() != 1 || loads.Load() != 2 {
			t.Errorf("%d rejections, %d loads", rejected.Load(), loads.Load())
		}
		pool.Close()
	})
}

// Shards that die of somebody else while a tenant is loaded into them cost its clients nothing.
func TestLoadsIntoDyingShardsAreTriedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		pool := newPool(t, p, func(o *Options) { o.Shard.MaxTenants = 64 })
		evil := version("evil")
		for round := range 5 {
			l := take(t, pool, evil)
			killer := l.Shard()
			p.mu.Lock()
			p.onLoad = func(s *fakeShard, _ gatewayside.LoadRequest) (gatewayside.LoadResult, error) {
				time.Sleep(time.Millisecond)
				if s.id == killer { // its tenant ends it while others are on their way
					s.exit(orders.Exit{Code: 2, Syscall: -1})
					return gatewayside.LoadResult{}, fmt.Errorf("data channel: write: %w", gatewayside.ErrPeerGone)
				}
				return gatewayside.LoadResult{}, nil
			}
			p.mu.Unlock()
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() {
					l, err := pool.Acquire(t.Context(), version(fmt.Sprintf("victim%d-%d", round, i)))
					if err != nil {
						t.Errorf("round %d: %v", round, err)
						return
					}
					l.Release()
				})
			}
			wg.Wait()
			l.Release()
		}
		if n := p.spawned.Load(); n > 5*(maxGroups+6) { // without a black box each of the twenty is a suspect
			t.Errorf("%d shards were made for five deaths", n)
		}
		checkSlots(t, pool, p)
		pool.Close()
	})
}

// Who kills its shard while it is loaded does so once among others, and then alone.
func TestALoadBombGoesOffAmongOthersOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		pool := newPool(t, p, nil)
		for i := range 8 {
			take(t, pool, version(fmt.Sprint("innocent", i))).Release()
		}
		p.onLoad = func(s *fakeShard, _ gatewayside.LoadRequest) (gatewayside.LoadResult, error) {
			s.exit(orders.Exit{Code: 2, Syscall: -1})
			return gatewayside.LoadResult{}, gatewayside.ErrPeerGone
		}
		v := version("bomb")
		for range 20 {
			if _, err := pool.Acquire(t.Context(), v); !errors.Is(err, errDeadly) {
				t.Fatalf("err %v", err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		list := pool.opt.Observer.Incidents.List()
		if len(list) != 2 {
			t.Fatalf("%d shards died", len(list))
		}
		for _, i := range list {
			if !slices.Equal(i.Tenants, []string{"bomb"}) {
				t.Errorf("incident names %v", i.Tenants)
			}
		}
		pool.Close()
	})
}

// Clients do not wait for a start longer than for the request itself.
func TestAcquireEndsWithTheWallLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		pool := newPool(t, p, nil)
		if err := pool.Warm(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.onLoad = func(*fakeShard, gatewayside.LoadRequest) (gatewayside.LoadResult, error) {
			time.Sleep(16 * time.Second)
			return gatewayside.LoadResult{}, nil
		}
		v := version("slow")
		v.Limits.Wall = time.Second
		began := time.Now()
		if _, err := pool.Acquire(t.Context(), v); !errors.Is(err, ErrStarting) || time.Since(began) != time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		time.Sleep(20 * time.Second)
		take(t, pool, v).Release()
		pool.Close()
	})
}

// A shard that logs in a tenant's name without end fills neither the gateway's time nor its memory.
func TestAFloodOfLogLinesIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		var shown atomic.Int64
		pool := newPool(t, p, func(o *Options) { o.OnLog = func(string, observe.Line) { shown.Add(1) } })
		var logs func([]gatewayside.LogEntry)
		p.onLoad = func(_ *fakeShard, r gatewayside.LoadRequest) (gatewayside.LoadResult, error) {
			logs = r.Logs
			return gatewayside.LoadResult{}, nil
		}
		take(t, pool, version("a")).Release()
		for range 1000 {
			logs(make([]gatewayside.LogEntry, 1000))
		}
		if n := shown.Load(); n > logBurst/logCost+1000 {
			t.Errorf("%d of a million lines were taken at once", n)
		}
		time.Sleep(10 * time.Second)
		logs(make([]gatewayside.LogEntry, 1))
		lines := pool.opt.Observer.Logs.Read("a", 0)
		if last := lines[len(lines)-1]; !strings.Contains(last.Text, "log lines were dropped") {
			t.Errorf("the gap is not told: %+v", last)
		}
		pool.Close()
	})
}

// A thousand deployments, some of which do not start, and tenants that come and go leave one
// version each where there is a tenant, and nothing where there is none.
func TestAThousandReloadsLeaveNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		pool := newPool(t, p, nil)
		p.onLoad = func(_ *fakeShard, r gatewayside.LoadRequest) (gatewayside.LoadResult, error) {
			time.Sleep(time.Millisecond)
			if len(r.Env) > 0 {
				return gatewayside.LoadResult{Failed: &gatewayside.LoadFailure{Outcome: gen.Outcome_exception}}, nil
			}
			return gatewayside.LoadResult{}, nil
		}
		neighbour := take(t, pool, version("neighbour"))
		defer neighbour.Release()
		var old *tenants.Version
		for i := range 1000 {
			v := version("a")
			if i%3 == 2 {
				v.Env = []tenants.EnvVar{{Name: "BROKEN"}}
			}
			if i%50 == 49 {
				pool.Retire("a", nil)
				continue
			}
			pool.Retire("a", v)
			l, err := pool.Acquire(t.Context(), v)
			if old != nil && i%7 == 0 { // looked up before the change
				if late, err := pool.Acquire(t.Context(), old); err == nil {
					late.Release()
				}
			}
			if old = v; err == nil {
				go func() { time.Sleep(20 * time.Millisecond); l.Release() }()
			}
			time.Sleep(5 * time.Millisecond)
		}
		pool.Retire("a", nil)
		time.Sleep(5 * time.Minute)
		if n := len(pool.Tenants()["a"]); n > 0 {
			t.Errorf("%d versions are left", n)
		}
		pool.mu.Lock()
		places, current, shards := len(pool.places), len(pool.current), len(pool.shards)
		pool.mu.Unlock()
		if places != 1 || current != 0 || shards > 4 {
			t.Errorf("%d places, %d current, %d shards are left", places, current, shards)
		}
		checkSlots(t, pool, p)
		pool.Close()
	})
}
