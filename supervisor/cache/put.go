package cache

import (
	"errors"
	"io"
	"slices"

	"bulkhead/policy/limits"
	"bulkhead/supervisor/observe"
)

// put is a response on its way in. Each block of it is counted before it is read, so that any number of
// slow puts keeps no more than whole entries would.
type put struct {
	c *Cache
	t *tenant

	over bool   // guarded by Cache.mu; done with, or its room was taken
	size uint64 // guarded by Cache.mu; counted so far
	l    limits.Tenant
	host uint64 // most bytes of all tenants
}

// Reasons why a response is not kept; see refusal.
var (
	errEntry = errors.New("it is larger than an entry may be (cacheEntry, cacheBytes, cache)")
	errRoom  = errors.New("there is no room: this worker's cache is full of what is being written or read (cacheBytes), or the host's is (cache)")
	errNone  = errors.New("this worker may keep nothing (cacheEntries: 0)")
	errShort = errors.New("its body is not as long as it announced")
	errGone  = errors.New("there is no such tenant any more")
)

// begin starts a put, or says why there can be none.
func (c *Cache) begin(id string) (*put, error) {
	pol := c.opt.Policy()
	p := &put{c: c, l: pol.For(id).Limits, host: pol.Cache}
	if p.l.CacheEntries == 0 {
		return nil, errNone
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.t = c.tenant(id, true); p.t == nil {
		return nil, errGone
	}
	p.t.puts[p] = true
	return p, nil
}

// take counts n more bytes of it, making room for them.
func (p *put) take(n uint64) error {
	c, t := p.c, p.t
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case p.over:
		return errRoom
	case p.size+n > min(p.l.CacheEntry, p.l.CacheBytes, p.host):
		return errEntry
	}
	for t.bytes+n > p.l.CacheBytes {
		if t.recent.Len() == 0 {
			return errRoom
		}
		c.shed(t.recent.Back().Value.(*entry))
	}
	for c.bytes+n > p.host {
		// Whoever has most to give back gives way, be it this one.
		h := c.most[0]
		switch {
		case h.recent.Len() > 0:
			c.shed(h.recent.Back().Value.(*entry))
		case h == t || !c.abandonOne(h):
			return errRoom
		}
		c.leave(h)
	}
	p.size += n
	c.count(t, n, 0)
	return nil
}

// abandonOne ends one of a tenant's puts, and says whether there was any. Caller holds mu.
func (c *Cache) abandonOne(t *tenant) bool {
	for p := range t.puts {
		c.abandon(p)
		return true
	}
	return false
}

// abandon ends a put and gives its room back. Its blocks go with the goroutine that fills them, which
// learns of it with the next one. Caller holds mu.
func (c *Cache) abandon(p *put) {
	if p.over {
		return
	}
	p.over = true
	delete(p.t.puts, p)
	c.count(p.t, 0, p.size)
	p.size = 0
	c.leave(p.t)
}

// cancel ends a put that came to nothing.
func (p *put) cancel() {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	p.c.abandon(p)
}

const (
	firstBlock = 4 << 10
	lastBlock  = 64 << 10
	slack      = 512 // unused bytes of the last block that are not worth a copy
)

// read takes a body in.
func (p *put) read(r io.Reader) (body [][]byte, length uint64, err error) {
	for next := firstBlock; ; next = min(2*next, lastBlock) {
		size := int(min(uint64(next), p.left()))
		if size == 0 {
			var one [1]byte
			if _, err := io.ReadFull(r, one[:]); err == io.EOF {
				return body, length, nil
			} else if err != nil {
				return nil, 0, err
			}
			return nil, 0, errEntry
		}
		if err := p.take(uint64(size)); err != nil {
			return nil, 0, err
		}
		b := make([]byte, size)
		n, err := io.ReadFull(r, b)
		length += uint64(n)
		switch {
		case err == nil:
			body = append(body, b)
			continue
		case err != io.EOF && err != io.ErrUnexpectedEOF:
			return nil, 0, err
		}
		if size-n > slack {
			b = slices.Clone(b[:n:n])
			p.giveBack(uint64(size - n))
		}
		if n > 0 {
			body = append(body, b[:n])
		}
		return body, length, nil
	}
}

// left is how many bytes more it may have at best.
func (p *put) left() uint64 {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	return min(p.l.CacheEntry, p.l.CacheBytes, p.host) - p.size
}

func (p *put) giveBack(n uint64) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	if !p.over {
		p.size -= n
		p.c.count(p.t, 0, n)
	}
}

// keep makes the put an entry, in the place of what would have answered the same request.
func (p *put) keep(e *entry, request []field) error {
	c, t := p.c, p.t
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.over {
		return errRoom
	}
	for _, old := range slices.Clone(t.under[e.key]) {
		if answers(old.vary, request) {
			c.drop(old)
		}
	}
	if list := t.under[e.key]; len(list) >= variants {
		c.shed(list[0])
	}
	for t.recent.Len() >= p.l.CacheEntries {
		c.shed(t.recent.Back().Value.(*entry))
	}
	p.over = true
	delete(t.puts, p)
	e.t, e.size = t, p.size
	e.at = t.recent.PushFront(e)
	t.under[e.key] = append(t.under[e.key], e)
	c.count(t, 0, 0)
	t.use.Count(observe.CacheStored)
	return nil
}
