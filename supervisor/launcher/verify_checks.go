package launcher

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"bulkhead/policy/namespaces"

	"golang.org/x/sys/unix"
)

// look is one check on one thread or on the process.
type look struct {
	l    *launcher
	c    *child
	dir  string // /proc/PID or /proc/PID/task/TID
	text proc   // what it says
}

// proc is where a look reads from: texts and links by their names within the directory.
type proc interface {
	read(name string) (string, error)
	link(name string) (string, error)
}

// procDir is the directory itself. A fuzzer has another proc, whose texts it makes up.
type procDir string

func (d procDir) read(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(string(d), name))
	return string(b), err
}

func (d procDir) link(name string) (string, error) {
	return os.Readlink(filepath.Join(string(d), name))
}

// threadDir is a thread's directory during one pass. Five checks, in twelve places, read its status, which the
// kernel takes some 25 µs to write: they see the same one.
type threadDir struct {
	dir    procDir
	status string
}

func (d *threadDir) read(name string) (string, error) {
	if name == "status" && d.status != "" {
		return d.status, nil
	}
	text, err := d.dir.read(name)
	if name == "status" && err == nil {
		d.status = text
	}
	return text, err
}

func (d *threadDir) link(name string) (string, error) { return d.dir.link(name) }

func newLook(l *launcher, c *child, dir string) *look {
	return &look{l: l, c: c, dir: dir, text: procDir(dir)}
}

// ending reports whether a thread ends or has ended (proc_pid_stat(5), flags): it has then given up its
// descriptors, its root and its namespaces one by one, and looks like anything.
func ending(dir string) bool {
	text, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return true
	}
	return exiting(string(text))
}

// exiting reads the flags in the text of a stat; the name before them may hold anything.
func exiting(stat string) bool {
	const flag = 0x4 // PF_EXITING, include/linux/sched.h
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(f) < 7 {
		return false
	}
	flags, err := strconv.ParseUint(f[6], 10, 64)
	return err == nil && flags&flag != 0
}

// field returns a line of /proc/PID/status without its name.
func (k *look) field(name string) (string, error) {
	status, err := k.text.read("status")
	if err != nil {
		return "", err
	}
	return statusField(status, name)
}

func statusField(status, name string) (string, error) {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(rest), nil
		}
	}
	return "", fmt.Errorf("no line %s in /proc/PID/status", name)
}

func (k *look) mustBe(name, want string) error {
	got, err := k.field(name)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%s is %q, want %q", name, got, want)
	}
	return nil
}

func (k *look) seccomp() error {
	if err := k.mustBe("Seccomp", "2"); err != nil {
		return err
	}
	return k.mustBe("Seccomp_filters", strconv.Itoa(k.c.want.filters))
}

func (k *look) noNewPrivs() error { return k.mustBe("NoNewPrivs", "1") }

func (k *look) capabilities() error {
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		if err := k.mustBe(set, "0000000000000000"); err != nil {
			return err
		}
	}
	return nil
}

func (k *look) ids() error {
	four := func(id int64) string {
		s := strconv.FormatInt(id, 10)
		return strings.Join([]string{s, s, s, s}, "\t")
	}
	if err := k.mustBe("Uid", four(int64(k.c.want.uid))); err != nil {
		return err
	}
	if err := k.mustBe("Gid", four(int64(k.c.want.gid))); err != nil {
		return err
	}
	if !k.c.want.groups {
		return nil // rootless cannot drop the invoker's groups (user_namespaces(7), setgroups)
	}
	return k.mustBe("Groups", "")
}

func (k *look) speculation() error {
	if !k.c.want.spec {
		return nil
	}
	got, err := k.field("Speculation_Store_Bypass")
	if err != nil {
		return err
	}
	if got == "thread vulnerable" || got == "thread mitigated" {
		return fmt.Errorf("Speculation_Store_Bypass is %q, want it forced", got)
	}
	return nil
}

func (k *look) namespaces() error {
	inside := map[string]bool{}
	for _, ns := range namespaces.Of(k.c.role) {
		inside[ns.Proc] = true
		ino, err := inode(filepath.Join(k.dir, "ns", ns.Proc))
		if err != nil {
			return err
		}
		if pid, taken := k.l.byProof[ns.Proc][ino]; taken && pid != k.c.pid {
			return fmt.Errorf("%s namespace %d is that of process %d", ns.Name, ino, pid)
		}
		k.l.byProof[ns.Proc][ino] = k.c.pid
		if ns.Proc == "pid" {
			forked, err := inode(filepath.Join(k.dir, "ns", "pid_for_children"))
			if err != nil {
				return err
			}
			if forked != ino {
				return fmt.Errorf("children would be born in pid namespace %d, not %d", forked, ino)
			}
		}
	}
	for kind, host := range k.l.hostNS {
		if inside[kind] {
			continue
		}
		ino, err := inode(filepath.Join(k.dir, "ns", kind))
		if err != nil {
			return err
		}
		if ino != host {
			return fmt.Errorf("%s namespace %d is not the host's", kind, ino)
		}
	}
	return nil
}

func inode(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return st.Ino, nil
}

func (k *look) rootDir() error {
	root, cwd := filepath.Join(k.dir, "root"), filepath.Join(k.dir, "cwd")
	var r, w unix.Stat_t
	if err := errors.Join(unix.Stat(root, &r), unix.Stat(cwd, &w)); err != nil {
		return err
	}
	if r.Dev != w.Dev || r.Ino != w.Ino {
		return fmt.Errorf("the working directory is not the root")
	}
	want := map[string]bool{}
	for _, m := range k.c.want.mounts {
		top, _, _ := strings.Cut(strings.TrimPrefix(strings.Fields(m)[0], "/"), "/")
		want[top] = true
	}
	entries, err := os.ReadDir(root + "/")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !want[e.Name()] {
			return fmt.Errorf("the root holds %q", e.Name())
		}
	}
	return nil
}

func (k *look) mounts() error {
	text, err := k.text.read("mountinfo")
	if err != nil {
		return err
	}
	var seen []string
	roots := 0
	for line := range strings.Lines(text) {
		// ID PARENT MAJOR:MINOR ROOT POINT OPTIONS TAGS... - TYPE SOURCE SUPEROPTIONS, proc(5)
		left, right, ok := strings.Cut(strings.TrimSpace(line), " - ")
		f, super := strings.Fields(left), strings.Fields(right)
		if !ok || len(f) < 6 || len(super) < 3 {
			return fmt.Errorf("mountinfo line %q", line)
		}
		options := strings.Split(f[5], ",")
		for _, must := range []string{"nosuid", "nodev", "noexec"} {
			if !slices.Contains(options, must) {
				return fmt.Errorf("mount at %s is not %s", f[4], must)
			}
		}
		if f[4] == "/" {
			roots++
			if super[0] != "tmpfs" || !slices.Contains(options, "ro") || !slices.Contains(strings.Split(super[2], ","), "ro") {
				return fmt.Errorf("the root mount is %q", strings.TrimSpace(line))
			}
			continue
		}
		mode := " rw"
		if slices.Contains(options, "ro") {
			mode = " ro"
		}
		seen = append(seen, f[4]+mode)
	}
	slices.Sort(seen)
	if roots != 1 || !slices.Equal(seen, k.c.want.mounts) {
		return fmt.Errorf("%d root mounts and %q, want 1 and %q", roots, seen, k.c.want.mounts)
	}
	return nil
}

func (k *look) limits() error {
	text, err := k.text.read("limits")
	if err != nil {
		return err
	}
	listed := map[string]bool{}
	for line := range strings.Lines(text) {
		for name, value := range k.c.want.limits {
			rest, ok := strings.CutPrefix(line, name+" ")
			if !ok {
				continue
			}
			f := strings.Fields(rest)
			want := strconv.FormatUint(value, 10)
			if value == unix.RLIM_INFINITY {
				want = "unlimited"
			}
			if len(f) < 2 || f[0] != want || f[1] != want {
				return fmt.Errorf("%s is %q, want %s", name, strings.Join(f, " "), want)
			}
			listed[name] = true
		}
	}
	for name := range k.c.want.limits {
		if !listed[name] {
			return fmt.Errorf("%s is not listed", name)
		}
	}
	return nil
}

func (k *look) cgroup() error {
	if k.c.group == nil {
		return nil
	}
	text, err := k.text.read("cgroup")
	if err != nil {
		return err
	}
	return k.c.group.holds(text)
}

// cgroupLimits reads back what was written when the group was made: a file that took a value and means
// another would show nowhere else.
func (k *look) cgroupLimits() error {
	if k.c.group == nil {
		return nil
	}
	return k.c.group.held(k.c.want.shard)
}

func (k *look) arguments() error {
	argv, err := k.text.read("cmdline")
	if err != nil {
		return err
	}
	env, err := k.text.read("environ")
	if err != nil {
		return err
	}
	if argv != k.c.want.argv || env != k.c.want.env {
		return fmt.Errorf("argv %q and environment %q, want %q and %q", argv, env, k.c.want.argv, k.c.want.env)
	}
	return nil
}

func (k *look) mappings() error {
	if !k.c.want.noWX {
		return nil
	}
	maps, err := k.text.read("maps")
	if err != nil {
		return err
	}
	for line := range strings.Lines(maps) {
		f := strings.Fields(line)
		if len(f) > 1 && len(f[1]) == 4 && f[1][1] == 'w' && f[1][2] == 'x' {
			return fmt.Errorf("a page is writable and executable: %s", strings.TrimSpace(line))
		}
	}
	return nil
}
