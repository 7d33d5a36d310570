// Package start brings a worker from its first Go instruction to behind its seal: V8, the ready
// isolates, the descriptors, the filter.
//
// Duty: it is the whole of what happens in a worker before the launcher has verified it, and the
// only place where that happens. bulkhead-worker goes on to serve from here; the attacker's seat of
// the security suites goes on to attack from here, so that what the suites say of the seat is true of
// the worker.
//
// Trust: no byte of a tenant or of the gateway is read here.
package start

import (
	"fmt"
	"runtime"
	"syscall"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/workerside"
	"bulkhead/policy/limits"
	"bulkhead/policy/namespaces"
	"bulkhead/sandboxworker/engine"
	"bulkhead/sandboxworker/lockdown"
	jsruntime "bulkhead/sandboxworker/runtime"
	"bulkhead/sandboxworker/scheduler"
)

// Descriptors a worker inherits.
const (
	FDControl  = 3
	FDData     = 4
	FDBlackBox = 5
)

// heapMax bounds one isolate's JavaScript heap while a turn runs; tenants' own limits are
// checked between turns and cannot be larger.
const heapMax = 128 << 20

// Worker is a sealed worker that serves nobody yet.
type Worker struct {
	Scheduler *scheduler.Scheduler
	BlackBox  []byte // mapped shared, ipc.BlackBoxBytes long
}

// Sealed starts V8 as the launcher's setup says, with so many isolates ready for tenants (0: as many as
// the scheduler likes; below it none, beside the first that every worker makes and drops), seals the process and returns when the launcher has verified the seal. Call it once, before anything is opened. An error means that the process is not
// sealed and must end.
func Sealed(ready int) (*Worker, error) {
	if lockdown.Role() != namespaces.Worker {
		return nil, fmt.Errorf("not started by bulkhead-launcher: run `bulkhead serve`")
	}
	// Fixed: Go would otherwise look at cgroup files now and then, which the seal forbids. Two
	// more than cores, so that a thread that comes back from JavaScript finds a processor; bounded,
	// because each may need a thread and those are counted (limits.DefaultShard).
	runtime.GOMAXPROCS(min(runtime.NumCPU(), ipc.BlackBoxSlots) + 2)
	eng, err := engine.Init(engine.Config{Profile: lockdown.Profile(), Source: jsruntime.Source(), Data: jsruntime.Data(), HeapMaxBytes: heapMax,
		LeaveTraces: lockdown.LeftOut("scrub"), LetClockMove: lockdown.LeftOut("clock")})
	if err != nil {
		return nil, err
	}
	if err := engine.HandleFaults(); err != nil {
		return nil, err
	}
	for _, fd := range []int{FDControl, FDData} {
		if err := syscall.SetNonblock(fd, false); err != nil {
			return nil, fmt.Errorf("make descriptor %d blocking: %w", fd, err)
		}
	}
	box, err := syscall.Mmap(FDBlackBox, 0, ipc.BlackBoxBytes, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the black box: %w", err)
	}
	wire := limits.DefaultWire()
	s, err := scheduler.New(eng, workerside.NewData(FDData, &wire), scheduler.Options{Wire: wire, BlackBox: box, Ready: ready,
		LeaveTraces: lockdown.LeftOut("scrub")})
	if err != nil {
		return nil, err
	}
	stockRandom(ipc.BlackBoxSlots) // one for each executor there can be: they do WebCrypto's work
	// Go makes its epoll and event descriptors for the first timer: after the seal it could not.
	time.Sleep(time.Millisecond)

	if err := lockdown.Seal(); err != nil {
		return nil, err
	}
	return &Worker{Scheduler: s, BlackBox: box}, nil
}
