package launcher

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// made is a /proc/PID that says one text, whatever it is asked, and whose descriptors are all links of
// the same kind.
type made struct{ text, target string }

func (m made) read(string) (string, error) { return m.text, nil }
func (m made) link(string) (string, error) { return m.target, nil }

// The texts of a child that is sealed as it must be, one for each file. Real ones of this very kernel
// join them in FuzzProc.
const (
	sealedStatus = "Name:\tx\nUid:\t7\t7\t7\t7\nGid:\t7\t7\t7\t7\nGroups:\t\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n" +
		"CapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\nSpeculation_Store_Bypass:\tthread force mitigated\n"
	sealedMounts = "22 21 0:5 / / ro,nosuid,nodev,noexec - tmpfs none ro\n23 22 0:6 / /x rw,nosuid,nodev,noexec - tmpfs none rw\n"
	sealedLimits = "Limit                     Soft Limit           Hard Limit           Units     \nMax open files            64                   64                   files     \n" +
		"Max core file size        unlimited            unlimited            bytes     \n"
	sealedEpoll = "pos:\t0\nflags:\t02\nmnt_id:\t1\ntfd:        3 events:       19 data: 0  pos:0 ino:3f9 sdev:8\n"
)

// fuzzedChild is what FuzzProc's texts are held against.
func fuzzedChild() *child {
	return &child{want: expectation{uid: 7, gid: 7, groups: true, filters: 1, noWX: true, spec: true, argv: "a\x00", env: "a\x00", mounts: []string{"/x rw"},
		limits: map[string]uint64{"Max open files": 64, "Max core file size": unix.RLIM_INFINITY},
		files:  map[int]identity{3: {ino: 0x3f9}}}}
}

// The texts that FuzzProc begins from pass, each by the check that it is for: what it mutates is near
// the truth.
func TestSealedTexts(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		run  []func(*look) error
	}{
		"status": {sealedStatus, []func(*look) error{(*look).seccomp, (*look).noNewPrivs, (*look).capabilities, (*look).ids, (*look).speculation}},
		"mounts": {sealedMounts, []func(*look) error{(*look).mounts}},
		"limits": {sealedLimits, []func(*look) error{(*look).limits}},
		"maps":   {"7f0000000000-7f0000001000 r-xp 00000000 00:00 0\n", []func(*look) error{(*look).mappings}},
		"argv":   {"a\x00", []func(*look) error{(*look).arguments}},
		"epoll":  {sealedEpoll, []func(*look) error{func(k *look) error { return k.extra(5, map[string]int{}) }}},
	} {
		for i, run := range c.run {
			if err := run(&look{c: fuzzedChild(), text: made{c.text, "anon_inode:[eventpoll]"}}); err != nil {
				t.Errorf("%s, check %d: %v", name, i, err)
			}
		}
	}
}

// FuzzProc: the texts of /proc that a process can put words into (its name, its mappings, its mounts,
// its descriptors) are judged without a panic, and no text that lacks what a sealed child's must say
// passes.
func FuzzProc(f *testing.F) {
	for _, text := range []string{sealedStatus, sealedMounts, sealedLimits, sealedEpoll, "a\x00"} {
		f.Add(text)
	}
	for _, name := range []string{"status", "mountinfo", "limits", "cgroup", "stat", "cmdline", "fdinfo/1"} {
		text, err := os.ReadFile("/proc/self/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add("Name:\tSeccomp:\\n2\nSeccomp:\t0\nSeccomp_filters:\t0\n")
	f.Add("22 21 0:5 / / ro,nosuid,nodev,noexec - tmpfs none ro\n")
	f.Add("22 21 0:5 / / ro,nosuid,nodev,noexec - tmpfs none ro\n23 22 0:6 / /x\\040y rw - tmpfs none rw\n")
	f.Add("7f0000000000-7f0000001000 rwxp 00000000 00:00 0\n")
	f.Add(strings.Repeat("Max open files            64                   64                   files\n", 2))
	f.Add("12:pids:/a/b\n0::/\n:::\n")
	f.Add("1 (a) R) R 0 0\n")
	f.Add("1 (a) R 0 0 0 0 0 4 0\n")
	f.Fuzz(func(t *testing.T, text string) {
		k := &look{l: &launcher{}, c: fuzzedChild(), text: made{text, "anon_inode:[eventpoll]"}}
		must := func(what string, err error, words ...string) {
			for _, w := range words {
				if err == nil && !strings.Contains(text, w) {
					t.Errorf("%s passed without %q", what, w)
				}
			}
		}
		must("seccomp", k.seccomp(), "Seccomp:", "Seccomp_filters:")
		must("no new privileges", k.noNewPrivs(), "NoNewPrivs:")
		must("capabilities", k.capabilities(), "CapEff:", "CapBnd:", "CapPrm:", "CapInh:", "CapAmb:")
		must("ids", k.ids(), "Uid:", "Gid:", "Groups:")
		must("speculation", k.speculation(), "Speculation_Store_Bypass:")
		must("mounts", k.mounts(), "nosuid", "nodev", "noexec", " - tmpfs ", "/x")
		must("limits", k.limits(), "Max open files", "64", "Max core file size", "unlimited")
		if err := k.arguments(); err == nil && text != "a\x00" {
			t.Error("other arguments passed")
		}
		if err := k.mappings(); err == nil {
			for line := range strings.Lines(text) {
				if w := strings.Fields(line); len(w) > 1 && w[1] == "rwxp" {
					t.Error("a writable and executable page passed")
				}
			}
		}
		if err := k.extra(5, map[string]int{}); err == nil {
			for line := range strings.Lines(text) {
				w := strings.Fields(line)
				if i := slices.IndexFunc(w, func(s string) bool { return strings.HasPrefix(s, "ino:") }); i >= 0 && w[0] == "tfd:" {
					if ino, err := strconv.ParseUint(w[i][len("ino:"):], 16, 64); err != nil || ino != 0x3f9 {
						t.Error("a watch of what is not there passed")
					}
				}
			}
		}
		if access, err := k.access(5); err == nil && (access&^unix.O_ACCMODE != 0 || !strings.Contains(text, "flags:")) {
			t.Errorf("opened with %#x", access)
		}
		if exiting(text) && len(strings.Fields(text)) < 7 {
			t.Error("ending, by no flag")
		}
		if err := memberOf(text, "pids", "/a/b"); err == nil && !strings.Contains(text, ":pids:/a/b") {
			t.Error("a member of nothing")
		}
		pathIn(text, "")
		if name, err := statusField(text, "Seccomp"); err == nil && strings.Contains(name, "\n") {
			t.Errorf("field %q", name)
		}
		_ = tenantName(text)
	})
}

// FuzzKernelLog: only a record of the kernel's own audit names a system call; what a process can put
// into it is quoted there (audit_log_untrustedstring).
func FuzzKernelLog(f *testing.F) {
	f.Add("4,1034,5091,-;audit: type=1326 audit(1.2:3): auid=0 uid=7 gid=7 ses=1 pid=12 comm=\"x\" exe=\"/w\" sig=31 arch=c000003e syscall=41 compat=0 ip=0x1 code=0x80000000")
	f.Add("4,1,1,-;audit: type=1326 pid=12 comm=706964 syscall=-1")
	f.Add("6,1,1,-;type=1326 pid=99999999999 syscall=1")
	f.Fuzz(func(t *testing.T, record string) {
		pid, nr, ok := seccompRecord(record)
		if ok && (pid < 0 || nr < 0 || !strings.Contains(record, "pid="+strconv.Itoa(pid)) && !strings.Contains(record, "pid=+") && !strings.Contains(record, "pid=0") && !strings.Contains(record, "pid=-0")) {
			t.Errorf("pid %d, system call %d of %q", pid, nr, record)
		}
	})
}
