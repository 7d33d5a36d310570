package manifest

import (
	"strings"
	"testing"
)

// FuzzRoute: a route that is taken has a host that can be compared with a request's, and is nobody's
// own name.
func FuzzRoute(f *testing.F) {
	f.Add("example.com/*", "example.com", "/")
	f.Add("*.example.com/api/*", "a.example.com", "/api/x")
	f.Add("https://EXAMPLE.com", "example.com", "/a")
	f.Add("a.localhost/*", "a.localhost", "/")
	f.Fuzz(func(t *testing.T, pattern, host, path string) {
		r, wrong := ParseRoute(pattern)
		if wrong != "" {
			if strings.ContainsAny(wrong, "\x1b\r") {
				t.Errorf("%q", wrong)
			}
			return
		}
		if r.Host == "" || r.Host != strings.ToLower(r.Host) || strings.ContainsAny(r.Host, "/ \t\r\n:@*") || !strings.HasPrefix(r.Path, "/") {
			t.Errorf("%q was read as %+v", pattern, r)
		}
		if r.Host == "localhost" || strings.HasSuffix(r.Host, ".localhost") {
			t.Errorf("%q takes a neighbour's name", pattern)
		}
		again, wrong := ParseRoute(r.Pattern)
		if wrong != "" || again != r {
			t.Errorf("%+v reads back as %+v, %s", r, again, wrong)
		}
	})
}
