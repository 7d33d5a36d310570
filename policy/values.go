package policy

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"bulkhead/policy/doctree"
	"bulkhead/policy/seccomp"
)

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

func (r *reader) profile(dst *seccomp.Profile) rule {
	return rule{schema: enum(profileNames()), show: func() string { return dst.String() }, set: func(name string, n *doctree.Node) {
		if s, ok := r.oneOf(n, name, profileNames()); ok {
			*dst, _ = seccomp.ParseProfile(s) // oneOf has checked it
		}
	}}
}

func profileNames() []string {
	var known []string
	for _, p := range seccomp.Profiles() {
		known = append(known, p.String())
	}
	return known
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

func (r *reader) boolean(dst *bool) rule {
	return rule{schema: map[string]any{"type": "boolean"}, show: func() string { return strconv.FormatBool(*dst) }, set: func(name string, n *doctree.Node) {
		if n.Kind != doctree.Bool {
			r.fail(n.Pos, "%s must be true or false, not %s", name, n.Kind)
			return
		}
		*dst = n.Bool
	}}
}

func (r *reader) count(dst *int, low, high int) rule {
	return rule{schema: map[string]any{"type": "integer", "minimum": low, "maximum": high}, show: func() string { return strconv.Itoa(*dst) }, set: func(name string, n *doctree.Node) {
		if n.Kind != doctree.Int {
			r.fail(n.Pos, "%s must be a whole number, not %s", name, n.Kind)
			return
		}
		if n.Int < int64(low) || n.Int > int64(high) {
			r.fail(n.Pos, "%s is %d; it must be from %d to %d", name, n.Int, low, high)
			return
		}
		*dst = int(n.Int)
	}}
}

func (r *reader) duration(dst *time.Duration, low, high time.Duration) rule {
	return rule{schema: durationSchema(low, high), show: func() string { return duration(*dst) }, set: func(name string, n *doctree.Node) {
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
	}}
}

func (r *reader) bytes(dst *uint64, low, high uint64) rule {
	return rule{schema: bytesSchema(low, high), show: func() string { return FormatBytes(*dst) }, set: func(name string, n *doctree.Node) {
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
	}}
}

func (r *reader) size(dst *int, low, high uint64) rule {
	return rule{schema: bytesSchema(low, high), show: func() string { return FormatBytes(uint64(*dst)) }, set: func(name string, n *doctree.Node) {
		v := uint64(*dst)
		r.bytes(&v, low, high).set(name, n)
		*dst = int(v)
	}}
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
