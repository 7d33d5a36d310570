package policy

import (
	"slices"
	"strconv"
	"strings"
	"sync"

	"bulkhead/policy/doctree"
	"bulkhead/policy/egress"
)

// Rule is one entry of the tenants section: what it sets for the tenants it matches.
type Rule struct {
	Match string // a tenant id, a glob with *, or "label:" and a label
	Line  int    // in the document, from 1
	Set   []Setting
}

// Setting is one value a rule sets.
type Setting struct {
	Key   string // "limits.cpu"
	Line  int
	Value *doctree.Node
}

// labelPrefix begins the match of a rule for a label.
const labelPrefix = "label:"

// maxRules bounds the tenants section: each glob is looked at for each tenant.
const maxRules = 10_000

// settings are all values a rule can set.
type settings struct {
	TenantPolicy
	egress   egress.Rules
	hostAPIs []string // that may be used, sorted
	// own is set where a rule gave a profile: a class chosen later does not take it away.
	profile bool
}

// baseTenant is what a tenant gets that no rule matches.
func (p *Policy) baseTenant() TenantPolicy {
	t := TenantPolicy{Limits: p.Tenant, Class: p.Class, Cordon: p.Cordon}
	return p.settle(settings{TenantPolicy: t}).TenantPolicy
}

// settle fills in what follows from what was set: class and profile from the cordon and the class, and
// what rules that do not know of each other set together must not exceed a process.
func (p *Policy) settle(s settings) settings {
	if s.Class == "" {
		s.Class = p.Class
		if c := p.Cordons[s.Cordon].Class; c != "" {
			s.Class = c
		}
	}
	c := p.defaultClass()
	if named, ok := p.Classes[s.Class]; ok {
		c = named
	}
	if !s.profile {
		s.Profile = c.Profile
	}
	return s
}

// compiled finds the rules of a tenant, and keeps what they come to. Safe for concurrent use.
type compiled struct {
	ids    map[string]int // index in Policy.Rules
	globs  []int
	labels []int

	// made holds settings by the list of rules that apply: there are far fewer lists than tenants.
	made sync.Map // string → settings
}

func (p *Policy) compile() {
	c := &compiled{ids: map[string]int{}}
	for i, rule := range p.Rules {
		switch {
		case strings.HasPrefix(rule.Match, labelPrefix):
			c.labels = append(c.labels, i)
		case strings.Contains(rule.Match, "*"):
			c.globs = append(c.globs, i)
		default:
			c.ids[rule.Match] = i
		}
	}
	p.rules = c
}

// RulesFor lists the indices of the rules of a tenant in the order they apply in: globs, then labels,
// each in the order of the document, then the tenant's own. What comes later wins.
func (p *Policy) RulesFor(tenant string) []int {
	c := p.rules
	if c == nil {
		if len(p.Rules) == 0 {
			return nil
		}
		c = p.clone().rules
	}
	var out []int
	for _, i := range c.globs {
		if matchGlob(p.Rules[i].Match, tenant) {
			out = append(out, i)
		}
	}
	for _, i := range c.labels {
		label := strings.TrimPrefix(p.Rules[i].Match, labelPrefix)
		if slices.ContainsFunc(p.Labels[label], func(g string) bool { return matchGlob(g, tenant) }) {
			out = append(out, i)
		}
	}
	if i, ok := c.ids[tenant]; ok {
		out = append(out, i)
	}
	return out
}

// clone is a copy with rules compiled.
func (p *Policy) clone() *Policy {
	c := *p
	c.compile()
	return &c
}

// For returns what the tenant of this id gets.
func (p *Policy) For(tenant string) TenantPolicy { return p.settings(tenant).TenantPolicy }

// EgressFor returns what the tenant of this id may do outside.
func (p *Policy) EgressFor(tenant string) egress.Rules { return p.settings(tenant).egress }

func (p *Policy) settings(tenant string) settings {
	list := p.RulesFor(tenant)
	if p.rules == nil {
		return p.apply(list)
	}
	var key strings.Builder
	for _, i := range list {
		key.WriteString(strconv.Itoa(i))
		key.WriteByte(' ')
	}
	if s, ok := p.rules.made.Load(key.String()); ok {
		return s.(settings)
	}
	s := p.apply(list)
	p.rules.made.Store(key.String(), s)
	return s
}

// apply is what these rules together come to. They were checked when they were read; what only their
// sum exceeds is cut down to the process.
func (p *Policy) apply(list []int) settings {
	s := p.sum(list)
	s.Limits.Memory = min(s.Limits.Memory, p.ClassOf(s.TenantPolicy).Shard.Memory)
	return s
}

// sum is what these rules come to, one over the other.
func (p *Policy) sum(list []int) settings {
	s := p.unset()
	for _, i := range list {
		p.set(&s, p.Rules[i])
	}
	return p.settle(s)
}

// unset are the host's values, with those left open that follow from others.
func (p *Policy) unset() settings {
	return settings{TenantPolicy: TenantPolicy{Limits: p.Tenant, Cordon: p.Cordon}, egress: p.Egress}
}

// over is one rule alone over the host's values.
func (p *Policy) over(rule Rule) TenantPolicy {
	s := p.unset()
	p.set(&s, rule)
	return p.settle(s).TenantPolicy
}

// set applies one rule.
func (p *Policy) set(s *settings, rule Rule) {
	r := &reader{p: p, doc: &doctree.Doc{}}
	table := flatten("", r.tenant(s))
	for _, set := range rule.Set {
		if i := slices.IndexFunc(table, func(f field) bool { return f.name == set.Key }); i >= 0 {
			table[i].rule.set(set.Key, set.Value)
		}
	}
}

// tenant is the table of what a rule may set.
func (r *reader) tenant(s *settings) []field {
	profile := r.profile(&s.Profile)
	read := profile.set
	profile.set = func(name string, n *doctree.Node) {
		read(name, n)
		s.profile = true
	}
	return []field{
		{"cordon", r.name(&s.Cordon, r.cordonNames)},
		{"class", r.name(&s.Class, r.classNames)},
		{"profile", profile},
		{"limits", r.section(r.limits(&s.Limits))},
		{"egress", r.section(r.egress(&s.egress, true))},
		{"hostApis", r.hostAPINames(&s.hostAPIs)},
	}
}

// flatten lists the leaves of a table, named by their whole keys.
func flatten(prefix string, table []field) []field {
	var out []field
	for _, f := range table {
		name := prefix + f.name
		if f.fields != nil {
			out = append(out, flatten(name+".", f.fields)...)
			continue
		}
		out = append(out, field{name, f.rule})
	}
	return out
}

func (r *reader) tenants(n *doctree.Node) {
	if n == nil || n.Kind == doctree.Null {
		return
	}
	if n.Kind != doctree.Map {
		r.fail(n.Pos, `"tenants" must be a mapping of tenant ids, not %s`, n.Kind)
		return
	}
	if len(n.Fields) > maxRules {
		r.fail(n.Pos, `"tenants" has %d entries; it may have %d: give tenants of a kind a label or a common beginning`, len(n.Fields), maxRules)
		return
	}
	for _, f := range n.Fields {
		if !r.matches(f) {
			continue
		}
		rule := Rule{Match: f.Key, Line: f.Pos.Line}
		r.where["tenants."+f.Key] = f.Pos
		scratch := r.p.unset()
		section := "tenants." + f.Key
		r.took = func(key string, v *doctree.Node) {
			rule.Set = append(rule.Set, Setting{Key: strings.TrimPrefix(key, section+"."), Line: v.Pos.Line, Value: v})
		}
		r.fields(section, f.Value, r.tenant(&scratch))
		r.took = nil
		r.p.Rules = append(r.p.Rules, rule)
	}
	if len(r.errs) > 0 {
		return
	}
	// A rule for many has to make sense by itself over the host's values: whom else it meets is not
	// known here. One for a single tenant has to make sense with all that match it.
	r.p.compile()
	for i, rule := range r.p.Rules {
		list := []int{i}
		if ValidTenantID(rule.Match) {
			list = r.p.RulesFor(rule.Match)
		}
		r.fits("tenants."+rule.Match, r.where["tenants."+rule.Match], r.p.sum(list).TenantPolicy)
	}
}

// matches checks the key of a rule.
func (r *reader) matches(f doctree.Field) bool {
	if label, ok := strings.CutPrefix(f.Key, labelPrefix); ok {
		known := make([]string, 0, len(r.p.Labels))
		for l := range r.p.Labels {
			known = append(known, l)
		}
		slices.Sort(known)
		if slices.Contains(known, label) {
			return true
		}
		hint := doctree.Suggest(label, known)
		if hint == "" {
			hint = "; declare it: labels: {" + doctree.Printable(label) + ": [TENANT, …]}"
		}
		r.fail(f.Pos, "no label %q%s", doctree.Printable(label), hint)
		return false
	}
	switch {
	case ValidTenantID(f.Key), strings.Contains(f.Key, "*") && validGlob(f.Key):
		return true
	case strings.Contains(f.Key, "*"):
		r.fail(f.Pos, "%q is no glob of tenant ids: lower-case letters, digits, - and *, such as acme-*", doctree.Printable(f.Key))
	default:
		r.fail(f.Pos, "%q cannot be a tenant id: lower-case letters, digits and -, at most 63, not beginning with -", doctree.Printable(f.Key))
	}
	return false
}

// canonicalRules is Rules without what changes nothing: lines, spellings, and values that are the
// host's where no other rule sets the same key.
func (p *Policy) canonicalRules() []Rule {
	setters := map[string]int{}
	for _, rule := range p.Rules {
		for _, s := range rule.Set {
			setters[s.Key]++
		}
	}
	var out []Rule
	for _, rule := range p.Rules {
		c := Rule{Match: rule.Match}
		base := p.values(p.apply(nil))
		for _, s := range rule.Set {
			one := p.unset()
			p.set(&one, Rule{Set: []Setting{s}})
			shown := p.values(p.settle(one))[s.Key]
			if setters[s.Key] == 1 && shown == base[s.Key] {
				continue
			}
			c.Set = append(c.Set, Setting{Key: s.Key, Value: &doctree.Node{Kind: doctree.String, Text: shown}})
		}
		slices.SortFunc(c.Set, func(a, b Setting) int { return strings.Compare(a.Key, b.Key) })
		if len(c.Set) > 0 {
			out = append(out, c)
		}
	}
	return out
}

// values are settings by key, as YAML.
func (p *Policy) values(s settings) map[string]string {
	r := &reader{p: p}
	out := map[string]string{}
	for _, f := range flatten("", r.tenant(&s)) {
		out[f.name] = f.show()
	}
	return out
}
