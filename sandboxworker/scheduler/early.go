package scheduler

import (
	"maps"
	"slices"
	"time"

	"bulkhead/ipc"
	"bulkhead/schema/gen"
)

// Requests that overtake their tenant. The gateway sends the first requests of a tenant without
// waiting for the answer to its load, which saves a cold start one crossing between the processes;
// they come on another channel, usually before the load does. They wait in the mailbox of a tenant
// that stands in for it: one that nobody runs.
const (
	earlyWait     = 2 * time.Second // a load that was called is here long before
	earlyHandles  = 1024            // a gap that so many loads have jumped over stays one: its load could not be called
	earlyRequests = 256             // of all tenants together; more are told to wait in the gateway
)

// early is what waits for loads.
type early struct {
	tenants  map[uint32]*tenant  // by handle; those that stand in
	requests int                 // in their mailboxes
	upTo     uint32              // every handle up to this one has been loaded
	beyond   map[uint32]struct{} // those beyond that have been loaded; handles are given in order, loads overtake each other
}

// awaited returns the stand-in for a tenant whose load has not come yet; nil if that came and went.
// Caller holds mu.
func (s *Scheduler) awaited(handle uint32, now time.Time) *tenant {
	e := &s.early
	if _, came := e.beyond[handle]; came || handle <= e.upTo {
		return nil
	}
	t := e.tenants[handle]
	if t == nil {
		t = &tenant{handle: handle, due: -1, awaited: true, lastRun: now}
		t.limits.wall = earlyWait
		if e.tenants == nil {
			e.tenants = make(map[uint32]*tenant)
		}
		e.tenants[handle] = t
	}
	return t
}

// came notes that a handle is not to be waited for any more.
func (e *early) came(handle uint32) {
	if handle <= e.upTo {
		return
	}
	if e.beyond == nil {
		e.beyond = make(map[uint32]struct{})
	}
	e.beyond[handle] = struct{}{}
	if len(e.beyond) > earlyHandles {
		e.upTo = slices.Min(slices.Collect(maps.Keys(e.beyond))) - 1
	}
	for {
		if _, ok := e.beyond[e.upTo+1]; !ok {
			break
		}
		e.upTo++
		delete(e.beyond, e.upTo)
	}
}

// missed ends the requests that wait for a load which is not to come. Caller holds mu.
func (s *Scheduler) missed(handle uint32, o gen.Outcome, message string) {
	s.early.came(handle)
	t := s.early.tenants[handle]
	if t == nil {
		return
	}
	delete(s.early.tenants, handle)
	for _, ev := range s.popAll(t) {
		if ev.kind == evOpen {
			s.early.requests--
			s.refuse(ev.inv, o, message)
		}
		if ev.frame != nil {
			s.drop(ev.frame)
		}
	}
	s.call() // somebody has to write it
}

// arrived hands what waited for t over to it, behind its load. Caller holds mu.
func (s *Scheduler) arrived(t *tenant) {
	e := &s.early
	e.came(t.handle)
	in := e.tenants[t.handle]
	if in == nil {
		return
	}
	delete(e.tenants, t.handle)
	for _, ev := range s.popAll(in) {
		if ev.kind == evOpen {
			e.requests--
			ev.inv.t = t
			ev.inv.deadline.Store(ev.inv.started.Add(t.limits.wall).UnixNano())
			t.inFlight.Add(1)
		}
		s.post(t, ev)
	}
}

// expire ends requests whose tenant never came. Caller holds mu.
func (s *Scheduler) expire(now time.Time) {
	for handle, t := range s.early.tenants {
		if now.Sub(t.lastRun) < earlyWait {
			continue
		}
		s.missed(handle, gen.Outcome_killed, "the tenant never came to this process")
	}
}

// refuse ends a request that no isolate has seen. Caller holds mu.
func (s *Scheduler) refuse(inv *invocation, o gen.Outcome, message string) {
	inv.over = true
	delete(s.streams, inv.stream)
	s.data.Begin().Done(inv.stream, &ipc.Done{Outcome: o, Message: message})
	s.data.End()
}
