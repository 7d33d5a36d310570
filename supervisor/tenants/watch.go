package tenants

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Bounds on what one folder may cost to watch. A folder beyond them is polled, and beyond
// maxPolled only its first files are.
const (
	maxWatchedDirs = 2000
	maxPolled      = 20_000
)

// watcher turns file system events into builds. It watches the roots always, and a tenant's
// folder from its first build on: every directory in it except hidden ones and what is inside
// node_modules. Of node_modules only the presence of packages is seen: who edits an installed
// package touches any other file to have it picked up.
//
// Where the kernel gives no notification (its limit of watches is reached, a file system without
// events), the folder is looked at every Config.PollEvery instead; that is reported once.
type watcher struct {
	r  *Registry
	fs *fsnotify.Watcher // nil: everything is polled

	missed atomic.Bool // events were lost: poll is to look at everything

	mu     sync.Mutex
	polled map[*entry]uint64 // guarded by mu: folder → fingerprint
	dirs   map[*entry]int    // guarded by mu: directories watched
}

func newWatcher(r *Registry) *watcher {
	w := &watcher{r: r, polled: map[*entry]uint64{}, dirs: map[*entry]int{}}
	if r.cfg.ForcePoll {
		return w
	}
	var err error
	if w.fs, err = fsnotify.NewWatcher(); err != nil {
		w.fs = nil
		r.report(Report{Kind: ReportWatch, Message: fmt.Sprintf("no file notification (%v): folders are looked at every %s", err, r.cfg.PollEvery)})
	}
	return w
}

func (w *watcher) close() {
	if w.fs != nil {
		_ = w.fs.Close() // nothing to save
	}
}

func (w *watcher) start(ctx context.Context) {
	rootsPolled := w.fs == nil
	if w.fs != nil {
		for _, dir := range w.r.cfg.Roots {
			if err := w.fs.Add(dir); err != nil {
				rootsPolled = true
				w.r.once(Report{Kind: ReportWatch, Message: fmt.Sprintf("the tenants' directory is looked at every %s instead of watched: %v", w.r.cfg.PollEvery, remedy(err))})
			}
		}
		w.r.wg.Go(func() { w.events(ctx) })
	}
	w.r.wg.Go(func() { w.poll(ctx, rootsPolled) })
}

func (w *watcher) events(ctx context.Context) {
	defer w.close()
	for {
		select {
		case <-ctx.Done():
			return
		case ev, ok := <-w.fs.Events:
			if !ok {
				return
			}
			w.event(ctx, ev)
		case err, ok := <-w.fs.Errors:
			if !ok {
				return
			}
			// The kernel's queue overflowed: something was missed, so everything is looked at. Not
			// here and not at once: a tenant that can fill the queue would do it all the time.
			w.missed.Store(true)
			w.r.once(Report{Kind: ReportWatch, Message: fmt.Sprintf("file notification: %v; looking at all folders, now and whenever it happens again", err)})
		}
	}
}

// lookAtAll finds what has changed while notifications were lost, by comparison with the last such
// look, so that who causes the loss does not have everybody bundled anew.
func (w *watcher) lookAtAll(ctx context.Context) {
	w.r.rescan(ctx)
	for _, e := range w.r.sorted() {
		if e.current.Load() == nil {
			continue
		}
		if ctx.Err() != nil {
			return
		}
		fp := fingerprint(e.folder)
		e.mu.Lock()
		same := e.print == fp
		e.print = fp
		e.mu.Unlock()
		if !same {
			w.r.touch(e)
		}
	}
}

func (w *watcher) event(ctx context.Context, ev fsnotify.Event) {
	for root, dir := range w.r.cfg.Roots {
		rel, ok := strings.CutPrefix(ev.Name, strings.TrimSuffix(dir, "/")+"/")
		if !ok {
			continue
		}
		id, rest, inside := strings.Cut(rel, "/")
		if !inside {
			if !ev.Has(fsnotify.Write) && !ev.Has(fsnotify.Chmod) {
				w.r.rescan(ctx)
			}
			if e := w.r.entry(id); e != nil && e.root == root && ev.Has(fsnotify.Create) {
				w.add(e, ev.Name) // removed and made anew within one look at the root
				w.r.touch(e)
			}
			return
		}
		e := w.r.entry(id)
		if e == nil || e.root != root {
			continue
		}
		if ev.Has(fsnotify.Create) && !skipDir(rest) {
			if st, err := os.Lstat(ev.Name); err == nil && st.IsDir() {
				w.add(e, ev.Name)
			}
		}
		w.r.touch(e)
		return
	}
}

// touch has a folder built after it was quiet for Config.Debounce, or, if it never is, after
// eight times that.
func (r *Registry) touch(e *entry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ctx.Err() != nil || !e.watched {
		return // not built before, so the next request will see the change anyway
	}
	now := time.Now()
	if e.timer == nil {
		e.since = now
		e.timer = time.AfterFunc(r.cfg.Debounce, func() {
			e.mu.Lock()
			e.timer = nil
			e.mu.Unlock()
			if e.ctx.Err() == nil {
				r.build(e)
			}
		})
		return
	}
	if now.Sub(e.since) < 8*r.cfg.Debounce {
		e.timer.Reset(r.cfg.Debounce)
	}
}

// watch begins to watch a folder, once.
func (w *watcher) watch(e *entry) {
	e.mu.Lock()
	first := !e.watched
	e.watched = true
	e.mu.Unlock()
	if first {
		w.add(e, e.folder)
	}
}

// add watches a directory and those below it; what cannot be watched is polled.
func (w *watcher) add(e *entry, dir string) {
	w.mu.Lock()
	_, isPolled := w.polled[e]
	w.mu.Unlock()
	if isPolled {
		return
	}
	err := errPolling
	if w.fs != nil {
		err = w.addTree(e, dir)
	}
	if err == nil {
		return
	}
	if w.fs != nil {
		w.r.once(Report{Kind: ReportWatch, Tenant: e.id, Message: fmt.Sprintf("the folder is looked at every %s instead of watched: %v", w.r.cfg.PollEvery, remedy(err))})
	}
	fp := fingerprint(e.folder)
	w.mu.Lock()
	w.polled[e] = fp
	w.mu.Unlock()
}

var (
	errPolling = errors.New("polling was asked for")
	errTooMany = fmt.Errorf("it has more than %d directories", maxWatchedDirs)
)

func (w *watcher) addTree(e *entry, dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if path == dir && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil // it went away, or is not ours to read: the bundler will say so
		}
		if !d.IsDir() {
			return nil
		}
		rel, err := filepath.Rel(e.folder, path)
		if err != nil || skipDir(rel) {
			return filepath.SkipDir
		}
		w.mu.Lock()
		w.dirs[e]++
		n := w.dirs[e]
		w.mu.Unlock()
		if n > maxWatchedDirs { // ever; how many are there now?
			n = w.watchedBelow(e.folder)
			w.mu.Lock()
			w.dirs[e] = n
			w.mu.Unlock()
			if n >= maxWatchedDirs {
				return errTooMany
			}
		}
		if err := w.fs.Add(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}

// watchedBelow counts the directories of a folder that are watched now: the kernel forgets those
// that are removed.
func (w *watcher) watchedBelow(folder string) (n int) {
	for _, p := range w.fs.WatchList() {
		if p == folder || strings.HasPrefix(p, folder+"/") {
			n++
		}
	}
	return n
}

// skipDir says whether a path within a folder is not looked at: hidden directories, and whatever
// is inside node_modules (which itself is looked at).
func skipDir(rel string) bool {
	parts := strings.Split(filepath.ToSlash(rel), "/")
	for i, p := range parts {
		if len(p) > 1 && p[0] == '.' && p != ".." {
			return true
		}
		if p == "node_modules" && i < len(parts)-1 {
			return true
		}
	}
	return false
}

// forget drops a folder that is gone. The kernel has dropped its watches by itself when the
// directories were removed; those of a folder that was moved away are removed here.
func (w *watcher) forget(e *entry) {
	w.mu.Lock()
	delete(w.polled, e)
	delete(w.dirs, e)
	w.mu.Unlock()
	if w.fs == nil {
		return
	}
	for _, p := range w.fs.WatchList() {
		if p == e.folder || strings.HasPrefix(p, e.folder+"/") {
			_ = w.fs.Remove(p) // it is gone already: that is what was wanted
		}
	}
}

func (w *watcher) poll(ctx context.Context, roots bool) {
	tick := time.NewTicker(w.r.cfg.PollEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if w.missed.Swap(false) {
			w.lookAtAll(ctx)
		} else if roots {
			w.r.rescan(ctx)
		}
		w.mu.Lock()
		list := make([]*entry, 0, len(w.polled))
		for e := range w.polled {
			if e.ctx.Err() != nil { // it went while it was being added
				delete(w.polled, e)
				continue
			}
			list = append(list, e)
		}
		w.mu.Unlock()
		for _, e := range list {
			if ctx.Err() != nil {
				return
			}
			fp := fingerprint(e.folder)
			w.mu.Lock()
			old, still := w.polled[e]
			if still {
				w.polled[e] = fp
			}
			w.mu.Unlock()
			if still && fp != old {
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

// remedy adds to an error of inotify(7) what the operator can do about it.
func remedy(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%w (the kernel's limit of watches is reached; raise fs.inotify.max_user_watches by sysctl)", err)
	case errors.Is(err, syscall.EMFILE):
		return fmt.Errorf("%w (too many inotify instances; raise fs.inotify.max_user_instances by sysctl)", err)
	}
	return err
}
