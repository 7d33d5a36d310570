// Package egress decides which upstreams a tenant may reach.
//
// Duty: say of a host name, and of every address that is about to be dialled for it, whether a
// tenant's rules allow it, and if not, which rule is in the way.
//
// Trust: names and addresses are hostile: the first come from tenants, the second from whoever
// answers for those names. Rules are the operator's.
//
// Invariants: data and decisions only, no effects. The word that counts is that on the address:
// nothing a name says can allow an address that Address refuses, but for exact names that the
// operator has listed. What is in no table is refused.
package egress

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Rules are what one tenant may do outside, as the operator writes it. Entries are patterns, see
// ParsePattern.
type Rules struct {
	// Public: addresses that everybody on the internet can reach may be dialled, on Ports.
	Public bool
	Ports  []Ports
	// Allow is reachable besides. An address or a network allows itself whatever it is; an exact name
	// allows what it resolves to, link-local addresses excepted; a name with * allows only public
	// addresses, on the ports it names.
	Allow []string
	// Deny comes before everything else.
	Deny []string
	// Internal upstreams are told by a header which tenant is asking.
	Internal []string
	// Safe upstreams take every method as without effect (RFC 9110 §9.2.1), for replay.
	Safe       []string
	Concurrent int    // subrequests open at once
	Bytes      uint64 // body of one subrequest, either way, as it is on the wire of the shard
}

// Ports is a range, both ends included.
type Ports struct{ Low, High uint16 }

// String is the form that ParsePorts reads.
func (p Ports) String() string {
	if p.Low == p.High {
		return fmt.Sprint(p.Low)
	}
	return fmt.Sprintf("%d-%d", p.Low, p.High)
}

func (p Ports) holds(port uint16) bool { return p.Low <= port && port <= p.High }

// Default is what the preset "standard" gives a tenant that policy says nothing about.
func Default() Rules {
	return Rules{
		Public:     true,
		Ports:      []Ports{{80, 80}, {443, 443}, {1024, 65535}},
		Concurrent: 256,
		Bytes:      16 << 30,
	}
}

// Refusal is why something may not be reached. Its text is for the tenant: of the address that a
// name resolved to it gives the kind, not the number.
type Refusal struct {
	Host string         // as the tenant named it
	Addr netip.AddrPort // zero if it did not come to one
	What string         // "a private address", "a denied upstream", ...
	Rule string         // one of the Rule constants
}

// The rules that refuse: a closed set, metrics use it.
const (
	RulePublic = "public only" // not a public address, and no allow entry holds it
	RulePort   = "ports"       // a public address, on a port that the rules do not name
	RuleDeny   = "deny"        // an entry of deny
	RuleAllow  = "allow only"  // public addresses are off, and no allow entry holds it
	RuleName   = "host name"   // not a name that can be resolved
)

// Error says what was refused and by which rule.
func (r *Refusal) Error() string {
	switch {
	case r.Addr.IsValid() && r.literal():
		return fmt.Sprintf("%s is %s (egress rule: %s)", r.Addr, r.What, r.Rule)
	case r.Addr.IsValid():
		return fmt.Sprintf("%s resolves to %s (egress rule: %s)", r.Host, r.What, r.Rule)
	}
	return fmt.Sprintf("%s is %s (egress rule: %s)", r.Host, r.What, r.Rule)
}

func (r *Refusal) literal() bool {
	a, err := netip.ParseAddr(strings.Trim(r.Host, "[]"))
	return err == nil && a == r.Addr.Addr()
}

// Judge holds compiled rules. Safe for concurrent use.
type Judge struct {
	rules                       Rules
	allow, deny, internal, safe []Pattern
}

// NewJudge compiles rules; its error names the entry that is none.
func NewJudge(r Rules) (*Judge, error) {
	j := &Judge{rules: r}
	for _, l := range []struct {
		name string
		from []string
		to   *[]Pattern
	}{{"allow", r.Allow, &j.allow}, {"deny", r.Deny, &j.deny}, {"internal", r.Internal, &j.internal}, {"safe", r.Safe, &j.safe}} {
		for _, s := range l.from {
			p, err := ParsePattern(s)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", l.name, err)
			}
			*l.to = append(*l.to, p)
		}
	}
	return j, nil
}

// Rules returns what the judge was made of.
func (j *Judge) Rules() Rules { return j.rules }

// Internal says whether the upstream is one that is told the tenant's id.
func (j *Judge) Internal(host string, port uint16) bool { return named(j.internal, Fold(host), port) }

// Safe says whether the upstream's methods have no effect.
func (j *Judge) Safe(host string, port uint16) bool { return named(j.safe, Fold(host), port) }

// Host judges a name before it is resolved. A nil error allows nothing yet.
func (j *Judge) Host(host string, port uint16) error {
	h := Fold(host)
	if !validHost(h) {
		return &Refusal{Host: host, What: "no host name or address", Rule: RuleName}
	}
	if named(j.deny, h, port) {
		return &Refusal{Host: host, What: "a denied upstream", Rule: RuleDeny}
	}
	return nil
}

// Address judges an address that is about to be dialled for host.
func (j *Judge) Address(host string, a netip.AddrPort) error {
	h := Fold(host)
	refuse := func(what, rule string) error { return &Refusal{Host: host, Addr: a, What: what, Rule: rule} }
	if err := j.Host(host, a.Port()); err != nil {
		return err
	}
	kind := Classify(a.Addr())
	plain := a.Addr().Unmap().WithZone("") // what a deny entry means, in whatever form
	if addressed(j.deny, plain, a.Port()) {
		return refuse("a denied address", RuleDeny)
	}
	if addressed(j.allow, a.Addr(), a.Port()) {
		return nil
	}
	for _, p := range j.allow {
		if !p.matchesName(h, a.Port()) {
			continue
		}
		if kind == Public || (!p.wild && !kind.never()) {
			return nil
		}
	}
	switch {
	case kind != Public:
		return refuse(kind.String(), RulePublic)
	case !j.rules.Public:
		return refuse("not on the list of what may be reached", RuleAllow)
	case !slices.ContainsFunc(j.rules.Ports, func(p Ports) bool { return p.holds(a.Port()) }):
		return refuse(fmt.Sprintf("an upstream on port %d", a.Port()), RulePort)
	case badPort(a.Port()):
		return refuse(fmt.Sprintf("an upstream on port %d, which is another protocol's", a.Port()), RulePort)
	}
	return nil
}

func named(list []Pattern, host string, port uint16) bool {
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return slices.ContainsFunc(list, func(p Pattern) bool {
		return p.matchesName(host, port) || err == nil && p.matchesAddr(a, port)
	})
}

func addressed(list []Pattern, a netip.Addr, port uint16) bool {
	return slices.ContainsFunc(list, func(p Pattern) bool { return p.matchesAddr(a, port) })
}

// Fold brings a host name to the form in which names are compared: lower case, without the dot of
// the root.
func Fold(host string) string { return strings.TrimSuffix(strings.ToLower(host), ".") }

// validHost takes names of letters, digits, - and _, and IP addresses. A name whose last label is a
// number is an IPv4 address in some notation to somebody (https://url.spec.whatwg.org/#ends-in-a-number-checker),
// and taken only in the usual one.
func validHost(h string) bool {
	if _, err := netip.ParseAddr(strings.Trim(h, "[]")); err == nil {
		return true
	}
	if h == "" || len(h) > 253 {
		return false
	}
	last := ""
	for label := range strings.SplitSeq(h, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
		last = label
	}
	return !numeric(last)
}

func numeric(label string) bool {
	if rest, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(rest, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

// badPorts are those that the Fetch standard blocks (https://fetch.spec.whatwg.org/#port-blocking):
// what listens there speaks a protocol in which a request can be mistaken for commands.
var badPorts = [...]uint16{
	0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110, 111, 113,
	115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556,
	563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667,
	6668, 6669, 6679, 6697, 10080,
}

func badPort(port uint16) bool {
	_, found := slices.BinarySearchFunc(badPorts[:], port, cmp.Compare[uint16])
	return found
}
