package launcher

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"syscall"

	"bulkhead/policy/limits"

	"github.com/containerd/cgroups/v3/cgroup2"
	"golang.org/x/sys/unix"
)

// cgroup2Host is the unified hierarchy. A cgroup with controllers for its children may hold no
// process itself, so the launcher moves into a leaf of its own first.
type cgroup2Host struct {
	mount string
	own   string // the delegated cgroup
	base  *cgroup2.Manager
	leaf  *cgroup2.Manager
}

func newCgroup2(mount, text string) (*cgroup2Host, error) {
	own, ok := pathIn(text, "")
	if !ok || own == "/" {
		// In the root group the no-process rule does not hold, but there is nothing delegated
		// either: everything on the host lives beside us.
		if !ok || os.Getuid() != 0 {
			return nil, errors.New("this process is in no delegated cgroup")
		}
	}
	h := &cgroup2Host{mount: mount, own: own}
	sweep(filepath.Join(mount, own))
	var err error
	if h.base, err = cgroup2.Load(own, cgroup2.WithMountpoint(mount)); err != nil {
		return nil, fmt.Errorf("own cgroup: %w", err)
	}
	if own != "/" {
		if h.leaf, err = h.base.NewChild(ownPrefix(), nil); err != nil {
			return nil, fmt.Errorf("making %s: %w", ownPrefix(), err)
		}
		if err := h.leaf.AddProc(uint64(os.Getpid())); err != nil {
			return nil, errors.Join(fmt.Errorf("moving into %s: %w", ownPrefix(), err), h.leaf.Delete())
		}
	}
	want := []string{"memory", "pids", "cpu"}
	dir := filepath.Join(mount, own)
	// Not ToggleControllers: it writes to every ancestor, which a delegated service may not.
	for _, c := range want {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
			return nil, errors.Join(fmt.Errorf("the %s controller is not delegated: %w", c, err), h.close())
		}
	}
	return h, nil
}

func (h *cgroup2Host) make(name string, s limits.Shard) (group, error) {
	title := ownPrefix() + "." + name
	control, err := h.base.NewChild(title, nil)
	if err != nil {
		return nil, fmt.Errorf("making %s: %w", title, err)
	}
	g := &cgroup2Group{host: h, control: control, title: title}
	res := &cgroup2.Resources{}
	if s.PIDs > 0 {
		res.Pids = &cgroup2.Pids{Max: int64(s.PIDs)}
	}
	if s.Memory > 0 {
		limit, weight, swap := int64(s.Memory), uint64(s.CPUWeight), int64(0)
		// No swap: secrets stay in memory, and a limit is a limit.
		res.Memory = &cgroup2.Memory{Max: &limit, Swap: &swap}
		res.CPU = &cgroup2.CPU{Weight: &weight}
	}
	if err := control.Update(res); err != nil {
		return nil, errors.Join(fmt.Errorf("limits of %s: %w", title, err), g.remove())
	}
	return g, nil
}

// close moves back what close undoes only in part: the leaf stays until the process has ended
// (the service manager, or the next start's sweep, removes it).
func (h *cgroup2Host) close() error {
	if h.leaf == nil {
		return nil
	}
	for _, c := range []string{"memory", "pids", "cpu"} {
		_ = os.WriteFile(filepath.Join(h.mount, h.own, "cgroup.subtree_control"), []byte("-"+c), 0)
	}
	if err := h.base.AddProc(uint64(os.Getpid())); err != nil {
		return fmt.Errorf("moving back: %w", err)
	}
	return h.leaf.Delete()
}

type cgroup2Group struct {
	host    *cgroup2Host
	control *cgroup2.Manager
	title   string
}

func (g *cgroup2Group) name() string { return g.title }

func (g *cgroup2Group) dir() string { return filepath.Join(g.host.mount, g.host.own, g.title) }

// enter has clone3 create the child inside (CLONE_INTO_CGROUP).
func (g *cgroup2Group) enter(sys *syscall.SysProcAttr) (func() error, error) {
	fd, err := unix.Open(g.dir(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	sys.UseCgroupFD, sys.CgroupFD = true, fd
	return func() error { return unix.Close(fd) }, nil
}

func (g *cgroup2Group) holds(text string) error {
	return memberOf(text, "", path.Join(g.host.own, g.title))
}

func (g *cgroup2Group) held(s limits.Shard) error {
	var err error
	if s.PIDs > 0 {
		err = mustRead(filepath.Join(g.dir(), "pids.max"), strconv.Itoa(s.PIDs))
	}
	if s.Memory > 0 {
		err = errors.Join(err, mustRead(filepath.Join(g.dir(), "memory.max"), pages(s.Memory)),
			mustRead(filepath.Join(g.dir(), "cpu.weight"), strconv.Itoa(s.CPUWeight)))
		// Not there on a kernel that does not count swap.
		if swap := mustRead(filepath.Join(g.dir(), "memory.swap.max"), "0"); !errors.Is(swap, os.ErrNotExist) {
			err = errors.Join(err, swap)
		}
	}
	return err
}

func (g *cgroup2Group) outOfMemory() bool {
	return counter(filepath.Join(g.dir(), "memory.events"), "oom_kill") > 0
}

func (g *cgroup2Group) remove() error { return g.control.Delete() }
