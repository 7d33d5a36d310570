package scheduler

import (
	"fmt"

	"bulkhead/ipc"
	"bulkhead/sandboxworker/engine"
	"bulkhead/sandboxworker/runtime"
	"bulkhead/schema/gen"
)

// fetchID marks the engine's names of subrequests; no invocation's name has it.
const fetchID = runtime.FetchID

// subrequest is one fetch of an invocation. Owned by its tenant's executor.
type subrequest struct {
	inv    *invocation
	id     uint32 // the runtime's name for it
	stream uint64 // the wire's

	socket   socket
	answered bool // the isolate has its head
	over     bool // the gateway was told the last word

	// Request body.
	bodyOver bool // the engine has said end or abort, or it is not wanted
	window   int  // bytes the gateway still takes
	out      []byte
	outEnd   bool // send end when out is empty

	// Response body.
	ungranted int // received from the gateway, not yet granted again
}

// fetch starts the subrequest that an OpFetch record asks for. What cannot be sent is answered like an
// operation: before any other event, so that the order tells nothing.
func (x *executor) fetch(t *tenant, r *engine.Record) {
	inv := t.invs[r.Inv]
	if inv == nil || inv.over || inv.fin != nil || r.ID&fetchID == 0 || inv.subs[r.ID] != nil || t.subs[r.ID] != nil {
		return
	}
	if why := x.startFetch(t, inv, r); why != "" && len(t.results) < maxResults {
		t.results = append(t.results, &opResult{inv: r.Inv, id: r.ID, meta: why})
	}
}

func (x *executor) startFetch(t *tenant, inv *invocation, r *engine.Record) (refusal string) {
	s, w := x.s, &x.s.opt.Wire
	if inv.fetched >= t.limits.subrequests {
		return fmt.Sprintf("too many subrequests: one request may make %d", t.limits.subrequests)
	}
	if len(inv.subs) >= w.StreamFetch {
		return fmt.Sprintf("too many subrequests at once: one request may have %d open", w.StreamFetch)
	}
	s.mu.Lock()
	share := max(w.StreamFetch, (w.Fetches-len(s.fetches))/2)
	s.mu.Unlock()
	if len(t.subs) >= share { // half of what is left: or a few tenants could keep the others from having any
		return fmt.Sprintf("too many subrequests at once: this worker may have %d open in one process now, and has %d", share, len(t.subs))
	}
	q, err := runtime.ParseFetch(string(r.Text))
	if err != nil {
		return err.Error()
	}
	if q.Function != 0 && !inv.called {
		return "no function was given to this invocation"
	}
	f := ipc.Fetch{
		Parent: inv.stream, Method: q.Method, URL: q.URL, Headers: q.Headers,
		BodyMode: gen.BodyMode(q.BodyMode), Redirect: gen.Fetch_Redirect(q.Redirect), Body: r.Data,
		Binding: q.Binding, Call: q.Call, Upgrade: q.Upgrade, Function: q.Function,
	}
	if int(f.Binding) > t.bindings && f.Binding < ipc.FunctionBinding {
		return "no such service binding"
	}
	if err := f.Check(w); err != nil {
		return err.(*ipc.ViolationError).Detail
	}
	sub := &subrequest{socket: socket{allowed: f.Upgrade}, inv: inv, id: r.ID, window: w.Window - len(f.Body), bodyOver: f.BodyMode != gen.BodyMode_streamed}
	s.mu.Lock()
	if len(s.fetches) >= w.Fetches {
		s.mu.Unlock()
		return "too many subrequests at once in this worker process; try again"
	}
	// In one piece: ids rise in the order of the frames, and an answer must find its subrequest.
	s.lastFetch++
	sub.stream = ipc.FetchBit | s.lastFetch
	s.fetches[sub.stream] = sub
	s.data.Begin().Fetch(sub.stream, &f)
	full := s.data.End() > 8*flushBytes
	s.mu.Unlock()
	inv.fetched++
	if inv.subs == nil {
		inv.subs = map[uint32]*subrequest{}
	}
	inv.subs[sub.id], t.subs[sub.id] = sub, sub
	inv.move(len(f.Body))
	if full {
		x.flush()
	}
	return ""
}

// subRecord is record for what concerns a subrequest.
func (x *executor) subRecord(t *tenant, r *engine.Record) {
	sub := t.subs[r.Inv]
	if sub == nil || sub.over {
		return
	}
	if sub.socket.open && x.subSocketRecord(sub, r) {
		return
	}
	switch r.Kind {
	case engine.RecordChunk:
		if !sub.bodyOver {
			x.subBody(sub, r.Data)
		}
	case engine.RecordEnd:
		if !sub.bodyOver {
			sub.bodyOver, sub.outEnd = true, true
			x.drainSub(sub)
		}
	case engine.RecordCredit:
		if n := min(int(r.N), sub.ungranted); n > 0 {
			sub.ungranted -= n
			x.s.send(func(b *ipc.Batch) { b.Window(sub.stream, uint32(n)) })
		}
	case engine.RecordAbort, engine.RecordRefuse:
		x.release(sub)
	}
}

// subBody sends what the window allows and keeps the rest.
func (x *executor) subBody(sub *subrequest, p []byte) {
	if len(sub.out) == 0 {
		p = x.sendSub(sub, p)
	}
	if len(p) == 0 {
		return
	}
	if len(sub.out)+len(p) > maxWaiting(&x.s.opt.Wire) {
		// As for a response: not by our runtime.
		x.release(sub)
		return
	}
	sub.out = append(sub.out, p...)
}

func (x *executor) sendSub(sub *subrequest, p []byte) []byte {
	for len(p) > 0 && sub.window > 0 {
		n := min(len(p), sub.window, x.s.opt.Wire.ChunkBytes)
		sub.window -= n
		sub.inv.move(n)
		x.s.send(func(b *ipc.Batch) { b.Chunk(sub.stream, p[:n]) })
		p = p[n:]
	}
	return p
}

func (x *executor) drainSub(sub *subrequest) {
	if len(sub.out) > 0 {
		rest := x.sendSub(sub, sub.out)
		sub.out = sub.out[len(sub.out)-len(rest):]
		if len(rest) > 0 {
			return
		}
		sub.out = nil
	}
	if sub.outEnd {
		sub.outEnd = false
		x.s.send(func(b *ipc.Batch) { b.End(sub.stream) })
	}
}

// release says the last word of a subrequest and forgets it.
func (x *executor) release(sub *subrequest) {
	if sub.over {
		return
	}
	s := x.s
	s.mu.Lock()
	s.data.Begin().Abort(sub.stream, gen.Abort_Reason_clientGone, "")
	full := s.data.End() > 8*flushBytes
	delete(s.fetches, sub.stream)
	s.mu.Unlock()
	sub.forget()
	if full {
		x.flush()
	}
}

// forget takes a subrequest out of the books of its invocation and its tenant.
func (sub *subrequest) forget() {
	sub.over = true
	sub.out, sub.outEnd = nil, false
	delete(sub.inv.subs, sub.id)
	delete(sub.inv.t.subs, sub.id)
}

// orphan forgets the subrequests of an invocation whose done frame is on its way, which is their last
// word, too.
func (s *Scheduler) orphan(inv *invocation) {
	for _, sub := range inv.subs {
		s.mu.Lock()
		delete(s.fetches, sub.stream)
		s.mu.Unlock()
		sub.forget()
	}
}

// handleSub delivers one event of a subrequest. Its last one is acknowledged first, so that the place
// is free for what the code starts next.
func (x *executor) handleSub(t *tenant, e *event) {
	sub, inv := e.sub, e.inv
	if sub.over || t.iso == nil {
		return
	}
	switch e.kind {
	case evHead:
		x.answer(t, sub, e)
	case evChunk:
		f, err := x.dec.Frame(e.frame)
		var p []byte
		if err == nil {
			p, err = ipc.DecodeChunk(f, &x.s.opt.Wire)
		}
		if err != nil {
			x.s.halt(err)
			return
		}
		sub.ungranted += len(p)
		inv.move(len(p))
		x.turnInv(t, inv, func(i *engine.Isolate) engine.Turn { return i.Chunk(t.clock, sub.id, p) })
	case evMessage:
		x.subMessage(t, sub, e)
	case evEnd:
		x.release(sub)
		x.turnInv(t, inv, func(i *engine.Isolate) engine.Turn { return i.End(t.clock, sub.id) })
	case evAbort:
		if e.reason == gen.Abort_Reason_refused {
			sub.bodyOver, sub.out, sub.outEnd = true, nil, false
		} else {
			x.release(sub)
		}
		x.turnInv(t, inv, func(i *engine.Isolate) engine.Turn {
			if !sub.answered && e.reason != gen.Abort_Reason_refused {
				return i.OpResult(t.clock, sub.id, false, e.text, nil)
			}
			return i.Abort(t.clock, sub.id, uint8(e.reason), e.text)
		})
	case evWindow:
		sub.window += int(e.n)
		x.drainSub(sub)
		if !sub.bodyOver {
			x.turnInv(t, inv, func(i *engine.Isolate) engine.Turn { return i.Window(t.clock, sub.id, e.n) })
		}
	}
}

// answer gives the isolate a response's head.
func (x *executor) answer(t *tenant, sub *subrequest, e *event) {
	f, err := x.dec.Frame(e.frame)
	var h ipc.Head
	if err == nil {
		h, err = ipc.DecodeAnswer(f, &x.s.opt.Wire)
	}
	if err != nil {
		x.s.halt(err)
		return
	}
	sub.answered = true
	a := runtime.FetchAnswer{Status: int(h.Status), StatusText: h.StatusText, URL: h.URL, Redirected: h.Redirected,
		Body: h.BodyMode != gen.BodyMode_none, Headers: h.Headers}
	if a.Status == ipc.StatusUpgrade && sub.socket.allowed {
		sub.socket.open, sub.bodyOver, sub.window = true, false, x.s.opt.Wire.Window
	} else if !a.Body {
		x.release(sub)
	}
	meta := a.Meta()
	x.turnInv(t, sub.inv, func(i *engine.Isolate) engine.Turn { return i.OpResult(t.clock, sub.id, true, meta, nil) })
}
