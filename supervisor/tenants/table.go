package tenants

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"bulkhead/supervisor/tenants/manifest"
)

// localSuffix ends the host name every tenant answers for without a route (RFC 6761 §6.3: names
// under localhost never leave the machine).
const localSuffix = ".localhost"

// table answers "whose is this host and path" for the hosts of routes; the names below localhost
// are the registry's. It is immutable: readers take the current one without a lock, a change of
// routes makes another.
type table struct {
	exact map[string][]claim // host → claims, most specific first
	wild  map[string][]claim // host below which the claim holds → claims, most specific first
	owner map[string]*entry  // host, with "*." if it is a wildcard → who has it
}

type claim struct {
	manifest.Route
	entry *entry
}

// conflict is a route on a host that another tenant has.
type conflict struct {
	pattern       string
	owner, denied string
}

// hostKey is what is owned: a host, or everything below one, whole. Two tenants on paths of one
// host would be one origin to browsers, each able to read the other's pages and cookies.
func hostKey(r manifest.Route) string {
	if r.Wild {
		return "*." + r.Host
	}
	return r.Host
}

// buildTable makes the table of the entries that want routes, given in the order of their
// precedence. Who had a host in the table before keeps it.
func buildTable(entries []*entry, before *table) (*table, []conflict) {
	t := &table{exact: map[string][]claim{}, wild: map[string][]claim{}, owner: map[string]*entry{}}
	wants := func(e *entry, key string) bool {
		return slices.ContainsFunc(e.routes(), func(r manifest.Route) bool { return hostKey(r) == key })
	}
	here := make(map[*entry]bool, len(entries))
	for _, e := range entries {
		here[e] = true
	}
	if before != nil {
		for key, e := range before.owner {
			if here[e] && wants(e, key) {
				t.owner[key] = e
			}
		}
	}
	var conflicts []conflict
	for _, e := range entries {
		for _, r := range e.routes() {
			if have := t.owner[hostKey(r)]; have != nil && have != e {
				conflicts = append(conflicts, conflict{r.Pattern, have.id, e.id})
				continue
			}
			t.owner[hostKey(r)] = e
			m := t.exact
			if r.Wild {
				m = t.wild
			}
			m[r.Host] = append(m[r.Host], claim{r, e})
		}
	}
	for _, m := range []map[string][]claim{t.exact, t.wild} {
		for _, claims := range m {
			slices.SortFunc(claims, func(a, b claim) int {
				if c := cmp.Compare(len(b.Path), len(a.Path)); c != 0 {
					return c // the longer path says more
				}
				if a.Prefix != b.Prefix {
					if b.Prefix {
						return -1 // this very path before everything that begins with it
					}
					return 1
				}
				return cmp.Compare(a.Pattern, b.Pattern)
			})
		}
	}
	return t, conflicts
}

// find returns the tenant whose route a host, as normalHost writes it, and a path fall under, or
// nil. Most specific first: the host itself before wildcards, the longer wildcard before the
// shorter, and among the routes of one host the longer path.
func (t *table) find(host, path string) *entry {
	if e := match(t.exact[host], path); e != nil {
		return e
	}
	if len(t.wild) == 0 {
		return nil
	}
	for rest := host; ; {
		_, after, ok := strings.Cut(rest, ".")
		if !ok {
			return nil
		}
		if e := match(t.wild[after], path); e != nil {
			return e
		}
		rest = after
	}
}

func match(claims []claim, path string) *entry {
	for i := range claims {
		c := &claims[i]
		if c.Prefix && strings.HasPrefix(path, c.Path) || !c.Prefix && path == c.Path {
			return c.entry
		}
	}
	return nil
}

// normalHost drops the port and a final dot and makes letters lower case. It allocates only when
// there are upper-case letters.
func normalHost(h string) string {
	if len(h) > 0 && h[0] == '[' { // an IPv6 literal is nobody's name
		return h
	}
	if i := strings.LastIndexByte(h, ':'); i >= 0 {
		h = h[:i]
	}
	h = strings.TrimSuffix(h, ".")
	return strings.ToLower(h)
}

func (c conflict) String() string {
	return fmt.Sprintf("the host of route %s belongs to tenant %s, which had it first; tenant %s does not get it", c.pattern, c.owner, c.denied)
}
