package scheduler

import (
	"time"

	"bulkhead/ipc"

	"golang.org/x/sys/unix"
)

// A turn that was told to stop and goes on is inside something that cannot be interrupted: one
// long builtin, a collection, a parse. Only the death of the process ends it. The gateway is asked
// for it first, because it knows who else was running and brings them elsewhere; a process that
// nobody kills ends itself.
const (
	// overdueCPU is how much CPU a turn may use after it should have stopped.
	overdueCPU = 100 * time.Millisecond
	// overdueWait is how long, in wall time, the gateway has to kill the process.
	overdueWait = 250 * time.Millisecond
)

// stopping is what became of the order to stop a turn.
type stopping struct {
	on   bool          // it was given
	cpu  time.Duration // CPU of the turn when it was
	told time.Time     // when the gateway was asked to kill the process; zero: not yet
}

// stopped notes that the turn was told to stop when it had used so much CPU. Caller holds x.mu.
func (x *executor) stopped(used time.Duration) {
	if !x.order.on {
		x.order = stopping{on: true, cpu: used}
	}
}

// overdue judges a turn that was told to stop. The frame is added under x.mu, so that none of the
// frames with which the invocation ends can come before it. Caller holds x.mu.
func (d *watchdog) overdue(x *executor, used time.Duration, now time.Time) {
	switch {
	case !x.order.told.IsZero():
		if now.Sub(x.order.told) >= overdueWait {
			exit(ipc.ExitOverdue)
		}
	case used-min(x.order.cpu, max(x.allowed, 0)) >= overdueCPU:
		x.order.told = now
		d.s.data.Begin().Overdue(x.stream, &ipc.Overdue{
			Tenant: x.t.handle, CPUMicros: uint64(used.Microseconds()), LimitMicros: uint64(max(x.allowed, 0).Microseconds()),
		})
		d.s.data.End()
		// Not by the watchdog: a gateway that does not read must not keep it from ending this.
		d.s.goRun(d.s.flush)
	}
}

// exit ends the process at once: no exit handler may wait for the threads that are stuck.
func exit(code int) {
	for {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, uintptr(code), 0, 0)
	}
}
