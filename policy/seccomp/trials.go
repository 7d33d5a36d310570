package seccomp

import (
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// Verdict is what a system call made behind the seal leads to.
type Verdict uint8

// The verdicts.
const (
	Dies    Verdict = 1 // the process ends by SIGSYS
	Lives   Verdict = 2 // the call reaches the kernel, whatever that answers
	Refused Verdict = 3 // it answers Trial.Errno and reaches nothing
	Exits   Verdict = 4 // it reaches the kernel, and the process ends by its own will
	Silent  Verdict = 5 // it reaches the kernel, and the thread does not come back
	Faults  Verdict = 6 // it reaches the kernel, and the process ends by a fault
)

// String is the verdict for people.
func (v Verdict) String() string {
	switch v {
	case Dies:
		return "dies"
	case Lives:
		return "lives"
	case Refused:
		return "refused"
	case Exits:
		return "exits"
	case Silent:
		return "falls silent"
	case Faults:
		return "faults"
	}
	return fmt.Sprintf("verdict(%d)", uint8(v))
}

// Trial is one row of what is expected of a worker's filter: a call, its arguments, the verdict. The
// table of trials stands beside the policy and is written by hand: a change of either without the
// other fails a test here, and the security suites make every call of it in sealed workers.
type Trial struct {
	Call  string
	Args  []uint64
	Want  Verdict
	Errno uint16 // Refused only
	Why   string
}

// String is the row as reports show it.
func (t Trial) String() string {
	s := t.Call + "("
	for i, a := range t.Args {
		if i > 0 {
			s += ", "
		}
		s += fmt.Sprintf("%#x", a)
	}
	return s + ")"
}

// CallName is the name of a number of this architecture, "" if it has none.
func CallName(nr int64) string { return callNumbers[nr] }

// CallNumber is the inverse; false for a call that this architecture does not have.
func CallNumber(name string) (int64, bool) {
	for nr, n := range callNumbers {
		if n == name {
			return nr, true
		}
	}
	return 0, false
}

// CallNumbers lists the numbers of this architecture that have names, ascending.
func CallNumbers() []int64 { return slices.Sorted(maps.Keys(callNumbers)) }

const any32 = 1 << 32 // a bit that a register of 32 bits would not have

func trial(want Verdict, call, why string, args ...uint64) Trial {
	return Trial{Call: call, Args: args, Want: want, Why: why}
}

func refused(call string, errno uint16, why string, args ...uint64) Trial {
	return Trial{Call: call, Args: args, Want: Refused, Errno: errno, Why: why}
}

// each makes one trial per value of one argument; before are the arguments in front of it.
func each(want Verdict, call, why string, before []uint64, values ...uint64) []Trial {
	var out []Trial
	for _, v := range values {
		out = append(out, Trial{Call: call, Args: append(slices.Clone(before), v), Want: want, Why: why})
	}
	return out
}

// Trials are the expected verdicts on a worker of a profile, for every call that its policy names. A
// call that is not named here dies, see Absent.
func Trials(p Profile) []Trial {
	none := ^uint64(0)
	out := []Trial{
		trial(Lives, "read", "it names descriptors only, and five are open", none),
		trial(Lives, "write", "as read", none),
		trial(Lives, "close", "one's own descriptors are one's own", none),
		trial(Lives, "epoll_pwait", "on descriptors that are open", none),
		trial(Lives, "munmap", "one's own memory", 0, 0),
		trial(Lives, "brk", "one's own memory, within the limit", 0),
		trial(Lives, "rt_sigprocmask", "one's own signals", 0, 0, 0, 8),
		trial(Lives, "rt_sigaction", "one's own signals", 0, 0, 0, 8),
		trial(Faults, "rt_sigreturn", "without a signal frame the kernel ends the process"),
		trial(Lives, "sigaltstack", "one's own stack", 0, 0),
		trial(Lives, "getpid", "1, in the namespace"),
		trial(Lives, "gettid", "a number in the namespace"),
		trial(Lives, "sched_yield", "harmless"),
		trial(Lives, "nanosleep", "harmless", 0, 0),
		trial(Lives, "clock_nanosleep", "harmless", none),
		trial(Lives, "restart_syscall", "nothing to restart"),
		trial(Lives, "clock_gettime", "the attacker has native code and the time stamp counter anyway", 0, 0),
		trial(Lives, "sched_getparam", "of itself: no other process has a name", 0, 0),
		trial(Lives, "sched_getscheduler", "of itself: no other process has a name", 0),
		trial(Lives, "getrandom", "randomness", 0, 0, 0),
		trial(Silent, "exit", "ends the thread", 0),
		trial(Exits, "exit_group", "ends the process", 0),

		trial(Lives, "rseq", "registers the thread's own area", 0, 0, 0),
		trial(Dies, "rseq", "unregistering and unknown flags are nobody's need", 0, 0, 1),

		refused("set_robust_list", uint16(unix.ENOSYS), "glibc does without"),
		refused("clone3", uint16(unix.ENOSYS), "flags behind a pointer cannot be judged"),
		refused("mremap", uint16(unix.ENOMEM), "moves pages round what mmap and mprotect are held to"),
		refused("sched_getaffinity", uint16(unix.ENOSYS), "glibc does without"),
		refused("openat", uint16(unix.ENOSYS), "there are no files; libraries that look for some go on without"),

		trial(Lives, "tgkill", "a thread of its own", 1, 999_999, 0),
		trial(Dies, "tgkill", "no thread group", 0, 1, 0),
		trial(Dies, "tgkill", "another process", 2, 2, 9),
		trial(Dies, "tgkill", "any process", none, 2, 9),
		trial(Dies, "tgkill", "a register that is 1 in its low half only", any32|1, 1, 0),
	}
	out = append(out, futexTrials()...)
	out = append(out, cloneTrials()...)
	return append(out, memoryTrials(p)...)
}

func futexTrials() []Trial {
	var out []Trial
	for _, how := range []uint64{0, 128, 256, 128 | 256} { // FUTEX_PRIVATE_FLAG, FUTEX_CLOCK_REALTIME
		out = append(out, each(Lives, "futex", "wait and wake are what locks are made of", []uint64{0}, 0|how, 1|how, 9|how)...)
	}
	out = append(out, each(Dies, "futex", "descriptors, requeueing and operations on two words: for condition variables nobody here uses", []uint64{0}, 2, 3, 4, 5, 10, 4|128, 3|128, 10|128)...)
	out = append(out, each(Dies, "futex", "priority inheritance, home of many kernel bugs", []uint64{0}, 6, 7, 8, 11, 12, 13, 6|128, 7|128, 13|128)...)
	return append(out, each(Dies, "futex", "operations that no kernel knows yet", []uint64{0}, 14, 127, 512, 1<<31)...)
}

func cloneTrials() []Trial {
	tls := ^uint64(0) // no address: the kernel refuses the thread before it runs
	out := []Trial{
		trial(Lives, "clone", "a thread", cloneThread|unix.CLONE_SETTLS, 0, 0, 0, tls),
		trial(Dies, "clone", "fork", uint64(unix.SIGCHLD)),
		trial(Dies, "clone", "vfork", unix.CLONE_VM|unix.CLONE_VFORK|uint64(unix.SIGCHLD)),
	}
	for _, bit := range []uint64{unix.CLONE_VM, unix.CLONE_FS, unix.CLONE_FILES, unix.CLONE_SIGHAND, unix.CLONE_THREAD, unix.CLONE_SYSVSEM} {
		out = append(out, trial(Dies, "clone", "less than a thread", cloneThread&^bit|unix.CLONE_SETTLS, 0, 0, 0, tls))
	}
	for _, bit := range []uint64{unix.CLONE_NEWUSER, unix.CLONE_NEWPID, unix.CLONE_NEWNET, unix.CLONE_NEWNS, unix.CLONE_NEWIPC, unix.CLONE_NEWUTS,
		unix.CLONE_NEWCGROUP, unix.CLONE_PARENT, unix.CLONE_PTRACE, unix.CLONE_VFORK, unix.CLONE_PIDFD} {
		out = append(out, trial(Dies, "clone", "namespaces, traced or stray children, descriptors of processes", cloneThread|bit|unix.CLONE_SETTLS, 0, 0, 0, tls))
	}
	return out
}

func memoryTrials(p Profile) []Trial {
	const anon, rw = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, unix.PROT_READ | unix.PROT_WRITE
	none := ^uint64(0)
	mmap := func(want Verdict, why string, prot, flags, fd uint64) Trial {
		return trial(want, "mmap", why, 0, 4096, prot, flags, fd, 0)
	}
	exec := Dies
	execWhy := "new executable pages are what an exploit wants next"
	if p == JITWasm {
		exec, execWhy = Lives, "Wasm modules; the price of the profile"
	}
	out := []Trial{
		mmap(Lives, "private memory", rw, anon, none),
		mmap(Lives, "reserved at a place", unix.PROT_NONE, anon|unix.MAP_NORESERVE, none),
		mmap(exec, execWhy, unix.PROT_READ|unix.PROT_EXEC, anon, none),
		mmap(exec, execWhy, rw|unix.PROT_EXEC, anon, none),
		mmap(Dies, "a descriptor, shared", unix.PROT_READ, unix.MAP_SHARED, 5),
		mmap(Dies, "a descriptor, private", unix.PROT_READ, unix.MAP_PRIVATE, 5),
		mmap(Dies, "shared memory", unix.PROT_READ, unix.MAP_SHARED|unix.MAP_ANONYMOUS, none),
		mmap(Dies, "shared memory, validated", unix.PROT_READ, 3|unix.MAP_ANONYMOUS, none),
		mmap(Dies, "memory that may be dropped", unix.PROT_READ, 8|unix.MAP_ANONYMOUS, none),
		mmap(Dies, "no type at all", unix.PROT_READ, unix.MAP_ANONYMOUS, none),
		mmap(Dies, "huge pages, which no memory cgroup counts", unix.PROT_READ, anon|unix.MAP_HUGETLB, none),
		mmap(Dies, "pages that grow downwards", unix.PROT_READ, anon|unix.MAP_GROWSDOWN, none),
		mmap(Dies, "locked pages", unix.PROT_READ, anon|unix.MAP_LOCKED, none),
		trial(Lives, "mprotect", "one's own memory", 0, 0, unix.PROT_READ),
		trial(exec, "mprotect", execWhy, 0, 0, unix.PROT_READ|unix.PROT_EXEC),
		trial(exec, "mprotect", execWhy, 0, 0, unix.PROT_EXEC),
		trial(Dies, "madvise", "a register that is MADV_DONTNEED in its low half only", 0, 0, any32|unix.MADV_DONTNEED),
	}
	if p == JITWasm {
		out = append(out, trial(Lives, "pkey_mprotect", "as mprotect, on processors with protection keys", 0, 0, unix.PROT_EXEC, none))
	}
	out = append(out, trial(Lives, "madvise", "giving pages back", 0, 0, unix.MADV_DONTNEED))
	for _, advice := range []uint64{unix.MADV_FREE, unix.MADV_DONTFORK, unix.MADV_HUGEPAGE, unix.MADV_NOHUGEPAGE, unix.MADV_COLLAPSE} {
		out = append(out, refused("madvise", uint16(unix.EINVAL), "advice that nobody insists on", 0, 0, advice))
	}
	return append(out, each(Dies, "madvise", "merging with other processes' pages, dumps, poison, write-back, guards", []uint64{0, 0},
		unix.MADV_WILLNEED, unix.MADV_REMOVE, unix.MADV_DOFORK, unix.MADV_MERGEABLE, unix.MADV_UNMERGEABLE, unix.MADV_DODUMP, unix.MADV_DONTDUMP,
		unix.MADV_COLD, unix.MADV_PAGEOUT, unix.MADV_POPULATE_READ, unix.MADV_POPULATE_WRITE, unix.MADV_HWPOISON, 101 /* MADV_SOFT_OFFLINE */, 102, 103)...)
}

// Absent says of calls that every worker is without what each would give an attacker. A call that stands
// neither here nor among the Trials is absent because nothing needed it.
func Absent() map[string]string {
	out := map[string]string{}
	for why, calls := range map[string][]string{
		"files: names, contents, attributes": {"open", "openat2", "creat", "access", "faccessat", "faccessat2", "stat", "lstat", "newfstatat", "statx", "readlink",
			"readlinkat", "getdents64", "chdir", "fchdir", "chroot", "rename", "renameat2", "unlink", "unlinkat", "link", "linkat", "symlink", "mknod", "mknodat", "mkdir",
			"chmod", "fchmodat2", "chown", "truncate", "ftruncate", "statfs", "name_to_handle_at", "open_by_handle_at", "getxattr", "setxattr"},
		"the mount tree": {"mount", "umount2", "pivot_root", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "statmount", "listmount", "open_tree_attr"},
		"sockets: the network, abstract names, netlink":                               {"socket", "socketpair", "connect", "bind", "listen", "accept", "accept4", "setsockopt", "getsockopt", "shutdown"},
		"descriptors through a socket; a compromised gateway could hand in a network": {"recvmsg", "recvmmsg", "sendmsg", "sendmmsg"},
		"datagrams with addresses":                                                    {"sendto", "recvfrom"},
		"descriptors of its own making, or a copy of one":                             {"dup", "dup2", "dup3", "pipe", "pipe2", "eventfd2", "epoll_create1", "signalfd4", "timerfd_create", "inotify_init1", "fanotify_init", "memfd_create", "memfd_secret", "pidfd_open", "fcntl"},
		"what a poller watches: a file in it outlives its descriptor":                 {"epoll_ctl"},
		"other processes: signals, memory, descriptors, tracing":                      {"kill", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal", "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease", "pidfd_getfd", "kcmp"},
		"a process, or another program":                                               {"fork", "vfork", "execve", "execveat", "wait4", "waitid"},
		"namespaces and identities":                                                   {"unshare", "setns", "setuid", "setgid", "setresuid", "setresgid", "setgroups", "setfsuid", "capset", "personality"},
		"the parent-death signal, names, speculation, dumpability":                    {"prctl", "arch_prctl"},
		"a filter or a rule of its own, and the kernel code behind it":                {"seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "lsm_set_self_attr"},
		"kernel machinery with a long record of holes":                                {"io_uring_setup", "io_uring_enter", "io_uring_register", "userfaultfd", "bpf", "perf_event_open", "keyctl", "add_key", "request_key", "modify_ldt", "io_setup", "io_submit"},
		"shared memory and queues of System V and POSIX":                              {"shmget", "shmat", "shmctl", "msgget", "msgsnd", "semget", "semop", "mq_open", "remap_file_pages"},
		"requeueing and waiting on several words, by new numbers":                     {"futex_waitv", "futex_wake", "futex_wait", "futex_requeue", "get_robust_list"},
		"bytes of a descriptor by another way, past what was measured":                {"pread64", "pwrite64", "preadv", "pwritev", "preadv2", "pwritev2", "readv", "writev", "sendfile", "splice", "tee", "vmsplice", "copy_file_range", "ioctl", "fsync", "fallocate", "flock"},
		"limits, priorities, processors: a louder neighbour":                          {"setrlimit", "prlimit64", "setpriority", "sched_setscheduler", "sched_setattr", "sched_setaffinity", "ioprio_set", "mlock", "mlock2", "mlockall", "mbind", "set_mempolicy", "migrate_pages", "move_pages"},
		"the machine: modules, clocks, log, swap, ports, reboot":                      {"init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "settimeofday", "clock_settime", "adjtimex", "syslog", "swapon", "swapoff", "acct", "quotactl", "iopl", "ioperm", "sethostname", "setdomainname", "vhangup"},
		"timers and signals on time: a clock, and a way to flood":                     {"timer_create", "setitimer", "alarm", "membarrier"},
		"protection keys of its own: V8's isolation of its code relies":               {"pkey_alloc", "pkey_free"},
	} {
		for _, c := range calls {
			out[c] = why
		}
	}
	return out
}

// Unfiltered lists, by number, calls that newer kernels let past every filter (kernel/seccomp.c,
// seccomp_is_const_allow and its kin): no policy can end a process for them.
func Unfiltered() map[int64]string {
	out := map[int64]string{}
	for call, why := range map[string]string{
		"uretprobe": "the return of a probed function; made from elsewhere than the kernel's own trampoline it raises SIGILL",
		"uprobe":    "the entry of a probed function; made from elsewhere than the kernel's own trampoline it answers ENXIO",
	} {
		if nr, ok := CallNumber(call); ok {
			out[nr] = why
		}
	}
	return out
}

// Decide is what a table says of a call: the first row whose conditions all hold, and its index; Dies
// and -1 if there is none. It is the meaning of the table in plain words, for tests and reports; the
// kernel runs what libseccomp makes of the same rows.
func Decide(rules []Rule, call string, args []uint64) (Verdict, uint16, int) {
	for i, r := range rules {
		if r.Call != call || !r.holds(args) {
			continue
		}
		if r.Action == Refuse {
			return Refused, r.Errno, i
		}
		return Lives, 0, i
	}
	return Dies, 0, -1
}

func (r Rule) holds(args []uint64) bool {
	for _, a := range r.Args {
		var v uint64
		if int(a.Index) < len(args) {
			v = args[a.Index]
		}
		if a.Op == Equal && v != a.Value || a.Op == Masked && v&a.Mask != a.Value {
			return false
		}
	}
	return true
}
