package policy

import (
	"errors"
	"fmt"
	"math"
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
	r := &reader{doc: doc}
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
	r.tenants(doc.Root.Get("tenants"))
	r.consistent()
	if len(r.errs) > 0 {
		return nil, errors.Join(r.errs...)
	}
	return p, nil
}

// reader fills a policy from a document and collects what is wrong with it.
type reader struct {
	doc  *doctree.Doc
	p    *Policy
	errs []error
}

// maxErrors keeps a hopeless document from filling the terminal.
const maxErrors = 20

func (r *reader) fail(at doctree.Pos, format string, args ...any) {
	if len(r.errs) < maxErrors {
		r.errs = append(r.errs, r.doc.Errorf(at, format, args...))
	}
}

// field is one key a mapping may have, and what takes its value.
type field struct {
	name string
	set  func(name string, n *doctree.Node)
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
		known[i].set(name, f.Value)
	}
}

func (r *reader) top() []field {
	return []field{
		{"preset", func(string, *doctree.Node) {}}, // read before everything else
		{"profile", r.profile(&r.p.Profile)},
		{"idleEvict", r.duration(&r.p.IdleEvict, time.Second, 30*24*time.Hour)},
		{"accept", r.accept},
		{"limits", func(name string, n *doctree.Node) {
			t := TenantPolicy{Limits: r.p.Tenant}
			r.fields(name, n, r.limits(&t))
			r.p.Tenant = t.Limits
		}},
		{"egress", func(name string, n *doctree.Node) { r.fields(name, n, r.egress(&r.p.Egress, false)) }},
		{"calls", r.rules(&r.p.Calls, true)},
		{"tails", r.rules(&r.p.Tails, false)},
		{"callDepth", r.count(&r.p.CallDepth, 1, 32)},
		{"shard", func(name string, n *doctree.Node) { r.fields(name, n, r.shard()) }},
		{"tenants", func(string, *doctree.Node) {}}, // read after everything else
	}
}

func (r *reader) limits(t *TenantPolicy) []field {
	l := &t.Limits
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
		{"scriptSize", r.size(&l.ScriptSize, 1<<10, 32<<20)},
		{"eval", r.boolean(&l.Eval)},
		{"wasm", r.boolean(&l.Wasm)},
	}
}

func (r *reader) shard() []field {
	s := &r.p.Shard
	return []field{
		// A shard needs 17 MB before its first isolate and V8 helper memory beside the heaps.
		{"memory", r.bytes(&s.Memory, 64<<20, 64<<30)},
		{"pids", r.count(&s.PIDs, 16, 4096)},
		{"cpuWeight", r.count(&s.CPUWeight, 1, 10_000)},
		{"files", func(name string, n *doctree.Node) {
			v := int(s.Files)
			r.count(&v, 16, 4096)(name, n)
			s.Files = uint64(v)
		}},
		// V8 aborts at 2,046 isolates; at most 64 is what every published promise was tested with.
		{"maxTenants", r.count(&s.MaxTenants, 1, 64)},
	}
}

func (r *reader) tenants(n *doctree.Node) {
	if n == nil || n.Kind == doctree.Null {
		return
	}
	if n.Kind != doctree.Map {
		r.fail(n.Pos, `"tenants" must be a mapping of tenant ids, not %s`, n.Kind)
		return
	}
	for _, f := range n.Fields {
		if !ValidTenantID(f.Key) {
			r.fail(f.Pos, "%q cannot be a tenant id: lower-case letters, digits and -, at most 63, not beginning with -", doctree.Printable(f.Key))
			continue
		}
		t := r.p.For(f.Key)
		section := "tenants." + f.Key
		r.fields(section, f.Value, []field{
			{"profile", r.profile(&t.Profile)},
			{"limits", func(name string, n *doctree.Node) { r.fields(name, n, r.limits(&t)) }},
			{"egress", r.tenantEgress(f.Key)},
		})
		r.fits(section, f.Pos, t)
		r.p.TenantOverrides[f.Key] = t
	}
}

// consistent checks what no single value shows.
func (r *reader) consistent() {
	at := doctree.Pos{}
	for _, key := range []string{"limits", "shard", "profile"} {
		if n := r.doc.Root.Get(key); n != nil && n.Pos.Line > 0 {
			at = n.Pos
			break
		}
	}
	r.fits("limits", at, TenantPolicy{Limits: r.p.Tenant, Profile: r.p.Profile})
}

func (r *reader) fits(section string, at doctree.Pos, t TenantPolicy) {
	if t.Limits.Wasm && t.Profile != seccomp.JITWasm {
		r.fail(at, "%s: wasm is true but the profile is %s, which cannot run it; set profile: jit+wasm, or wasm: false", section, t.Profile)
	}
	if t.Limits.Memory > r.p.Shard.Memory {
		r.fail(at, "%s: memory is %s but a whole shard has %s; lower limits.memory or raise shard.memory",
			section, FormatBytes(t.Limits.Memory), FormatBytes(r.p.Shard.Memory))
	}
	if t.Limits.CPU > t.Limits.Wall {
		r.fail(at, "%s: cpu (%s) is more than wall (%s), so it could never be used up; raise wall or lower cpu", section, t.Limits.CPU, t.Limits.Wall)
	}
}

func (r *reader) oneOf(n *doctree.Node, name string, known []string) (string, bool) {
	if n.Kind != doctree.String {
		r.fail(n.Pos, "%s must be one of %s, not %s", name, strings.Join(known, ", "), n.Kind)
		return "", false
	}
	if !slices.Contains(known, n.Text) {
		r.fail(n.Pos, "%s: no %q: one of %s%s", name, doctree.Printable(n.Text), strings.Join(known, ", "), doctree.Suggest(n.Text, known))
		return "", false
	}
	return n.Text, true
}

func (r *reader) profile(dst *seccomp.Profile) func(string, *doctree.Node) {
	return func(name string, n *doctree.Node) {
		known := make([]string, 0, 3)
		for _, p := range seccomp.Profiles() {
			known = append(known, p.String())
		}
		if s, ok := r.oneOf(n, name, known); ok {
			*dst, _ = seccomp.ParseProfile(s) // oneOf has checked it
		}
	}
}

func (r *reader) accept(name string, n *doctree.Node) {
	if n.Kind == doctree.Null {
		return
	}
	if n.Kind != doctree.List {
		r.fail(n.Pos, "%s must be a list of degradations, not %s", name, n.Kind)
		return
	}
	for _, item := range n.Items {
		if s, ok := r.oneOf(item, name, Degradations()); ok && !slices.Contains(r.p.Accept, s) {
			r.p.Accept = append(r.p.Accept, s)
		}
	}
	slices.Sort(r.p.Accept)
}

func (r *reader) boolean(dst *bool) func(string, *doctree.Node) {
	return func(name string, n *doctree.Node) {
		if n.Kind != doctree.Bool {
			r.fail(n.Pos, "%s must be true or false, not %s", name, n.Kind)
			return
		}
		*dst = n.Bool
	}
}

func (r *reader) count(dst *int, low, high int) func(string, *doctree.Node) {
	return func(name string, n *doctree.Node) {
		if n.Kind != doctree.Int {
			r.fail(n.Pos, "%s must be a whole number, not %s", name, n.Kind)
			return
		}
		if n.Int < int64(low) || n.Int > int64(high) {
			r.fail(n.Pos, "%s is %d; it must be from %d to %d", name, n.Int, low, high)
			return
		}
		*dst = int(n.Int)
	}
}

func (r *reader) duration(dst *time.Duration, low, high time.Duration) func(string, *doctree.Node) {
	return func(name string, n *doctree.Node) {
		if n.Kind != doctree.String {
			r.fail(n.Pos, "%s must be a time with its unit, such as 50ms, 30s or 10m, not %s", name, n.Kind)
			return
		}
		d, err := time.ParseDuration(n.Text)
		if err != nil {
			r.fail(n.Pos, "%s: %q is not a time; write a number and its unit, such as 50ms, 30s or 10m", name, doctree.Printable(n.Text))
			return
		}
		if d < low || d > high {
			r.fail(n.Pos, "%s is %s; it must be from %s to %s", name, d, low, high)
			return
		}
		*dst = d
	}
}

func (r *reader) bytes(dst *uint64, low, high uint64) func(string, *doctree.Node) {
	return func(name string, n *doctree.Node) {
		var v uint64
		switch n.Kind {
		case doctree.Int:
			if n.Int < 0 {
				r.fail(n.Pos, "%s cannot be negative", name)
				return
			}
			v = uint64(n.Int)
		case doctree.String:
			b, err := ParseBytes(n.Text)
			if err != nil {
				r.fail(n.Pos, "%s: %v", name, err)
				return
			}
			v = b
		default:
			r.fail(n.Pos, "%s must be a size, such as 128MiB, not %s", name, n.Kind)
			return
		}
		if v < low || v > high {
			r.fail(n.Pos, "%s is %s; it must be from %s to %s", name, FormatBytes(v), FormatBytes(low), FormatBytes(high))
			return
		}
		*dst = v
	}
}

func (r *reader) size(dst *int, low, high uint64) func(string, *doctree.Node) {
	return func(name string, n *doctree.Node) {
		v := uint64(*dst)
		r.bytes(&v, low, high)(name, n)
		*dst = int(v)
	}
}

// units are the binary sizes, largest first.
func units() []struct {
	name string
	n    uint64
} {
	return []struct {
		name string
		n    uint64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}
}

// ParseBytes reads a size: a whole number of bytes, or a number with KiB, MiB or GiB. Decimal
// units are refused because what people mean by them differs.
func ParseBytes(s string) (uint64, error) {
	text, factor := strings.TrimSpace(s), uint64(1)
	for _, u := range units() {
		if rest, ok := strings.CutSuffix(text, u.name); ok {
			text, factor = strings.TrimSpace(rest), u.n
			break
		}
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(v) || v < 0 || v*float64(factor) > 1<<53 || strings.ContainsAny(text, "xXpP_") {
		return 0, fmt.Errorf("%q is not a size; write bytes, or a number with KiB, MiB or GiB, such as 128MiB", doctree.Printable(s))
	}
	return uint64(v * float64(factor)), nil
}

// FormatBytes writes a size as ParseBytes reads it.
func FormatBytes(n uint64) string {
	for _, u := range units() {
		if n >= u.n && n%(u.n/16) == 0 {
			return strconv.FormatFloat(float64(n)/float64(u.n), 'f', -1, 64) + u.name
		}
	}
	return strconv.FormatUint(n, 10)
}
