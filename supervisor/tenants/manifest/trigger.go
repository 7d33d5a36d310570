package manifest

import (
	"bulkhead/policy/cron"
	"bulkhead/policy/doctree"
)

// MaxCrons bounds a tenant's cron expressions: each is looked at every minute.
const MaxCrons = 16

// triggers reads {crons: [...]}: expressions, or {cron, zone} where they are not in UTC.
func (r *reader) triggers(n *doctree.Node) {
	if n.Kind == doctree.Null {
		return
	}
	if n.Kind != doctree.Map {
		r.fail(n.Pos, "triggers must be a mapping with crons, not %s", n.Kind)
		return
	}
	for _, f := range n.Fields {
		switch {
		case f.Key == "crons":
			r.crons(f.Value)
		case r.wrangler:
			r.warn(f.Pos, "triggers: unknown key %q, ignored", doctree.Printable(f.Key))
		default:
			r.fail(f.Pos, "triggers has no key %q; it takes crons", doctree.Printable(f.Key))
		}
	}
}

func (r *reader) crons(n *doctree.Node) {
	if n.Kind == doctree.Null {
		return
	}
	if n.Kind != doctree.List || len(n.Items) > MaxCrons {
		r.fail(n.Pos, "crons must be a list of at most %d expressions", MaxCrons)
		return
	}
	for _, item := range n.Items {
		text, zone := item, (*doctree.Node)(nil)
		if item.Kind == doctree.Map {
			text, zone = item.Get("cron"), item.Get("zone")
		}
		if text == nil || text.Kind != doctree.String || zone != nil && zone.Kind != doctree.String {
			r.fail(item.Pos, "a cron must be an expression such as \"30 4 * * MON\", or {cron: expression, zone: Europe/Berlin}")
			continue
		}
		name := ""
		if zone != nil {
			name = zone.Text
		}
		e, err := cron.Parse(text.Text, name)
		if err != nil {
			r.fail(text.Pos, "cron %q %v", doctree.Printable(text.Text), err)
			continue
		}
		r.m.Crons = append(r.m.Crons, e)
	}
}
