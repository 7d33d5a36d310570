package scheduler

import (
	"bulkhead/sandboxworker/engine"
)

const (
	// maxResults bounds the results that wait for their turn. The runtime stops a tenant's code
	// well below it.
	maxResults = 16 << 10
	// maxResultBytes bounds their data. It is no part of the isolate, and some operations give much
	// for little; one result may go beyond it.
	maxResultBytes = 32 << 20
	// opHelpBytes is the input from which on an operation takes long enough for another executor
	// to be called to the socket.
	opHelpBytes = 256 << 10
)

// opResult is the answer to an operation.
type opResult struct {
	inv  uint32
	id   uint32
	ok   bool
	meta string
	data []byte
}

// runOp does an operation (crypto, for now) at once, on its tenant's executor and its invocation's
// account. Operations are no I/O: done beside the isolate, the order in which their results and
// its timers come would be a clock (DESIGN, invariant 7). As it is an operation takes no time
// that JavaScript could see: results come in the order of the calls and before any other event.
func (x *executor) runOp(t *tenant, r *engine.Record) {
	if len(t.results) >= maxResults {
		return
	}
	res := &opResult{inv: r.Inv, id: r.ID}
	t.results = append(t.results, res)
	inv := t.invs[r.Inv]
	if inv != nil && x.budget(t, inv) <= 0 {
		return // the invocation ends when this result comes up
	}
	if t.resultBytes > maxResultBytes {
		res.meta = "too many bytes of results of operations wait to be delivered: await some first"
		return
	}
	if inv == nil && t.unowned >= t.limits.startupCPU {
		res.meta = "code that belongs to no request has used up its CPU"
		return
	}
	if len(r.Data) >= opHelpBytes {
		x.s.callHelp()
	}
	began := ownCPU()
	budget := t.limits.startupCPU - t.unowned
	if inv != nil {
		budget = x.budget(t, inv)
	}
	h := &t.host
	h.Alive, h.CPU = func() bool { return ownCPU()-began < budget }, ownCPU
	h.Inv, h.Elsewhere = r.Inv, 0
	res.ok, res.meta, res.data = h.Do(r.Code, string(r.Text), r.Data)
	took := ownCPU() - began + h.Elsewhere
	t.resultBytes += len(res.data)
	t.cpu.Add(int64(took))
	if inv != nil {
		inv.use(took)
	} else {
		t.unowned += took
	}
}

// hasResult tells whether a result can be delivered. What belongs to no request (start-up code
// may start operations) waits until there is one: code without a request has no account.
func (t *tenant) hasResult() bool { return len(t.results) > 0 && len(t.invs) > 0 }

// deliverResult tells the isolate how its oldest operation went.
func (x *executor) deliverResult(t *tenant) {
	res := t.results[0]
	t.results[0] = nil
	t.resultBytes -= len(res.data)
	if t.results = t.results[1:]; len(t.results) == 0 {
		t.results = nil
	}
	turn := func(i *engine.Isolate) engine.Turn { return i.OpResult(t.clock, res.id, res.ok, res.meta, res.data) }
	if inv := t.invs[res.inv]; inv != nil {
		x.turnInv(t, inv, turn)
		return
	}
	x.turnShared(t, turn)
}
