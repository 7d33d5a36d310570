package ipc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	capnp "capnproto.org/go/capnp/v3"
	"capnproto.org/go/capnp/v3/rpc/transport"
)

// Sizes of the control channel. A shard only ever sends answers and logs; the gateway sends
// whole bundles.
const (
	// ControlBytesFromShard bounds one RPC message read by the gateway.
	ControlBytesFromShard = 1 << 20
	// ControlBytesToShard bounds one RPC message read by the worker: a bundle at its limit, its
	// environment and the encoding around them.
	ControlBytesToShard = 64 << 20

	maxControlSegments  = 64
	controlWriteTimeout = 10 * time.Second
)

// writeDeadliner is an *os.File of the gateway; a worker's socket, read and written by plain
// blocking calls, has no deadlines and needs none: it trusts the gateway to read.
type writeDeadliner interface{ SetWriteDeadline(time.Time) error }

// ControlCodec moves Cap'n Proto RPC messages over a byte stream: at most limit bytes a
// message, at most 64 segments, a traversal limit of twice the size. It exists because the
// default codec takes 64 MiB and 512 segments from anybody.
type ControlCodec struct {
	rwc   io.ReadWriteCloser
	r     *wipedReader
	w     *wipedWriter
	enc   *capnp.Encoder
	limit int
	wait  time.Duration // from a message's first byte to its last; 0: for ever
}

var _ transport.Codec = (*ControlCodec)(nil)

// NewControlCodec makes a codec that refuses messages of more than limit bytes.
func NewControlCodec(rwc io.ReadWriteCloser, limit int) *ControlCodec {
	w := newWipedWriter(rwc)
	return &ControlCodec{rwc: rwc, r: newWipedReader(rwc), w: w, enc: capnp.NewEncoder(w), limit: limit}
}

// readDeadliner is an *os.File of the gateway.
type readDeadliner interface{ SetReadDeadline(time.Time) error }

// WithReadTimeout makes a message that is not whole d after its first byte a violation. The stream
// must have deadlines.
func (c *ControlCodec) WithReadTimeout(d time.Duration) *ControlCodec {
	c.wait = d
	return c
}

// Encode writes one message. Where the stream has deadlines, a peer that does not read for
// 10 s is an error.
func (c *ControlCodec) Encode(m *capnp.Message) error {
	if d, ok := c.rwc.(writeDeadliner); ok {
		if err := d.SetWriteDeadline(time.Now().Add(controlWriteTimeout)); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return fmt.Errorf("control channel: set write deadline: %w", err)
		}
	}
	if err := c.enc.Encode(m); err != nil {
		return fmt.Errorf("control channel: write: %w", err)
	}
	if err := c.w.Flush(); err != nil {
		return fmt.Errorf("control channel: write: %w", err)
	}
	return nil
}

// Decode reads one message. io.EOF means that the peer closed between two messages; a
// *ViolationError that what it sent is not a message this side takes.
func (c *ControlCodec) Decode() (*capnp.Message, error) {
	if err := c.r.await(); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		return nil, fmt.Errorf("control channel: read: %w", err)
	}
	d, timed := c.rwc.(readDeadliner)
	if timed = timed && c.wait > 0; timed {
		if err := d.SetReadDeadline(time.Now().Add(c.wait)); err != nil {
			return nil, fmt.Errorf("control channel: set read deadline: %w", err)
		}
	}
	segments, body, err := c.readMessage()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, Violation(KindControl, 0, "a message was not whole after %v", c.wait)
	case err != nil:
		return nil, err
	case timed:
		if err := d.SetReadDeadline(time.Time{}); err != nil {
			return nil, fmt.Errorf("control channel: clear read deadline: %w", err)
		}
	}
	total := len(body)
	m, _, err := capnp.NewMessage(capnp.MultiSegment(cut(body, segments)))
	if err != nil {
		return nil, Violation(KindControl, 0, "message: %v", err)
	}
	m.TraverseLimit = uint64(2*total + 64<<10)
	m.DepthLimit = 32
	return m, nil
}

// readMessage reads the framing and the segments behind it.
func (c *ControlCodec) readMessage() (segments []int, body []byte, err error) {
	segments, total, err := c.readHeader()
	if err != nil {
		return nil, nil, err
	}
	body = make([]byte, total)
	if _, err := io.ReadFull(c.r, body); err != nil {
		return nil, nil, fmt.Errorf("control channel: read message: %w", noEOF(err))
	}
	return segments, body, nil
}

// readHeader reads the stream framing and returns the size of each segment in bytes.
func (c *ControlCodec) readHeader() (segments []int, total int, err error) {
	var word [4]byte
	if _, err := io.ReadFull(c.r, word[:]); err != nil {
		return nil, 0, fmt.Errorf("control channel: read header: %w", noEOF(err))
	}
	count := int64(binary.LittleEndian.Uint32(word[:])) + 1
	if count > maxControlSegments {
		return nil, 0, Violation(KindControl, 0, "message of %d segments, limit %d", count, maxControlSegments)
	}
	// Sizes follow; an odd number of words in all, so that the segments start on 8 bytes.
	sizes := make([]byte, 4*(count|1))
	if _, err := io.ReadFull(c.r, sizes); err != nil {
		return nil, 0, fmt.Errorf("control channel: read header: %w", noEOF(err))
	}
	segments = make([]int, count)
	for i := range segments {
		n := int64(binary.LittleEndian.Uint32(sizes[4*i:])) * wordBytes
		if int64(total)+n > int64(c.limit) {
			return nil, 0, Violation(KindControl, 0, "message of more than %d bytes", c.limit)
		}
		segments[i] = int(n)
		total += int(n)
	}
	if segments[0] == 0 {
		return nil, 0, Violation(KindControl, 0, "message without a root")
	}
	return segments, total, nil
}

// Close closes the stream underneath.
func (c *ControlCodec) Close() error { return c.rwc.Close() }

// cut slices body into segments of the given sizes.
func cut(body []byte, sizes []int) [][]byte {
	segs := make([][]byte, len(sizes))
	for i, n := range sizes {
		segs[i], body = body[:n:n], body[n:]
	}
	return segs
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
