package gatewayside

import (
	"context"
	"io"
	"time"

	"bulkhead/schema/gen"
)

// Head waits for the response's head. If the stream ended without one its error is an
// *AbortError and Result has the outcome; otherwise it is ctx's error.
func (s *Stream) Head(ctx context.Context) (*Head, error) {
	select {
	case <-s.headReady:
	default:
		select {
		case <-s.headReady:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.headless {
		return nil, s.failure
	}
	return s.head, nil
}

// Read reads the response's body and grants the shard what was consumed. io.EOF at its end,
// *AbortError if it will not come whole.
func (s *Stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := s.await(); err != nil {
		return 0, err
	}
	n := s.buf.read(p)
	s.grant(s.consume(n))
	return n, nil
}

// Next is Read without a copy: it gives the oldest bytes that are here, and says whether there are more.
// The caller frees the piece.
func (s *Stream) Next() (p Piece, more bool, err error) {
	if err := s.await(); err != nil {
		return Piece{}, false, err
	}
	p = s.buf.take()
	more = !s.buf.empty()
	s.grant(s.consume(len(p.Bytes)))
	return p, more, nil
}

// await returns with mu held when there is something to read, and without it, with Read's error, when
// there will not be.
func (s *Stream) await() error {
	s.mu.Lock()
	for s.buf.empty() {
		if s.failure != nil {
			err := s.failure
			s.mu.Unlock()
			return err
		}
		if s.response == bodyClosed || s.unwanted {
			s.mu.Unlock()
			return io.EOF
		}
		if s.readable == nil {
			s.readable = make(chan struct{}, 1)
		}
		wait := s.readable
		s.mu.Unlock()
		<-wait
		s.mu.Lock()
	}
	return nil
}

// grant lets the shard send n more bytes, unless n is 0. Caller holds mu, which is given up.
func (s *Stream) grant(n int) {
	s.mu.Unlock()
	if n > 0 {
		s.c.pulse.asked()
		s.c.w.begin().Window(s.id, uint32(n))
		s.c.w.end()
	}
}

// consume notes n bytes read and returns what to grant, 0 while it is not worth a frame.
// Caller holds mu.
func (s *Stream) consume(n int) int {
	if s.response != bodyOpen {
		return 0
	}
	s.consumed += n
	if s.consumed < s.c.opt.Wire.Window/2 && s.recvWindow >= s.c.opt.Wire.Window/4 {
		return 0
	}
	grant := s.consumed
	s.consumed = 0
	s.recvWindow += grant
	return grant
}

// WriteBody sends p as request body, waiting for the shard's window. ErrBodyRefused when the
// shard takes no more; otherwise ctx's error.
func (s *Stream) WriteBody(ctx context.Context, p []byte) error {
	for len(p) > 0 {
		if err := s.c.w.room(ctx, s.c.closed); err != nil {
			return err
		}
		s.mu.Lock()
		if s.request != bodyOpen {
			s.mu.Unlock()
			return ErrBodyRefused
		}
		if s.sendWindow == 0 {
			if s.writable == nil {
				s.writable = make(chan struct{}, 1)
			}
			wait := s.writable
			s.mu.Unlock()
			select {
			case <-wait:
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		n := min(len(p), s.sendWindow, s.c.opt.Wire.ChunkBytes)
		s.sendWindow -= n
		// Appended under mu so that nothing overtakes it: an abort must be the last frame.
		s.c.pulse.asked()
		s.c.w.begin().Chunk(s.id, p[:n])
		s.c.w.end()
		s.mu.Unlock()
		p = p[n:]
	}
	return nil
}

// CloseBody says that the request's body is complete.
func (s *Stream) CloseBody() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.request != bodyOpen {
		return ErrBodyRefused
	}
	s.request = bodyClosed
	s.c.w.begin().End(s.id)
	s.c.w.end()
	return nil
}

// AbortBody says that the request's body will not be completed; message is for the tenant.
func (s *Stream) AbortBody(message string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.request != bodyOpen {
		return
	}
	s.request = bodyAborted
	s.c.w.begin().Abort(s.id, gen.Abort_Reason_failed, truncate(message))
	s.c.w.end()
}

// Cancel says that nobody waits for the response any more. With clientGone the invocation is
// to end; with refused only its body is not wanted (a HEAD request) and it goes on. What was
// received is dropped. Done still comes.
func (s *Stream) Cancel(reason gen.Abort_Reason, message string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.canceled || (s.unwanted && reason == gen.Abort_Reason_refused) {
		return
	}
	s.drop()
	notify(s.readable)
	if reason != gen.Abort_Reason_refused {
		s.canceled = true
		s.request = bodyAborted
		notify(s.writable)
		if now := time.Now().Add(s.grace).UnixNano(); now < s.deadline.Load() {
			s.deadline.Store(now)
		}
	}
	s.c.w.begin().Abort(s.id, reason, truncate(message))
	s.c.w.end()
}

// Done is closed when the stream's result is known: the invocation is over, waitUntil
// included, or its deadline passed, or the shard is gone.
func (s *Stream) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done == nil {
		s.done = make(chan struct{})
		if s.over {
			close(s.done)
		}
	}
	return s.done
}

// Result is how the stream ended; the zero Result before Done is closed.
func (s *Stream) Result() Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.result
}

// truncate keeps a message within the 1 KiB that an abort frame may carry.
func truncate(m string) string {
	if len(m) > 1<<10 {
		return m[:1<<10]
	}
	return m
}
