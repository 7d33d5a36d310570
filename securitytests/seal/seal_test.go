// Package seal looks at running workers through /proc and holds what it sees against DESIGN
// invariant 1. It shares no code with the launcher's own check: if both are wrong, they are wrong
// in different ways.
package seal

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"bulkhead/securitytests/hosttest"
)

const hello = `export default { fetch() { return new Response("hello"); } };`

var namespaces = []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"}

func TestSealRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: shards get host uids of their own only from a root launcher")
	}
	for _, profile := range []string{"jitless", "jit", "jit+wasm"} {
		t.Run(profile, func(t *testing.T) {
			h := start(t, profile, false)
			seen := look(t, h, profile)
			uids := map[string]bool{}
			for _, pid := range seen {
				uid := strings.Fields(hosttest.Status(t, fmt.Sprintf("/proc/%d/status", pid))["Uid"])[0]
				if uid == "0" || uids[uid] {
					t.Errorf("worker %d runs as host uid %s, which is root's or another shard's", pid, uid)
				}
				uids[uid] = true
				cgroup, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
				if err != nil || !strings.Contains(string(cgroup), "bulkhead") {
					t.Errorf("worker %d is in no cgroup of bulkhead's (%v):\n%s", pid, err, cgroup)
				}
			}
		})
	}
}

func TestSealRootless(t *testing.T) {
	if b, err := os.ReadFile("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"); err == nil && strings.TrimSpace(string(b)) == "1" {
		t.Skip("AppArmor forbids unprivileged user namespaces here (kernel.apparmor_restrict_unprivileged_userns=1)")
	}
	for _, profile := range []string{"jitless", "jit", "jit+wasm"} {
		t.Run(profile, func(t *testing.T) {
			look(t, start(t, profile, true), profile)
		})
	}
}

func start(t *testing.T, profile string, rootless bool) *hosttest.Host {
	h := hosttest.Start(t, hosttest.Options{
		Tenants:  map[string]hosttest.Files{"a": hosttest.Worker(hello)},
		Policy:   "profile: " + profile + "\n",
		Rootless: rootless,
	})
	if a := h.Get("a", "/"); a.Status != 200 || a.Body != "hello" {
		t.Fatalf("the tenant answers %d %q", a.Status, a.Body)
	}
	return h
}

// look checks every thread and fd of every worker and returns the workers.
func look(t *testing.T, h *hosttest.Host, profile string) []int {
	gateway := h.Gateway()
	if gateway == 0 {
		t.Fatal("found no gateway among the launcher's children")
	}
	var workers []int
	// Two shards at least: the one that serves and the warm spare.
	hosttest.Eventually(t, 20e9, "two sealed shards", func() bool {
		workers = workers[:0]
		for _, s := range h.Shards() {
			if s.Sealed {
				workers = append(workers, s.PID)
			}
		}
		return len(workers) >= 2
	})
	taken := map[string]int{} // namespace link → who has it
	for _, pid := range []int{os.Getpid(), h.PID, gateway} {
		for _, ns := range namespaces {
			taken[link(t, fmt.Sprintf("/proc/%d/ns/%s", pid, ns))] = pid
		}
	}
	for _, pid := range workers {
		for _, ns := range namespaces {
			l := link(t, fmt.Sprintf("/proc/%d/ns/%s", pid, ns))
			if other, ok := taken[l]; ok {
				t.Errorf("worker %d shares its %s namespace %s with process %d", pid, ns, l, other)
			}
			taken[l] = pid
		}
		lookThreads(t, pid)
		lookFiles(t, pid)
		lookRoot(t, pid)
		lookMemory(t, pid, profile)
	}
	lookShared(t, gateway, h.PID, workers)
	return workers
}

// lookShared: no socket and no black box of a worker is open in another worker or in the launcher, nor
// any of the gateway's in a worker, but for the black box that the gateway reads.
func lookShared(t *testing.T, gateway, launcher int, workers []int) {
	t.Helper()
	open := func(pid int) map[string]string {
		all := map[string]string{}
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil || len(fds) == 0 {
			t.Fatalf("process %d: cannot list its fds: %v", pid, err)
		}
		for _, fd := range fds {
			target, err := os.Readlink(fd)
			if err != nil {
				continue // closed meanwhile
			}
			switch {
			case strings.HasPrefix(target, "/memfd:"):
				var st syscall.Stat_t
				if syscall.Stat(fd, &st) == nil {
					all[fmt.Sprintf("%s inode %d", target, st.Ino)] = fd
				}
			case strings.HasPrefix(target, "socket:"):
				all[target] = fd
			}
		}
		return all
	}
	boxes := 0
	gateways := open(gateway)
	for i, pid := range workers {
		own := open(pid)
		if len(own) != 3 {
			t.Errorf("worker %d has %v open, want two sockets and the black box", pid, own)
		}
		for what, fd := range own {
			if _, shared := gateways[what]; shared && strings.HasPrefix(what, "/memfd:") {
				boxes++
			} else if shared {
				t.Errorf("%s is %s, which the gateway has open too", fd, what)
			}
			for _, other := range append([]int{launcher}, workers[:i]...) {
				// The launcher closes what it has handed over right after that.
				hosttest.Eventually(t, 10e9, fmt.Sprintf("%s, %s, is not open in process %d", fd, what, other), func() bool {
					_, shared := open(other)[what]
					return !shared
				})
			}
		}
	}
	if boxes != len(workers) {
		t.Errorf("the gateway reads %d black boxes of %d workers: the comparison is off", boxes, len(workers))
	}
}

func lookThreads(t *testing.T, pid int) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*", pid))
	if err != nil || len(tasks) < 2 {
		t.Fatalf("worker %d shows %d threads (%v): a Go process has more", pid, len(tasks), err)
	}
	for _, task := range tasks {
		s := hosttest.Status(t, task+"/status")
		for field, want := range map[string]string{
			"Seccomp": "2", "NoNewPrivs": "1",
			"CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000",
			"CapBnd": "0000000000000000", "CapAmb": "0000000000000000",
		} {
			if s[field] != want {
				t.Errorf("%s: %s is %q, want %q", task, field, s[field], want)
			}
		}
	}
}

func lookFiles(t *testing.T, pid int) {
	t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(fds) == 0 {
		t.Fatalf("worker %d: cannot list its fds: %v", pid, err)
	}
	want := map[string]*regexp.Regexp{
		"0": regexp.MustCompile(`^/dev/null$`), "1": regexp.MustCompile(`^pipe:`), "2": regexp.MustCompile(`^pipe:`),
		"3": regexp.MustCompile(`^socket:`), "4": regexp.MustCompile(`^socket:`), "5": regexp.MustCompile(`^/memfd:`),
	}
	anonymous := map[string]int{}
	for _, fd := range fds {
		n, target := filepath.Base(fd), link(t, fd)
		if re, ok := want[n]; ok {
			if !re.MatchString(target) {
				t.Errorf("worker %d: fd %s is %s, want %s", pid, n, target, re)
			}
			continue
		}
		if target != "anon_inode:[eventpoll]" && target != "anon_inode:[eventfd]" {
			t.Errorf("worker %d holds fd %s, %s, which nobody gave it", pid, n, target)
		}
		if anonymous[target]++; anonymous[target] > 1 {
			t.Errorf("worker %d has a second %s", pid, target)
		}
	}
}

func lookRoot(t *testing.T, pid int) {
	t.Helper()
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(mounts)), "\n")
	if len(lines) != 1 {
		t.Fatalf("worker %d sees %d mounts, want one:\n%s", pid, len(lines), mounts)
	}
	// mountinfo's sixth field holds the per-mount options (proc_pid_mountinfo(5)).
	if f := strings.Fields(lines[0]); len(f) < 6 || f[4] != "/" || !slices.Contains(strings.Split(f[5], ","), "ro") {
		t.Errorf("worker %d: its only mount is not a read-only root: %s", pid, lines[0])
	}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/root/", pid))
	if err != nil || len(entries) != 0 {
		t.Errorf("worker %d: its root holds %v (%v), want nothing", pid, entries, err)
	}
	if cwd := link(t, fmt.Sprintf("/proc/%d/cwd", pid)); cwd != "/" {
		t.Errorf("worker %d: cwd is %s", pid, cwd)
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || string(cmdline) != "bulkhead-worker\x00" {
		t.Errorf("worker %d: argv is %q (%v), want the constant", pid, cmdline, err)
	}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range strings.Split(strings.Trim(string(environ), "\x00"), "\x00") {
		if name, _, _ := strings.Cut(v, "="); v != "" && !strings.HasPrefix(name, "GO") && name != "MALLOC_ARENA_MAX" && !strings.HasPrefix(name, "GLIBC_") {
			t.Errorf("worker %d has %q in its environment", pid, v)
		}
	}
}

func lookMemory(t *testing.T, pid int, profile string) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		f := strings.Fields(line)
		if len(f) > 1 && strings.Contains(f[1], "w") && strings.Contains(f[1], "x") && profile == "jitless" {
			t.Errorf("worker %d of profile jitless has a writable and executable mapping: %s", pid, line)
		}
	}
}

func link(t *testing.T, path string) string {
	t.Helper()
	l, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return l
}
