package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"bulkhead/policy/doctree"
)

// CallRule lets tenants bind to others as services.
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

// calls reads the rules: a list of {from, to}, each a list of tenant ids or "*". It replaces the
// preset's.
func (r *reader) calls(name string, n *doctree.Node) {
	if n.Kind == doctree.Null {
		return
	}
	if n.Kind != doctree.List || len(n.Items) > maxCallRules {
		r.fail(n.Pos, "%s must be a list of at most %d rules {from: [...], to: [...]}", name, maxCallRules)
		return
	}
	r.p.Calls = nil
	for _, item := range n.Items {
		var rule CallRule
		r.fields(name, item, []field{{"from", r.ids(&rule.From)}, {"to", r.ids(&rule.To)}})
		if len(rule.From) == 0 || len(rule.To) == 0 {
			r.fail(item.Pos, "%s: a rule needs both from and to: lists of tenant ids, or [\"*\"]", name)
			continue
		}
		r.p.Calls = append(r.p.Calls, rule)
	}
}

func (r *reader) ids(dst *[]string) func(string, *doctree.Node) {
	return func(name string, n *doctree.Node) {
		r.texts(name, n, "tenant ids", func(at doctree.Pos, s string) {
			if s != "*" && !ValidTenantID(s) {
				r.fail(at, "%s: %q cannot be a tenant id, nor is it \"*\"", name, doctree.Printable(s))
				return
			}
			*dst = append(*dst, s)
		})
	}
}

func writeCalls(b *strings.Builder, p *Policy) {
	list := func(ids []string) string {
		out := make([]string, len(ids))
		for i, id := range ids {
			out[i] = strconv.Quote(id)
		}
		return "[" + strings.Join(out, ", ") + "]"
	}
	fmt.Fprintf(b, "callDepth: %d\n", p.CallDepth)
	if len(p.Calls) == 0 {
		b.WriteString("calls: []\n")
		return
	}
	b.WriteString("calls:\n")
	for _, r := range p.Calls {
		fmt.Fprintf(b, "  - {from: %s, to: %s}\n", list(r.From), list(r.To))
	}
}
