package egress

import (
	"context"
	"errors"
	"slices"
	"sync"
)

var errLookups = errors.New("this host has too many host names to look up; try again")

// lookups shares out how many names may be looked up at once. A name server that does not answer
// holds a lookup, two sockets and their goroutines until its deadline, and a tenant can name its own:
// what bounds connections does not bound this, as a lookup ends before there is one.
//
// A tenant has at most an eighth of the places. When all are taken, lookups wait, and a place that
// becomes free goes to the tenant that holds the fewest.
type lookups struct {
	most, each int // for the host, for a tenant

	mu      sync.Mutex
	taken   int            // guarded by mu
	by      map[string]int // guarded by mu; by tenant, none of zero
	waiting []*lookup      // guarded by mu; oldest first
}

// lookup is one that waits.
type lookup struct {
	tenant string
	ready  chan struct{} // closed when it has a place
}

// leastLookups is what a host has of places however few connections it may have.
const leastLookups = 32

func newLookups(conns int) *lookups {
	most := max(leastLookups, conns/8)
	return &lookups{most: most, each: most / 8, by: map[string]int{}}
}

// begin waits for a place; end gives it back. An error means that ctx was over first.
func (l *lookups) begin(ctx context.Context, tenant string) (end func(), err error) {
	end = sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.giveLocked(tenant)
	})
	l.mu.Lock()
	if l.mayLocked(tenant) {
		l.takeLocked(tenant)
		l.mu.Unlock()
		return end, nil
	}
	w := &lookup{tenant: tenant, ready: make(chan struct{})}
	l.waiting = append(l.waiting, w)
	l.mu.Unlock()
	select {
	case <-w.ready:
		return end, nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.waiting, w); i >= 0 {
		l.waiting = slices.Delete(l.waiting, i, i+1)
	} else {
		l.giveLocked(tenant) // it came too late
	}
	return nil, errLookups
}

func (l *lookups) mayLocked(tenant string) bool { return l.taken < l.most && l.by[tenant] < l.each }

func (l *lookups) takeLocked(tenant string) {
	l.taken++
	l.by[tenant]++
}

// giveLocked takes a place back and gives what is free to those who wait.
func (l *lookups) giveLocked(tenant string) {
	l.taken--
	if l.by[tenant]--; l.by[tenant] == 0 {
		delete(l.by, tenant)
	}
	for {
		next := -1
		for i, w := range l.waiting {
			if l.mayLocked(w.tenant) && (next < 0 || l.by[w.tenant] < l.by[l.waiting[next].tenant]) {
				next = i
			}
		}
		if next < 0 {
			return
		}
		w := l.waiting[next]
		l.waiting = slices.Delete(l.waiting, next, next+1)
		l.takeLocked(w.tenant)
		close(w.ready)
	}
}
