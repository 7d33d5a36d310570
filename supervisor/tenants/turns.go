package tenants

import (
	"context"
	"slices"
	"sync"
)

// turns gives out the bundlers. At a host's start, hundreds of tenants wait for the two there are: who
// somebody has asked for goes first, in the order of coming, and not after all those that nobody waits for.
type turns struct {
	mu    sync.Mutex
	free  int     // guarded by mu
	queue []*turn // guarded by mu: in the order of coming
}

// turn is one build that waits.
type turn struct {
	entry *entry
	ready chan struct{} // closed when it has a bundler
}

// take returns when e has a bundler, which done gives back, or with ctx's error.
func (t *turns) take(ctx context.Context, e *entry) error {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return nil
	}
	own := &turn{e, make(chan struct{})}
	t.queue = append(t.queue, own)
	t.mu.Unlock()
	select {
	case <-own.ready:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	i := slices.Index(t.queue, own)
	if i >= 0 {
		t.queue = slices.Delete(t.queue, i, i+1)
	}
	t.mu.Unlock()
	if i < 0 { // it got one at the same moment
		t.done()
	}
	return ctx.Err()
}

// done hands the bundler to the next.
func (t *turns) done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.queue) == 0 {
		t.free++
		return
	}
	next := max(0, slices.IndexFunc(t.queue, func(w *turn) bool { return w.entry.wanted.Load() > 0 }))
	close(t.queue[next].ready)
	t.queue = slices.Delete(t.queue, next, next+1)
}
