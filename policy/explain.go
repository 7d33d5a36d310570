package policy

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"bulkhead/policy/doctree"
)

// source remembers which place of a document set what.
type source struct {
	file  string
	where map[string]doctree.Pos
}

// Value is one effective value and what set it.
type Value struct {
	Key   string `json:"key"`
	Value string `json:"value"` // as YAML
	From  string `json:"from"`  // "FILE:LINE, tenants.acme-*", "preset standard", ...
}

// Explain lists every value of a tenant with what set it.
func (p *Policy) Explain(tenant string) []Value {
	s := p.settings(tenant)
	applied := p.RulesFor(tenant)
	r := &reader{p: p}
	var out []Value
	for _, f := range flatten("", r.tenant(&s)) {
		v := Value{Key: f.name, Value: f.show()}
		for _, i := range applied {
			for _, set := range p.Rules[i].Set {
				if set.Key != f.name {
					continue
				}
				from := p.place(set.Line) + "tenants." + p.Rules[i].Match
				if f.name == "egress.deny" && v.From != "" {
					from = v.From + " and " + from // lists of what is denied add up
				}
				v.From = from
			}
		}
		if v.From == "" || f.name == "egress.deny" && p.isSet("egress.deny") {
			from := p.origin(f.name, s)
			if v.From != "" {
				from += " and " + v.From
			}
			v.From = from
		}
		out = append(out, v)
	}
	c := p.ClassOf(s.TenantPolicy)
	prefix := "classes." + s.Class + "."
	if _, ok := p.Classes[s.Class]; !ok {
		prefix = "shard."
	}
	age := prefix + "maxAge"
	if prefix == "shard." || !p.isSet(age) {
		age = "reshuffle.maxAge"
	}
	for _, name := range s.hostAPIs {
		key := "hostApis." + name + ".address"
		out = append(out, Value{key, strconv.Quote(p.HostAPIs[name].Address), p.first(key)})
	}
	return append(out,
		Value{"shard.memory", FormatBytes(c.Shard.Memory), p.first(prefix+"memory", "shard.memory")},
		Value{"shard.maxTenants", fmt.Sprint(c.Shard.MaxTenants), p.first(prefix+"maxTenants", "shard.maxTenants")},
		Value{"shard.maxAge", duration(c.MaxAge), p.first(age)},
		Value{"placement.spread", fmt.Sprint(p.SpreadOf(s.Cordon)), p.first("cordons."+s.Cordon+".spread", "placement.spread")},
	)
}

// isSet says whether the document sets a key.
func (p *Policy) isSet(key string) bool {
	if p.source == nil {
		return false
	}
	_, ok := p.source.where[key]
	return ok
}

// first is what set the first of these keys that is set.
func (p *Policy) first(keys ...string) string {
	for _, key := range keys {
		if p.isSet(key) {
			return p.place(p.source.where[key].Line) + key
		}
	}
	return "preset " + p.Preset
}

func (p *Policy) place(line int) string {
	if p.source == nil || line == 0 {
		return ""
	}
	return fmt.Sprintf("%s:%d, ", p.source.file, line)
}

// origin is what set a value that no rule of the tenant sets.
func (p *Policy) origin(key string, s settings) string {
	_, named := p.Classes[s.Class]
	switch {
	case key == "hostApis": // that of the document declares them, and permits nobody
		return "preset " + p.Preset
	case key == "class" && p.Cordons[s.Cordon].Class == s.Class && p.isSet("cordons."+s.Cordon+".class"):
		return p.first("cordons." + s.Cordon + ".class")
	case key == "profile" && named:
		return p.first("classes."+s.Class+".profile", "profile")
	}
	return p.first(key)
}

// Change is one value that differs between two policies.
type Change struct {
	Key    string `json:"key"`
	Before string `json:"before"`
	After  string `json:"after"`
}

// TenantChange is what changes for one tenant.
type TenantChange struct {
	Tenant  string   `json:"tenant"`
	Changes []Change `json:"changes"`
	Moves   bool     `json:"moves"`   // into another process
	Renewed bool     `json:"renewed"` // loaded anew: running requests end where they are
}

// Diff says what changes for a tenant from p to q.
func (p *Policy) Diff(q *Policy, tenant string) TenantChange {
	a, b := p.settings(tenant), q.settings(tenant)
	t := TenantChange{Tenant: tenant}
	before, after := p.values(a), q.values(b)
	for _, key := range slices.Sorted(maps.Keys(after)) {
		if before[key] != after[key] {
			t.Changes = append(t.Changes, Change{key, before[key], after[key]})
		}
	}
	ca, cb := p.ClassOf(a.TenantPolicy), q.ClassOf(b.TenantPolicy)
	t.Moves = a.Cordon != b.Cordon || a.Class != b.Class || ca.Profile != cb.Profile || ca.Shard != cb.Shard
	t.Renewed = t.Moves || a.TenantPolicy != b.TenantPolicy
	return t
}

// DiffHost says what changes from p to q beside tenants' own values.
func (p *Policy) DiffHost(q *Policy) []Change {
	before, after := p.flat(), q.flat()
	keys := slices.Sorted(maps.Keys(after))
	for k := range before {
		if _, ok := after[k]; !ok {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	var out []Change
	for _, k := range keys {
		if before[k] != after[k] {
			out = append(out, Change{k, before[k], after[k]})
		}
	}
	return out
}

// flat are all values but those of rules, by key.
func (p *Policy) flat() map[string]string {
	r := &reader{p: p}
	out := map[string]string{"accept": strings.Join(p.Accept, ", "), "class": p.Class, "cordon": p.Cordon}
	add := func(prefix string, table []field) {
		for _, f := range flatten(prefix, table) {
			if f.show != nil {
				out[f.name] = f.show()
			}
		}
	}
	add("", r.top())
	for name, c := range p.Classes {
		add("classes."+name+".", r.class(&c))
	}
	for name, c := range p.Cordons {
		add("cordons."+name+".", r.cordon(&c))
	}
	for name, a := range p.HostAPIs {
		add("hostApis."+name+".", r.hostAPI(&a))
	}
	for name, l := range p.Labels {
		out["labels."+name] = quoted(l)
	}
	for key, list := range map[string][]CallRule{"calls": p.Calls, "tails": p.Tails} {
		for i, c := range list {
			out[fmt.Sprintf("%s[%d]", key, i)] = "from " + quoted(c.From) + " to " + quoted(c.To)
		}
	}
	return out
}
