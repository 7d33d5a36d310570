// Package tenants knows which tenants there are, what their code is at this moment, and which
// host names and paths are theirs.
//
// Duty: folders in, versions out. A Registry finds the folders below its roots, watches them,
// reads their manifests, has them bundled in a sealed child, and publishes each result as an
// immutable Version. It also answers, for every request, whose it is.
//
// Trust: everything in a tenant's folder is hostile, and so is everything the bundler says about
// it. Manifests are read through os.Root with bounds (package manifest); the bundler's answer is
// bounded, checked, and encoded anew (DecodeResult, EncodeBundle). A folder cannot choose its
// limits or profile, nor a name under localhost but its own, nor an address. It can ask for
// routes: who had a host first keeps all of it.
//
// Invariants:
//   - Lookup takes no lock. It waits only for a tenant that has no version yet, and not for long.
//   - At most one build per tenant and Config.Concurrency builds in all run at a time.
//   - A published Version never changes. A change that cannot be bundled or started replaces the
//     running version only in dev, where the error is the answer its author waits for; elsewhere
//     the last good version serves on, the tenant is listed as "stale", and the error is reported.
package tenants

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"bulkhead/policy"
	"bulkhead/supervisor/tenants/manifest"
)

// BundleFunc makes a bundle of the folder `tenant` below the root of this index. An error is a
// fault of the machinery; what is wrong with the folder is in BundleOutput.Errors.
type BundleFunc func(ctx context.Context, root int, tenant string) (BundleOutput, error)

// Config is what a Registry works with. Roots, Bundle and Policy are needed.
type Config struct {
	Roots  []string // directories that hold tenant folders, as this process sees them
	Bundle BundleFunc
	Policy *policy.Policy
	Dev    bool
	Only   string // if set, no other tenant is seen

	Report func(Report) // what people should know; may be nil. Called from many goroutines.

	Concurrency int           // builds at a time; 0 means 2
	Eager       int           // with at most so many tenants all are built at once at the start, else at their first request; 0 means 256
	PendingWait time.Duration // how long Lookup waits for a first version; 0 means 20 s
	Debounce    time.Duration // quiet time after a change before it is built; 0 means 60 ms
	PollEvery   time.Duration // how often folders that cannot be watched are looked at; 0 means 2 s
	ForcePoll   bool          // never use the kernel's notification
}

// ReportKind says what a Report is about.
type ReportKind string

// What is reported.
const (
	ReportFound    ReportKind = "found"    // a tenant's folder appeared
	ReportGone     ReportKind = "gone"     // it went away
	ReportVersion  ReportKind = "version"  // a new version is served
	ReportBroken   ReportKind = "broken"   // a version cannot run; Diagnostics say why
	ReportWarning  ReportKind = "warning"  // something in the folder has no effect
	ReportConflict ReportKind = "conflict" // a route or id that two folders claim
	ReportWatch    ReportKind = "watch"    // a folder is polled instead of watched, or cannot be read
)

// Report is something people should know.
type Report struct {
	Kind        ReportKind
	Tenant      string // "" if it is about a root
	Message     string // one line
	Version     string // hash, with ReportVersion
	Took        time.Duration
	Diagnostics []Diagnostic
}

// Info is a tenant as listings show it.
type Info struct {
	ID      string
	Root    int
	State   string // "idle" (never asked for), "pending", "ready", "stale" (an older version serves), "failed"
	Version string // hash of what serves, "" if nothing does
	Made    time.Time
	Routes  []string
	Err     *StartError // of "failed" and "stale"
}

// Registry holds the tenants of a host.
type Registry struct {
	cfg   Config
	slots chan struct{} // one token per running build
	table atomic.Pointer[table]
	pol   atomic.Pointer[policy.Policy]
	wg    sync.WaitGroup
	watch *watcher

	mu      sync.Mutex
	entries map[string]*entry // guarded by mu
	hooks   []func(string)    // guarded by mu
	told    map[uint64]bool   // guarded by mu: hashes of things reported once
}

// Open finds the tenants and begins to build and watch them; it returns before the first is
// built. Everything ends with ctx; Wait waits for it.
func Open(ctx context.Context, cfg Config) (*Registry, error) {
	if len(cfg.Roots) == 0 || cfg.Bundle == nil || cfg.Policy == nil {
		return nil, errors.New("BUG: tenants.Config needs Roots, Bundle and Policy")
	}
	cfg.Concurrency = cmp.Or(cfg.Concurrency, 2)
	cfg.Eager = cmp.Or(cfg.Eager, 256)
	cfg.PendingWait = cmp.Or(cfg.PendingWait, 20*time.Second)
	cfg.Debounce = cmp.Or(cfg.Debounce, 60*time.Millisecond)
	cfg.PollEvery = cmp.Or(cfg.PollEvery, 2*time.Second)
	r := &Registry{cfg: cfg, slots: make(chan struct{}, cfg.Concurrency), entries: map[string]*entry{}, told: map[uint64]bool{}}
	r.pol.Store(cfg.Policy)
	empty, _ := buildTable(nil, nil)
	r.table.Store(empty)
	r.watch = newWatcher(r)
	for i, dir := range cfg.Roots {
		if _, err := os.ReadDir(dir); err != nil {
			r.watch.close()
			return nil, fmt.Errorf("tenants: read root %d (%s): %w", i, dir, err)
		}
	}
	r.watch.start(ctx)
	r.rescan(ctx)
	return r, nil
}

// Wait returns when everything that ended with Open's context has ended.
func (r *Registry) Wait() { r.wg.Wait() }

// OnChange has f called with a tenant's id after each change of what Lookup answers for it: a
// new version, a version that broke, a folder that went away. f must not block.
func (r *Registry) OnChange(f func(tenant string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hooks = append(r.hooks, f)
}

func (r *Registry) changed(id string) {
	r.mu.Lock()
	hooks := r.hooks
	r.mu.Unlock()
	for _, f := range hooks {
		f(id)
	}
}

func (r *Registry) report(rep Report) {
	if r.cfg.Report != nil {
		r.cfg.Report(rep)
	}
}

// once is report, for things that would be said again at every look at the folder.
func (r *Registry) once(rep Report) {
	h := fnv.New64a()
	io.WriteString(h, string(rep.Kind)+"\x00"+rep.Tenant+"\x00"+rep.Message)
	key := h.Sum64()
	r.mu.Lock()
	if len(r.told) > 10_000 { // a hostile root of ever new names
		clear(r.told)
	}
	said := r.told[key]
	r.told[key] = true
	r.mu.Unlock()
	if !said {
		r.report(rep)
	}
}

// Lookup returns the version that answers for a Host header and a path (without query), or false
// if no tenant does. For a tenant that is being built for the first time it waits, at most
// Config.PendingWait. The version's Err says if it cannot run.
func (r *Registry) Lookup(host, path string) (*Version, bool) {
	return r.LookupContext(context.Background(), host, path)
}

// LookupContext is Lookup that stops waiting when ctx ends.
func (r *Registry) LookupContext(ctx context.Context, host, path string) (*Version, bool) {
	e := r.table.Load().find(host, path)
	if e == nil {
		return nil, false
	}
	if v := e.current.Load(); v != nil {
		return v, true
	}
	return r.first(ctx, e), true
}

// Get returns the version of a tenant by id, as Lookup does.
func (r *Registry) Get(ctx context.Context, id string) (*Version, bool) {
	return r.LookupContext(ctx, id+localSuffix, "/")
}

// first has a tenant built that never was, and waits for it.
func (r *Registry) first(ctx context.Context, e *entry) *Version {
	r.build(e)
	timer := time.NewTimer(r.cfg.PendingWait)
	defer timer.Stop()
	why := ""
	select {
	case <-e.ready:
		if v := e.current.Load(); v != nil {
			return v
		}
		why = "the tenant was removed"
	case <-ctx.Done():
		why = "the client did not wait for the bundle"
	case <-timer.C:
		why = fmt.Sprintf("the tenant is still being bundled after %s; try again", r.cfg.PendingWait)
	}
	return r.failed(e, StepBundle, []Diagnostic{{Message: why}})
}

// List returns all tenants, sorted by id.
func (r *Registry) List() []Info {
	all := r.sorted()
	out := make([]Info, len(all))
	for i, e := range all {
		out[i] = e.info()
	}
	slices.SortFunc(out, func(a, b Info) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// Rebuild has a tenant built anew, as after a change of its folder.
func (r *Registry) Rebuild(id string) bool {
	e := r.entry(id)
	if e == nil {
		return false
	}
	r.build(e)
	return true
}

// SetPolicy replaces the policy: tenants whose limits or profile it changes get a new version.
func (r *Registry) SetPolicy(p *policy.Policy) {
	old := r.pol.Swap(p)
	for _, e := range r.sorted() {
		if e.current.Load() != nil && old.For(e.id) != p.For(e.id) {
			r.build(e)
		}
	}
}

func (r *Registry) entry(id string) *entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.entries[id]
}

// sorted returns the entries by root, then id: the order in which they may claim routes.
func (r *Registry) sorted() []*entry {
	r.mu.Lock()
	out := make([]*entry, 0, len(r.entries))
	for _, e := range r.entries {
		out = append(out, e)
	}
	r.mu.Unlock()
	slices.SortFunc(out, func(a, b *entry) int {
		return cmp.Or(cmp.Compare(a.root, b.root), strings.Compare(a.id, b.id))
	})
	return out
}

// rescan makes the entries what the roots hold.
func (r *Registry) rescan(ctx context.Context) {
	found := map[string]int{}
	for root, dir := range r.cfg.Roots {
		list, err := os.ReadDir(dir)
		if err != nil {
			r.once(Report{Kind: ReportWatch, Message: fmt.Sprintf("cannot read the tenants' directory: %v; its tenants are kept as they were", err)})
			for _, e := range r.sorted() {
				if e.root == root {
					found[e.id] = root
				}
			}
			continue
		}
		for _, d := range list {
			r.consider(found, root, dir, d)
		}
	}
	var fresh, gone []*entry
	r.mu.Lock()
	for id, e := range r.entries {
		if root, ok := found[id]; !ok || root != e.root {
			gone = append(gone, e)
			delete(r.entries, id)
		}
	}
	for id, root := range found {
		if r.entries[id] == nil {
			e := newEntry(ctx, id, root, filepath.Join(r.cfg.Roots[root], id))
			r.entries[id] = e
			fresh = append(fresh, e)
		}
	}
	total := len(r.entries)
	r.mu.Unlock()
	if len(fresh)+len(gone) == 0 {
		return
	}
	for _, e := range gone {
		e.remove()
		r.watch.forget(e)
	}
	for _, e := range fresh {
		e.readRoutes()
	}
	r.retable()
	for _, e := range gone {
		r.report(Report{Kind: ReportGone, Tenant: e.id, Message: "its folder is gone"})
		r.changed(e.id)
	}
	slices.SortFunc(fresh, func(a, b *entry) int { return strings.Compare(a.id, b.id) })
	for _, e := range fresh {
		r.report(Report{Kind: ReportFound, Tenant: e.id, Message: "found"})
		if total <= r.cfg.Eager {
			r.build(e)
		}
	}
}

// consider decides whether a directory entry of a root is a tenant.
func (r *Registry) consider(found map[string]int, root int, dir string, d fs.DirEntry) {
	id := d.Name()
	switch {
	case r.cfg.Only != "" && id != r.cfg.Only:
	case strings.HasPrefix(id, "."), id == "node_modules":
	case !d.IsDir():
		if d.Type()&fs.ModeSymlink != 0 {
			r.once(Report{Kind: ReportWarning, Message: fmt.Sprintf("%q is a symbolic link and is not followed; put the folder itself into the tenants' directory", id)})
		}
	case !policy.ValidTenantID(id):
		r.once(Report{Kind: ReportWarning, Message: fmt.Sprintf("the folder %q is no tenant: a tenant id has lower-case letters, digits and -, at most %d, and begins with a letter or digit; rename it", id, policy.MaxTenantID)})
	default:
		if first, ok := found[id]; ok {
			r.once(Report{Kind: ReportConflict, Tenant: id, Message: fmt.Sprintf("the folder is in tenants' directories %d and %d; the first one counts", first, root)})
			return
		}
		found[id] = root
	}
}

// retable makes the table anew after a change of tenants or routes.
func (r *Registry) retable() {
	all := r.sorted()
	r.mu.Lock()
	t, conflicts := buildTable(all, r.table.Load())
	r.table.Store(t)
	r.mu.Unlock()
	for _, c := range conflicts {
		r.once(Report{Kind: ReportConflict, Tenant: c.denied, Message: c.String()})
	}
}

// Bounds on what is kept of, and said about, one broken build. A bundler may name a hundred errors.
const (
	maxKept     = 20
	maxReported = 10
)

// failed makes a version that cannot run.
func (r *Registry) failed(e *entry, step string, ds []Diagnostic) *Version {
	if n := len(ds) - maxKept; n > 0 {
		ds = append(ds[:maxKept:maxKept], Diagnostic{Message: fmt.Sprintf("and %d more", n)})
	}
	return &Version{
		Tenant: e.id, Dev: r.cfg.Dev, Made: time.Now(), Routes: e.patterns(), folder: e.folder,
		Err: &StartError{Tenant: e.id, Step: step, Outcome: outcomeNotLoaded, Diagnostics: ds},
	}
}

// openFolder opens a tenant's folder so that nothing outside it can be reached through it.
func openFolder(folder string) (*os.Root, *manifest.Manifest, error) {
	st, err := os.Lstat(folder)
	if err != nil {
		return nil, nil, err
	}
	if !st.IsDir() {
		return nil, nil, errors.New("the tenant's folder is not a directory")
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, nil, err
	}
	m, err := manifest.Read(root)
	return root, m, err
}
