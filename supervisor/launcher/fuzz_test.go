package launcher

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// FuzzProc: the texts of /proc that a process can put words into (its name, its mappings, its mounts,
// its descriptors) are judged without a panic, and no text that lacks what a sealed child's must say
// passes.
func FuzzProc(f *testing.F) {
	const sealed = "Name:\tx\nUid:\t7\t7\t7\t7\nGid:\t7\t7\t7\t7\nGroups:\t\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n" +
		"CapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n"
	f.Add(sealed)
	f.Add("Name:\tSeccomp:\\n2\nSeccomp:\t0\nSeccomp_filters:\t0\n")
	f.Add("22 21 0:5 / / ro,nosuid,nodev,noexec - tmpfs none ro\n")
	f.Add("22 21 0:5 / / ro,nosuid,nodev,noexec - tmpfs none ro\n23 22 0:6 / /x\\040y rw - tmpfs none rw\n")
	f.Add("Limit                     Soft Limit           Hard Limit           Units     \nMax open files            64                   64                   files     \n")
	f.Add("7f0000000000-7f0000001000 rwxp 00000000 00:00 0\n")
	f.Add("pos:\t0\nflags:\t02\nmnt_id:\t1\ntfd:        3 events:       19 data: 0  pos:0 ino:3f9 sdev:8\n")
	f.Add("12:pids:/a/b\n0::/\n:::\n")
	f.Add("1 (a) R) R 0 0\n")
	dir := f.TempDir()
	c := &child{want: expectation{uid: 7, gid: 7, groups: true, filters: 1, noWX: true, limits: map[string]uint64{"Max open files": 64}, argv: "a\x00", env: ""}}
	k := &look{l: &launcher{}, c: c, dir: dir}
	for _, name := range []string{"fd", "fdinfo"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			f.Fatal(err)
		}
	}
	if err := os.Symlink("anon_inode:[eventpoll]", filepath.Join(dir, "fd", "5")); err != nil {
		f.Fatal(err)
	}
	names := []string{"status", "mountinfo", "limits", "maps", "cmdline", "environ", "fdinfo/5"}
	for _, name := range names[1:] { // one file under all names
		if err := os.Symlink(filepath.Join(dir, "status"), filepath.Join(dir, name)); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(filepath.Join(dir, "status"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		must := func(what string, err error, words ...string) {
			for _, w := range words {
				if err == nil && !strings.Contains(text, w) {
					t.Errorf("%s passed without %q", what, w)
				}
			}
		}
		must("seccomp", k.seccomp(), "Seccomp:", "Seccomp_filters:")
		must("no new privileges", k.noNewPrivs(), "NoNewPrivs:")
		must("capabilities", k.capabilities(), "CapEff:", "CapBnd:", "CapPrm:")
		must("ids", k.ids(), "Uid:", "Gid:", "Groups:")
		must("mounts", k.mounts(), "nosuid", "nodev", "noexec", " - tmpfs ")
		must("limits", k.limits(), "Max open files", "64")
		must("arguments", k.arguments())
		if err := k.mappings(); err == nil {
			for line := range strings.Lines(text) {
				if w := strings.Fields(line); len(w) > 1 && w[1] == "rwxp" {
					t.Error("a writable and executable page passed")
				}
			}
		}
		if err := k.extra(5, map[string]int{}); err == nil {
			for line := range strings.Lines(text) {
				if w := strings.Fields(line); len(w) > 2 && w[0] == "tfd:" && strings.HasPrefix(w[2], "ino:") {
					t.Error("a watch of what is not there passed")
				}
			}
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
