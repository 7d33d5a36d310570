package tenants

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Bounds on what one folder may cost to watch. A folder beyond them is polled, and beyond
// maxPolled only its first files are. Config.MaxWatches bounds all of them together.
const (
	maxWatchedDirs = 2000
	maxPolled      = 20_000
)

// watcher turns file system events into builds. It watches the roots always, and a tenant's
// folder from its first build on: every directory in it except hidden ones and what is inside
// node_modules. Of node_modules only the presence of packages is seen: who edits an installed
// package touches any other file to have it picked up.
//
// Beyond Config.MaxWatches the folders that have not been asked for in the longest time are put to
// sleep: they are not watched any more, and looked at when they are asked for again.
//
// Where the kernel gives no notification (its limit of watches is reached, a file system without
// events), the folder is looked at every Config.PollEvery instead; that is reported once.
type watcher struct {
	r  *Registry
	fs *fsnotify.Watcher // nil: everything is polled

	missed atomic.Bool // events were lost: poll is to look at everything

	mu    sync.Mutex
	known map[*entry]*watched // guarded by mu
	count int                 // guarded by mu: directories watched, and folders polled, in known
}

// watched is one folder that is watched or polled. Guarded by watcher.mu.
type watched struct {
	dirs   []string // that were watched ever since the last count
	polled bool
	print  uint64 // of a polled one
}

func (t *watched) cost() int { return max(1, len(t.dirs)) }

func newWatcher(r *Registry) *watcher {
	w := &watcher{r: r, known: map[*entry]*watched{}}
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
	w.r.wg.Go(func() { w.polls(ctx, rootsPolled) })
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
			w.event(ev)
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

// knows says whether a folder is watched or polled.
func (w *watcher) knows(e *entry) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known[e] != nil
}

func (w *watcher) event(ev fsnotify.Event) {
	for root, dir := range w.r.cfg.Roots {
		rel, ok := strings.CutPrefix(ev.Name, strings.TrimSuffix(dir, "/")+"/")
		if !ok {
			continue
		}
		id, rest, inside := strings.Cut(rel, "/")
		if !inside {
			if ev.Op&^(fsnotify.Write|fsnotify.Chmod) == 0 {
				return
			}
			stayed := w.r.lookAt(id)
			if e := w.r.entry(id); stayed && e != nil && e.root == root && ev.Has(fsnotify.Create) && w.knows(e) {
				w.add(e, ev.Name) // removed and made anew before it was looked at
				w.r.touch(e)
			}
			return
		}
		e := w.r.entry(id)
		if e == nil || e.root != root {
			continue
		}
		if ev.Has(fsnotify.Create) && !skipDir(rest) && w.knows(e) {
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
	if e.gone.Load() || e.life == nil || !e.watched {
		return // not built before, so the next request will see the change anyway
	}
	now := time.Now()
	if e.timer == nil {
		e.since = now
		e.timer = time.AfterFunc(r.cfg.Debounce, func() {
			e.mu.Lock()
			e.timer = nil
			e.mu.Unlock()
			r.build(e)
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
		w.add(e, w.r.folder(e))
	}
}

// add watches a directory and those below it; what cannot be watched is polled.
func (w *watcher) add(e *entry, dir string) {
	if w.tryAdd(e, dir) {
		w.shrink(w.r.cfg.MaxWatches)
		return
	}
	// The kernel has fewer watches for us than we thought.
	w.mu.Lock()
	most := w.count * 7 / 8
	w.mu.Unlock()
	w.shrink(most)
	if w.tryAdd(e, dir) {
		return
	}
	w.poll(e, syscall.ENOSPC)
}

// tryAdd is add; false if the kernel's limit of watches is reached.
func (w *watcher) tryAdd(e *entry, dir string) bool {
	tree := e.tree()
	tree.Lock()
	defer tree.Unlock()
	if e.gone.Load() {
		return true // and forgotten: nobody would forget it again
	}
	w.mu.Lock()
	t := w.known[e]
	if t == nil {
		t = &watched{}
		w.known[e] = t
		w.count += t.cost()
	}
	polled := t.polled
	w.mu.Unlock()
	if polled {
		return true
	}
	err := errPolling
	if w.fs != nil {
		err = w.addTree(e, t, dir)
	}
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return false
	case err != nil:
		w.poll(e, err)
	}
	return true
}

// poll has a folder looked at now and then.
func (w *watcher) poll(e *entry, why error) {
	if w.fs != nil {
		w.r.once(Report{Kind: ReportWatch, Tenant: e.id, Message: fmt.Sprintf("the folder is looked at every %s instead of watched: %v", w.r.cfg.PollEvery, remedy(why))})
	}
	fp := fingerprint(w.r.folder(e))
	w.mu.Lock()
	defer w.mu.Unlock()
	if t := w.known[e]; t != nil {
		t.polled, t.print = true, fp
	}
}

var (
	errPolling = errors.New("polling was asked for")
	errTooMany = fmt.Errorf("it has more than %d directories", maxWatchedDirs)
)

func (w *watcher) addTree(e *entry, t *watched, dir string) error {
	folder := w.r.folder(e)
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
		rel, err := filepath.Rel(folder, path)
		if err != nil || skipDir(rel) {
			return filepath.SkipDir
		}
		if !w.note(t, path) {
			// So many ever; how many are there now?
			now := w.watchedBelow(folder)
			w.mu.Lock()
			w.count += len(now) - len(t.dirs)
			t.dirs = now
			w.mu.Unlock()
			if len(now) >= maxWatchedDirs || !w.note(t, path) {
				return errTooMany
			}
		}
		if err := w.fs.Add(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}

// note counts a directory that is about to be watched; false if its folder has too many.
func (w *watcher) note(t *watched, path string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if slices.Contains(t.dirs, path) {
		return true
	}
	if len(t.dirs) >= maxWatchedDirs {
		return false
	}
	w.count -= t.cost()
	t.dirs = append(t.dirs, path)
	w.count += t.cost()
	return true
}

// watchedBelow lists the directories of a folder that are watched now: the kernel forgets those
// that are removed.
func (w *watcher) watchedBelow(folder string) (out []string) {
	for _, p := range w.fs.WatchList() {
		if p == folder || strings.HasPrefix(p, folder+"/") {
			out = append(out, p)
		}
	}
	return out
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

// forget drops a folder that is gone, or asleep. Of those that were removed the kernel has dropped
// the watches by itself; those of a folder that was moved away are removed here.
func (w *watcher) forget(e *entry) {
	tree := e.tree()
	tree.Lock()
	defer tree.Unlock()
	w.unwatch(e)
}

// unwatch is forget for whoever holds the entry's tree.
func (w *watcher) unwatch(e *entry) {
	w.mu.Lock()
	t := w.known[e]
	delete(w.known, e)
	if t != nil {
		w.count -= t.cost()
	}
	w.mu.Unlock()
	if t == nil || w.fs == nil {
		return
	}
	for _, p := range t.dirs {
		_ = w.fs.Remove(p) // it is gone already: that is what was wanted
	}
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
