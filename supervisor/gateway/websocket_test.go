package gateway

import (
	"testing"
	"unicode/utf8"
)

// Text that comes in parts is good exactly if it is good as a whole, wherever it is cut.
func TestUTF8InParts(t *testing.T) {
	for _, s := range []string{"", "abc", "κόσμε", "\U0001f600", "a\U0001f600b\u1f79", "\xce", "\xe1\xbd", "\xf0\x9f\x98", "\xff", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80",
		"ok\xce", "\xce\xce\xba", "\xe1a", "\xf0\x9f\x98\x80\xf0\x9f"} {
		for i := 0; i <= len(s); i++ {
			for j := i; j <= len(s); j++ {
				inParts(t, s, i, j)
			}
		}
	}
}

func inParts(t *testing.T, s string, i, j int) {
	t.Helper()
	var c utf8Check
	got := c.feed([]byte(s[:i]), false) && c.feed([]byte(s[i:j]), false) && c.feed([]byte(s[j:]), true)
	if got != utf8.ValidString(s) {
		t.Errorf("%q cut at %d and %d: %v", s, i, j, got)
	}
}

func FuzzUTF8InParts(f *testing.F) {
	f.Add("κόσμε", 1, 3)
	f.Add("\xf4\x90\x80\x80", 2, 2)
	f.Fuzz(func(t *testing.T, s string, i, j int) {
		if i < 0 || j < i || j > len(s) {
			return
		}
		inParts(t, s, i, j)
	})
}
