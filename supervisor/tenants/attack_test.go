package tenants

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"bulkhead/schema/gen"
	"bulkhead/supervisor/launcher/orders"
)

// A launcher that could not start a bundler, once, does not leave a tenant broken until somebody
// touches its folder.
func TestMachineryFailuresAreTriedAgain(t *testing.T) {
	h := start(t, Config{}, map[string]string{"a": "MACHINERY"})
	if v, _ := h.Lookup("a.localhost", "/"); v.Err == nil {
		t.Fatal("it was built")
	}
	// The text changes without a notification: only a retry can see it.
	e := h.entry("a")
	e.mu.Lock()
	e.watched = false
	e.mu.Unlock()
	h.put("a", "fine")
	h.eventually("it is built again", func() bool { return h.get("a.localhost", "/") == "fine" })
}

// What a hostile bundler says about one folder stays small in memory and on the terminal.
func TestManyErrorsAreKeptShort(t *testing.T) {
	var ds []Diagnostic
	for range maxDiagnostics {
		ds = append(ds, Diagnostic{Message: strings.Repeat("x", maxMessage)})
	}
	h := start(t, Config{}, map[string]string{"a": "x"})
	h.Lookup("a.localhost", "/")
	v := h.failed(h.entry("a"), StepBundle, ds)
	if n := len(v.Err.Diagnostics); n > maxKept+1 {
		t.Errorf("%d diagnostics are kept", n)
	}
	h.reportBroken(h.entry("a"), v.Err, false)
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.reports[len(h.reports)-1].Diagnostics); n > maxReported {
		t.Errorf("%d diagnostics are reported", n)
	}
}

// Two folders that change all the time and take long to bundle do not keep the bundlers from a
// third: between their builds they rest as long as they took.
func TestRestlessFoldersLeaveBundlersToOthers(t *testing.T) {
	h := &host{t: t, roots: []string{t.TempDir()}}
	var busy, builds atomic.Int64 // ns of bundler time of the restless
	for _, id := range []string{"r0", "r1"} {
		h.put(id, "x")
	}
	h.open(Config{Roots: h.roots, Eager: 1})
	h.cfg.Bundle = func(ctx context.Context, root int, name string) (BundleOutput, error) {
		begin := time.Now()
		time.Sleep(50 * time.Millisecond)
		busy.Add(int64(time.Since(begin)))
		builds.Add(1)
		return BundleOutput{Main: "/w.js", Modules: []Module{{Name: "/w.js", Kind: gen.Module_Kind_esm, Code: []byte(fmt.Sprint(rand.Uint64()))}}}, nil
	}
	begin := time.Now()
	for time.Since(begin) < time.Second {
		h.Rebuild("r0")
		h.Rebuild("r1")
		time.Sleep(2 * time.Millisecond)
	}
	if share := float64(busy.Load()) / float64(2*time.Since(begin)); share > 0.65 {
		t.Errorf("%d builds held %.0f %% of the bundlers", builds.Load(), 100*share)
	}
}

// Lost notifications have nobody bundled anew who has not changed.
func TestLostNotificationsDoNotRebuildEverybody(t *testing.T) {
	files := map[string]string{}
	for i := range 20 {
		files[fmt.Sprintf("t%d", i)] = "x"
	}
	h := start(t, Config{PollEvery: 20 * time.Millisecond}, files)
	for i := range 20 {
		h.get(fmt.Sprintf("t%d.localhost", i), "/")
	}
	lose := func() {
		h.watch.fs.Errors <- errors.New("queue or buffer overflow")
		time.Sleep(300 * time.Millisecond)
	}
	lose() // nothing to compare with yet
	before := h.builds.Load()
	for range 5 {
		lose()
	}
	if n := h.builds.Load() - before; n != 0 {
		t.Errorf("%d builds after overflows without a change", n)
	}
	e := h.entry("t7") // its notification is what was lost
	_ = h.watch.fs.Remove(h.folder(e))
	h.put("t7", "changed")
	lose()
	h.eventually("the change is found", func() bool { return h.get("t7.localhost", "/") == "changed" })
}

// Directories that come and go do not count for ever against the limit of watches.
func TestDirectoriesThatComeAndGo(t *testing.T) {
	h := start(t, Config{}, map[string]string{"a": "x"})
	h.get("a.localhost", "/")
	e := h.entry("a")
	h.watch.mu.Lock()
	for i := range maxWatchedDirs - 1 { // as after months of work
		h.watch.known[e].dirs = append(h.watch.known[e].dirs, fmt.Sprint("gone", i))
	}
	h.watch.mu.Unlock()
	if err := os.Mkdir(filepath.Join(h.roots[0], "a", "dist"), 0o755); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	h.watch.mu.Lock()
	defer h.watch.mu.Unlock()
	if h.watch.known[e].polled {
		t.Error("the folder is polled")
	}
}

func TestBundlersSourceMapsAreBounded(t *testing.T) {
	m := newMapper()
	if m.keep("/a.js", make([]byte, maxMap+1)) {
		t.Error("a map beyond the limit is kept")
	}
	noise := make([]byte, maxMapPacked+1<<20)
	rng := rand.NewChaCha8([32]byte{})
	rng.Read(noise)
	if m.keep("/a.js", noise) {
		t.Error("a map that does not shrink is kept")
	}
	if !m.keep("/a.js", bytes.Repeat([]byte("AAAA;"), 1<<20)) {
		t.Error("an honest map is not kept")
	}
	// Many errors at once open one map, not one each.
	var open, most atomic.Int64
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			m.spend(func() {
				if n := open.Add(1); n > most.Load() {
					most.Store(n)
				}
				time.Sleep(20 * time.Millisecond)
				open.Add(-1)
			})
		})
	}
	wg.Wait()
	if most.Load() != 1 {
		t.Errorf("%d maps were open at once", most.Load())
	}
}

func TestModuleNamesAreTheirOwnURLs(t *testing.T) {
	for name, ok := range map[string]bool{"/w.js": true, "/a/b.js": true, "/../x.js": false, "/a/../b": false, "/./a": false, "//evil/x.js": false, "/a//b": false, "/a/": false, "/..": false, "/...": true} {
		if validModuleName(name) != ok {
			t.Errorf("%q: %v", name, !ok)
		}
	}
}

// Code that has started before and is refused now is not refused for ever: the tenant did nothing.
func TestAVersionThatRanIsNotRejectedForEver(t *testing.T) {
	h := start(t, Config{}, map[string]string{"a": "one"})
	v, _ := h.Lookup("a.localhost", "/")
	h.Started(v)
	if now := h.Reject(v, gen.Outcome_exceededMemory, Diagnostic{Message: "no memory"}, ""); now.Err == nil {
		t.Error("the failed start has no error to show")
	}
	if now, _ := h.Lookup("a.localhost", "/"); now != v {
		t.Errorf("serves %v", now.Err)
	}
}

// A thousand deployments leave no more behind than a few versions.
func TestAThousandReloads(t *testing.T) {
	h := start(t, Config{}, map[string]string{"a": "0"})
	for i := range 1000 {
		e := h.entry("a")
		v := &Version{Tenant: "a", Hash: fmt.Sprint(i), code: h.shelf.add(fmt.Sprint("a-", i), make([]byte, 1<<10), nil), Limits: h.cfg.Policy.Tenant}
		h.publish(e, v, 0)
		if i%3 == 0 {
			h.Started(v)
		}
		if i%3 == 1 {
			h.Reject(v, gen.Outcome_exception, Diagnostic{Message: fmt.Sprint("boom", i)}, "")
		}
	}
	e := h.entry("a")
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := len(e.rejected); n > 10 {
		t.Errorf("%d rejected hashes are kept", n)
	}
}

// A bundler that cannot be killed (it waits for a file system that does not answer) does not hold
// its slot for ever.
func TestABundlerThatDoesNotDie(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	synctest.Test(t, func(t *testing.T) {
		out := collect(t.Context(), time.Minute, running{output: r, exited: make(chan orders.Exit), kill: func() error { return nil }})
		if len(out.Errors) != 1 || !strings.Contains(out.Errors[0].Message, "could not be stopped") {
			t.Errorf("%+v", out)
		}
	})
}
