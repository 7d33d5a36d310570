package tenants

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"capnproto.org/go/capnp/v3"

	"bulkhead/policy"
	"bulkhead/policy/seccomp"
	"bulkhead/schema/gen"
)

// host is a registry over real folders. Its bundler reads worker.js and does what the text says:
// the bundler itself has tests of its own, and may not be imported from here.
type host struct {
	*Registry
	t     *testing.T
	roots []string

	mu      sync.Mutex
	reports []Report // guarded by mu
	builds  atomic.Int64
	running atomic.Int64
	most    atomic.Int64
	hold    chan struct{} // if set, a build waits for it
	stop    context.CancelFunc
}

func start(t *testing.T, cfg Config, tenants map[string]string) *host {
	t.Helper()
	h := &host{t: t, hold: nil}
	if cfg.Roots == nil {
		cfg.Roots = []string{t.TempDir()}
	}
	h.roots = cfg.Roots
	for name, src := range tenants {
		h.put(name, src)
	}
	h.open(cfg)
	return h
}

func (h *host) open(cfg Config) {
	h.t.Helper()
	if cfg.Policy == nil {
		p, err := policy.Preset("standard")
		if err != nil {
			h.t.Fatal(err)
		}
		cfg.Policy = p
	}
	cfg.Bundle = h.bundle
	cfg.Debounce = 20 * time.Millisecond
	cfg.Report = func(r Report) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.reports = append(h.reports, r)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r, err := Open(ctx, cfg)
	if err != nil {
		cancel()
		h.t.Fatal(err)
	}
	h.Registry, h.stop = r, cancel
	h.t.Cleanup(func() { cancel(); r.Wait() })
}

func (h *host) bundle(ctx context.Context, root int, name string) (BundleOutput, error) {
	h.builds.Add(1)
	n := h.running.Add(1)
	defer h.running.Add(-1)
	for m := h.most.Load(); n > m && !h.most.CompareAndSwap(m, n); m = h.most.Load() {
	}
	if h.hold != nil {
		select {
		case <-h.hold:
		case <-ctx.Done():
		}
	}
	src, err := os.ReadFile(filepath.Join(h.roots[root], name, "worker.js"))
	if err != nil {
		return BundleOutput{Errors: []Diagnostic{{File: "worker.js", Message: err.Error()}}}, nil
	}
	text := string(src)
	switch {
	case strings.Contains(text, "BROKEN"):
		return BundleOutput{Errors: []Diagnostic{{File: "worker.js", Line: 3, Column: 7, Excerpt: text, Message: "broken"}}}, nil
	case strings.Contains(text, "MACHINERY"):
		return BundleOutput{}, errors.New("cannot start the bundler")
	}
	mods := []Module{{Name: "/worker.js", Kind: gen.Module_Kind_esm, Code: src, SourceMap: []byte(`{"version":3,"sources":["src/a.ts"],"mappings":"AAAA;AACA"}`)}}
	if strings.Contains(text, "WASM") {
		mods = append(mods, Module{Name: "/x.wasm", Kind: gen.Module_Kind_wasm, Code: []byte{0}})
	}
	return BundleOutput{Main: "/worker.js", Modules: mods}, nil
}

// put writes a tenant's worker.js, or the named file if name has a slash.
func (h *host) put(name, text string) {
	h.t.Helper()
	if !strings.Contains(name, "/") {
		name += "/worker.js"
	}
	p := filepath.Join(h.roots[0], name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// code is what the version's bundle holds.
func (h *host) code(v *Version) string {
	h.t.Helper()
	if v.Err != nil {
		return "ERR " + v.Err.Error()
	}
	bundle, err := v.Code(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	msg, err := capnp.Unmarshal(bundle)
	if err != nil {
		h.t.Fatal(err)
	}
	b, err := gen.ReadRootBundle(msg)
	if err != nil {
		h.t.Fatal(err)
	}
	mods, err := b.Modules()
	if err != nil {
		h.t.Fatal(err)
	}
	if mods.At(0).HasSourceMap() {
		h.t.Error("the shard is given a source map")
	}
	code, err := mods.At(0).Code()
	if err != nil {
		h.t.Fatal(err)
	}
	return string(code)
}

func (h *host) get(hostname, path string) string {
	h.t.Helper()
	v, ok := h.Lookup(hostname, path)
	if !ok {
		return "NONE"
	}
	return h.code(v)
}

func (h *host) eventually(what string, ok func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.t.Fatalf("not within 10 s: %s\nreports: %+v", what, h.reports)
}

func (h *host) reported(kind ReportKind, tenant, part string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.reports {
		if r.Kind == kind && r.Tenant == tenant && strings.Contains(fmt.Sprint(r.Message, r.Diagnostics), part) {
			return true
		}
	}
	return false
}

func (h *host) info(id string) Info {
	for _, i := range h.List() {
		if i.ID == id {
			return i
		}
	}
	return Info{}
}

func TestLookupAndReload(t *testing.T) {
	for _, poll := range []bool{false, true} {
		t.Run(fmt.Sprintf("poll=%v", poll), func(t *testing.T) {
			h := start(t, Config{ForcePoll: poll, PollEvery: 30 * time.Millisecond}, map[string]string{"a": "one", "b": "two", "a/bulkhead.yaml": "vars: {X: y}"})
			var changes atomic.Int64
			h.OnChange(func(id string) {
				if id == "a" {
					changes.Add(1)
				}
			})
			for _, name := range []string{"a.localhost", "a.localhost:8080", "A.LOCALHOST.", "a.LocalHost:1"} {
				if got := h.get(name, "/"); got != "one" {
					t.Errorf("%s: %q", name, got)
				}
			}
			for _, name := range []string{"localhost", "c.localhost", "x.a.localhost", "a", "", "[::1]:80", ".localhost", "..localhost", strings.Repeat("a.", 5000)} {
				if got := h.get(name, "/"); got != "NONE" {
					t.Errorf("%q is %q", name, got)
				}
			}
			v1, _ := h.Lookup("a.localhost", "/")
			if len(v1.Env) != 1 || v1.Env[0] != (EnvVar{Name: "X", Value: "y"}) || v1.Hash == "" || v1.Limits.CPU != 50*time.Millisecond || v1.Profile != seccomp.JIT {
				t.Errorf("version: %+v", v1)
			}
			before := changes.Load()
			h.put("a", "ONE")
			h.eventually("the new version is served", func() bool { return h.get("a.localhost", "/") == "ONE" })
			h.eventually("the hook is called", func() bool { return changes.Load() > before })
			v2, _ := h.Lookup("a.localhost", "/")
			if v2.Hash == v1.Hash {
				t.Error("two versions have one hash")
			}
			var stale *StaleError
			if b, err := v1.Code(t.Context()); !errors.As(err, &stale) || stale.Now.Hash != v2.Hash {
				t.Errorf("the old version's code is %d bytes, %v", len(b), err)
			}
			h.put("a/bulkhead.yaml", "vars: {X: z}")
			h.eventually("a new variable is a new version", func() bool { v, _ := h.Lookup("a.localhost", "/"); return v.Hash != v2.Hash })
			h.put("a/src/deep/er/x.js", "1")
			h.put("a/src/deep/er/x.js", "2")
			v3, _ := h.Lookup("a.localhost", "/")
			h.put("c/worker.js", "three")
			h.eventually("a new folder is a tenant", func() bool { return h.get("c.localhost", "/") == "three" })
			if v, _ := h.Lookup("a.localhost", "/"); v != v3 {
				t.Error("a change that changes nothing made a new version")
			}
			if err := os.RemoveAll(filepath.Join(h.roots[0], "b")); err != nil {
				t.Fatal(err)
			}
			h.eventually("a removed folder is gone", func() bool { return h.get("b.localhost", "/") == "NONE" })
			if err := os.Rename(filepath.Join(h.roots[0], "c"), filepath.Join(h.roots[0], "d")); err != nil {
				t.Fatal(err)
			}
			h.eventually("a renamed folder has its new name", func() bool { return h.get("d.localhost", "/") == "three" && h.get("c.localhost", "/") == "NONE" })
			h.put("d", "four")
			h.eventually("and is watched under it", func() bool { return h.get("d.localhost", "/") == "four" })
			h.put("b", "back")
			h.eventually("and a folder can come back", func() bool { return h.get("b.localhost", "/") == "back" })
		})
	}
}

// Editors save by writing another file and renaming it over the old one, or remove and create.
func TestHowEditorsSave(t *testing.T) {
	h := start(t, Config{}, map[string]string{"a": "v0"})
	h.eventually("it is served", func() bool { return h.get("a.localhost", "/") == "v0" })
	dir := filepath.Join(h.roots[0], "a")
	for i := 1; i <= 6; i++ {
		want := fmt.Sprintf("v%d", i)
		switch i % 3 {
		case 0:
			if err := os.WriteFile(filepath.Join(dir, ".worker.js.swp"), []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(dir, ".worker.js.swp"), filepath.Join(dir, "worker.js")); err != nil {
				t.Fatal(err)
			}
		case 1:
			if err := os.Remove(filepath.Join(dir, "worker.js")); err != nil {
				t.Fatal(err)
			}
			h.put("a", want)
		case 2: // a deployment puts a whole folder in place
			h.put("a-next", want)
			if err := os.Rename(dir, dir+"-old"); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(dir+"-next", dir); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(dir + "-old"); err != nil {
				t.Fatal(err)
			}
		}
		h.eventually(want+" is served", func() bool { return h.get("a.localhost", "/") == want })
	}
}

func TestBrokenChange(t *testing.T) {
	t.Run("production keeps the last good version", func(t *testing.T) {
		h := start(t, Config{}, map[string]string{"a": "good", "b": "BROKEN from the start"})
		h.get("a.localhost", "/")
		h.put("a", "BROKEN now")
		h.eventually("the error is reported", func() bool { return h.reported(ReportBroken, "a", "last good version keeps serving") })
		if got := h.get("a.localhost", "/"); got != "good" {
			t.Errorf("serves %q", got)
		}
		if i := h.info("a"); i.State != "stale" || i.Err == nil || i.Err.Diagnostics[0].Line != 3 {
			t.Errorf("listed as %+v", i)
		}
		v, ok := h.Lookup("b.localhost", "/")
		if !ok || v.Err == nil || v.Err.Step != StepBundle || h.info("b").State != "failed" {
			t.Errorf("b: %+v", v)
		}
		h.put("a", "repaired")
		h.eventually("the repair is served", func() bool { return h.get("a.localhost", "/") == "repaired" && h.info("a").State == "ready" })
	})
	t.Run("dev answers with the error", func(t *testing.T) {
		h := start(t, Config{Dev: true}, map[string]string{"a": "good"})
		h.get("a.localhost", "/")
		h.put("a", "BROKEN now")
		h.eventually("the error is served", func() bool {
			v, _ := h.Lookup("a.localhost", "/")
			return v.Err != nil && v.Dev && v.Err.Diagnostics[0].Excerpt == "BROKEN now"
		})
		h.put("a/bulkhead.yaml", "mian: x")
		h.eventually("a broken configuration too", func() bool {
			v, _ := h.Lookup("a.localhost", "/")
			return v.Err != nil && v.Err.Step == StepConfig && strings.Contains(v.Err.Error(), "bulkhead.yaml:1:1")
		})
	})
	t.Run("machinery", func(t *testing.T) {
		h := start(t, Config{}, map[string]string{"a": "MACHINERY"})
		if v, _ := h.Lookup("a.localhost", "/"); v.Err == nil || !strings.Contains(v.Err.Error(), "cannot start the bundler") {
			t.Errorf("%+v", v.Err)
		}
	})
}

func TestRejectedByTheShard(t *testing.T) {
	h := start(t, Config{}, map[string]string{"a": "one"})
	v1, _ := h.Lookup("a.localhost", "/")
	h.Started(v1)
	h.put("a", "two")
	h.eventually("two is served", func() bool { return h.get("a.localhost", "/") == "two" })
	v2, _ := h.Lookup("a.localhost", "/")
	d := Diagnostic{File: "/worker.js", Line: 2, Column: 1, Message: "Error: boom at /worker.js:2:1"}
	if next := h.Reject(v2, gen.Outcome_exception, d, "Error: boom\n    at /worker.js:2:1\n    at x (/worker.js:1:1)"); next != v1 {
		t.Errorf("after a failed start %q serves", h.code(next))
	}
	i := h.info("a")
	if i.State != "stale" || i.Err.Outcome != gen.Outcome_exception || i.Err.Diagnostics[0].File != "src/a.ts" || i.Err.Diagnostics[0].Line != 2 ||
		!strings.Contains(i.Err.Stack, "at src/a.ts:2:1") || !strings.Contains(i.Err.Diagnostics[0].Message, "src/a.ts:2:1") {
		t.Errorf("%+v %+v", i, i.Err)
	}
	if next := h.Reject(v2, gen.Outcome_exception, d, ""); next != v1 {
		t.Error("the second shard's report about an old version changed something")
	}
	h.put("a/notes.txt", "touched")
	time.Sleep(200 * time.Millisecond)
	if got := h.get("a.localhost", "/"); got != "one" {
		t.Errorf("a touch without a change brought back %q", got)
	}
	h.put("a", "three")
	h.eventually("a repair is served", func() bool { return h.get("a.localhost", "/") == "three" && h.info("a").State == "ready" })

	lineless := start(t, Config{Dev: true}, map[string]string{"a": "x", "a/src/a.ts": "line one\nline two\n"})
	v, _ := lineless.Lookup("a.localhost", "/")
	if next := lineless.Reject(v, gen.Outcome_exception, Diagnostic{File: "worker.js", Message: "no"}, "Error\n at (bulkhead:runtime:1:1)\n at worker.js:2:1"); next.Err == nil ||
		next.Err.Diagnostics[0] != (Diagnostic{File: "src/a.ts", Line: 2, Column: 1, Excerpt: "line two", Message: "no"}) {
		t.Errorf("%+v", next.Err)
	}

	first := start(t, Config{}, map[string]string{"a": "never starts"})
	v, _ = first.Lookup("a.localhost", "/")
	if next := first.Reject(v, gen.Outcome_exceededMemory, d, ""); next.Err == nil || next.Err.Outcome != gen.Outcome_exceededMemory {
		t.Errorf("%+v", next)
	}
	dev := start(t, Config{Dev: true}, map[string]string{"a": "one"})
	v, _ = dev.Lookup("a.localhost", "/")
	dev.Started(v)
	dev.put("a", "two")
	dev.eventually("two is served", func() bool { return dev.get("a.localhost", "/") == "two" })
	v, _ = dev.Lookup("a.localhost", "/")
	if next := dev.Reject(v, gen.Outcome_exception, d, ""); next.Err == nil {
		t.Error("dev hides the error behind an old version")
	}
}

func TestPending(t *testing.T) {
	h := &host{t: t, roots: []string{t.TempDir()}, hold: make(chan struct{})}
	for i := range 12 {
		h.put(fmt.Sprintf("t%d", i), "x")
	}
	h.open(Config{Roots: h.roots, PendingWait: 50 * time.Millisecond, Concurrency: 3})
	begin := time.Now()
	v, ok := h.Lookup("t5.localhost", "/")
	if !ok || v.Err == nil || !strings.Contains(v.Err.Error(), "still being bundled") || time.Since(begin) > 5*time.Second {
		t.Errorf("%v %+v after %s", ok, v, time.Since(begin))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if v, ok := h.LookupContext(ctx, "t5.localhost", "/"); !ok || v.Err == nil {
		t.Error("a client that left is waited for")
	}
	if h.info("t5").State != "pending" {
		t.Errorf("listed as %s", h.info("t5").State)
	}
	close(h.hold)
	h.eventually("all are built", func() bool {
		for _, i := range h.List() {
			if i.State != "ready" {
				return false
			}
		}
		return true
	})
	if h.most.Load() > 3 {
		t.Errorf("%d builds ran at once, allowed were 3", h.most.Load())
	}
}
