package runtime

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/adler32"
	"hash/crc32"
	"io"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
)

const (
	// maxInflated is what one operation of decompression gives at most, bytes: the script asks for more
	// when there is room for it.
	maxInflated = 256 << 10
	// maxInflaters is how many decompressions of one isolate may be under way; each holds some 100 KB.
	maxInflaters = 16
)

// deflate compresses a piece: meta is the format, the checksum so far, "1" for the last piece, and the
// length of the dictionary, which is the end of what came before; data is dictionary and piece. The answer's
// meta is the checksum after it. Nothing is kept between pieces: what the next one needs is the tenant's.
func deflate(meta string, data []byte) (string, []byte, error) {
	word := strings.Split(meta, " ")
	if len(word) != 4 {
		return "", nil, errors.New("malformed compression")
	}
	checksum, err1 := strconv.ParseUint(word[1], 10, 32)
	dict, err2 := strconv.ParseUint(word[3], 10, 32)
	if err := errors.Join(err1, err2); err != nil || dict > uint64(len(data)) {
		return "", nil, errors.New("malformed compression")
	}
	piece := data[dict:]
	var out bytes.Buffer
	if err := flate.StatelessDeflate(&out, piece, word[2] == "1", data[:dict]); err != nil {
		return "", nil, err
	}
	sum := uint32(checksum)
	switch word[0] {
	case "gzip":
		sum = crc32.Update(sum, crc32.IEEETable, piece)
	case "deflate":
		sum = updateAdler(sum, piece)
	}
	return strconv.FormatUint(uint64(sum), 10), out.Bytes(), nil
}

// updateAdler goes on from a sum that hash/adler32 once gave.
func updateAdler(sum uint32, p []byte) uint32 {
	h := adler32.New()
	state := binary.BigEndian.AppendUint32([]byte("adl\x01"), sum)
	if err := h.(interface{ UnmarshalBinary([]byte) error }).UnmarshalBinary(state); err != nil {
		panic("BUG: hash/adler32 has another form of its state: " + err.Error())
	}
	h.Write(p)
	return h.Sum32()
}

// inflater is one decompression. Go's decompressors pull their input, so each has a goroutine that
// stands still where it needs more; it runs only while step waits for it, and its CPU is the caller's.
type inflater struct {
	inv uint32
	in  chan input // closed: nobody wants the rest
	out chan piece // one at most is under way
	cpu func() time.Duration

	// The goroutine's, and step's while the goroutine waits.
	buf     []byte // given and not yet read; copied before step returns
	done    []byte // decompressed, not yet given
	ended   bool   // of the input
	stopped bool
	began   time.Duration
	over    bool  // the goroutine has ended
	last    piece // with what
}

type input struct {
	data []byte
	end  bool
}

type pieceState string

const (
	pieceMore pieceState = "more" // there is more to give
	pieceNeed pieceState = "need" // of input
	pieceDone pieceState = "done" // the compressed data is complete
)

type piece struct {
	state pieceState
	data  []byte
	rest  int // bytes of input behind the end
	err   error
	cpu   time.Duration
}

var (
	errTrailing = errors.New("there is data behind the end of the compressed data")
	errInflate  = errors.New("the decompressor failed")
)

func newInflater(inv uint32, format string, cpu func() time.Duration) (*inflater, error) {
	if format != "gzip" && format != "deflate" && format != "deflate-raw" {
		return nil, fmt.Errorf("unknown format %.40q", format)
	}
	f := &inflater{inv: inv, in: make(chan input), out: make(chan piece, 1), cpu: cpu}
	go f.run(format)
	return f, nil
}

// run is the goroutine. Whatever compressed data does to a decompressor ends here.
func (f *inflater) run(format string) {
	f.await()
	err := f.decompress(format)
	f.over = true
	f.give(piece{state: pieceDone, err: err, rest: len(f.buf)})
}

func (f *inflater) decompress(format string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errInflate
		}
	}()
	var r io.Reader
	switch format {
	case "gzip":
		g, err := gzip.NewReader(f)
		if err != nil {
			return err
		}
		g.Multistream(false)
		r = g
	case "deflate":
		if r, err = zlib.NewReader(f); err != nil {
			return err
		}
	default:
		r = flate.NewReader(f)
	}
	buf := make([]byte, 32<<10)
	for !f.stopped {
		n, err := r.Read(buf)
		f.done = append(f.done, buf[:n]...)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if len(f.done) >= maxInflated {
			f.give(piece{state: pieceMore})
			f.await()
		}
	}
	return errInflate
}

// give hands over what is there. The measured part of the goroutine's life ends.
func (f *inflater) give(p piece) {
	p.data, f.done = f.done, nil
	f.buf = bytes.Clone(f.buf)
	if f.cpu != nil {
		p.cpu = f.cpu() - f.began
	}
	runtime.UnlockOSThread()
	f.out <- p
}

// await waits for the next step.
func (f *inflater) await() {
	i, ok := <-f.in
	runtime.LockOSThread() // the CPU clock is the thread's
	if f.cpu != nil {
		f.began = f.cpu()
	}
	f.buf = append(f.buf, i.data...)
	f.ended = f.ended || i.end
	if !ok {
		f.stopped, f.ended, f.buf = true, true, nil
	}
}

// fill makes buf hold something, or says that the input has ended.
func (f *inflater) fill() error {
	for len(f.buf) == 0 {
		if f.ended {
			return io.ErrUnexpectedEOF
		}
		f.give(piece{state: pieceNeed})
		f.await()
	}
	return nil
}

// Read and ReadByte are what the decompressors pull at: with both they read no further than they must.
func (f *inflater) Read(p []byte) (int, error) {
	if err := f.fill(); err != nil {
		return 0, err
	}
	n := copy(p, f.buf)
	f.buf = f.buf[n:]
	return n, nil
}

func (f *inflater) ReadByte() (byte, error) {
	if err := f.fill(); err != nil {
		return 0, err
	}
	b := f.buf[0]
	f.buf = f.buf[1:]
	return b, nil
}

// step runs the goroutine until it has something to say. end: the input is complete.
func (f *inflater) step(data []byte, end bool) piece {
	if f.over {
		p := f.last
		if p.err == nil && len(data) > 0 {
			p.err = errTrailing
		}
		return p
	}
	f.in <- input{data, end}
	p := <-f.out
	if f.over {
		f.last = piece{state: p.state, err: p.err}
	}
	if p.err == nil && p.rest > 0 {
		p.err = errTrailing
	}
	return p
}

// stop ends the goroutine. It waits for input, gets none, and nobody takes what it then says.
func (f *inflater) stop() {
	if !f.over {
		f.over = true
		close(f.in)
	}
}

// inflate is one step of a decompression: meta is its number, its format and what to do. The answer's meta
// is a pieceState.
func (h *Host) inflate(meta string, data []byte) (string, []byte, error) {
	word := strings.Split(meta, " ")
	if len(word) != 3 {
		return "", nil, errors.New("malformed decompression")
	}
	n, err := strconv.ParseUint(word[0], 10, 32)
	if err != nil {
		return "", nil, errors.New("malformed decompression")
	}
	id := uint32(n)
	f := h.inflaters[id]
	if word[2] == "close" {
		if f != nil {
			f.stop()
			delete(h.inflaters, id)
		}
		return string(pieceDone), nil, nil
	}
	if f == nil {
		if len(h.inflaters) >= maxInflaters {
			return "", nil, fmt.Errorf("too many decompressions at once: the limit is %d", maxInflaters)
		}
		if f, err = newInflater(h.Inv, word[1], h.CPU); err != nil {
			return "", nil, err
		}
		if h.inflaters == nil {
			h.inflaters = map[uint32]*inflater{}
		}
		h.inflaters[id] = f
	}
	p := f.step(data, word[2] == "end")
	h.Elsewhere += p.cpu
	if p.err != nil || p.state == pieceDone && word[2] == "end" {
		delete(h.inflaters, id)
		f.stop()
	}
	if p.err != nil {
		return "", nil, p.err
	}
	return string(p.state), p.data, nil
}
