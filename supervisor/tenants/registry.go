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
//   - Lookup takes no lock. It waits only for a tenant that has no version yet, or was asleep and
//     has changed, and not for long.
//   - What a tenant costs that nobody asks for is its name and little more: no watch, no open file,
//     no code. Watches and code of those that were asked for are bounded over all of them, and the
//     least recently used give theirs back first.
//   - At most one build per tenant and Config.Concurrency bundlers in all run at a time.
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
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"bulkhead/policy"
	"bulkhead/policy/cron"
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
	// Secrets changes with a tenant's secrets, and with it the version; may be nil.
	Secrets func(tenant string) string
	Dev     bool
	Only    string // if set, no other tenant is seen

	Report func(Report) // what people should know; may be nil. Called from many goroutines.

	BundleMemory int    // bytes of bundles and source maps kept in memory; 0 means 512 MiB
	BundleDisk   int    // bytes of those kept in BundleDir; 0 means 4 GiB
	BundleDir    string // a directory of the registry's own for what does not fit in memory; "": there is none
	MaxWatches   int    // directories watched at a time over all tenants; 0 means 16384

	Concurrency int           // bundlers at a time; 0 means 2
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
	ctx   context.Context // Open's
	turns turns           // of the bundlers
	looks chan struct{}   // one token per folder that is being walked
	table atomic.Pointer[table]
	pol   atomic.Pointer[policy.Policy]
	wg    sync.WaitGroup
	watch *watcher
	shelf *shelf

	ids   sync.Map      // tenant id → *entry
	timed sync.Map      // tenant id → []cron.Expr, of tenants with any, as last built
	count atomic.Int64  // of ids
	clock atomic.Uint32 // ticks of Config.PollEvery, for "least recently used"

	scan   sync.Mutex  // one look at the roots at a time
	looked []time.Time // guarded by scan: each root's time of change at the last look, zero if it has to be looked at again

	mu      sync.Mutex
	claimed map[*entry]bool // guarded by mu: entries that want routes
	hooks   []func(string)  // guarded by mu
	told    map[uint64]bool // guarded by mu: hashes of things reported once
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
	cfg.MaxWatches = cmp.Or(cfg.MaxWatches, 16<<10)
	shelf, err := newShelf(cmp.Or(cfg.BundleMemory, 512<<20), cmp.Or(cfg.BundleDisk, 4<<30), cfg.BundleDir)
	if err != nil {
		return nil, err
	}
	r := &Registry{cfg: cfg, ctx: ctx, turns: turns{free: cfg.Concurrency}, looks: make(chan struct{}, maxLooks), shelf: shelf, claimed: map[*entry]bool{}, told: map[uint64]bool{},
		looked: make([]time.Time, len(cfg.Roots))}
	r.pol.Store(cfg.Policy)
	empty, _ := buildTable(nil, nil)
	r.table.Store(empty)
	r.watch = newWatcher(r)
	for i, dir := range cfg.Roots {
		if f, err := os.Open(dir); err != nil {
			r.watch.close()
			return nil, fmt.Errorf("tenants: read root %d (%s): %w", i, dir, err)
		} else {
			_ = f.Close() // it was only to be seen that it can be read
		}
	}
	r.watch.start(ctx)
	r.rescan()
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
	e := r.find(host, path)
	if e == nil {
		return nil, false
	}
	// Written once a tick: what all requests write is slow for all.
	if now := r.clock.Load(); e.used.Load() != now {
		e.used.Store(now)
	}
	switch v := e.current.Load(); {
	case v == nil:
		return r.first(ctx, e), true
	case e.asleep.Load():
		return r.wake(ctx, e), true
	default:
		return v, true
	}
}

// find returns the tenant that answers for a Host header (or :authority) and a path, or nil.
func (r *Registry) find(host, path string) *entry {
	host = normalHost(host)
	if id, ok := strings.CutSuffix(host, localSuffix); ok {
		return r.entry(id)
	}
	return r.table.Load().find(host, path)
}

// Get returns the version of a tenant by id, as Lookup does.
func (r *Registry) Get(ctx context.Context, id string) (*Version, bool) {
	return r.LookupContext(ctx, id+localSuffix, "/")
}

// Current returns the version of a tenant as it is now, without building or waiting: nil if it was
// never built. It says whether there is such a tenant.
func (r *Registry) Current(id string) (*Version, bool) {
	e := r.entry(id)
	if e == nil {
		return nil, false
	}
	return e.current.Load(), true
}

// crons notes when a tenant's scheduled handler runs.
func (r *Registry) crons(id string, list []cron.Expr) {
	if len(list) == 0 {
		r.timed.Delete(id)
	} else {
		r.timed.Store(id, list)
	}
}

// Crons hands out the cron expressions of all tenants that were built.
func (r *Registry) Crons(yield func(tenant string, e cron.Expr)) {
	r.timed.Range(func(id, list any) bool {
		for _, e := range list.([]cron.Expr) {
			yield(id.(string), e)
		}
		return true
	})
}

// Owner is the id of the tenant that Lookup would find, whatever state it is in.
func (r *Registry) Owner(host, path string) (string, bool) {
	if e := r.find(host, path); e != nil {
		return e.id, true
	}
	return "", false
}

// Known says whether there is a tenant of this id.
func (r *Registry) Known(id string) bool { return r.entry(id) != nil }

// Len is the number of tenants.
func (r *Registry) Len() int { return int(r.count.Load()) }

// first has a tenant built that never was, and waits for it.
func (r *Registry) first(ctx context.Context, e *entry) *Version {
	e.wanted.Add(1)
	defer e.wanted.Add(-1)
	why := ""
	switch err := r.await(ctx, r.ensure(e)); {
	case err == nil:
		if v := e.current.Load(); v != nil {
			return v
		}
		why = "the tenant was removed"
	case errors.Is(err, errPatience):
		why = fmt.Sprintf("the tenant is still being bundled after %s; try again", r.cfg.PendingWait)
	default:
		why = "the client did not wait for the bundle"
	}
	return r.failed(e, StepBundle, []Diagnostic{{Message: why}})
}

// wake watches a folder again that nobody had asked for in a while, and waits for a build if it has
// changed since: code that was replaced long ago must not answer once more.
func (r *Registry) wake(ctx context.Context, e *entry) *Version {
	// Whoever does not wait gets what served last.
	_ = r.await(ctx, r.watch.wake(e))
	return e.current.Load()
}

var errPatience = errors.New("it took too long")

// await waits for done, at most Config.PendingWait.
func (r *Registry) await(ctx context.Context, done <-chan struct{}) error {
	timer := time.NewTimer(r.cfg.PendingWait)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return errPatience
	}
}

// List returns all tenants, sorted by id.
func (r *Registry) List() []Info {
	out := make([]Info, 0, r.Len())
	for e := range r.all() {
		out = append(out, e.info())
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

// SetPolicy replaces the policy: tenants whose limits or profile it changes get a new version. Where
// they run is placement's.
func (r *Registry) SetPolicy(p *policy.Policy) {
	old := r.pol.Swap(p)
	for e := range r.all() {
		a, b := old.For(e.id), p.For(e.id)
		if e.current.Load() != nil && (a.Limits != b.Limits || a.Profile != b.Profile) {
			r.build(e)
		}
	}
}

// Renew has a tenant built again: what is not in its folder has changed.
func (r *Registry) Renew(id string) {
	if e := r.entry(id); e != nil && e.current.Load() != nil {
		r.build(e)
	}
}

func (r *Registry) entry(id string) *entry {
	if e, ok := r.ids.Load(id); ok {
		return e.(*entry)
	}
	return nil
}

// all yields the entries in no order.
func (r *Registry) all() iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		r.ids.Range(func(_, e any) bool { return yield(e.(*entry)) })
	}
}

// folder is where an entry's files are, as this process sees them.
func (r *Registry) folder(e *entry) string { return filepath.Join(r.cfg.Roots[e.root], e.id) }

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
		Tenant: e.id, Dev: r.cfg.Dev, Made: time.Now(), Routes: e.patterns(), folder: r.folder(e),
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
