package scheduler

import (
	"fmt"
	"time"

	"bulkhead/sandboxworker/engine"
	"bulkhead/schema/gen"
)

// loadReply is the answer to a load.
type loadReply struct {
	handlers []string
	cpu      time.Duration
	failed   *failure
}

// failure is why a tenant's code does not run.
type failure struct {
	outcome gen.Outcome
	engine.Failure
}

func failed(o gen.Outcome, format string, args ...any) *failure {
	return &failure{outcome: o, Failure: engine.Failure{Message: fmt.Sprintf(format, args...)}}
}

// load starts a tenant for the first time. A tenant that does not start is forgotten.
func (x *executor) load(t *tenant, done func(*loadReply)) {
	var r *loadReply
	if t.refused {
		r = &loadReply{failed: failed(gen.Outcome_loadShed, "not started: %s", x.s.memoryMessage())}
	} else {
		r = x.start(t)
	}
	if r.failed != nil {
		x.forget(t) // first: what comes now is told that it is not here
		x.forsake(t, gen.Outcome_notLoaded, "the code did not start: "+r.failed.Message)
		x.flush() // before the answer, at which the gateway may end this process
	}
	if r.failed != nil && r.failed.outcome == gen.Outcome_killed {
		r.failed.outcome = gen.Outcome_internalError // no load is killed, says the schema
	}
	done(r)
}

// start gives t an isolate with its code.
func (x *executor) start(t *tenant) *loadReply {
	s := x.s
	x.clockIn()
	iso, err := s.pool.get()
	if err != nil {
		return &loadReply{failed: failed(gen.Outcome_internalError, "no isolate: %v", err)}
	}
	t.iso = iso
	t.log = logAccount{}
	// A start is an outside event; its time is now, in whole milliseconds like all of them.
	if now := float64(time.Now().UnixMilli()); now > t.clock {
		t.clock = now
	}
	var out engine.Turn
	var res engine.LoadOutcome
	x.quietTurn(t, nil, &out, func(i *engine.Isolate) engine.Turn {
		var turn engine.Turn
		res, turn = i.Load(t.bundle, t.env, engineLimits(&t.limits), t.clock)
		return turn
	})
	var why *failure
	switch {
	case res.Failure != nil:
		why = &failure{outcome: gen.Outcome_exception, Failure: *res.Failure}
	case out.Status == engine.OK:
		return &loadReply{handlers: res.Handlers, cpu: out.CPU}
	case out.Status == engine.Terminated && out.Reason == engine.ReasonEvict:
		why = failed(gen.Outcome_killed, "the tenant was removed from this process while it was starting")
	case out.Status == engine.Terminated && out.Reason == reasonShed:
		why = failed(gen.Outcome_loadShed, "stopped while it was starting: %s", x.s.memoryMessage())
	case out.Status == engine.Terminated:
		why = failed(gen.Outcome_exceededCpu, "start-up exceeded its CPU limit of %d ms: used %.1f ms", t.limits.startupCPU.Milliseconds(), milliseconds(out.CPU))
	case out.Status == engine.OutOfMemory:
		why = failed(gen.Outcome_exceededMemory, "start-up %s", memoryLimitMessage(t))
	default:
		why = failed(gen.Outcome_internalError, "the isolate could not go on")
	}
	x.dispose(t)
	return &loadReply{failed: why, cpu: out.CPU}
}

// quietTurn runs a turn whose end the caller judges: its records are dealt with, its status is
// not. Start-up has a CPU limit of its own.
func (x *executor) quietTurn(t *tenant, inv *invocation, out *engine.Turn, f func(*engine.Isolate) engine.Turn) {
	budget := t.limits.cpu
	if inv == nil {
		budget = t.limits.startupCPU
	}
	*out = x.enter(t, inv, budget, f)
	x.records(t, out)
}

func engineLimits(l *tenantLimits) engine.Limits {
	return engine.Limits{MemoryBytes: l.memory, EvalAllowed: l.eval, WasmAllowed: l.wasm, Timers: uint32(l.timers), Pending: uint32(l.pending)}
}

// dispose gives up t's isolate.
func (x *executor) dispose(t *tenant) {
	x.s.mu.Lock()
	x.s.setTimer(t, -1, 0)
	x.s.mu.Unlock()
	if t.iso != nil {
		x.inside(t, t.iso.Dispose)
		t.iso = nil
	}
	t.results, t.resultBytes, t.unowned = nil, 0, 0 // a later isolate knows nothing of them
	t.host.Close()
	t.heap.Store(0)
	t.external.Store(0)
}

// evict ends everything of t, including what still waits in its mailbox.
func (x *executor) evict(t *tenant) {
	s := x.s
	x.forsake(t, gen.Outcome_killed, "the tenant was removed from this process")
	x.dispose(t)
	x.forget(t)
	x.flush()
	s.mu.Lock()
	waiting := t.evict
	t.evict = nil
	s.mu.Unlock()
	for _, c := range waiting {
		close(c)
	}
}

// forsake ends all requests of t, those that still wait in its mailbox included: nothing may be left
// there that would start its code again once it is forgotten.
func (x *executor) forsake(t *tenant, o gen.Outcome, message string) {
	s := x.s
	s.mu.Lock()
	queue := s.popAll(t)
	s.mu.Unlock()
	for i := range queue {
		e := &queue[i]
		if e.kind == evOpen {
			t.invs[e.inv.id] = e.inv
		}
		if e.done != nil {
			e.done(&loadReply{failed: failed(gen.Outcome_internalError, "evicted while it was loading")})
		}
		if e.code != nil {
			e.code(nil)
		}
	}
	for _, inv := range t.invs {
		x.finish(inv, o, message)
	}
	for i := range queue {
		if queue[i].frame != nil {
			s.drop(queue[i].frame)
		}
	}
	clear(queue)
}

// forget removes t from the scheduler and lets go of its host. Once more does nothing.
func (x *executor) forget(t *tenant) {
	s := x.s
	s.mu.Lock()
	if s.tenants[t.handle] != t {
		s.mu.Unlock()
		return
	}
	delete(s.tenants, t.handle)
	s.expect()
	s.settle(t)
	s.lastRun, s.rested = time.Now(), false // what it held is still with the allocators
	s.rearm()
	s.mu.Unlock()
	for _, m := range t.bundle.Modules {
		clear(m.Code)
	}
	clear(t.bundle.CodeCache)
	t.bundle, t.env = engine.Bundle{}, nil
	clear(t.invs)
	clear(t.subs)
	t.results = nil
	s.logs.close(t)
}
