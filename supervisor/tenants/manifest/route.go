package manifest

import (
	"strings"

	"bulkhead/policy/doctree"
)

// Route is one pattern of host and path a tenant wants to answer for.
type Route struct {
	Pattern string // as it is reported, without scheme
	Host    string // lower case, without the "*." of a wildcard
	Wild    bool   // the host is any name below Host, at any depth, but not Host itself
	Path    string // without the "*" of a prefix; "" with Prefix means every path
	Prefix  bool   // any path that begins with Path
}

// ParseRoute reads a pattern: host, then an optional path. A leading "*." of the host stands for
// any names below it, a trailing "*" of the path for anything after it; a pattern without a path
// is the whole host. The second result is empty, or says what is wrong.
func ParseRoute(pattern string) (Route, string) {
	text := strings.TrimPrefix(strings.TrimPrefix(pattern, "https://"), "http://")
	host, rest, hasPath := strings.Cut(text, "/")
	rt := Route{Host: strings.ToLower(host), Prefix: true}
	if hasPath {
		rt.Path = "/" + rest
		rt.Path, rt.Prefix = strings.CutSuffix(rt.Path, "*")
	}
	if name, ok := strings.CutPrefix(rt.Host, "*."); ok {
		rt.Host, rt.Wild = name, true
		if !strings.Contains(name, ".") {
			return rt, "a wildcard needs a name of at least two parts after it, such as *.example.com/*"
		}
	}
	switch {
	case len(pattern) > 1024:
		return rt, "the pattern is longer than 1024 bytes"
	case rt.Host == "":
		return rt, "the pattern has no host, such as example.com/*"
	case strings.Contains(rt.Host, "*"):
		return rt, "* may stand only for the first part of a host, as in *.example.com"
	case strings.Contains(rt.Path, "*"):
		return rt, "* may stand only at the end of a path"
	case strings.ContainsAny(rt.Path, "?# "):
		return rt, "a path cannot hold a query, a fragment or a space"
	case !validHost(rt.Host):
		return rt, "the host is not a name: letters, digits, - and dots (international names in their xn-- form), without a port"
	case endsInNumber(rt.Host):
		return rt, "an address is nobody's name: everybody who reaches this machine by it would be served by this tenant"
	case rt.Host == "localhost" || strings.HasSuffix(rt.Host, ".localhost"):
		return rt, "names under localhost belong to bulkhead: a tenant answers for its own id without a route"
	}
	rt.Pattern = rt.Host + rt.Path
	if rt.Wild {
		rt.Pattern = "*." + rt.Pattern
	}
	if rt.Prefix {
		if rt.Path == "" {
			rt.Pattern += "/"
			rt.Path = "/"
		}
		rt.Pattern += "*"
	}
	return rt, ""
}

// validHost accepts a name by RFC 1123 §2.1: labels of letters, digits and inner hyphens.
func validHost(h string) bool {
	if len(h) > 253 {
		return false
	}
	for label := range strings.SplitSeq(h, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// endsInNumber says whether URL parsers would take a host for an IPv4 address, or refuse it as a
// bad one (WHATWG URL, "ends in a number checker").
func endsInNumber(h string) bool {
	last := h[strings.LastIndexByte(h, '.')+1:]
	if hex, ok := strings.CutPrefix(last, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(last, "0123456789") == ""
}

func (r *reader) routes(n *doctree.Node) {
	switch n.Kind {
	case doctree.Null:
	case doctree.List:
		for _, item := range n.Items {
			r.route(item)
		}
	default:
		r.fail(n.Pos, "routes must be a list of patterns such as example.com/api/*, not %s", n.Kind)
	}
}

// route takes "pattern" or {pattern = "...", custom_domain = true}. A custom domain is the whole host.
func (r *reader) route(n *doctree.Node) {
	at := n.Pos
	pattern := n
	if n.Kind == doctree.Map {
		pattern = n.Get("pattern")
		if pattern == nil {
			r.fail(at, "a route needs a pattern such as example.com/api/*")
			return
		}
	}
	if pattern.Kind != doctree.String {
		r.fail(pattern.Pos, "a route must be a pattern such as example.com/api/*, not %s", pattern.Kind)
		return
	}
	rt, wrong := ParseRoute(pattern.Text)
	if wrong != "" {
		r.fail(pattern.Pos, "route %q: %s", doctree.Printable(pattern.Text), wrong)
		return
	}
	for _, have := range r.m.Routes {
		if have.Pattern == rt.Pattern {
			return
		}
	}
	if len(r.m.Routes) == MaxRoutes {
		r.fail(pattern.Pos, "more than %d routes", MaxRoutes)
		return
	}
	r.m.Routes = append(r.m.Routes, rt)
}
