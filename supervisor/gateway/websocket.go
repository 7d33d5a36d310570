package gateway

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/schema/gen"

	"github.com/coder/websocket"
)

// WebSockets of clients. The library speaks RFC 6455 to the client; messages cross to the shard in parts,
// within the stream's windows both ways, so that a side that does not read holds up the other one and
// nothing is kept but a part each way. An open one is a request in flight of its tenant, and its lease
// holds the worker in place.
//
// How one ends that neither side has closed: 1001 (going away) when the host shuts down; 1012 (service
// restart) when its worker is replaced, moved, or ended by the operator; 1013 (try again later) when it was
// shed; 1011 (internal error), with the outcome as reason, for everything else. A client that
// is gone without a word is code 1006 to the worker.

const (
	// socketStall is how long a client may take nothing that was sent.
	socketStall = 60 * time.Second
	// socketPart is how much of a message is passed on at a time.
	socketPart = 32 << 10
	// socketLook is how often it is looked whether a socket's worker is to go.
	socketLook = time.Second
	// socketFarewell bounds what is waited for to tell the worker of its client's end.
	socketFarewell = 5 * time.Second
)

// wantsSocket says whether a request asks for a WebSocket as RFC 6455 §4.2.1 has it.
func wantsSocket(r *http.Request) bool {
	if r.Method != http.MethodGet || !r.ProtoAtLeast(1, 1) || r.ContentLength != 0 ||
		!named(r.Header["Upgrade"], "websocket") || !named(r.Header["Connection"], "upgrade") ||
		len(r.Header["Sec-Websocket-Version"]) != 1 || r.Header["Sec-Websocket-Version"][0] != "13" || len(r.Header["Sec-Websocket-Key"]) != 1 {
		return false
	}
	key, err := base64.StdEncoding.DecodeString(r.Header["Sec-Websocket-Key"][0])
	return err == nil && len(key) == 16
}

// socket is one open WebSocket.
type socket struct {
	call   call // without what belongs to the request's handler
	conn   *websocket.Conn
	stream *gatewayside.Stream
	ctx    context.Context // ends with the connection
	cancel context.CancelFunc
	read   chan struct{} // closed when nothing of the client's is read any more
	shut   atomic.Int32  // code with which the host ends it
}

// upgrade answers with status 101 and goes on apart from the request's handler.
func (c *call) upgrade(stream *gatewayside.Stream, head *gatewayside.Head) {
	h := c.w.Header()
	setResponseHeaders(h, head.Headers)
	var protocols []string
	if p := h["Sec-Websocket-Protocol"]; len(p) == 1 {
		protocols = p // the library gives it to a client that offered it
	}
	for _, name := range []string{"Sec-Websocket-Protocol", "Sec-Websocket-Accept", "Sec-Websocket-Extensions", "Sec-Websocket-Key", "Content-Type"} {
		delete(h, name)
	}
	h[headerRequestID] = []string{c.id}
	c.stopPump(false)
	c.g.raw.Store(true)
	conn, err := websocket.Accept(c.w, c.r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // whose pages may connect is the worker's to say: it has seen Origin
		Subprotocols:       protocols,
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		stream.Cancel(gen.Abort_Reason_clientGone, "the client closed the connection")
		c.finish(stream, gen.Outcome_canceled)
		c.abandon()
		return
	}
	c.g.Conn.SetDeadline(time.Time{})
	conn.SetReadLimit(int64(c.s.wire.Message))
	k := &socket{call: *c, conn: conn, stream: stream, read: make(chan struct{})}
	k.call.w, k.call.r, k.call.g, k.call.pump, k.call.service = nil, nil, nil, nil, nil
	c.held = false
	k.ctx, k.cancel = context.WithCancel(context.Background())
	c.s.sockets.add(k)
	go k.fromClient()
	c.s.after.Go(k.toClient)
}

// toClient writes what the worker says, until there is nothing more, and sees the socket out.
func (k *socket) toClient() {
	code, reason := k.copyOut()
	if err := k.conn.Close(code, reason); err != nil {
		k.conn.CloseNow()
	}
	k.cancel()
	<-k.read
	k.call.s.sockets.remove(k)
	select {
	case <-k.stream.Done():
	case <-time.After(socketFarewell):
		k.stream.Cancel(gen.Abort_Reason_clientGone, "the WebSocket is closed")
		<-k.stream.Done()
	}
	k.call.conclude(k.stream, gen.Outcome_unknown)
}

// copyOut returns how the connection is to be closed.
func (k *socket) copyOut() (websocket.StatusCode, string) {
	var w io.WriteCloser
	for {
		m, err := k.stream.NextMessage(context.Background())
		var ended *gatewayside.AbortError
		switch {
		case errors.As(err, &ended):
			return abnormalClose(ended.Outcome), ended.Outcome.String()
		case err != nil:
			return websocket.StatusInternalError, gen.Outcome_internalError.String()
		case m.Opcode == ipc.OpClose:
			code, reason := m.CloseStatus()
			if code != 1005 && !ipc.SendableClose(code) {
				code, reason = 1000, ""
			}
			return websocket.StatusCode(code), reason
		}
		if w, err = k.write(w, &m); err != nil {
			// The reader learns of it as well and tells the worker, whose close comes here.
			k.conn.CloseNow()
			k.drainOut()
			return websocket.StatusAbnormalClosure, ""
		}
	}
}

func (k *socket) write(w io.WriteCloser, m *ipc.Message) (io.WriteCloser, error) {
	ctx, cancel := context.WithTimeout(context.Background(), socketStall)
	defer cancel()
	if w == nil {
		typ := websocket.MessageText
		if m.Opcode == ipc.OpBinary {
			typ = websocket.MessageBinary
		}
		if m.Last {
			return nil, k.conn.Write(ctx, typ, m.Data)
		}
		var err error
		// Its parts may be long in coming: no deadline for the whole, each write below has one.
		if w, err = k.conn.Writer(k.ctx, typ); err != nil {
			return nil, err
		}
	}
	stalled := context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			k.conn.CloseNow()
		}
	})
	defer stalled()
	if _, err := w.Write(m.Data); err != nil || !m.Last {
		return w, err
	}
	return nil, w.Close()
}

// drainOut takes what the worker still says to a client that is gone.
func (k *socket) drainOut() {
	for {
		if m, err := k.stream.NextMessage(context.Background()); err != nil || m.Opcode == ipc.OpClose {
			return
		}
	}
}

// abnormalClose is the code for an invocation that ended without a close.
func abnormalClose(o gen.Outcome) websocket.StatusCode {
	switch o {
	case gen.Outcome_killed:
		return websocket.StatusServiceRestart
	case gen.Outcome_loadShed:
		return websocket.StatusTryAgainLater
	}
	return websocket.StatusInternalError
}

// fromClient reads what the client says, until it has closed or is gone, and tells the worker of that.
func (k *socket) fromClient() {
	defer close(k.read)
	code, reason := k.copyIn()
	if c := k.shut.Load(); c != 0 {
		code, reason = uint16(c), ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), socketFarewell)
	defer cancel()
	if err := k.stream.SendMessage(ctx, ipc.CloseMessage(code, reason)); err != nil && !errors.Is(err, gatewayside.ErrBodyRefused) {
		k.stream.Cancel(gen.Abort_Reason_clientGone, "the WebSocket is closed")
	}
}

// copyIn returns how the client's side ended.
func (k *socket) copyIn() (code uint16, reason string) {
	for {
		typ, r, err := k.conn.Reader(k.ctx)
		if err == nil {
			err = k.message(typ, r)
		}
		switch ce := (websocket.CloseError{}); {
		case err == nil:
		case errors.Is(err, errNotUTF8):
			// Not from here: closing waits for the reader to let go.
			go k.conn.Close(websocket.StatusInvalidFramePayloadData, "text that is not UTF-8")
			return uint16(websocket.StatusInvalidFramePayloadData), ""
		case errors.As(err, &ce):
			if !utf8.ValidString(ce.Reason) {
				ce.Reason = ""
			}
			return uint16(ce.Code), ce.Reason
		default:
			return uint16(websocket.StatusAbnormalClosure), ""
		}
	}
}

var errNotUTF8 = errors.New("a text message that is not UTF-8")

// message passes one message on.
func (k *socket) message(typ websocket.MessageType, r io.Reader) error {
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	op := ipc.OpBinary
	if typ == websocket.MessageText {
		op = ipc.OpText
	}
	var check utf8Check
	for {
		n, err := io.ReadFull(r, (*buf)[:socketPart])
		last := err == io.EOF || err == io.ErrUnexpectedEOF
		if err != nil && !last {
			return err
		}
		if op == ipc.OpText && !check.feed((*buf)[:n], last) {
			return errNotUTF8
		}
		if err := k.stream.SendMessage(k.ctx, &ipc.Message{Opcode: op, Last: last, Data: (*buf)[:n]}); err != nil {
			return err
		}
		if last {
			return nil
		}
	}
}

// utf8Check checks text that comes in parts (RFC 6455 §8.1).
type utf8Check struct {
	rest [utf8.UTFMax]byte
	n    int // bytes in rest: the beginning of a character
}

func (c *utf8Check) feed(p []byte, last bool) bool {
	for c.n > 0 && len(p) > 0 {
		if utf8.FullRune(c.rest[:c.n]) {
			break
		}
		c.rest[c.n] = p[0]
		c.n++
		p = p[1:]
	}
	if c.n > 0 {
		r, size := utf8.DecodeRune(c.rest[:c.n])
		switch {
		case !utf8.FullRune(c.rest[:c.n]):
			return !last
		case r == utf8.RuneError && size <= 1, size != c.n:
			return false
		}
		c.n = 0
	}
	end := len(p)
	for i := 1; i < utf8.UTFMax && i <= len(p); i++ {
		if b := p[len(p)-i]; utf8.RuneStart(b) {
			if !utf8.FullRune(p[len(p)-i:]) {
				end = len(p) - i
			}
			break
		}
	}
	if !utf8.Valid(p[:end]) {
		return false
	}
	c.n = copy(c.rest[:], p[end:])
	return c.n == 0 || !last
}

// end closes the socket for a reason of the host's.
func (k *socket) end(code websocket.StatusCode, reason string) {
	if k.shut.CompareAndSwap(0, int32(code)) {
		go k.conn.Close(code, reason)
	}
}

// socketSet knows the open WebSockets, and ends those whose worker is on its way out.
type socketSet struct {
	mu      sync.Mutex
	set     map[*socket]struct{} // guarded by mu
	looking bool                 // guarded by mu; while there are any
}

func (s *socketSet) add(k *socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set == nil {
		s.set = map[*socket]struct{}{}
	}
	s.set[k] = struct{}{}
	if !s.looking {
		s.looking = true
		go s.look()
	}
}

func (s *socketSet) remove(k *socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.set, k)
}

func (s *socketSet) all() []*socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*socket, 0, len(s.set))
	for k := range s.set {
		list = append(list, k)
	}
	return list
}

// look ends sockets of workers that are replaced or to be moved.
func (s *socketSet) look() {
	tick := time.NewTicker(socketLook)
	defer tick.Stop()
	for range tick.C {
		for _, k := range s.all() {
			if k.call.lease.Retired() {
				k.end(websocket.StatusServiceRestart, "the worker is being replaced")
			}
		}
		s.mu.Lock()
		if len(s.set) == 0 {
			s.looking = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
	}
}

// endAll ends all sockets: the host is going away.
func (s *socketSet) endAll() {
	for _, k := range s.all() {
		k.end(websocket.StatusGoingAway, "the host is shutting down")
	}
}

// Sockets is the number of open WebSockets.
func (s *Server) Sockets() int { return len(s.sockets.all()) }

// appendSocketHeader appends what tells a worker that a WebSocket is asked for: the field itself is hop-by-hop.
func appendSocketHeader(b []byte) []byte { return ipc.AppendHeader(b, "upgrade", "websocket") }
