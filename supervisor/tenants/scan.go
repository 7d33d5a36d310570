package tenants

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bulkhead/policy"
	"bulkhead/supervisor/tenants/manifest"
)

// batch is how many directory entries are read at a time: a root may hold more than anybody wants
// to have in memory at once.
const batch = 1024

// rescan makes the entries what the roots hold. It reads all names, so events about single names go
// to lookAt.
func (r *Registry) rescan() {
	r.scan.Lock()
	defer r.scan.Unlock()
	found := make(map[string]int, r.Len())
	for root, dir := range r.cfg.Roots {
		if err := r.readRoot(found, root, dir); err != nil {
			r.once(Report{Kind: ReportWatch, Message: fmt.Sprintf("cannot read the tenants' directory: %v; its tenants are kept as they were", err)})
			for e := range r.all() {
				if _, taken := found[e.id]; e.root == root && !taken {
					found[e.id] = root
				}
			}
		}
	}
	var fresh, gone []*entry
	for e := range r.all() {
		if root, ok := found[e.id]; !ok || root != e.root {
			gone = append(gone, e)
		}
	}
	r.drop(gone)
	for id, root := range found {
		if r.entry(id) == nil {
			fresh = append(fresh, &entry{id: strings.Clone(id), root: root})
		}
	}
	r.take(fresh)
}

// rescanChanged is rescan, unless no root has had an entry made, removed or renamed since.
func (r *Registry) rescanChanged() {
	r.scan.Lock()
	same := true
	for root, dir := range r.cfg.Roots {
		same = same && !r.looked[root].IsZero() && r.looked[root].Equal(changeTime(dir))
	}
	r.scan.Unlock()
	if !same {
		r.rescan()
	}
}

// changeTime is a directory's time of change, zero if it cannot be known or is so recent that
// another change could have the same.
func changeTime(dir string) time.Time {
	st, err := os.Stat(dir)
	if err != nil || time.Since(st.ModTime()) < 5*time.Second {
		return time.Time{}
	}
	return st.ModTime()
}

// readRoot adds the tenants of one root.
func (r *Registry) readRoot(found map[string]int, root int, dir string) error {
	r.looked[root] = changeTime(dir)
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		list, err := f.ReadDir(batch)
		for _, d := range list {
			if !r.consider(d.Name(), d.Type()) {
				continue
			}
			if first, ok := found[d.Name()]; ok {
				r.doubled(d.Name(), first, root)
				continue
			}
			found[d.Name()] = root
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// lookAt makes one entry what the roots hold of this name. It says whether the entry was there
// before and still is.
func (r *Registry) lookAt(id string) bool {
	r.scan.Lock()
	defer r.scan.Unlock()
	root := -1
	for i, dir := range r.cfg.Roots {
		st, err := os.Lstat(filepath.Join(dir, id))
		if err != nil || !r.consider(id, st.Mode().Type()) {
			continue
		}
		if root >= 0 {
			r.doubled(id, root, i)
			continue
		}
		root = i
	}
	e := r.entry(id)
	if e != nil && e.root == root {
		return true
	}
	if e != nil {
		r.drop([]*entry{e})
	}
	if root >= 0 {
		r.take([]*entry{{id: strings.Clone(id), root: root}})
	}
	return false
}

// take brings entries into service. Caller holds scan.
func (r *Registry) take(fresh []*entry) {
	if len(fresh) == 0 {
		return
	}
	slices.SortFunc(fresh, func(a, b *entry) int { return strings.Compare(a.id, b.id) })
	routes := false
	for _, e := range fresh {
		routes = r.readRoutes(e) || routes
	}
	for _, e := range fresh {
		r.ids.Store(e.id, e)
	}
	total := r.count.Add(int64(len(fresh)))
	if routes {
		r.retable()
	}
	for _, e := range fresh {
		r.report(Report{Kind: ReportFound, Tenant: e.id, Message: "found"})
		if total <= int64(r.cfg.Eager) {
			r.build(e)
		}
	}
}

// drop takes entries out of service. Caller holds scan.
func (r *Registry) drop(gone []*entry) {
	routes := false
	for _, e := range gone {
		r.ids.Delete(e.id)
		r.timed.Delete(e.id)
		r.count.Add(-1)
		r.mu.Lock()
		routes = routes || r.claimed[e]
		delete(r.claimed, e)
		r.mu.Unlock()
		for _, v := range e.remove() {
			r.shelf.forget(v.code)
		}
		r.watch.forget(e)
	}
	if routes {
		r.retable()
	}
	for _, e := range gone {
		r.report(Report{Kind: ReportGone, Tenant: e.id, Message: "its folder is gone"})
		r.changed(e.id)
	}
}

// consider decides whether a directory entry of a root is a tenant.
func (r *Registry) consider(id string, kind fs.FileMode) bool {
	switch {
	case r.cfg.Only != "" && id != r.cfg.Only:
	case strings.HasPrefix(id, "."), id == "node_modules":
	case kind&fs.ModeSymlink != 0:
		r.once(Report{Kind: ReportWarning, Message: fmt.Sprintf("%q is a symbolic link and is not followed; put the folder itself into the tenants' directory", id)})
	case !kind.IsDir():
	case !policy.ValidTenantID(id):
		r.once(Report{Kind: ReportWarning, Message: fmt.Sprintf("the folder %q is no tenant: a tenant id has lower-case letters, digits and -, at most %d, and begins with a letter or digit; rename it", id, policy.MaxTenantID)})
	default:
		return true
	}
	return false
}

func (r *Registry) doubled(id string, first, second int) {
	r.once(Report{Kind: ReportConflict, Tenant: id, Message: fmt.Sprintf("the folder is in tenants' directories %d and %d; the first one counts", first, second)})
}

// readRoutes takes the routes from the manifest before anything is built, and says whether there
// are any. What is wrong with the manifest is reported by the build. Most folders have no manifest,
// and that is seen without opening them.
func (r *Registry) readRoutes(e *entry) bool {
	folder := r.folder(e)
	if !slices.ContainsFunc(manifest.Configs(), func(name string) bool {
		var st unix.Stat_t
		return unix.Fstatat(unix.AT_FDCWD, folder+"/"+name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
	}) {
		return false
	}
	root, m, err := openFolder(folder)
	if root != nil {
		defer root.Close()
	}
	return err == nil && r.setRoutes(e, m.Routes)
}

// setRoutes says whether they changed.
func (r *Registry) setRoutes(e *entry, rs []manifest.Route) bool {
	e.mu.Lock()
	same := slices.Equal(e.claims, rs)
	e.claims = rs
	e.mu.Unlock()
	if same {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case len(rs) == 0 || e.gone.Load():
		delete(r.claimed, e)
	default:
		r.claimed[e] = true
	}
	return true
}

// retable makes the table anew after a change of tenants or routes.
func (r *Registry) retable() {
	r.mu.Lock()
	all := slices.SortedFunc(maps.Keys(r.claimed), func(a, b *entry) int { // the order in which they may claim
		return cmp.Or(cmp.Compare(a.root, b.root), strings.Compare(a.id, b.id))
	})
	t, conflicts := buildTable(all, r.table.Load())
	r.table.Store(t)
	r.mu.Unlock()
	for _, c := range conflicts {
		r.once(Report{Kind: ReportConflict, Tenant: c.denied, Message: c.String()})
	}
}
