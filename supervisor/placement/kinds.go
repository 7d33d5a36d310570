package placement

import (
	"time"

	"bulkhead/policy"
	"bulkhead/policy/limits"
	"bulkhead/policy/seccomp"
	"bulkhead/supervisor/tenants"
)

// kind is what a shard is made for: shards of a kind are alike until the first tenant comes.
type kind struct {
	class   string
	profile seccomp.Profile
	shard   limits.Shard
}

// wanted is where a tenant may be by policy.
type wanted struct {
	kind
	cordon string
	spread int // shards of this kind and cordon that get a tenant before any gets a second
}

// wants says where a version may be. What native code it may make was decided when it was built; all
// else is what policy says now.
func (p *Pool) wants(v *tenants.Version) wanted {
	pol := p.pol.Load()
	if pol == nil {
		return wanted{kind{policy.DefaultName, v.Profile, p.opt.Shard}, policy.DefaultName, p.opt.Spread}
	}
	t := pol.For(v.Tenant)
	t.Profile = v.Profile
	c := pol.ClassOf(t)
	return wanted{kind{t.Class, c.Profile, c.Shard}, t.Cordon, pol.SpreadOf(t.Cordon)}
}

// first is the kind of the first warm spare.
func (p *Pool) first() kind {
	pol := p.pol.Load()
	if pol == nil {
		return kind{policy.DefaultName, p.opt.Profile, p.opt.Shard}
	}
	t := policy.TenantPolicy{Class: pol.Class}
	c := pol.ClassOf(t)
	return kind{t.Class, c.Profile, c.Shard}
}

func (p *Pool) idleEvict() time.Duration {
	if pol := p.pol.Load(); pol != nil {
		return pol.IdleEvict
	}
	return p.opt.IdleEvict
}

// SetPolicy has tenants that may no longer be where they are go elsewhere: with their next request, or,
// if they are idle, at once. Running requests end where they are. It returns how many tenants move.
func (p *Pool) SetPolicy(pol *policy.Policy) (moved int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pol.Store(pol)
	for _, pl := range p.places {
		if pl.loaded() && p.misplacedLocked(pl) {
			p.leaveLocked(pl, 0)
			moved++
		}
	}
	// Spares of kinds that nobody can want any more.
	known := map[kind]bool{p.first(): true}
	for name := range pol.Classes {
		c := pol.ClassOf(policy.TenantPolicy{Class: name})
		known[kind{name, c.Profile, c.Shard}] = true
	}
	for _, s := range p.shards {
		if !s.used && !known[s.kind] && !s.dead {
			p.dismissLocked(s)
		}
	}
	p.keepSpareLocked(p.first())
	return moved
}

// misplacedLocked says whether a loaded place is in a shard where policy does not want it.
func (p *Pool) misplacedLocked(pl *place) bool {
	w := p.wants(pl.v)
	return pl.shard.kind != w.kind || pl.shard.cordon != w.cordon
}

// leaveLocked has a loaded place take no more requests: an idle one is evicted now, a busy one when its
// last request has ended; WebSockets are ended after grace. The tenant's next request loads it elsewhere.
func (p *Pool) leaveLocked(pl *place, grace time.Duration) (idle bool) {
	pl.mercy.Store(int64(time.Since(p.start) + grace))
	pl.retired.Store(true)
	if p.claimLocked(pl) {
		go p.evict(pl)
		return true
	}
	pl.gone.Store(true)
	p.removeLocked(pl)
	return false
}

// dismissLocked ends a shard that nobody is in.
func (p *Pool) dismissLocked(s *shard) {
	s.retiring = true
	p.buryLocked(s)
	go s.stop()
}

// yieldLocked makes room for a shard of another kind or cordon when no more may be made: a spare that
// is of no use here goes, else the shard with the fewest tenants all of whom are idle. It reports
// whether room is being made.
func (p *Pool) yieldLocked(w wanted) bool {
	var fewest *shard
	for _, s := range p.shards {
		switch {
		case s.dead || s.closed:
		case !s.used && s.kind != w.kind:
			p.dismissLocked(s)
			return true
		case !s.used || s.kind == w.kind && s.cordon == w.cordon:
		case fewest == nil || len(s.hosted) < len(fewest.hosted):
			if s.idleLocked() {
				fewest = s
			}
		}
	}
	if fewest == nil {
		return false
	}
	fewest.closed = true
	for _, pl := range fewest.hosted {
		p.leaveLocked(pl, 0)
	}
	return true
}

// idleLocked says whether nothing runs in a shard and nothing is loading.
func (s *shard) idleLocked() bool {
	for _, pl := range s.hosted {
		if !pl.loaded() || pl.refs.Load() > 0 {
			return false
		}
	}
	return true
}

// spread is how many shards the tenants nothing is said of are spread over.
func (p *Pool) spread() int {
	if pol := p.pol.Load(); pol != nil {
		return pol.SpreadOf(pol.Cordon)
	}
	return p.opt.Spread
}

// await waits until a slot or a shard became free.
func (p *Pool) await(room <-chan struct{}, deadline <-chan time.Time) error {
	select {
	case <-room:
		return nil
	case <-p.ctx.Done():
		return ErrDraining
	case <-deadline:
		return ErrFull
	}
}
