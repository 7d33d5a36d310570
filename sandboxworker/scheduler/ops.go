package scheduler

import (
	"bytes"
	"time"

	"bulkhead/sandboxworker/engine"
	"bulkhead/sandboxworker/runtime"
)

const (
	// maxOps and maxOpBytes bound what a tenant has under way beside its turns. More is done at
	// once, on its executor and its account.
	maxOps     = 1024
	maxOpBytes = 16 << 20
	// opWorkers is how many operations run at once, beside the executors.
	opWorkers = 2
	// opsQueue is the number that may wait. A full queue holds up the tenant that filled it.
	opsQueue = 1024
)

// opResult is the answer to an operation.
type opResult struct {
	iso  *engine.Isolate // which asked; a later isolate of the tenant knows nothing of it
	inv  uint32
	id   uint32
	ok   bool
	meta string
	data []byte
	size int           // of the input
	took time.Duration // charged to the invocation
}

// startOp runs an operation outside the isolate; its result is a later event. Called by t's
// executor while the record's bytes are valid.
func (s *Scheduler) startOp(t *tenant, r *engine.Record) {
	res := &opResult{iso: t.iso, inv: r.Inv, id: r.ID, size: len(r.Data)}
	t.ops++
	t.opBytes += res.size
	code, meta := r.Code, string(r.Text)
	if t.ops > maxOps || t.opBytes > maxOpBytes {
		s.runOp(t, res, code, meta, r.Data)
		return
	}
	data := bytes.Clone(r.Data)
	select {
	case s.ops <- func() { s.runOp(t, res, code, meta, data) }:
	default:
		s.runOp(t, res, code, meta, data)
	}
}

// runOp does the work and posts the result. Its time stands for its CPU: operations only compute.
func (s *Scheduler) runOp(t *tenant, res *opResult, code uint32, meta string, data []byte) {
	began := time.Now()
	res.ok, res.meta, res.data = runtime.Do(code, meta, data)
	res.took = time.Since(began)
	s.postWake(t, event{kind: evOp, op: res})
}

func (s *Scheduler) runOps() {
	for {
		select {
		case <-s.stop:
			return
		case job := <-s.ops:
			job()
		}
	}
}
