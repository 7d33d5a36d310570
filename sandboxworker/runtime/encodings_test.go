package runtime_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"

	"bulkhead/sandboxworker/runtime"
)

func TestLegacyEncodings(t *testing.T) {
	for _, c := range []struct{ name, body string }{
		{"gb18030", `
			const d = (b, l = "gb18030", o) => new TextDecoder(l, o).decode(new Uint8Array(b)); eq(d([0xc4, 0xe3, 0xba, 0xc3, 65]), "\u4f60\u597dA", "two bytes"); eq(d([0x81, 0x30, 0x81, 0x30]), "\x80", "four bytes"); eq(d([0x90, 0x30, 0x81, 0x30]), "\u{10000}", "astral"); eq(d([0x81, 0x35, 0xf4, 0x37]), "\ue7c7", "7457"); eq(d([0xe3, 0x32, 0x9a, 0x35]), "\u{10ffff}", "last"); eq(d([0xe3, 0x32, 0x9a, 0x36]), "\ufffd", "beyond"); eq(d([0x80]), "\u20ac", "euro"); eq(d([0xff]), "\ufffd", "ff");
			eq(d([0x81, 0x30, 0x81, 0x41]), "\ufffd0\u4e04", "put back"); eq(d([0x81, 0x30, 0x41]), "\ufffd0A", "second put back"); eq(d([0x81, 0x7f]), "\ufffd\x7f", "ASCII put back"); eq(d([0x81]), "\ufffd", "end"); eq(d([0x81, 0x30, 0x81]), "\ufffd", "end in four"); throws(() => d([0x81, 0x7f], "gbk", { fatal: true }), TypeError, "fatal"); eq(new TextDecoder("GB2312").encoding, "gbk", "label");`},
		{"big5", `
			const d = (b) => new TextDecoder("big5").decode(new Uint8Array(b)); eq(d([0xa4, 0xa4, 0xa4, 0xe5]), "\u4e2d\u6587", "words"); eq(d([0x88, 0x62, 0x88, 0x64, 0x88, 0xa3, 0x88, 0xa5]), "\u00ca\u0304\u00ca\u030c\u00ea\u0304\u00ea\u030c", "pairs"); eq(d([0x87, 0x45]), "\u{27267}", "plane 2"); eq(d([0xa4, 0x20]), "\ufffd ", "put back"); eq(d([0x80]), "\ufffd", "80");`},
		{"japanese", `
			const d = (l, b, o) => new TextDecoder(l, o).decode(new Uint8Array(b)); eq(d("sjis", [0x93, 0xfa, 0x96, 0x7b, 0xb1, 0x5c, 0x80]), "\u65e5\u672c\uff71\\\x80", "shift_jis"); eq(d("shift_jis", [0xf0, 0x40, 0xfc, 0x4b]), "\ue000\u9ed1", "private use and extensions"); eq(d("shift_jis", [0x81, 0x20, 0xa0]), "\ufffd \ufffd", "errors");
			eq(d("euc-jp", [0xc6, 0xfc, 0xcb, 0xdc, 0x8e, 0xb1, 0x8f, 0xb0, 0xa1]), "\u65e5\u672c\uff71\u4e02", "euc-jp"); eq(d("euc-jp", [0x8f, 0xb0, 0x41, 0x8e]), "\ufffdA\ufffd", "errors"); eq(d("iso-2022-jp", [0x1b, 0x24, 0x42, 0x46, 0x7c, 0x4b, 0x5c, 0x1b, 0x28, 0x42, 0x41]), "\u65e5\u672cA", "iso-2022-jp"); eq(d("iso-2022-jp", [0x1b, 0x28, 0x4a, 0x5c, 0x7e, 0x1b, 0x28, 0x49, 0x31]), "\u00a5\u203e\uff71", "roman and katakana");
			eq(d("iso-2022-jp", [0x1b, 0x24, 0x41]), "\ufffd$A", "bad escape"); eq(d("iso-2022-jp", [0x1b, 0x28, 0x42, 0x1b, 0x28, 0x42]), "\ufffd", "escapes without output"); eq(d("iso-2022-jp", [0x1b, 0x24]), "\ufffd$", "cut escape"); eq(d("iso-2022-jp", [0x0e, 0x80]), "\ufffd\ufffd", "no shifts");`},
		{"korean and the odd ones", `
			const d = (l, b, o) => new TextDecoder(l, o).decode(new Uint8Array(b)); eq(d("ks_c_5601-1987", [0xc7, 0xd1, 0xb1, 0xdb, 0x81, 0x41]), "\ud55c\uae00\uac02", "euc-kr"); eq(d("euc-kr", [0xc7, 0x20]), "\ufffd ", "put back"); eq(d("x-user-defined", [65, 0x80, 0xff]), "A\uf780\uf7ff", "user defined"); throws(() => new TextDecoder("iso-2022-kr"), RangeError, "replacement"); throws(() => new TextDecoder("utf-7"), RangeError, "unknown");
			eq(d("koi8-r", [0xcd, 0xc9, 0xd2]), "\u043c\u0438\u0440", "koi8"); eq(d("windows-1253", [0xd2]), "\ufffd", "hole"); throws(() => d("windows-1253", [0xd2], { fatal: true }), TypeError, "fatal hole"); eq(new TextDecoder("iso-8859-8-i").encoding, "iso-8859-8-i", "logical"); eq(d("logical", [0xe0]), "\u05d0", "hebrew"); eq(d("iso-8859-9", [0xdd]), "\u0130", "latin5 is 1254"); eq(new TextDecoder("x-mac-ukrainian").encoding, "x-mac-cyrillic", "mac");`},
		{"streams", `
			const bytes = [0x81, 0x30, 0x81, 0x41, 0xc4, 0xe3, 0x90, 0x30, 0x81, 0x30, 0x81]; const whole = new TextDecoder("gb18030").decode(new Uint8Array(bytes)); const s = new TextDecoder("gb18030"); let out = ""; for (const b of bytes) out += s.decode(new Uint8Array([b]), { stream: true }); out += s.decode(); eq(out, whole, "byte by byte"); eq(s.decode(new Uint8Array([65])), "A", "again");
			const r = new ReadableStream({ start(c) { c.enqueue(new Uint8Array([0x93])); c.enqueue(new Uint8Array([0xfa, 65])); c.close(); } }).pipeThrough(new TextDecoderStream("shift_jis")); let t = ""; for await (const v of r) t += v; eq(t, "\u65e5A", "TextDecoderStream"); const f = new TextDecoder("euc-kr", { fatal: true }); f.decode(new Uint8Array([0xc7]), { stream: true }); throws(() => f.decode(), TypeError, "fatal end"); eq(f.decode(new Uint8Array([0xc7, 0xd1])), "\ud55c", "after an error"); eq(new TextDecoder("big5").decode(new Uint8Array([0xef, 0xbb, 0xbf])).length > 0, true, "no BOM");`},
	} {
		t.Run(c.name, func(t *testing.T) { script(t, c.body) })
	}
}

var labelList = regexp.MustCompile(`"([a-z0-9_.:\- ]+)"`)

// Every label is x/text's name of the same encoding (both follow the Encoding Standard), and all 228 are there.
func TestEncodingLabels(t *testing.T) {
	src, err := os.ReadFile("js/encoding/legacy.js")
	if err != nil {
		t.Fatal(err)
	}
	list := string(src)[strings.Index(string(src), "legacyNames = ["):]
	list = list[:strings.Index(list, "];")]
	want := map[string]string{}
	for _, m := range labelList.FindAllStringSubmatch(list, -1) {
		words := strings.Fields(m[1])
		for _, label := range words[1:] {
			want[label] = words[0]
			enc, err := htmlindex.Get(label)
			if err != nil {
				t.Errorf("x/text knows no label %q: %v", label, err)
				continue
			}
			if name, err := htmlindex.Name(enc); err != nil || name != words[0] {
				// x/text has one encoding for two names here.
				if !(name == "iso-8859-8" && words[0] == "iso-8859-8-i") {
					t.Errorf("label %q is %q, x/text says %q (%v)", label, words[0], name, err)
				}
			}
		}
	}
	const inText = 6 + 7 + 2 + 17 // of utf-8, utf-16le, utf-16be, windows-1252 in text.js
	if n := len(want) + inText; n != 228 {
		t.Errorf("%d labels, the standard has 228", n)
	}
	all, _ := json.Marshal(want)
	script(t, fmt.Sprintf(`const want = %s; for (const l in want) { if (want[l] === "replacement") throws(() => new TextDecoder(l), RangeError, l); else { eq(new TextDecoder("\t" + l.toUpperCase() + " ").encoding, want[l], l); } }`, all))
}

// Valid text of each encoding comes out as x/text has it.
func TestEncodingsAgainstText(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, name := range []string{"ibm866", "iso-8859-2", "iso-8859-7", "iso-8859-16", "koi8-u", "macintosh", "windows-874", "windows-1251", "windows-1258", "x-mac-cyrillic", "gbk", "gb18030", "big5", "euc-jp", "shift_jis", "euc-kr"} {
		enc, err := htmlindex.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		var bytes []byte
		for text.Len() < 6000 {
			r := rune(0x20 + rng.IntN(0xffe0))
			if rng.IntN(3) == 0 {
				r = rune(0x20 + rng.IntN(0x500))
			}
			b, err := encoding.ReplaceUnsupported(enc.NewEncoder()).Bytes([]byte(string(r)))
			if err != nil || len(b) == 0 || r >= 0xd800 && r < 0xf900 {
				continue
			}
			back, err := enc.NewDecoder().Bytes(b)
			if err != nil || string(back) != string(r) {
				continue // it has none of this character
			}
			text.WriteRune(r)
			bytes = append(bytes, b...)
		}
		list, _ := json.Marshal(text.String())
		script(t, fmt.Sprintf("const hex = %q, u8 = new Uint8Array(hex.length / 2); for (let i = 0; i < u8.length; i++) u8[i] = parseInt(hex.slice(2 * i, 2 * i + 2), 16); const got = new TextDecoder(%q, { fatal: true }).decode(u8), want = %s; if (got !== want) { let i = 0; while (got[i] === want[i]) i++; fail(%q + ' differs at ' + i + ': ' + got.charCodeAt(i).toString(16) + ' ' + want.charCodeAt(i).toString(16)); }",
			fmt.Sprintf("%x", bytes), name, list, name))
	}
}

// What the process keeps for all isolates stays small, and complete. Of ranges the standard has 207: two
// more stand around U+E7C7, for which it has a step of its own.
func TestData(t *testing.T) {
	sizes := []int{26 * 256, 126 * 190 * 2, (207 + 2) * 8, 126 * 157 * 4, 60 * 188 * 2, 94 * 94 * 2, 126 * 190 * 2}
	for n, b := range runtime.Data() {
		if len(b) != sizes[n] {
			t.Errorf("data %d has %d bytes, want %d", n, len(b), sizes[n])
		}
	}
}
