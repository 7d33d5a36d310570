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
// other requests included. CPU of invocations that come in, answer and go counts as that of requests.
//
// Both are sums that nothing makes smaller. They cost a few comparisons an event.

const (
	// clockTouches is how often code has to run between two dealings with the outside to make a clock of an
	// invocation: more often than for a page that is put together of some subrequests. Its CPU up to then
	// counts as well, once it is one.
	clockTouches = 8
	// turnCost is what delivering an event costs by itself, which is the host's work. What is left after
	// it is the code's; a turn shorter than that says nothing over a network.
	turnCost = 200 * time.Microsecond
)

// seen is what a tenant was seen to do. Owned by the executor, but for what stats read.
type seen struct {
	said   int // heads, chunks, ends and subrequests that its code has sent
	clocks int // invocations that have become clocks and are not over

	// Since load; written by the owner.
	bracketed  atomic.Int64 // ns
	requestCPU atomic.Int64 // ns
}

// touched is what one invocation had to do with the outside.
type touched struct {
	touches int           // times that code ran between two dealings
	pending time.Duration // CPU since the last one
	spent   time.Duration // CPU that counts if it becomes a clock
	clock   bool
}

// observe handles one event and counts what it cost.
func (x *executor) observe(t *tenant, e *event) {
	before, said, clocks := t.cpu.Load(), t.said, t.clocks
	inv, outside := e.inv, e.nowMs > 0 || e.kind == evOpen
	x.handle(t, e)
	host := turnCost + time.Duration(len(e.frame))*bodyCPU>>20
	t.count(inv, time.Duration(t.cpu.Load()-before)-host, outside, t.said != said, clocks)
}

// observeResult is observe for the result of an operation, which is no event of the outside.
func (x *executor) observeResult(t *tenant) {
	before, said, clocks := t.cpu.Load(), t.said, t.clocks
	inv := t.invs[t.results[0].inv]
	x.deliverResult(t)
	t.count(inv, time.Duration(t.cpu.Load()-before)-turnCost, false, t.said != said, clocks)
}

// count notes CPU of a tenant: in came something from outside, out went something. clocks is how many
// there were before: the last turn of one counts as well.
func (t *tenant) count(inv *invocation, cpu time.Duration, in, out bool, clocks int) {
	cpu = max(cpu, 0)
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
	if inv.clock {
		inv.clock = false
		t.clocks--
	}
}
