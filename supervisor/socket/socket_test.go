package socket

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"bulkhead/ipc"
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

// frame is one frame of a client's, unmasked bytes behind a mask of zeros. Of a close's, they are its code.
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
	for i := range n {
		b = append(b, 8) // what a close begins with, but for FIN
		if first == 0x88 {
			b[len(b)-1] = []byte{3, 0xe9, 'x'}[min(i, 2)]
		}
	}
	return b
}

// A close is held back until the worker has closed, wherever the reads end; nothing is lost or changed.
func TestGate(t *testing.T) {
	for _, sizes := range [][]int{{}, {0}, {1, 2}, {125, 126, 127}, {70_000, 3}, {8, 8, 8}} {
		var before []byte
		for i, n := range sizes {
			before = append(before, frame([]byte{0x81, 0x02, 0x89}[i%3], n)...)
		}
		all := append(append(slices.Clone(before), frame(0x88, 2)...), frame(0x81, 5)...)
		for i, step := range []int{1, 3, 7, 4096, 1 << 20, 1, 4096} {
			early := i / 5
			quiet := -1
			var got []byte
			g := &Gate{Close: func(code uint16, reason string) (uint16, string, error) {
				if quiet >= 0 || code != 1001 || reason != "" {
					t.Errorf("sizes %v, reads of %d: close %d %q", sizes, step, code, reason)
				}
				quiet = len(got)
				return code, reason, nil
			}}
			src := bytes.NewReader(all)
			if early > 0 { // a byte is read before anybody could answer
				n, _ := g.Read(src, make([]byte, 1))
				got = append(got, all[:n]...)
				n = g.Pass(all[1:2])
				got = append(got, all[1:1+n]...)
				src.ReadByte()
			}
			g.Open()
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
		waits, at := 0, 0
		var got []byte
		g := &Gate{Close: func(code uint16, reason string) (uint16, string, error) {
			if waits++; code != 1005 && !ipc.SendableClose(code) || len(reason) > 123 {
				t.Errorf("close %d %q", code, reason)
			}
			at = len(got)
			return code, reason, nil
		}}
		g.Open()
		src, buf := bytes.NewReader(all), make([]byte, step)
		for {
			n, err := g.Read(src, buf)
			got = append(got, buf[:n]...)
			if err != nil {
				break
			}
		}
		// But for its mask, and a reason that is not UTF-8, which the real one refuses, a close goes through as it was.
		if len(got) > len(all) || !bytes.Equal(got[:at], all[:at]) || waits == 0 && !bytes.Equal(got, all) || waits > 1 {
			t.Errorf("%d bytes of %d, waited %d times", len(got), len(all), waits)
		}
	})
}

// An upstream's close is held back likewise; its frames have no mask.
func TestGateOfAnUpstream(t *testing.T) {
	for frame, want := range map[string]string{
		"\x81\x01x\x88\x02\x03\xe8": "\x81\x01x\x88\x06\x0f\xa1mine", "\x88\x00\x81\x01x": "\x88\x06\x0f\xa1mine\x81\x01x",
		"\x88\x82\x01\x02\x03\x04\x02\xeb": "\x88\x82\x01\x02\x03\x04\x02\xeb", "\x88\x01x": "\x88\x01x", // the library's to refuse
	} {
		g := &Gate{Unmasked: true, Close: func(code uint16, reason string) (uint16, string, error) { return 4001, "mine", nil }}
		g.Open()
		src := strings.NewReader(frame)
		got, err := io.ReadAll(readerFunc(func(p []byte) (int, error) { return g.Read(src, p) }))
		if string(got) != want || err != nil {
			t.Errorf("%q: %q, want %q; %v", frame, got, want, err)
		}
	}
}

// What breaks a rule is the library's to refuse, at once.
func TestGateTellsOfWholeClosesOnly(t *testing.T) {
	for _, c := range []struct {
		name, frame string
		told        bool
	}{
		{"a code", "\x88\x82\x01\x02\x03\x04\x02\xeb", true},
		{"nothing", "\x88\x80\x01\x02\x03\x04", true},
		{"no mask", "\x88\x02\x03\xe9", false},
		{"no FIN", "\x08\x82\x00\x00\x00\x00\x03\xe9", false},
		{"a reserved bit", "\xc8\x82\x00\x00\x00\x00\x03\xe9", false},
		{"half a code", "\x88\x81\x00\x00\x00\x00\x03", false},
		{"code 1006", "\x88\x82\x00\x00\x00\x00\x03\xee", false},
		{"too long", "\x88\xfe\x00\x02\x00\x00\x00\x00\x03\xe9", false},
		{"a long length of a short one", "\x88\xff\xff\xff\xff\xff\xff\xff\xff\xff", false},
		{"cut off", "\x88\x82\x00\x00", false},
	} {
		told := false
		g := &Gate{Close: func(code uint16, reason string) (uint16, string, error) {
			told = true
			if code != 1001 && code != 1005 {
				t.Errorf("%s: code %d", c.name, code)
			}
			return 4001, "mine", nil
		}}
		g.Open()
		src := bytes.NewReader([]byte(c.frame))
		got, err := io.ReadAll(readerFunc(func(p []byte) (int, error) { return g.Read(src, p) }))
		want := c.frame
		if c.told {
			want = "\x88\x86\x00\x00\x00\x00\x0f\xa1mine"
		}
		if told != c.told || string(got) != want || err != nil {
			t.Errorf("%s: told %v, %q, %v", c.name, told, got, err)
		}
	}
	refused := errors.New("no")
	g := &Gate{Close: func(uint16, string) (uint16, string, error) { return 0, "", refused }}
	g.Open()
	src := bytes.NewReader(append(frame(0x81, 3), frame(0x88, 2)...))
	got, err := io.ReadAll(readerFunc(func(p []byte) (int, error) { return g.Read(src, p) }))
	if !bytes.Equal(got, frame(0x81, 3)) || err != refused {
		t.Errorf("refused: %q, %v", got, err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
