package scheduler

import (
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"bulkhead/sandboxworker/engine"

	"golang.org/x/sys/unix"
)

const (
	// watchEvery is the watchdog's tick: how long an executor may stay in JavaScript before
	// another takes over reading the socket.
	watchEvery = 2 * time.Millisecond
	// watchMercy is what a turn may take beyond its CPU limit before it is stopped. Stopping costs
	// the tenant its isolate and all requests in it; a turn that ends by itself, only its own.
	watchMercy = time.Millisecond
	// watchLeast is the shortest time between two looks.
	watchLeast = 200 * time.Microsecond
	// watchLinger is how long the watchdog keeps ticking without work, so that a busy shard
	// does not wake it for every turn.
	watchLinger = 50 * time.Millisecond
)

// watchdog looks at running turns from outside their threads: it enforces CPU and wall clock,
// and calls for another executor when one is stuck.
type watchdog struct {
	s      *Scheduler
	polls  uint64 // reads begun at the last look
	asleep atomic.Bool
	wake   chan struct{} // capacity 1
}

func newWatchdog(s *Scheduler) *watchdog { return &watchdog{s: s, wake: make(chan struct{}, 1)} }

// watch says that an executor is busy.
func (d *watchdog) watch() {
	if d.asleep.Load() && d.asleep.CompareAndSwap(true, false) {
		d.wake <- struct{}{}
	}
}

func (d *watchdog) run() {
	timer := time.NewTimer(watchEvery)
	defer timer.Stop()
	quiet := time.Now()
	for {
		select {
		case <-d.s.stop:
			d.end()
			return
		case <-timer.C:
		}
		now := time.Now()
		busy, next := d.look(now)
		if busy {
			quiet = now
		}
		if now.Sub(quiet) >= watchLinger {
			d.asleep.Store(true)
			// A turn that began between look and here has not woken anybody.
			if busy, _ = d.look(now); !busy || !d.asleep.CompareAndSwap(true, false) {
				select {
				case <-d.s.stop:
					d.end()
					return
				case <-d.wake:
				}
			}
			quiet, next = time.Now(), watchEvery
		}
		timer.Reset(next)
	}
}

// end stops every turn until no executor is left to begin one.
func (d *watchdog) end() {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for d.s.executing() {
		for _, x := range d.s.executors {
			x.terminate(engine.ReasonEvict)
		}
		<-tick.C
	}
}

// look inspects every executor once. It reports whether any is busy and when to look again: not
// later than the first of them can have used up its CPU.
func (d *watchdog) look(now time.Time) (busy bool, next time.Duration) {
	stuck := 0
	next = watchEvery
	for _, x := range d.s.executors {
		working, long := x.seen(now)
		busy = busy || working
		if long {
			stuck++
		}
		if left := d.inspect(x, now); left >= 0 {
			next = min(next, max(left, watchLeast))
		}
	}
	if busy {
		d.s.relieve(stuck, &d.polls)
	}
	return busy, next
}

// seen says whether x is busy with a tenant, and whether it has been in the same step for watchEvery:
// looks may come much faster.
func (x *executor) seen(now time.Time) (busy, stuck bool) {
	step := x.step.Load()
	if step%2 == 0 {
		return false, false
	}
	if step != x.seenStep {
		x.seenStep, x.seenAt = step, now
	}
	return true, now.Sub(x.seenAt) >= watchEvery
}

// inspect enforces the limits of the turn that x runs and returns the CPU left to it before it is
// stopped, or -1 if it runs none. The thread's CPU clock is read from outside; the turn
// counts from the reading that its executor took when it began.
func (d *watchdog) inspect(x *executor, now time.Time) (left time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.seenTenant = nil
	if x.iso == nil {
		return -1
	}
	cpu, err := threadCPU(x.tid)
	if err != nil {
		panic(fmt.Sprintf("BUG: executor %d in a turn: %v", x.id, err)) // its thread lives
	}
	used := cpu - x.began
	x.seenTenant, x.seenCPU, x.seenUsage = x.t, used, x.iso.Usage()
	left = x.allowed + watchMercy - used
	switch {
	case left <= 0:
		x.iso.Terminate(engine.ReasonCPU)
		x.stopped(used)
	case x.inv != nil && now.UnixNano() > x.inv.deadline.Load():
		x.iso.Terminate(engine.ReasonWall)
		x.stopped(used)
	}
	if x.order.on {
		d.overdue(x, used, now)
	}
	return max(left, 0)
}

// threadID is the calling thread's, as threadCPU wants it.
func threadID() int { return unix.Gettid() }

// threadCPU reads the CPU clock of another thread of this process: the clock id of
// clock_getres(2) that pthread_getcpuclockid(3) makes of a thread id.
func threadCPU(tid int) (time.Duration, error) {
	const perThread, sched = 4, 2
	return cpuClock(^uintptr(tid)<<3 | perThread | sched)
}

// ownCPU reads the CPU clock of the calling thread.
func ownCPU() time.Duration {
	d, err := cpuClock(unix.CLOCK_THREAD_CPUTIME_ID)
	if err != nil {
		panic(fmt.Sprintf("BUG: %v", err)) // cannot fail, says clock_gettime(2)
	}
	return d
}

// cpuClock reads a clock without telling Go's scheduler about it: the call never blocks.
func cpuClock(id uintptr) (time.Duration, error) {
	var ts unix.Timespec
	if _, _, errno := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, id, uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		return 0, fmt.Errorf("CPU clock %#x: %w", id, errno)
	}
	return time.Duration(ts.Nano()), nil
}
