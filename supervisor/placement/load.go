package placement

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"bulkhead/ipc/gatewayside"
	"bulkhead/policy/suspicion"
	"bulkhead/schema/gen"
	"bulkhead/supervisor/tenants"
)

// load brings a version into a shard. It runs apart from the requests that wait for it, so that
// a client that leaves does not undo it for the others.
func (p *Pool) load(pl *place) {
	began := time.Now()
	p.starting.Add(1)
	err := p.tryLoad(pl)
	p.started.Store(int64(time.Since(p.start)))
	p.starting.Add(-1)
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
	if err == nil {
		err = p.settleLocked(pl)
	}
	if err != nil {
		pl.err = err
		pl.until = time.Now().Add(p.failed(pl, err))
		return
	}
	pl.lastUsed.Store(int64(time.Since(p.start)))
	p.placed.Store(pl.v, pl)
	p.opt.Observer.Metrics.Loaded(time.Since(began))
	p.Observed(pl.v.Tenant, suspicion.Churn, 1)
	if pl.retired.Load() {
		// The waiters take their leases in a moment; the sweep evicts it if none does.
		pl.lastUsed.Store(int64(time.Since(p.start) - p.idleEvict() + time.Second))
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
	var traits suspicion.Signals
	traits[suspicion.Traits] = suspicion.TraitsOf(code)
	p.suspects.add(pl.v.Tenant, traits)
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
		if req.Env, err = p.withSecrets(pl.v.Tenant, req.Env); err != nil {
			cancel()
			p.vacate(pl)
			return &LoadError{Tenant: pl.v.Tenant, Outcome: gen.Outcome_internalError, Failure: gatewayside.LoadFailure{Message: err.Error()}}
		}
		req.Begun = func() { p.begun(pl) }
		var forge bool
		if req.CodeCache, forge = p.caches.get(pl.v); forge {
			p.wantCache(pl.v)
		}
		res, err = s.conn.Load(ctx, req)
		cancel()
		p.mu.Lock()
		pl.open = false // the attempt is over; if it went well, ready is about to be closed
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

// begun lets requests for a place go to the shard that is loading it.
func (p *Pool) begun(pl *place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pl.open = true
	select {
	case <-pl.begun:
	default:
		close(pl.begun)
	}
}

// reserve takes a slot for a place: in a shard that nobody has been in, if it is to be alone and
// that can be had.
func (p *Pool) reserve(pl *place, alone bool) (*shard, error) {
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
		w := p.wants(pl.v)
		s := p.targetLocked(pl, w, cohort)
		if s == nil || alone {
			s = p.fitLocked(pl.v, w, cohort, alone)
		}
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
			opened := !s.used
			s.used = true
			s.cohort = cohort
			s.cordon = w.cordon
			s.solo = alone
			if opened && !alone {
				p.mixLocked(s, w)
			}
			s.mixed = s.mixed || s.guest != "" && s.guest != pl.v.Tenant
			s.guest = pl.v.Tenant
			s.handles++
			pl.shard, pl.handle = s, s.handles
			s.hosted[pl.handle] = pl
			p.keepSpareLocked(w.kind)
			p.mu.Unlock()
			return s, nil
		}
		var done chan struct{}
		var failed error
		room := p.room
		if len(p.shards)+p.runningLocked() < p.ceiling(cohort) || p.spawns[w.kind] != nil && p.spawns[w.kind].done != nil {
			sp := p.spawnLocked(w.kind)
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
			if victim = p.idlestLocked(func(s *shard) bool {
				return s.kind == w.kind && s.cordon == w.cordon && s.cohort == cohort && p.strangersLocked(pl.v, s)
			}); victim == nil {
				yielding := failed == nil && p.yieldLocked(w)
				p.mu.Unlock()
				if yielding {
					if err := p.await(room, deadline.C); err != nil {
						return nil, err
					}
					continue
				}
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
func (p *Pool) fitLocked(v *tenants.Version, w wanted, cohort uint64, alone bool) *shard {
	var fit []*shard
	var spare *shard
	inUse, spread, alike, there := 0, 0, 0, 0
	for _, s := range p.shards {
		if s.used {
			inUse++
		}
		if cohort == 0 && s.alike(w) {
			alike++
			there += s.slots
		}
		switch {
		case s.kind != w.kind || s.dead || s.closed || s.solo || s.slots >= w.shard.MaxTenants || s.conn.Err() != nil:
		case !s.used:
			spare = s
		case s.cohort == cohort && s.cordon == w.cordon:
			spread++
			if p.strangersLocked(v, s) {
				fit = append(fit, s)
			}
		}
	}
	thin := cohort == 0 && (spread < w.spread || crowded(w, there, alike)) && spare != nil && inUse < p.ceiling(cohort)
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
