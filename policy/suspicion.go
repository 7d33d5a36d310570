package policy

import (
	"math"
	"strconv"
	"time"

	"bulkhead/policy/doctree"
	"bulkhead/policy/suspicion"
)

func (r *reader) suspicion(c *suspicion.Config) []field {
	weights := make([]field, 0, suspicion.NumSignals)
	for s, k := range suspicion.Kinds() {
		weights = append(weights, field{k.Name, r.number(&c.Weights[s], 0, 1000)})
	}
	return []field{
		{"enabled", r.boolean(&c.Enabled)},
		{"watch", r.count(&c.Watch, 1, 1_000_000)},
		{"isolate", r.count(&c.Isolate, 1, 1_000_000)},
		{"stop", r.count(&c.Stop, 1, 1_000_000)},
		{"halfLife", r.duration(&c.HalfLife, time.Second, 30*24*time.Hour)},
		{"calm", r.duration(&c.Calm, time.Second, 30*24*time.Hour)},
		{"every", r.duration(&c.Every, 50*time.Millisecond, time.Minute)},
		{"record", r.boolean(&c.Record)},
		{"weights", r.section(weights)},
	}
}

// thresholds checks that each measure comes after the milder one.
func (r *reader) thresholds() {
	c := r.p.Suspicion
	at := doctree.Pos{}
	for _, key := range []string{"stop", "isolate", "watch"} {
		if n := r.doc.Root.Get("suspicion").Get(key); n != nil {
			at = n.Pos
		}
	}
	if c.Watch > c.Isolate || c.Isolate > c.Stop {
		r.fail(at, "suspicion: watch is %d, isolate %d and stop %d points; each must be at most the next, so that the milder measure comes first", c.Watch, c.Isolate, c.Stop)
	}
}

// number is a number that need not be whole.
func (r *reader) number(dst *float64, low, high float64) rule {
	show := func() string { return strconv.FormatFloat(*dst, 'f', -1, 64) }
	schema := map[string]any{"type": "number", "minimum": low, "maximum": high}
	return rule{schema: schema, show: show, set: func(name string, n *doctree.Node) {
		v := n.Float
		switch n.Kind {
		case doctree.Int:
			v = float64(n.Int)
		case doctree.Float:
		default:
			r.fail(n.Pos, "%s must be a number, not %s", name, n.Kind)
			return
		}
		if math.IsNaN(v) || v < low || v > high {
			r.fail(n.Pos, "%s is %v; it must be from %v to %v", name, v, low, high)
			return
		}
		*dst = v
	}}
}
