package ipc

import (
	"encoding/binary"

	"bulkhead/policy/limits"
	"bulkhead/schema/gen"

	capnp "capnproto.org/go/capnp/v3"
)

const (
	wordBytes   = 8
	headerBytes = 8 // stream framing of a single-segment message

	// depthLimit suffices for the deepest field (frame → open → data) with room to grow.
	depthLimit = 8
	// traversalFactor allows each field of a frame to be looked at a few times.
	traversalFactor = 4
)

// Scanner splits a byte stream into frames. Not safe for concurrent use.
//
// The caller reads into Free(), reports the count with Fill, then calls Next until it says
// there is no whole frame left. What was taken is wiped then: no tenant's bytes stay in the buffer.
type Scanner struct {
	buf   []byte
	r, w  int // unread bytes are buf[r:w]
	wiped int // bytes before are zero
	max   int // largest frame, framing included
	msg   capnp.Message
	arena *capnp.ReadOnlySingleSegment
	raw   []byte
}

// NewScanner makes a scanner whose buffer holds a largest frame and as much again of small
// ones, so that one read(2) takes a whole batch.
func NewScanner(w *limits.Wire) *Scanner {
	s := &Scanner{
		buf:   make([]byte, 2*w.FrameBytes),
		max:   w.FrameBytes,
		arena: capnp.NewReadOnlySingleSegment(nil),
	}
	s.msg.TraverseLimit = uint64(traversalFactor * w.FrameBytes)
	s.msg.DepthLimit = depthLimit
	return s
}

// Free returns the space to read into; it is never empty. It moves what is unread to the
// front when room is short, which invalidates earlier results of Next.
func (s *Scanner) Free() []byte {
	if s.r == s.w {
		s.wipe()
		s.r, s.w, s.wiped = 0, 0, 0
	} else if len(s.buf)-s.w < len(s.buf)/4 || len(s.buf)-s.r < s.max {
		s.wipe()
		n := copy(s.buf, s.buf[s.r:s.w])
		clear(s.buf[max(n, s.r):s.w])
		s.r, s.w, s.wiped = 0, n, 0
	}
	return s.buf[s.w:]
}

func (s *Scanner) wipe() {
	clear(s.buf[s.wiped:s.r])
	s.wiped = s.r
}

// Fill says that n bytes were read into Free().
func (s *Scanner) Fill(n int) { s.w += n }

// Buffered is the number of bytes not yet taken: more than zero at the end of the stream
// means that the peer stopped in the middle of a frame.
func (s *Scanner) Buffered() int { return s.w - s.r }

// Raw returns the bytes of the frame that the last Next returned, framing included.
func (s *Scanner) Raw() []byte { return s.raw }

// Next returns the next whole frame, or false when more bytes are needed. Its error is a
// *ViolationError. The frame is valid until the next call of Next or Free.
func (s *Scanner) Next() (gen.Frame, bool, error) {
	n, err := frameSize(s.buf[s.r:s.w], s.max)
	if err != nil || n == 0 {
		s.wipe()
		return gen.Frame{}, false, err
	}
	raw := s.buf[s.r : s.r+n : s.r+n]
	s.r += n
	s.raw = raw
	f, err := s.decode(raw)
	return f, err == nil, err
}

// decode reads one whole frame through the scanner's reused message.
func (s *Scanner) decode(raw []byte) (gen.Frame, error) {
	// Detach first: Reset releases the arena it replaces, and this one is used again.
	if _, err := s.msg.Reset(nil); err != nil {
		return gen.Frame{}, Violation(KindEncoding, 0, "cannot reset the message")
	}
	s.arena.Release()
	s.arena.ReplaceData(raw[headerBytes:])
	if _, err := s.msg.Reset(s.arena); err != nil {
		return gen.Frame{}, Violation(KindEncoding, 0, "no segment")
	}
	root, err := s.msg.Root()
	if err != nil {
		return gen.Frame{}, Violation(KindEncoding, 0, "root pointer: %v", err)
	}
	f := gen.Frame(root.Struct())
	if !f.IsValid() {
		return gen.Frame{}, Violation(KindEncoding, 0, "the root is not a struct")
	}
	return f, nil
}

// frameSize returns the size of the first frame in b, framing included, or 0 if b does not
// hold all of it yet.
func frameSize(b []byte, max int) (int, error) {
	if len(b) < headerBytes {
		return 0, nil
	}
	if segs := binary.LittleEndian.Uint32(b); segs != 0 {
		return 0, Violation(KindFraming, 0, "%d segments announced, frames have one", uint64(segs)+1)
	}
	words := int64(binary.LittleEndian.Uint32(b[4:]))
	if words == 0 {
		return 0, Violation(KindFraming, 0, "empty segment")
	}
	n := words*wordBytes + headerBytes
	if n > int64(max) {
		return 0, Violation(KindFraming, 0, "frame of %d bytes, limit %d", n, max)
	}
	if int64(len(b)) < n {
		return 0, nil
	}
	return int(n), nil
}

// Decoder decodes single frames that were copied out of a Scanner. Not safe for concurrent use.
type Decoder struct{ s Scanner }

// NewDecoder makes a decoder with the limits of w.
func NewDecoder(w *limits.Wire) *Decoder {
	d := &Decoder{s: Scanner{max: w.FrameBytes, arena: capnp.NewReadOnlySingleSegment(nil)}}
	d.s.msg.TraverseLimit = uint64(traversalFactor * w.FrameBytes)
	d.s.msg.DepthLimit = depthLimit
	return d
}

// Frame decodes raw, which must be exactly one frame. The result is valid until the next call
// and as long as raw is.
func (d *Decoder) Frame(raw []byte) (gen.Frame, error) {
	n, err := frameSize(raw, d.s.max)
	if err != nil {
		return gen.Frame{}, err
	}
	if n == 0 || n != len(raw) {
		return gen.Frame{}, Violation(KindFraming, 0, "%d bytes are not one frame", len(raw))
	}
	return d.s.decode(raw)
}
