package observe

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func openEvents(t *testing.T, dir string) *Events {
	t.Helper()
	e, err := OpenEvents(dir, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func check(t *testing.T, dir string, want int) {
	t.Helper()
	if n, err := CheckEvents(dir); err != nil || n != want {
		t.Errorf("%d events, %v; want %d", n, err, want)
	}
}

func TestEventsGoOnOverRestartsAndRotation(t *testing.T) {
	dir := t.TempDir()
	e := openEvents(t, dir)
	e.Add("one", map[string]any{"tenant": "a", "seq": 99, "prev": "forged"})
	e.Add("two", struct{}{})
	e.Close()
	e = openEvents(t, dir)
	e.Add("three", nil)
	check(t, dir, 3)
	b, err := os.ReadFile(filepath.Join(dir, EventsFile))
	if err != nil {
		t.Fatal(err)
	}
	var first struct {
		Event
		Tenant string
	}
	if err := json.Unmarshal(b[:bytes.IndexByte(b, '\n')], &first); err != nil || first.Seq != 1 || first.Prev != "" || first.Tenant != "a" || first.Kind != "one" {
		t.Errorf("%+v, %v", first, err)
	}
	e.max = 2000
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				e.Add("many", map[string]string{"text": strings.Repeat("x", 100)})
			}
		})
	}
	wg.Wait()
	check(t, dir, 43)
	e.Close()
	// A crash in the middle of a line.
	path := filepath.Join(dir, EventsFile)
	b, _ = os.ReadFile(path)
	if err := os.WriteFile(path, append(b, `{"seq":44,"ti`...), 0o600); err != nil {
		t.Fatal(err)
	}
	openEvents(t, dir).Add("after", nil)
	check(t, dir, 44)
	// And right after a rotation.
	os.Rename(path, path+".tmp")
	for _, p := range []string{"4", "3", "2", "1"} {
		os.Rename(path+"."+p, path+"."+string(p[0]+1))
	}
	os.Rename(path+".tmp", path+".1")
	openEvents(t, dir).Add("rotated", nil)
	check(t, dir, 45)
}

func TestEventsAreBoundedOnDisk(t *testing.T) {
	dir := t.TempDir()
	e := openEvents(t, dir)
	e.max = 1000
	for range 200 {
		e.Add("many", map[string]string{"text": strings.Repeat("x", 100)})
	}
	parts, _ := filepath.Glob(filepath.Join(dir, EventsFile+"*"))
	if len(parts) != eventsKeep {
		t.Errorf("%d parts", len(parts))
	}
	if _, err := CheckEvents(dir); err != nil {
		t.Error(err)
	}
}

func TestCheckEventsSeesWhatWasDone(t *testing.T) {
	for name, forge := range map[string]func(lines []string) []string{
		"a line taken out":    func(l []string) []string { return append(l[:3:3], l[4:]...) },
		"a line changed":      func(l []string) []string { l[3] = strings.Replace(l[3], "guilty", "harmless", 1); return l },
		"two lines exchanged": func(l []string) []string { l[3], l[4] = l[4], l[3]; return l },
		"nonsense":            func(l []string) []string { l[3] = "nonsense"; return l },
	} {
		dir := t.TempDir()
		e := openEvents(t, dir)
		for range 8 {
			e.Add("incident", map[string]string{"verdict": "guilty"})
		}
		e.Close()
		check(t, dir, 8)
		path := filepath.Join(dir, EventsFile)
		b, _ := os.ReadFile(path)
		lines := forge(strings.Split(strings.TrimSpace(string(b)), "\n"))
		os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600)
		if n, err := CheckEvents(dir); err == nil || !strings.Contains(err.Error(), EventsFile+":") {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
}

func TestEventsGoOnWithoutADisk(t *testing.T) {
	dir := t.TempDir()
	told := 0
	e, err := OpenEvents(dir, func(error) { told++ })
	if err != nil {
		t.Fatal(err)
	}
	e.f.Close() // as if the disk were gone
	for range 5 {
		e.Add("x", nil)
	}
	if told != 1 {
		t.Errorf("told %d times", told)
	}
	var none *Events
	none.Add("x", nil)
	if err := none.Close(); err != nil {
		t.Error(err)
	}
}
