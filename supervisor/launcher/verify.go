package launcher

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"bulkhead/policy/namespaces"
)

// A check looks at one property of a sealed child, from outside, through /proc. docs/launcher.md
// is printed from the list.
type check struct {
	name      string
	sees      string
	perThread bool // run for each thread's own directory: threads can differ in all of these
	run       func(*look) error
}

func checks() []check {
	return []check{
		{"seccomp", "Seccomp 2 with exactly one more filter than the launcher itself runs under", true, (*look).seccomp},
		{"no-new-privs", "NoNewPrivs 1", true, (*look).noNewPrivs},
		{"capabilities", "all five capability sets empty", true, (*look).capabilities},
		{"ids", "real, effective, saved and file system ids are the child's own; as root no supplementary groups", true, (*look).ids},
		{"speculation", "with --force-mitigations: nothing left vulnerable that can be switched", true, (*look).speculation},
		{"namespaces", "each namespace is nobody else's: not the host's, not the gateway's, not another child's", true, (*look).namespaces},
		{"root", "the root directory holds the listed mount points and nothing else, and is the working directory", true, (*look).rootDir},
		{"mounts", "mountinfo is one read-only line, and one for each listed mount, all nosuid, nodev, noexec", true, (*look).mounts},
		{"descriptors", "the descriptors are the launcher's own list by inode and access mode, besides one eventpoll that watches only those, and one eventfd", true, (*look).descriptors},
		{"limits", "every resource limit, soft and hard", true, (*look).limits},
		{"cgroup", "it is in its own cgroup", true, (*look).cgroup},
		{"cgroup-limits", "the kernel holds that cgroup to its memory, its threads and its weight", false, (*look).cgroupLimits},
		{"core", "where a core runs two threads and the kernel can: a core-scheduling cookie nobody else has", true, (*look).cores},
		{"arguments", "argv and environment are the constants of its role", false, (*look).arguments},
		{"mappings", "jitless workers, bundlers and the gateway: no page writable and executable", false, (*look).mappings},
	}
}

// verification is the state of the passes over one child.
type verification struct {
	threads []int // seen by the last good pass
	tries   int
}

const (
	// maxPasses bounds how often a child that keeps making threads is looked at.
	maxPasses = 40
	// passGap is the pause after a pass that saw other threads than the one before.
	passGap = 2 * time.Millisecond
)

var errThreadsChanged = errors.New("the set of threads keeps changing")

// verify makes one pass. done is true when two passes in a row have seen the same threads, all
// sealed. An error is final: a child that fails one check is not looked at again.
func (l *launcher) verify(c *child) (done bool, err error) {
	threads, err := l.pass(c)
	if err != nil {
		return false, err
	}
	return c.passes.settle(threads)
}

// settle counts a pass that saw these threads, none if it was not a good one: two of those in a row have
// nothing in common.
func (v *verification) settle(threads []int) (done bool, err error) {
	v.tries++
	if len(threads) > 0 && slices.Equal(threads, v.threads) {
		return true, nil
	}
	v.threads = threads
	if v.tries >= maxPasses {
		return false, fmt.Errorf("check threads: %w", errThreadsChanged)
	}
	return false, nil
}

// pass runs every check on every thread and returns the thread ids, or none if a thread came or was
// ending while it was looked at: that is no failure, and no good pass either.
func (l *launcher) pass(c *child) ([]int, error) {
	dir := filepath.Join("/proc", strconv.Itoa(c.pid))
	before, err := threadIDs(dir)
	if err != nil {
		return nil, fmt.Errorf("check threads: %w", err)
	}
	texts := make(map[int]proc, len(before))
	for _, tid := range before {
		texts[tid] = &threadDir{dir: procDir(filepath.Join(dir, "task", strconv.Itoa(tid)))}
	}
	for _, k := range checks() {
		if c.role == namespaces.Worker && (leftOut("checks") || leftOut("check "+k.name)) {
			continue
		}
		if !k.perThread {
			if err := k.run(newLook(l, c, dir)); err != nil {
				return nil, fmt.Errorf("check %s: %w", k.name, err)
			}
			continue
		}
		for _, tid := range before {
			lk := newLook(l, c, filepath.Join(dir, "task", strconv.Itoa(tid)))
			lk.text = texts[tid]
			err := k.run(lk)
			if err != nil && tid != c.pid && ending(lk.dir) { // the first thread's end is the process's
				return nil, nil
			}
			if err != nil {
				return nil, fmt.Errorf("check %s: thread %d: %w", k.name, tid, err)
			}
		}
	}
	after, err := threadIDs(dir)
	if err != nil {
		return nil, fmt.Errorf("check threads: %w", err)
	}
	if !slices.Equal(before, after) {
		return nil, nil
	}
	return after, nil
}

func threadIDs(dir string) ([]int, error) {
	names, err := os.ReadDir(filepath.Join(dir, "task"))
	if err != nil {
		return nil, err
	}
	ids := make([]int, 0, len(names))
	for _, n := range names {
		id, err := strconv.Atoi(n.Name())
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	if len(ids) == 0 {
		return nil, errors.New("no threads")
	}
	return ids, nil
}
