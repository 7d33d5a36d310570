package gatewayside

import (
	"context"
	"io"

	"bulkhead/ipc"
	"bulkhead/schema/gen"
)

// A subrequest that asked for a WebSocket and got one: see socket.go for the messages. It ends with its
// invocation, and has no limit of time of its own.

// Switch sends the head of status 101: messages follow. Its headers must be within the wire's limits.
func (r *Subrequest) Switch(headers []byte, url string) error {
	if err := ipc.CheckHeaders(headers, &r.c.opt.Wire); err != nil {
		return err
	}
	if err := r.c.w.room(r.ctx, r.c.closed); err != nil {
		return ErrReleased
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.released || r.head || r.response != bodyOpen || !r.Upgrade {
		return ErrReleased
	}
	r.head, r.socket.open = true, true
	r.request, r.recvWindow = bodyOpen, r.c.opt.Wire.Window
	r.c.w.begin().Head(r.id, &ipc.Head{Status: ipc.StatusUpgrade, URL: url, Headers: headers, BodyMode: gen.BodyMode_none})
	r.c.w.end()
	return nil
}

func (r *Subrequest) onMessage(m *ipc.Message) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := &r.socket
	if !k.open || r.request != bodyOpen {
		return ipc.Violation(ipc.KindState, r.id, "message without an open WebSocket")
	}
	cost := ipc.MessageCost(len(m.Data))
	if cost > r.recvWindow {
		return ipc.Violation(ipc.KindWindow, r.id, "message of %d bytes, window %d", len(m.Data), r.recvWindow)
	}
	r.recvWindow -= cost
	if m.Opcode == ipc.OpClose {
		r.request = bodyClosed
	} else if err := k.order(r.id, m, r.c.opt.Wire.Message); err != nil {
		return err
	}
	if r.unwanted {
		return nil
	}
	k.msgs = append(k.msgs, ipc.Message{Opcode: m.Opcode, Last: m.Last, Data: append([]byte(nil), m.Data...)})
	notify(r.readable)
	return nil
}

// Closed says whether the worker has closed the WebSocket; NextMessage gives what it said before.
func (r *Subrequest) Closed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.socket.open && r.request == bodyClosed
}

// NextMessage is Stream.NextMessage for what the worker says. ErrReleased when it is over.
func (r *Subrequest) NextMessage(ctx context.Context) (ipc.Message, error) {
	r.mu.Lock()
	for {
		if len(r.socket.msgs) > 0 {
			m := r.socket.take()
			if grant := r.consume(ipc.MessageCost(len(m.Data))); grant > 0 {
				r.c.w.begin().Window(r.id, uint32(grant))
				r.c.w.end()
			}
			r.mu.Unlock()
			return m, nil
		}
		if r.released || r.unwanted || r.request != bodyOpen {
			err := error(io.EOF)
			if r.released || r.unwanted {
				err = ErrReleased
			}
			r.mu.Unlock()
			return ipc.Message{}, err
		}
		if r.readable == nil {
			r.readable = make(chan struct{}, 1)
		}
		wait := r.readable
		r.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return ipc.Message{}, ctx.Err()
		case <-r.ctx.Done():
			return ipc.Message{}, ErrReleased
		}
		r.mu.Lock()
	}
}

// SendMessage is Stream.SendMessage for what the upstream says. ErrReleased when nobody takes it.
func (r *Subrequest) SendMessage(ctx context.Context, m *ipc.Message) error {
	cost := ipc.MessageCost(len(m.Data))
	for {
		if err := r.c.w.room(ctx, r.c.closed); err != nil {
			return err
		}
		r.mu.Lock()
		if r.released || !r.socket.open || r.response != bodyOpen {
			r.mu.Unlock()
			return ErrBodyRefused
		}
		if r.sendWindow >= cost {
			if m.Opcode == ipc.OpClose {
				r.response = bodyClosed
			}
			r.sendWindow -= cost
			r.c.w.begin().Message(r.id, m)
			r.c.w.end()
			r.mu.Unlock()
			return nil
		}
		if r.writable == nil {
			r.writable = make(chan struct{}, 1)
		}
		wait := r.writable
		r.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		case <-r.ctx.Done():
			return ErrReleased
		}
	}
}
