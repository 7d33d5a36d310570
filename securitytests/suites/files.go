package suites

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"bulkhead/policy/seccomp"
)

func filePromises() []Promise {
	const repair = "the root of the worker or its filter is not what the launcher verifies: report it; until then run tenants in profile jitless, one a process"
	return []Promise{
		{Name: "cannot open a file", Suite: "files", try: openFiles, Gain: "the host's files: keys, tenants' code, the policy", Repair: repair},
		{Name: "cannot open a device", Suite: "files", try: openDevices, Gain: "a driver of the kernel to attack, or the machine's memory", Repair: repair},
		{Name: "cannot run another program", Suite: "files", try: runPrograms, Gain: "a process outside the worker's limits, or one with privileges of its own", Repair: repair},
		{Name: "cannot truncate, grow or unseal the black box", Suite: "files", try: blackBox,
			Gain:   "the gateway would fault while it reads who was executing: the end of the service, or of the blame",
			Repair: "a kernel that honours the seals of a memfd (F_SEAL_SHRINK, F_SEAL_GROW)"},
	}
}

// canary is a file that everybody may read.
func (s *scene) canary() (string, error) {
	path := filepath.Join(s.stand.Dir, "canary-"+s.profile.String())
	if err := os.WriteFile(path, []byte("a secret of the host"), 0o644); err != nil {
		return "", err
	}
	return path, os.Chmod(path, 0o644)
}

func openFiles(ctx context.Context, s *scene) finding {
	canary, err := s.canary()
	if err != nil {
		return failedTry(err)
	}
	enosys := uint16(syscall.ENOSYS)
	var list []attempt
	for _, p := range []string{canary, "/etc/passwd", "/", ".", "/proc/self/mem", "/proc/1/environ", "/proc/self/exe"} {
		list = append(list, attempt{what: "openat " + p, nr: unix.SYS_OPENAT, args: []any{unix.AT_FDCWD, In(p), unix.O_RDONLY}, want: seccomp.Refused, errno: enosys})
	}
	how := make(In, 24) // struct open_how of zeroes
	f := s.all(ctx, append(list,
		dies("open the canary", "open", In(canary), unix.O_RDONLY),
		dies("open the canary", "openat2", unix.AT_FDCWD, In(canary), how, len(how)),
		dies("create a file", "creat", In("/new"), 0o600),
		dies("open by handle", "open_by_handle_at", 5, In(make([]byte, 32)), unix.O_RDONLY),
		dies("name a handle", "name_to_handle_at", unix.AT_FDCWD, In("/"), Out(128), Out(8), 0),
		dies("list the root", "getdents64", 5, Out(512), 512),
		dies("look at the canary", "stat", In(canary), Out(144)),
		dies("look at the canary", "newfstatat", unix.AT_FDCWD, In(canary), Out(144), 0),
		dies("read a link", "readlinkat", unix.AT_FDCWD, In("/proc/self/exe"), Out(128), 128),
		dies("leave the root", "chroot", In("/")),
		dies("mount", "mount", In("none"), In("/"), In("tmpfs"), 0, 0),
		dies("mount by the new calls", "fsopen", In("tmpfs"), 0),
		dies("take a tree", "open_tree", unix.AT_FDCWD, In("/"), 1),
	))
	if f.status != Held {
		return f
	}
	// What would there be to open? Asked of the kernel, from outside.
	seat, err := s.seat(ctx)
	if err != nil {
		return failedTry(err)
	}
	defer seat.Leave()
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", seat.PID))
	if err != nil {
		return held("%s; this user may not look at the worker's mounts (%v)", f.detail, err)
	}
	if lines := strings.Count(string(mounts), "\n"); lines != 1 || !strings.Contains(string(mounts), " / / ro,") {
		return broken("the worker's root is not one empty read-only mount:\n%s", mounts)
	}
	if entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/root/", seat.PID)); err == nil && len(entries) > 0 {
		return broken("the worker's root holds %v", entries)
	}
	return f
}

func openDevices(ctx context.Context, s *scene) finding {
	return s.all(ctx, []attempt{
		dies("open memory", "open", In("/dev/mem"), unix.O_RDWR),
		dies("open the kernel log", "open", In("/dev/kmsg"), unix.O_RDONLY),
		dies("make a device", "mknod", In("/mem"), unix.S_IFCHR|0o600, 1<<8|1),
		dies("make a device", "mknodat", unix.AT_FDCWD, In("/mem"), unix.S_IFCHR|0o600, 1<<8|1),
		dies("type for the operator", "ioctl", 2, unix.TIOCSTI, In("x")),
		dies("ask a descriptor's driver", "ioctl", 0, unix.TIOCINQ, Out(8)),
		dies("ports", "iopl", 3),
		dies("ports", "ioperm", 0, 1024, 1),
	})
}

func runPrograms(ctx context.Context, s *scene) finding {
	return s.all(ctx, []attempt{
		dies("execute itself", "execve", In("/proc/self/exe"), 0, 0),
		dies("execute the black box", "execveat", 5, In(""), 0, 0, unix.AT_EMPTY_PATH),
		dies("fork", "fork"),
		dies("fork", "vfork"),
		{what: "fork by clone", nr: unix.SYS_CLONE, args: []any{int(unix.SIGCHLD)}, want: seccomp.Dies},
		{what: "fork by clone3", nr: unix.SYS_CLONE3, args: []any{Out(88), 88}, want: seccomp.Refused, errno: uint16(syscall.ENOSYS)},
		dies("a file in memory to execute", "memfd_create", In("x"), 0),
	})
}

func blackBox(ctx context.Context, s *scene) finding {
	f := s.all(ctx, []attempt{
		dies("shrink it", "ftruncate", 5, 0),
		dies("grow it", "ftruncate", 5, 1<<30),
		dies("grow it", "fallocate", 5, 0, 0, 1<<30),
		{what: "add a seal", nr: unix.SYS_FCNTL, args: []any{5, unix.F_ADD_SEALS, unix.F_SEAL_WRITE}, want: seccomp.Dies},
		dies("write past its end", "pwrite64", 5, In("x"), 1, 1<<30),
	})
	if f.status != Held {
		return f
	}
	seat, err := s.seat(ctx)
	if err != nil {
		return failedTry(err)
	}
	defer seat.Leave()
	before, err := seat.BlackBox.Stat()
	if err != nil {
		return failedTry(err)
	}
	// Scribbling is lawful: the box is a claim. It must be there to read, of its size, whatever is in it.
	a, err := seat.Step(ctx, "box")
	var addr, size uint64
	if _, serr := fmt.Sscanf(a.Text, "%d %d", &addr, &size); err != nil || serr != nil {
		return failedTry(fmt.Errorf("box: %v %v", err, serr))
	}
	if a, err = seat.Step(ctx, "poke %d %s", addr, strings.Repeat("ff", 4096)); err != nil || a.Text != "done" {
		return failedTry(fmt.Errorf("poke: %v %+v", err, a))
	}
	page := make([]byte, 4096)
	if _, err := seat.BlackBox.ReadAt(page, 0); err != nil || !bytes.Equal(page, bytes.Repeat([]byte{0xff}, 4096)) {
		return failedTry(fmt.Errorf("the scribble does not show: %v", err))
	}
	seals, err := unix.FcntlInt(seat.BlackBox.Fd(), unix.F_GET_SEALS, 0)
	const want = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	if err != nil || seals&want != want {
		return broken("its seals are %#x, want %#x (%v)", seals, want, err)
	}
	if after, err := seat.BlackBox.Stat(); err != nil || after.Size() != before.Size() {
		return broken("its size changed from %d: %v", before.Size(), err)
	}
	// A write(2) is a file's growth to the kernel, and the limit of that is 0.
	if a, err = seat.Call(ctx, unix.SYS_WRITE, 5, In("x"), 1); err != nil {
		return failedTry(err)
	} else if a.End == nil && a.Errno == 0 {
		return broken("write(2) to it went through: RLIMIT_FSIZE does not hold")
	}
	return held("%s; scribbled over from end to end it keeps its size and its seals", f.detail)
}
