package policy

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"bulkhead/policy/doctree"
)

// YAML writes the effective policy as a document that Parse reads back to the same policy. It is
// written from the table that Parse reads by; of a tenant, what its rule sets.
func (p *Policy) YAML() []byte {
	var b strings.Builder
	r := &reader{p: p}
	fmt.Fprintf(&b, "preset: %s\n", p.Preset)
	write(&b, "", r.top())
	if len(p.Accept) > 0 {
		fmt.Fprintf(&b, "accept: [%s]\n", strings.Join(p.Accept, ", "))
	}
	writeCalls(&b, p)
	names(&b, "classes", p.Classes, func(name string) {
		c := p.Classes[name]
		write(&b, "    ", r.class(&c))
	})
	names(&b, "cordons", p.Cordons, func(name string) {
		c := p.Cordons[name]
		if c == (Cordon{}) {
			b.WriteString("    {}\n")
			return
		}
		if c.Class != "" {
			fmt.Fprintf(&b, "    class: %q\n", c.Class)
		}
		if c.Spread > 0 {
			fmt.Fprintf(&b, "    spread: %d\n", c.Spread)
		}
	})
	names(&b, "hostApis", p.HostAPIs, func(name string) {
		a := p.HostAPIs[name]
		write(&b, "    ", r.hostAPI(&a))
	})
	if len(p.Labels) > 0 {
		b.WriteString("labels:\n")
		for _, l := range slices.Sorted(maps.Keys(p.Labels)) {
			fmt.Fprintf(&b, "  %q: %s\n", l, quoted(p.Labels[l]))
		}
	}
	fmt.Fprintf(&b, "class: %q\ncordon: %q\n", p.Class, p.Cordon)
	if len(p.Rules) > 0 {
		b.WriteString("tenants:\n")
	}
	for _, rule := range p.Rules {
		// Quoted: ids such as 123 or null are text.
		fmt.Fprintf(&b, "  %q:", rule.Match)
		if len(rule.Set) == 0 {
			b.WriteString(" {}\n")
			continue
		}
		b.WriteByte('\n')
		section := ""
		for _, s := range p.ordered(rule) {
			head, key, nested := strings.Cut(s.Key, ".")
			switch {
			case !nested:
				section = ""
				fmt.Fprintf(&b, "    %s: %s\n", s.Key, p.render(s))
				continue
			case head != section:
				section = head
				fmt.Fprintf(&b, "    %s:\n", head)
			}
			fmt.Fprintf(&b, "      %s: %s\n", key, p.render(s))
		}
	}
	return []byte(b.String())
}

// ordered are a rule's settings with those of a section together.
func (p *Policy) ordered(rule Rule) []Setting {
	list := slices.Clone(rule.Set)
	section := func(s Setting) string {
		head, _, nested := strings.Cut(s.Key, ".")
		if !nested {
			return ""
		}
		return head
	}
	slices.SortStableFunc(list, func(a, b Setting) int { return strings.Compare(section(a), section(b)) })
	return list
}

// render writes one setting as it is read. A list is written as it stands, since what it comes to may
// hold the host's as well.
func (p *Policy) render(s Setting) string {
	if s.Value.Kind == doctree.List {
		items := make([]string, len(s.Value.Items))
		for i, item := range s.Value.Items {
			items[i] = item.Text
			if item.Kind == doctree.Int {
				items[i] = strconv.FormatInt(item.Int, 10)
			}
		}
		return quoted(items)
	}
	one := p.unset()
	p.set(&one, Rule{Set: []Setting{s}})
	return p.values(one)[s.Key]
}

// names writes a mapping of names.
func names[V any](b *strings.Builder, what string, of map[string]V, entry func(name string)) {
	if len(of) == 0 {
		return
	}
	fmt.Fprintf(b, "%s:\n", what)
	for _, name := range slices.Sorted(maps.Keys(of)) {
		fmt.Fprintf(b, "  %q:\n", name)
		entry(name)
	}
}

// write writes a table, values before sections.
func write(b *strings.Builder, indent string, table []field) {
	for _, f := range table {
		if f.show != nil {
			fmt.Fprintf(b, "%s%s: %s\n", indent, f.name, f.show())
		}
	}
	for _, f := range table {
		if f.fields != nil {
			fmt.Fprintf(b, "%s%s:\n", indent, f.name)
			write(b, indent+"  ", f.fields)
		}
	}
}

// duration is time.Duration's form without the zero parts: 10m, not 10m0s.
func duration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
