package scheduler

import (
	"sync/atomic"
	"time"
)

// What a timing attack needs is a clock, and the only clock a worker has is whoever is outside
// (DESIGN, invariant 7): something comes in, code runs, something goes out or the next comes in, and
// the outside knows how long that took. An invocation that has had dealings with the outside often is
// such a clock, if code ran in between, and for the whole isolate, since its invocations share all
// memory: from then on whatever the tenant runs counts as bracketed, timers, results of operations and
// other requests included. CPU of invocations that come in, answer and go counts as that of requests, and
// once more where these come in lockstep.
//
// All are sums that nothing makes smaller. They cost a few comparisons an event.

const (
	// clockTouches is how often code has to run between two dealings with the outside to make a clock of an
	// invocation: more often than for a page that is put together of some subrequests. Its CPU up to then
	// counts as well, once it is one.
	clockTouches = 8
	// turnCost is what delivering an event costs by itself, which is the host's work: 0.25 to 0.35 ms where
	// the caches are cold and the machine is busy. What is left after it is the code's.
	turnCost = 300 * time.Microsecond
	// turnShort is how long the code must have run to count in full. Of less a share counts, in proportion to
	// it: a short turn is most often a message that was handled, and a poor measurement (what arrives over a
	// network is late by as much). A turn of 2 ms counts 1.7, one of 1 ms 0.7, one of 0.5 ms 0.06.
	turnShort = 700 * time.Microsecond
	// mostCredit bounds what an invocation's bytes are remembered for after the turn that moved them: chunks
	// differ, so one turn is slow where the next is quick. More than the bytes it moves itself, at bodyCPU each
	// way, no conversation can hide.
	mostCredit = time.Millisecond

	// Requests in lockstep: each begins within lockstepGap of the end of the one before, and none while
	// another has begun, lockstepRun times in a row. Somebody waits for each answer before asking the next, as
	// who measures with short requests does; independent visitors come in such an order by chance one time
	// in thousands, unless there are more than a hundred a second.
	lockstepGap = 10 * time.Millisecond
	lockstepRun = 32
)

// seen is what a tenant was seen to do. Owned by the executor, but for what stats read.
type seen struct {
	said   int // heads, chunks, ends and subrequests that its code has sent
	clocks int // invocations that have become clocks and are not over

	row     int       // requests in lockstep so far
	resting bool      // the last thing that happened was an invocation's end
	ended   time.Time // then

	// Since load; written by the owner.
	bracketed  atomic.Int64 // ns
	requestCPU atomic.Int64 // ns
	lockstep   atomic.Int64 // ns; of requestCPU
}

// touched is what one invocation had to do with the outside.
type touched struct {
	touches int           // times that code ran between two dealings
	pending time.Duration // CPU since the last one
	spent   time.Duration // CPU that counts if it becomes a clock
	credit  time.Duration // for bytes that it has moved and that no turn has cost yet
	clock   bool
}

// observe handles one event and counts what it cost.
func (x *executor) observe(t *tenant, e *event) {
	before, said, clocks := t.cpu.Load(), t.said, t.clocks
	inv, outside := e.inv, e.nowMs > 0 || e.kind == evOpen
	if inv == nil && e.sub != nil {
		inv = e.sub.inv
	}
	moved := movedBy(inv)
	if e.kind == evOpen {
		t.follows(time.Now())
		moved -= len(e.frame) // its first bytes are in it
	}
	x.handle(t, e)
	t.count(inv, inv.beyond(time.Duration(t.cpu.Load()-before), movedBy(inv)-moved), outside, t.said != said, clocks)
}

// movedBy is how many bytes an invocation has moved.
func movedBy(inv *invocation) int {
	if inv == nil {
		return 0
	}
	return inv.moved
}

// beyond is what a turn of so much CPU, in which so many bytes of inv were moved, counts beyond the host's own
// work. Credit comes from nothing but the bytes that the invocation itself moves, so other traffic buys none.
func (inv *invocation) beyond(cpu time.Duration, bytes int) time.Duration {
	if cpu -= turnCost; inv == nil {
		return weighed(cpu)
	}
	if bytes > 0 { // less: a message of a WebSocket began, which counts anew
		inv.credit += time.Duration(bytes) * bodyCPU >> 20
	}
	if cpu > 0 {
		used := min(cpu, inv.credit)
		cpu, inv.credit = cpu-used, inv.credit-used
	}
	inv.credit = min(inv.credit, mostCredit)
	return weighed(cpu)
}

// weighed is what counts of the time that code ran in a turn.
func weighed(code time.Duration) time.Duration {
	switch {
	case code <= 0:
		return 0
	case code < turnShort:
		return code * code / turnShort
	}
	return code
}

// follows notes that a request begins.
func (t *tenant) follows(now time.Time) {
	if t.resting && now.Sub(t.ended) < lockstepGap {
		t.row++
	} else {
		t.row = 0
	}
	t.resting = false
}

// observeResult is observe for the result of an operation, which is no event of the outside.
func (x *executor) observeResult(t *tenant) {
	before, said, clocks := t.cpu.Load(), t.said, t.clocks
	inv := t.invs[t.results[0].inv]
	moved := movedBy(inv)
	x.deliverResult(t)
	t.count(inv, inv.beyond(time.Duration(t.cpu.Load()-before), movedBy(inv)-moved), false, t.said != said, clocks)
}

// count notes CPU of a tenant, as weighed: in came something from outside, out went something. clocks is how many
// there were before: the last turn of one counts as well.
func (t *tenant) count(inv *invocation, cpu time.Duration, in, out bool, clocks int) {
	if inv == nil {
		inv = t.busiest()
	}
	if inv != nil && !inv.over {
		if in {
			inv.touch()
		}
		inv.pending += cpu
		if out {
			inv.touch()
		}
		if !inv.clock {
			inv.spent += cpu
			if inv.touches >= clockTouches {
				inv.clock = true
				t.clocks++
				t.bracketed.Add(int64(inv.spent))
				return
			}
		}
	}
	if t.clocks > 0 || clocks > 0 {
		if inv != nil && !inv.clock {
			inv.spent -= cpu // counted now, not once more
		}
		t.bracketed.Add(int64(cpu))
		return
	}
	t.requestCPU.Add(int64(cpu))
	if t.row >= lockstepRun {
		t.lockstep.Add(int64(cpu))
	}
}

// touch is a dealing with the outside.
func (v *touched) touch() {
	if v.pending > 0 {
		v.touches++
	}
	v.pending = 0
}

// busiest is the invocation that a turn of nobody's, a timer's for one, is held to serve.
func (t *tenant) busiest() (inv *invocation) {
	for n, i := range t.invs {
		if inv == nil || i.touches > inv.touches || i.touches == inv.touches && n < inv.id {
			inv = i
		}
		if inv.clock {
			return inv
		}
	}
	return inv
}

// overClock: an invocation is over, and with it the clock it may have been.
func (t *tenant) overClock(inv *invocation) {
	t.resting, t.ended = true, time.Now()
	if inv.clock {
		inv.clock = false
		t.clocks--
	}
}
