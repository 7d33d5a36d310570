package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"bulkhead/policy/doctree"
)

// CallRule joins tenants: those who may bind to others as services, or whose events go to others.
type CallRule struct {
	From, To []string // tenant ids, or "*"
}

// MayCall says whether the operator lets one tenant bind to another. The callee's own folder may, too.
func (p *Policy) MayCall(from, to string) bool {
	has := func(list []string, id string) bool { return slices.Contains(list, "*") || slices.Contains(list, id) }
	return slices.ContainsFunc(p.Calls, func(r CallRule) bool { return has(r.From, from) && has(r.To, to) })
}

// maxCallRules bounds the list, which is looked at for each call.
const maxCallRules = 1000

// rules reads a list of {from, to}, each a list of tenant ids or, where it may be, "*". It replaces the
// preset's.
func (r *reader) rules(dst *[]CallRule, anyTo bool) func(string, *doctree.Node) {
	return func(name string, n *doctree.Node) {
		if n.Kind == doctree.Null {
			return
		}
		if n.Kind != doctree.List || len(n.Items) > maxCallRules {
			r.fail(n.Pos, "%s must be a list of at most %d rules {from: [...], to: [...]}", name, maxCallRules)
			return
		}
		*dst = nil
		for _, item := range n.Items {
			var rule CallRule
			r.fields(name, item, r.call(&rule))
			if len(rule.From) == 0 || len(rule.To) == 0 {
				r.fail(item.Pos, "%s: a rule needs both from and to: lists of tenant ids, or [\"*\"]", name)
				continue
			}
			if !anyTo && slices.Contains(rule.To, "*") {
				r.fail(item.Pos, "%s: name the tenants that are to receive what others log", name)
				continue
			}
			*dst = append(*dst, rule)
		}
	}
}

// TailsOf lists whom the log and outcome events of a tenant go to; nobody's, if it is such a one itself.
func (p *Policy) TailsOf(tenant string) (consumers []string) {
	for _, r := range p.Tails {
		if slices.Contains(r.To, tenant) {
			return nil
		}
	}
	for _, r := range p.Tails {
		if !slices.Contains(r.From, "*") && !slices.Contains(r.From, tenant) {
			continue
		}
		for _, id := range r.To {
			if !slices.Contains(consumers, id) {
				consumers = append(consumers, id)
			}
		}
	}
	return consumers
}

// call is the table of one rule.
func (r *reader) call(rule *CallRule) []field {
	return []field{{"from", r.ids(&rule.From)}, {"to", r.ids(&rule.To)}}
}

func (r *reader) ids(dst *[]string) rule {
	schema := list(map[string]any{"type": "string"})
	return rule{schema: schema, set: func(name string, n *doctree.Node) {
		r.texts(name, n, "tenant ids", func(at doctree.Pos, s string) {
			if s != "*" && !ValidTenantID(s) {
				r.fail(at, "%s: %q cannot be a tenant id, nor is it \"*\"", name, doctree.Printable(s))
				return
			}
			*dst = append(*dst, s)
		})
	}}
}

func writeCalls(b *strings.Builder, p *Policy) {
	list := func(ids []string) string {
		out := make([]string, len(ids))
		for i, id := range ids {
			out[i] = strconv.Quote(id)
		}
		return "[" + strings.Join(out, ", ") + "]"
	}
	for _, l := range []struct {
		key   string
		rules []CallRule
	}{{"calls", p.Calls}, {"tails", p.Tails}} {
		if len(l.rules) == 0 {
			fmt.Fprintf(b, "%s: []\n", l.key)
			continue
		}
		fmt.Fprintf(b, "%s:\n", l.key)
		for _, r := range l.rules {
			fmt.Fprintf(b, "  - {from: %s, to: %s}\n", list(r.From), list(r.To))
		}
	}
}
