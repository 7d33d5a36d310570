package tenants

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead/policy"
	"bulkhead/policy/seccomp"
)

// Many tenants are found at once and built when they are asked for.
func TestMany(t *testing.T) {
	h := &host{t: t, roots: []string{t.TempDir()}}
	const n = 3000
	for i := range n {
		h.put(fmt.Sprintf("t%d", i), "x")
	}
	begin := time.Now()
	h.open(Config{Roots: h.roots})
	t.Logf("%d tenants found in %s", n, time.Since(begin))
	if len(h.List()) != n || h.builds.Load() != 0 {
		t.Errorf("%d tenants, %d builds", len(h.List()), h.builds.Load())
	}
	if got := h.get("t2999.localhost", "/"); got != "x" || h.builds.Load() != 1 {
		t.Errorf("%q after %d builds", got, h.builds.Load())
	}
}

func TestRoutes(t *testing.T) {
	h := start(t, Config{}, map[string]string{
		"a": "A", "a/bulkhead.yaml": "routes: [example.com, 'example.com/api/*', '*.example.com/*', 'shop.example.com/cart']",
		"b": "B", "b/bulkhead.yaml": "routes: ['example.com/api/v2/*', '*.deep.example.com/*', 'example.com/api/*', 'shop.example.com/*']",
	})
	h.get("a.localhost", "/")
	h.get("b.localhost", "/")
	for _, c := range []struct{ host, path, want string }{
		{"example.com", "/", "A"},
		{"EXAMPLE.com:443", "/x", "A"},
		{"example.com", "/api/v1", "A"},
		{"example.com", "/api/v2/x", "A"}, // b would share an origin with a
		{"example.com", "/api/v2", "A"},
		{"www.example.com", "/", "A"},
		{"a.b.c.example.com", "/", "A"},
		{"x.deep.example.com", "/", "B"},
		{"deep.example.com", "/", "A"},
		{"shop.example.com", "/cart", "A"},
		{"shop.example.com", "/cart/", "A"},
		{"notexample.com", "/", "NONE"},
		{"com", "/", "NONE"},
		{"example.com.", "/", "A"},
	} {
		if got := h.get(c.host, c.path); got != c.want {
			t.Errorf("%s%s is answered by %s, want %s", c.host, c.path, got, c.want)
		}
	}
	if !h.reported(ReportConflict, "b", "the host of route example.com/api/* belongs to tenant a") {
		t.Error("the conflict is not reported")
	}
	// The owner lets go: the other one gets it. It asks again: too late.
	h.put("a/bulkhead.yaml", "routes: ['*.example.com/*']")
	h.eventually("b gets the route", func() bool { return h.get("example.com", "/api/v1") == "B" })
	h.put("a/bulkhead.yaml", "routes: ['*.example.com/*', 'example.com/api/*', 'example.com/new/*']")
	h.eventually("a has its new routes", func() bool { i := h.info("a"); return len(i.Routes) == 3 })
	if got := h.get("example.com", "/api/v1"); got != "B" {
		t.Errorf("a took the route back, though %s had it", got)
	}
	// Routes hold before anything was asked for or built.
	lazy := start(t, Config{Eager: 1, Roots: h.roots}, nil)
	if got := lazy.get("www.example.com", "/"); got == "ERR" || lazy.builds.Load() == 0 && got == "NONE" {
		t.Logf("routes of unbuilt tenants: %s", got)
	}
	if got := lazy.get("x.deep.example.com", "/"); got != "B" {
		t.Errorf("a route of a tenant nobody asked for is answered by %s", got)
	}
}

func TestFolders(t *testing.T) {
	second := t.TempDir()
	if err := os.MkdirAll(filepath.Join(second, "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, roots: []string{t.TempDir(), second}}
	for _, name := range []string{"a", "Bad_Name", "-x", ".hidden", "node_modules", strings.Repeat("x", 64), "ok-1"} {
		h.put(name+"/worker.js", "x")
	}
	if err := os.WriteFile(filepath.Join(h.roots[0], "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "worker.js"), []byte("SECRET"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(h.roots[0], "linked")); err != nil {
		t.Fatal(err)
	}
	h.open(Config{Roots: h.roots})
	var ids []string
	for _, i := range h.List() {
		ids = append(ids, i.ID)
	}
	if got := strings.Join(ids, " "); got != "a ok-1" {
		t.Errorf("tenants: %s", got)
	}
	for _, part := range []string{`"Bad_Name" is no tenant`, `"-x" is no tenant`, `"linked" is a symbolic link`} {
		if !h.reported(ReportWarning, "", part) {
			t.Errorf("not reported: %s", part)
		}
	}
	if !h.reported(ReportConflict, "a", "the first one counts") {
		t.Error("the folder that is there twice is not reported")
	}
	only := &host{t: t, roots: h.roots}
	only.open(Config{Roots: h.roots, Only: "ok-1"})
	if l := only.List(); len(l) != 1 || l[0].ID != "ok-1" {
		t.Errorf("%+v", l)
	}
	if _, err := Open(context.Background(), Config{Roots: []string{"/nonexistent"}, Bundle: h.bundle, Policy: h.cfg.Policy}); err == nil {
		t.Error("a root that is not there was opened")
	}
}

func TestPolicyDecides(t *testing.T) {
	p, err := policy.Parse("p", []byte("limits: {scriptSize: 1KiB}\ntenants: {w: {profile: jit+wasm, limits: {wasm: true, cpu: 1s}}}"))
	if err != nil {
		t.Fatal(err)
	}
	h := start(t, Config{Policy: p}, map[string]string{"w": "WASM", "x": "WASM", "big": strings.Repeat("x", 2000), "a": "ok"})
	if v, _ := h.Lookup("w.localhost", "/"); v.Err != nil || v.Profile != seccomp.JITWasm || v.Limits.CPU != time.Second {
		t.Errorf("w: %+v", v)
	}
	if got := h.get("x.localhost", "/"); !strings.Contains(got, "WebAssembly, which the policy does not allow") {
		t.Errorf("x: %s", got)
	}
	if got := h.get("big.localhost", "/"); !strings.Contains(got, "scriptSize") {
		t.Errorf("big: %s", got)
	}
	before, _ := h.Lookup("a.localhost", "/")
	next, _ := policy.Preset("standard")
	next.Tenant.CPU = 7 * time.Millisecond
	h.SetPolicy(next)
	h.eventually("the new limit holds", func() bool {
		v, _ := h.Lookup("a.localhost", "/")
		return v.Limits.CPU == 7*time.Millisecond && v.Hash != before.Hash
	})
}

func TestConcurrentUse(t *testing.T) {
	h := start(t, Config{}, map[string]string{"a": "0", "b": "0"})
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if v, ok := h.Lookup("a.localhost", "/"); !ok || v.Err != nil {
					t.Errorf("lookup failed during reloads: %v %+v", ok, v)
					return
				}
				h.List()
			}
		})
	}
	for i := range 30 {
		h.put("a", fmt.Sprint(i))
		h.put("b/bulkhead.yaml", fmt.Sprintf("routes: ['r%d.example.com']", i))
		time.Sleep(10 * time.Millisecond)
	}
	h.eventually("the last one is served", func() bool { return h.get("a.localhost", "/") == "29" })
	close(stop)
	wg.Wait()
}

func BenchmarkLookup(b *testing.B) {
	r := &Registry{}
	empty, _ := buildTable(nil, nil)
	r.table.Store(empty)
	for i := range 100_000 {
		e := &entry{id: fmt.Sprintf("t%d", i)}
		e.current.Store(&Version{})
		r.ids.Store(e.id, e)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := r.Lookup("t50000.localhost:8080", "/"); !ok {
			b.Fatal("not found")
		}
	}
}
