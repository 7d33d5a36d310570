package launcher

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"bulkhead/policy/limits"

	"github.com/containerd/cgroups/v3/cgroup1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// v1Controllers are the hierarchies in use. Each is a tree of its own on version 1.
func v1Controllers() []cgroup1.Name {
	return []cgroup1.Name{cgroup1.Memory, cgroup1.Pids, cgroup1.Cpu}
}

// cgroup1Host is version 1 (and the hybrid layout, whose controllers are version 1).
type cgroup1Host struct {
	own  map[cgroup1.Name]string // the launcher's own cgroup in each hierarchy
	home cgroup1.Cgroup          // the same, as a control
	base cgroup1.Cgroup          // where the children go
}

func newCgroup1(text string) (*cgroup1Host, error) {
	h := &cgroup1Host{own: map[cgroup1.Name]string{}}
	for _, name := range v1Controllers() {
		p, ok := pathIn(text, string(name))
		if !ok {
			return nil, fmt.Errorf("the %s controller is not mounted", name)
		}
		h.own[name] = p
		sweep(filepath.Join("/sys/fs/cgroup", string(name), p))
	}
	var err error
	if h.home, err = cgroup1.Load(h.at(""), cgroup1.WithHierarchy(v1Hierarchy)); err != nil {
		return nil, fmt.Errorf("own cgroup: %w", err)
	}
	if h.base, err = cgroup1.New(h.at(ownPrefix()), &specs.LinuxResources{}, cgroup1.WithHierarchy(v1Hierarchy)); err != nil {
		return nil, fmt.Errorf("making %s: %w", ownPrefix(), err)
	}
	return h, nil
}

func v1Hierarchy() ([]cgroup1.Subsystem, error) {
	all, err := cgroup1.Default()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(s cgroup1.Subsystem) bool { return !slices.Contains(v1Controllers(), s.Name()) }), nil
}

func (h *cgroup1Host) at(suffix string) cgroup1.Path {
	return func(name cgroup1.Name) (string, error) {
		own, ok := h.own[name]
		if !ok {
			return "", cgroup1.ErrControllerNotActive
		}
		return path.Join(own, suffix), nil
	}
}

func (h *cgroup1Host) make(name string, s limits.Shard) (group, error) {
	res := &specs.LinuxResources{}
	if s.PIDs > 0 {
		pids := int64(s.PIDs)
		res.Pids = &specs.LinuxPids{Limit: &pids}
	}
	if s.Memory > 0 {
		// Swap is not limited separately: accounting for it is a boot option on version 1.
		limit, shares := int64(s.Memory), v1Shares(s)
		res.Memory = &specs.LinuxMemory{Limit: &limit}
		res.CPU = &specs.LinuxCPU{Shares: &shares}
	}
	control, err := h.base.New(name, res)
	if err != nil {
		return nil, fmt.Errorf("making %s: %w", name, err)
	}
	return &cgroup1Group{host: h, control: control, title: path.Join(ownPrefix(), name)}, nil
}

// v1Shares are the weight of version 2 on the scale of version 1.
func v1Shares(s limits.Shard) uint64 { return uint64(max(2, s.CPUWeight*1024/100)) }

func (h *cgroup1Host) close() error { return h.base.Delete() }

type cgroup1Group struct {
	host    *cgroup1Host
	control cgroup1.Cgroup
	title   string
}

func (g *cgroup1Group) name() string { return g.title }

// enter moves the calling thread, alone, into the group: a child is born where the thread that
// clones it is. Moving the child afterwards instead would leave it outside for its first steps.
func (g *cgroup1Group) enter(*syscall.SysProcAttr) (func() error, error) {
	self := cgroup1.Process{Pid: unix.Gettid()}
	leave := func() error { return g.host.home.AddTask(self) }
	if err := g.control.AddTask(self); err != nil {
		_ = leave() // some hierarchies may have it already
		return nil, err
	}
	return leave, nil
}

func (g *cgroup1Group) holds(text string) error {
	for _, name := range v1Controllers() {
		if err := memberOf(text, string(name), path.Join(g.host.own[name], g.title)); err != nil {
			return err
		}
	}
	return nil
}

// file is the path of one of the group's files.
func (g *cgroup1Group) file(controller cgroup1.Name, name string) string {
	return filepath.Join("/sys/fs/cgroup", string(controller), g.host.own[controller], g.title, name)
}

func (g *cgroup1Group) held(s limits.Shard) error {
	var err error
	if s.PIDs > 0 {
		err = mustRead(g.file(cgroup1.Pids, "pids.max"), strconv.Itoa(s.PIDs))
	}
	if s.Memory > 0 {
		err = errors.Join(err, mustRead(g.file(cgroup1.Memory, "memory.limit_in_bytes"), pages(s.Memory)),
			mustRead(g.file(cgroup1.Cpu, "cpu.shares"), strconv.FormatUint(v1Shares(s), 10)))
	}
	return err
}

func (g *cgroup1Group) outOfMemory() bool {
	return counter(g.file(cgroup1.Memory, "memory.oom_control"), "oom_kill") > 0
}

func (g *cgroup1Group) remove() error { return g.control.Delete() }
