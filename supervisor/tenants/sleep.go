package tenants

import (
	"cmp"
	"slices"
)

// wake watches a sleeping folder again, and has it built if it has changed. The channel is closed
// when what serves is what is there.
func (w *watcher) wake(e *entry) <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.waking != nil {
		return e.waking
	}
	done := make(chan struct{})
	if !e.asleep.Load() { // somebody else has
		close(done)
		return done
	}
	e.waking = done
	w.r.wg.Go(func() {
		changed := false
		w.r.look(func() {
			w.add(e, w.r.folder(e))
			changed = w.changedSince(e)
		})
		if changed {
			<-w.r.build(e)
		}
		e.mu.Lock()
		e.asleep.Store(false)
		e.waking = nil
		e.mu.Unlock()
		close(done)
	})
	return done
}

// shrink puts folders to sleep until no more is watched than may be, with some room for the next.
func (w *watcher) shrink(most int) {
	w.mu.Lock()
	over := w.count - most
	if over <= 0 {
		w.mu.Unlock()
		return
	}
	over += most / 8
	type candidate struct {
		e    *entry
		used uint32
		cost int
	}
	list := make([]candidate, 0, len(w.known))
	for e, t := range w.known {
		list = append(list, candidate{e, e.used.Load(), t.cost()})
	}
	w.mu.Unlock()
	slices.SortFunc(list, func(a, b candidate) int { return cmp.Compare(a.used, b.used) })
	for _, c := range list {
		if over <= 0 {
			return
		}
		if w.sleep(c.e) {
			over -= c.cost
		}
	}
}

// sleep stops to watch a folder that is not about to be built.
func (w *watcher) sleep(e *entry) bool {
	// Whoever sees that it sleeps, and wakes it, watches it after it was forgotten here. A folder that
	// takes long to walk is not waited for.
	tree := e.tree()
	if !tree.TryLock() {
		return false
	}
	defer tree.Unlock()
	e.mu.Lock()
	if e.gone.Load() || e.life == nil || e.building || e.timer != nil || e.waking != nil || e.asleep.Load() || e.current.Load() == nil {
		e.mu.Unlock()
		return false
	}
	e.asleep.Store(true)
	e.mu.Unlock()
	w.unwatch(e)
	return true
}
