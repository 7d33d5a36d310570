package seccomp

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tables lists every table of the package by name.
func tables() map[string][]Rule {
	all := map[string][]Rule{"gateway": Gateway(), "bundler": Bundler()}
	for _, p := range Profiles() {
		all["worker "+p.String()] = Worker(p)
	}
	return all
}

func TestEveryRowIsWellFormedAndHasAReason(t *testing.T) {
	for name, rules := range tables() {
		for _, r := range rules {
			switch {
			case r.Why == "":
				t.Errorf("%s: row %q has no reason", name, r)
			case r.Action != Allow && r.Action != Refuse:
				t.Errorf("%s: row %q has action %d", name, r, r.Action)
			case (r.Action == Refuse) != (r.Errno != 0):
				t.Errorf("%s: row %q answers errno %d", name, r, r.Errno)
			}
			for _, a := range r.Args {
				if a.Index > 5 || (a.Op != Equal && a.Op != Masked) || (a.Op == Masked && a.Value&^a.Mask != 0) {
					t.Errorf("%s: row %q compares nonsense", name, r)
				}
			}
		}
	}
}

// A call that one row allows whatever its arguments makes every other row for it void.
func TestNoRowIsVoid(t *testing.T) {
	for name, rules := range tables() {
		for i, r := range rules {
			for j, other := range rules {
				if i != j && r.Call == other.Call && r.Action == Allow && len(r.Args) == 0 {
					t.Errorf("%s: row %q makes row %q void", name, r, other)
				}
				if i < j && r.String() == other.String() {
					t.Errorf("%s: row %q stands twice", name, r)
				}
			}
		}
	}
}

func TestWorkersMakeAtMost32Calls(t *testing.T) {
	for _, p := range Profiles() {
		allowed, filtered := Calls(Worker(p))
		t.Logf("%v: %d calls allowed, %d of them only with listed arguments", p, allowed, filtered)
		if allowed > 32 {
			t.Errorf("%v: %d calls, at most 32", p, allowed)
		}
	}
}

// What no worker may ever get: each would give a way out, or in, that the design denies.
func TestWorkersNeverGet(t *testing.T) {
	never := []string{"recvmsg", "sendmsg", "recvfrom", "sendto", "prctl", "pread64", "pwrite64", "open", "openat", "openat2", "socket", "connect",
		"accept4", "execve", "execveat", "fork", "vfork", "clone3", "ptrace", "process_vm_readv", "kill", "tkill", "rt_sigqueueinfo",
		"memfd_create", "userfaultfd", "io_uring_setup", "bpf", "perf_event_open", "keyctl", "mount", "unshare", "setns", "seccomp",
		"landlock_create_ruleset", "pidfd_getfd", "getsockopt", "setsockopt", "dup", "dup3", "ioctl", "setrlimit", "prlimit64", "splice", "vmsplice"}
	for _, p := range Profiles() {
		for _, r := range Worker(p) {
			if r.Action == Allow && slices.Contains(never, r.Call) {
				t.Errorf("%v: row %q", p, r)
			}
		}
	}
}

func TestOnlyWasmGetsExecutablePages(t *testing.T) {
	deny := masked(2, unix.PROT_EXEC, 0)
	for name, rules := range tables() {
		for _, r := range rules {
			if r.Action != Allow || (r.Call != "mmap" && r.Call != "mprotect") {
				continue
			}
			if denied := slices.Contains(r.Args, deny); denied == (name == "worker jit+wasm") {
				t.Errorf("%s: row %q", name, r)
			}
		}
	}
}

func TestNobodyExecutesTracesOrMounts(t *testing.T) {
	for name, rules := range tables() {
		for _, r := range rules {
			for _, prefix := range []string{"exec", "ptrace", "mount", "umount", "pivot_root", "open_tree", "move_mount", "fsopen", "unshare", "setns",
				"setuid", "setgid", "setres", "capset", "process_vm", "bpf", "io_uring", "kexec", "init_module", "finit_module", "listen"} {
				if r.Action == Allow && strings.HasPrefix(r.Call, prefix) {
					t.Errorf("%s: row %q", name, r)
				}
			}
		}
	}
}

func TestProfileNames(t *testing.T) {
	for _, p := range Profiles() {
		if got, err := ParseProfile(p.String()); got != p || err != nil {
			t.Errorf("ParseProfile(%q) = %v, %v", p.String(), got, err)
		}
	}
	if p, err := ParseProfile("none"); err == nil {
		t.Errorf("ParseProfile(none) = %v", p)
	}
	if Profile(0).Valid() || Profile(4).Valid() {
		t.Error("profiles 0 and 4 are valid")
	}
}
