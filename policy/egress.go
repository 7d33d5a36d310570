package policy

import (
	"slices"
	"strconv"
	"strings"

	"bulkhead/policy/doctree"
	"bulkhead/policy/egress"
)

// egress reads a section of rules into r. A list replaces the one before, but for deny in a tenant's
// section, which adds to it: what the host denies no tenant's line gives back by accident.
func (r *reader) egress(rules *egress.Rules, more bool) []field {
	return []field{
		{"public", r.boolean(&rules.Public)},
		{"ports", r.ports(&rules.Ports)},
		{"allow", r.patterns(&rules.Allow, false)},
		{"deny", r.patterns(&rules.Deny, more)},
		{"internal", r.patterns(&rules.Internal, false)},
		{"safe", r.patterns(&rules.Safe, false)},
		{"concurrent", r.count(&rules.Concurrent, 1, 1024)},
		{"bytes", r.bytes(&rules.Bytes, 1<<10, 1<<50)},
	}
}

func (r *reader) patterns(dst *[]string, more bool) rule {
	schema := list(map[string]any{"type": "string"})
	return rule{schema: schema, show: func() string { return quoted(*dst) }, set: func(name string, n *doctree.Node) {
		var list []string
		if more {
			list = slices.Clone(*dst)
		}
		if r.texts(name, n, "patterns, such as api.example.com, *.example.com:443 or 10.1.0.0/16", func(at doctree.Pos, s string) {
			if _, err := egress.ParsePattern(s); err != nil {
				r.fail(at, "%s: %s", name, doctree.Printable(err.Error()))
			} else if !slices.Contains(list, s) {
				list = append(list, s)
			}
		}) {
			*dst = list
		}
	}}
}

func (r *reader) ports(dst *[]egress.Ports) rule {
	schema := list(map[string]any{"type": []string{"integer", "string"}})
	show := func() string {
		ports := make([]string, len(*dst))
		for i, p := range *dst {
			ports[i] = p.String()
		}
		return quoted(ports)
	}
	return rule{schema: schema, show: show, set: func(name string, n *doctree.Node) {
		var list []egress.Ports
		if r.texts(name, n, "ports, such as 443 or 1024-65535", func(at doctree.Pos, s string) {
			p, err := egress.ParsePorts(s)
			if err != nil {
				r.fail(at, "%s: %s", name, doctree.Printable(err.Error()))
				return
			}
			list = append(list, p)
		}) {
			*dst = list
		}
	}}
}

// maxPatterns bounds one list: each entry is looked at for each subrequest.
const maxPatterns = 1000

// texts hands each item of a list of texts or whole numbers to take.
func (r *reader) texts(name string, n *doctree.Node, of string, take func(at doctree.Pos, s string)) bool {
	if n.Kind == doctree.Null {
		return true
	}
	if n.Kind != doctree.List {
		r.fail(n.Pos, "%s must be a list of %s, not %s", name, of, n.Kind)
		return false
	}
	if len(n.Items) > maxPatterns {
		r.fail(n.Pos, "%s has %d entries; it may have %d", name, len(n.Items), maxPatterns)
		return false
	}
	for _, item := range n.Items {
		switch item.Kind {
		case doctree.String:
			take(item.Pos, item.Text)
		case doctree.Int:
			take(item.Pos, strconv.FormatInt(item.Int, 10))
		default:
			r.fail(item.Pos, "%s must be a list of %s; this is %s", name, of, item.Kind)
		}
	}
	return true
}

// quoted writes a list of texts as YAML.
func quoted(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = strconv.Quote(s)
	}
	return "[" + strings.Join(out, ", ") + "]"
}
