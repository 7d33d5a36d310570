package placement

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bulkhead/ipc/gatewayside"
	"bulkhead/supervisor/tenants"
)

// A code cache comes from a shard that its tenant had to itself, goes to that tenant's loads of
// that version alone, and ends with the version.
func TestCodeCachesStayWithTheirTenant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		var mu sync.Mutex
		given := map[uint32]string{} // shard → cache
		guests := map[uint32][]string{}
		p.onLoad = func(s *fakeShard, r gatewayside.LoadRequest) (gatewayside.LoadResult, error) {
			mu.Lock()
			defer mu.Unlock()
			guests[s.id] = append(guests[s.id], string(r.Bundle[:1]))
			if len(r.CodeCache) > 0 {
				given[s.id] += string(r.Bundle[:1]) + " given " + string(r.CodeCache) + ";"
			}
			return gatewayside.LoadResult{}, nil
		}
		pool := newPool(t, p, func(o *Options) { o.Spares = 3 })
		big := func(id string) *tenants.Version {
			v := version(id)
			v.Bundle = append([]byte(id[:1]), make([]byte, cacheLeast)...)
			return v
		}
		a, b := big("a"), big("b")
		// Both in one shard from the start: neither's cache can be had from there.
		take(t, pool, b).Release()
		take(t, pool, a).Release()
		time.Sleep(10 * time.Second)
		if pool.caches.has(a) || pool.caches.has(b) {
			t.Fatal("a cache came from a shard that two tenants had been in")
		}
		for range 3 {
			pool.Evict("a")
			take(t, pool, a).Release()
			time.Sleep(5 * time.Second)
		}
		if !pool.caches.has(a) || pool.caches.has(b) {
			t.Fatalf("a has a cache: %v, b: %v", pool.caches.has(a), pool.caches.has(b))
		}
		mu.Lock()
		for shard, what := range given {
			var from uint32
			if n, _ := fmt.Sscanf(what, "a given cache made in shard %d;", &from); n != 1 || fmt.Sprint(guests[from]) != "[a]" {
				t.Errorf("shard %d: %s, which hosted %v", shard, what, guests[from])
			}
		}
		if len(given) == 0 {
			t.Error("no load was given a cache")
		}
		mu.Unlock()
		if n := len(pool.opt.Observer.Incidents.List()); n != 0 {
			t.Errorf("%d incidents", n)
		}
		pool.Retire("a", big("a2"))
		if pool.caches.has(a) {
			t.Error("the cache outlived its version")
		}
		checkSlots(t, pool, p)
		pool.Close()
	})
}
