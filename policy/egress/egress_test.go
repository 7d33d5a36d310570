package egress

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func judge(t testing.TB, edit func(*Rules)) *Judge {
	t.Helper()
	r := Default()
	if edit != nil {
		edit(&r)
	}
	j, err := NewJudge(r)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// Both ends of every range that is not public, and what lies beside it.
func TestClassify(t *testing.T) {
	for kind, list := range map[Kind]string{
		Unspecified:   "0.0.0.0 0.0.0.1 0.255.255.255 ::",
		Private:       "10.0.0.0 10.255.255.255 172.16.0.0 172.31.255.255 192.168.0.0 192.168.255.255",
		SharedCGNAT:   "100.64.0.0 100.100.100.200 100.127.255.255",
		Loopback:      "127.0.0.0 127.0.0.1 127.1.2.3 127.255.255.255 ::1",
		Metadata:      "168.63.129.16",
		LinkLocal:     "169.254.0.0 169.254.169.254 169.254.255.255 fe80:: fe80::1 febf:ffff::1",
		Protocol:      "192.0.0.0 192.0.0.192 192.0.0.255 2001:10::1 2001:20::1 2001:1ff:ffff::",
		Documentation: "192.0.2.0 192.0.2.255 198.51.100.1 203.0.113.255 2001:db8::1 2001:db8:ffff::1 3fff::1 3fff:fff::1",
		Relay6to4:     "192.88.99.0 192.88.99.255",
		Benchmarking:  "198.18.0.0 198.19.255.255 2001:2::1 2001:2:0:ffff::1",
		Multicast:     "224.0.0.1 239.255.255.255 ff02::1 ff0e::1 ffff::",
		Broadcast:     "255.255.255.255",
		Reserved:      "240.0.0.1 255.255.255.254 200::1 1000::1 4000::1 5f00::1 8000::1 fbff::1 fe00::1",
		Mapped:        "::ffff:127.0.0.1 ::ffff:8.8.8.8 ::ffff:a00:1",
		Translated:    "::ffff:0:7f00:1 ::ffff:0:8.8.8.8",
		Compatible:    "::127.0.0.1 ::8.8.8.8 ::2",
		NAT64:         "64:ff9b::7f00:1 64:ff9b::8.8.8.8 64:ff9b:1::a00:1 64:ff9b:1:ffff::1",
		Teredo:        "2001::1 2001:0:ffff::1",
		Tunnel6to4:    "2002:7f00:1:: 2002:a00:1::1 2002:ffff::",
		UniqueLocal:   "fc00::1 fd00:ec2::254 fdff::1",
		SiteLocal:     "fec0::1 feff::1",
		Discard:       "100::1",
		Scoped:        "fe80::1%eth0 2606:4700::1111%1",
		Public: "1.0.0.0 1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 168.63.129.15 " +
			"168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 191.255.255.255 192.0.1.0 192.0.3.0 192.88.98.255 " +
			"192.88.100.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 198.51.99.255 203.0.112.255 203.0.114.0 223.255.255.255 " +
			"2000::1 2001:200::1 2001:4860:4860::8888 2001:db7:ffff::1 2001:db9::1 2003::1 2606:4700:4700::1111 3ffe:ffff::1 3fff:1000::1",
	} {
		for _, s := range strings.Fields(list) {
			if got := Classify(netip.MustParseAddr(s)); got != kind {
				t.Errorf("%s is %s, want %s", s, got, kind)
			}
		}
	}
	if Classify(netip.Addr{}) == Public {
		t.Error("no address is a public one")
	}
}

func TestAddress(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*Rules)
		host string
		addr string
		rule string // "" if allowed
	}{
		{"public", nil, "a.example", "1.1.1.1:443", ""},
		{"public by number", nil, "1.1.1.1", "1.1.1.1:80", ""},
		{"public IPv6", nil, "[2606:4700::1111]", "[2606:4700::1111]:8080", ""},
		{"private", nil, "a.example", "10.0.0.1:80", RulePublic},
		{"low port", nil, "a.example", "1.1.1.1:22", RulePort},
		{"port 81", nil, "a.example", "1.1.1.1:81", RulePort},
		{"a bad port among the allowed", nil, "a.example", "1.1.1.1:6667", RulePort},
		{"mapped public", nil, "a.example", "[::ffff:1.1.1.1]:80", RulePublic},
		{"public off", func(r *Rules) { r.Public = false }, "a.example", "1.1.1.1:443", RuleAllow},
		{"allowed network", func(r *Rules) { r.Allow = []string{"10.0.0.0/8"} }, "a.example", "10.9.8.7:5", ""},
		{"allowed network, other port", func(r *Rules) { r.Allow = []string{"10.0.0.0/8:80"} }, "a.example", "10.9.8.7:81", RulePublic},
		{"allowed network, mapped", func(r *Rules) { r.Allow = []string{"10.0.0.0/8"} }, "a.example", "[::ffff:10.0.0.1]:80", RulePublic},
		{"beside the allowed network", func(r *Rules) { r.Allow = []string{"10.0.0.0/9"} }, "a.example", "10.128.0.0:80", RulePublic},
		{"allowed loopback port", func(r *Rules) { r.Allow = []string{"127.0.0.1:9000"} }, "localhost", "127.0.0.1:9000", ""},
		{"allowed IPv6", func(r *Rules) { r.Allow = []string{"[::1]:9000-9001"} }, "localhost", "[::1]:9001", ""},
		{"allowed name, private", func(r *Rules) { r.Allow = []string{"API.corp.:8080"} }, "api.Corp", "10.0.0.1:8080", ""},
		{"allowed name, loopback", func(r *Rules) { r.Allow = []string{"api.corp"} }, "api.corp.", "127.0.0.1:1", ""},
		{"allowed name, metadata", func(r *Rules) { r.Allow = []string{"api.corp"} }, "api.corp", "169.254.169.254:80", RulePublic},
		{"allowed name, other name", func(r *Rules) { r.Allow = []string{"api.corp"} }, "b.api.corp", "10.0.0.1:80", RulePublic},
		{"wild name, private", func(r *Rules) { r.Allow = []string{"*.corp"} }, "api.corp", "10.0.0.1:80", RulePublic},
		{"wild name, public", func(r *Rules) { r.Public, r.Allow = false, []string{"*.example"} }, "api.example", "1.1.1.1:80", ""},
		{"wild name, its top", func(r *Rules) { r.Public, r.Allow = false, []string{"*.example"} }, "example", "1.1.1.1:80", RuleAllow},
		{"wild name, lookalike", func(r *Rules) { r.Public, r.Allow = false, []string{"*.example"} }, "badexample", "1.1.1.1:80", RuleAllow},
		{"denied name", func(r *Rules) { r.Deny = []string{"*.evil.example"} }, "A.EVIL.example.", "1.1.1.1:80", RuleDeny},
		{"denied network", func(r *Rules) { r.Deny = []string{"1.1.1.0/24"} }, "a.example", "1.1.1.1:80", RuleDeny},
		{"denied network, mapped and allowed", func(r *Rules) { r.Deny, r.Allow = []string{"10.1.0.0/16"}, []string{"::ffff:0:0/96"} }, "a.example", "[::ffff:10.1.0.1]:80", RuleDeny},
		{"deny before allow", func(r *Rules) { r.Deny, r.Allow = []string{"*"}, []string{"a.example"} }, "a.example", "1.1.1.1:80", RuleDeny},
		{"denied port", func(r *Rules) { r.Deny = []string{"*:8080"} }, "a.example", "1.1.1.1:8080", RuleDeny},
		{"beside the denied port", func(r *Rules) { r.Deny = []string{"*:8080"} }, "a.example", "1.1.1.1:8081", ""},
		{"a number that is no address", nil, "0x7f.1", "1.1.1.1:80", RuleName},
	} {
		err := judge(t, c.edit).Address(c.host, netip.MustParseAddrPort(c.addr))
		var r *Refusal
		switch {
		case c.rule == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.rule != "" && (!errors.As(err, &r) || r.Rule != c.rule || !strings.Contains(err.Error(), "egress rule: "+c.rule)):
			t.Errorf("%s: %v, want the rule %q", c.name, err, c.rule)
		}
	}
}

func TestRefusalTellsNoAddressBehindAName(t *testing.T) {
	j := judge(t, nil)
	err := j.Address("intra.example", netip.MustParseAddrPort("10.1.2.3:80"))
	if text := err.Error(); strings.Contains(text, "10.1.2.3") || text != "intra.example resolves to a private address (egress rule: public only)" {
		t.Error(text)
	}
	if err := j.Address("10.1.2.3", netip.MustParseAddrPort("10.1.2.3:80")); err.Error() != "10.1.2.3:80 is a private address (egress rule: public only)" {
		t.Error(err)
	}
}

func TestHostNames(t *testing.T) {
	j := judge(t, nil)
	for _, ok := range []string{"a.example", "A.EXAMPLE.", "xn--bcher-kva.example", "_dmarc.a.example", "localhost", "1.1.1.1", "[::1]", "1.2.3.com", "7f000001.example"} {
		if err := j.Host(ok, 80); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
	for _, bad := range []string{
		"", ".", "a..example", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "127.1", "127.0.0.0x1", "0177.0.0.1", "1.2.3.4.5", "a.1", "a.0x",
		"127.0.0.1%00", "a b", "a\tb", "a%2eb", "exa\u00admple.com", "\uff11\uff12\uff17.0.0.1", "\u2488", "a,b", "a/b", "a\\b", "a@b", "a:80",
		strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 130) + "example",
	} {
		if err := j.Host(bad, 80); err == nil {
			t.Errorf("%q was taken for a name", bad)
		}
	}
}

func TestPatterns(t *testing.T) {
	for _, bad := range []string{"", "a b", "a:0", "a:99999", "a:x", "a:9-8", "[::1", "[::1]80", "10.0.0.0/33", "10.0.0.1/8", "fe80::1%eth0", "a.*.b", "*a", "http://a", "a/b", "127.1"} {
		if p, err := ParsePattern(bad); err == nil {
			t.Errorf("%q was read as %+v", bad, p)
		}
	}
	j := judge(t, func(r *Rules) {
		r.Safe, r.Internal = []string{"search.example:443", "10.0.0.0/8"}, []string{"*.corp"}
	})
	if !j.Safe("Search.example", 443) || j.Safe("search.example", 80) || !j.Safe("10.1.1.1", 80) || j.Safe("a.corp", 80) {
		t.Error("safe")
	}
	if !j.Internal("a.corp", 80) || j.Internal("corp", 80) || j.Internal("search.example", 443) {
		t.Error("internal")
	}
	if !slices.IsSorted(badPorts[:]) {
		t.Error("badPorts is searched in order")
	}
}

// Whatever the bytes: an address that is not public is never allowed by default, nor does anything panic.
func FuzzAddress(f *testing.F) {
	f.Add("a.example", []byte{127, 0, 0, 1}, uint16(80))
	f.Add("[::]", make([]byte, 16), uint16(443))
	j := judge(f, nil)
	f.Fuzz(func(t *testing.T, host string, raw []byte, port uint16) {
		a, _ := netip.AddrFromSlice(raw)
		if err := j.Address(host, netip.AddrPortFrom(a, port)); err == nil && Classify(a) != Public {
			t.Errorf("%q at %s was allowed", host, a)
		}
		if p, err := ParsePattern(host); err == nil && p.matchesAddr(a, port) && !p.net.IsValid() {
			t.Error("a name matches an address")
		}
	})
}
