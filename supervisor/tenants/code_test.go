package tenants

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func newTestShelf(t *testing.T, memory, disk int) (*shelf, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bundles")
	s, err := newShelf(memory, disk, dir)
	if err != nil {
		t.Fatal(err)
	}
	return s, dir
}

func (s *shelf) check(t *testing.T, dir string) (files int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := 0
	for e := s.used.Front(); e != nil; e = e.Next() {
		sum += e.Value.(*code).size()
	}
	if sum != s.bytes || s.bytes > s.memory && s.used.Len() > 1 {
		t.Errorf("%d bytes in memory are counted as %d, allowed are %d", sum, s.bytes, s.memory)
	}
	onDisk := 0
	list, _ := os.ReadDir(dir)
	for _, d := range list {
		st, err := d.Info()
		if err != nil {
			t.Fatal(err)
		}
		onDisk += int(st.Size())
	}
	if onDisk != s.filed || onDisk > s.disk || len(list) != s.files.Len() {
		t.Errorf("%d bytes in %d files are counted as %d in %d, allowed are %d", onDisk, len(list), s.filed, s.files.Len(), s.disk)
	}
	return len(list)
}

func TestShelfKeepsWhatFits(t *testing.T) {
	s, dir := newTestShelf(t, 10_000, 50_000)
	var all []*code
	for i := range 100 {
		all = append(all, s.add(fmt.Sprint("t-", i), bytes.Repeat([]byte{byte(i)}, 1000), map[string][]byte{"/m": {byte(i), 1}}))
		s.check(t, dir)
	}
	here := 0
	for i, c := range all {
		b, maps := s.get(c)
		if b == nil {
			continue
		}
		here++
		if len(b) != 1000 || b[0] != byte(i) || !bytes.Equal(maps["/m"], []byte{byte(i), 1}) {
			t.Errorf("%d came back as something else", i)
		}
	}
	if here < 40 || here > 60 {
		t.Errorf("%d of 100 are still to be had", here)
	}
	s.check(t, dir)
	for _, c := range all {
		s.forget(c)
	}
	if n := s.check(t, dir); n != 0 || s.bytes != 0 {
		t.Errorf("%d files and %d bytes are left", n, s.bytes)
	}
}

// A file that somebody changed is no bundle.
func TestShelfTrustsNoFile(t *testing.T) {
	s, dir := newTestShelf(t, 1500, 1<<20)
	first := s.add("a-1", bytes.Repeat([]byte("a"), 1000), nil)
	s.add("b-1", bytes.Repeat([]byte("b"), 1000), nil)
	path := filepath.Join(dir, "a-1")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw[500] ^= 1
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if b, _ := s.get(first); b != nil {
		t.Error("it was taken")
	}
	if s, err := newShelf(1, 1, dir); err != nil || s.files.Len() != 0 {
		t.Fatal(err)
	}
	if list, _ := os.ReadDir(dir); len(list) != 0 {
		t.Error("files of an earlier life are kept")
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(pack([]byte("bundle"), map[string][]byte{"/a": []byte("x"), "/b": nil}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, maps, err := unpack(raw)
		if err != nil {
			return
		}
		if again, m, err := unpack(pack(b, maps)); err != nil || !bytes.Equal(again, b) || len(m) != len(maps) {
			t.Error("does not read back")
		}
	})
}

// Code that is in memory no more comes back the same, and is the same version: whoever runs it
// learns nothing of it. With files it does so without a build.
func TestCodeComesBack(t *testing.T) {
	for _, files := range []bool{true, false} {
		t.Run(fmt.Sprint("files=", files), func(t *testing.T) {
			cfg := Config{BundleMemory: 3000}
			if files {
				cfg.BundleDir = filepath.Join(t.TempDir(), "bundles")
			}
			tenants := map[string]string{}
			for i := range 20 {
				tenants[fmt.Sprint("t", i)] = fmt.Sprint("export default ", i, strings.Repeat(" ", 500))
			}
			h := start(t, cfg, tenants)
			versions := map[string]*Version{}
			for id := range tenants {
				versions[id], _ = h.Lookup(id+".localhost", "/")
				h.Started(versions[id])
			}
			changes := 0
			h.OnChange(func(string) { changes++ })
			builds := h.builds.Load()
			var wg sync.WaitGroup
			for id, v := range versions {
				for range 3 {
					wg.Go(func() {
						if got := h.code(v); got != tenants[id] {
							t.Errorf("%s: %.30q", id, got)
						}
					})
				}
			}
			wg.Wait()
			if n := h.builds.Load() - builds; files && n != 0 || !files && n == 0 {
				t.Errorf("%d builds", n)
			}
			for id, v := range versions {
				if now, _ := h.Lookup(id+".localhost", "/"); now != v || now.Bundle != nil {
					t.Errorf("%s has another version", id)
				}
			}
			if changes != 0 {
				t.Errorf("%d changes", changes)
			}
			h.shelf.check(t, cfg.BundleDir)
		})
	}
}

// A version that fell out of memory and whose folder is broken now serves from its file; without
// one, its tenant has the error for an answer.
func TestCodeThatIsLost(t *testing.T) {
	for _, files := range []bool{true, false} {
		cfg := Config{BundleMemory: 1}
		if files {
			cfg.BundleDir = filepath.Join(t.TempDir(), "bundles")
		}
		h := start(t, cfg, map[string]string{"a": "good", "b": "other"})
		v, _ := h.Lookup("a.localhost", "/")
		h.Started(v)
		h.put("a", "BROKEN")
		h.eventually("the error is reported", func() bool { return h.reported(ReportBroken, "a", "keeps serving") })
		h.put("b", "another")
		h.eventually("another is served", func() bool {
			w, _ := h.Lookup("b.localhost", "/")
			b, err := w.Code(t.Context())
			return err == nil && bytes.Contains(b, []byte("another"))
		})
		b, err := v.Code(context.Background())
		var stale *StaleError
		switch {
		case files && (err != nil || !bytes.Contains(b, []byte("good"))):
			t.Errorf("with files: %d bytes, %v", len(b), err)
		case !files && (!errors.As(err, &stale) || stale.Now == nil || stale.Now.Err == nil || stale.Now.Err.Diagnostics[0].Line != 3):
			t.Errorf("without: %d bytes, %v", len(b), err)
		}
	}
}
