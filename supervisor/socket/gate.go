package socket

import (
	"encoding/binary"
	"io"
	"sync/atomic"

	"bulkhead/ipc"
)

// Gate stands before the library on a connection's bytes and holds a close frame back until the worker has
// heard of it and closed its side: the library answers a close as soon as it reads it, and what the worker
// still says to the messages before it would be lost. (RFC 6455 §5.5.1 lets an endpoint delay its close for
// that.)
//
// It follows the framing. What is malformed it lets through at once: that is the library's to refuse. Not safe
// for concurrent use, but for Open.
type Gate struct {
	// Close is told of a close frame's code (1005: it has none) and reason, once. The frame goes on when it
	// returns, so it has to return in time, with the code and the reason that Close gives: what the library
	// reads it answers. An error takes the frame's place.
	Close func(code uint16, reason string) (uint16, string, error)

	// Unmasked: the frames are a server's, an upstream's.
	Unmasked bool

	head [14]byte // of the frame that is being read, as far as it came
	n    int
	left uint64 // of its payload
	held []byte // from a close frame on
	open bool   // the close was let through: all is
	err  error  // Close's

	ready atomic.Bool // somebody moves messages
}

// Open: from now on reads may wait for the worker. Those before keep a close back for those that come then.
func (g *Gate) Open() { g.ready.Store(true) }

// Pass is Read for bytes that were read already; it returns how many of them are let through. net/http reads a
// byte of its own to learn of a client that leaves, and a WebSocket's first may be the one that it gets.
func (g *Gate) Pass(p []byte) int {
	at := len(p)
	if len(g.held) > 0 {
		at = 0
	} else if !g.open {
		at = g.closeAt(p)
	}
	g.held = append(g.held, p[at:]...)
	return at
}

// Read reads from r.
func (g *Gate) Read(r io.Reader, p []byte) (int, error) {
	if !g.ready.Load() {
		n, err := r.Read(p)
		return g.Pass(p[:n]), err
	}
	if len(g.held) == 0 && !g.open {
		n, err := r.Read(p)
		if at := g.Pass(p[:n]); at == n {
			return n, err
		} else if at > 0 {
			return at, nil
		}
	}
	if !g.open {
		frame, err := g.frame(r)
		g.open = true
		if err == nil {
			if code, reason, ok := g.closeFrame(frame); ok {
				if code, reason, g.err = g.Close(code, reason); g.err == nil {
					g.held = append(g.asFrame(code, reason), g.held[len(frame):]...)
				}
			}
		}
	}
	if g.err != nil {
		return 0, g.err
	}
	if len(g.held) > 0 {
		n := copy(p, g.held)
		if g.held = g.held[n:]; len(g.held) == 0 {
			g.held = nil
		}
		return n, nil
	}
	return r.Read(p)
}

// frame reads on until the close frame at the beginning of what is held is whole. An error of r's, such as that
// it has ended, comes again when all that is held was read.
func (g *Gate) frame(r io.Reader) ([]byte, error) {
	for {
		size := headSize(g.held)
		if len(g.held) >= size {
			n := payload(g.held[:size])
			if n > maxControl {
				return g.held[:size], nil // not for us to wait for; closeFrame will not have it
			}
			if size += int(n); len(g.held) >= size {
				return g.held[:size], nil
			}
		}
		var buf [14 + maxControl]byte
		n, err := r.Read(buf[:size-len(g.held)])
		g.held = append(g.held, buf[:n]...)
		if err != nil && n == 0 {
			return nil, err
		}
	}
}

// maxControl is the longest payload of a control frame (RFC 6455 §5.5), in bytes.
const maxControl = 125

// closeFrame reads a close frame; false: it breaks a rule (RFC 6455 §5.5.1, §7.4).
func (g *Gate) closeFrame(b []byte) (code uint16, reason string, ok bool) {
	const fin, masked = 0x80, 0x80
	size := headSize(b)
	if len(b) < size || b[0] != fin|8 || (b[1]&masked == 0) != g.Unmasked || b[1]&0x7f > maxControl || len(b) != size+int(b[1]&0x7f) {
		return 0, "", false
	}
	p := make([]byte, len(b)-size)
	copy(p, b[size:])
	for i := range p {
		if !g.Unmasked {
			p[i] ^= b[size-4+i%4]
		}
	}
	switch len(p) {
	case 0:
		return 1005, "", true
	case 1:
		return 0, "", false
	}
	code = binary.BigEndian.Uint16(p)
	return code, string(p[2:]), ipc.SendableClose(code)
}

// asFrame is the frame that closeFrame reads, behind a mask of zeros if behind any.
func (g *Gate) asFrame(code uint16, reason string) []byte {
	var p []byte
	if code != 1005 {
		p = ipc.CloseMessage(code, reason).Data
	}
	if g.Unmasked {
		return append([]byte{0x88, byte(len(p))}, p...)
	}
	return append([]byte{0x88, 0x80 | byte(len(p)), 0, 0, 0, 0}, p...)
}

// closeAt is where in p a close frame begins, len(p) if none does.
func (g *Gate) closeAt(p []byte) int {
	for i := 0; i < len(p); {
		if g.left > 0 {
			k := min(g.left, uint64(len(p)-i))
			g.left -= k
			i += int(k)
			continue
		}
		if g.n == 0 && p[i]&15 == 8 {
			return i
		}
		g.head[g.n] = p[i]
		g.n++
		i++
		if size := headSize(g.head[:g.n]); g.n == size {
			g.left = payload(g.head[:size])
			g.n = 0
		}
	}
	return len(p)
}

// headSize is how long a frame's head is, as far as is known yet (RFC 6455 §5.2).
func headSize(h []byte) int {
	if len(h) < 2 {
		return 2
	}
	n := 2
	switch h[1] & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if h[1]&0x80 != 0 {
		n += 4
	}
	return n
}

func payload(h []byte) uint64 {
	switch n := h[1] & 0x7f; n {
	case 126:
		return uint64(binary.BigEndian.Uint16(h[2:]))
	case 127:
		return binary.BigEndian.Uint64(h[2:])
	default:
		return uint64(n)
	}
}
