package tenants

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// code is the large part of a version: the bundle and the source maps. A shard is given it once;
// until the next load it is only kept. What is kept in memory is bounded by Config.BundleMemory:
// beyond it, the code that was not wanted for longest is written to Config.BundleDir, or forgotten
// if there is none, and made anew from the folder when it is wanted.
type code struct {
	shelf *shelf
	name  string // of the file, if it comes to that: tenant and version
	whole int    // bytes of the bundle, wherever it is

	// All guarded by shelf.mu.
	bundle []byte            // nil while it is not in memory
	maps   map[string][]byte // module name → source map, deflated; not changed once it is here
	place  *list.Element     // in shelf.used, nil while it is not in memory
	file   *list.Element     // in shelf.files, nil while there is no file of it
	sum    [sha256.Size]byte // of the file: what comes back is what went
}

func (c *code) size() int {
	n := len(c.bundle)
	for _, m := range c.maps {
		n += len(m)
	}
	return n
}

// shelf holds the code of all versions.
type shelf struct {
	memory int    // bytes of code in memory
	disk   int    // bytes of code in files
	dir    string // "": no files

	mu    sync.Mutex
	used  *list.List // guarded by mu; of *code in memory, most recently wanted first
	bytes int        // guarded by mu; of them
	files *list.List // guarded by mu; of *filed, the newest first
	filed int        // guarded by mu; bytes of them
}

type filed struct {
	c    *code
	size int
}

// newShelf makes an empty shelf. Files of an earlier life, whose versions nobody knows any more,
// are removed.
func newShelf(memory, disk int, dir string) (*shelf, error) {
	s := &shelf{memory: memory, disk: disk, used: list.New(), files: list.New()}
	if dir == "" {
		return s, nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("tenants: clear the bundles' directory: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("tenants: make the bundles' directory: %w", err)
	}
	s.dir = dir
	return s, nil
}

// add takes the code of a new version.
func (s *shelf) add(name string, bundle []byte, maps map[string][]byte) *code {
	c := &code{shelf: s, name: name, whole: len(bundle)}
	s.fill(c, bundle, maps)
	return c
}

// fill puts code into memory, if it is not there.
func (s *shelf) fill(c *code, bundle []byte, maps map[string][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.bundle != nil {
		return
	}
	c.bundle, c.maps = bundle, maps
	c.place = s.used.PushFront(c)
	s.bytes += c.size()
	// The newest stays, however large: it is about to be loaded.
	for s.bytes > s.memory && s.used.Len() > 1 {
		s.drop(s.used.Back().Value.(*code))
	}
}

// drop takes code out of memory. Caller holds mu.
func (s *shelf) drop(c *code) {
	s.bytes -= c.size()
	s.used.Remove(c.place)
	c.place = nil
	if s.dir != "" && c.file == nil {
		s.write(c)
	}
	c.bundle, c.maps = nil, nil
}

// write makes the file of code. One that cannot be written is made anew when it is wanted. Caller
// holds mu.
func (s *shelf) write(c *code) {
	raw := pack(c.bundle, c.maps)
	path := filepath.Join(s.dir, c.name)
	if os.WriteFile(path, raw, 0o600) != nil {
		_ = os.Remove(path) // half a file helps nobody
		return
	}
	c.sum = sha256.Sum256(raw)
	c.file = s.files.PushFront(&filed{c, len(raw)})
	s.filed += len(raw)
	for s.filed > s.disk && s.files.Len() > 0 {
		s.unlink(s.files.Back().Value.(*filed))
	}
}

// unlink removes a file. Caller holds mu.
func (s *shelf) unlink(f *filed) {
	_ = os.Remove(filepath.Join(s.dir, f.c.name)) // one that stays is removed at the next start
	s.files.Remove(f.c.file)
	f.c.file = nil
	s.filed -= f.size
}

// forget lets code go that no version will ask for again.
func (s *shelf) forget(c *code) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.file != nil {
		s.unlink(c.file.Value.(*filed))
	}
	if c.bundle != nil {
		s.bytes -= c.size()
		s.used.Remove(c.place)
		c.place, c.bundle, c.maps = nil, nil, nil
	}
}

// get returns code that is in memory or in a file, and nil if it is in neither.
func (s *shelf) get(c *code) (bundle []byte, maps map[string][]byte) {
	s.mu.Lock()
	if c.bundle != nil {
		s.used.MoveToFront(c.place)
		defer s.mu.Unlock()
		return c.bundle, c.maps
	}
	there, sum := c.file != nil, c.sum
	s.mu.Unlock()
	if !there {
		return nil, nil
	}
	raw, err := os.ReadFile(filepath.Join(s.dir, c.name))
	if err != nil || sha256.Sum256(raw) != sum {
		return nil, nil
	}
	bundle, maps, err = unpack(raw)
	if err != nil {
		return nil, nil
	}
	s.fill(c, bundle, maps)
	return bundle, maps
}

// kept says whether get would give something without making it anew.
func (c *code) kept() bool {
	c.shelf.mu.Lock()
	defer c.shelf.mu.Unlock()
	return c.bundle != nil || c.file != nil
}

// pack and unpack are the form of the files: counted byte strings, the bundle first, then names
// and maps in turn.
func pack(bundle []byte, all map[string][]byte) []byte {
	put := func(out, b []byte) []byte { return append(binary.AppendUvarint(out, uint64(len(b))), b...) }
	out := put(nil, bundle)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = put(put(out, []byte(name)), all[name])
	}
	return out
}

func unpack(raw []byte) (bundle []byte, all map[string][]byte, err error) {
	var parts [][]byte
	for len(raw) > 0 {
		n, used := binary.Uvarint(raw)
		if used <= 0 || n > uint64(len(raw)-used) {
			return nil, nil, errors.New("a file of the bundles' directory is broken")
		}
		parts = append(parts, raw[used:used+int(n):used+int(n)])
		raw = raw[used+int(n):]
	}
	if len(parts)%2 == 0 {
		return nil, nil, errors.New("a file of the bundles' directory is broken")
	}
	all = make(map[string][]byte, len(parts)/2)
	for i := 1; i < len(parts); i += 2 {
		all[string(parts[i])] = parts[i+1]
	}
	return parts[0], all, nil
}

// StaleError says that a version's code is no longer to be had: its folder has changed since.
type StaleError struct {
	Now *Version // what serves the tenant now; nil if it is gone
}

func (e *StaleError) Error() string { return "the worker's folder has changed; a newer version serves" }

// Code returns what a shard is given, from memory, from a file, or made anew from the folder.
// Errors: *StaleError, ctx's, and *StartError of machinery that failed.
func (v *Version) Code(ctx context.Context) ([]byte, error) {
	if v.code == nil || v.Bundle != nil {
		return v.Bundle, nil
	}
	if b, _ := v.code.shelf.get(v.code); b != nil {
		return b, nil
	}
	return v.again(ctx, v)
}

// CodeSize is how many bytes Code returns.
func (v *Version) CodeSize() int {
	if v.code == nil || v.Bundle != nil {
		return len(v.Bundle)
	}
	return v.code.whole
}

// sourceMaps returns the maps, without making them anew.
func (v *Version) sourceMaps() map[string][]byte {
	if v.code == nil {
		return v.maps.packed
	}
	_, maps := v.code.shelf.get(v.code)
	return maps
}

// again makes the code of a version from its folder. Equal code is the same version: nothing is
// published, and who runs it is not disturbed.
func (r *Registry) again(ctx context.Context, v *Version) ([]byte, error) {
	e := r.entry(v.Tenant)
	if e == nil {
		return nil, &StaleError{}
	}
	made, _, _ := r.make(ctx, e)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if made.machinery {
		return nil, fmt.Errorf("make the bundle again: %w", made.Err)
	}
	if made.Hash == v.Hash {
		r.shelf.fill(v.code, made.Bundle, made.maps.packed)
		return made.Bundle, nil
	}
	select { // there is news, of which the watcher may not know yet
	case <-r.build(e):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	now := e.current.Load()
	if now == v { // the folder is broken now, and v is what served before
		now = r.lost(e, v)
	}
	return nil, &StaleError{Now: now}
}

// lost takes a version out of service whose code is nowhere any more.
func (r *Registry) lost(e *entry, v *Version) *Version {
	e.mu.Lock()
	if e.current.Load() != v {
		defer e.mu.Unlock()
		return e.current.Load()
	}
	bad := *v
	bad.Hash, bad.code, bad.Err = "", nil, e.broken
	if bad.Err == nil {
		bad.Err = &StartError{Tenant: e.id, Step: StepBundle, Outcome: outcomeNotLoaded, Diagnostics: []Diagnostic{{Message: "the bundle could not be made again; touch a file of the folder to have it tried"}}}
	}
	e.good, e.broken = nil, nil
	e.current.Store(&bad)
	e.mu.Unlock()
	r.changed(e.id)
	return &bad
}
