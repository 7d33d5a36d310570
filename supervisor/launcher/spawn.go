package launcher

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"syscall"
	"time"

	"bulkhead/policy/limits"
	"bulkhead/policy/namespaces"
	"bulkhead/policy/seccomp"
	"bulkhead/sandboxworker/lockdown/setup"

	"golang.org/x/sys/unix"
)

// stepError names the step at which making a child failed.
type stepError struct {
	step string
	err  error
}

func (e *stepError) Error() string { return "step " + e.step + ": " + e.err.Error() }
func (e *stepError) Unwrap() error { return e.err }

func failed(step string, err error) error {
	var already *stepError
	if err == nil || errors.As(err, &already) {
		return err
	}
	return &stepError{step, err}
}

// birth collects what one child is made of, and what must be closed again in the launcher.
type birth struct {
	role    namespaces.Role
	profile seccomp.Profile
	shard   limits.Shard
	files   []int // by number in the child; -1 is a gap
	room    *room
	temp    []int // closed once the child has its copies
	hand    []int
	ready   int
	argv    []string
	env     []string
}

func (b *birth) put(number, fd int) {
	for len(b.files) <= number {
		b.files = append(b.files, -1)
	}
	b.files[number] = fd
}

// own is put for a descriptor that the launcher closes after the fork.
func (b *birth) own(number, fd int) {
	b.temp = append(b.temp, fd)
	b.put(number, fd)
}

func (b *birth) closeTemp() {
	for _, fd := range b.temp {
		unix.Close(fd)
	}
	b.temp = nil
	if b.room != nil {
		b.room.close()
		b.room = nil
	}
}

func (b *birth) abandon() {
	b.closeTemp()
	for _, fd := range b.hand {
		unix.Close(fd)
	}
	if b.ready >= 0 {
		unix.Close(b.ready)
	}
}

func newBirth(role namespaces.Role) (*birth, error) {
	b := &birth{role: role, ready: -1, argv: role.Argv(), env: role.Env()}
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/null: %w", err)
	}
	b.own(0, null)
	theirs, err := b.socketPair(unix.SOCK_STREAM, &b.ready)
	if err != nil {
		b.abandon()
		return nil, err
	}
	b.own(setup.FDReady, theirs)
	return b, nil
}

func (b *birth) socketPair(kind int, ours *int) (theirs int, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socketpair: %w", err)
	}
	*ours = p[0]
	return p[1], nil
}

// channel makes a stream whose near end goes to the gateway.
func (b *birth) channel(number int) error {
	var ours int
	theirs, err := b.socketPair(unix.SOCK_STREAM, &ours)
	if err != nil {
		return err
	}
	b.hand = append(b.hand, ours)
	b.own(number, theirs)
	return nil
}

// pipe makes a pipe whose read end goes to the gateway.
func (b *birth) pipe(numbers ...int) error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	b.hand = append(b.hand, p[0])
	b.own(numbers[0], p[1])
	for _, n := range numbers[1:] {
		b.put(n, p[1])
	}
	return nil
}

// memfd makes a memory file with content and seals it.
func memfd(name string, content []byte, size int64, seals int) (int, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL { // MFD_NOEXEC_SEAL came with Linux 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return -1, fmt.Errorf("memfd_create %s: %w", name, err)
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("memfd %s: ftruncate: %w", name, err)
	}
	if n, err := unix.Pwrite(fd, content, 0); err != nil || n != len(content) {
		unix.Close(fd)
		return -1, fmt.Errorf("memfd %s: wrote %d of %d bytes: %w", name, n, len(content), err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals|unix.F_SEAL_SEAL); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("memfd %s: seals: %w", name, err)
	}
	return fd, nil
}

const sealAll = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK

// spawnShard makes a worker; it is not verified yet when this returns.
func (l *launcher) spawnShard(p seccomp.Profile, memory uint64) (*child, error) {
	b, err := newBirth(namespaces.Worker)
	if err != nil {
		return nil, failed("descriptors", err)
	}
	b.profile, b.shard = p, l.opt.Shard
	b.shard.Memory = memory
	b.room = &room{}
	err = errors.Join(b.channel(setup.FDControl), b.channel(setup.FDData))
	if err == nil {
		var box int
		if box, err = memfd("blackbox", nil, setup.BlackBoxSize, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK); err == nil {
			b.hand = append(b.hand, box)
			b.put(setup.FDBlackBox, box)
			err = b.pipe(1, 2)
		}
	}
	if err != nil {
		b.abandon()
		return nil, failed("descriptors", err)
	}
	return l.bear(b)
}

// spawnBundler makes a bundler that sees one tenant's folder.
func (l *launcher) spawnBundler(root source, tenant string) (*child, error) {
	folder, err := openTenant(root, tenant)
	if err != nil {
		return nil, failed("tenant-folder", err)
	}
	defer folder.close()
	b, err := newBirth(namespaces.Bundler)
	if err != nil {
		return nil, failed("descriptors", err)
	}
	b.shard = limits.Shard{Memory: namespaces.BundlerMemory, PIDs: namespaces.BundlerPIDs, CPUWeight: limits.DefaultShard().CPUWeight}
	if err := errors.Join(b.pipe(setup.FDControl), b.pipe(1, 2)); err != nil {
		b.abandon()
		return nil, failed("descriptors", err)
	}
	return l.bear(b, folder)
}

// bear forks the child out of b. extra is the bundler's folder.
func (l *launcher) bear(b *birth, folder ...source) (c *child, err error) {
	c = &child{role: b.role, profile: b.profile, pid: -1, pidfd: -1, ready: b.ready, hand: b.hand, born: time.Now(), state: inConstructor}
	defer func() {
		b.closeTemp()
		if err != nil {
			c.closeAll()
			l.release(c)
			c = nil
		}
	}()
	if c.uid, err = l.pickUID(b.role); err != nil {
		return c, failed("uid", err)
	}
	l.nextChild++
	c.id = l.nextChild
	if err = l.furnish(b, c, folder); err != nil {
		return c, failed("root", err)
	}
	if err = l.instruct(b); err != nil {
		return c, failed("setup", err)
	}
	if err = l.enclose(b, c); err != nil {
		return c, failed("cgroup", err)
	}
	if c.want, err = l.expect(b, c); err != nil {
		return c, failed("verify", err)
	}
	if err = l.clone(b, c); err != nil {
		return c, failed("clone", l.explainClone(err))
	}
	l.children[c.id] = c
	if err := l.ownCore(c); err != nil {
		c.killFor("%v", err)
	}
	if l.stop {
		l.finish() // clone could not bring this thread home: nobody lives on beside that
	}
	return c, nil
}

func (l *launcher) pickUID(role namespaces.Role) (uint32, error) {
	switch {
	case !l.root:
		return uint32(l.uid), nil
	case role == namespaces.Gateway:
		return l.opt.UIDBase, nil
	}
	uid, ok := l.uids.take()
	if !ok {
		return 0, fmt.Errorf("all %d uids are in use", l.uids.size)
	}
	return uid, nil
}

// furnish decides on the mounts and gives the detached ones their numbers in the child.
func (l *launcher) furnish(b *birth, c *child, folder []source) (err error) {
	switch b.role {
	case namespaces.Gateway:
		b.room, err = l.gatewayRoom()
	case namespaces.Bundler:
		b.room = &room{}
		err = l.add(b.room, folder[0], namespaces.Mounts(b.role)[0].Target, false, c.uid)
	}
	if err != nil {
		return err
	}
	for i := range b.room.mounts {
		if m := &b.room.mounts[i]; m.FD >= 0 {
			fd := b.room.fds[m.FD]
			m.FD = int32(max(len(b.files), setup.FDListen))
			b.put(int(m.FD), fd)
		}
	}
	return nil
}

// instruct writes the setup struct.
func (l *launcher) instruct(b *birth) error {
	s := setup.Setup{
		Role: uint8(b.role), Profile: uint8(b.profile),
		Flags: setup.FlagCgroupNS, Keep: uint32(max(len(b.files), setup.FDListen)),
		Hostname: namespaces.Hostname, Comm: b.argv[0][:min(15, len(b.argv[0]))],
		Mounts: b.room.mounts, Program: l.filters[filterKey{uint8(b.role), b.profile}],
	}
	if len(s.Program) == 0 {
		return fmt.Errorf("no filter for %v %v", b.role, b.profile)
	}
	if b.role == namespaces.Worker && b.profile == seccomp.Jitless && l.kernel.mdwe {
		s.Flags |= setup.FlagMDWE
	}
	if l.opt.Mitigations {
		s.Flags |= setup.FlagSpeculate
	}
	if l.kernel.inspect {
		s.Flags |= setup.FlagInspect
	}
	if l.kernel.landlock > 0 {
		s.Flags |= setup.FlagLandlock
		s.Landlock = landlockMasks(l.kernel.landlock, b.role)
	}
	for _, r := range l.rlimits(b) {
		s.Rlimits = append(s.Rlimits, setup.Rlimit{Resource: uint32(r.Resource), Soft: r.Value, Hard: r.Value})
	}
	bytes, err := s.Encode()
	if err != nil {
		return err
	}
	fd, err := memfd("setup", bytes, setup.Size, sealAll)
	if err != nil {
		return err
	}
	b.own(setup.FDSetup, fd)
	return nil
}

// rlimits of a child, cut to the hard limits that the launcher itself runs under.
func (l *launcher) rlimits(b *birth) []namespaces.Rlimit {
	list := namespaces.Rlimits(b.role, b.shard)
	if !l.kernel.ownProcesses {
		list = slices.DeleteFunc(list, func(r namespaces.Rlimit) bool { return r.Resource == unix.RLIMIT_NPROC })
	}
	for i := range list {
		var now unix.Rlimit
		if unix.Getrlimit(list[i].Resource, &now) == nil && now.Max < list[i].Value {
			list[i].Value = now.Max
		}
	}
	return list
}

func (l *launcher) enclose(b *birth, c *child) (err error) {
	if l.cgroups == nil {
		return nil
	}
	// The gateway's memory is not limited: it is ours, and its death is everybody's.
	shard := b.shard
	if b.role == namespaces.Worker && leftOut("cgroup limits") {
		shard = limits.Shard{}
	}
	c.group, err = l.cgroups.make(fmt.Sprintf("%v-%d", b.role, c.id), shard)
	return err
}

// clone makes the process: all namespaces but the cgroup's, uid and gid map, cgroup, and
// execution by descriptor. The parent-death signal is set in the child before exec.
func (l *launcher) clone(b *birth, c *child) error {
	var flags uintptr
	for _, ns := range namespaces.Of(b.role) {
		if !ns.Late && !(b.role == namespaces.Worker && leftOut("namespace "+ns.Name)) {
			flags |= ns.Flag
		}
	}
	sys := &syscall.SysProcAttr{
		Cloneflags:                 flags,
		Pdeathsig:                  unix.SIGKILL,
		Setsid:                     true, // the terminal's signals are for the launcher
		PidFD:                      &c.pidfd,
		UidMappings:                []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(c.uid), Size: 1}},
		GidMappings:                []syscall.SysProcIDMap{{ContainerID: 0, HostID: l.gidFor(c.uid), Size: 1}},
		GidMappingsEnableSetgroups: l.root,
		// Uid 0 inside before exec, or exec would take the capabilities that the child needs to
		// build its root; as root this also drops the supplementary groups.
		Credential: &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: !l.root},
	}
	if b.role == namespaces.Worker && leftOut("parent-death") {
		sys.Pdeathsig = 0
	}
	if flags&unix.CLONE_NEWUSER == 0 { // a sabotaged launcher's worker
		sys.UidMappings, sys.GidMappings, sys.GidMappingsEnableSetgroups = nil, nil, false
	}
	files := make([]uintptr, len(b.files))
	for i, fd := range b.files {
		files[i] = uintptr(fd)
	}
	if c.group != nil && !(b.role == namespaces.Worker && leftOut("cgroup enter")) {
		leave, err := c.group.enter(sys)
		if err != nil {
			return fmt.Errorf("cgroup %s: %w", c.group.name(), err)
		}
		defer func() {
			if err := leave(); err != nil {
				// A thread that stays in a shard's cgroup would put the next child there too.
				l.failure = fmt.Errorf("leaving the cgroup of child %d: %w", c.id, err)
				l.stop = true
			}
		}()
	}
	binary := fmt.Sprintf("/proc/self/fd/%d", l.binaries[b.role.String()])
	pid, _, err := syscall.StartProcess(binary, b.argv, &syscall.ProcAttr{Env: b.env, Files: files, Sys: sys})
	runtime.KeepAlive(b)
	if err != nil {
		return err
	}
	c.pid = pid
	return nil
}

// gidFor: as root uid and gid of a child are the same number; rootless there is one of each.
func (l *launcher) gidFor(uid uint32) int {
	if l.root {
		return int(uid)
	}
	return l.gid
}

// mapNamespace returns a user namespace in which the owner of a folder is the child's uid, for
// an idmapped mount. A namespace needs a process to be born with; this one is stopped at its
// exec and never runs an instruction of its program.
func (l *launcher) mapNamespace(owner, group, uid uint32) (int, error) {
	pidfd := -1
	pid, _, err := syscall.StartProcess(fmt.Sprintf("/proc/self/fd/%d", l.binaries[namespaces.Worker.String()]), []string{"bulkhead-idmap"}, &syscall.ProcAttr{
		Sys: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			Ptrace:      true,
			Pdeathsig:   unix.SIGKILL,
			PidFD:       &pidfd,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: int(owner), HostID: int(uid), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: int(group), HostID: int(uid), Size: 1}},
		},
	})
	if err != nil {
		return -1, err
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/user", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	for {
		var ws unix.WaitStatus
		if _, werr := unix.Wait4(pid, &ws, 0, nil); werr == nil && (ws.Exited() || ws.Signaled()) || werr != nil && werr != unix.EINTR {
			break
		}
	}
	unix.Close(pidfd)
	return fd, err
}

// release gives back what a child held outside its process.
func (l *launcher) release(c *child) {
	if l.root && c.role != namespaces.Gateway && c.uid != 0 {
		l.uids.give(c.uid)
	}
	if c.group != nil {
		if err := c.group.remove(); err != nil {
			l.logf("removing cgroup %s: %v", c.group.name(), err)
		}
		c.group = nil
	}
	for _, used := range l.byProof {
		for ino, pid := range used {
			if pid == c.pid {
				delete(used, ino)
			}
		}
	}
}
