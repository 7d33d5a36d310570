package e2e

import (
	"syscall"
	"testing"
	"time"

	"bulkhead/securitytests/hosttest"
)

// TestRootless leads an ordinary user's host through its life: tenants are bundled and served, a
// killed shard and a killed gateway come back, and SIGTERM leaves nothing.
func TestRootless(t *testing.T) {
	h := hosttest.Start(t, hosttest.Options{Rootless: true, Tenants: map[string]hosttest.Files{
		"a": hosttest.Worker(slow),
		"ts": {"src/index.ts": `import { greet } from "./greet";
			export default { async fetch(): Promise<Response> { return new Response(greet("you")); } };`,
			"src/greet.ts": "export const greet = (who: string): string => `hello ${who}`;\n"},
	}})
	if a := h.Get("ts", "/"); a.Body != "hello you" {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	h.Get("a", "/")
	back := func(what string) {
		t.Helper()
		hosttest.Eventually(t, 20*time.Second, what, func() bool {
			a, err := h.Do("GET", "a", "/", nil)
			return err == nil && a.Status == 200
		})
	}
	for _, s := range h.Shards() {
		if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	back("a tenant whose shard was killed answers")
	if err := syscall.Kill(h.Gateway(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	back("a tenant answers after the gateway was killed")
	pids := hosttest.Children(h.PID)
	h.Signal(syscall.SIGTERM)
	if err := h.Wait(30 * time.Second); err != nil {
		t.Errorf("the host's end: %v", err)
	}
	if left := leftovers(h, pids); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
