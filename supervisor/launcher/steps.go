package launcher

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"bulkhead/policy/namespaces"
	"bulkhead/policy/seccomp"
	"bulkhead/supervisor/launcher/filter"

	"golang.org/x/sys/unix"
)

// A step of the start. The list is straight: each runs once, in order, and the first that fails
// ends the launcher. docs/launcher.md is printed from it.
type step struct {
	name string
	does string
	run  func(*launcher) error
}

func startSteps() []step {
	return []step{
		{"descriptors", "marks every inherited descriptor close-on-exec, so that no child inherits one by accident", (*launcher).stepDescriptors},
		{"stderr", "opens standard error anew, for writing only, where it is a terminal, a file or a pipe: the gateway shares it", (*launcher).stepStderr},
		{"mode", "decides between root (a uid per child) and rootless (one map of the invoking user)", (*launcher).stepMode},
		{"kernel", "probes for what the seal needs; stops with feature, reason and remedy", (*launcher).stepKernel},
		{"namespaces", "notes the inodes of its own namespaces: no child may be in one of them", (*launcher).stepNamespaces},
		{"binaries", "opens gateway, worker and bundler once; they are executed by descriptor from then on", (*launcher).stepBinaries},
		{"filters", "compiles the seccomp tables of every allowed profile", (*launcher).stepFilters},
		{"folders", "opens the tenant directories, those of host APIs' sockets, the configuration file and the state directory", (*launcher).stepFolders},
		{"cgroups", "makes the cgroup below which every child gets its own", (*launcher).stepCgroups},
		{"listeners", "binds, or takes over from the service manager, the sockets that the gateway will serve", (*launcher).stepListeners},
		{"admin", "binds the admin socket; only root and the invoking user are let through", (*launcher).stepAdmin},
		{"kernel-log", "opens the kernel log at its end, to name the system call of a seccomp kill", (*launcher).stepKernelLog},
		{"signals", "has SIGTERM, SIGINT and SIGCHLD wake the loop", (*launcher).stepSignals},
		{"gateway", "starts the first generation", (*launcher).stepGateway},
	}
}

func (l *launcher) stepDescriptors() error {
	if err := unix.CloseRange(3, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return &Missing{What: "close_range(2)", Reason: err.Error(), Remedy: "a kernel of 5.11 or newer"}
	}
	return nil
}

// stepStderr keeps the gateway, which writes to the same standard error, from reading what the
// operator types, from overwriting what a log file holds, and from the flags that the shell's
// descriptor shares. A socket (journald) cannot be opened anew and cannot be read back either; a
// terminal of another user cannot be opened, and stays as it is.
func (l *launcher) stepStderr() error {
	fd, err := unix.Open("/proc/self/fd/2", unix.O_WRONLY|unix.O_APPEND|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	if err := unix.Dup3(fd, 2, 0); err != nil {
		return fmt.Errorf("dup3: %w", err)
	}
	return nil
}

// stepMode: root mode needs more than uid 0, in a container that may be an empty title.
func (l *launcher) stepMode() error {
	l.uid, l.gid = os.Geteuid(), os.Getegid()
	if l.uid != 0 {
		return nil
	}
	last := uint64(l.opt.UIDBase) + uint64(l.opt.MaxShards+l.opt.MaxBundlers)
	for _, name := range []string{"uid_map", "gid_map"} {
		if !mapped("/proc/self/"+name, uint64(l.opt.UIDBase), last) {
			return &Missing{What: "a range of uids for children", Reason: fmt.Sprintf("%d to %d are not all mapped in /proc/self/%s", l.opt.UIDBase, last, name),
				Remedy: "pass --uid-base with a range this container maps, or run as another user than root"}
		}
	}
	l.root = true
	l.uids = uidPool{base: l.opt.UIDBase, size: uint32(l.opt.MaxShards + l.opt.MaxBundlers), used: map[uint32]bool{}}
	return nil
}

func (l *launcher) stepNamespaces() error {
	l.byProof = map[string]map[uint64]int{}
	for _, ns := range namespaces.Of(namespaces.Worker) {
		ino, err := inode("/proc/self/ns/" + ns.Proc)
		if err != nil {
			return &Missing{What: ns.Name + " namespaces", Reason: err.Error(), Remedy: "a kernel with CONFIG_NAMESPACES and all its kinds, and /proc mounted"}
		}
		l.hostNS[ns.Proc] = ino
		l.byProof[ns.Proc] = map[uint64]int{ino: os.Getpid()}
	}
	return nil
}

func (l *launcher) stepBinaries() error {
	for role, path := range map[namespaces.Role]string{
		namespaces.Gateway: l.opt.Gateway, namespaces.Worker: l.opt.Worker, namespaces.Bundler: l.opt.Bundler,
	} {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("--%v %q: %w", role, path, err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return fmt.Errorf("--%v %q: %w", role, path, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o111 == 0 {
			return fmt.Errorf("--%v %q: not an executable file", role, path)
		}
		if l.root && st.Mode&0o001 == 0 {
			return fmt.Errorf("--%v %q: children run under uids of their own and may not execute it; chmod o+x it", role, path)
		}
		if l.binaries[role.String()], err = raise(fd); err != nil {
			return fmt.Errorf("--%v %q: %w", role, path, err)
		}
	}
	return nil
}

// raise moves a descriptor far above those that a child gets, so that the shuffling before exec
// cannot overwrite it.
func raise(fd int) (int, error) {
	limit := unix.Rlimit{Cur: 1024}
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, int(min(limit.Cur, 8192))-128)
	unix.Close(fd)
	return high, err
}

func (l *launcher) stepFilters() error {
	for _, p := range l.opt.Profiles {
		if err := l.compile(namespaces.Worker, p, weakened(seccomp.Worker(p))); err != nil {
			return err
		}
	}
	if err := l.compile(namespaces.Gateway, 0, seccomp.Gateway()); err != nil {
		return err
	}
	return l.compile(namespaces.Bundler, 0, seccomp.Bundler())
}

func (l *launcher) compile(role namespaces.Role, p seccomp.Profile, rules []seccomp.Rule) error {
	program, err := filter.Compile(rules)
	if err != nil {
		return fmt.Errorf("%v: %w", role, err)
	}
	l.filters[filterKey{uint8(role), p}] = program
	return nil
}

func (l *launcher) stepFolders() error {
	for _, dir := range l.opt.Tenants {
		s, err := openSource(dir)
		if err != nil {
			return fmt.Errorf("--tenants: %w", err)
		}
		l.roots = append(l.roots, s)
	}
	for _, dir := range l.opt.SocketDirs {
		s, err := openSource(dir)
		if err != nil {
			return fmt.Errorf("--socket-dir (a host API's in the policy): %w; make the directory, or start its service first", err)
		}
		if !s.dir {
			return fmt.Errorf("--socket-dir %q: is no directory", dir)
		}
		l.sockets = append(l.sockets, s)
	}
	if l.opt.Config != "" {
		abs, err := filepath.Abs(l.opt.Config)
		if err != nil {
			return fmt.Errorf("--config %q: %w", l.opt.Config, err)
		}
		s, err := openSource(abs)
		if err != nil {
			return fmt.Errorf("--config: %w", err)
		}
		if s.dir {
			return fmt.Errorf("--config %q: is a directory", abs)
		}
		s.file = filepath.Base(abs)
		l.config, l.opt.Config = &s, abs
	}
	l.host = hostMounts()
	if l.opt.Data == "" {
		return nil
	}
	return l.openData()
}

// openData gives the gateway a directory of its own below --data. The parent stays the
// launcher's, so that a hostile gateway can neither replace the admin socket nor leave set-id
// files of root behind.
func (l *launcher) openData() error {
	abs, err := filepath.Abs(l.opt.Data)
	if err != nil {
		return fmt.Errorf("--data %q: %w", l.opt.Data, err)
	}
	dir := filepath.Join(abs, "gateway")
	if err := os.MkdirAll(abs, 0o755); err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("--data: %w", err)
	}
	// No link: who may write to --data need not be who may choose what root gives away.
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("--data: %q must be a directory: %w", dir, err)
	}
	s, err := fromFD(fd)
	if err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	if l.root {
		// By descriptor: the directory was opened without following a link. O_PATH knows no fchown.
		if err := unix.Fchownat(s.fd, "", int(l.opt.UIDBase), int(l.opt.UIDBase), unix.AT_EMPTY_PATH); err != nil {
			return fmt.Errorf("--data %q: giving it to the gateway's uid: %w", dir, err)
		}
	}
	l.data = &s
	return nil
}

func (l *launcher) stepSignals() error {
	if err := unix.Pipe2(l.wake[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	l.signals = make(chan os.Signal, 16)
	signal.Notify(l.signals, unix.SIGTERM, unix.SIGINT, unix.SIGCHLD)
	relay := make(chan os.Signal, 16)
	go func(in <-chan os.Signal, w int) {
		for s := range in {
			select {
			case relay <- s:
			default: // the loop has plenty to look at already
			}
			unix.Write(w, []byte{0})
		}
	}(l.signals, l.wake[1])
	l.signals = relay
	return nil
}

func (l *launcher) stepGateway() error {
	if err := l.startGateway(); err != nil {
		return err
	}
	return nil
}
