package egress

import (
	"net/netip"
	"strings"
	"testing"
)

// FuzzPattern: a pattern of a policy or a label that is taken means the same wherever it is asked, and
// a name matches no other name than it says.
func FuzzPattern(f *testing.F) {
	f.Add("*.example.com:443", "a.example.com", uint16(443))
	f.Add("10.0.0.0/8:80-90", "10.1.2.3", uint16(85))
	f.Add("[2001:db8::1]:80", "2001:db8::1", uint16(80))
	f.Add("EXAMPLE.com.", "example.com", uint16(0))
	f.Fuzz(func(t *testing.T, pattern, host string, port uint16) {
		p, err := ParsePattern(pattern)
		if err != nil {
			if err.Error() == "" {
				t.Error("refused without a reason")
			}
			return
		}
		a, _ := netip.ParseAddr(host)
		if p.matchesAddr(a, port) && !p.net.Contains(a.Unmap()) && !p.net.Contains(a) {
			t.Errorf("%q matches %s", pattern, a)
		}
		r := Rules{Deny: []string{pattern}, Public: true, Concurrent: 1, Bytes: 1}
		j, err := NewJudge(r)
		if err != nil {
			t.Fatalf("%q is a pattern and no rule: %v", pattern, err)
		}
		// Case and a trailing dot make no other name of it.
		err1, err2 := j.Host(host, port), j.Host(strings.ToUpper(host), port)
		if isASCII(host) && (err1 == nil) != (err2 == nil) {
			t.Errorf("%q: %q is judged %v, in capitals %v", pattern, host, err1, err2)
		}
	})
}

func isASCII(s string) bool {
	for _, c := range []byte(s) {
		if c >= 0x80 {
			return false
		}
	}
	return true
}
