package engine

import (
	"bytes"
	"os"
	"strconv"
	"testing"
	"time"

	"bulkhead/sandboxworker/engine/native"
)

// pss returns this process's proportional set in bytes: what it takes of the machine.
func pss(t testing.TB) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		if f := bytes.Fields(line); len(f) > 1 && string(f[0]) == "Pss:" {
			kib, err := strconv.Atoi(string(f[1]))
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no Pss in smaps_rollup")
	return 0
}

// hello is the smallest tenant anyone deploys.
const hello = `export default { fetch() { return new Response("hello"); } }`

// What an idle tenant of the shipped runtime costs its machine.
func TestFootprintOfAnIdleTenant(t *testing.T) {
	if withRuntime(t) {
		return
	}
	locked(t)
	const n = 200
	list := make([]*Isolate, n)
	each := func(what string, f func(int)) {
		before, beforeRSS, began := pss(t), rss(t), time.Now()
		for k := range n {
			f(k)
		}
		took := time.Since(began)
		t.Logf("%-8s %7.1f KiB PSS, %7.1f KiB RSS, %v each", what, float64(pss(t)-before)/n/1024, float64(rss(t)-beforeRSS)/n/1024, took/n)
	}
	t.Logf("base     %.1f MiB PSS", float64(pss(t))/(1<<20))
	start := pss(t)
	each("new", func(k int) { list[k] = newIsolate(t) })
	each("load", func(k int) {
		if out, _ := list[k].Load(one(hello), nil, Limits{MemoryBytes: 64 << 20, Timers: 100, Pending: 100}, epoch); out.Failure != nil {
			t.Fatal(out.Failure)
		}
	})
	each("request", func(k int) {
		if got := ask(t, list[k]); got != "hello" {
			t.Fatal(got)
		}
	})
	t.Logf("sum      %7.1f KiB PSS", float64(pss(t)-start)/n/1024)
	each("trim", func(k int) { list[k].Trim() })
	began := time.Now()
	native.TrimProcess()
	t.Logf("trim of the process took %v", time.Since(began))
	idle := (pss(t) - start) / n
	t.Logf("trimmed  %7.1f KiB PSS", float64(idle)/1024)
	each("request", func(k int) {
		if got := ask(t, list[k]); got != "hello" {
			t.Fatal(got)
		}
	})
	if idle > 1050<<10 && !underASan {
		t.Errorf("a trimmed idle tenant takes %d KiB", idle>>10)
	}
}

// Memory is given back: after thousands of tenants came and went the process is as large as after
// the first hundreds, which fill V8's and malloc's pools.
func TestMemoryIsGivenBack(t *testing.T) {
	if testing.Short() || underASan {
		t.Skip("thousands of isolates; AddressSanitizer quarantines what is freed")
	}
	if withRuntime(t) {
		return
	}
	locked(t)
	const warm, cycles = 500, 10_000
	began := time.Now()
	var start, n int
	for n = 1; n <= cycles && time.Since(began) < 30*time.Second; n++ {
		i, err := shared.New() // not newIsolate: it would keep them all until the end
		if err != nil {
			t.Fatal(err)
		}
		if out, turn := i.Load(one(`const kept = new Uint8Array(1 << 16).fill(1); setTimeout(() => kept, 1000); `+hello), nil, Limits{MemoryBytes: 64 << 20, Timers: 9}, epoch); out.Failure != nil || turn.Status != OK {
			t.Fatal(turn.Status, out.Failure)
		}
		if got := ask(t, i); got != "hello" {
			t.Fatal(got)
		}
		if n%3 == 0 {
			i.Trim()
		}
		i.Dispose()
		if n == warm {
			start = rss(t)
		}
	}
	end := rss(t)
	t.Logf("%d cycles: %.1f MiB after %d, %.1f MiB at the end", n-1, float64(start)/(1<<20), warm, float64(end)/(1<<20))
	if start == 0 || float64(end) > 1.1*float64(start) {
		t.Errorf("the process grew from %d to %d bytes", start, end)
	}
}
