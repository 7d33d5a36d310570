package placement

import (
	"context"
	"sync"
	"time"

	"bulkhead/ipc/gatewayside"
	"bulkhead/policy/suspicion"
	"bulkhead/supervisor/tenants"
)

// Tenants at work are looked at several times a second, while their code runs: what is found out when an
// invocation ends comes too late for one that does not end. What is seen goes into an account per tenant
// (policy/suspicion), and what comes of it is acted on at once.

// bySuspicion is who takes measures here; an operator's are not ours to end.
const bySuspicion = "suspicion"

// suspects is what is held against tenants, and what was observed since the last look.
type suspects struct {
	mu       sync.Mutex
	standing map[string]*suspicion.Standing // guarded by mu
	observed map[string]suspicion.Signals   // guarded by mu; since the last look
}

// counters are what a shard has said of one of its tenants, since it was loaded.
type counters struct{ cpu, bracketed, request, lockstep uint64 } // µs

// Observed notes something that was seen of a tenant elsewhere. It is weighed at the next look.
func (p *Pool) Observed(tenant string, s suspicion.Signal, amount float64) {
	x := &p.suspects
	x.mu.Lock()
	defer x.mu.Unlock()
	o := x.observed[tenant]
	o[s] += amount
	x.observed[tenant] = o
}

// Suspicion is the score of a tenant as it is now.
func (p *Pool) Suspicion(tenant string) suspicion.Score {
	pol := p.pol.Load()
	if pol == nil {
		return suspicion.Score{}
	}
	x := &p.suspects
	x.mu.Lock()
	defer x.mu.Unlock()
	st := x.standing[tenant]
	if st == nil {
		return suspicion.Score{}
	}
	sc := suspicion.Judge(&pol.Suspicion, st.Account)
	sc.Verdict = max(sc.Verdict, st.Measure)
	return sc
}

// Suspects lists the scores of all of whom something is known.
func (p *Pool) Suspects() map[string]suspicion.Score {
	p.suspects.mu.Lock()
	var ids []string
	for id := range p.suspects.standing {
		ids = append(ids, id)
	}
	p.suspects.mu.Unlock()
	out := make(map[string]suspicion.Score, len(ids))
	for _, id := range ids {
		out[id] = p.Suspicion(id)
	}
	return out
}

// watchTenants looks until the pool closes.
func (p *Pool) watchTenants() {
	for {
		every := time.Second
		pol := p.pol.Load()
		if pol != nil {
			every = pol.Suspicion.Every
		}
		select {
		case <-time.After(every):
		case <-p.ctx.Done():
			return
		}
		if pol != nil {
			p.look(&pol.Suspicion, time.Now())
		}
	}
}

// look gathers, weighs and acts.
func (p *Pool) look(c *suspicion.Config, now time.Time) {
	if c.Enabled {
		p.ask()
	}
	alive := p.present()
	x := &p.suspects
	type act struct {
		tenant   string
		from, to suspicion.Verdict
		score    suspicion.Score
	}
	var acts []act
	var seen []suspicion.Observation
	x.mu.Lock()
	for id := range x.observed {
		if x.standing[id] == nil {
			x.standing[id] = &suspicion.Standing{}
		}
	}
	for id, st := range x.standing {
		o, any := x.observed[id]
		if any && c.Record && p.opt.OnObserved != nil {
			seen = append(seen, suspicion.Record(id, o, alive[id], now))
		}
		if !any && now.Sub(st.Account.At) < restLook {
			continue // it only fades
		}
		before := st.Measure
		next, score := suspicion.Step(c, *st, o, alive[id], now)
		*st = next
		if before != next.Measure {
			acts = append(acts, act{id, before, next.Measure, score})
		}
		if next.Measure == suspicion.None && next.Account.Empty() {
			delete(x.standing, id)
		}
	}
	clear(x.observed)
	x.mu.Unlock()
	for _, a := range acts {
		switch a.to {
		case suspicion.Isolate:
			p.Isolate(a.tenant, a.score.String(), bySuspicion)
		case suspicion.Stop:
			p.Stop(a.tenant, a.score.String(), bySuspicion)
		default:
			p.calmed(a.tenant)
		}
	}
	for _, o := range seen {
		p.opt.OnObserved(o)
	}
}

// restLook is how often those are weighed of whom nothing more is seen.
const restLook = time.Second

// calmed releases a tenant, unless an operator holds it.
func (p *Pool) calmed(tenant string) {
	p.mu.Lock()
	st := p.standings[tenant]
	ours := st != nil && st.measure != measureNone && st.by == bySuspicion
	p.mu.Unlock()
	if ours {
		// It may have gone meanwhile: then there is nothing to do.
		_ = p.release(tenant, "it has been calm for long enough", bySuspicion)
	}
}

// forgive drops what was seen of a tenant: an operator has decided.
func (x *suspects) forgive(tenant string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.standing, tenant)
	delete(x.observed, tenant)
}

// present says of which tenants there are isolates.
func (p *Pool) present() map[string]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string]bool{}
	for _, s := range p.shards {
		for _, pl := range s.hosted {
			if pl.loaded() {
				out[pl.v.Tenant] = true
			}
		}
	}
	return out
}

// ask has every shard at work tell what its tenants have used. One that does not answer in time is asked
// again at the next look: nothing is lost, since all it tells are sums.
func (p *Pool) ask() {
	type asked struct {
		s  *shard
		st gatewayside.Stats
		ok bool
	}
	var work []*asked
	p.mu.Lock()
	now := int64(time.Since(p.start))
	for _, s := range p.shards {
		if s.used && !s.dead && s.busySince(s.looked) {
			work = append(work, &asked{s: s})
			s.looked = now
		}
	}
	p.mu.Unlock()
	if len(work) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, statsTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, w := range work {
		wg.Go(func() {
			var err error
			w.st, err = w.s.conn.Stats(ctx)
			w.ok = err == nil
		})
	}
	wg.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range work {
		if w.ok {
			p.tellLocked(w.s, w.st)
		} else {
			w.s.looked = 0
		}
	}
}

// busySince says whether anything ran in a shard since then. Caller holds the pool's mu.
func (s *shard) busySince(then int64) bool {
	for _, pl := range s.hosted {
		if pl.refs.Load() > 0 || pl.lastUsed.Load() >= then {
			return true
		}
	}
	return false
}

// tellLocked notes what a shard says its tenants have used since it said so last. The numbers are its
// claims: what it cannot have used is cut off, and of tenants it does not host nothing is taken.
func (p *Pool) tellLocked(s *shard, st gatewayside.Stats) {
	if s.told == nil {
		s.told = map[uint32]counters{}
	}
	for _, t := range st.Tenants {
		pl := s.hosted[t.Tenant]
		if pl == nil || !pl.loaded() {
			continue
		}
		now, last := counters{t.CPUMicros, t.BracketedMicros, t.RequestMicros, t.LockstepMicros}, s.told[t.Tenant]
		s.told[t.Tenant] = now
		ms := func(now, last uint64) float64 {
			if now <= last {
				return 0
			}
			return min(float64(now-last)/1000, maxMillis)
		}
		var o suspicion.Signals
		o[suspicion.CPU] = ms(now.cpu, last.cpu) / 1000
		o[suspicion.Bracketed] = ms(now.bracketed, last.bracketed)
		o[suspicion.Remote] = ms(now.request, last.request)
		o[suspicion.Lockstep] = ms(now.lockstep, last.lockstep)
		o[suspicion.Buffers] = float64(min(t.ExternalBytes, pl.v.Limits.Memory)) / (1 << 20)
		if pl.v.Limits.Wasm {
			o[suspicion.Wasm] = 1
		}
		o[suspicion.Kills] = p.killsLocked(pl.v.Tenant)
		if used := t.HeapBytes + t.ExternalBytes; used <= pl.v.Limits.Memory && near(used, pl.v.Limits.Memory) {
			o[suspicion.NearMisses] = nearLook
		}
		p.suspects.add(pl.v.Tenant, o)
	}
	for h := range s.told {
		if s.hosted[h] == nil {
			delete(s.told, h)
		}
	}
}

// NearMiss notes how much CPU an invocation has used that ended well. WebSockets have a budget for each message:
// of what is above it nothing is taken.
func (p *Pool) NearMiss(v *tenants.Version, cpu time.Duration) {
	if limit := v.Limits.CPU; cpu <= limit && near(uint64(cpu), uint64(limit)) {
		p.Observed(v.Tenant, suspicion.NearMisses, 1)
	}
}

// near says whether so much of a limit is close to it: four fifths.
func near(used, limit uint64) bool { return used >= limit/5*4 }

// nearLook is what a look counts at which a tenant's memory is close to its limit: looks come several times a second.
const nearLook = 0.25

// maxMillis is more than a shard can have used between two looks.
const maxMillis = 60_000

// add notes signals of a tenant.
func (x *suspects) add(tenant string, s suspicion.Signals) {
	x.mu.Lock()
	defer x.mu.Unlock()
	o := x.observed[tenant]
	for i, k := range suspicion.Kinds() {
		if k.Level {
			o[i] = max(o[i], s[i])
		} else {
			o[i] += s[i]
		}
	}
	x.observed[tenant] = o
}

// killsLocked is how many invocations of a tenant exceeded a limit since this was asked last.
func (p *Pool) killsLocked(tenant string) float64 {
	_, by := p.opt.Observer.Metrics.Requests(tenant)
	n := by["exceededCpu"] + by["exceededMemory"] + by["exceededWallTime"]
	last := p.kills[tenant]
	if n == last {
		return 0
	}
	p.kills[tenant] = n
	if n < last {
		return 0 // its counters were forgotten
	}
	return float64(n - last)
}
