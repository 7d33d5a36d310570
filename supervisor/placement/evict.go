package placement

import (
	"context"
	"fmt"
	"maps"
	"time"

	"bulkhead/supervisor/tenants"
)

// idlestLocked returns the place that has been idle longest among those that fit, claimed for
// eviction, or nil. Of many it looks at a sample, as whoever is evicted need not be the very oldest:
// thousands of tenants under pressure would each cost a look at all the others.
func (p *Pool) idlestLocked(fits func(*shard) bool) *place {
	for {
		var oldest *place
		seen := 0
		for _, pl := range p.places { // in an order of Go's choosing, another each time
			if !pl.loaded() || !fits(pl.shard) || pl.refs.Load() != 0 || pl.evicting.Load() {
				continue
			}
			if oldest == nil || pl.lastUsed.Load() < oldest.lastUsed.Load() {
				oldest = pl
			}
			if seen++; seen == evictSample {
				break
			}
		}
		if oldest == nil || p.claimLocked(oldest) {
			return oldest
		}
	}
}

// evictSample is how many idle tenants are compared for the least recently used one: the oldest of
// 64 taken at random is among the oldest 5 % of all in 96 of 100 cases.
const evictSample = 64

// claimLocked takes an idle place out of service; false if a lease came first.
func (p *Pool) claimLocked(pl *place) bool {
	pl.gone.Store(true)
	if pl.refs.Load() > 0 {
		// A lease was taken before gone was set. (One that was refused in between goes the slow
		// way, waits for mu, and finds the place in service again.)
		pl.gone.Store(false)
		return false
	}
	if !pl.evicting.CompareAndSwap(false, true) {
		return false
	}
	p.removeLocked(pl)
	return true
}

// removeLocked takes a place out of the maps.
func (p *Pool) removeLocked(pl *place) {
	p.placed.CompareAndDelete(pl.v, pl)
	if p.places[pl.v] == pl {
		delete(p.places, pl.v)
	}
}

// evictRetired is the last release of a superseded version.
func (p *Pool) evictRetired(pl *place) {
	p.mu.Lock()
	ok := !p.closed && p.claimLocked(pl)
	p.mu.Unlock()
	if ok {
		go p.evict(pl) // not in wg: the shard's end ends it, and Close ends the shards
	}
}

// evict unloads a claimed place and gives its slot back.
func (p *Pool) evict(pl *place) {
	ctx, cancel := context.WithTimeout(p.ctx, evictTimeout)
	defer cancel()
	s := pl.shard
	if err := s.conn.Evict(ctx, pl.handle); err != nil && s.conn.Err() == nil && p.ctx.Err() == nil {
		s.fail(fmt.Errorf("evict %s: %w", pl.v.Tenant, err))
	}
	p.opt.Observer.Metrics.Event("evicted")
	p.vacate(pl)
}

// vacate gives a slot back. A shard that hosted tenants and is empty again is not reused: what
// they left in it would meet the next one.
func (p *Pool) vacate(pl *place) {
	p.mu.Lock()
	s := pl.shard
	if s.hosted[pl.handle] == pl {
		delete(s.hosted, pl.handle)
		s.slots--
		p.freedLocked()
	}
	// One that died or is being killed is its watcher's, and an incident.
	empty := s.used && s.slots == 0 && !s.dead && s.conn.Err() == nil && s.failure.Load() == nil
	if empty {
		s.retiring = true
		p.buryLocked(s)
	}
	p.mu.Unlock()
	if empty {
		s.stop()
	}
}

// freedLocked wakes those who wait for a slot.
func (p *Pool) freedLocked() {
	close(p.room)
	p.room = make(chan struct{})
}

// Retire says which version of a tenant serves from now on, nil for none. Others of the tenant
// finish their requests and are evicted.
func (p *Pool) Retire(tenant string, now *tenants.Version) {
	hash := ""
	if now != nil {
		hash = now.Hash
	}
	p.caches.keepOnly(tenant, hash)
	p.mu.Lock()
	if now == nil {
		delete(p.current, tenant)
	} else {
		p.current[tenant] = now
	}
	var idle []*place
	for v, pl := range p.places {
		if v == now {
			pl.retired.Store(false)
		}
		if v.Tenant != tenant || v == now {
			continue
		}
		if !pl.loaded() {
			pl.retired.Store(true)
			if pl.err != nil {
				delete(p.places, v)
			}
			continue
		}
		pl.retired.Store(true)
		if p.claimLocked(pl) {
			idle = append(idle, pl)
		}
	}
	p.mu.Unlock()
	for _, pl := range idle {
		go p.evict(pl)
	}
}

// Evict unloads a tenant if nothing of it runs. It returns how many versions went and how many
// stayed because requests are in flight.
func (p *Pool) Evict(tenant string) (evicted, busy int) {
	p.mu.Lock()
	var idle []*place
	for v, pl := range maps.Clone(p.places) {
		switch {
		case v.Tenant != tenant:
		case pl.loading():
			busy++ // somebody waits for it, or is served already by an early request
		case pl.err != nil:
			delete(p.places, v) // a cached failure: the next request tries again
		case p.claimLocked(pl):
			idle = append(idle, pl)
		default:
			busy++
		}
	}
	p.mu.Unlock()
	for _, pl := range idle {
		p.evict(pl)
	}
	return len(idle), busy
}

// sweep unloads what has been idle for long.
func (p *Pool) sweep() {
	tick := time.NewTicker(min(p.idleEvict()/4, 15*time.Second))
	defer tick.Stop()
	memory := time.NewTicker(shrinkEvery)
	defer memory.Stop()
	for {
		select {
		case <-memory.C:
			p.shrink()
			continue
		case <-tick.C:
		case <-p.ctx.Done():
			return
		}
		now := time.Since(p.start)
		p.mu.Lock()
		p.releaseLocked(time.Now())
		var idle []*place
		for v, pl := range maps.Clone(p.places) {
			switch {
			case pl.loading():
			case pl.err != nil:
				if time.Now().After(pl.until) {
					delete(p.places, v)
				}
			case pl.refs.Load() == 0 && now-time.Duration(pl.lastUsed.Load()) >= p.idleEvict() && p.claimLocked(pl):
				idle = append(idle, pl)
			}
		}
		p.mu.Unlock()
		for _, pl := range idle {
			p.wg.Go(func() { p.evict(pl) })
		}
	}
}
