package egress

import "net/netip"

// Kind is what an address is, as far as reaching it goes.
type Kind uint8

// The kinds. The zero value is what no table knows.
const (
	Reserved Kind = iota
	Public
	Unspecified
	Loopback
	Private
	LinkLocal
	Metadata
	SharedCGNAT
	Protocol
	Documentation
	Benchmarking
	Relay6to4
	Multicast
	Broadcast
	Mapped
	Translated
	Compatible
	NAT64
	Teredo
	Tunnel6to4
	UniqueLocal
	SiteLocal
	Discard
	Scoped
)

// String completes "it is ...".
func (k Kind) String() string {
	switch k {
	case Public:
		return "a public address"
	case Unspecified:
		return "the unspecified address or one of this network"
	case Loopback:
		return "a loopback address"
	case Private:
		return "a private address"
	case LinkLocal:
		return "a link-local address"
	case Metadata:
		return "the address of a cloud's metadata service"
	case SharedCGNAT:
		return "a shared address of carrier-grade NAT"
	case Protocol:
		return "an address of protocol assignments"
	case Documentation:
		return "a documentation address"
	case Benchmarking:
		return "a benchmarking address"
	case Relay6to4:
		return "an address of 6to4 relays"
	case Multicast:
		return "a multicast address"
	case Broadcast:
		return "the broadcast address"
	case Mapped:
		return "an IPv4-mapped address"
	case Translated:
		return "an IPv4-translated address"
	case Compatible:
		return "an IPv4-compatible address"
	case NAT64:
		return "a NAT64 address"
	case Teredo:
		return "a Teredo address"
	case Tunnel6to4:
		return "a 6to4 address"
	case UniqueLocal:
		return "a unique local address"
	case SiteLocal:
		return "a site-local address"
	case Discard:
		return "a discard-only address"
	case Scoped:
		return "an address with a zone"
	}
	return "a reserved address"
}

// never: not even an exact name in allow reaches it, for who answers for the name might have meant
// something else. An address in allow does.
func (k Kind) never() bool {
	switch k {
	case Reserved, Unspecified, LinkLocal, Metadata, Multicast, Broadcast, Mapped, Translated, Compatible, NAT64, Teredo, Tunnel6to4, Scoped, Discard:
		return true
	}
	return false
}

// row is one range of addresses. The first that holds an address decides.
type row struct {
	prefix netip.Prefix
	kind   Kind
}

func rows(list ...any) (out []row) {
	for i := 0; i < len(list); i += 2 {
		out = append(out, row{netip.MustParsePrefix(list[i].(string)), list[i+1].(Kind)})
	}
	return out
}

// special4 are the ranges of IPv4 that are not public (RFC 6890 and the IANA registry that follows it).
var special4 = rows(
	"0.0.0.0/8", Unspecified,
	"10.0.0.0/8", Private,
	"100.64.0.0/10", SharedCGNAT, // RFC 6598; 100.100.100.200 is a metadata service
	"127.0.0.0/8", Loopback,
	"168.63.129.16/32", Metadata, // Azure's; a public number that leaves no host
	"169.254.0.0/16", LinkLocal, // RFC 3927; 169.254.169.254 is a metadata service
	"172.16.0.0/12", Private,
	"192.0.0.0/24", Protocol, // RFC 6890; 192.0.0.192 is a metadata service
	"192.0.2.0/24", Documentation,
	"192.88.99.0/24", Relay6to4, // RFC 7526
	"192.168.0.0/16", Private,
	"198.18.0.0/15", Benchmarking, // RFC 2544
	"198.51.100.0/24", Documentation,
	"203.0.113.0/24", Documentation,
	"224.0.0.0/4", Multicast,
	"255.255.255.255/32", Broadcast,
	"240.0.0.0/4", Reserved,
)

// special6 are ranges of IPv6 that are not public. Outside 2000::/3 nothing is (RFC 4291 §2.4); those
// rows are there for the name.
var special6 = rows(
	"::/128", Unspecified,
	"::1/128", Loopback,
	"::ffff:0:0/96", Mapped, // RFC 4291 §2.5.5.2
	"::ffff:0:0:0/96", Translated, // RFC 2765
	"::/96", Compatible, // RFC 4291 §2.5.5.1
	"64:ff9b::/96", NAT64, // RFC 6052
	"64:ff9b:1::/48", NAT64, // RFC 8215
	"100::/64", Discard, // RFC 6666
	"2001::/32", Teredo, // RFC 4380
	"2001:2::/48", Benchmarking, // RFC 5180
	"2001:db8::/32", Documentation,
	"2001::/23", Protocol, // RFC 2928: ORCHID and others
	"2002::/16", Tunnel6to4, // RFC 3056: an IPv4 address is inside
	"3fff::/20", Documentation, // RFC 9637
	"fc00::/7", UniqueLocal,
	"fe80::/10", LinkLocal,
	"fec0::/10", SiteLocal, // RFC 3879
	"ff00::/8", Multicast,
)

var global6 = netip.MustParsePrefix("2000::/3")

// Classify says what kind of address a is.
func Classify(a netip.Addr) Kind {
	if a.Zone() != "" {
		return Scoped
	}
	table, otherwise := special4, Public
	if !a.Is4() {
		table = special6
		if !a.IsValid() || !global6.Contains(a) {
			otherwise = Reserved
		}
		if a.Is4In6() {
			return Mapped // Prefix.Contains takes no mapped address
		}
	}
	for _, r := range table {
		if r.prefix.Contains(a) {
			return r.kind
		}
	}
	return otherwise
}
