package scheduler

import (
	"sync"
	"time"

	"bulkhead/sandboxworker/engine"
)

// threads counts the executors. They are started when work needs them and end when they have been
// idle for long. A stuck executor, one that is in the same step of the same tenant for longer than
// watchEvery, is joined by another, up to the number of slots in the black box: so nobody
// waits for another tenant's turn to end, and the kernel shares the processors among them.
type threads struct {
	idle    *sync.Cond // on the scheduler's mu; executors without work
	alive   int        // executors with a thread
	running int        // executors that are busy with a tenant
	waiting int        // executors that wait for idle and have not been called
	retire  int        // executors that are to end when they find nothing to do
	spare   int        // the fewest that were waiting since spareFrom
	spareAt time.Time  // since when
}

// threadIdle is how long an executor beyond the usual number may do nothing before it ends.
const threadIdle = 5 * time.Second

// usual is how many executors there are when none is stuck: one of them reads.
func (s *Scheduler) usual() int { return min(s.opt.Executors+1, len(s.executors)) }

// call gets one more executor to work, if there is one to be had without joining a stuck one.
// Caller holds mu.
func (s *Scheduler) call() {
	switch {
	case s.threads.waiting > 0:
		s.threads.waiting--
		s.threads.idle.Signal()
	case s.threads.alive < s.usual():
		s.startThread()
	}
}

// startThread gives an executor a thread, unless all have one. Caller holds mu.
func (s *Scheduler) startThread() {
	if s.stopped {
		return
	}
	for _, x := range s.executors {
		if !x.alive {
			x.alive = true
			s.threads.alive++
			s.goRun(x.loop)
			return
		}
	}
}

// wait blocks the executor until it is called. It reports false if its thread is to end. Caller
// holds mu.
func (x *executor) wait() bool {
	th := &x.s.threads
	if th.retire > 0 {
		th.retire--
		if th.alive > x.s.usual() {
			return false
		}
	}
	th.waiting++
	th.idle.Wait()
	return true
}

// ended notes that the executor's thread ends. Caller holds mu.
func (x *executor) ended() {
	x.wipeStack()
	x.alive = false
	x.s.threads.alive--
}

// relieve is called by the watchdog at each look, with the number of executors that are stuck: what
// they cannot get to is given to others.
func (s *Scheduler) relieve(stuck int, polls *uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.polling && s.polls == *polls {
		// Executors that always find somebody runnable would never read, nor answer a ping.
		s.pollDue = true
	}
	*polls = s.polls
	s.watchMemory()
	s.stopEvicted()
	if stuck > 0 || s.pollDue {
		s.help(stuck)
	}
}

// stopEvicted stops turns of tenants that are to go: one that began while its eviction was ordered
// has not been told. Caller holds mu.
func (s *Scheduler) stopEvicted() {
	for _, x := range s.executors {
		if t := x.seenTenant; t != nil && len(t.evict) > 0 {
			x.terminateTenant(t, engine.ReasonEvict)
		}
	}
}

// help calls or starts executors for what is to be done. Caller holds mu.
func (s *Scheduler) help(stuck int) {
	work := len(s.queue.runnable)
	if s.memory.blocked {
		work = 0
	}
	if !s.polling {
		work++
	}
	if work == 0 && s.data.Unwritten() {
		work = 1
	}
	if stuck == 0 {
		work = min(work, 1) // those that run get to the rest
	}
	free := s.threads.alive - stuck
	if s.polling {
		free--
	}
	for ; work > 0; work-- {
		switch {
		case s.threads.waiting > 0:
			s.threads.waiting--
			s.threads.idle.Signal()
		case free < s.opt.Executors:
			s.startThread()
			free++
		default:
			return
		}
	}
}

// callHelp is for an executor that is about to do something long.
func (s *Scheduler) callHelp() {
	s.mu.Lock()
	s.help(1)
	s.mu.Unlock()
}

// executing says whether any executor has a thread.
func (s *Scheduler) executing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.threads.alive > 0
}

// retireThreads lets executors go that have had nothing to do for threadIdle. Caller holds mu.
func (s *Scheduler) retireThreads(now time.Time) {
	th := &s.threads
	th.spare = min(th.spare, th.waiting)
	if now.Sub(th.spareAt) < threadIdle {
		return
	}
	th.retire = max(0, min(th.spare, th.alive-s.usual()))
	for range th.retire {
		th.waiting--
		th.idle.Signal()
	}
	th.spare, th.spareAt = th.waiting, now
}
