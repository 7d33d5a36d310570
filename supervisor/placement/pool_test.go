package placement

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"bulkhead/ipc/gatewayside"
)

func TestLoadsOnceAndFillsShards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		pool := newPool(t, p, nil)
		var loads atomic.Int32
		p.onLoad = func(*fakeShard, gatewayside.LoadRequest) (gatewayside.LoadResult, error) {
			loads.Add(1)
			time.Sleep(time.Second)
			return gatewayside.LoadResult{}, nil
		}
		if err := pool.Warm(t.Context()); err != nil {
			t.Fatal(err)
		}
		v := version("a")
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { take(t, pool, v).Release() })
		}
		wg.Wait()
		if n := loads.Load(); n != 1 {
			t.Errorf("50 requests loaded %d times", n)
		}
		p.mu.Lock()
		p.onLoad = nil
		p.mu.Unlock()
		// Nine tenants in shards of four: three shards, and two spares.
		shards := map[uint32]int{}
		for i := range 8 {
			l := take(t, pool, version(fmt.Sprint("t", i)))
			shards[l.Shard()]++
			l.Release()
		}
		synctest.Wait()
		if g := pool.Gauges(); g.Shards != 3 || g.Spares != 2 || g.TenantsLoaded != 9 {
			t.Errorf("gauges %+v, want 3 shards, 2 spares, 9 loaded", g)
		}
		checkSlots(t, pool, p)
		pool.Close()
	})
}

func TestAWaiterThatLeavesDoesNotUndoTheLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		pool := newPool(t, p, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		v := version("a")
		if _, err := pool.Acquire(ctx, v); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("err %v", err)
		}
		time.Sleep(time.Second)
		if x := pool.Tenants()["a"]; len(x) != 1 || x[0].State != "loaded" {
			t.Errorf("%+v", x)
		}
		pool.Close()
	})
}

func TestChoiceAmongTheFitIsRandom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		pool := newPool(t, p, func(o *Options) { o.Shard.MaxTenants, o.Spares = 1000, 1 })
		// Two shards in use: fill one, make room in neither, then open both by hand.
		pool.mu.Lock()
		pool.spawnLocked(pool.first())
		pool.mu.Unlock()
		synctest.Wait()
		take(t, pool, version("first")).Release()
		synctest.Wait()
		pool.mu.Lock()
		for _, s := range pool.shards {
			s.used, s.cordon = true, "default"
		}
		pool.mu.Unlock()
		count := map[uint32]int{}
		for i := range 200 {
			l := take(t, pool, version(fmt.Sprint("t", i)))
			count[l.Shard()]++
			l.Release()
		}
		if len(count) != 2 || count[1] < 50 || count[2] < 50 {
			t.Errorf("200 tenants were placed %v", count)
		}
		pool.Close()
	})
}

func TestIdleTenantsAreEvictedAndEmptyShardsRetired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		pool := newPool(t, p, func(o *Options) { o.IdleEvict = time.Minute })
		held := take(t, pool, version("held"))
		idle := version("idle")
		take(t, pool, idle).Release()
		time.Sleep(50 * time.Second)
		take(t, pool, idle).Release() // used again: the minute begins anew
		time.Sleep(50 * time.Second)
		if _, ok := pool.Tenants()["idle"]; !ok {
			t.Fatal("evicted although it was used less than a minute ago")
		}
		time.Sleep(40 * time.Second)
		got := pool.Tenants()
		if _, ok := got["idle"]; ok {
			t.Error("idle for over a minute and still loaded")
		}
		if _, ok := got["held"]; !ok {
			t.Error("evicted under a lease")
		}
		checkSlots(t, pool, p)
		held.Release()
		time.Sleep(2 * time.Minute)
		if g := pool.Gauges(); g.Shards != 0 || g.Spares != 2 {
			t.Errorf("gauges %+v, want the spares alone", g)
		}
		if n := len(pool.opt.Observer.Incidents.List()); n != 0 {
			t.Errorf("%d incidents of shards that were not needed", n)
		}
		pool.Close()
	})
}

func TestFullHostEvictsTheLeastRecentlyUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		pool := newPool(t, p, func(o *Options) { o.MaxShards, o.Shard.MaxTenants = 1, 3 })
		for _, id := range []string{"old", "middle", "young"} {
			take(t, pool, version(id)).Release()
			time.Sleep(time.Second)
		}
		l := take(t, pool, version("new"))
		got := pool.Tenants()
		if _, ok := got["old"]; ok || len(got) != 3 {
			t.Errorf("loaded: %v", got)
		}
		// All in use: nobody is evicted, the newcomer is told.
		l2, l3 := take(t, pool, got["middle"][0].Version), take(t, pool, got["young"][0].Version)
		if _, err := pool.Acquire(t.Context(), version("late")); !errors.Is(err, ErrFull) {
			t.Errorf("err %v, want ErrFull", err)
		}
		l2.Release()
		take(t, pool, version("late")).Release()
		l.Release()
		l3.Release()
		checkSlots(t, pool, p)
		pool.Close()
	})
}

// An early request is served before its load is over: the tenant is in use, and says so.
func TestEvictDuringALoadIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		finish := make(chan struct{})
		p.onLoad = func(*fakeShard, gatewayside.LoadRequest) (gatewayside.LoadResult, error) {
			<-finish
			return gatewayside.LoadResult{}, nil
		}
		pool := newPool(t, p, nil)
		v := version("a")
		held := make(chan Lease)
		go func() { held <- take(t, pool, v) }()
		synctest.Wait()
		if evicted, busy := pool.Evict("a"); evicted != 0 || busy != 1 {
			t.Errorf("while it loads: %d evicted, %d busy", evicted, busy)
		}
		close(finish)
		l := <-held
		if evicted, busy := pool.Evict("a"); evicted != 0 || busy != 1 {
			t.Errorf("under a lease: %d evicted, %d busy", evicted, busy)
		}
		l.Release()
		if evicted, busy := pool.Evict("a"); evicted != 1 || busy != 0 {
			t.Errorf("at rest: %d evicted, %d busy", evicted, busy)
		}
		pool.Close()
	})
}
