package placement

import (
	"errors"
	"fmt"
	"time"

	"bulkhead/ipc/gatewayside"
	"bulkhead/schema/gen"
	"bulkhead/supervisor/observe"
)

// In doubt the neighbours move, not the suspect (DESIGN, invariant 6): a suspect that runs goes on where
// it is and notices nothing, and everybody else leaves its process. Idle neighbours are disposed of at
// once; of the busy, requests that nothing has come of yet are begun again elsewhere, the others end
// there, and the next ones go elsewhere. So a false alarm costs nobody a request.

// Measures taken against a tenant by suspicion or by an operator. They hold until they are released.
const (
	measureNone uint8 = iota
	measureIsolate
	measureStop
)

// forever is when held standings run out: never, as far as anybody lives to see.
const forever = 100 * 365 * 24 * time.Hour

// Evacuation says what an isolation set going.
type Evacuation struct {
	Shards []uint32 `json:"shards"` // that the tenant is in
	Left   int      `json:"left"`   // neighbours disposed of now
	Busy   int      `json:"busy"`   // neighbours that leave when their requests have ended
	Begun  int      `json:"begun"`  // requests of neighbours that are begun again elsewhere
}

// Isolate has everybody else leave the processes that a tenant is in, and keeps it apart from then on.
// why is recorded, by says who decided it. A tenant that is in no process is alone from its next start.
func (p *Pool) Isolate(tenant, why, by string) Evacuation {
	p.mu.Lock()
	defer p.mu.Unlock()
	ev := Evacuation{Shards: []uint32{}}
	if p.closed {
		return ev
	}
	st := p.holdLocked(tenant, measureIsolate, why, by)
	began := time.Now()
	for _, pl := range p.tenantLocked(tenant) {
		s := pl.shard
		if s.cohort != 0 && s.cohort != st.cohort && s.onlyLocked(tenant) {
			s.cohort = st.cohort // what is left of an isolation before: it is alone there
		}
		if s.cohort != 0 && s.cohort != st.cohort {
			p.leaveLocked(pl, 0) // it is in another suspect's process: that one stays
			continue
		}
		if s.cohort == st.cohort {
			continue // it is among its own already
		}
		s.cohort = st.cohort
		ev.Shards = append(ev.Shards, s.proc.ID)
		for _, other := range s.hosted {
			switch {
			case other.v.Tenant == tenant || other.gone.Load():
			case !other.loaded(): // finds at the end of its load that it is not wanted here
				ev.Busy++
			case p.leaveLocked(other, 0):
				ev.Left++
			default:
				ev.Busy++
				ev.Begun += s.conn.Evacuate(other.handle)
			}
		}
		p.wg.Go(func() { p.vacated(s, tenant, began) })
	}
	p.keepSpareLocked(p.first())
	p.event(observe.Isolated, st, tenant, fmt.Sprintf("%s (by %s); %d neighbours left at once, %d end their requests first", why, by, ev.Left, ev.Busy), ev.Shards)
	return ev
}

// onlyLocked says whether nobody else is in a shard.
func (s *shard) onlyLocked(tenant string) bool {
	for _, pl := range s.hosted {
		if pl.v.Tenant != tenant {
			return false
		}
	}
	return true
}

// holdLocked notes a measure. The cohort is new unless the tenant has one of its own already.
func (p *Pool) holdLocked(tenant string, measure uint8, why, by string) *standing {
	st := p.standings[tenant]
	if st == nil {
		st = &standing{}
		p.standings[tenant] = st
	}
	if st.measure == measureNone {
		p.cohorts++
		st.cohort = p.cohorts // loads under way see at their end that their shard is not of it
	}
	st.measure, st.why, st.by = measure, why, by
	st.until = time.Now().Add(forever)
	st.gone = st.until
	return st
}

// tenantLocked lists the loaded places of a tenant, those on their way out included: their code runs.
func (p *Pool) tenantLocked(tenant string) (out []*place) {
	for _, s := range p.shards {
		for _, pl := range s.hosted {
			if pl.v.Tenant == tenant && pl.loaded() {
				out = append(out, pl)
			}
		}
	}
	return out
}

// vacated waits until nobody but the tenant is in a shard, and says so. What is scrubbed of a neighbour
// is scrubbed by then: its slot is given back after the shard has answered.
func (p *Pool) vacated(s *shard, tenant string, began time.Time) {
	for {
		p.mu.Lock()
		others := 0
		for _, pl := range s.hosted {
			if pl.v.Tenant != tenant {
				others++
			}
		}
		room, over := p.room, s.dead || s.cohort == 0
		p.mu.Unlock()
		if others == 0 || over {
			p.opt.Observer.Metrics.Event("gone")
			if !over {
				took := time.Since(began)
				p.opt.Observer.Incidents.Add(observe.Incident{Kind: observe.Gone, Shard: s.proc.ID, Tenants: []string{tenant}, Outcome: gen.Outcome_ok.String(),
					Detail: fmt.Sprintf("nothing of a neighbour is left in its process %v after the verdict", took.Round(time.Millisecond)), TookMs: float64(took.Microseconds()) / 1e3})
			}
			return
		}
		select {
		case <-room:
		case <-p.ctx.Done():
			return
		}
	}
}

// ErrNoMeasure: there is nothing to release.
var ErrNoMeasure = errors.New("nothing is held against this tenant")

// Release ends what suspicion or an operator holds against a tenant, and what deaths do as well. Where
// it runs it goes on; its next request goes among the others.
func (p *Pool) Release(tenant, why, by string) error {
	p.suspects.forgive(tenant)
	return p.release(tenant, why, by)
}

func (p *Pool) release(tenant, why, by string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.standings[tenant]
	if st == nil || st.cohort == 0 {
		return ErrNoMeasure
	}
	st.cohort, st.next, st.measure = 0, time.Time{}, measureNone
	st.until = time.Now()
	st.gone = st.until.Add(remembered)
	p.stopped.Delete(tenant)
	p.moveLocked(tenant, 0, forever) // whoever talks with it goes on talking
	p.event(observe.Released, st, tenant, fmt.Sprintf("%s (by %s)", why, by), nil)
	return nil
}

// Stop ends all that runs of a tenant, and refuses to start it until it is released.
func (p *Pool) Stop(tenant, why, by string) {
	p.mu.Lock()
	st := p.holdLocked(tenant, measureStop, why, by)
	p.stopped.Store(tenant, why)
	var ends []*place
	for _, pl := range p.tenantLocked(tenant) {
		pl.gone.Store(true)
		pl.retired.Store(true)
		p.removeLocked(pl)
		if pl.evicting.CompareAndSwap(false, true) {
			ends = append(ends, pl)
		}
	}
	p.event(observe.Stopped, st, tenant, fmt.Sprintf("%s (by %s)", why, by), nil)
	p.mu.Unlock()
	for _, pl := range ends {
		go p.evict(pl) // its streams end killed
	}
}

// refused is the answer for a stopped tenant, nil for all others.
func (p *Pool) refused(tenant string) error {
	why, ok := p.stopped.Load(tenant)
	if !ok {
		return nil
	}
	message := "this worker was stopped by the operator's policy"
	p.opt.log().Debug("a stopped tenant was asked for", "tenant", tenant, "why", why)
	return &LoadError{Tenant: tenant, Outcome: gen.Outcome_killed, Failure: gatewayside.LoadFailure{Outcome: gen.Outcome_killed, Message: message}}
}

// event records a measure. Caller holds mu.
func (p *Pool) event(kind observe.IncidentKind, st *standing, tenant, detail string, shards []uint32) {
	i := observe.Incident{Kind: kind, Tenants: []string{tenant}, Outcome: gen.Outcome_ok.String(), Detail: detail}
	if len(shards) > 0 {
		i.Shard = shards[0]
	}
	if kind == observe.Stopped {
		i.Outcome = gen.Outcome_killed.String()
	}
	p.recordLocked(i, nil)
}
