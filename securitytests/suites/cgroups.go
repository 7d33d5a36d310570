package suites

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"bulkhead/policy/limits"
	"bulkhead/policy/seccomp"
)

// cgroup is one that a process is in, in one hierarchy.
type cgroup struct {
	controllers string // "" on version 2
	mount, dir  string // of the hierarchy; of the group in it
}

// cgroupsOf lists a process's, and the text they were read from.
func cgroupsOf(pid int) (list []cgroup, text string, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, "", err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3) // cgroups(7)
		if len(f) != 3 {
			continue
		}
		mount := "/sys/fs/cgroup"
		if f[1] != "" {
			mount = filepath.Join(mount, strings.TrimPrefix(f[1], "name="))
		} else if _, err := os.Stat(filepath.Join(mount, "unified")); err == nil {
			mount = filepath.Join(mount, "unified")
		}
		list = append(list, cgroup{f[1], mount, filepath.Join(mount, f[2])})
	}
	return list, string(b), nil
}

// ownOf are those that the launcher made for the process.
func ownOf(list []cgroup) []cgroup {
	return slices.DeleteFunc(slices.Clone(list), func(g cgroup) bool { return !strings.Contains(g.dir, "bulkhead-") })
}

// beyond is how many descriptors are tried: more than a worker may have.
const beyond = 64

func leaveCgroup(ctx context.Context, s *scene) finding {
	a, err := s.seat(ctx)
	if err != nil {
		return failedTry(err)
	}
	defer a.Leave()
	b, err := s.neighbour(ctx)
	if err != nil {
		return failedTry(err)
	}
	defer b.Leave()
	own, before, err := cgroupsOf(a.PID)
	if err != nil {
		return failedTry(err)
	}
	theirs, other, err := cgroupsOf(b.PID)
	hosts, host, err2 := cgroupsOf(s.stand.PID)
	if err = errors.Join(err, err2); err != nil {
		return failedTry(err)
	}
	// Of each hierarchy its own group, the neighbour's, the launcher's, what is above them, and the root.
	dirs := map[string]bool{}
	for _, g := range slices.Concat(own, theirs, hosts) {
		dirs[g.dir], dirs[filepath.Dir(g.dir)], dirs[g.mount] = true, true, true
	}
	tries, wrong, err := a.leaves(ctx, dirs)
	switch {
	case err != nil:
		return failedTry(err)
	case len(wrong) > 0:
		return broken("%s", strings.Join(wrong, "; "))
	}
	procs := filepath.Join(theirs[0].dir, "cgroup.procs")
	f := s.all(ctx, []attempt{
		dies("move to the neighbour's group", "open", In(procs), unix.O_WRONLY),
		dies("move to the neighbour's group", "openat2", unix.AT_FDCWD, In(procs), In(make([]byte, 24)), 24),
		dies("a group of its own making", "mkdir", In(filepath.Join(own[0].mount, "bulkhead-none")), 0o755),
		dies("a group below its own", "mkdirat", unix.AT_FDCWD, In(filepath.Join(own[0].dir, "below")), 0o755),
		dies("the end of the neighbour's group", "rmdir", In(theirs[0].dir)),
		dies("mount the groups", "mount", In("none"), In("/"), In("cgroup"), 0, In("memory")),
		dies("mount the groups", "mount", In("none"), In("/"), In("cgroup2"), 0, 0),
		dies("mount the groups by the new calls", "fsopen", In("cgroup2"), 0),
		dies("a view of its own", "unshare", unix.CLONE_NEWCGROUP),
		dies("the view of another", "setns", 3, unix.CLONE_NEWCGROUP),
		{what: "a child with a view of its own", nr: unix.SYS_CLONE, args: []any{unix.CLONE_NEWCGROUP | int(unix.SIGCHLD)}, want: seccomp.Dies},
	})
	if f.status != Held {
		return f
	}
	if _, after, err := cgroupsOf(a.PID); err != nil {
		return failedTry(err)
	} else if after != before {
		return broken("it went from\n%sto\n%s", before, after)
	}
	if name := a.cgroupDescriptor(); name != "" {
		return broken("descriptor %s is a group's", name)
	}
	done := fmt.Sprintf("%d tries at %d groups and %s; it is where it was", tries, len(dirs), f.detail)
	if len(ownOf(own)) == 0 {
		return held("%s, which is its caller's: the launcher makes no cgroups in this mode on this host", done)
	}
	if before == other || before == host {
		return broken("it shares its cgroups:\n%s", before)
	}
	return held("%s, alone", done)
}

// leaves has the seat try, without dying of it, to write its name into every group by every name and
// descriptor there is, to lift its limits, and to have a child born elsewhere.
func (t *Seat) leaves(ctx context.Context, dirs map[string]bool) (tries int, wrong []string, err error) {
	try := func(at attempt) error {
		tries++
		got, detail, err := at.make(ctx, t)
		if err == nil && got != at.want {
			wrong = append(wrong, fmt.Sprintf("%s: %v (%s), must be: %v", at.what, got, detail, at.want))
		}
		if err == nil && got != seccomp.Lives && got != seccomp.Refused {
			err = fmt.Errorf("%s ended it: %s", at.what, detail)
		}
		return err
	}
	opens := func(from int, path string, flags int) error {
		return try(attempt{what: fmt.Sprintf("open %s from %d", path, from), nr: unix.SYS_OPENAT, args: []any{from, In(path), flags},
			want: seccomp.Refused, errno: uint16(syscall.ENOSYS)})
	}
	for _, path := range []string{"/proc/self/cgroup", "/proc/1/cgroup", "/proc/thread-self/cgroup", "/proc/cgroups"} {
		err = errors.Join(err, opens(unix.AT_FDCWD, path, unix.O_RDONLY))
	}
	for dir := range dirs {
		for _, name := range []string{"cgroup.procs", "cgroup.threads", "tasks", "cgroup.subtree_control", "memory.max", "memory.limit_in_bytes", "pids.max", "release_agent"} {
			if err == nil {
				err = opens(unix.AT_FDCWD, filepath.Join(dir, name), unix.O_WRONLY)
			}
		}
	}
	for fd := range beyond {
		if err != nil {
			break
		}
		// struct clone_args: flags, then seven fields, stack's among them, set_tid, its size, the group.
		args := make(In, 88)
		binary.NativeEndian.PutUint64(args, unix.CLONE_INTO_CGROUP)
		binary.NativeEndian.PutUint64(args[32:], uint64(unix.SIGCHLD))
		binary.NativeEndian.PutUint64(args[80:], uint64(fd))
		err = errors.Join(
			opens(fd, "cgroup.procs", unix.O_WRONLY), opens(fd, "../cgroup.procs", unix.O_WRONLY),
			try(attempt{what: fmt.Sprintf("a child born in group %d", fd), nr: unix.SYS_CLONE3, args: []any{args, len(args)}, want: seccomp.Refused, errno: uint16(syscall.ENOSYS)}))
		if err == nil && fd != controlFD { // were it a group's file, this would move the process there
			err = try(attempt{what: fmt.Sprintf("write to %d", fd), nr: unix.SYS_WRITE, args: []any{fd, In("0"), 1}, want: seccomp.Lives})
		}
	}
	return tries, wrong, err
}

// controlFD is the channel on which a seat gets its steps and gives its answers.
const controlFD = 3

// cgroupDescriptor names a descriptor of the seat that is a file of a cgroup, if it has one and this user
// may look.
func (t *Seat) cgroupDescriptor() string {
	list, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", t.PID))
	if err != nil {
		return ""
	}
	for _, path := range list {
		var st unix.Statfs_t
		if unix.Statfs(path, &st) == nil && (st.Type == unix.CGROUP_SUPER_MAGIC || st.Type == unix.CGROUP2_SUPER_MAGIC) {
			return filepath.Base(path)
		}
	}
	return ""
}

// ownCgroup reads back from outside what the kernel holds the seat to.
func ownCgroup(ctx context.Context, s *scene) finding {
	const memory = 192 << 20 // no default of anybody
	seat, err := s.stand.Sit(ctx, s.profile, memory)
	if err != nil {
		return failedTry(err)
	}
	defer seat.Leave()
	all, _, err := cgroupsOf(seat.PID)
	if err != nil {
		return failedTry(err)
	}
	own := ownOf(all)
	if len(own) == 0 {
		return notShown("the launcher makes no cgroups in this mode on this host")
	}
	shard := limits.DefaultShard()
	want := map[string][]string{ // by file, of version 1 and of version 2
		"pids.max": {strconv.Itoa(shard.PIDs)}, "memory.limit_in_bytes": {strconv.Itoa(memory)}, "memory.max": {strconv.Itoa(memory)}, "memory.swap.max": {"0"},
		"cpu.shares": {strconv.Itoa(shard.CPUWeight * 1024 / 100)}, "cpu.weight": {strconv.Itoa(shard.CPUWeight)},
	}
	seen := map[string]bool{}
	for _, g := range own {
		procs, err := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
		if err != nil {
			return notShown("this user may not look at the group: %v", err)
		}
		if got := strings.Fields(string(procs)); !slices.Equal(got, []string{strconv.Itoa(seat.PID)}) {
			return broken("%s holds the processes %v, want %d alone", g.dir, got, seat.PID)
		}
		for file, value := range want {
			text, err := os.ReadFile(filepath.Join(g.dir, file))
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				return failedTry(err)
			}
			if got := string(bytes.TrimSpace(text)); !slices.Contains(value, got) {
				return broken("%s in %s is %s, want %s", file, g.dir, got, value[0])
			}
			seen[strings.Split(file, ".")[0]] = true
		}
	}
	if len(seen) != 3 {
		return broken("of the limits of memory, pids and cpu only %v are there", seen)
	}
	return held("it is the one process in %d groups; memory %d MiB, %d threads, weight %d", len(own), memory>>20, shard.PIDs, shard.CPUWeight)
}
