package tenants

import (
	"context"
	"encoding/binary"
	"hash/fnv"
	"io/fs"
	"path/filepath"
	"time"
)

// lookAtAll finds what has changed while notifications were lost, by comparison with the last such
// look, so that who causes the loss does not have everybody bundled anew.
func (w *watcher) lookAtAll(ctx context.Context) {
	w.r.rescan()
	for e := range w.r.all() {
		if e.current.Load() == nil || e.asleep.Load() {
			continue
		}
		if ctx.Err() != nil {
			return
		}
		if w.changedSince(e) {
			w.r.touch(e)
		}
	}
}

// changedSince says whether a folder is not what it was before its last build or look.
func (w *watcher) changedSince(e *entry) bool {
	fp := fingerprint(w.r.folder(e))
	e.mu.Lock()
	defer e.mu.Unlock()
	same := e.lively().print == fp
	e.print = fp
	return !same
}

// polls looks at what cannot be watched, and is the registry's clock.
func (w *watcher) polls(ctx context.Context, roots bool) {
	tick := time.NewTicker(w.r.cfg.PollEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		w.r.clock.Add(1)
		if w.missed.Swap(false) {
			w.lookAtAll(ctx)
		} else if roots {
			w.r.rescanChanged()
		}
		w.mu.Lock()
		var list []*entry
		for e, t := range w.known {
			if t.polled {
				list = append(list, e)
			}
		}
		w.mu.Unlock()
		for _, e := range list {
			if ctx.Err() != nil {
				return
			}
			if e.gone.Load() { // it went while it was being added
				w.forget(e)
				continue
			}
			fp := fingerprint(w.r.folder(e))
			w.mu.Lock()
			t := w.known[e]
			changed := t != nil && t.print != fp
			if t != nil {
				t.print = fp
			}
			w.mu.Unlock()
			if changed {
				w.r.touch(e)
			}
		}
	}
}

// fingerprint changes when a file of the folder does: names, sizes, times of change, kinds.
func fingerprint(folder string) uint64 {
	h := fnv.New64a()
	n := 0
	_ = filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // unreadable is a state like any other
		}
		if n++; n > maxPolled {
			return filepath.SkipAll
		}
		if rel, err := filepath.Rel(folder, path); d.IsDir() && (err != nil || skipDir(rel)) {
			return filepath.SkipDir
		}
		h.Write([]byte(path))
		if st, err := d.Info(); err == nil && !st.IsDir() {
			var b [24]byte
			binary.LittleEndian.PutUint64(b[0:], uint64(st.Size()))
			binary.LittleEndian.PutUint64(b[8:], uint64(st.ModTime().UnixNano()))
			binary.LittleEndian.PutUint64(b[16:], uint64(st.Mode()))
			h.Write(b[:])
		}
		return nil
	})
	return h.Sum64()
}
