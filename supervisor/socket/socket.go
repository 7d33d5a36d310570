// Package socket moves messages between a WebSocket connection, whose RFC 6455 is a library's business, and
// a stream of a shard.
//
// Duty: pass messages on in parts, within the stream's windows both ways, and tell each side how the other
// one ended. A side that does not read holds up the other one; what is kept is a part each way.
//
// Trust: none in either. The library checks framing and close codes; that text is UTF-8 is checked here,
// because it does not.
package socket

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/schema/gen"

	"github.com/coder/websocket"
)

const (
	// stall is how long the other end may take nothing that was sent.
	stall = 60 * time.Second
	// part is how much of a message is passed on at a time.
	part = 32 << 10
	// patience is how long the answer to a client's close may wait for the worker's own: browsers wait 10 s.
	patience = 8 * time.Second
	// farewell bounds what is waited for to tell the shard of the other end's close.
	farewell = 5 * time.Second
)

// Peer is the shard's side: a stream or a subrequest; see gatewayside.Stream for the contract.
type Peer interface {
	NextMessage(context.Context) (ipc.Message, error)
	SendMessage(context.Context, *ipc.Message) error
}

// Pipe joins a connection and a shard's stream. Run moves messages until both have closed. Make it with New.
type Pipe struct {
	Conn *websocket.Conn
	Peer Peer
	// Gone is called, at most once, when the shard does not take the news that its other end has closed.
	Gone func()

	ctx  context.Context
	shut atomic.Int32 // code with which the host ends it
	why  atomic.Pointer[string]
	// said: nothing of the shard's is still to go out, or nobody waits for it any more.
	said     chan struct{}
	saidOnce sync.Once
	last     struct { // how it is closed from here; readable once said is closed
		code   websocket.StatusCode
		reason string
	}
}

// What ended a connection, besides the outcome of an invocation that ended under it.
const (
	EndPeer     = "peer"     // the other end closed it
	EndWorker   = "worker"   // the worker closed it
	EndGone     = "gone"     // the other end is gone without a close
	EndStalled  = "stalled"  // the other end took nothing for 60 s
	EndBreach   = "breach"   // the other end broke RFC 6455
	EndReplaced = "replaced" // its worker is being replaced or moved
	EndShutdown = "shutdown" // the host, or the invocation that opened it, is going away
)

// end notes what ended the connection: the first word stands.
func (p *Pipe) end(why string) { p.why.CompareAndSwap(nil, &why) }

// Why is what ended the connection, once Run has returned: one of the constants, or an outcome's name.
func (p *Pipe) Why() string {
	if why := p.why.Load(); why != nil {
		return *why
	}
	return EndGone
}

// New is a Pipe to a shard's stream, still without a connection.
func New(peer Peer) Pipe { return Pipe{Peer: peer, said: make(chan struct{})} }

// buffers are what messages are copied through.
var buffers = sync.Pool{New: func() any { b := make([]byte, part); return &b }}

// Run returns when neither side has anything to say any more, and the connection is closed.
func (p *Pipe) Run() {
	var cancel context.CancelFunc
	p.ctx, cancel = context.WithCancel(context.Background())
	defer cancel()
	read := make(chan struct{})
	go func() {
		defer close(read)
		p.in()
	}()
	code, reason := p.copyOut()
	p.letClose(code, reason)
	if err := p.Conn.Close(code, reason); err != nil {
		p.Conn.CloseNow()
	}
	cancel()
	<-read
}

// Closing tells the shard that the other end wants to close, and waits for its own close, which comes after
// everything that it says to the messages before: in vain if the shard is stuck or does not care, so not for
// longer than patience. It is a Gate's Close, and thus called by who reads the connection, not beside
// messages from there. What it returns is how the shard has closed, in most cases the same.
func (p *Pipe) Closing(code uint16, reason string) (uint16, string, error) {
	if !utf8.ValidString(reason) {
		return 0, "", errNotUTF8
	}
	select {
	case <-p.said: // it was closed from here, and this is the answer
		return code, reason, nil
	default:
	}
	p.end(EndPeer)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-p.said:
			cancel() // even what waits for the shard's window
		case <-stop:
		}
	}()
	if p.Peer.SendMessage(ctx, ipc.CloseMessage(code, reason)) == nil {
		<-ctx.Done()
	}
	select {
	case <-p.said:
		if p.last.code == 1005 || ipc.SendableClose(uint16(p.last.code)) {
			return uint16(p.last.code), p.last.reason, nil
		}
	default:
	}
	return code, reason, nil
}

// letClose ends the wait of Closing, or keeps it from beginning.
func (p *Pipe) letClose(code websocket.StatusCode, reason string) {
	p.saidOnce.Do(func() {
		p.last.code, p.last.reason = code, reason
		close(p.said)
	})
}

// close closes the connection from this side, apart: closing waits for who reads it, who may wait in Closing.
func (p *Pipe) close(code websocket.StatusCode, reason string) {
	p.letClose(code, reason)
	go p.Conn.Close(code, reason)
}

// End closes the connection for a reason of the host's; why is one of the constants.
func (p *Pipe) End(why string, code websocket.StatusCode, reason string) {
	if p.shut.CompareAndSwap(0, int32(code)) {
		p.end(why)
		p.close(code, reason)
	}
}

// in reads what the other end says, until it has closed or is gone, and tells the shard of that.
func (p *Pipe) in() {
	code, reason := p.copyIn()
	if c := p.shut.Load(); c != 0 {
		code, reason = uint16(c), ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	if err := p.Peer.SendMessage(ctx, ipc.CloseMessage(code, reason)); err != nil && !errors.Is(err, gatewayside.ErrBodyRefused) && p.Gone != nil {
		p.Gone()
	}
}

// copyOut returns how the connection is to be closed.
func (p *Pipe) copyOut() (websocket.StatusCode, string) {
	var w io.WriteCloser
	for {
		m, err := p.Peer.NextMessage(context.Background())
		var ended *gatewayside.AbortError
		switch {
		case errors.As(err, &ended):
			p.end(ended.Outcome.String())
			return abnormalClose(ended.Outcome), ended.Outcome.String()
		case err != nil:
			p.end(gen.Outcome_internalError.String())
			return websocket.StatusInternalError, gen.Outcome_internalError.String()
		case m.Opcode == ipc.OpClose:
			p.end(EndWorker)
			code, reason := m.CloseStatus()
			if code != 1005 && !ipc.SendableClose(code) {
				code, reason = 1000, ""
			}
			return websocket.StatusCode(code), reason
		}
		if w, err = p.write(w, &m); err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				p.end(EndStalled)
			}
			p.end(EndGone)
			// The reader learns of it as well and tells the worker, whose close comes here.
			p.letClose(websocket.StatusAbnormalClosure, "")
			p.Conn.CloseNow()
			p.drainOut()
			return websocket.StatusAbnormalClosure, ""
		}
	}
}

func (p *Pipe) write(w io.WriteCloser, m *ipc.Message) (io.WriteCloser, error) {
	ctx, cancel := context.WithTimeout(context.Background(), stall)
	defer cancel()
	if w == nil {
		typ := websocket.MessageText
		if m.Opcode == ipc.OpBinary {
			typ = websocket.MessageBinary
		}
		if m.Last {
			return nil, p.Conn.Write(ctx, typ, m.Data)
		}
		var err error
		// Its parts may be long in coming: no deadline for the whole, each write below has one.
		if w, err = p.Conn.Writer(p.ctx, typ); err != nil {
			return nil, err
		}
	}
	stalled := context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			p.end(EndStalled)
			p.Conn.CloseNow()
		}
	})
	defer stalled()
	if _, err := w.Write(m.Data); err != nil || !m.Last {
		return w, err
	}
	return nil, w.Close()
}

// drainOut takes what the worker still says to a client that is gone.
func (p *Pipe) drainOut() {
	for {
		if m, err := p.Peer.NextMessage(context.Background()); err != nil || m.Opcode == ipc.OpClose {
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

// copyIn returns how the client's side ended.
func (p *Pipe) copyIn() (code uint16, reason string) {
	for {
		typ, r, err := p.Conn.Reader(p.ctx)
		if err == nil {
			err = p.message(typ, r)
		}
		switch ce := (websocket.CloseError{}); {
		case err == nil:
		case errors.Is(err, errNotUTF8):
			p.end(EndBreach)
			p.close(websocket.StatusInvalidFramePayloadData, "text that is not UTF-8")
			return uint16(websocket.StatusInvalidFramePayloadData), ""
		case errors.As(err, &ce):
			p.end(EndPeer)
			return uint16(ce.Code), ce.Reason
		case errors.Is(err, gatewayside.ErrBodyRefused):
			// The invocation has ended: how, copyOut is told, and closes accordingly.
			return uint16(websocket.StatusAbnormalClosure), ""
		default:
			if p.ctx.Err() == nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				// The library says most breaches itself, but not, say, of a frame without a mask.
				if errors.As(err, new(*net.OpError)) {
					p.end(EndGone)
				}
				p.end(EndBreach)
				p.close(websocket.StatusProtocolError, "")
			}
			p.end(EndGone)
			return uint16(websocket.StatusAbnormalClosure), ""
		}
	}
}

var errNotUTF8 = errors.New("a text message that is not UTF-8")

// message passes one message on.
func (p *Pipe) message(typ websocket.MessageType, r io.Reader) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	op := ipc.OpBinary
	if typ == websocket.MessageText {
		op = ipc.OpText
	}
	var check utf8Check
	for {
		n, err := io.ReadFull(r, (*buf)[:part])
		last := err == io.EOF || err == io.ErrUnexpectedEOF
		if err != nil && !last {
			return err
		}
		if op == ipc.OpText && !check.feed((*buf)[:n], last) {
			return errNotUTF8
		}
		if err := p.Peer.SendMessage(p.ctx, &ipc.Message{Opcode: op, Last: last, Data: (*buf)[:n]}); err != nil {
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
