package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bulkhead/securitytests/hosttest"
)

const slow = `export default { async fetch(request) {
	const ms = Number(new URL(request.url).searchParams.get("ms") ?? 0);
	if (ms) await new Promise((r) => setTimeout(r, ms));
	return new Response("done");
} };`

func TestKilledWorkerIsReplaced(t *testing.T) {
	h := hosttest.Start(t, hosttest.Options{Tenants: map[string]hosttest.Files{"a": hosttest.Worker(slow), "b": hosttest.Worker(slow)}})
	for round := range 3 {
		if a := h.Get("a", "/"); a.Body != "done" {
			t.Fatalf("round %d: %d %s", round, a.Status, a.Body)
		}
		h.Get("b", "/")
		for _, s := range h.Shards() {
			if len(s.Tenants) > 0 {
				if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, tenant := range []string{"a", "b"} {
			hosttest.Eventually(t, 10*time.Second, tenant+" comes back", func() bool {
				a, err := h.Do("GET", tenant, "/", nil)
				return err == nil && a.Status == 200
			})
		}
	}
	incidents := h.Incidents()
	if len(incidents) < 3 {
		t.Fatalf("three shards were killed, %d incidents are on record", len(incidents))
	}
	for _, i := range incidents {
		if i.Signal != "SIGKILL" && i.Signal != "killed" {
			t.Errorf("incident %+v does not name the signal", i)
		}
	}
}

func TestKilledWorkerEndsItsRequests(t *testing.T) {
	h := hosttest.Start(t, hosttest.Options{Tenants: map[string]hosttest.Files{
		"endless": hosttest.Worker(`export default { fetch() { return new Response(new ReadableStream({
			async pull(c) { c.enqueue(new TextEncoder().encode("x")); await new Promise((r) => setTimeout(r, 20)); } })); } };`),
		"slow": hosttest.Worker(slow),
	}})
	h.Get("slow", "/")
	resp, err := h.Client().Get("http://endless.localhost/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	waiting := make(chan hosttest.Answer, 1)
	go func() {
		a, _ := h.Do("GET", "slow", "/?ms=20000", nil)
		waiting <- a
	}()
	time.Sleep(300 * time.Millisecond)
	for _, s := range h.Shards() {
		if len(s.Tenants) > 0 {
			syscall.Kill(s.PID, syscall.SIGKILL)
		}
	}
	// The head was sent: the client must see that the body is not whole.
	if _, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Error("a body cut off by a shard's death ended as if it were complete")
	}
	select {
	case a := <-waiting:
		if a.Status != 200 && (a.Status != 502 || a.Outcome != "crashed") {
			t.Errorf("the waiting request ended %d %q %s, want crashed or a replay's answer", a.Status, a.Outcome, a.Body)
		}
	case <-time.After(30 * time.Second):
		t.Error("a request hangs after its shard's death")
	}
}

func TestKilledGatewayIsRestarted(t *testing.T) {
	h := hosttest.Start(t, hosttest.Options{Tenants: map[string]hosttest.Files{"a": hosttest.Worker(slow)}})
	h.Get("a", "/")
	old := h.Gateway()
	var shards []int
	for _, s := range h.Shards() {
		shards = append(shards, s.PID)
	}
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	hosttest.Eventually(t, 20*time.Second, "a new gateway answers", func() bool {
		a, err := h.Do("GET", "a", "/", nil)
		return err == nil && a.Status == 200
	})
	if g := h.Gateway(); g == old || g == 0 {
		t.Errorf("the gateway is %d, it was %d", g, old)
	}
	for _, pid := range shards {
		if hosttest.Alive(pid) {
			t.Errorf("shard %d outlived its gateway", pid)
		}
	}
}

// What `bulkhead shards` says of a shard's memory is what the kernel says.
func TestShardsShowTheirMemory(t *testing.T) {
	h := hosttest.Start(t, hosttest.Options{Tenants: map[string]hosttest.Files{"a": hosttest.Worker(slow)}})
	h.Get("a", "/")
	hosttest.Eventually(t, 15*time.Second, "each shard's memory is told, within a factor of two", func() bool {
		shards := h.Shards()
		for _, s := range shards {
			if real := hosttest.RSS(s.PID); s.RSSBytes < real/2 || s.RSSBytes > 2*real {
				return false
			}
		}
		return len(shards) > 0
	})
}

// leftovers are the things a host must not leave behind.
func leftovers(h *hosttest.Host, pids []int) (out []string) {
	for _, pid := range pids {
		if hosttest.Alive(pid) {
			out = append(out, fmt.Sprintf("process %d (%s)", pid, hosttest.Comm(pid)))
		}
	}
	if _, err := os.Stat(h.Admin); err == nil {
		out = append(out, h.Admin)
	}
	return out
}

func cgroupsOf(pid int) (dirs []string) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 && strings.Contains(f[2], "bulkhead") {
			for _, c := range strings.Split(f[1], ",") {
				dirs = append(dirs, filepath.Join("/sys/fs/cgroup", c, f[2]))
			}
		}
	}
	return dirs
}

func TestNothingIsLeftBehind(t *testing.T) {
	for _, how := range []struct {
		name string
		sig  syscall.Signal
	}{{"SIGTERM", syscall.SIGTERM}, {"SIGINT", syscall.SIGINT}, {"SIGKILL of the launcher", syscall.SIGKILL}} {
		t.Run(how.name, func(t *testing.T) {
			h := hosttest.Start(t, hosttest.Options{Tenants: map[string]hosttest.Files{"a": hosttest.Worker(slow)}})
			h.Get("a", "/")
			mounts, _ := os.ReadFile("/proc/self/mountinfo")
			var pids []int
			var cgroups []string
			hosttest.Eventually(t, 20*time.Second, "a gateway and two workers at least", func() bool {
				return len(hosttest.Children(h.PID)) >= 3
			})
			for _, c := range hosttest.Children(h.PID) {
				pids = append(pids, c)
				cgroups = append(cgroups, cgroupsOf(c)...)
			}
			h.Signal(how.sig)
			h.Wait(45 * time.Second)
			hosttest.Eventually(t, 10*time.Second, "everything is gone", func() bool {
				left := leftovers(h, pids)
				if how.sig == syscall.SIGKILL {
					// A killed launcher cannot unlink; its next start does.
					left = left[:0]
					for _, pid := range pids {
						if hosttest.Alive(pid) {
							left = append(left, fmt.Sprint(pid))
						}
					}
				}
				return len(left) == 0
			})
			if how.sig != syscall.SIGKILL {
				for _, dir := range cgroups {
					if _, err := os.Stat(dir); err == nil {
						t.Errorf("the cgroup %s is left behind", dir)
					}
				}
			}
			if after, _ := os.ReadFile("/proc/self/mountinfo"); string(after) != string(mounts) {
				t.Errorf("mounts are left behind:\n%s\nwas\n%s", after, mounts)
			}
		})
	}
}

func TestDrain(t *testing.T) {
	h := hosttest.Start(t, hosttest.Options{Tenants: map[string]hosttest.Files{"a": hosttest.Worker(slow)}})
	h.Get("a", "/")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			a, err := h.Do("GET", "a", "/?ms=1500", nil)
			if err != nil || a.Body != "done" {
				t.Errorf("a request in flight at SIGTERM: %v %d %s", err, a.Status, a.Body)
			}
		})
	}
	time.Sleep(300 * time.Millisecond)
	// A connection that is open before the drain asks during it.
	conn, err := net.Dial("tcp", h.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a.localhost\r\n\r\n")
	buf := make([]byte, 4096)
	if n, err := conn.Read(buf); err != nil || !strings.HasPrefix(string(buf[:n]), "HTTP/1.1 200") {
		t.Fatalf("before the drain: %v %s", err, buf[:n])
	}
	h.Signal(syscall.SIGTERM)
	time.Sleep(200 * time.Millisecond)
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a.localhost\r\n\r\n")
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	// An idle connection may be closed by the drain (RFC 9112 §9.6) or told to come back; never served.
	if n, err := conn.Read(buf); err == nil && n > 0 {
		got := string(buf[:n])
		if !strings.Contains(got, "Retry-After:") || strings.HasPrefix(got, "HTTP/1.1 200") {
			t.Errorf("during the drain a new request got:\n%s", got)
		}
	}
	wg.Wait()
	if err := h.Wait(30 * time.Second); err != nil {
		t.Errorf("the host's end: %v", err)
	}
}
