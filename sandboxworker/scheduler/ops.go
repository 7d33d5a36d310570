package scheduler

import (
	"time"

	"bulkhead/sandboxworker/engine"
	"bulkhead/sandboxworker/runtime"
)

const (
	// maxOps bounds a tenant's operations under way; the next one fails at once.
	maxOps = 256
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
}

// startOp runs an operation outside the isolate; its result is a later event. Called by t's
// executor while the record's bytes are valid.
func (s *Scheduler) startOp(t *tenant, r *engine.Record) {
	res := &opResult{iso: t.iso, inv: r.Inv, id: r.ID}
	t.ops++
	if t.ops > maxOps {
		res.meta = "too many operations under way"
		s.postWake(t, event{kind: evOp, op: res})
		return
	}
	code, meta, data := r.Code, string(r.Text), append([]byte(nil), r.Data...)
	job := func() {
		res.ok, res.meta, res.data = runtime.Do(code, meta, data)
		s.postWake(t, event{kind: evOp, op: res})
	}
	select {
	case s.ops <- job:
	default:
		began := time.Now()
		job()
		t.cpu.Add(int64(time.Since(began)))
	}
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
