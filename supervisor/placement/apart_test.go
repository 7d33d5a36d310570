package placement

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"bulkhead/supervisor/tenants"
)

// bound is a version with service bindings.
func bound(id string, to ...string) *tenants.Version {
	v := version(id)
	for _, t := range to {
		v.Env = append(v.Env, tenants.EnvVar{Name: t, Service: t})
	}
	return v
}

// Versions bound to each other go to different shards, whichever comes first, though there is room.
func TestBoundTenantsNeverMeet(t *testing.T) {
	for _, first := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			p := &plant{}
			pool := newPool(t, p, nil)
			for i := range 40 {
				a, b := bound(fmt.Sprint("a", i), fmt.Sprint("b", i)), version(fmt.Sprint("b", i))
				b.Callers = []string{a.Tenant}
				if first {
					a, b = b, a
				}
				la := take(t, pool, a)
				lb := take(t, pool, b)
				if la.Shard() == lb.Shard() {
					t.Fatalf("pair %d shares shard %d", i, la.Shard())
				}
				la.Release()
				lb.Release()
				pool.Evict(a.Tenant)
				pool.Evict(b.Tenant)
			}
			pool.Close()
		})
	}
}

// A binding that nobody agreed to keeps nobody apart; one that policy allows does.
func TestOnlyCallersAreKeptApart(t *testing.T) {
	for _, may := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			pool := newPool(t, &plant{}, func(o *Options) {
				o.MayCall = func(caller, callee string) bool { return may && caller == "a" && callee == "b" }
			})
			la, lb := take(t, pool, bound("a", "b")), take(t, pool, version("b"))
			if together := la.Shard() == lb.Shard(); together == may {
				t.Errorf("allowed %v, together %v", may, together)
			}
			la.Release()
			lb.Release()
			pool.Close()
		})
	}
}

// What was started by another tenant's doing is moved out of its process, and kept out.
func TestReachedTenantIsMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		pool := newPool(t, p, nil)
		a, b, c := version("a"), version("b"), version("c")
		la := take(t, pool, a)
		lb := take(t, pool, b) // busy while it is called
		take(t, pool, c).Release()
		if la.Shard() != lb.Shard() {
			t.Fatalf("the plant spreads: %d, %d", la.Shard(), lb.Shard())
		}
		pool.Apart([]string{"a"}, "b")
		pool.Apart([]string{"a"}, "c")
		for range 3 {
			for _, v := range []*tenants.Version{b, c} {
				l := take(t, pool, v)
				if l.Shard() == la.Shard() {
					t.Errorf("%s was started where its caller is", v.Tenant)
				}
				l.Release()
			}
		}
		pool.Apart([]string{"a"}, "a") // itself
		la.Release()
		lb.Release()
		synctest.Wait()
		// Both ways: the caller is not put beside the callee either.
		pool.Evict("a")
		l := take(t, pool, a)
		for _, v := range []*tenants.Version{b, c} {
			lv := take(t, pool, v)
			if lv.Shard() == l.Shard() {
				t.Errorf("a was put beside %s", v.Tenant)
			}
			lv.Release()
		}
		l.Release()
		checkSlots(t, pool, p)
		// A long time later it is forgotten.
		time.Sleep(2 * apartFor)
		synctest.Wait()
		pool.mu.Lock()
		if len(pool.apart) != 0 {
			t.Errorf("still apart: %v", pool.apart)
		}
		pool.mu.Unlock()
		pool.Close()
	})
}

// One tenant that reaches everybody is kept from so many and holds no more memory.
func TestApartIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := newPool(t, &plant{}, nil)
		for i := range 10 * maxApart {
			pool.Apart([]string{"a"}, fmt.Sprint("t", i))
			time.Sleep(time.Millisecond)
		}
		pool.mu.Lock()
		if n := len(pool.apart["a"]); n != maxApart || !pool.apart.are(fmt.Sprint("t", 10*maxApart-1), "a") || pool.apart.are("a", "t0") {
			t.Errorf("%d kept", n)
		}
		pool.mu.Unlock()
		pool.Close()
	})
}
