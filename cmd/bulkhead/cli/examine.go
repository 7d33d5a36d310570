package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bulkhead/policy/seccomp"
)

// examine looks at everything, in the order of importance.
func examine() []finding {
	found := []finding{
		examineKernel(),
		examineNamespaces(),
		examineSeccomp(),
		examineUIDs(),
		examineCgroup(),
		examineLandlock(),
		examineMDWE(),
		examineInspection(),
		examineSpeculation(),
		examineSMT(),
		examineMerging(),
		examineSwap(),
		examineCoreDumps(),
		examineKernelLog(),
		examineWatches(),
		examineBinaries(),
	}
	for i := range found {
		f := &found[i]
		f.Weight = weights[f.Name]
		switch {
		case f.State == stateMissing:
			f.Exposure = 1
		case f.State == stateDegraded && f.Exposure == 0:
			f.Exposure = 1
		}
	}
	return found
}

func read(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func examineKernel() finding {
	var u unix.Utsname
	f := finding{Name: "kernel", State: stateOK, For: "pidfds, clone into a cgroup, Landlock: Linux 5.13 or newer"}
	if err := unix.Uname(&u); err != nil {
		f.State, f.Found, f.Remedy = stateMissing, err.Error(), "run on Linux"
		return f
	}
	release := unix.ByteSliceToString(u.Release[:])
	f.Found = release + " " + unix.ByteSliceToString(u.Machine[:])
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil || major < 5 || major == 5 && minor < 13 {
		f.State, f.Remedy = stateMissing, "use a newer kernel"
	}
	return f
}

// examineNamespaces makes a process in new namespaces, as the launcher will.
func examineNamespaces() finding {
	f := finding{Name: "namespaces", State: stateOK, For: "every worker has its own user, pid, net, mount, ipc, uts and cgroup namespace"}
	const all = syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "version")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  all,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	err := cmd.Run()
	if err == nil {
		f.Found = "a process in seven new ones was made"
		return f
	}
	f.State, f.Found = stateMissing, err.Error()
	switch {
	case read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
		f.Found += " (AppArmor restricts unprivileged user namespaces)"
		f.Remedy = "run as root, or: sysctl kernel.apparmor_restrict_unprivileged_userns=0, or give bulkhead-launcher an AppArmor profile with `userns,`"
	case read("/proc/sys/kernel/unprivileged_userns_clone") == "0":
		f.Remedy = "run as root, or: sysctl kernel.unprivileged_userns_clone=1"
	case read("/proc/sys/user/max_user_namespaces") == "0":
		f.Remedy = "sysctl user.max_user_namespaces=15000"
	default:
		f.Remedy = "if this is a container, start it with permission to make namespaces, or run bulkhead on the host"
	}
	return f
}

func examineSeccomp() finding {
	f := finding{Name: "seccomp", State: stateOK, For: "workers are left with a short list of system calls"}
	actions := read("/proc/sys/kernel/seccomp/actions_avail")
	if strings.Contains(actions, "kill_process") {
		f.Found = "filters, with kill_process; a worker has"
		for i, p := range seccomp.Profiles() {
			allowed, filtered := seccomp.Calls(seccomp.Worker(p))
			f.Found += fmt.Sprintf("%s %d calls in %v (%d by argument)", map[bool]string{true: "", false: ","}[i == 0], allowed, p, filtered)
		}
		return f
	}
	f.State, f.Found, f.Remedy = stateMissing, "no filters that kill the process", "use a kernel with CONFIG_SECCOMP_FILTER, 4.14 or newer"
	return f
}

func examineCgroup() finding {
	f := finding{Name: "cgroup", State: stateOK, For: "bounds memory, threads and CPU share of each worker", Accept: "cgroup"}
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &st); err != nil {
		f.State, f.Found, f.Remedy = stateDegraded, "/sys/fs/cgroup: "+err.Error(), "mount a cgroup2 file system there"
		return f
	}
	v2 := st.Type == unix.CGROUP2_SUPER_MAGIC
	own := ownCgroup(v2)
	if unix.Access(own, unix.W_OK) == nil {
		f.Found = fmt.Sprintf("v%d, %s can be written", map[bool]int{true: 2, false: 1}[v2], own)
		if v2 {
			have := read(filepath.Join(own, "cgroup.controllers"))
			for _, c := range []string{"cpu", "memory", "pids"} {
				if !strings.Contains(" "+have+" ", " "+c+" ") {
					f.State = stateDegraded
					f.Found += "; controller " + c + " is not delegated"
					f.Remedy = "in the unit of this service: Delegate=yes; for user sessions: Delegate=cpu memory pids in user@.service"
				}
			}
		}
		f.Accept = acceptIf(f.State, f.Accept)
		return f
	}
	f.State = stateDegraded
	f.Found = own + " cannot be written by this user"
	f.Remedy = "start it where systemd delegates a cgroup: systemd-run --user --scope -p Delegate=yes bulkhead serve …; or run it as root"
	if !v2 {
		f.Remedy = "run it as root: cgroup v1 cannot be delegated safely"
	}
	return f
}

func acceptIf(state, name string) string {
	if state == stateOK {
		return ""
	}
	return name
}

// ownCgroup is the directory of the cgroup this process is in.
func ownCgroup(v2 bool) string {
	for line := range strings.SplitSeq(read("/proc/self/cgroup"), "\n") {
		parts := strings.SplitN(line, ":", 3)
		if len(parts) != 3 {
			continue
		}
		if v2 && parts[0] == "0" {
			return filepath.Join("/sys/fs/cgroup", parts[2])
		}
		if !v2 && strings.Contains(","+parts[1]+",", ",memory,") {
			dir := filepath.Join("/sys/fs/cgroup/memory", parts[2])
			if _, err := os.Stat(dir); err == nil {
				return dir
			}
			return "/sys/fs/cgroup/memory" // in a container the path is the host's
		}
	}
	return "/sys/fs/cgroup"
}

func examineLandlock() finding {
	f := finding{Name: "landlock", State: stateOK, For: "a second lock on files, network, abstract sockets and signals"}
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	switch {
	case errno != 0:
		f.State, f.Found, f.Accept = stateDegraded, errno.Error(), "landlock"
		f.Remedy = "use a kernel with CONFIG_SECURITY_LANDLOCK, and landlock in the lsm= list of its command line"
	case abi < 6:
		f.State, f.Found, f.Accept = stateDegraded, fmt.Sprintf("ABI %d, without scopes", abi), "landlock-scopes"
		f.Remedy = "use Linux 6.12 or newer"
	default:
		f.Found = fmt.Sprintf("ABI %d", abi)
	}
	return f
}

func examineMDWE() finding {
	f := finding{Name: "mdwe", State: stateOK, Found: "PR_SET_MDWE", For: "jitless workers can never make memory executable"}
	if _, err := unix.PrctlRetInt(unix.PR_GET_MDWE, 0, 0, 0, 0); err != nil {
		f.State, f.Found, f.Accept, f.Remedy = stateDegraded, err.Error(), "mdwe", "use Linux 6.3 or newer"
	}
	return f
}

func examineKernelLog() finding {
	f := finding{Name: "kernel log", State: stateOK, Found: "readable: incidents will name the forbidden system call", For: "the system call a killed worker tried"}
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		f.Found = "not readable for this user (" + err.Error() + "): incidents will not name the forbidden system call"
		return f
	}
	_ = unix.Close(fd) // opened to see whether it can be
	return f
}

func examineWatches() finding {
	f := finding{Name: "file notification", State: stateOK, For: "changes of tenants' folders are seen at once"}
	n, err := strconv.Atoi(read("/proc/sys/fs/inotify/max_user_watches"))
	if err != nil {
		f.Found = "none: folders will be looked at every 2 s"
		return f
	}
	f.Found = fmt.Sprintf("%d directories can be watched; folders beyond are looked at every 2 s", n)
	return f
}

// examineBinaries finds the other three and starts the launcher's help, which needs libseccomp.
func examineBinaries() finding {
	f := finding{Name: "binaries", State: stateOK, For: "bulkhead is four programs, one for each privilege"}
	b, err := findBinaries("")
	if err != nil {
		f.State, f.Found, f.Remedy = stateMissing, err.Error(), "build them with `make build`, or install with `make install`"
		return f
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, b.launcher, "--help").CombinedOutput()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() == 127) {
		first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		f.State, f.Found = stateMissing, "bulkhead-launcher does not start: "+strings.TrimSpace(err.Error()+" "+first)
		f.Remedy = "install libseccomp (Debian: apt-get install libseccomp2)"
		return f
	}
	f.Found = "launcher, gateway and worker in " + filepath.Dir(b.launcher) + ", libseccomp loads"
	return f
}
