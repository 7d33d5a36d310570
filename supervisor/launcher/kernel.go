package launcher

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"bulkhead/policy/namespaces"
	"bulkhead/sandboxworker/lockdown/setup"

	"golang.org/x/sys/unix"
)

// kernel is what the probe found.
type kernel struct {
	landlock int  // ABI, 0 if absent
	mdwe     bool // PR_SET_MDWE, Linux 6.3
	inspect  bool // ptrace of one's own children
	// ownProcesses: RLIMIT_NPROC counts in the user namespace of the limited process (Linux 5.14),
	// not all processes of the host that share its uid.
	ownProcesses bool
	cores        bool // a core runs two threads here, and can be kept to one cookie's (cores.go)
	ownFilters   int  // seccomp filters the launcher itself runs under (in a container)
}

// landlockScopes is the ABI that brought the scopes (Linux 6.12).
const landlockScopes = 6

func (l *launcher) stepKernel() error {
	if err := l.probeCalls(); err != nil {
		return err
	}
	if err := l.probeUserNamespaces(); err != nil {
		return err
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return &Missing{What: "/proc", Reason: err.Error(), Remedy: "mount proc: the seal is verified through it"}
	}
	if n, err := statusField(string(status), "Seccomp_filters"); err == nil {
		if l.kernel.ownFilters, err = strconv.Atoi(n); err != nil {
			return fmt.Errorf("/proc/self/status: Seccomp_filters: %w", err)
		}
	} else {
		return &Missing{What: "Seccomp_filters in /proc/PID/status", Reason: err.Error(), Remedy: "a kernel of 5.9 or newer with CONFIG_SECCOMP_FILTER"}
	}
	l.probeCores()
	l.kernel.ownProcesses = l.root || atLeast(5, 14)
	if err := l.probeLandlock(); err != nil {
		return err
	}
	if _, err := unix.PrctlRetInt(prGetMDWE, 0, 0, 0, 0); err == nil {
		l.kernel.mdwe = true
	} else if err := l.lacking(&Missing{Feature: "mdwe", What: "PR_SET_MDWE", Reason: err.Error(), Remedy: "a kernel of 6.3 or newer"}); err != nil {
		return err
	}
	l.kernel.inspect = inspectable
	scope, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if err == nil && strings.TrimSpace(string(scope)) == "3" {
		l.kernel.inspect = false
	}
	if !l.kernel.inspect {
		return l.lacking(&Missing{Feature: "inspect", What: "ptrace(2) of own children", Reason: "kernel.yama.ptrace_scope is 3, or the architecture is not supported",
			Remedy: "set kernel.yama.ptrace_scope to 2 or lower"})
	}
	return nil
}

const prGetMDWE = 66 // PR_GET_MDWE

// atLeast compares the version of the kernel. Features are tried, not looked up; this is for
// changes of meaning that cannot be tried.
func atLeast(major, minor int) bool {
	var u unix.Utsname
	var ma, mi int
	if unix.Uname(&u) != nil {
		return false
	}
	if n, _ := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &ma, &mi); n != 2 {
		return false
	}
	return ma > major || ma == major && mi >= minor
}

// probeCalls tries the system calls without which nothing here works.
func (l *launcher) probeCalls() error {
	pidfd, err := unix.PidfdOpen(unix.Getpid(), 0)
	if err != nil {
		return &Missing{What: "pidfd_open(2)", Reason: err.Error(), Remedy: "a kernel of 5.4 or newer"}
	}
	unix.Close(pidfd)
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return &Missing{What: "openat2(2)", Reason: err.Error(), Remedy: "a kernel of 5.6 or newer"}
	}
	unix.Close(fd)
	if err := unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{}); errors.Is(err, unix.ENOSYS) {
		return &Missing{What: "mount_setattr(2)", Reason: err.Error(), Remedy: "a kernel of 5.12 or newer"}
	}
	return nil
}

// probeUserNamespaces reads the switches by which distributions turn them off, so that the
// operator is told the switch and not an errno.
func (l *launcher) probeUserNamespaces() error {
	switches := []struct{ path, bad, remedy string }{
		{"/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"},
		{"/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1, or run as root"},
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "install the AppArmor profile for bulkhead-launcher with \"userns,\", or sysctl kernel.apparmor_restrict_unprivileged_userns=0, or run as root"},
	}
	for i, s := range switches {
		value, err := os.ReadFile(s.path)
		if err != nil || strings.TrimSpace(string(value)) != s.bad || (l.root && i > 0) {
			continue
		}
		if i == 2 && confined() {
			continue // a profile applies, which is how Ubuntu lets named programs through
		}
		return &Missing{What: "user namespaces", Reason: s.path + " is " + s.bad, Remedy: s.remedy}
	}
	return nil
}

func confined() bool {
	label, err := os.ReadFile("/proc/self/attr/current")
	return err == nil && !strings.HasPrefix(string(label), "unconfined")
}

// explainClone adds what an errno of clone(2) means here.
func (l *launcher) explainClone(err error) error {
	hint := ""
	switch {
	case errors.Is(err, unix.ENOSPC):
		hint = "a limit in /proc/sys/user/max_*_namespaces is reached"
	case errors.Is(err, unix.EPERM):
		hint = "creating namespaces or mapping uids is not permitted here (container without privileges, or a seccomp profile around bulkhead)"
	case errors.Is(err, unix.EAGAIN):
		hint = "the limit of processes is reached (RLIMIT_NPROC or the cgroup's pids.max)"
	case errors.Is(err, unix.EACCES):
		hint = "the binary may not be executed by the child's uid, or lies on a noexec file system"
	case errors.Is(err, unix.EBUSY):
		hint = "the cgroup has processes beside sub-groups; start bulkhead in a delegated cgroup"
	default:
		return err
	}
	return fmt.Errorf("%w (%s)", err, hint)
}

func (l *launcher) probeLandlock() error {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return l.lacking(&Missing{Feature: "landlock", What: "Landlock", Reason: errno.Error(),
			Remedy: "a kernel of 5.13 or newer with landlock in its lsm= list"})
	}
	l.kernel.landlock = int(abi)
	if abi < landlockScopes {
		return l.lacking(&Missing{Feature: "landlock-scopes", What: "Landlock scopes", Reason: fmt.Sprintf("ABI %d, the scopes came with %d", abi, landlockScopes),
			Remedy: "a kernel of 6.12 or newer"})
	}
	return nil
}

// Landlock rights by bit (landlock(7)); x/sys has not all of them.
const (
	fsExecute  = 1 << 0
	fsReadFile = 1 << 2
	fsReadDir  = 1 << 3
	fsMakeChar = 1 << 6
	fsMakeSock = 1 << 9
	fsMakeFifo = 1 << 10
	fsMakeBlok = 1 << 11
	fsMakeSym  = 1 << 12
	fsIoctlDev = 1 << 15
	netBind    = 1 << 0
	netConnect = 1 << 1
	scopeAll   = 1<<0 | 1<<1 // abstract unix sockets, signals
)

// landlockMasks handles everything the ABI knows, and allows files in the root's mounts alone.
func landlockMasks(abi int, role namespaces.Role) setup.Landlock {
	bits := 13
	for _, since := range []int{2, 3, 5} { // refer, truncate, ioctl on devices
		if abi >= since {
			bits++
		}
	}
	ll := setup.Landlock{HandledFS: 1<<bits - 1}
	ll.Read = fsReadFile | fsReadDir
	ll.Write = ll.HandledFS &^ (fsExecute | fsMakeChar | fsMakeSock | fsMakeFifo | fsMakeBlok | fsMakeSym | fsIoctlDev)
	if abi >= 4 {
		ll.HandledNet = netBind
		if role != namespaces.Gateway {
			ll.HandledNet |= netConnect // the gateway alone dials
		}
	}
	if abi >= landlockScopes {
		ll.Scoped = scopeAll
	}
	return ll
}

// mapped reports whether first to last are all mapped in an id map (user_namespaces(7)).
func mapped(path string, first, last uint64) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var inside, outside, count uint64
		if n, err := fmt.Sscan(lines.Text(), &inside, &outside, &count); err != nil || n != 3 {
			return false
		}
		if inside <= first && last < inside+count {
			return true
		}
	}
	return false
}
