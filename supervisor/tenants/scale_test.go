package tenants

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// scale is how many folders the tests of scale make: BULKHEAD_SCALE, or what any machine makes in a
// few seconds. The figures of docs/BENCHMARKS.md are those of 100000.
func scale(t *testing.T) int {
	n, err := strconv.Atoi(os.Getenv("BULKHEAD_SCALE"))
	if err != nil || n < 1000 {
		n = 20_000
	}
	if testing.Short() {
		n = 2000
	}
	return n
}

// manyFolders makes n tenants; every hundredth has routes.
func manyFolders(t *testing.T, n int) string {
	t.Helper()
	// In memory where there is such a place: on a disk, making and removing them is all that takes time.
	root, err := os.MkdirTemp("/dev/shm", "bulkhead-scale")
	if err != nil {
		root = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	var wg sync.WaitGroup
	for part := range 4 {
		wg.Go(func() {
			for i := part; i < n; i += 4 {
				dir := filepath.Join(root, fmt.Sprintf("t%06d", i))
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Error(err)
					return
				}
				if err := os.WriteFile(filepath.Join(dir, "worker.js"), fmt.Appendf(nil, "export default { n: %d }", i), 0o644); err != nil {
					t.Error(err)
				}
				if i%100 == 0 {
					if err := os.WriteFile(filepath.Join(dir, "bulkhead.yaml"), fmt.Appendf(nil, "routes: ['w%d.example.com/*']", i), 0o644); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	return root
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A hundred thousand registered tenants: what they cost before anybody asks for them, how long a
// host takes to know them, and that what one of them does costs nobody else anything.
func TestScale(t *testing.T) {
	n := scale(t)
	h := &host{t: t, roots: []string{manyFolders(t, n)}}
	before, begin := heap(), time.Now()
	h.open(Config{Roots: h.roots, MaxWatches: 500})
	opened := time.Since(begin)
	each := float64(heap()-before) / float64(n)
	t.Logf("%d tenants known after %s, %.1f µs and %.0f bytes each", n, opened.Round(time.Millisecond), float64(opened.Microseconds())/float64(n), each)
	if h.Len() != n || len(h.List()) != n || h.builds.Load() != 0 {
		t.Fatalf("%d tenants, %d listed, %d builds", h.Len(), len(h.List()), h.builds.Load())
	}
	if each > 700 {
		t.Errorf("a tenant nobody asked for costs %.0f bytes", each)
	}
	if opened > time.Duration(n)*time.Millisecond { // some 10 µs each on an idle machine
		t.Errorf("it took %s to know them", opened)
	}

	// Single changes in the root cost the same among many as among few.
	begin = time.Now()
	const news = 200
	for i := range news {
		h.put(fmt.Sprintf("new%d", i), fmt.Sprintf("export default { n: 'new%d' }", i))
	}
	h.eventually("all new ones are known", func() bool { return h.Len() == n+news })
	t.Logf("%d new folders known after %s", news, time.Since(begin).Round(time.Millisecond))
	if got := h.get("new7.localhost", "/"); !strings.Contains(got, "new7") {
		t.Errorf("%q", got)
	}
	if got := h.get("w100.example.com", "/x"); !strings.Contains(got, "n: 100 ") {
		t.Errorf("a route: %q", got)
	}

	// Asked for at random: every one answers, and no more is watched than may be.
	rng := rand.New(rand.NewPCG(1, 2))
	asked := map[int]bool{}
	before, begin = heap(), time.Now()
	for range min(n/4, 5000) {
		i := rng.IntN(n)
		asked[i] = true
		if got := h.get(fmt.Sprintf("t%06d.localhost", i), "/"); got != fmt.Sprintf("export default { n: %d }", i) {
			t.Fatalf("t%06d: %q", i, got)
		}
	}
	took := time.Since(begin)
	t.Logf("%d first requests, %s each, %.0f bytes kept of each", len(asked), (took / time.Duration(len(asked))).Round(time.Microsecond), float64(heap()-before)/float64(len(asked)))
	h.watch.mu.Lock()
	watched, listed := h.watch.count, len(h.watch.fs.WatchList())
	h.watch.mu.Unlock()
	if watched > 500 || listed > 501 {
		t.Errorf("%d directories are watched, the kernel has %d; allowed are 500", watched, listed)
	}
	begin = time.Now()
	h.rescan()
	t.Logf("a look at everything: %s", time.Since(begin).Round(time.Millisecond))
}

// A tenant that fell asleep and was changed then answers with the change, at the first request; one
// that was not is not built again.
func TestSleepersWakeUpToDate(t *testing.T) {
	files := map[string]string{}
	for i := range 60 {
		files[fmt.Sprintf("t%d", i)] = fmt.Sprintf("v1 of %d", i)
	}
	h := start(t, Config{MaxWatches: 10, PollEvery: 20 * time.Millisecond, Eager: 1}, files)
	for round := range 2 {
		for i := range 60 {
			if got := h.get(fmt.Sprintf("t%d.localhost", i), "/"); got != fmt.Sprintf("v1 of %d", i) {
				t.Fatalf("round %d: t%d is %q", round, i, got)
			}
		}
	}
	if n := h.builds.Load(); n != 60 {
		t.Errorf("%d builds of 60 tenants", n)
	}
	v, _ := h.Lookup("t3.localhost", "/")
	// Who was asked in the same tick was asked at the same time: others are asked until t3 is the oldest.
	sleeps := func() {
		h.eventually("t3 falls asleep", func() bool {
			for i := range 40 {
				h.get(fmt.Sprintf("t%d.localhost", i+10), "/")
			}
			return h.entry("t3").asleep.Load()
		})
	}
	sleeps()
	if now, _ := h.Lookup("t3.localhost", "/"); now != v {
		t.Error("waking made another version")
	}
	sleeps()
	h.put("t3", "v2")
	h.put("t3/lib/deep/x.js", "1")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if got := h.get("t3.localhost", "/"); got != "v2" {
				t.Errorf("after its sleep: %q", got)
			}
		})
	}
	wg.Wait()
	h.put("t3", "v3")
	h.eventually("it is watched again", func() bool { return h.get("t3.localhost", "/") == "v3" })
	h.watch.mu.Lock()
	defer h.watch.mu.Unlock()
	sum := 0
	for _, w := range h.watch.known {
		sum += w.cost()
	}
	if sum != h.watch.count || sum > 12 {
		t.Errorf("%d directories are counted as %d", sum, h.watch.count)
	}
}

// Requests, changes, sleep and removal at once: whoever is asked for answers with what was there
// at some time since the request began, or is not there.
func TestSleepUnderLoad(t *testing.T) {
	files := map[string]string{}
	for i := range 30 {
		files[fmt.Sprintf("t%d", i)] = "0"
	}
	h := start(t, Config{MaxWatches: 5, PollEvery: 5 * time.Millisecond, Eager: 1, BundleMemory: 2000, BundleDir: filepath.Join(t.TempDir(), "b")}, files)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var asked atomic.Int64
	for w := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			for {
				select {
				case <-stop:
					return
				default:
				}
				v, ok := h.LookupContext(context.Background(), fmt.Sprintf("t%d.localhost", rng.IntN(30)), "/")
				if ok && v == nil {
					t.Error("a tenant without a version")
				}
				asked.Add(1)
			}
		})
	}
	for i := range 60 {
		id := fmt.Sprintf("t%d", i%30)
		if i%10 == 9 {
			if err := os.RemoveAll(filepath.Join(h.roots[0], id)); err != nil {
				t.Fatal(err)
			}
		}
		h.put(id, fmt.Sprint(i+1))
		time.Sleep(10 * time.Millisecond)
	}
	close(stop)
	wg.Wait()
	for i := range 30 {
		id := fmt.Sprintf("t%d", i)
		h.eventually(id+" has its last text", func() bool { return h.get(id+".localhost", "/") == fmt.Sprint(i+31) })
	}
	t.Logf("%d requests, %d builds", asked.Load(), h.builds.Load())
}
