package egress

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Pattern is one compiled entry of the rules.
type Pattern struct {
	name  string // folded, without the "*." of a wild one; "" for networks
	wild  bool   // what lies below name; with an empty name, every name
	net   netip.Prefix
	ports Ports // {0, 65535}: any
}

// ParsePattern reads an entry: a host name, a name below which everything is meant (*.example.com), an
// address or a network in CIDR notation, each with a port or a range of ports behind a colon, or
// without one for all. IPv6 stands in brackets when a port follows.
func ParsePattern(s string) (Pattern, error) {
	host, ports, err := splitPorts(s)
	if err != nil {
		return Pattern{}, err
	}
	p := Pattern{ports: ports}
	if n, err := netip.ParsePrefix(host); err == nil {
		if n != n.Masked() {
			return Pattern{}, fmt.Errorf("%q has bits beyond its length; write %s", s, n.Masked())
		}
		p.net = n
		return p, nil
	}
	if a, err := netip.ParseAddr(host); err == nil {
		if a.Zone() != "" {
			return Pattern{}, fmt.Errorf("%q has a zone", s)
		}
		p.net = netip.PrefixFrom(a, a.BitLen())
		return p, nil
	}
	p.name = Fold(host)
	if p.name == "*" {
		return Pattern{wild: true, ports: ports}, nil
	}
	if rest, ok := strings.CutPrefix(p.name, "*."); ok {
		p.name, p.wild = rest, true
	}
	if !validHost(p.name) {
		return Pattern{}, fmt.Errorf("%q is no host name, address or network, with or without a port", s)
	}
	return p, nil
}

// splitPorts cuts the part behind the last colon off, unless it belongs to an IPv6 address.
func splitPorts(s string) (host string, p Ports, err error) {
	any := Ports{0, 65535}
	if rest, ok := strings.CutPrefix(s, "["); ok {
		host, tail, ok := strings.Cut(rest, "]")
		switch {
		case !ok:
			return "", p, fmt.Errorf("%q has no ]", s)
		case tail == "":
			return host, any, nil
		case strings.HasPrefix(tail, "/"): // [net]/length:port
			length, port, found := strings.Cut(tail, ":")
			if !found {
				return host + length, any, nil
			}
			p, err = ParsePorts(port)
			return host + length, p, err
		case !strings.HasPrefix(tail, ":"):
			return "", p, fmt.Errorf("%q: a port follows ] with a colon", s)
		}
		p, err = ParsePorts(tail[1:])
		return host, p, err
	}
	if strings.Count(s, ":") != 1 {
		return s, any, nil
	}
	host, port, _ := strings.Cut(s, ":")
	p, err = ParsePorts(port)
	return host, p, err
}

// ParsePorts reads a port or a range such as 1024-65535.
func ParsePorts(s string) (Ports, error) {
	low, high, ranged := strings.Cut(s, "-")
	if !ranged {
		high = low
	}
	a, err1 := strconv.ParseUint(low, 10, 16)
	b, err2 := strconv.ParseUint(high, 10, 16)
	if err1 != nil || err2 != nil || a == 0 || b < a {
		return Ports{}, fmt.Errorf("%q is no port from 1 to 65535 and no range of them", s)
	}
	return Ports{uint16(a), uint16(b)}, nil
}

func (p Pattern) matchesName(host string, port uint16) bool {
	if p.net.IsValid() || !p.ports.holds(port) {
		return false
	}
	if !p.wild {
		return host == p.name
	}
	return p.name == "" || strings.HasSuffix(host, "."+p.name)
}

func (p Pattern) matchesAddr(a netip.Addr, port uint16) bool {
	return p.net.IsValid() && p.ports.holds(port) && p.net.Contains(a)
}
