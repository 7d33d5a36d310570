package observe

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestScriptsAreKeptWithinBounds(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "scripts")
	s, err := OpenScripts(dir)
	if err != nil {
		t.Fatal(err)
	}
	s.most = 3
	hash := func(i int) string { return fmt.Sprintf("%08x%024x", i, 0) }
	keep := func(i, size int) {
		t.Helper()
		sc := &Script{Tenant: "a", Version: hash(i), Modules: []Module{{Name: "main.js", Kind: "esModule", Text: strings.Repeat("x", size)}}}
		if err := s.Keep(sc); err != nil {
			t.Fatal(err)
		}
		// Files of one moment have one time.
		at := time.Now().Add(time.Duration(i-100) * time.Second)
		if err := os.Chtimes(filepath.Join(dir, s.File("a", hash(i))), at, at); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		keep(i, 10)
	}
	for i := range 5 {
		raw, err := s.Read(hash(i))
		if kept := i >= 2; kept != (err == nil) || !kept && !errors.Is(err, ErrNoScript) {
			t.Errorf("script %d: %v", i, err)
		} else if kept {
			var sc Script
			if err := json.Unmarshal(raw, &sc); err != nil || sc.Version != hash(i) || sc.Modules[0].Text != "xxxxxxxxxx" {
				t.Errorf("script %d: %v %+v", i, err, sc)
			}
		}
	}
	if !s.Has("a", hash(2)) || s.Has("a", hash(0)) {
		t.Error("what is kept is not known")
	}
	keep(5, 10)
	if _, err := s.Read(hash(3)[:8]); err != nil {
		t.Error(err)
	}
	if _, err := s.Read(hash(2)); !errors.Is(err, ErrNoScript) {
		t.Errorf("the oldest is still there: %v", err)
	}
	s.bytes = 5000
	keep(6, 4000)
	keep(7, 4000)
	if _, err := s.Read(hash(6)); !errors.Is(err, ErrNoScript) {
		t.Errorf("more bytes than may be: %v", err)
	}
	if _, err := s.Read(hash(7)); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "../../../etc/passwd", "00000007/..", "0000", strings.Repeat("g", 16)} {
		if _, err := s.Read(bad); err == nil || errors.Is(err, ErrNoScript) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := s.Keep(&Script{Tenant: "../x", Version: hash(1)}); err == nil {
		t.Error("a file outside was written")
	}
	st, err := os.Stat(filepath.Join(dir, s.File("a", hash(7))))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	keep(0x77770000, 1)
	keep(0x77770001, 1)
	if _, err := s.Read("77770000"); err != nil {
		t.Error(err)
	}
}
