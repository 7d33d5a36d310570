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

// entry is one tenant over time.
type entry struct {
	id     string
	root   int
	folder string
	ctx    context.Context // ends when the folder is gone or the registry ends
	remove context.CancelFunc

	current atomic.Pointer[Version] // what Lookup answers; nil until the first build
	ready   chan struct{}           // closed with the first build, or when the tenant goes

	mu       sync.Mutex
	claims   []manifest.Route // guarded by mu
	good     *Version         // guarded by mu: the last that could be bundled and was not rejected
	started  *Version         // guarded by mu: the last a shard has started
	broken   *StartError      // guarded by mu: why the newest is not the current one
	rejected map[string]bool  // guarded by mu: hashes that failed to start since the folder last changed
	building bool             // guarded by mu
	again    bool             // guarded by mu: it changed while it was being built
	watched  bool             // guarded by mu: set up once, by the first build
	closed   bool             // guarded by mu: ready is closed
	timer    *time.Timer      // guarded by mu: debounce
	rest     time.Time        // guarded by mu: no build before, so that the others get the bundlers
	failures int              // guarded by mu: of the machinery, in a row
	print    uint64           // guarded by mu: fingerprint when notifications were lost last
	since    time.Time        // guarded by mu: first change the timer waits for
}

func newEntry(ctx context.Context, id string, root int, folder string) *entry {
	e := &entry{id: id, root: root, folder: folder, ready: make(chan struct{}), rejected: map[string]bool{}}
	e.ctx, e.remove = context.WithCancel(ctx)
	context.AfterFunc(e.ctx, e.markReady)
	return e
}

func (e *entry) markReady() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.closed {
		e.closed = true
		close(e.ready)
	}
}

func (e *entry) routes() []manifest.Route {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.claims
}

// setRoutes says whether they changed.
func (e *entry) setRoutes(rs []manifest.Route) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if slices.Equal(e.claims, rs) {
		return false
	}
	e.claims = rs
	return true
}

func (e *entry) patterns() []string {
	var out []string
	for _, r := range e.routes() {
		out = append(out, r.Pattern)
	}
	return out
}

// readRoutes takes the routes from the manifest before anything is built. What is wrong with the
// manifest is reported by the build.
func (e *entry) readRoutes() {
	root, m, err := openFolder(e.folder)
	if root != nil {
		defer root.Close()
	}
	if err == nil {
		e.setRoutes(m.Routes)
	}
}

func (e *entry) info() Info {
	i := Info{ID: e.id, Root: e.root, State: "idle", Routes: e.patterns()}
	v := e.current.Load()
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case v == nil && e.building:
		i.State = "pending"
	case v == nil:
	case v.Err != nil:
		i.State, i.Err, i.Made = "failed", v.Err, v.Made
	default:
		i.State, i.Version, i.Made = "ready", v.Hash, v.Made
		if e.broken != nil {
			i.State, i.Err = "stale", e.broken
		}
	}
	return i
}

// build has the tenant built; if it is being built, once more after that.
func (r *Registry) build(e *entry) {
	e.mu.Lock()
	if e.building {
		e.again = true
		e.mu.Unlock()
		return
	}
	e.building = true
	e.mu.Unlock()
	r.wg.Go(func() {
		for {
			e.mu.Lock()
			rest := time.Until(e.rest)
			e.mu.Unlock()
			if rest > 0 {
				select {
				case <-time.After(rest):
				case <-e.ctx.Done():
				}
			}
			select {
			case r.slots <- struct{}{}:
			case <-e.ctx.Done():
			}
			if e.ctx.Err() != nil {
				e.mu.Lock()
				e.building = false
				e.mu.Unlock()
				return
			}
			begin := time.Now()
			r.buildOnce(e)
			<-r.slots
			e.mu.Lock()
			if !r.cfg.Dev {
				// Who changes all the time gets a bundler half of the time, not all of it.
				e.rest = time.Now().Add(min(time.Since(begin), maxRest))
			}
			if !e.again {
				e.building = false
				e.mu.Unlock()
				return
			}
			e.again = false
			e.mu.Unlock()
		}
	})
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
	time.AfterFunc(wait, func() {
		if e.ctx.Err() == nil {
			r.build(e)
		}
	})
}

// buildOnce reads, bundles and publishes.
func (r *Registry) buildOnce(e *entry) {
	// Watched before it is read: a change in between is then seen by the watcher.
	r.watch.watch(e)
	begin := time.Now()
	v, m, warnings := r.make(e)
	if e.ctx.Err() != nil {
		return
	}
	if m != nil && e.setRoutes(m.Routes) {
		r.retable()
	}
	v.Routes = e.patterns()
	r.retryLater(e, v.machinery)
	for _, w := range warnings[:min(len(warnings), maxReported)] {
		r.once(Report{Kind: ReportWarning, Tenant: e.id, Message: w.Message, Diagnostics: []Diagnostic{w}})
	}
	r.publish(e, v, time.Since(begin))
}

// make builds a version from the folder as it is now.
func (r *Registry) make(e *entry) (*Version, *manifest.Manifest, []Diagnostic) {
	root, m, err := openFolder(e.folder)
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
	out, err := r.cfg.Bundle(e.ctx, e.root, e.id)
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
	v := &Version{Tenant: e.id, Limits: t.Limits, Profile: t.Profile, Dev: r.cfg.Dev, Made: time.Now(), folder: e.folder, maps: newMapper()}
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
	e.mu.Unlock()
	e.markReady()
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
	e.rejected[v.Hash] = true
	var next *Version
	if prev := e.started; prev != nil && prev.Hash != v.Hash && !r.cfg.Dev {
		next = prev
		e.good, e.broken = prev, serr
	} else {
		bad := *v
		bad.Err, bad.Bundle, bad.Hash = serr, nil, ""
		next = &bad
		e.good = nil
	}
	e.current.Store(next)
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
		if now := e.current.Load(); now != nil && now.Hash == v.Hash {
			e.started = v
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
