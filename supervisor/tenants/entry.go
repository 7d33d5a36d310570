package tenants

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"bulkhead/schema/gen"
	"bulkhead/supervisor/tenants/manifest"
)

const outcomeNotLoaded = gen.Outcome_notLoaded

// entry is one tenant over time. There may be a hundred thousand of them of whom nobody ever asks, so
// what only those need that were built is apart, in life.
type entry struct {
	id   string
	root int

	current atomic.Pointer[Version] // what Lookup answers; nil until the first build
	used    atomic.Uint32           // Registry.clock at the last Lookup
	asleep  atomic.Bool             // not watched, although it was built
	gone    atomic.Bool             // its folder is gone
	wanted  atomic.Int32            // requests that wait for the first build

	mu     sync.Mutex
	claims []manifest.Route // guarded by mu
	*life                   // guarded by mu; nil before the first build
}

// life is what an entry has from its first build on. Guarded by the entry's mu.
type life struct {
	good     *Version           // the last that could be bundled and was not rejected
	started  *Version           // the last a shard has started
	broken   *StartError        // why the newest is not the current one
	rejected map[string]bool    // hashes that failed to start since the folder last changed; nil for none
	building bool               //
	again    bool               // it changed while it was being built
	watched  bool               // set up once, by the first build
	done     chan struct{}      // closed with the running build; nil if none ever ran
	cancel   context.CancelFunc // ends the running build
	waking   chan struct{}      // closed when it is watched again; nil if nobody woke it
	walk     sync.Mutex         // held while its directories are watched or given back; not guarded
	timer    *time.Timer        // debounce
	rest     time.Time          // no bundler before, so that the others get them
	failures int                // of the machinery, in a row
	print    uint64             // fingerprint before the last build
	since    time.Time          // first change the timer waits for
}

// lively returns the entry's life, begun if need be. Caller holds mu.
func (e *entry) lively() *life {
	if e.life == nil {
		e.life = &life{}
	}
	return e.life
}

// tree is held by whoever watches the entry's directories, or stops to.
func (e *entry) tree() *sync.Mutex {
	e.mu.Lock()
	defer e.mu.Unlock()
	return &e.lively().walk
}

// remove ends what goes on for a tenant whose folder is gone, and returns the versions it had.
func (e *entry) remove() []*Version {
	e.gone.Store(true)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.life == nil {
		return nil
	}
	if e.cancel != nil {
		e.cancel()
	}
	if e.timer != nil {
		e.timer.Stop()
	}
	return e.versions()
}

// versions are those that may be served, now or again. Caller holds mu.
func (e *entry) versions() (out []*Version) {
	for _, v := range []*Version{e.current.Load(), e.good, e.started} {
		if v != nil && v.code != nil && !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

func (e *entry) routes() []manifest.Route {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.claims
}

func (e *entry) patterns() []string {
	var out []string
	for _, r := range e.routes() {
		out = append(out, r.Pattern)
	}
	return out
}

func (e *entry) info() Info {
	i := Info{ID: e.id, Root: e.root, State: "idle", Routes: e.patterns()}
	v := e.current.Load()
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case v == nil && e.life != nil && e.building:
		i.State = "pending"
	case v == nil:
	case v.Err != nil:
		i.State, i.Err, i.Made = "failed", v.Err, v.Made
	default:
		i.State, i.Version, i.Made = "ready", v.Hash, v.Made
		if e.life != nil && e.broken != nil {
			i.State, i.Err = "stale", e.broken
		}
	}
	return i
}

// publish makes v the current version, or keeps the last good one if v is broken.
func (r *Registry) publish(e *entry, v *Version, took time.Duration) {
	e.mu.Lock()
	e.lively()
	before := e.versions()
	old := e.current.Load()
	change := true
	switch {
	case v.Err != nil && !r.cfg.Dev && e.good != nil:
		e.broken = v.Err
		change = false
	case v.Err != nil:
		e.broken = nil
		e.current.Store(v)
	case e.rejected[v.Hash] && old != nil && old.Err == nil:
		// The same code that failed to start before: what was decided then holds.
		change = false
	default:
		same := old != nil && old.Err == nil && old.Hash == v.Hash
		e.broken = nil
		if same && slices.Equal(old.Routes, v.Routes) {
			change = false
		} else {
			clear(e.rejected)
			e.current.Store(v)
			e.good = v
		}
	}
	r.keep(e, append(before, v))
	e.mu.Unlock()
	switch {
	case v.Err != nil:
		r.reportBroken(e, v.Err, !change)
	case change:
		r.report(Report{Kind: ReportVersion, Tenant: e.id, Version: v.Hash, Took: took, Message: "version " + v.Hash + " is served"})
	}
	if change {
		r.changed(e.id)
	}
}

// keep lets the code go of versions that cannot serve any more. What was made once more, because
// it was no longer in memory, goes to the version that had it first. Caller holds e.mu.
func (r *Registry) keep(e *entry, all []*Version) {
	now := e.versions()
	for _, v := range all {
		if v.code == nil || slices.Contains(now, v) {
			continue
		}
		for _, other := range now {
			if other.Hash == v.Hash {
				if b, maps := r.shelf.get(v.code); b != nil {
					r.shelf.fill(other.code, b, maps)
				}
			}
		}
		r.shelf.forget(v.code)
	}
}

func (r *Registry) reportBroken(e *entry, err *StartError, kept bool) {
	msg := err.Step + " failed"
	if kept {
		msg += "; the last good version keeps serving"
	}
	r.report(Report{Kind: ReportBroken, Tenant: e.id, Message: msg, Diagnostics: err.Diagnostics[:min(len(err.Diagnostics), maxReported)]})
}

// Reject is told by placement that a shard could not start v: outcome and diagnostic are the
// shard's, places in the bundle; they are mapped to the source here. In dev, and when there is no
// earlier version that started, the error becomes the tenant's answer; otherwise the last good
// version serves again. It returns the version to use now.
func (r *Registry) Reject(v *Version, outcome gen.Outcome, d Diagnostic, stack string) *Version {
	serr := &StartError{Tenant: v.Tenant, Step: StepStart, Outcome: outcome, Diagnostics: []Diagnostic{v.MapDiagnostic(v.placed(d, stack))}, Stack: v.MapStack(clean(stack))}
	e := r.entry(v.Tenant)
	if e == nil {
		gone := *v
		gone.Err = serr
		return &gone
	}
	e.mu.Lock()
	e.lively()
	if now := e.current.Load(); now == nil || now.Hash != v.Hash || now.Err != nil {
		e.mu.Unlock() // it was replaced, or rejected, in the meantime
		if now != nil {
			return now
		}
		gone := *v
		gone.Err = serr
		return &gone
	}
	if e.started != nil && e.started.Hash == v.Hash && !r.cfg.Dev {
		// The same code has started before, so it may again: this answer is not for ever.
		e.mu.Unlock()
		gone := *v
		gone.Err = serr
		return &gone
	}
	before := e.versions()
	if e.rejected == nil {
		e.rejected = map[string]bool{}
	}
	e.rejected[v.Hash] = true
	var next *Version
	if prev := e.started; prev != nil && prev.Hash != v.Hash && !r.cfg.Dev && (prev.code == nil || prev.code.kept()) {
		next = prev
		e.good, e.broken = prev, serr
	} else {
		bad := *v
		bad.Err, bad.Bundle, bad.code, bad.Hash = serr, nil, nil, ""
		next = &bad
		e.good = nil
	}
	e.current.Store(next)
	r.keep(e, before)
	e.mu.Unlock()
	r.reportBroken(e, serr, next.Err == nil)
	r.changed(e.id)
	return next
}

// Started is told by placement that a shard started v. From now on v is what a later version
// that cannot start falls back to.
func (r *Registry) Started(v *Version) {
	if e := r.entry(v.Tenant); e != nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.lively()
		if now := e.current.Load(); now != nil && now.Hash == v.Hash {
			before := e.versions()
			e.started = now
			r.keep(e, before)
		}
	}
}
