package scheduler

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"

	"bulkhead/ipc"
	"bulkhead/sandboxworker/engine"
)

// What a tenant leaves in the process, and what becomes of it when it is evicted:
//
//   - its isolate: V8 gives the pages of its heap back to the kernel, and what V8, ICU and we have freed
//     of malloc's memory, and of ArrayBuffers, was wiped when it was freed (engine/native/scrub.cc);
//   - buffers that outlive it: wiped when they are emptied (ipc.Scanner, ipc.Batch, Scheduler.drop);
//   - what was Go's and is garbage: two collections, which overwrite what they free (GODEBUG
//     clobberfree, policy/namespaces): the first empties the sync.Pools halfway, the second does the rest;
//   - the C stacks of the executors that ran it: each wipes its own. One that is reading waits for the
//     gateway, which therefore sends pings while it waits for an eviction.
type scrub struct {
	wiped *sync.Cond // on the scheduler's mu; an executor has wiped its stack

	collecting sync.Mutex
	rounds     atomic.Uint64 // of collections that have begun; written under collecting
}

// stains is a set of executors.
type stains [ipc.BlackBoxSlots / 64]uint64

func (s *stains) add(x *executor)      { s[x.id/64] |= 1 << (x.id % 64) }
func (s *stains) drop(x *executor)     { s[x.id/64] &^= 1 << (x.id % 64) }
func (s *stains) has(x *executor) bool { return s[x.id/64]&(1<<(x.id%64)) != 0 }

// wipeStack wipes the stack of x, whose thread calls it between turns. Caller holds mu.
func (x *executor) wipeStack() {
	engine.WipeStack()
	x.wipe = false
	for _, t := range x.s.tenants {
		t.stained.drop(x)
	}
	x.s.scrub.wiped.Broadcast()
}

// scrubbed returns when nothing is left of t, which was forgotten, or when the shard stops.
func (s *Scheduler) scrubbed(ctx context.Context, t *tenant) error {
	if s.opt.LeaveTraces {
		return nil
	}
	select {
	case <-t.logs.gone:
	case <-s.stop:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	s.wipeStacks(ctx, t)
	if err := ctx.Err(); err != nil {
		return err
	}
	s.collect()
	return nil
}

// wipeStacks has each executor that ran t wipe its stack.
func (s *Scheduler) wipeStacks(ctx context.Context, t *tenant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer context.AfterFunc(ctx, func() {
		s.mu.Lock()
		s.scrub.wiped.Broadcast()
		s.mu.Unlock()
	})()
	for _, x := range s.executors {
		x.wipe = x.wipe || x.alive && t.stained.has(x)
	}
	for ; s.threads.waiting > 0; s.threads.waiting-- {
		s.threads.idle.Signal()
	}
	for _, x := range s.executors {
		for t.stained.has(x) && x.wipe && !s.stopped && ctx.Err() == nil {
			s.scrub.wiped.Wait()
		}
	}
}

// collect returns when all that was garbage when it was called has been overwritten. Who comes while
// others wait shares their round.
func (s *Scheduler) collect() {
	seen := s.scrub.rounds.Load()
	s.scrub.collecting.Lock()
	defer s.scrub.collecting.Unlock()
	if s.scrub.rounds.Load() > seen {
		return // it began after this call did
	}
	s.scrub.rounds.Add(1)
	runtime.GC()
	runtime.GC()
}
