package gatewayside

import (
	"context"
	"io"

	"bulkhead/ipc"
	"bulkhead/schema/gen"
)

// Context ends when nobody waits for the subrequest any more: its invocation let go of it or is
// over, or the shard is gone.
func (r *Subrequest) Context() context.Context { return r.ctx }

// Affect notes, before anything is sent to an upstream, that the invocation has an effect.
// ErrReleased: it is too late for one.
func (r *Subrequest) Affect(e Effect) error {
	if !r.parent.Affect(e) {
		return ErrReleased
	}
	return nil
}

// Redirected counts a redirect that is about to be followed. ErrSubrequests: the invocation has no
// more to spend.
func (r *Subrequest) Redirected() error {
	s := r.parent
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spent++; s.spent > s.t.limits.Subrequests {
		return errTooMany(s.t.limits.Subrequests)
	}
	return nil
}

// errTooMany is ErrSubrequests with the limit in its text.
type errTooMany int

func (e errTooMany) Error() string        { return tooMany(int(e)) }
func (e errTooMany) Is(target error) bool { return target == ErrSubrequests }

// Read reads the request's body and grants the shard what was consumed. io.EOF at its end.
func (r *Subrequest) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	r.mu.Lock()
	for {
		if n := r.buf.read(p); n > 0 {
			grant := r.consume(n)
			if grant > 0 {
				r.c.w.begin().Window(r.id, uint32(grant))
				r.c.w.end()
			}
			r.mu.Unlock()
			return n, nil
		}
		err := r.failure
		switch {
		case r.released || r.unwanted:
			// No end of file: an upstream would take what it has for the whole.
			err = ErrReleased
		case err == nil && r.request != bodyOpen:
			err = io.EOF
		}
		if err != nil {
			r.mu.Unlock()
			return 0, err
		}
		if r.readable == nil {
			r.readable = make(chan struct{}, 1)
		}
		wait := r.readable
		r.mu.Unlock()
		select {
		case <-wait:
		case <-r.ctx.Done():
			return 0, ErrReleased
		}
		r.mu.Lock()
	}
}

// consume is Stream.consume. Caller holds mu.
func (r *Subrequest) consume(n int) int {
	if r.request != bodyOpen || r.released {
		return 0
	}
	r.consumed += n
	w := &r.c.opt.Wire
	if r.consumed < w.Window/2 && r.recvWindow >= w.Window/4 {
		return 0
	}
	grant := r.consumed
	r.consumed = 0
	r.recvWindow += grant
	return grant
}

// RefuseBody says that the rest of the request's body is not wanted; the response goes on.
func (r *Subrequest) RefuseBody() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.request != bodyOpen || r.unwanted || r.released {
		return
	}
	r.unwanted = true
	r.buf.drop()
	notify(r.readable)
	if r.response != bodyOpen {
		return // the last word is said, and says as much
	}
	r.c.w.begin().Abort(r.id, gen.Abort_Reason_refused, "")
	r.c.w.end()
}

// Respond sends the response's head. Its headers and texts must be within the wire's limits.
func (r *Subrequest) Respond(a *Answer) error {
	w := &r.c.opt.Wire
	if err := ipc.CheckHeaders(a.Headers, w); err != nil {
		return err
	}
	h := ipc.Head{Status: uint16(a.Status), StatusText: truncate(a.StatusText), URL: a.URL, Redirected: a.Redirected,
		Headers: a.Headers, BodyMode: gen.BodyMode_streamed}
	if a.NoBody {
		h.BodyMode = gen.BodyMode_none
	}
	if err := r.c.w.room(r.ctx, r.c.closed); err != nil {
		return ErrReleased
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.released || r.head || r.response != bodyOpen {
		return ErrReleased
	}
	r.head = true
	if a.NoBody {
		r.response = bodyClosed
	}
	r.c.w.begin().Head(r.id, &h)
	r.c.w.end()
	return nil
}

// Write sends p as response body, waiting for the shard's window. ErrReleased when it takes no more.
func (r *Subrequest) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		if err := r.c.w.room(r.ctx, r.c.closed); err != nil {
			return n, ErrReleased
		}
		r.mu.Lock()
		if r.released || !r.head || r.response != bodyOpen {
			r.mu.Unlock()
			return n, ErrReleased
		}
		if r.sendWindow == 0 {
			if r.writable == nil {
				r.writable = make(chan struct{}, 1)
			}
			wait := r.writable
			r.mu.Unlock()
			select {
			case <-wait:
			case <-r.ctx.Done():
				return n, ErrReleased
			}
			continue
		}
		k := min(len(p), r.sendWindow, r.c.opt.Wire.ChunkBytes)
		r.sendWindow -= k
		r.c.w.begin().Chunk(r.id, p[:k])
		r.c.w.end()
		r.mu.Unlock()
		p, n = p[k:], n+k
	}
	return n, nil
}

// End says that the response's body is complete.
func (r *Subrequest) End() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.released || !r.head || r.response != bodyOpen {
		return
	}
	r.response = bodyClosed
	r.c.w.begin().End(r.id)
	r.c.w.end()
}

// Fail says that there will be no response, or not all of it; message is for the tenant. After the
// last word it does nothing.
func (r *Subrequest) Fail(message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.released || r.response != bodyOpen {
		return
	}
	r.response = bodyAborted
	r.c.w.begin().Abort(r.id, gen.Abort_Reason_failed, truncate(message))
	r.c.w.end()
}
