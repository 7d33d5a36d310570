package placement

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"bulkhead/policy"
	"bulkhead/policy/suspicion"
	"bulkhead/supervisor/tenants"
)

// Pool owns the shards. Safe for concurrent use.
type Pool struct {
	opt   Options
	start time.Time
	// ctx ends when the pool closes; all background work hangs on it.
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	// placed is the part of places that a request can use at once, read without a lock.
	placed sync.Map // *tenants.Version → *place

	mu      sync.Mutex
	places  map[*tenants.Version]*place // guarded by mu; loading ones and cached failures too
	current map[string]*tenants.Version // guarded by mu; what Retire said last
	shards  map[uint32]*shard           // guarded by mu; alive, as far as is known
	spawns  map[kind]*spawning          // guarded by mu
	// caches are the code caches of tenants' versions. forges are those to be made, by one goroutine, when no
	// load is under way.
	caches   caches
	forges   chan *tenants.Version
	starting atomic.Int32 // loads under way
	started  atomic.Int64 // ns since start at which the last one was over
	// standings holds what is held against tenants, by id.
	standings map[string]*standing // guarded by mu
	cohorts   uint64               // guarded by mu; last cohort given
	met       map[string]*met      // guarded by mu; by tenant
	apart     apart                // guarded by mu
	room      chan struct{}        // guarded by mu; closed and renewed when a slot became free
	closed    bool                 // guarded by mu
	moves     []move               // guarded by mu; to be made
	toMove    chan struct{}        // has one when moves has

	suspects suspects
	kills    map[string]uint64             // guarded by mu; limits exceeded by a tenant, as last seen
	stopped  sync.Map                      // tenant → why; those that may not run
	pol      atomic.Pointer[policy.Policy] // in force; nil: Options say all
}

// spawning is the state of making shards of one kind.
type spawning struct {
	done     chan struct{} // closed when the running attempt is over; nil when none runs
	err      error         // of the last attempt
	failures int           // in a row
	next     time.Time     // no attempt before
	timer    *time.Timer   // retries in the background
}

// New starts a pool; Warm waits for its first shard.
func New(opt Options) *Pool {
	p := &Pool{
		opt:       opt.withDefaults(),
		start:     time.Now(),
		places:    map[*tenants.Version]*place{},
		current:   map[string]*tenants.Version{},
		shards:    map[uint32]*shard{},
		spawns:    map[kind]*spawning{},
		caches:    newCaches(cacheBytes),
		forges:    make(chan *tenants.Version, forgeQueue),
		met:       map[string]*met{},
		standings: map[string]*standing{},
		kills:     map[string]uint64{},
		suspects:  suspects{standing: map[string]*suspicion.Standing{}, observed: map[string]suspicion.Signals{}},
		room:      make(chan struct{}),
		toMove:    make(chan struct{}, 1),
	}
	if opt.Policy != nil {
		p.pol.Store(opt.Policy)
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.wg.Go(p.sweep)
	p.wg.Go(p.forger)
	p.wg.Go(p.renew)
	p.wg.Go(p.mover)
	p.wg.Go(p.watchTenants)
	return p
}

// Warm makes the spare and waits for it: an error at the start, not at the first request.
func (p *Pool) Warm(ctx context.Context) error {
	for {
		p.mu.Lock()
		for _, s := range p.shards {
			if s.kind == p.first() {
				p.mu.Unlock()
				return nil
			}
		}
		sp := p.spawnLocked(p.first())
		done := sp.done
		if done == nil {
			err := &NoShardError{Err: sp.err, Retry: time.Until(sp.next)}
			p.mu.Unlock()
			return err
		}
		p.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Acquire returns a lease on v, loading it first if need be. Errors: *LoadError, *NoShardError,
// ErrFull, ErrStarting, ErrDraining, ctx's.
func (p *Pool) Acquire(ctx context.Context, v *tenants.Version) (Lease, error) {
	if x, ok := p.placed.Load(v); ok {
		if pl := x.(*place); p.take(pl) {
			return leaseOn(p, pl), nil
		}
	}
	// A place can vanish between its load and the lease; more than a few times in a row means
	// that its shards keep dying.
	var err error
	patience := time.NewTimer(v.Limits.Wall)
	defer patience.Stop()
	for range maxLoads {
		var pl *place
		if pl, err = p.find(v); err != nil {
			return Lease{}, err
		}
		select {
		case <-pl.ready:
		case <-ctx.Done():
			return Lease{}, ctx.Err()
		case <-patience.C:
			return Lease{}, ErrStarting
		}
		if pl.err != nil && !errors.Is(pl.err, errShardDied) {
			return Lease{}, pl.err
		}
		if pl.err == nil && p.take(pl) {
			return leaseOn(p, pl), nil
		}
		err = fmt.Errorf("load %s: %w", v.Tenant, errShardDied)
	}
	return Lease{}, err
}

// AcquireEarly is Acquire for a request that can go elsewhere if the load fails: where Acquire would
// wait for the end of a load, it returns a lease as soon as the shard takes requests (Lease.Early).
// A cold start is shorter by one crossing to the shard and back.
func (p *Pool) AcquireEarly(ctx context.Context, v *tenants.Version) (Lease, error) {
	if x, ok := p.placed.Load(v); ok {
		if pl := x.(*place); p.take(pl) {
			return leaseOn(p, pl), nil
		}
	}
	pl, err := p.find(v)
	if err != nil {
		return Lease{}, err
	}
	patience := time.NewTimer(v.Limits.Wall)
	defer patience.Stop()
	select {
	case <-pl.ready:
	case <-pl.begun:
		p.mu.Lock()
		l := leaseOn(p, pl)
		l.early = true
		ok := pl.open && !l.shard.dead && l.shard.conn.Err() == nil
		if ok {
			pl.refs.Add(1)
		}
		p.mu.Unlock()
		if ok {
			return l, nil
		}
	case <-ctx.Done():
		return Lease{}, ctx.Err()
	case <-patience.C:
		return Lease{}, ErrStarting
	}
	return p.Acquire(ctx, v)
}

// leaseOn makes a lease on a place that was taken.
func leaseOn(p *Pool, pl *place) Lease {
	return Lease{pool: p, pl: pl, shard: pl.shard, handle: pl.handle}
}

// take takes a lease on a loaded place whose shard lives.
func (p *Pool) take(pl *place) bool {
	if !pl.acquire() {
		p.giveBack(pl)
		return false
	}
	if pl.shard.conn.Err() == nil {
		return true
	}
	// The shard's own watcher is about to learn of it; requests need not wait for that.
	p.giveBack(pl)
	p.mu.Lock()
	p.buryLocked(pl.shard)
	p.mu.Unlock()
	return false
}

// giveBack ends a lease, or the attempt at one. The last one of a place that is on its way out sees
// it evicted.
func (p *Pool) giveBack(pl *place) {
	if pl.refs.Add(-1) == 0 && pl.retired.Load() && pl.loaded() {
		p.evictRetired(pl)
	}
}

// find returns the place of v, starting its load if there is none.
func (p *Pool) find(v *tenants.Version) (*place, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrDraining
	}
	if err := p.refused(v.Tenant); err != nil {
		return nil, err
	}
	if pl := p.places[v]; pl != nil {
		select {
		case <-pl.ready:
			if pl.err == nil && !pl.gone.Load() || pl.err != nil && time.Now().Before(pl.until) {
				return pl, nil
			}
		default:
			return pl, nil
		}
	}
	pl := &place{v: v, ready: make(chan struct{}), begun: make(chan struct{})}
	if cur, ok := p.current[v.Tenant]; ok && cur != v {
		pl.retired.Store(true) // a request that came before the change: serve it, then let go
	}
	p.places[v] = pl
	p.wg.Go(func() { p.load(pl) })
	return pl, nil
}

// loaded says whether the load is over and well.
func (pl *place) loaded() bool {
	select {
	case <-pl.ready:
		return pl.err == nil
	default:
		return false
	}
}

// loading says whether the load is still under way; err is to be read only when it is not.
func (pl *place) loading() bool {
	select {
	case <-pl.ready:
		return false
	default:
		return true
	}
}

// Close ends every shard. Leases still held see their streams end killed.
func (p *Pool) Close() {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.closed = true
	var stop []*shard
	for _, s := range p.shards {
		s.retiring = true
		stop = append(stop, s)
	}
	for _, sp := range p.spawns {
		if sp.timer != nil {
			sp.timer.Stop()
		}
	}
	p.freedLocked()
	p.mu.Unlock()
	p.cancel()
	for _, s := range stop {
		s.stop()
	}
	p.wg.Wait()
}

// Wait returns when no lease is held, or with ctx's error.
func (p *Pool) Wait(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for p.busy() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (p *Pool) busy() (n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.shards {
		for _, pl := range s.hosted {
			n += pl.refs.Load()
		}
	}
	return n
}
