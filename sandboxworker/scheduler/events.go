package scheduler

import (
	"fmt"
	"math"
	"time"

	"bulkhead/ipc"
	"bulkhead/sandboxworker/engine"
	"bulkhead/schema/gen"
)

// handle delivers one event of t's mailbox. The executor owns t.
func (x *executor) handle(t *tenant, e *event) {
	if e.inv != nil && e.inv.over && e.kind != evDrop {
		return
	}
	if e.nowMs > t.clock {
		t.clock = e.nowMs
	}
	if e.sub != nil {
		x.handleSub(t, e)
		return
	}
	switch e.kind {
	case evLoad:
		x.load(t, e.done)
	case evCode:
		x.codeCache(t, e.code)
	case evOpen:
		x.open(t, e)
	case evChunk:
		x.chunk(t, e)
	case evMessage:
		x.message(t, e)
	case evEnd:
		if t.iso != nil {
			x.turnInv(t, e.inv, func(i *engine.Isolate) engine.Turn { return i.End(t.clock, e.inv.id) })
		}
	case evAbort:
		x.abort(t, e)
	case evWindow:
		x.window(t, e)
	case evDeadline:
		x.deadline(t, e.inv)
	case evDrop:
		if t.iso != nil {
			x.turnFor(t, nil, t.limits.cpu, func(i *engine.Isolate) engine.Turn {
				return i.Abort(t.clock, e.inv.id, uint8(gen.Abort_Reason_refused), "")
			})
		}
	case evTimer:
		x.timers(t)
	}
}

// bodyCPU is what a MiB of body adds to its invocation's CPU limit, each direction. Moving it
// through V8 and wiping what it passed costs some 1.3 ms, twice that on a busy machine, which is the
// host's work and not the code's: under a limit of 50 ms nobody could stream 100 MB otherwise. A tenant cannot mint CPU from it faster than a
// client sends or reads.
const bodyCPU = 4 * time.Millisecond

// limit is the CPU limit of inv so far.
func (inv *invocation) limit() time.Duration {
	return inv.t.limits.cpu + time.Duration(inv.moved)*bodyCPU>>20
}

// budget is the CPU left for a turn: the invocation's rest, or a whole limit for turns that
// belong to none.
func (x *executor) budget(t *tenant, inv *invocation) time.Duration {
	if inv == nil {
		return t.limits.cpu
	}
	return inv.poorest().left()
}

// turnInv runs a turn on behalf of inv, unless its CPU is used up.
func (x *executor) turnInv(t *tenant, inv *invocation, f func(*engine.Isolate) engine.Turn) bool {
	left := x.budget(t, inv)
	if left <= 0 {
		x.kill(t, inv, gen.Outcome_exceededCpu, cpuMessage(inv))
		return t.iso != nil
	}
	return x.turnFor(t, inv, left, f)
}

func cpuMessage(inv *invocation) string {
	inv = inv.poorest()
	return fmt.Sprintf("exceeded its CPU limit of %d ms: used %.1f ms", inv.limit().Milliseconds(), milliseconds(inv.cpu))
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// open starts an invocation, reviving the tenant's isolate if it was given up.
func (x *executor) open(t *tenant, e *event) {
	inv := e.inv
	f, err := x.dec.Frame(e.frame)
	var o ipc.Open
	if err == nil {
		o, err = ipc.DecodeOpen(f, &x.s.opt.Wire)
	}
	if err != nil {
		x.s.halt(err)
		return
	}
	if t.refused {
		x.finish(inv, gen.Outcome_loadShed, "refused: "+x.s.memoryMessage())
		return
	}
	t.invs[inv.id] = inv
	t.log = logAccount{}
	inv.requestID, inv.attempt = string([]byte(o.RequestID)), o.Attempt
	inv.ungranted = len(o.Body)
	inv.socket.allowed = o.Upgrade
	inv.called = o.Event == gen.Event_call || o.Event == gen.Event_function
	// Whole milliseconds, like all of JavaScript's time: not even I/O is to be timed more finely.
	if at := math.Floor(o.ReceivedMs); at > t.clock {
		t.clock = at
	}
	if t.iso == nil {
		if r := x.start(t); r.failed != nil {
			switch o := r.failed.outcome; o {
			case gen.Outcome_killed, gen.Outcome_loadShed:
				x.finish(inv, o, r.failed.Message) // not its doing
			default:
				x.finish(inv, gen.Outcome_notLoaded, "the code does not start any more: "+r.failed.Message)
			}
			return
		}
	}
	if o.Event == gen.Event_function {
		x.function(t, inv, &o)
	}
	x.turnInv(t, inv, func(i *engine.Isolate) engine.Turn {
		return i.Request(t.clock, engine.Request{
			Inv: inv.id, Method: eventMethod(&o), URL: o.URL, Headers: o.Headers, Body: o.Body, BodyMode: o.BodyMode,
			RequestID: o.RequestID, Attempt: o.Attempt,
		})
	})
}

func (x *executor) chunk(t *tenant, e *event) {
	f, err := x.dec.Frame(e.frame)
	var p []byte
	if err == nil {
		p, err = ipc.DecodeChunk(f, &x.s.opt.Wire)
	}
	if err != nil {
		x.s.halt(err)
		return
	}
	if t.iso == nil {
		return
	}
	e.inv.ungranted += len(p)
	e.inv.move(len(p))
	x.turnInv(t, e.inv, func(i *engine.Isolate) engine.Turn { return i.Chunk(t.clock, e.inv.id, p) })
}

// abort: the client left, or the gateway wants no more of the response's body.
func (x *executor) abort(t *tenant, e *event) {
	inv := e.inv
	if e.reason != gen.Abort_Reason_failed {
		inv.unwanted = true
		inv.out = nil
	}
	if e.reason == gen.Abort_Reason_deadline {
		x.kill(t, inv, gen.Outcome_exceededWallTime, wallMessage(t, inv))
		return
	}
	if e.reason == gen.Abort_Reason_clientGone {
		// Whatever the code does about it, it has a waitUntil's time for it.
		if d := time.Now().Add(t.limits.waitUntil).UnixNano(); d < inv.deadline.Load() {
			inv.deadline.Store(d)
		}
	}
	x.drain(inv)
	if !inv.over && t.iso != nil {
		x.turnInv(t, inv, func(i *engine.Isolate) engine.Turn {
			return i.Abort(t.clock, inv.id, uint8(e.reason), e.text)
		})
	}
}

// window: first what waits here, then the isolate is told that there is room.
func (x *executor) window(t *tenant, e *event) {
	inv := e.inv
	if inv.unwanted {
		return
	}
	inv.window += int(e.n)
	x.drain(inv)
	if !inv.over && !inv.ended && t.iso != nil {
		x.turnInv(t, inv, func(i *engine.Isolate) engine.Turn { return i.Window(t.clock, inv.id, e.n) })
	}
}

func wallMessage(t *tenant, inv *invocation) string {
	return fmt.Sprintf("exceeded its wall-clock limit of %d ms: not done after %d ms", t.limits.wall.Milliseconds(), time.Since(inv.started).Milliseconds())
}

// deadline ends an invocation that took too long, waiting included.
func (x *executor) deadline(t *tenant, inv *invocation) {
	if time.Now().UnixNano() <= inv.deadline.Load() {
		// It was extended meanwhile, by the end of its response.
		x.s.mu.Lock()
		inv.late = false
		x.s.mu.Unlock()
		return
	}
	if inv.fin != nil {
		// The code was done in time, the client does not read: its result stands.
		inv.out, inv.outEnd, inv.outAbort, inv.fin = nil, false, nil, nil
		x.finish(inv, gen.Outcome_exceededWallTime, wallMessage(t, inv))
		return
	}
	if inv.ended && len(inv.out) == 0 {
		x.kill(t, inv, gen.Outcome_ok, fmt.Sprintf("waitUntil exceeded its limit of %d ms after the response and was cut off", t.limits.waitUntil.Milliseconds()))
		return
	}
	x.kill(t, inv, gen.Outcome_exceededWallTime, wallMessage(t, inv))
}

// timers runs what is due. The clock shows the nominal time, not the real one.
func (x *executor) timers(t *tenant) {
	x.s.mu.Lock()
	due, whose := t.due, t.dueInv
	t.ticking = false
	if due > float64(time.Now().UnixMicro())/1000 {
		// Not the timer that this event was posted for: that one was cleared meanwhile. To run this one
		// would set the clock ahead of the real one.
		x.s.rearm()
		x.s.mu.Unlock()
		return
	}
	t.due = -1
	x.s.mu.Unlock()
	if due < 0 || t.iso == nil {
		return
	}
	if due > t.clock {
		t.clock = due
	}
	timer := func(i *engine.Isolate) engine.Turn { return i.Timer(t.clock) }
	if inv := t.invs[whose]; inv != nil {
		x.turnInv(t, inv, timer)
		return
	}
	x.turnShared(t, timer)
}

// turnShared runs a turn that start-up code brought about: it belongs to no request, and to
// charge nobody would be a way around the limit. All requests share it.
func (x *executor) turnShared(t *tenant, f func(*engine.Isolate) engine.Turn) {
	before := t.cpu.Load()
	x.turnFor(t, nil, x.budget(t, nil), f)
	x.share(t, time.Duration(t.cpu.Load()-before))
	t.unowned = 0
}

// share charges CPU to all invocations alike, and to those they are part of: else whoever has many functions
// called at once would have as many limits.
func (x *executor) share(t *tenant, cpu time.Duration) {
	if len(t.invs) == 0 {
		return
	}
	cpu /= time.Duration(len(t.invs))
	var over []*invocation
	for _, inv := range t.invs {
		inv.use(cpu)
	}
	for _, inv := range t.invs {
		if inv.left() <= 0 {
			over = append(over, inv)
		}
	}
	for _, inv := range over {
		x.kill(t, inv, gen.Outcome_exceededCpu, cpuMessage(inv))
	}
}
