package runtime_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"

	"bulkhead/sandboxworker/runtime"
)

// TestEncodingsUpToDate holds what the worker carries against what x/text says; `make generate` writes it.
func TestEncodingsUpToDate(t *testing.T) {
	var want []byte
	data := tables()
	for _, d := range data {
		want = append(binary.LittleEndian.AppendUint32(want, uint32(len(d))), d...)
	}
	if *update {
		if err := os.WriteFile("encodings.bin", want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	for n, d := range runtime.Data() {
		if d != string(data[n]) {
			t.Errorf("data %d is not what golang.org/x/text has: run `make generate`", n)
		}
	}
}

// singleByte are the encodings of one byte a character, in the order of the script's list.
var singleByte = []*charmap.Charmap{
	charmap.CodePage866, charmap.ISO8859_2, charmap.ISO8859_3, charmap.ISO8859_4, charmap.ISO8859_5, charmap.ISO8859_6,
	charmap.ISO8859_7, charmap.ISO8859_8, charmap.ISO8859_10, charmap.ISO8859_13, charmap.ISO8859_14, charmap.ISO8859_15,
	charmap.ISO8859_16, charmap.KOI8R, charmap.KOI8U, charmap.Macintosh, charmap.Windows874, charmap.Windows1250,
	charmap.Windows1251, charmap.Windows1253, charmap.Windows1254, charmap.Windows1255, charmap.Windows1256,
	charmap.Windows1257, charmap.Windows1258, charmap.MacintoshCyrillic,
}

// tables are the indexes in the order of the data's numbers.
func tables() [][]byte {
	const (
		dataSingleByte = iota
		dataGB18030
		dataGBRanges
		dataBig5
		dataJIS0208
		dataJIS0212
		dataEUCKR
		dataCount
	)
	d := make([][]byte, dataCount)
	for _, m := range singleByte {
		for b := 0x80; b <= 0xff; b++ {
			d[dataSingleByte] = binary.LittleEndian.AppendUint16(d[dataSingleByte], uint16(m.DecodeByte(byte(b))))
		}
	}
	for _, t := range []struct {
		data, width int
		enc         encoding.Encoding
		prefix      []byte
		leads       [][2]byte
		trails      [][2]byte
	}{
		{dataGB18030, 2, simplifiedchinese.GBK, nil, [][2]byte{{0x81, 0xfe}}, [][2]byte{{0x40, 0x7e}, {0x80, 0xfe}}},
		{dataBig5, 4, traditionalchinese.Big5, nil, [][2]byte{{0x81, 0xfe}}, [][2]byte{{0x40, 0x7e}, {0xa1, 0xfe}}},
		{dataJIS0208, 2, japanese.ShiftJIS, nil, [][2]byte{{0x81, 0x9f}, {0xe0, 0xfc}}, [][2]byte{{0x40, 0x7e}, {0x80, 0xfc}}},
		{dataJIS0212, 2, japanese.EUCJP, []byte{0x8f}, [][2]byte{{0xa1, 0xfe}}, [][2]byte{{0xa1, 0xfe}}},
		{dataEUCKR, 2, korean.EUCKR, nil, [][2]byte{{0x81, 0xfe}}, [][2]byte{{0x41, 0xfe}}},
	} {
		var in []byte
		for _, l := range t.leads {
			for lead := int(l[0]); lead <= int(l[1]); lead++ {
				for _, r := range t.trails {
					for trail := int(r[0]); trail <= int(r[1]); trail++ {
						in = append(append(in, t.prefix...), byte(lead), byte(trail), '\n')
					}
				}
			}
		}
		d[t.data] = index(t.enc, in, t.width)
	}
	d[dataGBRanges] = gbRanges()
	return d
}

// index decodes lines of one sequence each. What is no single character is 0.
func index(enc encoding.Encoding, lines []byte, width int) []byte {
	text, err := enc.NewDecoder().Bytes(lines)
	if err != nil {
		panic("BUG: a decoder of x/text failed instead of replacing: " + err.Error())
	}
	out := make([]byte, 0, bytes.Count(lines, []byte{'\n'})*width)
	for line := range bytes.Lines(text) {
		r, n := utf8.DecodeRune(line)
		if n != len(line)-1 || r == utf8.RuneError {
			r = 0
		}
		if width == 4 {
			out = binary.LittleEndian.AppendUint32(out, uint32(r))
		} else {
			out = binary.LittleEndian.AppendUint16(out, uint16(r))
		}
	}
	return out
}

// gbRanges is https://encoding.spec.whatwg.org/#index-gb18030-ranges: where the four-byte sequences
// stop to follow one another.
func gbRanges() []byte {
	const count = 39420 // pointers below the astral planes
	lines := make([]byte, 0, count*5)
	for p := range count {
		lines = append(lines, byte(0x81+p/12600), byte(0x30+p/1260%10), byte(0x81+p/10%126), byte(0x30+p%10), '\n')
	}
	points := index(simplifiedchinese.GB18030, lines, 4)
	var out []byte
	last := uint32(0)
	for p := range uint32(count) {
		r := binary.LittleEndian.Uint32(points[4*p:])
		if p == 0 || r != last+1 {
			out = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(out, p), r)
		}
		last = r
	}
	return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(out, 189000), 0x10000)
}
