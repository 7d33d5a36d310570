package launcher

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"bulkhead/policy/limits"

	"github.com/containerd/cgroups/v3"
	"golang.org/x/sys/unix"
)

// cgroupHost makes the cgroups of children below the launcher's own. There are two kinds of
// cgroups in the world, so there are two of these.
type cgroupHost interface {
	make(name string, s limits.Shard) (group, error)
	close() error // removes what is left, when all children are gone
}

// group is the cgroup of one child.
type group interface {
	name() string
	// enter arranges that the next clone is born inside: with a descriptor for clone3 (v2), or
	// by moving the calling thread in (v1). leave undoes the latter.
	enter(*syscall.SysProcAttr) (leave func() error, err error)
	// holds says whether the text of a /proc/PID/cgroup, read by the launcher, shows that the
	// process is in the group.
	holds(text string) error
	// held says whether the kernel shows these as the group's limits.
	held(s limits.Shard) error
	outOfMemory() bool
	remove() error
}

// stepCgroups picks the kind, and cleans up after launchers that were killed.
func (l *launcher) stepCgroups() (err error) {
	if leftOut("cgroup") {
		return nil
	}
	var host cgroupHost
	own, readErr := os.ReadFile("/proc/self/cgroup")
	switch mode := cgroups.Mode(); {
	case readErr != nil:
		err = readErr
	case mode == cgroups.Unified:
		host, err = newCgroup2("/sys/fs/cgroup", string(own))
	case mode == cgroups.Legacy || mode == cgroups.Hybrid:
		host, err = newCgroup1(string(own))
	default:
		err = errors.New("nothing is mounted at /sys/fs/cgroup")
	}
	if err == nil {
		l.cgroups = host
		return nil
	}
	return l.lacking(&Missing{Feature: "cgroup", What: "a cgroup of one's own", Reason: err.Error(),
		Remedy: "run bulkhead as a service with Delegate=yes (systemd-run --user --scope -p Delegate=yes works for a user), or as root"})
}

// ownPrefix names this launcher's part of the tree; the pid tells a later launcher whether the
// owner is still alive.
func ownPrefix() string { return "bulkhead-" + strconv.Itoa(os.Getpid()) }

// sweep removes the empty cgroups that dead launchers left in dir.
func sweep(dir string) {
	old, err := filepath.Glob(filepath.Join(dir, "bulkhead-*"))
	if err != nil {
		return
	}
	for _, path := range old {
		// bulkhead-PID, and on version 2 its children as neighbours: bulkhead-PID.worker-2.
		number, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), "bulkhead-"), ".")
		pid, err := strconv.Atoi(number)
		if err != nil || errors.Is(unix.Kill(pid, 0), nil) {
			continue
		}
		children, _ := filepath.Glob(filepath.Join(path, "*", "cgroup.procs"))
		for _, c := range children {
			unix.Rmdir(filepath.Dir(c)) // fails, as it should, while something lives there
		}
		unix.Rmdir(path)
	}
}

// memberOf looks for "CONTROLLERS:PATH" in the text of a /proc/PID/cgroup, cgroups(7).
func memberOf(text, controller, path string) error {
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) == 3 && f[1] == controller {
			if f[2] == path {
				return nil
			}
			return fmt.Errorf("cgroup %q is %q, want %q", controller, f[2], path)
		}
	}
	return fmt.Errorf("no cgroup %q", controller)
}

// pathIn returns the path of a controller in the text of a /proc/PID/cgroup.
func pathIn(text, controller string) (string, bool) {
	for line := range strings.Lines(text) {
		if f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3); len(f) == 3 && f[1] == controller {
			return f[2], true
		}
	}
	return "", false
}

// counter reads "NAME N" from a file of such lines.
func counter(path, name string) uint64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == name {
			n, _ := strconv.ParseUint(f[1], 10, 64)
			return n
		}
	}
	return 0
}

// mustRead compares what a file of a cgroup says.
func mustRead(path, want string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if got := strings.TrimSpace(string(text)); got != want {
		return fmt.Errorf("%s is %s, want %s", path, got, want)
	}
	return nil
}

// pages is a limit of memory as the kernel keeps it: whole pages.
func pages(bytes uint64) string {
	page := uint64(os.Getpagesize())
	return strconv.FormatUint(bytes/page*page, 10)
}
