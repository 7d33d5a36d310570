package seccomp

import "golang.org/x/sys/unix"

// Flags of clone(2) with which glibc and Go make threads. CLONE_THREAD is among them, so
// whatever else the mask leaves open, the result is a thread of this process.
const (
	cloneThread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND |
		unix.CLONE_THREAD | unix.CLONE_SYSVSEM
	cloneNamespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWNS |
		unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP | unix.CLONE_PARENT |
		unix.CLONE_PTRACE | unix.CLONE_VFORK | unix.CLONE_PIDFD
)

// Futex operations of glibc and Go; bit 7 is FUTEX_PRIVATE_FLAG, bit 8 FUTEX_CLOCK_REALTIME.
// Priority inheritance and requeueing, home of many kernel bugs, are absent.
const (
	futexWait       = 0
	futexWake       = 1
	futexWaitBitset = 9
	futexOpMask     = 0xffffffff &^ (128 | 256)
)

// runtimeCalls is what Go's scheduler and collector, glibc's malloc and pthreads, and V8 need
// in every child. self is filled in by the kernel's pid namespace: the process is always pid 1.
func runtimeCalls() []Rule {
	rules := []Rule{
		allow("read", "sockets, pipes, eventfd; only what was handed over is open"),
		allow("write", "as read"),
		allow("close", "the gateway's fds are verified; closing one harms only oneself"),
		allow("epoll_pwait", "Go's scheduler looks into its netpoller, although nothing is added to it after the seal"),
		allow("munmap", "Go, malloc and V8 give memory back"),
		allow("brk", "malloc's main arena"),
		allow("rt_sigprocmask", "Go around thread creation, glibc in pthread_create and abort"),
		allow("rt_sigreturn", "return from a signal handler"),
		allow("rt_sigaction", "Go's runtime switches SIGPROF and fatal signals"),
		allow("sigaltstack", "Go gives each thread a signal stack"),
		allow("getpid", "Go before tgkill"),
		allow("gettid", "Go's new threads"),
		refuse("set_robust_list", uint16(unix.ENOSYS), "glibc, first act of a thread; it does without, robust mutexes are for sharing between processes"),
		allow("rseq", "glibc, first act of a thread; once it has registered the first thread, a refusal for another is fatal to it", eq(2, 0)),
		allow("sched_yield", "Go's and V8's spin locks"),
		allow("nanosleep", "Go's sysmon"),
		allow("restart_syscall", "the kernel resumes an interrupted sleep with it after a freeze (suspend, cgroup freezer, tracer)"),
		allow("exit", "end of a thread"),
		allow("exit_group", "end of the process"),
		allow("clock_gettime", "thread CPU clocks are no vDSO matter; CPU limits read them"),
		allow("tgkill", "Go and glibc raise the signal they die of; only at threads of the own process, which is pid 1 of its namespace", eq(0, 1)),
		allow("clone", "threads only: the flags that make one must be set, those that make a namespace or a traced child must not", masked(0, cloneThread|cloneNamespaces, cloneThread)),
		refuse("clone3", uint16(unix.ENOSYS), "its flags lie behind a pointer that a filter cannot follow; glibc falls back to clone"),
	}
	return append(rules, futexCalls()...)
}

func futexCalls() []Rule {
	var rules []Rule
	for _, op := range []uint64{futexWait, futexWake, futexWaitBitset} {
		rules = append(rules, allow("futex", "Go's and glibc's locks; no priority inheritance, no requeue", masked(1, futexOpMask, op)))
	}
	return rules
}

// Flags of mmap(2). Memory is private: shared, it would be shmem, for which
// nobody here has a use. Huge pages come from a pool of the host that no memory cgroup counts; pages that
// grow downwards are old and odd.
const (
	mmapType = 0x0f // MAP_SHARED, MAP_PRIVATE, MAP_SHARED_VALIDATE, MAP_DROPPABLE
	mmapOdd  = unix.MAP_HUGETLB | unix.MAP_GROWSDOWN | unix.MAP_LOCKED
	mmapMask = mmapType | mmapOdd | unix.MAP_ANONYMOUS
	mmapWant = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
)

// memoryCalls is how a child gets memory. exec says whether pages may become executable.
func memoryCalls(exec bool) []Rule {
	var rules []Rule
	if exec {
		rules = append(rules,
			allow("mprotect", "V8 makes the code of Wasm modules executable"),
			allow("pkey_mprotect", "the same, on processors with protection keys: V8 gives its code pages a key of their own"),
			allow("mmap", "anonymous memory, executable for Wasm; no file is open that could be mapped", masked(3, mmapMask, mmapWant)),
		)
	} else {
		rules = append(rules,
			allow("mprotect", "V8's heap, malloc; never executable", masked(2, unix.PROT_EXEC, 0)),
			allow("mmap", "anonymous memory, never executable", masked(2, unix.PROT_EXEC, 0), masked(3, mmapMask, mmapWant)),
		)
	}
	rules = append(rules, refuse("mremap", uint16(unix.ENOMEM), "realloc of large blocks; glibc copies instead"))
	rules = append(rules, allow("madvise", "Go, V8 and malloc give pages back", eq(2, unix.MADV_DONTNEED)))
	for _, advice := range []uint64{unix.MADV_FREE, unix.MADV_DONTFORK, unix.MADV_HUGEPAGE, unix.MADV_NOHUGEPAGE, unix.MADV_COLLAPSE} {
		rules = append(rules, refuse("madvise", uint16(unix.EINVAL), "advice that Go and V8 may give; both take a no, and none was measured to be given", eq(2, advice)))
	}
	return rules
}

// Worker is the table of a worker.
func Worker(p Profile) []Rule {
	rules := append(runtimeCalls(), memoryCalls(p == JITWasm)...)
	return append(rules,
		allow("getrandom", "crypto.getRandomValues, and seeds of Go and V8"),
		allow("clock_nanosleep", "V8's mutexes (Abseil) back off by sleeping when contended"),
		allow("sched_getparam", "V8's mutexes (Abseil) weigh waiting threads by priority, once a thread; refused, they complain on stderr"),
		allow("sched_getscheduler", "as sched_getparam: pthread_getschedparam makes both calls"),
		refuse("sched_getaffinity", uint16(unix.ENOSYS), "glibc's pthread_getattr_np, by which V8 finds a thread's stack; it leaves the CPU set out"),
		refuse("openat", uint16(unix.ENOSYS), "glibc and V8 look for files of the system and do without"),
	)
}
