package placement

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Tenants that have to leave a process for no fault of theirs are started elsewhere first: their next request
// finds them running there and waits for no start. One at a time, and with pauses: a reshuffle of thousands is
// not to be felt by those who are served meanwhile.

// movePause is the pause after a move, in times of how long it took.
const movePause = 2

// move is a place that is to be left, and where to.
type move struct {
	from *place
	to   *shard // nil: any other
}

// moveSoonLocked has places left one after the other.
func (p *Pool) moveSoonLocked(list ...move) {
	p.moves = append(p.moves, list...)
	select {
	case p.toMove <- struct{}{}:
	default:
	}
}

// mover moves until the pool closes.
func (p *Pool) mover() {
	for {
		p.mu.Lock()
		var m move
		left := len(p.moves)
		if left > 0 {
			// In no order: who shares a process next is not to be told from who shared one before.
			i := rand.IntN(left)
			m = p.moves[i]
			p.moves[i] = p.moves[left-1]
			p.moves[left-1] = move{}
			p.moves = p.moves[:left-1]
		} else {
			p.moves = nil
		}
		p.mu.Unlock()
		var pause <-chan time.Time
		if left > 0 {
			began := time.Now()
			p.relocate(m)
			pause = time.After(movePause * time.Since(began))
		}
		select {
		case <-p.ctx.Done():
			return
		case <-pause:
			continue
		case <-p.toMove:
			if pause != nil {
				select {
				case <-pause:
				case <-p.ctx.Done():
					return
				}
			}
		}
	}
}

// relocate starts a tenant in another shard, has new requests go there, and leaves the old place as soon as what
// runs there is over. If it cannot be started elsewhere now, the old place of a shard that is to end is left all
// the same, and the next request starts the tenant; otherwise it stays.
func (p *Pool) relocate(m move) {
	old := m.from
	p.mu.Lock()
	ends := old.shard.closed || old.shard.dead
	_, standing := p.standings[old.v.Tenant]
	wanted := p.serves(old) && (ends || old.refs.Load() == 0 && old.shard.cohort == 0 && !standing && m.to != nil && !m.to.closed)
	if !wanted {
		if ends && old.loaded() && !old.gone.Load() {
			p.leaveLocked(old, p.grace())
		}
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	pl := &place{v: old.v, to: m.to, begun: make(chan struct{}), ready: make(chan struct{})}
	began := time.Now()
	err := p.tryLoad(pl)
	p.mu.Lock()
	defer p.mu.Unlock()
	defer close(pl.ready)
	if err == nil {
		if err = p.settleLocked(pl); err == nil && !p.serves(old) {
			err = fmt.Errorf("move %s: %w", pl.v.Tenant, errShardDied) // it left meanwhile, or its version did
			p.dropLocked(pl)
		}
	}
	if err != nil {
		pl.err = err
		if p.serves(old) && (old.shard.closed || old.shard.dead) {
			p.leaveLocked(old, p.grace())
		}
		return
	}
	pl.lastUsed.Store(old.lastUsed.Load())
	p.places[pl.v] = pl
	p.placed.Store(pl.v, pl)
	p.opt.Observer.Metrics.Loaded(time.Since(began))
	p.opt.Observer.Metrics.Event("moved")
	p.leaveLocked(old, p.grace())
}

// serves says whether a place is the one that its version's requests go to. Caller holds mu.
func (p *Pool) serves(pl *place) bool {
	cur, known := p.current[pl.v.Tenant]
	return !p.closed && p.places[pl.v] == pl && pl.loaded() && !pl.gone.Load() && (!known || cur == pl.v)
}

// settleLocked says whether a version that was loaded may stay where it is; if not, it is taken away.
func (p *Pool) settleLocked(pl *place) error {
	died := fmt.Errorf("load %s: %w", pl.v.Tenant, errShardDied)
	if pl.shard.dead {
		return died
	}
	if cohort, _ := p.cohortLocked(pl.v.Tenant); cohort != pl.shard.cohort || p.misplacedLocked(pl) || !p.strangersLocked(pl.v, pl.shard) {
		// It was accused or released, called by a neighbour, or policy changed, while it was loading: not here.
		p.dropLocked(pl)
		return died
	}
	return nil
}

// dropLocked evicts a version that was loaded and has not served.
func (p *Pool) dropLocked(pl *place) {
	moved := &place{v: pl.v, shard: pl.shard, handle: pl.handle}
	pl.shard.hosted[pl.handle] = moved
	moved.gone.Store(true)
	go p.evict(moved)
}

// grace is how long WebSockets of a tenant that has been moved are let be.
func (p *Pool) grace() time.Duration {
	if pol := p.pol.Load(); pol != nil {
		return pol.Reshuffle.Grace
	}
	return 0
}

// mixShare is the part of their room that shards keep free on average where tenants are spread: one in so many.
const mixShare = 8

// crowded says whether another shard is to be opened for the tenants of a kind, a cordon and no cohort,
// though there is room. Only where there is room in most of the shards is the next tenant's place a matter of
// chance; where one alone had room, whoever starts tenants one after the other would know that they share it.
func crowded(w wanted, tenants, shards int) bool {
	most := w.shard.MaxTenants
	return w.spread > 1 && shards >= w.spread && tenants >= shards*(most-most/mixShare)
}

// mixLocked moves a fair share of those who are idle into a shard that was opened, so that when a tenant was
// started says nothing about where it is: each is in each shard with the same probability.
func (p *Pool) mixLocked(s *shard, w wanted) {
	if w.spread <= 1 || s.cohort != 0 {
		return
	}
	var list []move
	shards := 1
	for _, o := range p.shards {
		if o != s && o.alike(w) {
			shards++
		}
	}
	if shards <= w.spread {
		return // these are opened for the first tenants
	}
	for _, pl := range p.places {
		if pl.loaded() && pl.shard != s && pl.shard.alike(w) && rand.IntN(shards) == 0 {
			list = append(list, move{pl, s})
		}
	}
	p.moveSoonLocked(list...)
}

// alike says whether a shard is one of those that tenants of no cohort are spread over.
func (s *shard) alike(w wanted) bool {
	return s.used && s.cohort == 0 && s.kind == w.kind && s.cordon == w.cordon && !s.dead && !s.closed && !s.solo
}

// targetLocked is the shard that a place is to be moved to, if it may and can be there.
func (p *Pool) targetLocked(pl *place, w wanted, cohort uint64) *shard {
	s := pl.to
	if s == nil || cohort != 0 || !s.alike(w) || s.slots >= w.shard.MaxTenants || s.conn.Err() != nil || !p.strangersLocked(pl.v, s) {
		return nil
	}
	return s
}
