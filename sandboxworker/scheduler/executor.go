package scheduler

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"bulkhead/ipc"
	"bulkhead/sandboxworker/engine"
)

const (
	// flushBytes is how much output may gather before it is written although work is left.
	flushBytes = 32 << 10
	// flushTenants is how many tenants may take their turn before output is written.
	flushTenants = 8
	// quantumEvents bounds a tenant's quantum besides its time.
	quantumEvents = 16
)

// executor is one thread that runs isolates.
type executor struct {
	s     *Scheduler
	id    int  // its slot in the black box
	alive bool // guarded by the scheduler's mu; it has a thread
	wipe  bool // guarded by the scheduler's mu; it is to wipe its stack
	dec   *ipc.Decoder

	unflushed int // tenants run since the last flush; owned by the thread
	// since is the thread's CPU clock when it began to work for the tenant of this quantum, 0: not yet;
	// owned by the thread.
	since time.Duration

	step     atomic.Uint64 // odd while it is busy with a tenant; changes with each event
	seenStep uint64        // watchdog: the step it has seen
	seenAt   time.Time     // watchdog: when it saw that step first
	// What the watchdog saw at its last look: whose turn (nil: none), its CPU so far, its memory.
	seenTenant *tenant
	seenCPU    time.Duration
	seenUsage  engine.Usage

	mu      sync.Mutex      // held for a few instructions at both ends of a turn, and by the watchdog
	iso     *engine.Isolate // nil between turns
	t       *tenant
	inv     *invocation   // whose wall clock counts, if any's
	stream  uint64        // of inv, 0 without one
	began   time.Duration // the thread's CPU clock when the turn began
	allowed time.Duration // CPU left for this turn
	order   stopping      // watchdog: its order to stop this turn
	tid     int
}

func newExecutor(s *Scheduler, id int) *executor {
	return &executor{s: s, id: id, dec: ipc.NewDecoder(&s.opt.Wire)}
}

// loop is the executor's thread: run whoever is runnable, else read the socket, else wait.
func (x *executor) loop() {
	runtime.LockOSThread()
	// Not unlocked: the thread ends with its executor.
	x.mu.Lock()
	x.tid = threadID()
	x.mu.Unlock()
	s := x.s
	engine.BindBlackBox(s.box.Slot(x.id))
	defer engine.BindBlackBox(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	defer x.ended()
	for !s.stopped {
		if x.wipe {
			x.wipeStack()
		}
		// The last executor there can be does not run anybody: it reads.
		last := s.threads.running == len(s.executors)-1
		if (s.pollDue || last) && !s.polling {
			if len(s.queue.runnable) > 0 {
				s.call()
			}
			x.poll()
			continue
		}
		if t, reclaim := s.next(); t != nil {
			x.serve(t, reclaim)
			continue
		}
		if !s.polling {
			x.poll()
			continue
		}
		if x.unflushed > 0 || s.data.Pending() > 0 {
			s.mu.Unlock()
			x.flush()
			s.mu.Lock()
			continue
		}
		if t := s.takeStale(); t != nil {
			x.serve(t, true)
			s.trimming = false
			continue
		}
		if !x.wait() {
			return
		}
	}
}

// serve gives a tenant that was taken its quantum, or reclaims its memory. Caller holds mu.
func (x *executor) serve(t *tenant, reclaim bool) {
	s := x.s
	s.threads.running++
	t.stained.add(x)
	s.mu.Unlock()
	x.step.Add(1)
	s.dog.watch()
	if reclaim {
		x.reclaim(t)
	} else {
		x.run(t)
	}
	x.step.Add(1)
	s.mu.Lock()
	s.threads.running--
}

// poll takes the role of the reader for one read. Caller holds mu.
func (x *executor) poll() {
	s := x.s
	s.polling, s.pollDue = true, false
	s.polls++
	s.mu.Unlock()
	if x.unflushed > 0 || s.data.Pending() > 0 {
		x.flush() // the read may block for long
	}
	if err := s.poll(); err != nil {
		s.mu.Unlock()
		s.halt(err)
		s.mu.Lock()
	}
}

func (x *executor) flush() {
	x.unflushed = 0
	x.s.flush()
}

// run gives a tenant its quantum.
func (x *executor) run(t *tenant) {
	s := x.s
	t.size = untrimmed
	began := time.Now()
	x.since = 0
	for n := 0; ; n++ {
		x.step.Add(2)
		s.mu.Lock()
		if len(t.evict) > 0 {
			s.mu.Unlock()
			x.evict(t)
			return
		}
		result := t.hasResult()
		if (len(t.queue) == 0 && !result) || s.stopped || n == quantumEvents || (n > 0 && time.Since(began) > s.opt.Quantum) {
			t.running, t.lastRun = false, began
			s.lastRun, s.rested = began, false
			s.settle(t)
			t.charge(x.spent(), n)
			if (len(t.queue) > 0 || result) && !s.stopped {
				s.enqueue(t)
			}
			s.mu.Unlock()
			break
		}
		if result {
			s.mu.Unlock()
			x.observeResult(t)
			continue
		}
		e := s.pop(t)
		s.mu.Unlock()
		x.observe(t, &e)
		if e.frame != nil {
			s.drop(e.frame)
		}
		t.measure()
	}
	if x.unflushed++; x.unflushed >= flushTenants || s.data.Pending() >= flushBytes {
		x.flush()
	}
}

// turnFor runs one turn of t's isolate for inv (nil: for none) with at most budget of CPU, and
// deals with what it says and how it ended. It reports whether the isolate is still there.
func (x *executor) turnFor(t *tenant, inv *invocation, budget time.Duration, f func(*engine.Isolate) engine.Turn) bool {
	out := x.enter(t, inv, budget, f)
	return x.after(t, inv, &out)
}

// enter runs one turn under the watchdog's eyes and with its name in the black box.
func (x *executor) enter(t *tenant, inv *invocation, budget time.Duration, f func(*engine.Isolate) engine.Turn) engine.Turn {
	s := x.s
	var stream uint64
	running := inv
	if inv != nil && inv.over {
		running = nil // for the gateway it is gone; its code is only told so
	} else if inv != nil {
		stream = inv.stream
	}
	began := ownCPU()
	if x.since == 0 {
		x.since = began
	}
	x.mu.Lock()
	x.iso, x.t, x.inv, x.stream, x.began, x.allowed = t.iso, t, running, stream, began, budget
	x.mu.Unlock()
	s.box.Enter(x.id, t.handle, stream)
	out := f(t.iso)
	s.box.Leave(x.id)
	x.mu.Lock()
	x.iso, x.t, x.inv, x.order = nil, nil, nil, stopping{}
	x.mu.Unlock()
	t.cpu.Add(int64(out.CPU))
	inv.use(out.CPU)
	return out
}

// inside does something with t's isolate that runs none of its code, but in which V8 may die of it.
func (x *executor) inside(t *tenant, f func()) {
	x.s.box.Enter(x.id, t.handle, 0)
	f()
	x.s.box.Leave(x.id)
}

// clockIn notes that the thread begins to work for a tenant, for what it does before any turn.
func (x *executor) clockIn() {
	if x.since == 0 {
		x.since = ownCPU()
	}
}

// spent is the CPU that the thread has had since it began to work for this quantum's tenant: its
// turns, and all that the host did for it around them, which can be a lot (a new isolate, the end of
// one, megabytes of records).
func (x *executor) spent() time.Duration {
	if x.since == 0 {
		return 0
	}
	return ownCPU() - x.since
}

// terminateTenant stops the turn that runs if it is t's. It reports whether V8 has the order: a turn
// that is about to begin, or has just ended, does not take one, and who needs it asks again.
func (x *executor) terminateTenant(t *tenant, r engine.Reason) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.iso != nil && x.t == t && x.iso.Terminate(r)
}

// terminate stops the turn that runs, if any.
func (x *executor) terminate(r engine.Reason) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.iso != nil {
		x.iso.Terminate(r)
	}
}
