package policy

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"bulkhead/policy/doctree"
	"bulkhead/policy/limits"
	"bulkhead/policy/seccomp"
)

// DefaultName is the name of the class, and of the cordon, of tenants that nothing is said of.
const DefaultName = "default"

// Class is a kind of shard. Tenants of different classes never share a process.
type Class struct {
	Profile seccomp.Profile
	Shard   limits.Shard
	MaxAge  time.Duration // of one process; its tenants are then spread over fresh ones
}

// Cordon is a level of trust. Tenants of different cordons never share a process.
type Cordon struct {
	Class  string // of its tenants that no rule gives another; "" leaves Policy.Class
	Spread int    // processes that its tenants of one class are spread over at least
}

// Placement is how tenants are spread over processes.
type Placement struct {
	// Spread is the number of processes that the tenants of one cordon and class are spread over
	// before any of them gets a second tenant: few processes with many tenants each make it likely
	// that two given tenants meet.
	Spread int
}

// Reshuffle is how often everybody's neighbours, memory and addresses change.
type Reshuffle struct {
	MaxAge time.Duration // of a process that hosts tenants
	Jitter int           // per cent of MaxAge that it may end earlier, at random
	Grace  time.Duration // that WebSockets of a tenant which is moved are let be; 1012 then
}

// maxNames bounds classes, cordons and labels each.
const maxNames = 100

// ClassOf is the class of shard of a tenant. A tenant with a profile of its own gets processes of that
// profile, otherwise like those of its class.
func (p *Policy) ClassOf(t TenantPolicy) Class {
	c, ok := p.Classes[t.Class]
	if !ok {
		c = p.defaultClass()
	}
	if t.Profile != 0 {
		c.Profile = t.Profile
	}
	return c
}

func (p *Policy) defaultClass() Class {
	return Class{Profile: p.Profile, Shard: p.Shard, MaxAge: p.Reshuffle.MaxAge}
}

// SpreadOf is the spread of a cordon.
func (p *Policy) SpreadOf(cordon string) int {
	if c, ok := p.Cordons[cordon]; ok && c.Spread > 0 {
		return c.Spread
	}
	return p.Placement.Spread
}

// Profiles lists the profiles that some tenant may get, sorted.
func (p *Policy) Profiles() []seccomp.Profile {
	list := []seccomp.Profile{p.Profile}
	for _, c := range p.Classes {
		list = append(list, c.Profile)
	}
	for _, rule := range p.Rules {
		if t := p.over(rule); t.Profile != 0 {
			list = append(list, t.Profile)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// ShardMemory is the most that a shard of any class may hold, bytes.
func (p *Policy) ShardMemory() uint64 {
	most := p.Shard.Memory
	for _, c := range p.Classes {
		most = max(most, c.Shard.Memory)
	}
	return most
}

func (r *reader) placement() []field {
	return []field{{"spread", r.count(&r.p.Placement.Spread, 1, 64)}}
}

func (r *reader) reshuffle() []field {
	s := &r.p.Reshuffle
	return []field{
		{"maxAge", r.duration(&s.MaxAge, time.Minute, 30*24*time.Hour)},
		{"jitter", r.count(&s.Jitter, 0, 90)},
		{"grace", r.duration(&s.Grace, 0, time.Hour)},
	}
}

func (r *reader) class(c *Class) []field {
	return []field{
		{"profile", r.profile(&c.Profile)},
		{"memory", r.bytes(&c.Shard.Memory, 64<<20, 64<<30)},
		{"maxTenants", r.count(&c.Shard.MaxTenants, 1, 64)},
		{"maxAge", r.duration(&c.MaxAge, time.Minute, 30*24*time.Hour)},
	}
}

func (r *reader) cordon(c *Cordon) []field {
	return []field{
		{"class", r.name(&c.Class, r.classNames)},
		{"spread", r.count(&c.Spread, 1, 64)},
	}
}

// named calls read for each entry of a mapping whose keys are names of the operator's choosing.
func (r *reader) named(n *doctree.Node, what string, read func(key string, f doctree.Field)) {
	switch {
	case n == nil || n.Kind == doctree.Null:
		return
	case n.Kind != doctree.Map:
		r.fail(n.Pos, "%q must be a mapping of names, not %s", what, n.Kind)
		return
	case len(n.Fields) > maxNames:
		r.fail(n.Pos, "%q has %d entries; it may have %d", what, len(n.Fields), maxNames)
		return
	}
	for _, f := range n.Fields {
		if !ValidTenantID(f.Key) {
			r.fail(f.Pos, "%s: %q cannot be a name: lower-case letters, digits and -, at most 63, not beginning with -", what, doctree.Printable(f.Key))
			continue
		}
		read(what+"."+f.Key, f)
	}
}

func (r *reader) classes(n *doctree.Node) {
	r.named(n, "classes", func(key string, f doctree.Field) {
		if f.Key == DefaultName {
			r.fail(f.Pos, "classes: the class %q is what profile, shard and reshuffle say; set it there", DefaultName)
			return
		}
		c := r.p.defaultClass()
		r.fields(key, f.Value, r.class(&c))
		r.p.Classes[f.Key] = c
	})
}

func (r *reader) cordons(n *doctree.Node) {
	r.named(n, "cordons", func(key string, f doctree.Field) {
		var c Cordon
		r.fields(key, f.Value, r.cordon(&c))
		r.p.Cordons[f.Key] = c
	})
}

// base reads what may name a class or a cordon.
func (r *reader) base(root *doctree.Node) {
	for _, f := range []field{{"class", r.name(&r.p.Class, r.classNames)}, {"cordon", r.name(&r.p.Cordon, r.cordonNames)}} {
		if n := root.Get(f.name); n != nil {
			f.set(f.name, n)
		}
	}
}

func (r *reader) classNames() []string {
	return append(slices.Sorted(maps.Keys(r.p.Classes)), DefaultName)
}

func (r *reader) cordonNames() []string {
	names := slices.Sorted(maps.Keys(r.p.Cordons))
	if !slices.Contains(names, DefaultName) {
		names = append(names, DefaultName)
	}
	return names
}

// name is one of the names that the document declares elsewhere.
func (r *reader) name(dst *string, known func() []string) rule {
	return rule{schema: map[string]any{"type": "string"}, show: func() string { return strconv.Quote(*dst) }, set: func(name string, n *doctree.Node) {
		if n.Kind == doctree.Int { // a name such as 1
			n = &doctree.Node{Kind: doctree.String, Pos: n.Pos, Text: strconv.FormatInt(n.Int, 10)}
		}
		if s, ok := r.oneOf(n, name, known()); ok {
			*dst = s
		}
	}}
}

// labels reads which tenants have a label. Labels are the operator's: a tenant that could label itself
// could choose its own policy.
func (r *reader) labels(n *doctree.Node) {
	r.named(n, "labels", func(key string, f doctree.Field) {
		var members []string
		r.texts(key, f.Value, "tenant ids or globs, such as shop or acme-*", func(at doctree.Pos, s string) {
			if !validGlob(s) {
				r.fail(at, "%s: %q is neither a tenant id nor a glob of one, such as acme-*", key, doctree.Printable(s))
				return
			}
			members = append(members, s)
		})
		r.p.Labels[f.Key] = members
	})
}

// validGlob says whether s is a tenant id in which any letters may be replaced by *.
func validGlob(s string) bool {
	return s != "" && len(s) <= MaxTenantID && (s == "*" || ValidTenantID(strings.ReplaceAll(s, "*", "a")))
}

// MatchTenant says whether a tenant id fits an id or a glob as the tenants section has them.
func MatchTenant(glob, id string) bool { return matchGlob(glob, id) }

// matchGlob says whether a tenant id fits a glob: * stands for any letters, none included.
func matchGlob(glob, id string) bool {
	first, rest, star := strings.Cut(glob, "*")
	if !star {
		return glob == id
	}
	if !strings.HasPrefix(id, first) {
		return false
	}
	id = id[len(first):]
	for {
		part, more, star := strings.Cut(rest, "*")
		if !star {
			return strings.HasSuffix(id, part)
		}
		i := strings.Index(id, part)
		if i < 0 {
			return false
		}
		id, rest = id[i+len(part):], more
	}
}
