package scheduler

import (
	"math"

	"bulkhead/ipc"
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
	inv.moved += len(m.Data)
	flag := m.Opcode
	if m.Last {
		flag |= lastPart
	}
	p := append(append(make([]byte, 0, len(m.Data)+1), flag), m.Data...)
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
	m := ipc.Message{Opcode: r.Data[0] &^ lastPart, Last: r.Data[0]&lastPart != 0, Data: r.Data[1:]}
	k, w := &inv.socket, &x.s.opt.Wire
	cost := ipc.MessageCost(len(m.Data))
	ok := m.Check(w) == nil && cost <= inv.window
	if m.Opcode == ipc.OpClose {
		inv.ended = ok
	} else {
		k.size += len(m.Data)
		ok = ok && (k.partial == 0 || k.partial == m.Opcode) && k.size <= w.Message
		if k.partial = m.Opcode; m.Last {
			k.partial, k.size = 0, 0
		}
	}
	if !ok {
		x.finish(inv, gen.Outcome_internalError, "a WebSocket message out of order")
		x.tell(t, inv)
		return true
	}
	inv.window -= cost
	inv.moved += len(m.Data)
	x.s.send(func(b *ipc.Batch) { b.Message(inv.stream, &m) })
	return true
}
