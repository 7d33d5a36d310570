package placement

import (
	"container/list"
	"context"
	"sync"
	"time"

	"bulkhead/policy/seccomp"
	"bulkhead/supervisor/tenants"
)

// V8's code caches of tenants: a worker that comes back after its eviction is not parsed and compiled
// again.
//
// V8 believes the bytes of a cache; who can write them owns the process that reads them. So a cache
// is taken only from a shard in which nobody but its tenant has ever been, kept under that tenant,
// its version and its profile, and given to loads of just that: whoever forges one gains what its
// own code could have done there.
//
// Nobody waits for the making of one, and nobody is charged for it: it happens when no tenant is being
// started, once for each version, which must have been started several times, one at a time.

const (
	cacheBytes = 128 << 20 // of all caches together; the least recently used go first
	cacheMost  = 960 << 10 // of one; a control message holds no more
	// Code of 4 KiB starts 0.1 to 0.3 ms sooner with a cache, of 20 KiB 0.7 ms (BenchmarkCold).
	cacheLeast  = 4 << 10
	cacheSettle = 2 * time.Second // from a load to the moment its hot functions are compiled

	// Loads of a version before a shard is spent on its cache: a process costs more CPU than a hundred
	// starts of a small worker save, a few of a large one.
	forgeAfter      = 2
	forgeAfterSmall = 3
	forgeSmall      = 64 << 10 // bytes of code that make the difference

	forgeDeadline = 10 * time.Second       // of one
	forgePause    = 500 * time.Millisecond // between two, and without a load before one
	forgeLate     = 5 * time.Second        // how long loads can put one off
	forgeQueue    = 256                    // that wait; more are asked for again by later loads
)

type cacheKey struct {
	tenant, hash string
	profile      seccomp.Profile
}

func keyOf(v *tenants.Version) cacheKey { return cacheKey{v.Tenant, v.Hash, v.Profile} }

// cached is what is kept for one version.
type cached struct {
	key   cacheKey
	data  []byte        // nil: none yet
	at    *list.Element // in recent, nil without data
	loads int
	asked bool // a shard is to make it, or has tried
}

// caches keeps code caches within a bound. Safe for concurrent use.
type caches struct {
	mu      sync.Mutex
	tenants map[string]map[cacheKey]*cached // guarded by mu; ended by keepOnly
	recent  list.List                       // guarded by mu; *cached with data, the last used in front
	bytes   int                             // guarded by mu
	limit   int                             // of bytes
}

func newCaches(limit int) caches {
	return caches{tenants: map[string]map[cacheKey]*cached{}, limit: limit}
}

// get returns the cache of a version, nil if there is none, and counts the load. forge says that it
// is worth a shard to make one.
func (c *caches) get(v *tenants.Version) (data []byte, forge bool) {
	size := v.CodeSize()
	if size < cacheLeast {
		return nil, false
	}
	after := forgeAfter
	if size < forgeSmall {
		after = forgeAfterSmall
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := keyOf(v)
	e := c.tenants[key.tenant][key]
	if e == nil {
		e = &cached{key: key}
		if c.tenants[key.tenant] == nil {
			c.tenants[key.tenant] = map[cacheKey]*cached{}
		}
		c.tenants[key.tenant][key] = e
	}
	e.loads++
	if e.data != nil {
		c.recent.MoveToFront(e.at)
		return e.data, false
	}
	forge = !e.asked && e.loads >= after
	e.asked = e.asked || forge
	return nil, forge
}

// put keeps a cache unless there is one, and reports whether it did.
func (c *caches) put(v *tenants.Version, data []byte) bool {
	if len(data) == 0 || len(data) > cacheMost {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := keyOf(v)
	e := c.tenants[key.tenant][key]
	if e == nil || e.data != nil {
		return false // the version is gone, or somebody was faster
	}
	e.data = data
	e.at = c.recent.PushFront(e)
	c.bytes += len(data)
	for c.bytes > c.limit {
		c.dropLocked(c.recent.Back().Value.(*cached))
	}
	return e.at != nil
}

// dropLocked forgets what is kept for a version, the count of its loads included.
func (c *caches) dropLocked(e *cached) {
	if e.at != nil {
		c.recent.Remove(e.at)
		c.bytes -= len(e.data)
		e.at, e.data = nil, nil
	}
	delete(c.tenants[e.key.tenant], e.key)
	if len(c.tenants[e.key.tenant]) == 0 {
		delete(c.tenants, e.key.tenant)
	}
}

// again lets the next load of a version ask for its cache, which could not be made now.
func (c *caches) again(v *tenants.Version) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.tenants[v.Tenant][keyOf(v)]; e != nil {
		e.asked = false
	}
}

// keepOnly drops what is kept for other versions of a tenant than the one with this hash.
func (c *caches) keepOnly(tenant string, hash string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, e := range c.tenants[tenant] {
		if k.hash != hash {
			c.dropLocked(e)
		}
	}
}

func (c *caches) has(v *tenants.Version) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.tenants[v.Tenant][keyOf(v)]
	return e != nil && e.data != nil
}

// gatherLocked asks a shard for the cache of the tenant it was just given, once that has settled, if
// nobody else has been in the shard by then.
func (p *Pool) gatherLocked(pl *place) {
	if pl.v.CodeSize() < cacheLeast || p.caches.has(pl.v) || !p.ownLocked(pl) {
		return
	}
	p.wg.Go(func() {
		select {
		case <-time.After(cacheSettle):
		case <-p.ctx.Done():
			return
		}
		p.mu.Lock()
		own := p.ownLocked(pl) && !pl.gone.Load()
		p.mu.Unlock()
		if own {
			p.askForCache(pl)
		}
	})
}

// ownLocked says whether nobody but its tenant has been in the place's shard.
func (p *Pool) ownLocked(pl *place) bool { return pl.shard != nil && !pl.shard.mixed && !pl.shard.dead }

func (p *Pool) askForCache(pl *place) {
	data, err := pl.shard.conn.CodeCache(p.ctx, pl.handle)
	if err != nil {
		return // the shard ended, or does not know; the next load compiles
	}
	p.mu.Lock()
	own := !pl.shard.mixed
	p.mu.Unlock()
	if own && p.caches.put(pl.v, data) {
		p.opt.Observer.Metrics.Event("codeCacheMade")
	}
}

// wantCache asks for the making of a version's cache, without waiting.
func (p *Pool) wantCache(v *tenants.Version) {
	select {
	case p.forges <- v:
	default:
		p.caches.again(v)
	}
}

// forger makes the caches that were asked for, one at a time.
func (p *Pool) forger() {
	for {
		select {
		case v := <-p.forges:
			if p.lull() && !p.caches.has(v) && !p.forge(v) {
				p.caches.again(v)
			}
		case <-p.ctx.Done():
			return
		}
	}
}

// lull waits for a moment in which no tenant is being started, or long enough. False: the pool closes.
func (p *Pool) lull() bool {
	wait := forgePause
	for late := time.Now().Add(forgeLate); wait > 0; {
		select {
		case <-time.After(wait):
		case <-p.ctx.Done():
			return false
		}
		quiet := time.Since(p.start) - time.Duration(p.started.Load())
		if p.starting.Load() > 0 {
			quiet = 0
		}
		wait = min(forgePause-quiet, time.Until(late))
	}
	return true
}

// forge makes a version's cache in a shard of its own, which then ends. False: there are no spares but for
// those who need one now.
func (p *Pool) forge(v *tenants.Version) bool {
	p.mu.Lock()
	var spare *shard
	spares := 0
	for _, s := range p.shards {
		if s.profile == v.Profile && !s.used && !s.closed && s.conn.Err() == nil {
			spare = s
			spares++
		}
	}
	if spares < 2 || p.closed || p.standings[v.Tenant] != nil {
		p.mu.Unlock()
		return false
	}
	pl := &place{v: v, shard: spare, ready: make(chan struct{})}
	spare.used, spare.closed, spare.guest, spare.cordon = true, true, v.Tenant, p.wants(v).cordon
	spare.slots++
	spare.handles++
	pl.handle = spare.handles
	spare.hosted[pl.handle] = pl
	p.keepSpareLocked(spare.kind)
	p.mu.Unlock()

	ctx, cancel := context.WithTimeout(p.ctx, forgeDeadline)
	defer cancel()
	code, err := v.Code(ctx)
	if err != nil {
		p.vacate(pl) // there is a newer version
		return true
	}
	req := p.loadRequest(spare, pl, code)
	req.Logs = nil // of a start that nobody asked for
	res, err := spare.conn.Load(ctx, req)
	if err == nil && res.Failed == nil {
		p.askForCache(pl)
	}
	if errorOfShard := spare.conn.Err(); err != nil && errorOfShard == nil {
		spare.fail(err)
	}
	p.vacate(pl)
	return true
}
