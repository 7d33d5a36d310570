package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"

	"bulkhead/ipc/gatewayside"
)

// pump copies a request body into a stream while the response is already under way, and keeps what
// it has copied, within bounds, for the case that the stream's shard dies before the response has
// begun and the request is begun again.
type pump struct {
	done    chan struct{}
	bad     error // why the body could not be read; set before done is closed
	drained bool  // the client's body was read to its end; set before done is closed
	cancel  context.CancelFunc
	ctx     context.Context
	limit   uint64        // bytes of the body that may be
	room    *atomic.Int64 // of all pumps: bytes that may still be kept

	// feeding is held while bytes go into the stream, by the pump or by a replay, so that they stay
	// in order. A stream that is over takes none and lets go at once.
	feeding  sync.Mutex
	stream   *gatewayside.Stream // guarded by feeding
	ended    bool                // guarded by feeding: the body is complete
	aborted  bool                // guarded by feeding: it will not be
	unwanted bool                // guarded by feeding: the stream takes no more

	mu   sync.Mutex
	kept []byte // guarded by mu; the body so far
	lost bool   // guarded by mu; not all of it is in kept
}

const (
	// maxDiscard is how much of a body that nobody wants is read, to keep the connection.
	maxDiscard = 256 << 10
	// maxKept is how much of a body is kept for a replay.
	maxKept = 1 << 20
	// maxAllKept bounds what is kept of all bodies together.
	maxAllKept = 256 << 20
)

// feed gives the request's body to a stream: all of it to the first, and to a later one again what
// the one before it has had.
// False: a later one cannot have it.
func (c *call) feed(stream *gatewayside.Stream) bool {
	if c.pump != nil {
		return c.pump.resume(stream)
	}
	http.NewResponseController(c.w).EnableFullDuplex()
	c.g.SetReadDeadline(c.start.Add(c.v.Limits.Wall + c.s.opt.Grace))
	ctx, cancel := context.WithCancel(c.r.Context())
	p := &pump{done: make(chan struct{}), cancel: cancel, ctx: ctx, stream: stream, room: &c.s.keepRoom,
		limit: bodyLimit(c.v.Limits.RequestBody)}
	c.pump = p
	body := c.r.Body
	go func() {
		defer close(p.done)
		buf := copyBuffers.Get().(*[]byte)
		defer copyBuffers.Put(buf)
		p.run(body, *buf)
	}()
	return true
}

func (p *pump) run(body io.Reader, buf []byte) {
	discarded, received := 0, uint64(0)
	for {
		n, err := body.Read(buf)
		if received += uint64(n); received > p.limit && !p.refused() {
			p.exceed(received)
			return
		}
		if n > 0 {
			unwanted, ok := p.send(buf[:n])
			if !ok {
				p.drop()
				return // the client left, or the response is over
			}
			if unwanted {
				if discarded += n; discarded > maxDiscard {
					p.drop()
					return
				}
			}
		}
		if err != nil {
			if err == io.EOF {
				p.drained = true
			} else {
				p.bad = err
			}
			p.end(err == io.EOF)
			return
		}
	}
}

// refused reports whether the stream takes no more of the body: then its size is nobody's concern.
func (p *pump) refused() bool {
	p.feeding.Lock()
	defer p.feeding.Unlock()
	return p.unwanted
}

// exceed ends the invocation of a body that has grown too large.
func (p *pump) exceed(received uint64) {
	p.drop()
	p.feeding.Lock()
	defer p.feeding.Unlock()
	p.bad = uploadOver(p.stream, p.limit, received)
}

// send keeps bytes and gives them to the stream. ok is false if nobody waits for them any more.
func (p *pump) send(b []byte) (unwanted, ok bool) {
	p.feeding.Lock()
	defer p.feeding.Unlock()
	p.keep(b)
	if p.unwanted {
		return true, true
	}
	return p.unwanted, p.write(b)
}

// write gives bytes to the stream, and notes if it wants none. Caller holds feeding.
func (p *pump) write(b []byte) (ok bool) {
	switch err := p.stream.WriteBody(p.ctx, b); {
	case err == nil:
	case p.ctx.Err() != nil:
		return false
	case died(p.stream.Result().Outcome):
		// What is kept goes to the next stream, if there is one.
	case errors.Is(err, gatewayside.ErrBodyRefused):
		p.unwanted = true
	default:
		// The connection to the shard has ended; the stream is about to know why.
		<-p.stream.Done()
		return died(p.stream.Result().Outcome)
	}
	return true
}

// end tells the stream that the body is over.
func (p *pump) end(whole bool) {
	p.feeding.Lock()
	defer p.feeding.Unlock()
	p.ended, p.aborted = whole, !whole
	p.close()
}

// close passes on how the body ended. Caller holds feeding.
func (p *pump) close() {
	switch {
	case p.ended:
		p.stream.CloseBody()
	case p.aborted:
		p.stream.AbortBody("the client sent a malformed or incomplete body")
	}
}

// resume begins anew with another stream: first what the one before has had. False: that is not at
// hand any more, because the body went on meanwhile and grew too large to keep.
func (p *pump) resume(stream *gatewayside.Stream) bool {
	p.feeding.Lock()
	p.mu.Lock()
	kept, lost := p.kept, p.lost
	p.mu.Unlock()
	if lost {
		p.feeding.Unlock()
		return false
	}
	p.stream, p.unwanted = stream, false
	// Its tenant may answer without reading it all: the caller waits for that answer meanwhile.
	go func() {
		defer p.feeding.Unlock()
		if p.write(kept) {
			p.close()
		}
	}()
	return true
}

// keep adds to what a replay would need, within the bounds.
func (p *pump) keep(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lost {
		return
	}
	if len(p.kept)+len(b) > maxKept || p.room.Add(-int64(len(b))) < 0 {
		if len(p.kept)+len(b) <= maxKept {
			p.room.Add(int64(len(b)))
		}
		p.dropLocked()
		return
	}
	p.kept = append(p.kept, b...)
}

// drop says that the body is not whole any more.
func (p *pump) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropLocked()
}

func (p *pump) dropLocked() {
	p.room.Add(int64(len(p.kept)))
	p.kept, p.lost = nil, true
}

// keepNoMore: the response has begun, there will be no replay.
func (p *pump) keepNoMore() { p.drop() }

// whole says whether all of the body so far is at hand.
func (p *pump) whole() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.lost
}
