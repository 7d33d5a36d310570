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

// Caches together stay within their bound, and the one that was used last stays.
func TestCodeCachesAreBounded(t *testing.T) {
	c := newCaches(3000)
	of := func(n int) *tenants.Version {
		v := version(fmt.Sprint("t", n))
		v.Bundle = make([]byte, cacheLeast)
		return v
	}
	load := func(n int) []byte { data, _ := c.get(of(n)); return data }
	for n := range 3 {
		load(n)
		if !c.put(of(n), make([]byte, 1000)) {
			t.Fatalf("cache %d was not kept", n)
		}
	}
	if load(0) == nil {
		t.Fatal("the first cache is gone before there was need")
	}
	load(3)
	c.put(of(3), make([]byte, 1000))
	for n, want := range []bool{true, false, true, true} {
		if c.has(of(n)) != want {
			t.Errorf("cache %d: kept %v, want %v", n, !want, want)
		}
	}
	load(4)
	if c.put(of(4), make([]byte, 3001)) || c.bytes > 3000 {
		t.Errorf("a cache larger than all together was kept, or %d bytes of 3000 are", c.bytes)
	}
	for n := range 5 {
		c.keepOnly(of(n).Tenant, "another")
	}
	if c.bytes != 0 || len(c.tenants) != 0 || c.recent.Len() != 0 {
		t.Errorf("%d bytes of %d tenants (%d in the list) are left of versions that are gone", c.bytes, len(c.tenants), c.recent.Len())
	}
}

// A version is asked for once: as soon as it has been started often enough, and again only if its cache could
// not be made or was given up. What is small waits longer, what is tiny for ever.
func TestCodeCachesAreAskedForOnce(t *testing.T) {
	for _, c := range []struct{ size, after int }{{cacheLeast - 1, 0}, {cacheLeast, forgeAfterSmall}, {forgeSmall, forgeAfter}} {
		all := newCaches(cacheBytes)
		v := version("t")
		v.Bundle = make([]byte, c.size)
		asked := 0
		for n := 1; n <= 10; n++ {
			if _, forge := all.get(v); forge {
				if asked++; n != c.after {
					t.Errorf("%d bytes: asked for at load %d, want %d", c.size, n, c.after)
				}
			}
		}
		all.again(v)
		if _, forge := all.get(v); forge != (c.after > 0) || asked != min(c.after, 1) {
			t.Errorf("%d bytes: asked for %d times; once it could not be made: %v", c.size, asked, forge)
		}
	}
}

// A cache is made when nobody starts: loads put it off, but not for ever.
func TestCodeCachesWaitForALull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := newPool(t, &plant{}, nil)
		waited := func(busy time.Duration) time.Duration {
			began := time.Now()
			pool.starting.Add(1)
			time.AfterFunc(busy, func() {
				pool.started.Store(int64(time.Since(pool.start)))
				pool.starting.Add(-1)
			})
			if !pool.lull() {
				t.Fatal("the pool has closed")
			}
			return time.Since(began)
		}
		if d := waited(2 * time.Second); d != 2*time.Second+forgePause {
			t.Errorf("a load of 2 s put it off by %v, want %v", d, 2*time.Second+forgePause)
		}
		if d := waited(time.Minute); d != forgeLate {
			t.Errorf("a load of a minute put it off by %v, want %v", d, forgeLate)
		}
		time.Sleep(2 * time.Minute)
		pool.Close()
	})
}
