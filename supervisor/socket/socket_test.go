package socket

import (
	"bytes"
	"slices"
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

// frame is one frame of a client's, unmasked bytes behind a mask of zeros.
func frame(first byte, n int) []byte {
	b := []byte{first}
	switch {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = append(b, 0x80|126, byte(n>>8), byte(n))
	default:
		b = append(b, 0x80|127, 0, 0, 0, 0, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	b = append(b, 0, 0, 0, 0)
	for range n {
		b = append(b, 8) // what a close begins with, but for FIN
	}
	return b
}

// A close is held back until all is quiet, wherever the reads end; nothing is lost or changed.
func TestGate(t *testing.T) {
	for _, sizes := range [][]int{{}, {0}, {1, 2}, {125, 126, 127}, {70_000, 3}, {8, 8, 8}} {
		var before []byte
		for i, n := range sizes {
			before = append(before, frame([]byte{0x81, 0x02, 0x89}[i%3], n)...)
		}
		all := append(append(slices.Clone(before), frame(0x88, 2)...), frame(0x81, 5)...)
		for _, step := range []int{1, 3, 7, 4096, 1 << 20} {
			quiet := -1
			var got []byte
			g := &Gate{Quiet: func() { quiet = len(got) }}
			src := bytes.NewReader(all)
			buf := make([]byte, step)
			for {
				n, err := g.Read(src, buf)
				got = append(got, buf[:n]...)
				if err != nil {
					break
				}
			}
			if !bytes.Equal(got, all) || quiet != len(before) {
				t.Errorf("sizes %v, reads of %d: %d bytes of %d, waited at %d, want %d", sizes, step, len(got), len(all), quiet, len(before))
			}
		}
	}
}

func FuzzGate(f *testing.F) {
	f.Add(append(frame(0x81, 3), frame(0x88, 2)...), 2)
	f.Add([]byte{0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 1)
	f.Fuzz(func(t *testing.T, all []byte, step int) {
		if step < 1 || step > 1<<16 {
			return
		}
		waits := 0
		g := &Gate{Quiet: func() { waits++ }}
		src, buf := bytes.NewReader(all), make([]byte, step)
		var got []byte
		for {
			n, err := g.Read(src, buf)
			got = append(got, buf[:n]...)
			if err != nil {
				break
			}
		}
		if !bytes.Equal(got, all) || waits > 1 {
			t.Errorf("%d bytes of %d, waited %d times", len(got), len(all), waits)
		}
	})
}
