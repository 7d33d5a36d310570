package launcher

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"bulkhead/policy/namespaces"

	"golang.org/x/sys/unix"
)

// Core scheduling (Documentation/admin-guide/hw-vuln/core-scheduling.rst; Linux 5.14 with
// CONFIG_SCHED_CORE): where a core runs two threads at once, only threads of one cookie share it. A
// worker gets a cookie of its own, so that neither a neighbouring shard nor anything else of the host
// runs beside it on a core. Cordons never share a process, so this keeps them apart too.
const (
	prSchedCore      = 62 // PR_SCHED_CORE
	schedCoreGet     = 0
	schedCoreCreate  = 1
	schedCoreThread  = 0 // the scopes: one thread
	schedCoreProcess = 1 // all threads of a process
	smtActivePath    = "/sys/devices/system/cpu/smt/active"
	sharedCores      = "shared-cores" // the degradation
)

// probeCores sees whether there are cores to be kept apart and a kernel that can.
func (l *launcher) probeCores() {
	if slices.Contains(l.opt.Accept, sharedCores) {
		return
	}
	if b, err := os.ReadFile(smtActivePath); err != nil || strings.TrimSpace(string(b)) != "1" {
		return // one thread a core
	}
	if _, err := coreCookie(os.Getpid()); err != nil {
		l.logf("two threads run on a core here and this kernel has no core scheduling (%v): shards may run beside each other; `bulkhead doctor` says what to do", err)
		return
	}
	l.kernel.cores = true
}

// ownCore gives a child that was just born a cookie nobody else has. Threads it makes inherit it.
func (l *launcher) ownCore(c *child) error {
	if !l.kernel.cores || c.role != namespaces.Worker {
		return nil
	}
	if _, _, errno := unix.Syscall6(unix.SYS_PRCTL, prSchedCore, schedCoreCreate, uintptr(c.pid), schedCoreProcess, 0, 0); errno != 0 {
		return fmt.Errorf("prctl(PR_SCHED_CORE_CREATE): %w; to let shards run beside each other on a core: --accept %s", errno, sharedCores)
	}
	return nil
}

// coreCookie is a thread's cookie, 0 for none.
func coreCookie(tid int) (uint64, error) {
	var cookie uint64
	_, _, errno := unix.Syscall6(unix.SYS_PRCTL, prSchedCore, schedCoreGet, uintptr(tid), schedCoreThread, uintptr(pointer(&cookie)), 0)
	if errno != 0 {
		return 0, errno
	}
	return cookie, nil
}

// cores: the cookie is the child's own, on every thread.
func (k *look) cores() error {
	if !k.l.kernel.cores || k.c.role != namespaces.Worker {
		return nil
	}
	tid, err := strconv.Atoi(filepath.Base(k.dir))
	if err != nil {
		return err
	}
	cookie, err := coreCookie(tid)
	if err != nil {
		return fmt.Errorf("prctl(PR_SCHED_CORE_GET): %w", err)
	}
	if cookie == 0 {
		return fmt.Errorf("it has no core-scheduling cookie")
	}
	const proof = "core"
	if k.l.byProof[proof] == nil {
		k.l.byProof[proof] = map[uint64]int{}
	}
	if pid, taken := k.l.byProof[proof][cookie]; taken && pid != k.c.pid {
		return fmt.Errorf("its core-scheduling cookie is that of process %d", pid)
	}
	k.l.byProof[proof][cookie] = k.c.pid
	return nil
}
