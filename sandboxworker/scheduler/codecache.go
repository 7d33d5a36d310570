package scheduler

import (
	"context"

	"bulkhead/schema/gen"
)

// CodeCache implements schema.Shard. A tenant that is not here, or whose isolate was given up, has
// none.
func (h Shard) CodeCache(ctx context.Context, call gen.Shard_codeCache) error {
	call.Go()
	s := h.s
	made := make(chan []byte, 1)
	s.mu.Lock()
	t := s.tenants[call.Args().Tenant()]
	if t == nil || len(t.evict) > 0 || s.stopped {
		made <- nil
	} else {
		s.post(t, event{kind: evCode, code: func(b []byte) { made <- b }})
		s.call()
	}
	s.mu.Unlock()
	select {
	case b := <-made:
		res, err := call.AllocResults()
		if err != nil || len(b) == 0 {
			return err
		}
		return res.SetCache(b)
	case <-s.stop:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// codeCache makes what a later start of the same bundle compiles from. It is no turn: none of the
// tenant's code runs, and nobody is charged.
func (x *executor) codeCache(t *tenant, reply func([]byte)) {
	var b []byte
	if t.iso != nil {
		x.inside(t, func() { b = t.iso.CodeCache() })
	}
	reply(b)
}
