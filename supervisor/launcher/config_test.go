package launcher

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// The gateway gets the policy document as it is now, whatever has become of the file since the start,
// and nothing else in its place; the launcher waits for none of it.
func TestThePolicyIsOpenedAnew(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		dir, err := os.MkdirTemp(built.dir, "config")
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "policy.yaml")
		write := func(text string) {
			t.Helper()
			next := path + ".new"
			if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			chown(t, dir, m.uid)
			if err := os.Rename(next, path); err != nil {
				t.Fatal(err)
			}
		}
		write("one")
		c := start(t, m, built.child, "--config", path).dial()
		if got := c.ask("config"); got != `"one" <nil>, written to: false` {
			t.Errorf("at the start: %s", got)
		}
		write("two")
		if got := c.ask("config"); got != `"two" <nil>, written to: false` {
			t.Errorf("after it was replaced: %s", got)
		}
		os.Remove(path)
		if got := c.ask("config"); !strings.Contains(got, "no such file") || !strings.Contains(got, path) {
			t.Errorf("after it was removed: %s", got)
		}
		if err := syscall.Mkfifo(path, 0o666); err != nil {
			t.Fatal(err)
		}
		chown(t, dir, m.uid)
		if got := c.ask("config"); !strings.Contains(got, "is not a file") {
			t.Errorf("a FIFO: %s", got)
		}
		os.Remove(path)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if got := c.ask("config"); !strings.Contains(got, "is not a file") {
			t.Errorf("a directory: %s", got)
		}
		os.Remove(path)
		write("three")
		if got := c.ask("config"); got != `"three" <nil>, written to: false` {
			t.Errorf("after all that: %s", got)
		}
		if id, _ := c.spawn("shard jit %d", gigabyte); id == 0 {
			t.Error("no shard after it")
		}
	})
}

// What a shard may use is argv's.
func TestShardLimitsAreArgv(t *testing.T) {
	m := modes()[0]
	c := start(t, m, built.child, "--shard-files", "48", "--shard-pids", "100").dial()
	_, pid := c.spawn("shard jit %d", gigabyte)
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "limits"))
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); strings.HasPrefix(line, "Max open files") {
			found = len(f) >= 5 && f[3] == "48" && f[4] == "48"
		}
	}
	if !found {
		t.Errorf("limits of the shard:\n%s", b)
	}
}
