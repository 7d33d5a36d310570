package suites

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"bulkhead/policy/seccomp"
)

func kernelPromises() []Promise {
	const repair = "the filter or the capabilities of the worker are not what the launcher verifies: report it"
	return []Promise{
		{Name: "cannot make or enter a namespace", Suite: "kernel", try: makeNamespaces, Gain: "capabilities in a namespace of its own, and with them most of the kernel's attack surface", Repair: repair},
		{Name: "cannot gain a privilege", Suite: "kernel", try: gainPrivileges, Gain: "another uid, a capability: the host's files, devices and processes", Repair: repair},
		{Name: "cannot touch the machine's settings, modules, clocks or log", Suite: "kernel", try: touchMachine, Gain: "the machine", Repair: repair},
		{Name: "cannot change its own seal", Suite: "kernel", try: changeSeal, Gain: "a life after the launcher's death, a core dump, a debugger, its name", Repair: repair},
		{Name: "cannot make new native code", Suite: "kernel", try: makeCode, Gain: "a second stage of an exploit as machine code instead of gadgets", Repair: "profile jitless, or jit"},
		{Name: "leaves no core dump", Suite: "kernel", try: leaveCore, Gain: "the code and secrets of every tenant of the worker, in a file or in the hands of a crash reporter", Repair: "report it; until then sysctl kernel.core_pattern=core and kernel.core_uses_pid=0, and no crash reporter"},
	}
}

func makeNamespaces(ctx context.Context, s *scene) finding {
	var list []attempt
	for name, flag := range map[string]int{"user": unix.CLONE_NEWUSER, "pid": unix.CLONE_NEWPID, "net": unix.CLONE_NEWNET, "mount": unix.CLONE_NEWNS, "time": unix.CLONE_NEWTIME} {
		list = append(list, dies("a new "+name+" namespace", "unshare", flag))
	}
	return s.all(ctx, append(list,
		dies("another's namespaces", "setns", 3, 0),
		attempt{what: "a child in new namespaces", nr: unix.SYS_CLONE, args: []any{unix.CLONE_NEWUSER | int(unix.SIGCHLD)}, want: seccomp.Dies},
		attempt{what: "a child in new namespaces by clone3", nr: unix.SYS_CLONE3, args: []any{Out(88), 88}, want: seccomp.Refused, errno: uint16(syscall.ENOSYS)},
	))
}

func gainPrivileges(ctx context.Context, s *scene) finding {
	f := s.all(ctx, []attempt{
		dies("become root", "setuid", 0),
		dies("become root", "setresuid", 0, 0, 0),
		dies("become root", "setfsuid", 0),
		dies("join a group", "setgroups", 0, 0),
		dies("take capabilities", "capset", Out(8), Out(24)),
		dies("another personality", "personality", 0x0400000), // READ_IMPLIES_EXEC
		dies("more descriptors", "setrlimit", unix.RLIMIT_NOFILE, Out(16)),
		dies("more descriptors", "prlimit64", 0, unix.RLIMIT_NOFILE, 0, Out(16)),
		dies("come first", "setpriority", 0, 0, -20),
		dies("come first", "sched_setscheduler", 0, unix.SCHED_FIFO, Out(4)),
		dies("leave its processors", "sched_setaffinity", 0, 8, Out(8)),
	})
	if f.status != Held {
		return f
	}
	seat, err := s.seat(ctx)
	if err != nil {
		return failedTry(err)
	}
	defer seat.Leave()
	if err := threadsSay(seat.PID, map[string]string{"Seccomp": "2", "NoNewPrivs": "1", "CapInh": noCaps, "CapPrm": noCaps, "CapEff": noCaps, "CapBnd": noCaps, "CapAmb": noCaps}); err != nil {
		return broken("%v", err)
	}
	return held("%s; every thread has no_new_privs, the filter, and five empty capability sets", f.detail)
}

const noCaps = "0000000000000000"

// statusOf reads the fields of a /proc/…/status file.
func statusOf(path string) map[string]string {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil // the thread ended
	}
	out := map[string]string{}
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), ":")
		out[k] = strings.TrimSpace(v)
	}
	return out
}

// threadsSay compares fields of every thread's status.
func threadsSay(pid int, want map[string]string) error {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*/status", pid))
	if err != nil || len(tasks) == 0 {
		return fmt.Errorf("process %d shows no threads", pid)
	}
	for _, t := range tasks {
		if s := statusOf(t); s != nil {
			for k, v := range want {
				if s[k] != v {
					return fmt.Errorf("%s: %s is %q, want %q", t, k, s[k], v)
				}
			}
		}
	}
	return nil
}

func touchMachine(ctx context.Context, s *scene) finding {
	return s.all(ctx, []attempt{
		dies("load a module", "init_module", 0, 0, In("")),
		dies("load a module", "finit_module", 5, In(""), 0),
		dies("unload a module", "delete_module", In("bulkhead-none"), 0),
		dies("another kernel", "kexec_load", 0, 0, 0, 0),
		dies("reboot", "reboot", 0, 0, 0, 0), // without its magic numbers the kernel refuses
		dies("set the clock", "settimeofday", 0, 0),
		dies("set the clock", "clock_settime", 9999, 0),
		dies("set the clock", "clock_adjtime", 9999, 0),
		dies("read the kernel log", "syslog", 3, Out(64), 64),
		dies("swap", "swapon", In("/bulkhead-none"), 0),
		dies("name the host", "sethostname", In("x"), 0),
		dies("account", "acct", In("/bulkhead-none")),
		dies("bpf", "bpf", 0, Out(64), 64),
		dies("performance counters", "perf_event_open", Out(128), 0, -1, -1, 0),
		dies("io_uring", "io_uring_setup", 8, Out(120)),
		dies("asynchronous I/O", "io_setup", 1, Out(8)),
		dies("segments", "modify_ldt", 0, Out(16), 16),
		dies("file system watches", "fanotify_init", 0, 0),
	})
}

func changeSeal(ctx context.Context, s *scene) finding {
	return s.all(ctx, []attempt{
		dies("outlive the launcher", "prctl", unix.PR_SET_PDEATHSIG, 0),
		dies("become dumpable", "prctl", unix.PR_SET_DUMPABLE, 1),
		dies("let others trace it", "prctl", 0x59616d61 /* PR_SET_PTRACER */, -1),
		dies("allow speculation", "prctl", unix.PR_SET_SPECULATION_CTRL, unix.PR_SPEC_STORE_BYPASS, unix.PR_SPEC_ENABLE),
		dies("merge its memory", "prctl", 67 /* PR_SET_MEMORY_MERGE */, 1),
		dies("share a core", "prctl", 62 /* PR_SCHED_CORE */, 2, 1, 0, 0),
		dies("take another name", "prctl", unix.PR_SET_NAME, In("init")),
		dies("another filter", "seccomp", 1, 0, 0),
		dies("another rule set", "landlock_create_ruleset", 0, 0, 1),
		dies("another stack of security modules", "lsm_set_self_attr", 100, 0, 0, 0),
		dies("its own keys of protection", "pkey_alloc", 0, 0),
		dies("another base of its segments", "arch_prctl", 0x1002, 0),
	})
}

func makeCode(ctx context.Context, s *scene) finding {
	if s.profile == seccomp.JITWasm {
		return notShown("not promised in jit+wasm: Wasm modules are made executable after the seal")
	}
	f := s.all(ctx, []attempt{
		{what: "an executable page", nr: unix.SYS_MMAP, args: []any{0, 4096, unix.PROT_READ | unix.PROT_EXEC, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, -1, 0}, want: seccomp.Dies},
		{what: "a page made executable", nr: unix.SYS_MPROTECT, args: []any{0, 4096, unix.PROT_EXEC}, want: seccomp.Dies},
		dies("a page made executable, with a key", "pkey_mprotect", 0, 4096, unix.PROT_EXEC, -1),
		dies("pages mapped anew", "remap_file_pages", 0, 4096, 0, 0, 0),
	})
	if f.status != Held {
		return f
	}
	seat, err := s.seat(ctx)
	if err != nil {
		return failedTry(err)
	}
	defer seat.Leave()
	if s.profile == seccomp.Jitless {
		maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", seat.PID))
		if err != nil {
			return notShown("this user may not look at the worker's mappings: %v", err)
		}
		for line := range strings.Lines(string(maps)) {
			if w := strings.Fields(line); len(w) > 1 && strings.Contains(w[1], "w") && strings.Contains(w[1], "x") {
				return broken("a page is writable and executable: %s", line)
			}
		}
	}
	a, err := seat.Step(ctx, "self")
	if err != nil {
		return failedTry(err)
	}
	if a, err = seat.Step(ctx, "poke %s 90", a.Text); err != nil {
		return failedTry(err)
	} else if a.End == nil {
		return broken("code of the program could be written over: %s", a.Text)
	}
	if s.profile == seccomp.JIT {
		return held("%s; code of the program cannot be written. V8's own code range, 128 MiB made before the seal, can: that is what profile jit is", f.detail)
	}
	return held("%s; no page is writable and executable; code of the program cannot be written", f.detail)
}

func leaveCore(ctx context.Context, s *scene) finding {
	seat, err := s.seat(ctx)
	if err != nil {
		return failedTry(err)
	}
	defer seat.Leave()
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", seat.PID))
	if err != nil {
		return notShown("this user may not look at the worker's limits: %v", err)
	}
	found := false
	for line := range strings.Lines(string(limits)) {
		if rest, ok := strings.CutPrefix(line, "Max core file size"); ok {
			found = true
			if w := strings.Fields(rest); len(w) < 2 || w[0] != "0" || w[1] != "0" {
				return broken("its limit of core files is %s", strings.TrimSpace(rest))
			}
		}
	}
	pattern, _ := os.ReadFile("/proc/sys/kernel/core_pattern")
	if !found {
		return notShown("the kernel shows no limit of core files")
	}
	// A pipe in core_pattern is not bound by the limit; a process that is not dumpable has no core at
	// all. The launcher asked PR_GET_DUMPABLE of the very process before it was handed over; nothing
	// in it can change the answer, for prctl(2) ends it.
	if f := s.all(ctx, []attempt{dies("become dumpable", "prctl", unix.PR_SET_DUMPABLE, 1)}); f.status != Held {
		return f
	}
	return held("limit 0; not dumpable (the launcher asked the kernel); core_pattern is %q", strings.TrimSpace(string(pattern)))
}
