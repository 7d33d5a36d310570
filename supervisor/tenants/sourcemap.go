package tenants

import (
	"encoding/json"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"bulkhead/policy/doctree"
	"bulkhead/supervisor/tenants/manifest"
)

// sourceMap is the part of a source map (ECMA-426) that is used here.
type sourceMap struct {
	Sources  []string `json:"sources"`
	Mappings string   `json:"mappings"`
}

// place is where a generated position comes from.
type place struct {
	source       string
	line, column int // from 1
}

// lookup decodes the mappings up to the wanted position (line and column from 1) and returns the
// last segment at or before it on its line. Decoding from the start every time keeps nothing in
// memory; it is done for errors only.
func (m *sourceMap) lookup(line, column int) (place, bool) {
	var src, sl, sc, gl, gc int
	var best place
	found := false
	for i := 0; i < len(m.Mappings) && gl < line; {
		switch m.Mappings[i] {
		case ';':
			gl, gc = gl+1, 0
			i++
			continue
		case ',':
			i++
			continue
		}
		var f [5]int
		n := 0
		for i < len(m.Mappings) && m.Mappings[i] != ',' && m.Mappings[i] != ';' && n < 5 {
			v, next, ok := vlq(m.Mappings, i)
			if !ok {
				return place{}, false
			}
			f[n], i = v, next
			n++
		}
		gc += f[0]
		if n < 4 {
			continue
		}
		src, sl, sc = src+f[1], sl+f[2], sc+f[3]
		if gl == line-1 && gc <= column-1 {
			if src < 0 || src >= len(m.Sources) {
				return place{}, false
			}
			best, found = place{m.Sources[src], sl + 1, sc + 1}, true
		}
	}
	return best, found
}

// vlq reads one base64 variable-length quantity (ECMA-426 §6.1).
func vlq(s string, i int) (value, next int, ok bool) {
	shift := 0
	for ; i < len(s) && shift <= 30; i++ {
		d := strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", s[i])
		if d < 0 {
			return 0, 0, false
		}
		value |= (d & 31) << shift
		if d&32 == 0 {
			if value&1 != 0 {
				return -(value >> 1), i + 1, true
			}
			return value >> 1, i + 1, true
		}
		shift += 5
	}
	return 0, 0, false
}

// mapper holds the source maps of one version, and the time it may take to use them. Who writes
// thousands of errors a second makes the gateway map thousands of places, so mapping is given at
// most a fiftieth of the time that passes; beyond it, texts stay as they are.
type mapper struct {
	packed map[string][]byte // module name → source map, deflated; until the shelf has it
	names  []string          // of the modules that have a map
	plain  string            // the module that is a file of the folder as it is, or ""
	size   int               // of packed

	mu     sync.Mutex
	busy   bool          // guarded by mu: one text is mapped at a time, for a map costs memory when it is open
	credit time.Duration // guarded by mu
	last   time.Time     // guarded by mu: when credit was last added to
}

// maxCredit is what may be saved up. One map of a large application takes some 100 ms.
const maxCredit = 500 * time.Millisecond

func newMapper() *mapper {
	return &mapper{packed: map[string][]byte{}, credit: maxCredit, last: time.Now()}
}

// Bounds on the source maps of one version. They stay in memory as long as it does.
const (
	maxMap       = 32 << 20 // bytes, one map as it comes
	maxMapPacked = 8 << 20  // bytes, all maps deflated
)

// keep stores a module's map; false if it is too large.
func (m *mapper) keep(module string, raw []byte) bool {
	if len(raw) > maxMap {
		return false
	}
	packed := deflate(raw)
	if m.size+len(packed) > maxMapPacked {
		return false
	}
	m.size += len(packed)
	m.packed[module] = packed
	m.names = append(m.names, module)
	return true
}

// spend runs f if there is credit, and says whether it did.
func (m *mapper) spend(f func()) bool {
	m.mu.Lock()
	now := time.Now()
	m.credit = min(maxCredit, m.credit+now.Sub(m.last)/50)
	m.last = now
	ok := m.credit > 0 && !m.busy
	m.busy = m.busy || ok
	m.mu.Unlock()
	if !ok {
		return false
	}
	f()
	m.mu.Lock()
	m.busy = false
	m.credit -= time.Since(now)
	m.mu.Unlock()
	return true
}

// locate maps a position in a module of the bundle to the file it was made from. V8's texts name
// modules without the leading slash.
func (v *Version) locate(module string, line, column int, parsed map[string]*sourceMap) (place, bool) {
	module = "/" + strings.TrimPrefix(module, "/")
	if module == v.maps.plain {
		return place{module[1:], line, column}, line > 0
	}
	sm := parsed[module]
	if sm == nil {
		packed := v.sourceMaps()[module]
		if packed == nil {
			return place{}, false
		}
		sm = &sourceMap{}
		parsed[module] = sm
		if raw, err := inflate(packed); err == nil {
			if json.Unmarshal(raw, sm) != nil {
				sm.Mappings = "" // a bundler that lies loses its line numbers
			}
		}
	}
	p, ok := sm.lookup(line, column)
	if !ok {
		return p, false
	}
	p.source = path.Clean(p.source)
	if p.source == ".." || strings.HasPrefix(p.source, "../") || strings.HasPrefix(p.source, "/") || len(p.source) > maxModuleName {
		return place{}, false
	}
	p.source = doctree.Printable(p.source)
	return p, true
}

// mentioned says whether a text can hold a place in a module that has a map.
func (m *mapper) mentioned(text string) bool {
	for _, name := range m.names {
		if strings.Contains(text, name[1:]+":") {
			return true
		}
	}
	return false
}

// placed gives a diagnostic without a line the first place of the bundle that its stack names.
func (v *Version) placed(d Diagnostic, stack string) Diagnostic {
	if d.Line > 0 || v.maps == nil {
		return d
	}
	for _, m := range stackPlace.FindAllStringSubmatch(clean(stack), 50) {
		if name := "/" + strings.TrimPrefix(m[1], "/"); name != v.maps.plain && !slices.Contains(v.maps.names, name) {
			continue
		}
		line, err1 := strconv.Atoi(m[2])
		column, err2 := strconv.Atoi(m[3])
		if err1 == nil && err2 == nil {
			d.File, d.Line, d.Column = m[1], line, column
			return d
		}
	}
	return d
}

// MapDiagnostic turns a place in the bundle into the place in the tenant's folder, with the
// line that stands there now. What cannot be mapped is returned as it is, made printable.
func (v *Version) MapDiagnostic(d Diagnostic) Diagnostic {
	d.File, d.Excerpt, d.Message = clean(d.File), clean(d.Excerpt), v.MapStack(clean(d.Message))
	if v.maps == nil {
		return d
	}
	p, ok := place{}, false
	v.maps.spend(func() { p, ok = v.locate(d.File, d.Line, max(1, d.Column), map[string]*sourceMap{}) })
	if !ok {
		d.File = strings.TrimPrefix(d.File, "/")
		return d
	}
	d.File, d.Line, d.Column = p.source, p.line, p.column
	if root, err := os.OpenRoot(v.folder); err == nil {
		defer root.Close()
		if src, err := manifest.ReadFile(root, p.source, 8<<20); err == nil {
			d.Excerpt, _ = doctree.Excerpt(src, doctree.Pos{Line: p.line, Column: p.column})
		}
	}
	return d
}

// MapStack replaces places in the bundle ("worker.bundle.js:10:7") within a text by those of the
// tenant's files. It costs next to nothing for texts without one, and maps at most 50 of a text.
func (v *Version) MapStack(text string) string {
	if v.maps == nil || !v.maps.mentioned(text) {
		return text
	}
	out := text
	v.maps.spend(func() {
		parsed := map[string]*sourceMap{}
		mapped := 0
		out = stackPlace.ReplaceAllStringFunc(text, func(s string) string {
			m := stackPlace.FindStringSubmatch(s)
			line, err1 := strconv.Atoi(m[2])
			column, err2 := strconv.Atoi(m[3])
			if mapped++; err1 != nil || err2 != nil || mapped > 50 {
				return s
			}
			p, ok := v.locate(m[1], line, column, parsed)
			if !ok {
				return s
			}
			return p.source + ":" + strconv.Itoa(p.line) + ":" + strconv.Itoa(p.column)
		})
	})
	return out
}

// stackPlace matches a module name, line and column as V8 writes them. It is never changed.
var stackPlace = regexp.MustCompile(`([!-'*-9;-~]{1,200}):(\d{1,7}):(\d{1,7})`)
