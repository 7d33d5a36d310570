package runtime

import (
	_ "embed"
	"encoding/binary"
)

// Numbers of the process's data (host.data). The script's copies are in js/encoding/legacy.js.
const (
	dataSingleByte = iota // for each encoding of singleByte 128 code points, 2 bytes each
	dataGB18030           // by pointer, 2 bytes
	dataGBRanges          // pairs of first pointer and first code point, 4 bytes each
	dataBig5              // by pointer, 4 bytes
	dataJIS0208           // by pointer, 2 bytes
	dataJIS0212           // by pointer, 2 bytes
	dataEUCKR             // by pointer, 2 bytes
	dataCount
)

// indexes are those of the Encoding Standard (https://encoding.spec.whatwg.org/#indexes) as
// golang.org/x/text has them, written by TestEncodingsUpToDate: each one's length in bytes (4 bytes,
// little-endian), then its bytes. To make them of x/text's decoders takes 7 ms, at the start of every
// worker, and a copy in each; these are pages of the file, and all workers' together.
//
//go:embed encodings.bin
var indexes string

// Data returns what the script asks for by number: the indexes, little-endian, 0 for what is not
// assigned (U+FFFD in the first). The decoders themselves run in the tenant's isolate, on its account.
func Data() []string {
	d := make([]string, dataCount)
	for n, rest := 0, indexes; n < dataCount && rest != ""; n++ { // empty only while it is written for the first time
		size := binary.LittleEndian.Uint32([]byte(rest[:4]))
		d[n], rest = rest[4:4+size], rest[4+size:]
	}
	return d
}
