package launcher

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"bulkhead/policy/limits"

	"github.com/containerd/cgroups/v3/cgroup2"
	"golang.org/x/sys/unix"
)

func TestMemberOf(t *testing.T) {
	const text = "9:name=systemd:/\n4:memory:/a:b/bulkhead-1/worker-2\n0::/user.slice/x\n"
	cases := []struct {
		controller, path string
		ok               bool
	}{
		{"memory", "/a:b/bulkhead-1/worker-2", true},
		{"memory", "/a:b/bulkhead-1/worker-3", false},
		{"", "/user.slice/x", true},
		{"pids", "/", false},
	}
	for _, tc := range cases {
		if err := memberOf(text, tc.controller, tc.path); (err == nil) != tc.ok {
			t.Errorf("memberOf(%q, %q) = %v", tc.controller, tc.path, err)
		}
	}
}

// The unified hierarchy, with a real clone into a real cgroup. Where its controllers are taken by
// version 1 the limits cannot be tried, birth inside and removal can.
func TestAChildIsBornInItsUnifiedCgroup(t *testing.T) {
	mount := "/sys/fs/cgroup"
	if _, err := os.Stat(mount + "/cgroup.procs"); err != nil {
		mount += "/unified"
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	path, ok := pathIn(string(own), "")
	if !ok || unix.Access(mount+path, unix.W_OK) != nil {
		t.Skip("no writable cgroup of version 2: not mounted, or not delegated to this user")
	}
	base, err := cgroup2.Load(path, cgroup2.WithMountpoint(mount))
	if err != nil {
		t.Fatal(err)
	}
	h := &cgroup2Host{mount: mount, own: path, base: base}
	g, err := h.make("test", limits.Shard{})
	if err != nil {
		t.Fatal(err)
	}
	sys := &syscall.SysProcAttr{Ptrace: false}
	leave, err := g.enter(sys)
	if err != nil {
		t.Fatal(err)
	}
	pid, _, err := syscall.StartProcess("/bin/sleep", []string{"sleep", "60"}, &syscall.ProcAttr{Sys: sys})
	if err != nil {
		t.Fatal(err)
	}
	if err := leave(); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	if err := g.holds(string(text)); err != nil {
		t.Errorf("%v; /proc/PID/cgroup is %q", err, strings.TrimSpace(string(text)))
	}
	if err := g.holds(string(own)); err == nil {
		t.Error("the test itself is said to be in the child's cgroup")
	}
	syscall.Kill(pid, syscall.SIGKILL)
	var ws syscall.WaitStatus
	syscall.Wait4(pid, &ws, 0, nil)
	if err := g.remove(); err != nil {
		t.Error(err)
	}
}
