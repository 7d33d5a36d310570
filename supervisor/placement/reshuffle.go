package placement

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Whoever has spent days learning where things lie in a process, and who is in it, is to start again:
// every process has a maximum age, with jitter so that not all end at once, and its tenants are spread
// at random over others. Requests end where they are; the next ones go elsewhere, where the tenant runs already
// (move.go). WebSockets are let be for the policy's grace. A suspect who is at work stays where it is: it is
// alone there, and whoever watches it is not to be shaken off.

const (
	// reshuffleTick is how often ages are looked at.
	reshuffleTick = 5 * time.Second
	// maxHosted is how many loads a shard takes in its life, whatever its age: allocators keep about a
	// kilobyte of each (`bench -only cycles`), and whoever owned a process should not meet thousands there.
	maxHosted = 2500
)

// renew retires shards of age until the pool closes.
func (p *Pool) renew() {
	tick := time.NewTicker(reshuffleTick)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-p.ctx.Done():
			return
		}
		p.mu.Lock()
		var oldest *shard
		var why string
		for _, s := range p.shards {
			if s.closed || s.dead || !s.used || s.heldLocked() || oldest != nil && !s.born.Before(oldest.born) {
				continue
			}
			if age := p.maxAge(s); age > 0 && time.Since(s.born) >= age {
				oldest, why = s, "its age"
			} else if s.handles >= maxHosted {
				oldest, why = s, fmt.Sprintf("it has had %d loads", s.handles)
			}
		}
		if oldest != nil {
			// One at a time: its tenants' new starts should not come together with another's.
			p.retireLocked(oldest, why)
		}
		p.mu.Unlock()
	}
}

// maxAge is how old a shard may become: its class's, less its own share of the jitter; 0: any age.
func (p *Pool) maxAge(s *shard) time.Duration {
	pol := p.pol.Load()
	if pol == nil {
		return 0
	}
	age := pol.Reshuffle.MaxAge
	if c, ok := pol.Classes[s.kind.class]; ok {
		age = c.MaxAge
	}
	return age - time.Duration(s.luck*float64(age)*float64(pol.Reshuffle.Jitter)/100)
}

// luck is a shard's share of the jitter, from 0 to 1.
func luck() float64 { return rand.Float64() }

// heldLocked says whether a shard is a suspect's who is at work.
func (s *shard) heldLocked() bool {
	if s.cohort == 0 {
		return false
	}
	for _, pl := range s.hosted {
		if pl.refs.Load() > 0 {
			return true
		}
	}
	return false
}

// retireLocked has a shard take no more tenants and everybody in it leave, one after the other. It ends with
// the last.
func (p *Pool) retireLocked(s *shard, why string) (leaving int) {
	s.closed = true
	for _, pl := range s.hosted {
		if pl.loaded() && !pl.gone.Load() {
			p.moveSoonLocked(move{from: pl})
			leaving++
		}
	}
	p.opt.Observer.Metrics.Event("reshuffled")
	p.opt.log().Info("reshuffle", "shard", s.proc.ID, "tenants", leaving, "ageSeconds", int(time.Since(s.born).Seconds()), "why", why)
	p.keepSpareLocked(p.first())
	return leaving
}

// Reshuffle retires the shards with these ids, or all that host tenants if there are none given but those of
// suspects at work, and returns how many and how many tenants leave them, one after the other.
func (p *Pool) Reshuffle(ids ...uint32) (shards, tenants int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(ids) == 0 {
		for id, s := range p.shards {
			if s.used && !s.closed && !s.heldLocked() {
				ids = append(ids, id)
			}
		}
	}
	for _, id := range ids {
		if p.shards[id] == nil {
			return 0, 0, fmt.Errorf("no shard %d", id)
		}
	}
	for _, id := range ids {
		if s := p.shards[id]; s.used && !s.closed {
			tenants += p.retireLocked(s, "an operator asked for it")
			shards++
		}
	}
	return shards, tenants, nil
}
