package gatewayside

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"bulkhead/ipc"
	"bulkhead/policy/limits"
	"bulkhead/schema/gen"
)

// Errors of a Subrequest. Test with errors.Is.
var (
	// ErrReleased: the invocation wants nothing more of the subrequest, or is over.
	ErrReleased = errors.New("the invocation that asked for it no longer waits")
	// ErrSubrequests: following a redirect would pass the invocation's limit of subrequests.
	ErrSubrequests = errors.New("too many subrequests")
)

// Subrequest is one fetch of an invocation, as its shard asked for it: it was checked against the
// wire's limits and against that very shard's streams, and is still the tenant's word. Respond,
// Write, End and Fail are for one goroutine at a time, Read for another.
type Subrequest struct {
	Method   string
	URL      string // absolute, http or https, neither credentials nor fragment
	Headers  []byte // flat, checked
	BodyMode gen.BodyMode
	Redirect gen.Fetch_Redirect
	// Binding is the number of the tenant's service binding that handles it, checked against how many
	// it has; 0: it goes out; ipc.CacheBinding: its caches; ipc.FunctionBinding: see Function.
	Binding int
	// Call is the RPC method that is asked of the binding; "": a fetch event.
	Call string
	// Function is the number, which means something to the other end alone, of a function among the
	// arguments of Carrier, the call that the asking invocation answers.
	Function uint16
	Carrier  *Subrequest
	// Owner is for whoever performs a subrequest to keep what it needs when the functions in it are called:
	// set before the invocation that serves it is opened.
	Owner any
	// Upgrade: a WebSocket is asked for; see fetchsocket.go.
	Upgrade bool
	// Request is the id of the client's request that led to it.
	Request string
	// Chain is OpenRequest.Chain of the invocation that asks.
	Chain []string

	c      *Conn
	parent *Stream
	id     uint64
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu sync.Mutex

	request    direction     // guarded by mu; the shard's body
	failure    error         // guarded by mu; why it will not come whole
	buf        backlog       // guarded by mu; received, not read
	recvWindow int           // guarded by mu; bytes the shard may still send
	consumed   int           // guarded by mu; read here, not yet granted again
	unwanted   bool          // guarded by mu; nobody reads the body: drop it
	readable   chan struct{} // guarded by mu; made by a reader that waits

	head       bool          // guarded by mu; was sent
	response   direction     // guarded by mu; what was said here
	sendWindow int           // guarded by mu; bytes the shard still takes
	writable   chan struct{} // guarded by mu; made by a writer that waits
	released   bool          // guarded by mu; the shard wants no more frames
	socket     socket        // guarded by mu
}

// Answer is the head of an upstream's response.
type Answer struct {
	Status     int
	StatusText string
	URL        string // that answered
	Redirected bool
	Headers    []byte // flat
	NoBody     bool
}

// Fetches is the number of subrequests that the shard has not let go of.
func (c *Conn) Fetches() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.fetches)
}

// subrequest starts what a fetch frame asks for. Called by the reader; never blocks.
func (c *Conn) subrequest(f gen.Frame) error {
	q, err := ipc.DecodeFetch(f, &c.opt.Wire)
	if err != nil {
		return err
	}
	id, w := f.Stream(), &c.opt.Wire
	c.mu.Lock()
	s, last, open := c.streams[q.Parent], c.lastFetch, len(c.fetches)
	c.lastFetch = max(last, id)
	over := c.streams == nil
	c.mu.Unlock()
	switch {
	case over:
		return ErrClosed
	case id <= last:
		return ipc.Violation(ipc.KindStream, id, "a subrequest's id that does not rise")
	case s == nil:
		// Only the shard's own done frame takes a stream out of the table: no race excuses this.
		return ipc.Violation(ipc.KindStream, id, "a subrequest of stream %d, which is not open", q.Parent)
	case q.Binding == ipc.FunctionBinding && s.serves == nil:
		return ipc.Violation(ipc.KindState, id, "a function's call by stream %d, which was given none", q.Parent)
	case int(q.Binding) > s.t.bindings && q.Binding < ipc.FunctionBinding:
		return ipc.Violation(ipc.KindState, id, "a subrequest of binding %d, of which the tenant has %d", q.Binding, s.t.bindings)
	case open >= w.Fetches:
		return ipc.Violation(ipc.KindState, id, "more than %d subrequests open", w.Fetches)
	}
	r := &Subrequest{
		Method: strings.Clone(q.Method), URL: strings.Clone(q.URL), Headers: append([]byte(nil), q.Headers...),
		BodyMode: q.BodyMode, Redirect: q.Redirect, Request: s.name, Binding: int(q.Binding), Call: strings.Clone(q.Call), Function: q.Function, Upgrade: q.Upgrade, Chain: s.chain,
		c: c, parent: s, id: id, buf: backlog{first: append([]byte(nil), q.Body...)}, recvWindow: w.Window - len(q.Body), sendWindow: w.Window,
	}
	if q.Function != 0 {
		r.Carrier = s.serves
	}
	if q.BodyMode != gen.BodyMode_streamed {
		r.request = bodyClosed
	}
	r.ctx, r.cancel = context.WithCancelCause(context.Background())
	refusal, err := s.adopt(r)
	if err != nil {
		r.cancel(ErrReleased)
		return err
	}
	c.mu.Lock()
	if c.streams == nil {
		c.mu.Unlock()
		r.cancel(ErrReleased)
		return ErrClosed
	}
	c.fetches[id] = r
	c.mu.Unlock()
	if refusal != "" {
		r.Fail(refusal)
		return nil
	}
	c.goRun(func() {
		defer r.Fail("the host gave no answer")
		s.t.fetch(r)
	})
	return nil
}

// adopt counts a subrequest as s's. A refusal is for what an honest shard can ask: it need not know
// that the stream was ended here, or how many redirects were followed.
func (s *Stream) adopt(r *Subrequest) (refusal string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	most := s.t.limits.Subrequests
	if s.asked++; s.asked > most {
		return "", ipc.Violation(ipc.KindState, r.id, "subrequest %d of an invocation that may make %d", s.asked, most)
	}
	if len(s.subs) >= s.c.opt.Wire.StreamFetch {
		return "", ipc.Violation(ipc.KindState, r.id, "more than %d subrequests of one invocation open", s.c.opt.Wire.StreamFetch)
	}
	if s.subs == nil {
		s.subs = map[uint64]*Subrequest{}
	}
	s.subs[r.id] = r
	s.spent++
	switch {
	case s.over:
		r.cancel(ErrReleased)
		return "the request it belongs to is over", nil
	case s.t.fetch == nil:
		return "outbound fetch is not enabled on this host", nil
	case s.spent > most:
		return tooMany(most), nil
	}
	return "", nil
}

func tooMany(limit int) string {
	return fmt.Sprintf("too many subrequests: one request may make %d, redirects included", limit)
}

// disown takes a subrequest that its shard has let go of out of s.
func (s *Stream) disown(id uint64) {
	s.mu.Lock()
	delete(s.subs, id)
	s.mu.Unlock()
}

// orphan ends the subrequests of a stream that is over. Caller holds mu.
func (s *Stream) orphan() {
	for _, r := range s.subs {
		r.cancel(ErrReleased)
	}
}

// releaseAll is what the shard's done frame says of all subrequests of s.
func (c *Conn) releaseAll(s *Stream) {
	s.mu.Lock()
	subs := s.subs
	s.subs = nil
	s.mu.Unlock()
	for id, r := range subs {
		r.release()
		c.mu.Lock()
		delete(c.fetches, id)
		c.mu.Unlock()
	}
}

// Affect notes an effect before it takes place. False: it may not take place, because the stream is
// over, and whoever decides about running the invocation again has read its effects already.
func (s *Stream) Affect(e Effect) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return false
	}
	s.MarkEffect(e)
	return true
}

// receiveFetch judges one frame of a subrequest. Called by the reader; never blocks.
func (c *Conn) receiveFetch(f gen.Frame) error {
	id := f.Stream()
	if f.Which() == gen.Frame_Which_fetch {
		return c.subrequest(f)
	}
	c.mu.Lock()
	r, over := c.fetches[id], c.streams == nil
	c.mu.Unlock()
	if over {
		return ErrClosed
	}
	if r == nil {
		return ipc.Violation(ipc.KindStream, id, "%s frame for a subrequest that is not open", f.Which())
	}
	w := &c.opt.Wire
	switch f.Which() {
	case gen.Frame_Which_chunk:
		p, err := ipc.DecodeChunk(f, w)
		if err != nil {
			return err
		}
		return r.onChunk(p)
	case gen.Frame_Which_end:
		return r.onEnd(bodyClosed, nil)
	case gen.Frame_Which_abort:
		reason, msg, err := ipc.DecodeAbort(f, w)
		if err != nil {
			return err
		}
		switch reason {
		case gen.Abort_Reason_failed:
			return r.onEnd(bodyAborted, fmt.Errorf("the request body failed: %s", msg))
		case gen.Abort_Reason_clientGone:
			c.mu.Lock()
			delete(c.fetches, id)
			c.mu.Unlock()
			r.parent.disown(id)
			r.release()
			return nil
		}
		return ipc.Violation(ipc.KindState, id, "a shard does not abort a subrequest with reason %s", reason)
	case gen.Frame_Which_window:
		return r.onWindow(f.Window(), w)
	case gen.Frame_Which_message_:
		m, err := ipc.DecodeMessage(f, w)
		if err != nil {
			return err
		}
		return r.onMessage(&m)
	}
	return ipc.Violation(ipc.KindType, id, "a %s frame of a subrequest", f.Which())
}

func (r *Subrequest) onChunk(p []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.request != bodyOpen || r.socket.open {
		return ipc.Violation(ipc.KindState, r.id, "chunk without a body under way")
	}
	if len(p) > r.recvWindow {
		return ipc.Violation(ipc.KindWindow, r.id, "chunk of %d bytes, window %d", len(p), r.recvWindow)
	}
	r.recvWindow -= len(p)
	if r.unwanted {
		return nil
	}
	r.buf.add(p)
	notify(r.readable)
	return nil
}

func (r *Subrequest) onEnd(how direction, err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.request != bodyOpen || r.socket.open {
		return ipc.Violation(ipc.KindState, r.id, "end or abort without a body under way")
	}
	r.request, r.failure = how, err
	notify(r.readable)
	return nil
}

func (r *Subrequest) onWindow(n uint32, w *limits.Wire) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	// A shard grants what it has consumed, so the sum never exceeds the first window.
	if n == 0 || int64(r.sendWindow)+int64(n) > int64(w.Window) {
		return ipc.Violation(ipc.KindWindow, r.id, "grant of %d bytes on top of %d", n, r.sendWindow)
	}
	r.sendWindow += int(n)
	notify(r.writable)
	return nil
}

// release: the shard's last word. Nothing is sent to it any more.
func (r *Subrequest) release() {
	r.cancel(ErrReleased)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.released = true
	r.buf.drop()
	r.unwanted = true
	if r.request != bodyClosed { // else it has closed its WebSocket, and this follows from that: its last words are to go out
		r.socket.msgs = nil
	}
	notify(r.readable)
	notify(r.writable)
}
