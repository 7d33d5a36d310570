package placement

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
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
	forging sync.Mutex                    // held while a code cache is made
	caches  caches
	// standings holds what is held against tenants, by id.
	standings map[string]*standing // guarded by mu
	cohorts   uint64               // guarded by mu; last cohort given
	met       map[string]*met      // guarded by mu; by tenant
	room      chan struct{}        // guarded by mu; closed and renewed when a slot became free
	closed    bool                 // guarded by mu
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
		opt:       opt.withDefaults(),
		start:     time.Now(),
		places:    map[*tenants.Version]*place{},
		current:   map[string]*tenants.Version{},
		shards:    map[uint32]*shard{},
		spawns:    map[seccomp.Profile]*spawning{},
		caches:    caches{entries: map[cacheKey]*cached{}},
		met:       map[string]*met{},
		standings: map[string]*standing{},
		room:      make(chan struct{}),
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
// ErrFull, ErrStarting, ErrDraining, ctx's.
func (p *Pool) Acquire(ctx context.Context, v *tenants.Version) (Lease, error) {
	if x, ok := p.placed.Load(v); ok {
		if pl := x.(*place); p.take(pl) {
			return Lease{p, pl}, nil
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
			return Lease{p, pl}, nil
		}
		err = fmt.Errorf("load %s: %w", v.Tenant, errShardDied)
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
	case errors.As(err, &le) && le.Outcome != gen.Outcome_internalError && !le.unconfirmed && p.opt.OnRejected != nil:
		le.Instead = p.opt.OnRejected(pl.v, le.Failure)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	defer close(pl.ready)
	if err == nil && pl.shard.dead {
		err = fmt.Errorf("load %s: %w", pl.v.Tenant, errShardDied)
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
	p.opt.Observer.LogOften(level, "load "+pl.v.Tenant, "load failed", "tenant", pl.v.Tenant, "version", pl.v.Hash, "error", err.Error())
	var ns *NoShardError
	switch {
	case errors.As(err, &ns), errors.Is(err, ErrFull), errors.Is(err, ErrDraining):
		delete(p.places, pl.v) // not the version's fault: the next request tries again
		return 0
	case errors.Is(err, errDeadly):
		return 5 * time.Second
	case !errors.As(err, &le):
		delete(p.places, pl.v) // its shards died of others, as far as is known
		return 0
	case le.Outcome == gen.Outcome_exception && !le.unconfirmed:
		// The same code would most likely fail again; asking costs start-up CPU each time.
		return time.Minute
	default:
		return 5 * time.Second
	}
}

// errShardDied: the load went well and the shard died before it could serve.
var errShardDied = errors.New("its shard died")

// errDeadly marks a version that two shards did not survive, the last with nobody else in it.
var errDeadly = errors.New("it ended the shards it was started in")

const (
	maxLoads  = 6 // attempts at one load
	maxDeadly = 2 // of which so many may end or silence their shard before the version is blamed
	maxSolo   = 4 // shards kept for one load each at a time: no burst of processes after a death
)

// tryLoad makes several attempts. A shard may die, fall silent or lie because of another tenant,
// so after the first bad end the version gets a shard to itself: what happens there is its own
// doing. No request of it has begun, so trying again is safe.
func (p *Pool) tryLoad(pl *place) error {
	code, err := pl.v.Code(p.ctx)
	if stale, ok := errors.AsType[*tenants.StaleError](err); ok {
		// The request came before a change of the folder: what serves now serves it too.
		return &LoadError{Tenant: pl.v.Tenant, Outcome: gen.Outcome_internalError, Failure: gatewayside.LoadFailure{Message: err.Error()}, Instead: stale.Now}
	}
	if err != nil {
		return fmt.Errorf("load %s: %w", pl.v.Tenant, err)
	}
	var claim *LoadError // of a shard that others have been in
	alone, deadly, silent := false, 0, 0
	for range maxLoads {
		s, rerr := p.reserve(pl, alone)
		if rerr != nil {
			err = rerr
			break
		}
		var res gatewayside.LoadResult
		ctx, cancel := context.WithTimeout(p.ctx, pl.v.Limits.StartupCPU+loadGrace)
		req := p.loadRequest(s, pl, code)
		var forge bool
		if req.CodeCache, forge = p.caches.get(pl.v); forge {
			p.wg.Go(func() { p.forge(pl.v) })
		}
		res, err = s.conn.Load(ctx, req)
		cancel()
		p.mu.Lock()
		own := !s.mixed // nobody else has been in it
		p.mu.Unlock()
		switch {
		case err != nil:
			switch {
			case s.conn.Err() != nil:
				alone = s.blamed(p.ctx, pl)
				if alone {
					deadly++
				}
				if late, ok := errors.AsType[*gatewayside.OverdueError](s.conn.Err()); ok && late.Tenant == pl.handle && late.Stream == 0 {
					claim = startOverdue(pl, late, !own)
				}
			case errors.Is(err, context.DeadlineExceeded):
				s.fail(fmt.Errorf("load %s: %w", pl.v.Tenant, err))
				alone = true
				deadly++
				silent++
			default:
				alone = true
				// It neither loaded nor died. What it holds of the tenant is unknown, its other
				// tenants are well: it gets no more of them.
				p.mu.Lock()
				s.closed = true
				p.mu.Unlock()
			}
			p.vacate(pl)
			err = fmt.Errorf("load %s into shard %d: %w", pl.v.Tenant, s.proc.ID, err)
			if claim != nil && own {
				return claim // nobody else's word: not another shard for code that has had its CPU
			}
			if deadly >= maxDeadly && own || silent >= maxDeadly {
				return fmt.Errorf("%w: %w", errDeadly, err)
			}
		case res.Failed != nil:
			p.vacate(pl)
			alone = true
			claim = &LoadError{Tenant: pl.v.Tenant, Outcome: res.Failed.Outcome, Failure: *res.Failed, unconfirmed: !own}
			err = claim
			if own {
				return claim
			}
		default:
			if claim != nil {
				p.opt.Observer.LogOften(slog.LevelWarn, "lie "+pl.v.Tenant, "load succeeded after another shard refused it", "tenant", pl.v.Tenant,
					"shard", s.proc.ID, "refusal", claim.Failure.Message)
			}
			p.mu.Lock()
			s.solo = false
			p.gatherLocked(pl)
			p.mu.Unlock()
			return nil
		}
	}
	if claim != nil {
		return claim
	}
	return err
}

// reserve takes a slot for a place: in a shard that nobody has been in, if it is to be alone and
// that can be had.
func (p *Pool) reserve(pl *place, alone bool) (*shard, error) {
	profile := pl.v.Profile
	deadline := time.NewTimer(spawnTimeout)
	defer deadline.Stop()
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return nil, ErrDraining
		}
		cohort, next := p.cohortLocked(pl.v.Tenant)
		alone = alone && p.soloLocked() < maxSolo
		s := p.fitLocked(profile, cohort, alone)
		if s != nil && !s.used && time.Now().Before(next) {
			wait := time.Until(next)
			p.mu.Unlock()
			select {
			case <-time.After(wait):
				continue
			case <-p.ctx.Done():
				return nil, ErrDraining
			case <-deadline.C:
				return nil, &NoShardError{Err: errors.New("this worker has ended too many processes of late"), Retry: wait}
			}
		}
		if s != nil {
			if victim := p.overLocked(); victim != nil {
				p.wg.Go(func() { p.evict(victim) })
			}
			s.slots++
			s.used = true
			s.cohort = cohort
			s.solo = alone
			s.mixed = s.mixed || s.guest != "" && s.guest != pl.v.Tenant
			s.guest = pl.v.Tenant
			s.handles++
			pl.shard, pl.handle = s, s.handles
			s.hosted[pl.handle] = pl
			p.keepSpareLocked(profile)
			p.mu.Unlock()
			return s, nil
		}
		var done chan struct{}
		var failed error
		room := p.room
		if len(p.shards)+p.runningLocked() < p.ceiling(cohort) || p.spawns[profile] != nil && p.spawns[profile].done != nil {
			sp := p.spawnLocked(profile)
			done = sp.done
			if done == nil {
				failed = &NoShardError{Err: sp.err, Retry: max(0, time.Until(sp.next))}
			}
		}
		if alone && done == nil {
			alone = false
			p.mu.Unlock()
			continue
		}
		var victim *place
		if done == nil {
			if victim = p.idlestLocked(func(s *shard) bool { return s.profile == profile && s.cohort == cohort }); victim == nil {
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

// ceiling is how many shards there may be for the sake of this cohort: some are kept for suspects,
// who cannot be put with others when all are taken.
func (p *Pool) ceiling(cohort uint64) int {
	if cohort != 0 {
		return p.opt.MaxShards
	}
	return p.opt.MaxShards - p.opt.MaxShards/8
}

// fitLocked chooses at random among the shards of the cohort that have room, so that nobody can
// choose his neighbours, and falls back on a spare; alone takes a spare or nothing. While few shards
// are in use spares come first: the death of one then costs fewer tenants a new start.
func (p *Pool) fitLocked(profile seccomp.Profile, cohort uint64, alone bool) *shard {
	var fit []*shard
	var spare *shard
	inUse, spread := 0, 0
	for _, s := range p.shards {
		if s.used {
			inUse++
		}
		switch {
		case s.profile != profile || s.dead || s.closed || s.solo || s.slots >= p.opt.Shard.MaxTenants || s.conn.Err() != nil:
		case !s.used:
			spare = s
		case s.cohort == cohort:
			fit = append(fit, s)
			spread++
		}
	}
	thin := cohort == 0 && spread < p.opt.Spread && spare != nil && inUse < p.ceiling(cohort)
	if len(fit) > 0 && !alone && !thin {
		return fit[rand.IntN(len(fit))]
	}
	if inUse >= p.ceiling(cohort) {
		return nil
	}
	return spare
}

// soloLocked counts the shards that are kept for one load.
func (p *Pool) soloLocked() (n int) {
	for _, s := range p.shards {
		if s.solo {
			n++
		}
	}
	return n
}

// startOverdue is the answer for a version whose start-up could only be stopped with its process.
func startOverdue(pl *place, late *gatewayside.OverdueError, unconfirmed bool) *LoadError {
	return &LoadError{unconfirmed: unconfirmed, Tenant: pl.v.Tenant, Outcome: gen.Outcome_exceededCpu, Failure: gatewayside.LoadFailure{
		Outcome: gen.Outcome_exceededCpu, Message: fmt.Sprintf("start-up exceeded its CPU limit of %d ms: used %.1f ms inside one operation that cannot be interrupted",
			late.Limit.Milliseconds(), float64(late.CPU.Microseconds())/1000)}}
}

func (p *Pool) shuffle(ids []string) {
	rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
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
