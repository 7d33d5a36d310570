package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// worker returns a worker of about size bytes, of which a request runs a part.
func worker(size int) Bundle {
	var b strings.Builder
	b.WriteString("import { f0 } from './other.js';\nconst all = [];\n")
	for n := 0; b.Len() < size-200; n++ {
		fmt.Fprintf(&b, "function g%d(a, b) { const o = { a, b, n: %d }; for (let i = 0; i < 3; i++) o.n += i * a; return [o.n, b].map((x) => x + %d).join(\"-\"); }\nall.push(g%d);\n", n, n, n, n)
	}
	b.WriteString("export default { fetch() { let s = f0(); for (let i = 0; i < all.length; i += 4) s += all[i](i, 'x').length; return String(s); } };\n")
	return Bundle{Main: "/worker.js", Modules: []Module{
		{Name: "/worker.js", Code: []byte(b.String())},
		{Name: "/other.js", Code: []byte("export function f0() { return 40; }")},
	}}
}

func TestCodeCache(t *testing.T) {
	locked(t)
	b := worker(20 << 10)
	first := loadBundle(t, b, Limits{MemoryBytes: 64 << 20})
	want := ask(t, first)
	cache := first.CodeCache()
	if len(cache) < 5<<10 || first.native.CachedModules() != 0 {
		t.Fatalf("a cache of %d bytes", len(cache))
	}

	again := func(b Bundle, cache []byte, hits int) {
		t.Helper()
		b.CodeCache = cache
		i := loadBundle(t, b, Limits{MemoryBytes: 64 << 20})
		if got := ask(t, i); got != want || i.native.CachedModules() != hits {
			t.Errorf("answered %q, %d modules from the cache, want %q and %d", got, i.native.CachedModules(), want, hits)
		}
		i.Dispose()
	}
	again(b, cache, 2)

	// Of the wrong source, of the same length even, cut anywhere, changed anywhere: compiled as usual.
	other := b
	other.Modules = slices.Clone(b.Modules)
	other.Modules[0].Code = []byte(strings.Replace(string(b.Modules[0].Code), "i += 4", "i += 8", 1))
	keep := want
	want = ask(t, loadBundle(t, other, Limits{MemoryBytes: 64 << 20}))
	again(other, cache, 1)
	want = keep
	for _, n := range []int{0, 1, 4, 7, 8, 12, 39, 40, 60, len(cache) / 2, len(cache) - 1} {
		again(b, cache[:n], len(cacheHits(cache[:n])))
		bad := slices.Clone(cache)
		bad[n] ^= 0x81
		b := b
		b.CodeCache = bad
		i := loadBundle(t, b, Limits{MemoryBytes: 64 << 20})
		if got := ask(t, i); got != want || (i.native.CachedModules() > 1 && (n < 4 || n >= 8)) { // 4 to 7: the count
			t.Errorf("byte %d changed: answered %q, %d modules from the cache", n, got, i.native.CachedModules())
		}
		i.Dispose()
	}
	again(b, slices.Concat(cache, []byte("more")), 2)
	again(b, []byte("BHC1\xff\xff\xff\xff"+strings.Repeat("\xff", 100)), 0)
	again(b, make([]byte, 5<<20), 0)
}

// cacheHits returns the sizes of the modules that are whole in a cut cache.
func cacheHits(cache []byte) (sizes []int) {
	for b := cache[min(8, len(cache)):]; len(b) >= 28; {
		name, data := int(b[0])|int(b[1])<<8, int(b[16])|int(b[17])<<8|int(b[18])<<16
		if len(b) < 28+name+data {
			break
		}
		sizes = append(sizes, data)
		b = b[28+name+data:]
	}
	return sizes
}

// What a start costs, with and without the tenant's code cache: the load's CPU and the first request's.
func TestStartUpTimes(t *testing.T) {
	if withRuntime(t) {
		return
	}
	locked(t)
	for _, size := range []int{20 << 10, 1 << 20} {
		b := worker(size)
		for i := range b.Modules { // the shipped runtime wants a Response
			b.Modules[i].Code = []byte(strings.Replace(string(b.Modules[i].Code), "return String(s)", "return new Response(String(s))", 1))
		}
		var cache []byte
		for _, kind := range []string{"without", "with"} {
			if b.CodeCache = nil; kind == "with" {
				b.CodeCache = cache
			}
			var loads, firsts, news []time.Duration
			for range 15 {
				began := time.Now()
				i := newIsolate(t)
				news = append(news, time.Since(began))
				out, turn := i.Load(b, nil, Limits{MemoryBytes: 64 << 20, Timers: 9}, epoch)
				if out.Failure != nil || turn.Status != OK {
					t.Fatal(turn.Status, out.Failure)
				}
				loads = append(loads, turn.CPU)
				r := get(i, 1)
				firsts = append(firsts, r.CPU)
				if body(t, &r) == "" {
					t.Fatal("no answer")
				}
				if cache == nil {
					cache = i.CodeCache()
				}
				i.Dispose()
			}
			for _, l := range [][]time.Duration{loads, firsts, news} {
				slices.Sort(l)
			}
			t.Logf("%4d KiB %-7s cache (%d KiB): load %v CPU, first request %v CPU, new %v (medians of %d)", size>>10, kind, len(b.CodeCache)>>10,
				loads[len(loads)/2], firsts[len(firsts)/2], news[len(news)/2], len(loads))
		}
	}
}
