package launcher

import (
	"fmt"
	"slices"
	"strings"

	"bulkhead/policy/limits"
	"bulkhead/policy/namespaces"
	"bulkhead/policy/seccomp"
	"bulkhead/sandboxworker/lockdown/setup"

	"golang.org/x/sys/unix"
)

// identity is what makes two descriptors the same object: its inode, and how it was opened.
type identity struct {
	dev, ino, rdev uint64
	kind           uint32 // S_IFMT
	access         int    // O_ACCMODE
}

func (i identity) String() string {
	return fmt.Sprintf("inode %d on device %#x, type %#o, access %d", i.ino, i.dev, i.kind, i.access)
}

// expectation is what /proc must show of a sealed child. It is written down before the child
// exists, from the launcher's own objects; nothing in it comes from the child.
type expectation struct {
	files   map[int]identity
	uid     uint32
	gid     int
	argv    string // as in /proc/PID/cmdline
	env     string
	cgroup  string // as in /proc/PID/cgroup, "" if not checked
	mounts  []string
	limits  map[string]uint64
	shard   limits.Shard // limits of its cgroup
	filters int          // seccomp filters on each thread
	mdwe    bool
	noWX    bool // no mapping may be writable and executable
	groups  bool // supplementary groups must be gone
	spec    bool
}

func (l *launcher) expect(b *birth, c *child) (expectation, error) {
	e := expectation{
		files: map[int]identity{}, limits: map[string]uint64{}, uid: c.uid, gid: l.gidFor(c.uid),
		argv: strings.Join(b.argv, "\x00") + "\x00", env: strings.Join(b.env, "\x00") + "\x00",
		filters: l.kernel.ownFilters + 1, groups: l.root, spec: l.opt.Mitigations,
		shard: b.shard, noWX: b.role != namespaces.Worker || b.profile == seccomp.Jitless,
	}
	e.mdwe = l.kernel.mdwe && b.role == namespaces.Worker && b.profile == seccomp.Jitless
	mountFD := map[int]bool{}
	for _, m := range b.room.mounts {
		e.mounts = append(e.mounts, mountLine(m))
		mountFD[int(m.FD)] = true
	}
	slices.Sort(e.mounts)
	for number, fd := range b.files {
		if fd < 0 || mountFD[number] || number == setup.FDSetup {
			continue
		}
		id, err := identify(fd)
		if err != nil {
			return e, fmt.Errorf("descriptor %d: %w", number, err)
		}
		e.files[number] = id
	}
	for _, r := range l.rlimits(b) {
		e.limits[r.Name] = r.Value
	}
	if c.group != nil {
		e.cgroup = c.group.name()
	}
	return e, nil
}

// mountLine is what matters of a line in mountinfo: where it is and whether it can be written.
func mountLine(m setup.Mount) string {
	if m.Writable {
		return m.Target + " rw"
	}
	return m.Target + " ro"
}

func identify(fd int) (identity, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return identity{}, fmt.Errorf("fstat: %w", err)
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return identity{}, fmt.Errorf("fcntl: %w", err)
	}
	return identity{dev: st.Dev, ino: st.Ino, rdev: st.Rdev, kind: st.Mode & unix.S_IFMT, access: flags & unix.O_ACCMODE}, nil
}
