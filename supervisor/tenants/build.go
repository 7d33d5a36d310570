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
	"time"

	"bulkhead/policy"
	"bulkhead/policy/seccomp"
	"bulkhead/schema/gen"
	"bulkhead/supervisor/tenants/manifest"
)

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
	r.look(func() {
		r.watch.watch(e)
		print := fingerprint(r.folder(e))
		e.mu.Lock()
		e.print = print
		e.mu.Unlock()
	})
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
	if err := r.turns.take(ctx, e); err != nil {
		return BundleOutput{}, err
	}
	begin := time.Now()
	out, err := r.cfg.Bundle(ctx, e.root, e.id)
	r.turns.done()
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
	v.Callers, v.Crons = m.Callers, m.Crons
	r.crons(e.id, m.Crons)
	secrets := ""
	if r.cfg.Secrets != nil {
		secrets = r.cfg.Secrets(e.id)
	}
	v.Hash = versionHash(out, v, secrets)
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
func versionHash(out BundleOutput, v *Version, secrets string) string {
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
		put([]byte(x.Service))
		put([]byte(x.Entrypoint))
		put([]byte(x.HostAPI))
	}
	for _, c := range v.Crons {
		put([]byte(c.Text))
		put([]byte(c.Zone))
	}
	for _, c := range v.Callers {
		put([]byte(c))
	}
	put([]byte(secrets))
	put(fmt.Appendf(nil, "%+v %s", v.Limits, v.Profile))
	return short(h)
}

func short(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)[:8]) }

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

// look reads folders. Requests can ask for many at once, and walking a large one takes a while.
func (r *Registry) look(f func()) {
	r.looks <- struct{}{}
	defer func() { <-r.looks }()
	f()
}

// maxLooks is how many folders are walked at a time. A file system that does not answer holds one
// for each of its folders.
const maxLooks = 64
