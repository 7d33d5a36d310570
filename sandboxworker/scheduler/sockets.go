package scheduler

import (
	"math"

	"bulkhead/ipc"
	"bulkhead/policy/limits"
	"bulkhead/sandboxworker/engine"
	"bulkhead/schema/gen"
)

// socket is an invocation's WebSocket. A message is an invocation of its own as far as CPU goes: each
// whole one brings a budget. Its wall clock is the gateway's to watch, which sees when it was granted
// again. Between messages there is no limit of time.
type socket struct {
	allowed bool // the client asks for one
	open    bool // the head had status 101
	partial uint8
	size    int
}

// lastPart marks, before a part's bytes, the last one of its message; see js/socket/websocket.js.
const lastPart = 0x80

// message gives the isolate a part of a client's message, its flag before it.
func (x *executor) message(t *tenant, e *event) {
	inv := e.inv
	f, err := x.dec.Frame(e.frame)
	var m ipc.Message
	if err == nil {
		m, err = ipc.DecodeMessage(f, &x.s.opt.Wire)
	}
	if err == nil && !inv.socket.open {
		err = ipc.Violation(ipc.KindState, inv.stream, "message of a stream that is no WebSocket")
	}
	if err != nil {
		x.s.halt(err)
		return
	}
	if t.iso == nil {
		return
	}
	inv.ungranted += ipc.MessageCost(len(m.Data))
	if m.Last {
		inv.cpu, inv.moved = 0, 0
	}
	inv.move(len(m.Data))
	p := flagged(&m)
	x.turnInv(t, inv, func(i *engine.Isolate) engine.Turn { return i.Chunk(t.clock, inv.id, p) })
}

// upgrade sends the head that begins a WebSocket.
func (x *executor) upgrade(t *tenant, inv *invocation, r *engine.Record) {
	if err := ipc.CheckHeaders(r.Headers, &x.s.opt.Wire); err != nil {
		x.refuse(t, inv, "the response cannot be sent: "+err.(*ipc.ViolationError).Detail)
		return
	}
	inv.headSent, inv.socket.open = true, true
	inv.deadline.Store(math.MaxInt64)
	x.s.send(func(b *ipc.Batch) {
		b.Head(inv.stream, &ipc.Head{Status: ipc.StatusUpgrade, Headers: r.Headers, BodyMode: gen.BodyMode_none})
	})
}

// socketRecord is record for an open WebSocket; false: it is like any other invocation's. The runtime's
// word is held against the state, as there.
func (x *executor) socketRecord(t *tenant, inv *invocation, r *engine.Record) bool {
	switch r.Kind {
	case engine.RecordChunk:
	case engine.RecordHead, engine.RecordEnd, engine.RecordAbort, engine.RecordRefuse:
		return true
	default:
		return false
	}
	if inv.ended || inv.unwanted || len(r.Data) == 0 {
		return true
	}
	m, ok := inv.socket.part(r.Data, inv.window, &x.s.opt.Wire)
	if m.Opcode == ipc.OpClose {
		inv.ended = ok
	}
	if !ok {
		x.finish(inv, gen.Outcome_internalError, "a WebSocket message out of order")
		x.tell(t, inv)
		return true
	}
	inv.window -= ipc.MessageCost(len(m.Data))
	inv.move(len(m.Data))
	x.s.send(func(b *ipc.Batch) { b.Message(inv.stream, &m) })
	return true
}

// flagged is a part as the script takes it.
func flagged(m *ipc.Message) []byte {
	flag := m.Opcode
	if m.Last {
		flag |= lastPart
	}
	return append(append(make([]byte, 0, len(m.Data)+1), flag), m.Data...)
}

// part reads what the script says, and tells whether it may be sent now.
func (k *socket) part(data []byte, window int, w *limits.Wire) (m ipc.Message, ok bool) {
	m = ipc.Message{Opcode: data[0] &^ lastPart, Last: data[0]&lastPart != 0, Data: data[1:]}
	ok = m.Check(w) == nil && ipc.MessageCost(len(m.Data)) <= window
	if m.Opcode == ipc.OpClose {
		return m, ok
	}
	k.size += len(m.Data)
	ok = ok && (k.partial == 0 || k.partial == m.Opcode) && k.size <= w.Message
	if k.partial = m.Opcode; m.Last {
		k.partial, k.size = 0, 0
	}
	return m, ok
}

// subMessage is message for a subrequest's WebSocket.
func (x *executor) subMessage(t *tenant, sub *subrequest, e *event) {
	inv := sub.inv
	f, err := x.dec.Frame(e.frame)
	var m ipc.Message
	if err == nil {
		m, err = ipc.DecodeMessage(f, &x.s.opt.Wire)
	}
	if err == nil && !sub.socket.open {
		err = ipc.Violation(ipc.KindState, sub.stream, "message of a subrequest that is no WebSocket")
	}
	if err != nil {
		x.s.halt(err)
		return
	}
	sub.ungranted += ipc.MessageCost(len(m.Data))
	if m.Last {
		inv.cpu, inv.moved = 0, 0
	}
	inv.move(len(m.Data))
	p := flagged(&m)
	x.turnInv(t, inv, func(i *engine.Isolate) engine.Turn { return i.Chunk(t.clock, sub.id, p) })
}

// subSocketRecord is socketRecord for a subrequest. What is out of order ends the subrequest.
func (x *executor) subSocketRecord(sub *subrequest, r *engine.Record) bool {
	switch r.Kind {
	case engine.RecordChunk:
	case engine.RecordEnd:
		return true
	default:
		return false
	}
	if sub.bodyOver || len(r.Data) == 0 {
		return true
	}
	m, ok := sub.socket.part(r.Data, sub.window, &x.s.opt.Wire)
	if !ok {
		x.release(sub)
		return true
	}
	sub.bodyOver = m.Opcode == ipc.OpClose
	sub.window -= ipc.MessageCost(len(m.Data))
	sub.inv.move(len(m.Data))
	x.s.send(func(b *ipc.Batch) { b.Message(sub.stream, &m) })
	return true
}
