package gateway

import (
	"cmp"
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"bulkhead/policy/limits"
	"bulkhead/supervisor/socket"
)

// guard stands between a client's connection and net/http. It lets bytes through that the strict
// reader accepts, and it gives the answers that net/http would give by itself the same form as
// all others: a request id, an outcome, a JSON body.
type guard struct {
	net.Conn
	server *Server
	strict strictReader
	err    error // sticky; set in Read only

	// handling is true from the moment a request reaches the handler until net/http is done
	// with it. What is written while it is false is one of net/http's own refusals.
	handling atomic.Bool
	// spent: the position in the client's bytes is lost or nobody's business any more. Reads end,
	// so that no leftover of a body is ever read as a request.
	spent atomic.Bool

	raw atomic.Pointer[socket.Gate] // set: what comes is a WebSocket's, not HTTP any more

	begun   atomic.Bool  // a byte has come
	hasty   atomic.Int64 // Unix ns after which a read that fails has lost an unread body; 0: none
	since   atomic.Int64 // Unix ns since which no request is being handled; for the host's choice of whom to cut
	closed  atomic.Bool
	writeBy time.Time // the write deadline in force; owned by the handler
}

// Read implements net.Conn.
func (g *guard) Read(p []byte) (int, error) {
	if gate := g.raw.Load(); gate != nil {
		return gate.Read(g.Conn, p)
	}
	if g.err != nil {
		return 0, g.err
	}
	if g.spent.Load() {
		return 0, io.EOF
	}
	n, err := g.Conn.Read(p)
	if gate := g.raw.Load(); gate != nil { // it has become one meanwhile
		return gate.Pass(p[:n]), err
	}
	if n > 0 {
		if !g.begun.Load() {
			g.begun.Store(true)
			g.Conn.SetReadDeadline(time.Now().Add(g.server.opt.HeadTime))
		}
		ok, m := g.strict.feed(p[:n])
		if m != nil {
			g.err = m
			if ok == 0 {
				return 0, m
			}
			return ok, nil
		}
	}
	if err != nil && g.hasty.Load() != 0 && time.Now().UnixNano() >= g.hasty.Load() {
		g.spent.Store(true)
	}
	return n, err
}

// SetReadDeadline is net/http giving a head its time, which for the first one it counts from the
// moment the connection is there. But clients make connections ahead: one without a byte is like one
// between two requests, and closing it early meets the request that its client was just sending,
// which ends without an answer. So it may be idle as long, and its head has its time from its first
// byte. Whoever holds such connections is the first to be cut when they become too many.
func (g *guard) SetReadDeadline(t time.Time) error {
	if !g.begun.Load() && time.Until(t) > 0 {
		t = time.Now().Add(max(g.server.opt.IdleTime, g.server.opt.HeadTime))
	}
	return g.Conn.SetReadDeadline(t)
}

// hasten makes reads fail after t. Bytes that come later are drained with the connection.
func (g *guard) hasten(t time.Time) {
	g.hasty.Store(t.UnixNano())
	g.SetReadDeadline(t)
}

// Write implements net.Conn.
func (g *guard) Write(p []byte) (int, error) {
	if g.handling.Load() {
		return g.Conn.Write(p)
	}
	// net/http refuses the head: "HTTP/1.1 400 Bad Request..." in one piece.
	m, ok := g.err.(*malformed)
	if !ok {
		m = &malformed{http.StatusBadRequest, "the request is malformed"}
		if len(p) > 12 {
			if status, ok := decimal(p[9:12]); ok && status >= 400 && status < 600 {
				m = &malformed{int(status), http.StatusText(int(status))}
			}
		}
	}
	g.SetWriteDeadline(time.Now().Add(refusalWrite))
	if _, err := g.Conn.Write(g.server.rawRefusal(m)); err != nil {
		return 0, err
	}
	g.spent.Store(true)
	return len(p), nil
}

// refusalWrite is how long a client may take to read a refusal that fits a socket buffer.
const refusalWrite = 5 * time.Second

// CloseWrite lets net/http send a FIN and wait before it closes, so that a client that is still
// sending gets to read the answer.
func (g *guard) CloseWrite() error {
	if c, ok := g.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// Close implements net.Conn. Unread bytes would turn the close into a reset, and a reset can
// overtake the answer, so a spent connection is drained a little first.
func (g *guard) Close() error {
	if !g.closed.CompareAndSwap(false, true) {
		return net.ErrClosed
	}
	if g.spent.Load() {
		if g.CloseWrite() == nil {
			g.Conn.SetReadDeadline(time.Now().Add(lingerTime))
			io.CopyN(io.Discard, g.Conn, lingerBytes)
		}
	}
	g.server.guards.remove(g)
	g.server.conns.Add(-1)
	return g.Conn.Close()
}

// cut ends a connection on which no request is being handled; false if one has begun.
func (g *guard) cut() bool {
	if g.handling.Load() || !g.closed.CompareAndSwap(false, true) {
		return false
	}
	g.server.guards.remove(g)
	g.server.conns.Add(-1)
	g.Conn.Close()
	return true
}

// guardSet knows the open connections. It is locked when one opens or closes, not by requests.
type guardSet struct {
	mu  sync.Mutex
	set map[*guard]struct{} // guarded by mu
}

func (s *guardSet) add(g *guard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set == nil {
		s.set = map[*guard]struct{}{}
	}
	s.set[g] = struct{}{}
}

func (s *guardSet) remove(g *guard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.set, g)
}

// cutIdle ends the connections that have been without a request for longest, one in 32 of them,
// so that the search is paid for by many new ones. It says whether there were any.
func (s *guardSet) cutIdle() bool {
	s.mu.Lock()
	idle := make([]*guard, 0, len(s.set))
	for g := range s.set {
		if !g.handling.Load() {
			idle = append(idle, g)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(idle, func(a, b *guard) int { return cmp.Compare(a.since.Load(), b.since.Load()) })
	found := false
	for _, g := range idle[:(len(idle)+31)/32] {
		found = g.cut() || found
	}
	return found
}

const (
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 1 << 20
)

// deadlineStep keeps the hot path from setting a deadline for each of many requests on one
// connection: one that is in force and late enough, but not by more than this, is left alone.
const deadlineStep = 5 * time.Second

// extendWrite makes writes fail after t, or up to deadlineStep later.
func (g *guard) extendWrite(t time.Time) {
	if !g.writeBy.Before(t) && g.writeBy.Sub(t) <= deadlineStep {
		return
	}
	g.writeBy = t.Add(deadlineStep)
	g.Conn.SetWriteDeadline(g.writeBy)
}

// SetWriteDeadline is net/http resetting the deadline after each request, which would undo what
// extendWrite saves; the next request sets its own.
func (g *guard) SetWriteDeadline(t time.Time) error {
	if t.IsZero() {
		return nil
	}
	g.writeBy = t
	return g.Conn.SetWriteDeadline(t)
}

// guardListener wraps accepted connections.
type guardListener struct {
	net.Listener
	server *Server
}

func (l guardListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		g := &guard{Conn: c, server: l.server, strict: newStrictReader(&l.server.wire)}
		g.since.Store(time.Now().UnixNano())
		// Beyond MaxConns the process would run out of descriptors and fail worse. Connections that
		// do nothing, or are slow to say what they want, go first.
		if l.server.conns.Add(1) > int64(l.server.opt.MaxConns) && !l.server.guards.cutIdle() {
			g.err = &malformed{http.StatusTooManyRequests, "too many connections"}
			g.SetWriteDeadline(time.Now().Add(time.Second))
			c.Write(l.server.rawRefusal(g.err.(*malformed)))
			g.Close()
			continue
		}
		l.server.guards.add(g)
		return g, nil
	}
}

func newStrictReader(w *limits.Wire) strictReader { return strictReader{wire: w, length: -1} }

type guardKey struct{}

// connContext lets the handler find its guard.
func connContext(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, guardKey{}, c)
}

// connState learns from net/http when a request is over.
func connState(c net.Conn, state http.ConnState) {
	if g, ok := c.(*guard); ok && state == http.StateIdle {
		g.hasty.Store(0)
		g.since.Store(time.Now().UnixNano())
		g.handling.Store(false)
	}
}
