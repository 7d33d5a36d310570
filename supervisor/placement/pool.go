package placement

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"bulkhead/ipc/gatewayside"
	"bulkhead/policy/seccomp"
	"bulkhead/schema/gen"
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
	places  map[*tenants.Version]*place   // guarded by mu; loading ones and cached failures too
	current map[string]*tenants.Version   // guarded by mu; what Retire said last
	shards  map[uint32]*shard             // guarded by mu; alive, as far as is known
	spawns  map[seccomp.Profile]*spawning // guarded by mu
	room    chan struct{}                 // guarded by mu; closed and renewed when a slot became free
	closed  bool                          // guarded by mu
}

// spawning is the state of making shards of one profile.
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
		opt:     opt.withDefaults(),
		start:   time.Now(),
		places:  map[*tenants.Version]*place{},
		current: map[string]*tenants.Version{},
		shards:  map[uint32]*shard{},
		spawns:  map[seccomp.Profile]*spawning{},
		room:    make(chan struct{}),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.wg.Go(p.sweep)
	return p
}

// Warm makes the spare and waits for it: an error at the start, not at the first request.
func (p *Pool) Warm(ctx context.Context) error {
	for {
		p.mu.Lock()
		for _, s := range p.shards {
			if s.profile == p.opt.Profile {
				p.mu.Unlock()
				return nil
			}
		}
		sp := p.spawnLocked(p.opt.Profile)
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
// ErrFull, ErrDraining, ctx's.
func (p *Pool) Acquire(ctx context.Context, v *tenants.Version) (Lease, error) {
	if x, ok := p.placed.Load(v); ok {
		if pl := x.(*place); p.take(pl) {
			return Lease{p, pl}, nil
		}
	}
	// A place can vanish between its load and the lease; more than a few times in a row means
	// that its shards keep dying.
	var err error
	for range 3 {
		var pl *place
		if pl, err = p.find(v); err != nil {
			return Lease{}, err
		}
		select {
		case <-pl.ready:
		case <-ctx.Done():
			return Lease{}, ctx.Err()
		}
		if pl.err != nil {
			return Lease{}, pl.err
		}
		if p.take(pl) {
			return Lease{p, pl}, nil
		}
		err = fmt.Errorf("load %s: its shard died", v.Tenant)
	}
	return Lease{}, err
}

// take takes a lease on a loaded place whose shard lives.
func (p *Pool) take(pl *place) bool {
	if !pl.acquire() {
		return false
	}
	if pl.shard.conn.Err() == nil {
		return true
	}
	// The shard's own watcher is about to learn of it; requests need not wait for that.
	pl.refs.Add(-1)
	p.mu.Lock()
	p.buryLocked(pl.shard)
	p.mu.Unlock()
	return false
}

// find returns the place of v, starting its load if there is none.
func (p *Pool) find(v *tenants.Version) (*place, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrDraining
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
	pl := &place{v: v, ready: make(chan struct{})}
	if cur, ok := p.current[v.Tenant]; ok && cur != v {
		pl.retired.Store(true) // a request that came before the change: serve it, then let go
	}
	p.places[v] = pl
	p.wg.Go(func() { p.load(pl) })
	return pl, nil
}

// load brings a version into a shard. It runs apart from the requests that wait for it, so that
// a client that leaves does not undo it for the others.
func (p *Pool) load(pl *place) {
	began := time.Now()
	err := p.tryLoad(pl)
	var le *LoadError
	switch {
	case err == nil && p.opt.OnStarted != nil:
		p.opt.OnStarted(pl.v)
	case errors.As(err, &le) && le.Outcome != gen.Outcome_internalError && p.opt.OnRejected != nil:
		le.Instead = p.opt.OnRejected(pl.v, le.Failure)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	defer close(pl.ready)
	if err == nil && pl.shard.dead {
		err = fmt.Errorf("load %s: its shard died", pl.v.Tenant)
	}
	if err != nil {
		pl.err = err
		pl.until = time.Now().Add(p.failed(pl, err))
		return
	}
	pl.lastUsed.Store(int64(time.Since(p.start)))
	p.placed.Store(pl.v, pl)
	p.opt.Observer.Metrics.Loaded(time.Since(began))
	if pl.retired.Load() {
		// The waiters take their leases in a moment; the sweep evicts it if none does.
		pl.lastUsed.Store(int64(time.Since(p.start) - p.opt.IdleEvict + time.Second))
	}
}

// failed notes a failed load and says how long it stays the answer. Caller holds mu.
func (p *Pool) failed(pl *place, err error) time.Duration {
	p.opt.Observer.Metrics.Event("loadFailed")
	var le *LoadError
	level := slog.LevelError
	if errors.As(err, &le) && le.Instead != nil {
		level = slog.LevelDebug // whom OnRejected told says it, with the place in the source
	}
	p.opt.log().Log(p.ctx, level, "load failed", "tenant", pl.v.Tenant, "version", pl.v.Hash, "error", err.Error())
	var ns *NoShardError
	switch {
	case errors.As(err, &ns), errors.Is(err, ErrFull), errors.Is(err, ErrDraining):
		delete(p.places, pl.v) // not the version's fault: the next request tries again
		return 0
	case !errors.As(err, &le):
		return 5 * time.Second // two shards did not survive it or would not have it
	}
	// The same code would most likely fail again; asking costs start-up CPU each time.
	switch le.Outcome {
	case gen.Outcome_exception:
		return time.Minute
	default:
		return 5 * time.Second
	}
}

// tryLoad makes at most two attempts: a shard may die, of another tenant, during the first.
func (p *Pool) tryLoad(pl *place) error {
	var err error
	for range 2 {
		var s *shard
		if s, err = p.reserve(pl.v.Profile); err != nil {
			return err
		}
		p.mu.Lock()
		s.handles++
		pl.shard, pl.handle = s, s.handles
		s.hosted[pl.handle] = pl
		p.mu.Unlock()

		var res gatewayside.LoadResult
		ctx, cancel := context.WithTimeout(p.ctx, pl.v.Limits.StartupCPU+loadGrace)
		res, err = s.conn.Load(ctx, p.loadRequest(s, pl))
		cancel()
		switch {
		case err != nil:
			switch {
			case s.conn.Err() != nil:
				// Died; whether of this tenant is not known. Two shards in a row are enough.
				p.lost(pl)
			case errors.Is(err, context.DeadlineExceeded):
				s.fail(fmt.Errorf("load %s: %w", pl.v.Tenant, err))
			default:
				// It neither loaded nor died. What it holds of the tenant is unknown, its other
				// tenants are well: it gets no more of them.
				p.mu.Lock()
				s.closed = true
				p.mu.Unlock()
			}
			p.vacate(pl)
			err = fmt.Errorf("load %s into shard %d: %w", pl.v.Tenant, s.proc.ID, err)
			continue
		case res.Failed != nil:
			p.vacate(pl)
			return &LoadError{Tenant: pl.v.Tenant, Outcome: res.Failed.Outcome, Failure: *res.Failed}
		}
		return nil
	}
	return err
}

// reserve takes a slot in a shard of the profile.
func (p *Pool) reserve(profile seccomp.Profile) (*shard, error) {
	deadline := time.NewTimer(spawnTimeout)
	defer deadline.Stop()
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return nil, ErrDraining
		}
		if s := p.fitLocked(profile); s != nil {
			s.slots++
			s.used = true
			p.keepSpareLocked(profile)
			p.mu.Unlock()
			return s, nil
		}
		var done chan struct{}
		var failed error
		room := p.room
		if len(p.shards)+p.runningLocked() < p.opt.MaxShards || p.spawns[profile] != nil && p.spawns[profile].done != nil {
			sp := p.spawnLocked(profile)
			done = sp.done
			if done == nil {
				failed = &NoShardError{Err: sp.err, Retry: max(0, time.Until(sp.next))}
			}
		}
		var victim *place
		if done == nil {
			if victim = p.idlestLocked(profile); victim == nil {
				p.mu.Unlock()
				if failed != nil {
					return nil, failed
				}
				return nil, ErrFull
			}
		}
		p.mu.Unlock()
		if victim != nil {
			p.evict(victim)
			continue
		}
		select {
		case <-done:
		case <-room:
		case <-p.ctx.Done():
			return nil, ErrDraining
		case <-deadline.C:
			return nil, &NoShardError{Err: errors.New("the launcher did not answer in time")}
		}
	}
}

// fitLocked chooses at random among the shards in use that have room, so that nobody can choose
// his neighbours, and falls back on a spare.
func (p *Pool) fitLocked(profile seccomp.Profile) *shard {
	var fit []*shard
	var spare *shard
	for _, s := range p.shards {
		switch {
		case s.profile != profile || s.dead || s.closed || s.slots >= p.opt.Shard.MaxTenants || s.conn.Err() != nil:
		case s.used:
			fit = append(fit, s)
		default:
			spare = s
		}
	}
	if len(fit) > 0 {
		return fit[rand.IntN(len(fit))]
	}
	return spare
}

// lost notes that a request or a load of pl ended with its shard.
func (p *Pool) lost(pl *place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := pl.shard; !slices.Contains(s.lost, pl.v.Tenant) {
		s.lost = append(s.lost, pl.v.Tenant)
	}
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
