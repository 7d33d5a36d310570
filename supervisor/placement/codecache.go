package placement

import (
	"context"
	"sync"
	"time"

	"bulkhead/policy/seccomp"
	"bulkhead/supervisor/tenants"
)

// V8's code caches of tenants: a large worker that comes back after its eviction is not parsed and
// compiled again.
//
// V8 believes the bytes of a cache; who can write them owns the process that reads them. So a cache
// is taken only from a shard in which nobody but its tenant has ever been, kept under that tenant,
// its version and its profile, and given to loads of just that: whoever forges one gains what its
// own code could have done there.

const (
	cacheBytes    = 128 << 20              // of all caches together
	cacheMost     = 960 << 10              // of one; a control message holds no more
	cacheLeast    = 64 << 10               // bundles below compile in less time than this takes
	cacheSettle   = 2 * time.Second        // from a load to the moment its hot functions are compiled
	forgeAfter    = 2                      // loads of a version before a shard is spent on its cache
	forgeDeadline = 10 * time.Second       // of one
	forgePause    = 500 * time.Millisecond // between two
)

type cacheKey struct {
	tenant, hash string
	profile      seccomp.Profile
}

func keyOf(v *tenants.Version) cacheKey { return cacheKey{v.Tenant, v.Hash, v.Profile} }

// cached is what is kept for one version.
type cached struct {
	data  []byte // nil: none yet
	loads int
	tried bool
	used  time.Time
}

// caches keeps code caches within a bound. Safe for concurrent use.
type caches struct {
	mu      sync.Mutex
	entries map[cacheKey]*cached // guarded by mu
	bytes   int                  // guarded by mu
}

// get returns the cache of a version, nil if there is none, and counts the load. forge says that it
// is worth a shard to make one.
func (c *caches) get(v *tenants.Version) (data []byte, forge bool) {
	if v.CodeSize() < cacheLeast {
		return nil, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[keyOf(v)]
	if e == nil {
		e = &cached{}
		c.entries[keyOf(v)] = e
	}
	e.loads++
	e.used = time.Now()
	if e.data == nil && !e.tried && e.loads >= forgeAfter {
		e.tried = true
		return nil, true
	}
	return e.data, false
}

// put keeps a cache unless there is one.
func (c *caches) put(v *tenants.Version, data []byte) {
	if len(data) == 0 || len(data) > cacheMost {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[keyOf(v)]
	if e == nil || e.data != nil {
		return // the version is gone, or somebody was faster
	}
	e.data = data
	c.bytes += len(data)
	for c.bytes > cacheBytes {
		c.dropOldestLocked()
	}
}

func (c *caches) dropOldestLocked() {
	var oldest cacheKey
	var at *cached
	for k, e := range c.entries {
		if e.data != nil && (at == nil || e.used.Before(at.used)) {
			oldest, at = k, e
		}
	}
	if at == nil {
		c.bytes = 0
		return
	}
	c.bytes -= len(at.data)
	delete(c.entries, oldest)
}

// keepOnly drops what is kept for other versions of a tenant than these hashes.
func (c *caches) keepOnly(tenant string, hash string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, e := range c.entries {
		if k.tenant == tenant && k.hash != hash {
			c.bytes -= len(e.data)
			delete(c.entries, k)
		}
	}
}

func (c *caches) has(v *tenants.Version) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[keyOf(v)]
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
	if own {
		p.caches.put(pl.v, data)
	}
}

// forge makes a version's cache in a shard of its own, which then ends. One at a time, and only
// while there are spares for those who need one now.
func (p *Pool) forge(v *tenants.Version) {
	p.forging.Lock()
	defer p.forging.Unlock()
	select {
	case <-time.After(forgePause):
	case <-p.ctx.Done():
		return
	}
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
		return
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
		return
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
}
