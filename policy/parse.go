package policy

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"bulkhead/policy/doctree"
	"bulkhead/policy/limits"
	"bulkhead/policy/seccomp"
)

// MaxTenantID is the length of the longest tenant id, in bytes (a DNS label, RFC 1035 §2.3.4).
const MaxTenantID = 63

// ValidTenantID says whether s can name a tenant: [a-z0-9][a-z0-9-]{0,62}.
func ValidTenantID(s string) bool {
	if s == "" || len(s) > MaxTenantID || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// Parse reads a policy document. Values it does not set come from its `preset`, and those of a
// document without one from "standard". The error joins everything that is wrong, each part a
// *doctree.Error with file, line and column.
func Parse(file string, src []byte) (*Policy, error) {
	return ParseOver("standard", file, src)
}

// ParseOver is Parse with another preset for documents that name none.
func ParseOver(preset, file string, src []byte) (*Policy, error) {
	doc, err := doctree.YAML(file, src)
	if err != nil {
		return nil, err
	}
	r := &reader{doc: doc, where: map[string]doctree.Pos{}}
	if n := doc.Root.Get("preset"); n != nil {
		if s, ok := r.oneOf(n, "preset", Presets()); ok {
			preset = s
		}
	}
	p, err := Preset(preset)
	if err != nil {
		return nil, err
	}
	r.p = p
	r.fields("", doc.Root, r.top())
	r.classes(doc.Root.Get("classes"))
	r.cordons(doc.Root.Get("cordons"))
	r.labels(doc.Root.Get("labels"))
	r.hostAPIs(doc.Root.Get("hostApis"))
	r.base(doc.Root)
	r.consistent()
	r.thresholds()
	r.tenants(doc.Root.Get("tenants"))
	if len(r.errs) > 0 {
		return nil, errors.Join(r.errs...)
	}
	p.source = &source{file: file, where: r.where}
	p.compile()
	return p, nil
}

// reader fills a policy from a document and collects what is wrong with it.
type reader struct {
	doc  *doctree.Doc
	p    *Policy
	errs []error

	where map[string]doctree.Pos // of each value that was set, by its whole key
	took  func(key string, n *doctree.Node)
}

// maxErrors keeps a hopeless document from filling the terminal.
const maxErrors = 20

func (r *reader) fail(at doctree.Pos, format string, args ...any) {
	if len(r.errs) < maxErrors {
		r.errs = append(r.errs, r.doc.Errorf(at, format, args...))
	}
}

// field is one key a mapping may have.
type field struct {
	name string
	rule
}

// rule is all that is known of a key: how its value is read, how the value it has now is written,
// and what editors are told of it. One table serves the parser, `show`, `explain`, `diff` and the
// JSON Schema, so that none of them can know a key the others do not.
type rule struct {
	set    func(name string, n *doctree.Node)
	show   func() string  // the value as YAML; nil where the key is written apart
	schema map[string]any // JSON Schema of one value
	fields []field        // of a section
}

// section is a key whose value is a mapping of known keys.
func (r *reader) section(known []field) rule {
	return rule{fields: known, set: func(name string, n *doctree.Node) { r.fields(name, n, known) }}
}

// fields hands each value of a mapping to the field of its name. An empty document or section
// is a mapping without entries.
func (r *reader) fields(section string, n *doctree.Node, known []field) {
	where := "a policy"
	if section != "" {
		where = strconv.Quote(section)
	}
	if n.Kind == doctree.Null {
		return
	}
	if n.Kind != doctree.Map {
		r.fail(n.Pos, "%s must be a mapping (key: value), not %s", where, n.Kind)
		return
	}
	names := make([]string, len(known))
	for i, k := range known {
		names[i] = k.name
	}
	for _, f := range n.Fields {
		i := slices.Index(names, f.Key)
		if i < 0 {
			hint := doctree.Suggest(f.Key, names)
			if hint == "" {
				hint = "; it takes " + strings.Join(names, ", ")
			}
			r.fail(f.Pos, "%s has no key %q%s", where, doctree.Printable(f.Key), hint)
			continue
		}
		name := f.Key
		if section != "" {
			name = section + "." + name
		}
		if r.where != nil && known[i].fields == nil {
			r.where[name] = f.Pos
		}
		before := len(r.errs)
		known[i].set(name, f.Value)
		if r.took != nil && known[i].fields == nil && len(r.errs) == before {
			r.took(name, f.Value)
		}
	}
}

func (r *reader) top() []field {
	later := func(string, *doctree.Node) {}
	return []field{
		{"preset", rule{set: later, schema: enum(Presets())}}, // read before everything else
		{"profile", r.profile(&r.p.Profile)},
		{"idleEvict", r.duration(&r.p.IdleEvict, time.Second, 30*24*time.Hour)},
		{"forceMitigations", r.boolean(&r.p.ForceMitigations)},
		{"accept", rule{set: r.accept, schema: list(enum(Degradations()))}},
		{"limits", r.section(r.limits(&r.p.Tenant))},
		{"egress", r.section(r.egress(&r.p.Egress, false))},
		{"calls", rule{set: r.rules(&r.p.Calls, true)}},
		{"tails", rule{set: r.rules(&r.p.Tails, false)}},
		{"cache", r.bytes(&r.p.Cache, 0, 1<<40)},
		{"callDepth", r.count(&r.p.CallDepth, 1, 32)},
		{"shard", r.section(r.shard(&r.p.Shard))},
		{"placement", r.section(r.placement())},
		{"suspicion", r.section(r.suspicion(&r.p.Suspicion))},
		{"reshuffle", r.section(r.reshuffle())},
		// Read after everything else, in this order: each may name what the one before declares.
		{"classes", rule{set: later}},
		{"cordons", rule{set: later}},
		{"labels", rule{set: later}},
		{"hostApis", rule{set: later}},
		{"class", rule{set: later}},
		{"cordon", rule{set: later}},
		{"tenants", rule{set: later}},
	}
}

func (r *reader) limits(l *limits.Tenant) []field {
	return []field{
		{"cpu", r.duration(&l.CPU, time.Millisecond, time.Hour)},
		{"startupCpu", r.duration(&l.StartupCPU, time.Millisecond, time.Hour)},
		{"wall", r.duration(&l.Wall, 10*time.Millisecond, 24*time.Hour)},
		{"waitUntil", r.duration(&l.WaitUntil, time.Millisecond, 24*time.Hour)},
		// V8 needs a few MB for an empty heap; 70 % of the 4 GiB cage is all a shard's heaps may sum to.
		{"memory", r.bytes(&l.Memory, 8<<20, 2800<<20)},
		{"concurrent", r.count(&l.Concurrent, 1, 100_000)},
		{"weight", r.count(&l.Weight, 1, 10_000)},
		{"requestBody", r.bytes(&l.RequestBody, 1<<10, 1<<40)},
		{"responseBody", r.bytes(&l.ResponseBody, 1<<10, 1<<40)},
		// More than a frame carries cannot reach a worker; less than 1KiB is what any browser sends.
		{"headers", r.size(&l.HeaderBytes, 1<<10, uint64(limits.DefaultWire().HeaderBytes))},
		{"logBytes", r.size(&l.LogBytes, 1<<10, 64<<20)},
		{"timers", r.count(&l.Timers, 1, 1_000_000)},
		{"pending", r.count(&l.Pending, 1, 1_000_000)},
		{"subrequests", r.count(&l.Subrequests, 1, 100_000)},
		{"cacheEntries", r.count(&l.CacheEntries, 0, 1_000_000)},
		{"cacheEntry", r.bytes(&l.CacheEntry, 0, 1<<30)},
		{"cacheBytes", r.bytes(&l.CacheBytes, 0, 1<<40)},
		{"scriptSize", r.size(&l.ScriptSize, 1<<10, 32<<20)},
		{"eval", r.boolean(&l.Eval)},
		{"wasm", r.boolean(&l.Wasm)},
	}
}

func (r *reader) shard(s *limits.Shard) []field {
	return []field{
		// A shard needs 17 MB before its first isolate and V8 helper memory beside the heaps.
		{"memory", r.bytes(&s.Memory, 64<<20, 64<<30)},
		{"pids", r.count(&s.PIDs, 16, 4096)},
		{"cpuWeight", r.count(&s.CPUWeight, 1, 10_000)},
		{"files", r.files(&s.Files)},
		// V8 aborts at 2,046 isolates; at most 64 is what every published promise was tested with.
		{"maxTenants", r.count(&s.MaxTenants, 1, 64)},
	}
}

// files is a count kept as the kernel has it.
func (r *reader) files(dst *uint64) rule {
	v := int(*dst)
	c := r.count(&v, 16, 4096)
	set := c.set
	c.set = func(name string, n *doctree.Node) {
		set(name, n)
		*dst = uint64(v)
	}
	c.show = func() string { return strconv.FormatUint(*dst, 10) }
	return c
}

// consistent checks what no single value shows.
func (r *reader) consistent() {
	at := doctree.Pos{}
	for _, key := range []string{"limits", "shard", "profile", "class", "cordon"} {
		if n := r.doc.Root.Get(key); n != nil && n.Pos.Line > 0 {
			at = n.Pos
			break
		}
	}
	r.fits("limits", at, r.p.baseTenant())
}

func (r *reader) fits(section string, at doctree.Pos, t TenantPolicy) {
	if t.Limits.Wasm && t.Profile != seccomp.JITWasm {
		r.fail(at, "%s: wasm is true but the profile is %s, which cannot run it; set profile: jit+wasm, or wasm: false", section, t.Profile)
	}
	if whole := r.p.ClassOf(t).Shard.Memory; t.Limits.Memory > whole {
		r.fail(at, "%s: memory is %s but a whole shard has %s; lower limits.memory or raise shard.memory",
			section, FormatBytes(t.Limits.Memory), FormatBytes(whole))
	}
	if t.Limits.CPU > t.Limits.Wall {
		r.fail(at, "%s: cpu (%s) is more than wall (%s), so it could never be used up; raise wall or lower cpu", section, t.Limits.CPU, t.Limits.Wall)
	}
}
