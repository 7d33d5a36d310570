package scheduler

import (
	"fmt"
	"slices"
	"time"

	"bulkhead/schema/gen"
)

const (
	// usualWeight is the weight of a tenant that policy says nothing about.
	usualWeight = 100
	// eventCost is what an event costs besides the CPU of its turn: reading, writing, switching.
	// Without it a flood of events that run no code would be free.
	eventCost = 5 * time.Microsecond
)

// queue says who is next: weighted fair queueing over the tenants of the shard, by start time. Each
// tenant has a virtual time, the CPU it has used divided by its weight; the runnable one with the
// least is next. Who becomes runnable starts at the present and has no credit for the time it had
// nothing to do, so that neither a long queue nor a long sleep gives anybody more than its share.
// At most 64 tenants share a shard, so scans beat heaps.
type queue struct {
	runnable []*tenant     // longest runnable first
	now      time.Duration // virtual time: that of the tenant that was taken last
	requests int           // that wait to be begun
	bytes    int           // of the frames in all mailboxes
}

// post puts an event into a tenant's mailbox and makes the tenant runnable. Caller holds mu.
func (s *Scheduler) post(t *tenant, e event) {
	if s.stopped {
		return
	}
	t.queue = append(t.queue, e)
	s.account(t, &e, 1)
	s.runnable(t)
}

// pop takes the oldest event of a mailbox that is not empty. Caller holds mu.
func (s *Scheduler) pop(t *tenant) event {
	e := t.queue[0]
	t.queue[0] = event{}
	if t.queue = t.queue[1:]; len(t.queue) == 0 {
		t.queue = nil
	}
	s.account(t, &e, -1)
	return e
}

// popAll empties a mailbox. Caller holds mu.
func (s *Scheduler) popAll(t *tenant) []event {
	all := t.queue
	t.queue = nil
	for i := range all {
		s.account(t, &all[i], -1)
	}
	return all
}

// account counts an event in or out. Caller holds mu.
func (s *Scheduler) account(t *tenant, e *event, sign int) {
	if e.kind == evOpen {
		s.queue.requests += sign
		t.requests += sign
	}
	s.queue.bytes += sign * len(e.frame)
	t.bytes += sign * len(e.frame)
}

// runnable queues a tenant that has got something to do, unless it is queued or running. Caller
// holds mu.
func (s *Scheduler) runnable(t *tenant) {
	if t.queued || t.running || t.awaited {
		return
	}
	t.virtual = max(t.virtual, s.queue.now)
	s.enqueue(t)
}

// enqueue queues a tenant. Caller holds mu.
func (s *Scheduler) enqueue(t *tenant) {
	t.queued = true
	s.queue.runnable = append(s.queue.runnable, t)
}

// next takes the runnable tenant with the least virtual time; of equals the one that waits longest.
// Evictions go first: somebody is kept from his place by them. If there is no memory for it, an idle
// tenant is taken instead, whose isolate is to be reclaimed. Caller holds mu.
func (s *Scheduler) next() (t *tenant, reclaim bool) {
	q := &s.queue
	best := -1
	for i, t := range q.runnable {
		if len(t.evict) > 0 {
			best = i
			break
		}
		if best < 0 || t.virtual < q.runnable[best].virtual {
			best = i
		}
	}
	if best < 0 {
		return nil, false
	}
	t = q.runnable[best]
	if t.refused = len(t.evict) == 0 && !s.room(t); t.refused {
		if s.memory.freeing == 0 {
			if v := s.victim(); v != nil {
				s.claim(v)
				return v, true
			}
		}
		if s.memory.running > 0 || s.memory.freeing > 0 {
			s.memory.blocked = true
			return nil, false
		}
	}
	q.runnable = slices.Delete(q.runnable, best, best+1)
	q.now = max(q.now, t.virtual)
	t.queued, t.running = false, true
	s.admit(t)
	return t, false
}

// charge moves t's virtual time on for a quantum of so many events. Caller holds mu.
func (t *tenant) charge(cpu time.Duration, events int) {
	cpu += time.Duration(events) * eventCost
	t.virtual += cpu * usualWeight / time.Duration(t.limits.weight)
}

// shed refuses waiting requests while there are too many, the newest of the tenant that has the
// most for its weight: those would wait longest. Caller holds mu.
func (s *Scheduler) shed() {
	q := &s.queue
	for q.requests > s.opt.QueueRequests || q.bytes > s.opt.QueueBytes {
		byBytes := q.requests <= s.opt.QueueRequests
		var heaviest *tenant
		most := -1
		for _, t := range s.tenants {
			n := t.requests
			if byBytes {
				n = t.bytes
			}
			if n = n * usualWeight / t.limits.weight; t.requests > 0 && n > most {
				heaviest, most = t, n
			}
		}
		if heaviest == nil {
			return // what is left belongs to requests that have begun, and is bounded by their windows
		}
		message := fmt.Sprintf("refused: %d requests wait in this process, its limit is %d, and %d of them are this worker's",
			q.requests, s.opt.QueueRequests, heaviest.requests)
		if byBytes {
			message = fmt.Sprintf("refused: %d bytes of requests wait in this process, its limit is %d, and %d of them are this worker's",
				q.bytes, s.opt.QueueBytes, heaviest.bytes)
		}
		s.refuseNewest(heaviest, message)
	}
}

// refuseNewest ends the newest request that waits in t's mailbox, of which there is one. Nobody has
// seen it yet but the mailbox: its executor takes it out under mu. Caller holds mu.
func (s *Scheduler) refuseNewest(t *tenant, message string) {
	at := len(t.queue) - 1
	for t.queue[at].kind != evOpen {
		at--
	}
	inv := t.queue[at].inv
	kept := t.queue[:at]
	for i := at; i < len(t.queue); i++ {
		e := t.queue[i]
		if e.inv != inv {
			kept = append(kept, e)
			continue
		}
		s.account(t, &e, -1)
		if e.frame != nil {
			s.drop(e.frame)
		}
	}
	clear(t.queue[len(kept):])
	t.queue = kept
	t.inFlight.Add(-1)
	s.refuse(inv, gen.Outcome_loadShed, message)
}
