package placement

import (
	"time"

	"bulkhead/policy/suspicion"
	"bulkhead/supervisor/tenants"
)

// Whoever can have another tenant started must not get it as a neighbour by doing so (DESIGN, invariant
// 5). Service bindings are known before anything of them runs: a version is never put into one shard with
// whom it may call by one. (A binding that nobody has agreed to starts nothing, and keeps nobody apart: or
// a few tenants, one in each shard, could leave another without a place.) What else one tenant causes in another, a request to its public address or a call
// at second hand, is known when it happens: from then on they are kept apart, and if chance had put
// them together before, the one that was asked is moved.

const (
	// maxApart bounds whom one tenant is kept apart from by what it did; the oldest is forgotten. It has
	// 64 others it reached since, and gains no say in who its neighbours are.
	maxApart = 64
	// apartFor is how long after the last time.
	apartFor = time.Hour
)

// apart holds, for each tenant, whom it has caused something in, and when.
type apart map[string]map[string]time.Time

// Apart keeps callers out of the process of a tenant they are about to have started, from now on, and
// moves it out of theirs. To be called before Acquire; it is cheap for what is known.
func (p *Pool) Apart(callers []string, callee string) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, caller := range callers {
		if caller == callee {
			continue
		}
		if p.apart == nil {
			p.apart = apart{}
		}
		of := p.apart[caller]
		if of == nil {
			of = map[string]time.Time{}
			p.apart[caller] = of
		}
		_, known := of[callee]
		of[callee] = now
		if known {
			continue
		}
		if len(p.tenantLocked(callee)) == 0 {
			p.Observed(caller, suspicion.Starts, 1)
		}
		if len(of) > maxApart {
			oldest := callee
			for id, t := range of {
				if t.Before(of[oldest]) {
					oldest = id
				}
			}
			delete(of, oldest)
		}
		p.separateLocked(caller, callee)
	}
}

// separateLocked has the callee's next requests go elsewhere, if it is where the caller is. What runs
// there of it ends in peace.
func (p *Pool) separateLocked(caller, callee string) {
	for v, pl := range p.places {
		if v.Tenant != callee || !pl.loaded() || !hosts(pl.shard, caller) {
			continue
		}
		pl.retired.Store(true)
		if p.claimLocked(pl) {
			go p.evict(pl)
		} else {
			pl.gone.Store(true)
			p.removeLocked(pl)
		}
	}
}

func hosts(s *shard, tenant string) bool {
	for _, pl := range s.hosted {
		if pl.v.Tenant == tenant {
			return true
		}
	}
	return false
}

// strangersLocked says whether a version may be in a shard, as far as its neighbours go.
func (p *Pool) strangersLocked(v *tenants.Version, s *shard) bool {
	for _, pl := range s.hosted {
		if o := pl.v; o.Tenant != v.Tenant && (p.calls(v, o) || p.calls(o, v) || p.apart.are(v.Tenant, o.Tenant)) {
			return false
		}
	}
	return true
}

// calls says whether one version can call the other by a binding.
func (p *Pool) calls(v, o *tenants.Version) bool {
	return v.Calls(o.Tenant) && (o.Welcomes(v.Tenant) || p.opt.MayCall != nil && p.opt.MayCall(v.Tenant, o.Tenant))
}

func (a apart) are(x, y string) bool {
	if _, ok := a[x][y]; ok {
		return true
	}
	_, ok := a[y][x]
	return ok
}

// forget lets go of what is long past.
func (a apart) forget(now time.Time) {
	for id, of := range a {
		for other, t := range of {
			if now.Sub(t) > apartFor {
				delete(of, other)
			}
		}
		if len(of) == 0 {
			delete(a, id)
		}
	}
}
