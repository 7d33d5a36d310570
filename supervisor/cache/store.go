// Package cache keeps what tenants put into their Cache API: responses, in the gateway's memory.
//
// Duty: answer a worker's match, put and delete, within bounds for an entry, for a tenant and for all
// of them together; forget what is stale and, first of all, what was least recently used.
//
// Trust: none in what a shard says. Whose cache is meant is the gateway's word; names, URLs, fields and
// bodies are a tenant's, and mean something to that tenant only.
//
// Invariants:
//   - A tenant reaches entries of its own alone: it is no part of a key that a shard writes.
//   - Every byte kept for a tenant is counted against it from before it is read until the last reader
//     of it is done, evicted or not.
//   - What a tenant loses to its own bound is its own least recently used; the bound of the host takes from
//     whoever has most. One that keeps less than its share loses nothing by what others do.
//   - No clock but the seconds in Age, which says no more than the time of the answer it comes with.
package cache

import (
	"container/heap"
	"container/list"
	"strings"
	"sync"
	"time"

	"bulkhead/policy"
	"bulkhead/policy/limits"
	"bulkhead/supervisor/observe"
)

const (
	// overhead is what an entry costs beside its text and body: the structures here. Counted, or empty
	// entries would be free.
	overhead = 512
	// variants is how many responses of one URL are kept, told apart by Vary; the oldest goes.
	variants = 16
	// sweepEvery is how often what is stale is dropped although nobody asks for it.
	sweepEvery = time.Minute
)

// Options of a Cache.
type Options struct {
	Policy   func() *policy.Policy    // the one in force; asked for each operation
	Observer *observe.Observer        // counts, and takes notes for tenants' logs
	Known    func(tenant string) bool // whether there is such a tenant; must not call a Cache
	Wire     limits.Wire              // limits.DefaultWire()
}

// Cache is all tenants' caches. Safe for concurrent use.
type Cache struct {
	opt  Options
	stop chan struct{}
	done chan struct{}

	mu      sync.Mutex
	tenants map[string]*tenant // guarded by mu; those that keep something or are about to
	most    byBytes            // guarded by mu; the same, the heaviest first
	bytes   uint64             // guarded by mu; of all
}

// tenant is what one tenant keeps.
type tenant struct {
	id    string
	use   *observe.CacheUse
	place int // in Cache.most

	// Guarded by Cache.mu.
	bytes  uint64
	pinned uint64              // of them, of entries that are out and still read: nobody can have those back now
	under  map[string][]*entry // by key
	recent *list.List          // of *entry, the last used first
	puts   map[*put]bool       // under way
	gone   bool                // forgotten: nothing is kept any more
}

// entry is a response. What is not guarded does not change.
type entry struct {
	t          *tenant
	key        string
	vary       []field // what the request must have, by the response's Vary; names in lower case, sorted
	status     int
	statusText string
	headers    []byte // flat, without those that are made anew
	noBody     bool   // its body is null
	body       [][]byte
	length     uint64
	age        time.Duration // that it had when it came
	stored     time.Time
	stale      time.Time

	size    uint64        // guarded by Cache.mu; what it counts for
	readers int           // guarded by Cache.mu
	at      *list.Element // guarded by Cache.mu; nil: not to be found any more
}

// field is a header field as Vary compares it: all values of a name, joined.
type field struct{ name, value string }

// New makes a Cache. Close ends it.
func New(opt Options) *Cache {
	if opt.Wire == (limits.Wire{}) {
		opt.Wire = limits.DefaultWire()
	}
	c := &Cache{opt: opt, stop: make(chan struct{}), done: make(chan struct{}), tenants: map[string]*tenant{}}
	go c.sweep()
	return c
}

// Close drops everything. Operations under way end with their invocations.
func (c *Cache) Close() {
	close(c.stop)
	<-c.done
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.tenants {
		c.forget(t)
	}
}

// Forget drops what a tenant keeps, for good: its folder is gone.
func (c *Cache) Forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.tenants[id]; t != nil {
		c.forget(t)
	}
}

// forget: caller holds mu.
func (c *Cache) forget(t *tenant) {
	t.gone = true
	for p := range t.puts {
		c.abandon(p)
	}
	for t.recent.Len() > 0 {
		c.drop(t.recent.Front().Value.(*entry))
	}
	c.leave(t)
}

// leave takes a tenant that keeps nothing out of the tables. Bytes that somebody still reads stay
// counted in it and in the sum. Caller holds mu.
func (c *Cache) leave(t *tenant) {
	if c.tenants[t.id] == t && t.recent.Len() == 0 && len(t.puts) == 0 && (t.gone || t.bytes == 0) {
		delete(c.tenants, t.id)
		heap.Remove(&c.most, t.place)
	}
}

// tenant returns the tenant's, making one for a put. Caller holds mu.
func (c *Cache) tenant(id string, make_ bool) *tenant {
	t := c.tenants[id]
	if t == nil && make_ && c.tenants != nil && c.opt.Known(id) {
		t = &tenant{id: id, use: c.opt.Observer.Metrics.Tenant(id).Cache(), under: map[string][]*entry{}, recent: list.New(), puts: map[*put]bool{}}
		c.tenants[id] = t
		heap.Push(&c.most, t)
	}
	return t
}

// count adds to what a tenant keeps, or takes away. Caller holds mu.
func (c *Cache) count(t *tenant, more, less uint64) {
	t.bytes += more - less
	c.bytes += more - less
	if c.tenants[t.id] == t {
		t.use.Bytes.Store(int64(t.bytes))
		t.use.Entries.Store(int64(t.recent.Len()))
		heap.Fix(&c.most, t.place)
	}
}

// drop takes an entry out, and gives its bytes back unless somebody reads them. Caller holds mu.
func (c *Cache) drop(e *entry) {
	if e.at == nil {
		return
	}
	e.t.recent.Remove(e.at)
	e.at = nil
	list := e.t.under[e.key]
	for i, other := range list {
		if other == e {
			list = append(list[:i:i], list[i+1:]...)
		}
	}
	if len(list) == 0 {
		delete(e.t.under, e.key)
	} else {
		e.t.under[e.key] = list
	}
	if e.readers > 0 {
		e.t.pinned += e.size
		c.count(e.t, 0, 0)
		return
	}
	c.count(e.t, 0, e.size)
	e.size = 0
}

// shed drops an entry for want of room. Caller holds mu.
func (c *Cache) shed(e *entry) {
	e.t.use.Count(observe.CacheEvicted)
	c.drop(e)
}

// spare is how many bytes of a tenant's can be had back now. Caller holds mu.
func (t *tenant) spare() uint64 { return t.bytes - t.pinned }

// find returns the entry that answers a request, as the last used and with one reader more, or nil.
func (c *Cache) find(id, key string, request []field, now time.Time) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tenant(id, false)
	if t == nil {
		return nil
	}
	e := c.lookup(t, key, request, now)
	c.leave(t)
	if e != nil {
		e.readers++
		t.recent.MoveToFront(e.at)
	}
	return e
}

// lookup: the newest first. What it meets that is stale it drops. Caller holds mu.
func (c *Cache) lookup(t *tenant, key string, request []field, now time.Time) *entry {
	for i := len(t.under[key]) - 1; i >= 0; i-- {
		e := t.under[key][i]
		switch {
		case !now.Before(e.stale):
			c.drop(e)
		case answers(e.vary, request):
			return e
		}
	}
	return nil
}

// read: one reader of e is done.
func (c *Cache) read(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.readers--; e.readers == 0 && e.at == nil {
		e.t.pinned -= e.size
		c.count(e.t, 0, e.size)
		e.size = 0
		c.leave(e.t)
	}
}

// remove drops what answers a request and says whether there was any.
func (c *Cache) remove(id, key string, request []field, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tenant(id, false)
	if t == nil {
		return false
	}
	found := false
	for {
		e := c.lookup(t, key, request, now)
		if e == nil {
			c.leave(t)
			return found
		}
		c.drop(e)
		found = true
	}
}

// sweep drops what is stale, one tenant at a time: none waits for another's.
func (c *Cache) sweep() {
	defer close(c.done)
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-c.stop:
			return
		case now := <-tick.C:
			c.mu.Lock()
			all := append([]*tenant(nil), c.most...)
			c.mu.Unlock()
			for _, t := range all {
				c.sweepTenant(t, now)
			}
		}
	}
}

func (c *Cache) sweepTenant(t *tenant, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for at := t.recent.Front(); at != nil; {
		e := at.Value.(*entry)
		at = at.Next()
		if !now.Before(e.stale) {
			c.drop(e)
		}
	}
	c.leave(t)
}

// byBytes is a heap of tenants, whoever has most to give back first.
type byBytes []*tenant

func (b byBytes) Len() int           { return len(b) }
func (b byBytes) Less(i, j int) bool { return b[i].spare() > b[j].spare() }
func (b byBytes) Swap(i, j int) {
	b[i], b[j] = b[j], b[i]
	b[i].place, b[j].place = i, j
}
func (b *byBytes) Push(x any) {
	t := x.(*tenant)
	t.place = len(*b)
	*b = append(*b, t)
}
func (b *byBytes) Pop() any {
	old := *b
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*b = old[:len(old)-1]
	return t
}

// keyOf names what a worker means by a cache's name and a URL. No URL holds a line feed.
func keyOf(name, url string) string { return strings.Join([]string{name, url}, "\n") }
