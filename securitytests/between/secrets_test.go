package between

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bulkhead/securitytests/hosttest"
)

// copies counts how often a text is in a process's readable memory, as UTF-8 and as UTF-16.
func copies(t *testing.T, pid int, text string) (n int) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0 // it has ended
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	var wide []byte
	for _, c := range []byte(text) {
		wide = append(wide, c, 0)
	}
	const piece = 1 << 20
	buf := make([]byte, piece+len(wide))
	for lines := bufio.NewScanner(bytes.NewReader(maps)); lines.Scan(); {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &mode); err != nil || mode[0] != 'r' {
			continue
		}
		for at := from; at < to; at += piece {
			k, err := mem.ReadAt(buf[:min(int64(len(buf)), to-at)], at)
			if err != nil && k == 0 && !errors.Is(err, io.EOF) {
				continue // V8 reserves what cannot be read
			}
			n += bytes.Count(buf[:k], []byte(text)) + bytes.Count(buf[:k], wide)
		}
	}
	return n
}

// bulkhead runs a command as an operator does.
func bulkhead(t *testing.T, h *hosttest.Host, stdin string, args ...string) (string, error) {
	t.Helper()
	c := exec.Command(filepath.Join(hosttest.Binaries(t), "bulkhead"), append([]string{"secret"}, args...)...)
	if h != nil {
		c.Args = append(c.Args, "--admin", h.Admin)
	}
	c.Stdin = strings.NewReader(stdin)
	out, err := c.CombinedOutput()
	return string(out), err
}

// A secret set by the operator is in the env of its tenant, in the memory of the process that hosts it, and
// nowhere else: not in another process, the gateway's included once the load is over, nor in a file, a
// listing, a log or an explanation.
func TestSecretsAreOnlyWhereTheirTenantIs(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may read the memory of a worker")
	}
	eachMode(t, func(t *testing.T, rootless bool) {
		dir, err := os.MkdirTemp("", "bhkey")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		key := filepath.Join(dir, "key")
		if out, err := bulkhead(t, nil, "", "key", key); err != nil || strings.Contains(out, "SECRET") {
			t.Fatalf("%v: %s", err, out)
		}
		if rootless {
			if err := os.Chown(key, hosttest.RootlessID, hosttest.RootlessID); err != nil {
				t.Fatal(err)
			}
		}
		tell := `export default { fetch(r, env) { const s = env.TOKEN; return new Response(s === undefined ? "none" : s.slice(0, 4) + s.length + env.OTHER); } };`
		h := hosttest.Start(t, hosttest.Options{Rootless: rootless, Quiet: true, Args: []string{"--secrets-key", key}, Tenants: map[string]hosttest.Files{
			"a": {"bulkhead.yaml": "main: worker.js\nvars: {OTHER: '!', TOKEN: fromthefolder}\n", "worker.js": tell},
			"b": hosttest.Worker(tell),
		}})
		if a := h.Get("a", "/"); a.Body != "from13!" {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
		var tokens []string
		for round := range 3 {
			token := fmt.Sprintf("r%d-", round) + rand.Text() + rand.Text()
			tokens = append(tokens, token)
			if out, err := bulkhead(t, h, token, "set", "a", "TOKEN"); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			hosttest.Eventually(t, 20*time.Second, "the worker has it", func() bool { return h.Get("a", "/").Body == fmt.Sprintf("%s%d!", token[:4], len(token)) })
		}
		if a := h.Get("b", "/"); a.Body != "none" {
			t.Errorf("another tenant: %d %s", a.Status, a.Body)
		}
		last := tokens[len(tokens)-1][4:]
		home := 0
		for _, s := range h.Shards() {
			for _, id := range s.Tenants {
				if id == "a" && copies(t, s.PID, last) > 0 {
					home = s.PID
				}
			}
		}
		if home == 0 {
			t.Fatal("the instrument does not find the secret in its own process")
		}
		for _, pid := range append(hosttest.Children(h.PID), h.PID) {
			for round, token := range tokens {
				if pid == home && round == len(tokens)-1 {
					continue
				}
				// The process of a version before is looked at after it was evicted from there.
				left := 0
				for end := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
					if left = copies(t, pid, token[4:]); left == 0 || time.Now().After(end) {
						break
					}
				}
				if left > 0 {
					t.Errorf("%s (pid %d) holds the secret of round %d %d times", hosttest.Comm(pid), pid, round, left)
				}
			}
		}
		text := h.Log()
		for _, path := range []string{"/v1/tenants", "/v1/shards", "/v1/incidents", "/v1/logs/a", "/v1/explain/a", "/v1/policy", "/v1/secrets/a", "/v1/secretskey", "/v1/status", "/v1/metrics"} {
			var more string
			if err := h.AdminGet(path, &more); err != nil {
				t.Errorf("%s: %v", path, err)
			}
			text += more
		}
		err = filepath.WalkDir(h.Data, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				b, _ := os.ReadFile(path)
				text += string(b)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, token := range tokens {
			if strings.Contains(text, token[4:]) {
				t.Error("it is in a file, a log or a listing")
			}
		}
		if out, err := bulkhead(t, h, "", "list", "a"); err != nil || !strings.Contains(out, "TOKEN") {
			t.Errorf("%v: %s", err, out)
		}
		if out, err := bulkhead(t, h, "", "rm", "a", "TOKEN"); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		hosttest.Eventually(t, 20*time.Second, "the folder's own is back", func() bool { return h.Get("a", "/").Body == "from13!" })
		if out, err := bulkhead(t, h, "", "set", "a", "TOKEN"); err == nil {
			t.Errorf("an empty secret: %s", out)
		}
	})
}
