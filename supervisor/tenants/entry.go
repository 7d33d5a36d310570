package tenants

import (
	"bytes"
	"compress/flate"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"bulkhead/policy"
	"bulkhead/policy/seccomp"
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

// ensure has the tenant built if it is not being built. The channel is closed when that is over.
func (r *Registry) ensure(e *entry) <-chan struct{} {
	e.mu.Lock()
	if e.life != nil && e.building {
		defer e.mu.Unlock()
		return e.done
	}
	e.mu.Unlock()
	return r.build(e)
}

// build has the tenant built; if it is being built, once more after that. The channel is closed
// when the build that runs now is over.
func (r *Registry) build(e *entry) <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.lively()
	if l.building {
		l.again = true
		return l.done
	}
	l.done = make(chan struct{})
	if e.gone.Load() || r.ctx.Err() != nil {
		close(l.done)
		return l.done
	}
	var ctx context.Context
	ctx, l.cancel = context.WithCancel(r.ctx)
	l.building = true
	r.wg.Go(func() { r.builds(ctx, e) })
	return l.done
}

// builds builds until there is no change left that no build has seen.
func (r *Registry) builds(ctx context.Context, e *entry) {
	for {
		if ctx.Err() == nil {
			r.buildOnce(ctx, e)
		}
		e.mu.Lock()
		done, over := e.done, !e.again || ctx.Err() != nil
		e.again = false
		if over {
			e.building = false
			e.cancel()
			e.cancel = nil
		} else {
			e.done = make(chan struct{})
		}
		e.mu.Unlock()
		close(done)
		if over {
			return
		}
	}
}

const (
	maxRest = 30 * time.Second
	// Backoff of builds that failed through no fault of the folder, doubling.
	retryFirst = time.Second
	retryLast  = time.Minute
)

// retryLater has a folder built again that the machinery failed. Nothing else would: the folder
// has no reason to change.
func (r *Registry) retryLater(e *entry, failed bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !failed {
		e.failures = 0
		return
	}
	wait := min(retryFirst<<min(e.failures, 10), retryLast)
	e.failures++
	time.AfterFunc(wait, func() { r.build(e) })
}

// buildOnce reads, bundles and publishes.
func (r *Registry) buildOnce(ctx context.Context, e *entry) {
	// Watched before it is read: a change in between is then seen by the watcher.
	r.watch.watch(e)
	print := fingerprint(r.folder(e))
	e.mu.Lock()
	e.print = print
	e.mu.Unlock()
	begin := time.Now()
	v, m, warnings := r.make(ctx, e)
	if ctx.Err() != nil {
		return
	}
	if v.Err == nil {
		v.code = r.shelf.add(e.id+"-"+v.Hash, v.Bundle, v.maps.packed)
		v.Bundle, v.maps.packed = nil, nil
	}
	if m != nil && r.setRoutes(e, m.Routes) {
		r.retable()
	}
	v.Routes = e.patterns()
	r.retryLater(e, v.machinery)
	for _, w := range warnings[:min(len(warnings), maxReported)] {
		r.once(Report{Kind: ReportWarning, Tenant: e.id, Message: w.Message, Diagnostics: []Diagnostic{w}})
	}
	r.publish(e, v, time.Since(begin))
}

// bundle makes the folder's bundle: in a sealed bundler, when one is free, or of the one file that
// is a bundle by itself. Where few tenants are built at the start, the bundler looks at each: it
// says more, and sooner, of what is wrong.
func (r *Registry) bundle(ctx context.Context, e *entry, root *os.Root, m *manifest.Manifest) (BundleOutput, error) {
	if !r.cfg.Dev && r.Len() > r.cfg.Eager {
		read := func(name string) ([]byte, error) { return manifest.ReadFile(root, name, maxPlain) }
		if out, ok := plain(read, m); ok {
			return out, nil
		}
	}
	e.mu.Lock()
	rest := time.Until(e.rest)
	e.mu.Unlock()
	if rest > 0 {
		select {
		case <-time.After(rest):
		case <-ctx.Done():
		}
	}
	select {
	case r.slots <- struct{}{}:
	case <-ctx.Done():
		return BundleOutput{}, ctx.Err()
	}
	begin := time.Now()
	out, err := r.cfg.Bundle(ctx, e.root, e.id)
	<-r.slots
	if !r.cfg.Dev {
		e.mu.Lock()
		// Who changes all the time gets a bundler half of the time, not all of it.
		e.rest = time.Now().Add(min(time.Since(begin), maxRest))
		e.mu.Unlock()
	}
	return out, err
}

// make builds a version from the folder as it is now, with its code still in it.
func (r *Registry) make(ctx context.Context, e *entry) (*Version, *manifest.Manifest, []Diagnostic) {
	root, m, err := openFolder(r.folder(e))
	if root != nil {
		defer root.Close()
	}
	if err != nil {
		return r.failed(e, StepConfig, fromError(err)), nil, nil
	}
	var warnings []Diagnostic
	for _, w := range m.Warnings {
		warnings = append(warnings, fromDoc(w))
	}
	out, err := r.bundle(ctx, e, root, m)
	if err != nil {
		v := r.failed(e, StepBundle, []Diagnostic{{Message: err.Error()}})
		v.machinery = true
		return v, m, warnings
	}
	warnings = append(warnings, out.Warnings...)
	if len(out.Errors) > 0 {
		return r.failed(e, StepBundle, out.Errors), m, warnings
	}
	t := r.pol.Load().For(e.id)
	if d := refuse(out, t); d != nil {
		return r.failed(e, StepBundle, []Diagnostic{*d}), m, warnings
	}
	v := &Version{Tenant: e.id, Limits: t.Limits, Profile: t.Profile, Dev: r.cfg.Dev, Made: time.Now(), folder: r.folder(e), maps: newMapper(), again: r.again}

	for _, x := range m.Env {
		v.Env = append(v.Env, EnvVar(x))
	}
	v.Hash = versionHash(out, v)
	for i := range out.Modules {
		if sm := out.Modules[i].SourceMap; len(sm) > 0 && !v.maps.keep(out.Modules[i].Name, sm) {
			warnings = append(warnings, Diagnostic{Message: "a source map is too large and was left out: errors will name places in the bundle"})
		}
		out.Modules[i].SourceMap = nil
	}
	if len(v.maps.names) == 0 && out.Main == "/"+m.Main {
		v.maps.plain = out.Main
	}
	if v.Bundle, err = EncodeBundle(out.Main, out.Modules); err != nil {
		return r.failed(e, StepBundle, []Diagnostic{{Message: err.Error()}}), m, warnings
	}
	return v, m, warnings
}

// refuse says why policy does not let this bundle run.
func refuse(out BundleOutput, t policy.TenantPolicy) *Diagnostic {
	size := 0
	for _, m := range out.Modules {
		size += len(m.Code)
		if m.Kind == gen.Module_Kind_wasm && (!t.Limits.Wasm || t.Profile != seccomp.JITWasm) {
			return &Diagnostic{File: m.Name[1:], Message: "imports WebAssembly, which the policy does not allow for this tenant; the operator can allow it by profile: jit+wasm and limits: {wasm: true} under tenants in the policy"}
		}
	}
	if size > t.Limits.ScriptSize {
		return &Diagnostic{Message: fmt.Sprintf("the bundle has %s, the limit (scriptSize) is %s; import less, or ask the operator for more",
			policy.FormatBytes(uint64(size)), policy.FormatBytes(uint64(t.Limits.ScriptSize)))}
	}
	return nil
}

// versionHash covers all a shard is given, so that equal hashes mean equal behaviour.
func versionHash(out BundleOutput, v *Version) string {
	h := sha256.New()
	put := func(b []byte) {
		var n [8]byte
		binary.LittleEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	put([]byte(out.Main))
	for _, m := range out.Modules {
		put([]byte(m.Name))
		put([]byte{byte(m.Kind)})
		put(m.Code)
	}
	for _, x := range v.Env {
		put([]byte(x.Name))
		put(fmt.Append(nil, x.JSON))
		put([]byte(x.Value))
	}
	put(fmt.Appendf(nil, "%+v %s", v.Limits, v.Profile))
	return short(h)
}

func short(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)[:8]) }

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

func deflate(b []byte) []byte {
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestSpeed)
	if err != nil {
		panic("BUG: flate level: " + err.Error())
	}
	if _, err = w.Write(b); err == nil {
		err = w.Close()
	}
	if err != nil {
		panic("BUG: writing to memory failed: " + err.Error())
	}
	return out.Bytes()
}

// inflate is bounded: a map was bounded before it was deflated.
func inflate(b []byte) ([]byte, error) {
	return io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(b)), MaxResultBytes))
}
