package scheduler

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"bulkhead/ipc"
	"bulkhead/policy/limits"
	"bulkhead/sandboxworker/engine"
	"bulkhead/sandboxworker/runtime"
	"bulkhead/schema/gen"
)

// send adds frames to the batch and writes it when it has grown large.
func (s *Scheduler) send(fill func(*ipc.Batch)) {
	fill(s.data.Begin())
	if s.data.End() > 8*flushBytes {
		s.flush()
	}
}

// flush writes what waits for the gateway.
func (s *Scheduler) flush() {
	if err := s.data.Flush(); err != nil {
		s.halt(err)
	}
}

// after deals with what a turn said and how it ended. It reports whether the isolate is still
// there.
func (x *executor) after(t *tenant, inv *invocation, out *engine.Turn) bool {
	x.records(t, out)
	switch out.Status {
	case engine.OK:
		return true
	case engine.Terminated:
		x.terminated(t, inv, out)
	case engine.OutOfMemory:
		x.giveUp(t, gen.Outcome_exceededMemory, memoryLimitMessage(t))
	default:
		x.giveUp(t, gen.Outcome_internalError, "the isolate could not go on")
	}
	return t.iso != nil
}

// records deals with what a turn said.
func (x *executor) records(t *tenant, out *engine.Turn) {
	for r := range out.Records() {
		x.record(t, &r)
	}
	t.iso.Done(out)
	x.s.mu.Lock()
	x.s.setTimer(t, out.NextTimerMs, out.NextTimerInv)
	x.s.mu.Unlock()
}

// terminated: the watchdog stopped the turn. What it was running for ends, and the isolate with
// it: V8 has dropped the microtasks of all other requests, whose awaits would never go on, and
// the code was cut in the middle of whatever it was doing, without its finally blocks, so that a
// lock it held would stay locked for every later request.
func (x *executor) terminated(t *tenant, inv *invocation, out *engine.Turn) {
	switch {
	case out.Reason == engine.ReasonEvict:
		return // the tenant's executor is about to see why
	case out.Reason == reasonShed:
		x.giveUp(t, gen.Outcome_loadShed, "stopped: "+x.s.memoryMessage())
	case inv == nil:
		x.giveUp(t, gen.Outcome_exceededCpu, fmt.Sprintf("code that belongs to no request exceeded the CPU limit of %d ms: used %.1f ms", t.limits.cpu.Milliseconds(), milliseconds(out.CPU)))
	case out.Reason == engine.ReasonWall:
		x.stop(t, inv, gen.Outcome_exceededWallTime, wallMessage(t, inv))
	default:
		x.stop(t, inv, gen.Outcome_exceededCpu, cpuMessage(inv))
	}
}

// stop ends an invocation and, as far as they still need it, all others of its isolate.
func (x *executor) stop(t *tenant, inv *invocation, o gen.Outcome, message string) {
	x.finish(inv, o, message)
	for p := inv.payer; p != nil; p = p.payer {
		if o == gen.Outcome_exceededCpu && !p.over && p.left() <= 0 {
			x.finish(p, o, message)
		}
	}
	x.giveUp(t, gen.Outcome_killed, "stopped together with another request of this worker, which "+message)
}

// kill ends an invocation and tells the isolate. If the isolate cannot even take that without
// using up a whole limit again, it is given up.
func (x *executor) kill(t *tenant, inv *invocation, o gen.Outcome, message string) {
	x.finish(inv, o, message)
	if t.iso == nil {
		return
	}
	var out engine.Turn
	reason := uint8(gen.Abort_Reason_deadline)
	x.quietTurn(t, inv, &out, func(i *engine.Isolate) engine.Turn { return i.Abort(t.clock, inv.id, reason, message) })
	if out.Status != engine.OK {
		x.stop(t, inv, o, message)
	}
}

// giveUp ends all of t's invocations and disposes of its isolate; the next request gets a new
// one from the same bundle.
func (x *executor) giveUp(t *tenant, o gen.Outcome, message string) {
	for _, inv := range t.invs {
		if inv.fin != nil {
			continue // its code is done; the rest of its body is here
		}
		x.finish(inv, o, message)
	}
	x.dispose(t)
}

// record turns one record of the isolate into frames. The runtime is ours but runs beside the
// tenant's code: what it says is held against the invocation's state, because a frame out of
// order would cost the whole shard.
func (x *executor) record(t *tenant, r *engine.Record) {
	s := x.s
	inv := t.invs[r.Inv]
	switch r.Kind {
	case engine.RecordLog:
		s.logs.add(t, inv, r)
		return
	case engine.RecordOp:
		if r.Code == runtime.OpFetch {
			t.said++
			x.fetch(t, r)
		} else {
			x.runOp(t, r)
		}
		return
	}
	if r.Inv&fetchID != 0 {
		x.subRecord(t, r)
		return
	}
	if inv == nil || inv.over {
		return
	}
	if inv.socket.open && x.socketRecord(t, inv, r) {
		return
	}
	switch r.Kind {
	case engine.RecordHead:
		t.said++
		x.head(t, inv, r)
	case engine.RecordChunk:
		t.said++
		if inv.headSent && !inv.ended && x.bodyWithin(t, inv, len(r.Data)) {
			if !x.chunkInPlace(inv, r) {
				x.body(t, inv, r.Data)
			}
		}
	case engine.RecordEnd:
		if inv.headSent && !inv.ended {
			x.endBody(inv, nil)
		}
	case engine.RecordAbort:
		if inv.headSent && !inv.ended {
			msg := cut(string(r.Text), 1<<10)
			x.endBody(inv, &msg)
		}
	case engine.RecordCredit:
		if n := min(int(r.N), inv.ungranted); n > 0 {
			inv.ungranted -= n
			s.send(func(b *ipc.Batch) { b.Window(inv.stream, uint32(n)) })
		}
	case engine.RecordRefuse:
		s.send(func(b *ipc.Batch) { b.Abort(inv.stream, gen.Abort_Reason_refused, "") })
	case engine.RecordFinished:
		x.finished(inv, r.Outcome, string(r.Text))
	}
}

// head sends a response's head. A whole body too large for one frame is streamed, with the
// length it would have had.
func (x *executor) head(t *tenant, inv *invocation, r *engine.Record) {
	if inv.headSent {
		return
	}
	if r.Status == ipc.StatusUpgrade && inv.socket.allowed && r.BodyMode == gen.BodyMode_none {
		x.upgrade(t, inv, r)
		return
	}
	err := ipc.CheckHeaders(r.Headers, &x.s.opt.Wire)
	if err == nil && (r.Status < 200 || r.Status > 599) {
		err = ipc.Violation(ipc.KindHeaders, 0, "status %d", r.Status)
	}
	if err != nil {
		x.refuse(t, inv, "the response cannot be sent: "+err.(*ipc.ViolationError).Detail)
		return
	}
	if r.BodyMode != gen.BodyMode_none && !x.bodyWithin(t, inv, len(r.Data)) {
		return
	}
	inv.headSent = true
	h := ipc.Head{Status: uint16(r.Status), Headers: r.Headers, BodyMode: r.BodyMode}
	rest := r.Data
	switch {
	case r.BodyMode == gen.BodyMode_none:
		rest = nil
	case len(rest) <= x.s.opt.Wire.ChunkBytes:
		h.Body, rest = rest, nil
	default:
		h.Body, rest = rest[:x.s.opt.Wire.ChunkBytes], rest[x.s.opt.Wire.ChunkBytes:]
		if r.BodyMode == gen.BodyMode_whole {
			h.BodyMode = gen.BodyMode_streamed
			h.Headers = withLength(r.Headers, len(r.Data))
		}
	}
	inv.window -= len(h.Body)
	x.s.send(func(b *ipc.Batch) { b.Head(inv.stream, &h) })
	if len(rest) > 0 {
		x.body(t, inv, rest)
	}
	if r.BodyMode != gen.BodyMode_streamed {
		if h.BodyMode == gen.BodyMode_streamed {
			x.endBody(inv, nil)
			return
		}
		x.responseOver(inv)
	}
}

// withLength adds a content-length unless there is one.
func withLength(headers []byte, n int) []byte {
	for name := range ipc.Headers(headers) {
		if bytes.Equal(name, contentLength) {
			return headers
		}
	}
	return ipc.AppendHeader(bytes.Clone(headers), string(contentLength), strconv.Itoa(n))
}

var contentLength = []byte("content-length")

// leastInPlace is the size from which a chunk is written from where it lies: a write(2) of its own costs
// less then than copying it into the batch.
const leastInPlace = 16 << 10

// The engine leaves room for the frame.
const _ = uint(engine.ChunkRoom-ipc.ChunkRoom) + uint(ipc.ChunkRoom-engine.ChunkRoom)

// chunkInPlace sends a large chunk without copying it, if all of it may go out now.
func (x *executor) chunkInPlace(inv *invocation, r *engine.Record) bool {
	n := len(r.Data)
	if n < leastInPlace || n > x.s.opt.Wire.ChunkBytes || n > inv.window || len(inv.out) > 0 || inv.unwanted {
		return false
	}
	inv.window -= n
	inv.move(n)
	ipc.PutChunk(r.Frame, inv.stream, n)
	if err := x.s.data.FlushWith(r.Frame); err != nil {
		x.s.halt(err)
	}
	return true
}

// body sends what the window allows and keeps the rest.
func (x *executor) body(t *tenant, inv *invocation, p []byte) {
	if inv.unwanted {
		return
	}
	if len(inv.out) == 0 {
		p = x.sendChunks(inv, p)
	}
	if len(p) == 0 {
		return
	}
	if len(inv.out)+len(p) > maxWaiting(&x.s.opt.Wire) {
		// Never so by our runtime, which keeps to the window: its state has been tampered with.
		x.finish(inv, gen.Outcome_internalError, "more response body than the client has asked for")
		x.tell(t, inv)
		return
	}
	inv.out = append(inv.out, p...)
}

// maxWaiting bounds what an invocation may say ahead of its window: it is held outside the
// tenant's memory limit.
func maxWaiting(w *limits.Wire) int { return w.Window + w.ChunkBytes }

// tell lets the isolate know, after this turn's records are read, that an invocation is over.
func (x *executor) tell(t *tenant, inv *invocation) {
	x.s.mu.Lock()
	x.s.post(t, event{kind: evDrop, inv: inv})
	x.s.mu.Unlock()
}

// sendChunks sends as much of p as the window allows and returns the rest.
func (x *executor) sendChunks(inv *invocation, p []byte) []byte {
	for len(p) > 0 && inv.window > 0 {
		n := min(len(p), inv.window, x.s.opt.Wire.ChunkBytes)
		inv.window -= n
		inv.move(n)
		x.s.send(func(b *ipc.Batch) { b.Chunk(inv.stream, p[:n]) })
		p = p[n:]
	}
	return p
}

// endBody ends the response's body once everything before it is sent; abort, if not nil, says
// that it is incomplete.
func (x *executor) endBody(inv *invocation, abort *string) {
	x.responseOver(inv)
	inv.outEnd, inv.outAbort = abort == nil, abort
	x.drain(inv)
}

// responseOver notes that the code has said all of its response: from here on waitUntil's time
// runs.
func (x *executor) responseOver(inv *invocation) {
	inv.ended = true
	if len(inv.out) == 0 {
		inv.deadline.Store(time.Now().Add(inv.t.limits.waitUntil).UnixNano())
	}
}

// drain sends what waited for the window, and what waited behind it.
func (x *executor) drain(inv *invocation) {
	if len(inv.out) > 0 {
		rest := x.sendChunks(inv, inv.out)
		if len(rest) > 0 {
			inv.out = inv.out[len(inv.out)-len(rest):]
			return
		}
		inv.out = nil
		if inv.ended {
			x.responseOver(inv)
		}
	}
	switch {
	case inv.outAbort != nil:
		msg := *inv.outAbort
		x.s.send(func(b *ipc.Batch) { b.Abort(inv.stream, gen.Abort_Reason_failed, msg) })
	case inv.outEnd:
		x.s.send(func(b *ipc.Batch) { b.End(inv.stream) })
	}
	inv.outEnd, inv.outAbort = false, nil
	if inv.fin != nil {
		x.finish(inv, inv.fin.outcome, inv.fin.message)
	}
}

// finished: the runtime says that the invocation is over.
func (x *executor) finished(inv *invocation, o gen.Outcome, message string) {
	if !workerOutcome(o) {
		o, message = gen.Outcome_internalError, fmt.Sprintf("the runtime ended with outcome %d", o)
	}
	if o == gen.Outcome_ok && !inv.ended && !inv.unwanted {
		o, message = gen.Outcome_exception, "the handler ended without a whole response"
	}
	if len(inv.out) > 0 {
		inv.fin = &finish{outcome: o, message: message}
		for _, sub := range inv.subs {
			x.release(sub) // its code is over; done, which would say so, may be long in coming
		}
		return
	}
	x.finish(inv, o, message)
}

// workerOutcome tells which outcomes a shard may decide; see ipc/gatewayside.
func workerOutcome(o gen.Outcome) bool {
	switch o {
	case gen.Outcome_ok, gen.Outcome_exception, gen.Outcome_exceededCpu, gen.Outcome_exceededMemory, gen.Outcome_exceededWallTime,
		gen.Outcome_killed, gen.Outcome_loadShed, gen.Outcome_canceled, gen.Outcome_notLoaded, gen.Outcome_internalError:
		return true
	}
	return false
}

// finish sends the done frame and forgets the invocation.
func (x *executor) finish(inv *invocation, o gen.Outcome, message string) {
	if inv.over {
		return
	}
	inv.over = true
	inv.out, inv.fin, inv.outEnd, inv.outAbort = nil, nil, false, nil
	s := x.s
	s.send(func(b *ipc.Batch) {
		b.Done(inv.stream, &ipc.Done{Outcome: o, Message: cut(message, s.opt.Wire.MessageBytes), CPUMicros: uint64(inv.cpu.Microseconds())})
	})
	s.orphan(inv)
	t := inv.t
	t.overClock(inv)
	s.logs.dropped(t, inv)
	delete(t.invs, inv.id)
	t.host.Forget(inv.id)
	t.inFlight.Add(-1)
	s.mu.Lock()
	delete(s.streams, inv.stream)
	s.mu.Unlock()
}

// cut shortens text to at most n bytes.
func cut(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
