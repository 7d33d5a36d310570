package gatewayside

import (
	"errors"
	"io"
	"sync"

	"bulkhead/ipc"
	"bulkhead/schema/gen"

	"capnproto.org/go/capnp/v3/rpc/transport"
	rpccp "capnproto.org/go/capnp/v3/std/capnp/rpc"
)

// Bounds on the calls of a shard that the gateway has not answered yet: each holds its message in
// memory. An honest shard has one under way, of at most 256 KiB. Of those that are answered only the
// empty answer is left; its library lets go of them (Finish) from goroutines of their own, which a
// busy machine may be slow to run.
const (
	maxShardCalls      = 256
	maxShardCallBytes  = 8 << 20
	maxUnfinishedCalls = 4096
)

// logMethod is TenantHost.log, the only thing a shard may call.
const logMethod = 0

// guard stands between a shard and the RPC library and lets through only what an honest shard
// says: answers to questions that were asked, once; calls of TenantHost.log on capabilities it
// was given; finish and release of what it holds. It exists because the library implements the
// whole of Cap'n Proto RPC for peers that are merely remote, and panics or grows without bound
// on some of what a hostile one can send (a level-3 message, calls that are never finished,
// pipelining on a capability that is none).
type guard struct {
	t    transport.Transport
	fail func(error) // called at most once per refused message

	mu        sync.Mutex
	questions map[uint32]question // guarded by mu; asked by the gateway
	exports   map[uint32]uint32   // guarded by mu; capabilities given to the shard, references
	calls     map[uint32]call     // guarded by mu; asked by the shard
	callBytes uint64              // guarded by mu; of the calls that are not answered
	answered  int                 // guarded by mu; of calls, not finished by the shard
}

// question is one of ours. Its number is free again when both are true.
type question struct{ bootstrap, returned, finished bool }

// call is one of the shard's. Its number is free again when both are true.
type call struct {
	returned, finished bool
	size               uint64 // bytes of its message
}

func newGuard(t transport.Transport, fail func(error)) *guard {
	return &guard{t: t, fail: fail, questions: map[uint32]question{}, exports: map[uint32]uint32{}, calls: map[uint32]call{}}
}

// NewMessage implements transport.Transport.
func (g *guard) NewMessage() (transport.OutgoingMessage, error) {
	m, err := g.t.NewMessage()
	if err != nil {
		return nil, err
	}
	return &guardedMessage{OutgoingMessage: m, g: g}, nil
}

// Close implements transport.Transport.
func (g *guard) Close() error { return g.t.Close() }

// RecvMessage implements transport.Transport.
func (g *guard) RecvMessage() (transport.IncomingMessage, error) {
	m, err := g.t.RecvMessage()
	if err == nil {
		if err = g.admit(m.Message()); err == nil {
			return m, nil
		}
		m.Release()
	}
	var v *ipc.ViolationError
	if !errors.As(err, &v) && !errors.Is(err, io.EOF) && !isIO(err) {
		v = ipc.Violation(ipc.KindControl, 0, "%v", err)
		err = v
	}
	if v != nil {
		g.fail(err)
	}
	return nil, err
}

// isIO reports whether err is the socket's, not the message's.
func isIO(err error) bool {
	var pe interface{ Timeout() bool }
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) || errors.As(err, &pe)
}

func refuse(format string, args ...any) error {
	return ipc.Violation(ipc.KindControl, 0, format, args...)
}

// whole refuses a null pointer where the library expects a struct: it looks into it unasked.
func whole[S interface{ IsValid() bool }](s S, err error) error {
	if err == nil && !s.IsValid() {
		return refuse("an RPC message lacks its %T", s)
	}
	return err
}

// admit judges one message from the shard.
func (g *guard) admit(m rpccp.Message) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch m.Which() {
	case rpccp.Message_Which_return:
		r, err := m.Return()
		if err := whole(r, err); err != nil {
			return err
		}
		return g.admitReturn(r)
	case rpccp.Message_Which_call:
		c, err := m.Call()
		if err := whole(c, err); err != nil {
			return err
		}
		return g.admitCall(c)
	case rpccp.Message_Which_finish:
		f, err := m.Finish()
		if err := whole(f, err); err != nil {
			return err
		}
		id := f.QuestionId()
		c, ok := g.calls[id]
		if !ok || c.finished {
			return refuse("finish of call %d, which is not open", id)
		}
		c.finished = true
		if c.returned {
			g.answered--
		}
		g.setCall(id, c)
		return nil
	case rpccp.Message_Which_release:
		r, err := m.Release()
		if err := whole(r, err); err != nil {
			return err
		}
		id, n := r.Id(), r.ReferenceCount()
		have, ok := g.exports[id]
		if !ok || n > have {
			return refuse("release of %d references to capability %d, %d held", n, id, have)
		}
		if g.exports[id] = have - n; have == n {
			delete(g.exports, id)
		}
		return nil
	case rpccp.Message_Which_abort:
		a, err := m.Abort()
		return whole(a, err)
	default:
		return refuse("a shard sends no RPC message of type %d", m.Which())
	}
}

// admitReturn takes one answer to one question. Only bootstrap is answered with a capability.
func (g *guard) admitReturn(r rpccp.Return) error {
	id := r.AnswerId()
	q, ok := g.questions[id]
	if !ok || q.returned {
		return refuse("answer to question %d, which is not open", id)
	}
	if r.ReleaseParamCaps() && !q.bootstrap {
		return refuse("answer %d releases capabilities of its question", id)
	}
	switch r.Which() {
	case rpccp.Return_Which_results:
		p, err := r.Results()
		if err != nil {
			return err
		}
		caps, err := p.CapTable()
		if err != nil {
			return err
		}
		allowed := 0
		if q.bootstrap {
			allowed = 1
		}
		if caps.Len() > allowed {
			return refuse("answer %d carries %d capabilities", id, caps.Len())
		}
		if q.bootstrap && caps.Len() == 0 {
			return refuse("the shard's bootstrap capability is none")
		}
		if caps.Len() == 1 && caps.At(0).Which() != rpccp.CapDescriptor_Which_senderHosted {
			return refuse("the shard's bootstrap capability is not its own")
		}
	case rpccp.Return_Which_exception:
		if q.bootstrap {
			return refuse("the shard refuses its bootstrap capability") // calls on it would wait for their deadlines
		}
		if _, err := r.Exception(); err != nil {
			return err
		}
	case rpccp.Return_Which_canceled:
		if !q.finished {
			return refuse("answer %d canceled without being asked to", id)
		}
	default:
		return refuse("answer %d of type %d", id, r.Which())
	}
	q.returned = true
	g.setQuestion(id, q)
	return nil
}

// admitCall takes a call of TenantHost.log on a capability the shard holds.
func (g *guard) admitCall(c rpccp.Call) error {
	id := c.QuestionId()
	if _, ok := g.calls[id]; ok {
		return refuse("call number %d is in use", id)
	}
	if len(g.calls)-g.answered >= maxShardCalls {
		return refuse("more than %d calls without waiting for answers", maxShardCalls)
	}
	if g.answered >= maxUnfinishedCalls {
		return refuse("more than %d calls that were answered and not finished", maxUnfinishedCalls)
	}
	if c.InterfaceId() != gen.TenantHost_TypeID || c.MethodId() != logMethod {
		return refuse("call of interface %#x method %d", c.InterfaceId(), c.MethodId())
	}
	if c.SendResultsTo().Which() != rpccp.Call_sendResultsTo_Which_caller {
		return refuse("call whose results go elsewhere")
	}
	t, err := c.Target()
	if err := whole(t, err); err != nil {
		return err
	}
	if t.Which() != rpccp.MessageTarget_Which_importedCap {
		return refuse("call of an answer")
	}
	if _, ok := g.exports[t.ImportedCap()]; !ok {
		return refuse("call of capability %d, which the shard does not hold", t.ImportedCap())
	}
	p, err := c.Params()
	if err != nil {
		return err
	}
	caps, err := p.CapTable()
	if err != nil {
		return err
	}
	if caps.Len() != 0 {
		return refuse("call with %d capabilities", caps.Len())
	}
	size, err := c.Message().TotalSize()
	if err != nil {
		return err
	}
	if g.callBytes += size; g.callBytes > maxShardCallBytes {
		return refuse("calls of %d bytes without waiting for answers", g.callBytes)
	}
	g.calls[id] = call{size: size}
	return nil
}

// setQuestion stores q, or forgets it when its number is free. Caller holds mu.
func (g *guard) setQuestion(id uint32, q question) {
	if q.returned && q.finished {
		delete(g.questions, id)
		return
	}
	g.questions[id] = q
}

// setCall stores c, or forgets it when its number is free. Caller holds mu.
func (g *guard) setCall(id uint32, c call) {
	if c.returned && c.finished {
		delete(g.calls, id)
		return
	}
	g.calls[id] = c
}

// guardedMessage notes what the gateway says before it is said.
type guardedMessage struct {
	transport.OutgoingMessage
	g *guard
}

// Send implements transport.OutgoingMessage. It runs when the message is really written, so
// that a shard which does not read answers has them counted against its calls.
func (m *guardedMessage) Send() error {
	m.note()
	return m.OutgoingMessage.Send()
}

// note records questions, answers, finishes and exported capabilities.
func (m *guardedMessage) note() {
	g := m.g
	g.mu.Lock()
	defer g.mu.Unlock()
	msg := m.Message()
	switch msg.Which() {
	case rpccp.Message_Which_bootstrap:
		if b, err := msg.Bootstrap(); err == nil {
			g.questions[b.QuestionId()] = question{bootstrap: true}
		}
	case rpccp.Message_Which_call:
		c, err := msg.Call()
		if err != nil {
			return
		}
		g.questions[c.QuestionId()] = question{}
		p, err := c.Params()
		if err != nil {
			return
		}
		caps, err := p.CapTable()
		if err != nil {
			return
		}
		for i := range caps.Len() {
			if d := caps.At(i); d.Which() == rpccp.CapDescriptor_Which_senderHosted {
				g.exports[d.SenderHosted()]++
			}
		}
	case rpccp.Message_Which_finish:
		if f, err := msg.Finish(); err == nil {
			q := g.questions[f.QuestionId()]
			q.finished = true
			g.setQuestion(f.QuestionId(), q)
		}
	case rpccp.Message_Which_return:
		if r, err := msg.Return(); err == nil {
			c := g.calls[r.AnswerId()]
			if !c.returned {
				g.callBytes -= c.size
				if !c.finished {
					g.answered++
				}
			}
			c.returned = true
			g.setCall(r.AnswerId(), c)
		}
	}
}
