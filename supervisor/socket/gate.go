package socket

import (
	"encoding/binary"
	"io"
)

// Gate stands before the library on a connection's bytes and holds a close frame back until what came before
// it has been answered: the library answers a close as soon as it reads it, and what the worker still says
// to the messages before it would be lost. (RFC 6455 §5.5.1 lets an endpoint delay its close for that.)
//
// It follows the framing and judges nothing: what is malformed is the library's to refuse. Not safe for
// concurrent use.
type Gate struct {
	// Quiet waits, not for long, until everything before is answered.
	Quiet func()

	head [14]byte // of the frame that is being read, as far as it came
	n    int
	left uint64 // of its payload
	held []byte // from a close frame on
	open bool   // the close was let through: all is
}

// Read reads from r.
func (g *Gate) Read(r io.Reader, p []byte) (int, error) {
	if len(g.held) == 0 && !g.open {
		n, err := r.Read(p)
		at := g.closeAt(p[:n])
		if at == n {
			return n, err
		}
		g.held = append(g.held, p[at:n]...)
		if at > 0 {
			return at, nil
		}
	}
	if len(g.held) > 0 {
		if !g.open {
			g.open = true
			g.Quiet()
		}
		n := copy(p, g.held)
		if g.held = g.held[n:]; len(g.held) == 0 {
			g.held = nil
		}
		return n, nil
	}
	return r.Read(p)
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
