// Package protocol sets a hostile worker against a live gateway (DESIGN invariant 2: a shard is
// hostile). The worker is sealed and verified like any other; what it says is not to be believed.
package protocol

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead/securitytests/hosttest"
)

// breaches are the paths on which the hostile worker breaks the protocol: it must die for it.
var breaches = []string{
	"/garbage", "/forged-id", "/never-opened", "/stream-zero", "/two-heads", "/after-done",
	"/unknown-result", "/outcome-9999", "/status-99", "/status-999", "/header-crlf", "/header-nul", "/header-odd",
	"/header-space", "/header-many", "/chunk-first", "/past-window", "/window-huge", "/open-back", "/ping-back",
	"/pong-unasked", "/oversized", "/many-segments", "/pointer-loop", "/wild-pointer",
}

func hostile(t *testing.T) string {
	// Any user may run the binaries of the folder: the host may be rootless.
	dir, err := os.MkdirTemp("", "bhhostile")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	hosttest.Build(t, "./securitytests/protocol/hostileworker", filepath.Join(dir, "bulkhead-worker"))
	return dir
}

func TestHostileWorker(t *testing.T) {
	h := hosttest.Start(t, hosttest.Options{
		WorkerDir: hostile(t), Quiet: true,
		Tenants: map[string]hosttest.Files{"a": hosttest.Worker(`export default { fetch() {} };`), "b": hosttest.Worker(`export default { fetch() {} };`)},
	})
	if a := h.Get("a", "/"); a.Status != 200 || a.Body != "well" {
		t.Fatalf("the hostile worker does not even play along: %d %s", a.Status, a.Body)
	}
	gateway := h.Gateway()
	for _, path := range breaches {
		t.Run(strings.TrimPrefix(path, "/"), func(t *testing.T) {
			h.Get("b", "/") // a neighbour, perhaps in the same shard
			before := violations(h)
			a, err := h.Do("GET", "a", path, nil)
			// A head may be out before the lie: then the body must not end as if it were whole.
			if err == nil && a.Status == 200 && path != "/after-done" && path != "/two-heads" && path != "/pong-unasked" && path != "/ping-back" && path != "/window-huge" {
				t.Errorf("the lie was served: %d %q", a.Status, a.Body)
			}
			if err == nil && a.Header.Get("Set-Cookie") != "" {
				t.Errorf("a header was split: %v", a.Header)
			}
			hosttest.Eventually(t, 10*time.Second, "an incident for "+path, func() bool { return violations(h) > before })
			for _, tenant := range []string{"a", "b"} {
				hosttest.Eventually(t, 10*time.Second, tenant+" serves again", func() bool {
					a, err := h.Do("GET", tenant, "/", nil)
					return err == nil && a.Body == "well"
				})
			}
		})
	}
	if g := h.Gateway(); g != gateway {
		t.Errorf("the gateway died of it: it was %d, it is %d\n%s", gateway, g, h.Log())
	}
}

// violations counts the incidents that say a shard of tenant a broke the protocol, and how.
func violations(h *hosttest.Host) (n int) {
	for _, i := range h.Incidents() {
		if i.Kind == "shardViolation" && i.Outcome == "protocolViolation" && i.Detail != "" && slices.Contains(i.Tenants, "a") {
			n++
		}
	}
	return n
}

// A shard that stays silent, or stops in the middle of a frame, must not hold a client for ever.
func TestSilentWorker(t *testing.T) {
	h := hosttest.Start(t, hosttest.Options{
		WorkerDir: hostile(t), Quiet: true, Policy: "limits:\n  wall: 2s\n",
		Tenants: map[string]hosttest.Files{"a": hosttest.Worker(`export default { fetch() {} };`)},
	})
	h.Get("a", "/")
	var wg sync.WaitGroup
	for _, path := range []string{"/silence", "/half"} {
		wg.Go(func() {
			start := time.Now()
			a, err := h.Do("GET", "a", path, nil)
			if err == nil && a.Status < 500 {
				t.Errorf("%s: %d %q", path, a.Status, a.Body)
			}
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("%s held its client for %v under a wall limit of 2 s", path, took)
			}
		})
	}
	wg.Wait()
	hosttest.Eventually(t, 15*time.Second, "the tenant serves again", func() bool {
		a, err := h.Do("GET", "a", "/", nil)
		return err == nil && a.Body == "well"
	})
}

// The hostile worker is not in any binary that serves.
func TestHostileWorkerIsNotShipped(t *testing.T) {
	for _, b := range []string{"bulkhead", "bulkhead-launcher", "bulkhead-gateway", "bulkhead-worker"} {
		out, err := exec.Command("go", "list", "-deps", "bulkhead/cmd/"+b).Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		// `bulkhead securitytest` runs the suites; what attacks in them is a program of its own.
		for dep := range strings.FieldsSeq(string(out)) {
			if strings.HasPrefix(dep, "bulkhead/securitytests/") && (b != "bulkhead" || dep != "bulkhead/securitytests/suites" && dep != "bulkhead/securitytests/conductor") {
				t.Errorf("%s contains %s", b, dep)
			}
		}
	}
}
