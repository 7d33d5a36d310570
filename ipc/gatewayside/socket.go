package gatewayside

import (
	"context"
	"io"
	"math"
	"time"

	"bulkhead/ipc"
)

// A stream whose head has status 101 is a WebSocket: messages take the place of both bodies, within the
// same windows. It lives as long as it is open, whatever the limits of time of its tenant; they are for
// each message: one that the shard has not taken to its end within the wall-clock limit ends it.

// socket is a stream's part of that. Guarded by the stream's mu.
type socket struct {
	open    bool // the head had status 101
	counted bool // in Conn.sockets

	msgs    []ipc.Message // received, not taken
	partial uint8         // opcode of the message that the shard is in the middle of; 0: none
	size    int           // of it so far
}

// never is a deadline that does not come.
const never = math.MaxInt64

// onUpgrade takes a head of status 101. Caller holds mu.
func (s *Stream) onUpgrade(head *Head) error {
	if !s.upgrade {
		return ipc.Violation(ipc.KindState, s.id, "status 101 without an upgrade")
	}
	s.head = head
	s.socket.open = true
	if s.over {
		return nil // it crossed the end on the wire; who waited for it knows
	}
	close(s.headReady)
	if s.canceled {
		return nil
	}
	s.deadline.Store(never)
	s.request, s.sendWindow = bodyOpen, s.c.opt.Wire.Window
	s.socket.counted = true
	s.c.mu.Lock()
	s.c.sockets++
	s.c.mu.Unlock()
	return nil
}

// closeSocket takes the stream out of the books.
func (s *Stream) closeSocket() {
	s.mu.Lock()
	counted := s.socket.counted
	s.socket.counted = false
	s.mu.Unlock()
	if counted {
		s.c.mu.Lock()
		s.c.sockets--
		s.c.mu.Unlock()
	}
}

func (s *Stream) onMessage(m *ipc.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, w := &s.socket, &s.c.opt.Wire
	if !k.open || s.response != bodyOpen {
		return ipc.Violation(ipc.KindState, s.id, "message without an open WebSocket")
	}
	cost := ipc.MessageCost(len(m.Data))
	if cost > s.recvWindow {
		return ipc.Violation(ipc.KindWindow, s.id, "message of %d bytes, window %d", len(m.Data), s.recvWindow)
	}
	s.recvWindow -= cost
	if m.Opcode == ipc.OpClose {
		s.endResponse()
	} else if err := k.order(s.id, m, w.Message); err != nil {
		return err
	}
	if s.unwanted {
		return nil
	}
	k.msgs = append(k.msgs, ipc.Message{Opcode: m.Opcode, Last: m.Last, Data: append([]byte(nil), m.Data...)})
	notify(s.readable)
	return nil
}

// order judges a part against those before it. Caller holds the stream's mu.
func (k *socket) order(id uint64, m *ipc.Message, limit int) error {
	if k.partial != 0 && k.partial != m.Opcode {
		return ipc.Violation(ipc.KindState, id, "a message of opcode %d within one of opcode %d", m.Opcode, k.partial)
	}
	if k.size += len(m.Data); k.size > limit {
		return ipc.Violation(ipc.KindSize, id, "a message of more than %d bytes", limit)
	}
	if k.partial = m.Opcode; m.Last {
		k.partial, k.size = 0, 0
	}
	return nil
}

// take returns the oldest part. Caller holds the stream's mu.
func (k *socket) take() ipc.Message {
	m := k.msgs[0]
	k.msgs[0] = ipc.Message{}
	if k.msgs = k.msgs[1:]; len(k.msgs) == 0 {
		k.msgs = nil
	}
	return m
}

// NextMessage waits for a part of a message of the worker's. Errors: io.EOF after its close, *AbortError if
// the invocation ended without one, ctx's.
func (s *Stream) NextMessage(ctx context.Context) (ipc.Message, error) {
	s.mu.Lock()
	for {
		if len(s.socket.msgs) > 0 {
			m := s.socket.take()
			grant := s.consume(ipc.MessageCost(len(m.Data)))
			s.mu.Unlock()
			if grant > 0 {
				s.c.pulse.asked()
				s.c.w.begin().Window(s.id, uint32(grant))
				s.c.w.end()
			}
			return m, nil
		}
		if s.failure != nil || s.response != bodyOpen || s.unwanted {
			err := error(io.EOF)
			if s.failure != nil {
				err = s.failure
			}
			s.mu.Unlock()
			return ipc.Message{}, err
		}
		if s.readable == nil {
			s.readable = make(chan struct{}, 1)
		}
		wait := s.readable
		s.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return ipc.Message{}, ctx.Err()
		}
		s.mu.Lock()
	}
}

// SendMessage gives a part of a client's message to the worker, waiting for its window. ErrBodyRefused when
// it takes no more; otherwise ctx's error.
func (s *Stream) SendMessage(ctx context.Context, m *ipc.Message) error {
	cost := ipc.MessageCost(len(m.Data))
	for {
		if err := s.c.w.room(ctx, s.c.closed); err != nil {
			return err
		}
		s.mu.Lock()
		if s.request != bodyOpen || !s.socket.open {
			s.mu.Unlock()
			return ErrBodyRefused
		}
		if s.sendWindow >= cost {
			if m.Opcode == ipc.OpClose {
				s.request = bodyClosed
			}
			if s.sendWindow == s.c.opt.Wire.Window && !s.canceled {
				s.deadline.Store(time.Now().Add(s.wall + s.c.opt.Grace).UnixNano())
			}
			s.sendWindow -= cost
			s.c.pulse.asked()
			s.c.w.begin().Message(s.id, m)
			s.c.w.end()
			s.mu.Unlock()
			return nil
		}
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
	}
}

// acknowledged: the shard has granted again what it took. Caller holds mu.
func (s *Stream) acknowledged() {
	if !s.socket.open || s.canceled || s.expired || s.request != bodyOpen {
		return
	}
	if s.sendWindow == s.c.opt.Wire.Window {
		s.deadline.Store(never)
	} else {
		s.deadline.Store(time.Now().Add(s.wall + s.c.opt.Grace).UnixNano())
	}
}
