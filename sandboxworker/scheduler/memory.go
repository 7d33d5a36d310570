package scheduler

import (
	"fmt"
	"time"

	"bulkhead/sandboxworker/engine"
)

// All isolates of a process share one pointer cage of 4 GiB, and the process has a limit of its own.
// Where either ends, V8 or the kernel ends the process, and tenants that kept to their limits die
// together. So the sum is budgeted here: what isolates held when they were last measured, and what
// those that run now may add. A tenant begins a quantum only if the sum stays below softShare of
// both. Until it does, isolates of idle tenants are made smaller, then given up, the least recently
// used first (their next request brings them back from their bundle); then whoever wants to run
// waits for one that runs; then new requests are refused.
//
// A tenant that begins may take all that its limit leaves. One that has run for a while and not
// grown is trusted to stay as it is, so that many can run at once; if it grows after all, the
// estimate of what it has added shows it, and past hardShare the greediest is stopped. Nobody can see
// from outside what a turn has added: V8 counts when it collects. But it must collect before its heap
// has doubled, and CPU makes only so much.
const (
	softShare, hardShare = 70, 85 // percent
	// growSlack is what a turn may take before the watchdog has seen it.
	growSlack = 8 << 20
	// growYoung is what a heap may have gained since its last full collection besides doubling: its
	// young generation, and the least step of the old one.
	growYoung = 32 << 20
	// growProof is the CPU after which a turn is judged by what it has done, and growTrust by how much
	// its memory may have risen then.
	growProof = 5 * time.Millisecond
	growTrust = 4 << 20
	// growRate is what a turn can take in a second of CPU, bytes: the kernel hands pages out no faster.
	growRate = 2 << 30
)

// reasonShed stops a turn because of the process's memory, not its tenant's.
const reasonShed engine.Reason = 5

// memory is the shard's account.
type memory struct {
	held    footprint // by isolates with a tenant, as last measured
	growth  footprint // that running turns have added since, by estimate
	reserve footprint // that running turns may add
	running int       // tenants that may be growing
	freeing int       // idle tenants whose memory is being reclaimed
	blocked bool      // somebody waits for one of either
}

// footprint is what isolates take, in bytes.
type footprint struct {
	heap uint64 // in the cage
	all  uint64 // heap, buffers and Wasm memories
}

func (f *footprint) add(g footprint) { f.heap += g.heap; f.all += g.all }
func (f *footprint) sub(g footprint) { f.heap -= g.heap; f.all -= g.all }

// growthOf is what t may have added to what it held, after so much CPU, when its isolate says of
// itself that it holds u.
func (t *tenant) growthOf(cpu time.Duration, u engine.Usage) footprint {
	byCPU := t.held.heap + growSlack + uint64(max(cpu, 0))*(growRate>>20)/uint64(time.Second>>20)
	heap := min(byCPU, 2*u.HeapBytes+growYoung, max(t.limits.memory+engine.HeapOvershoot, t.held.heap))
	all := heap + u.ExternalBytes
	return footprint{heap: heap - min(heap, t.held.heap), all: all - min(all, t.held.all)}
}

// reserveOf is what t may add to what it holds in the rest of its quantum.
func (t *tenant) reserveOf(cpu time.Duration, u engine.Usage) footprint {
	heap, all := max(t.limits.memory+engine.HeapOvershoot, t.held.heap), max(t.limits.memory, t.held.all)
	if cpu >= growProof && u.HeapBytes <= t.held.heap+growTrust && u.HeapBytes+u.ExternalBytes <= t.held.all+growTrust {
		heap = max(min(heap, 2*u.HeapBytes+growYoung), t.held.heap)
		all = max(min(all, heap+u.ExternalBytes), t.held.all)
	}
	return footprint{heap: heap - t.held.heap, all: all - t.held.all}
}

// room tells whether t may begin a quantum. Caller holds mu.
func (s *Scheduler) room(t *tenant) bool {
	m := &s.memory
	sum := m.held
	sum.add(m.reserve)
	sum.add(t.reserveOf(0, engine.Usage{}))
	return s.within(softShare, sum)
}

// within tells whether sum is within a share of the budget.
func (s *Scheduler) within(share uint64, sum footprint) bool {
	return sum.heap <= s.opt.CageBytes/100*share && sum.all <= s.opt.MemoryBytes/100*share
}

// admit notes that t begins a quantum. Caller holds mu.
func (s *Scheduler) admit(t *tenant) {
	t.admitted = true
	s.memory.running++
	s.estimate(t, 0, engine.Usage{HeapBytes: t.held.heap, ExternalBytes: t.held.all - t.held.heap})
}

// estimate renews what the account says of a running tenant. Caller holds mu.
func (s *Scheduler) estimate(t *tenant, cpu time.Duration, u engine.Usage) {
	m := &s.memory
	m.growth.sub(t.growth)
	m.reserve.sub(t.reserve)
	t.growth, t.reserve = t.growthOf(cpu, u), t.reserveOf(cpu, u)
	m.growth.add(t.growth)
	m.reserve.add(t.reserve)
}

// settle notes what t holds at the end of its quantum. Caller holds mu.
func (s *Scheduler) settle(t *tenant) {
	m := &s.memory
	if t.admitted {
		t.admitted, t.shed = false, false
		m.running--
		m.growth.sub(t.growth)
		m.reserve.sub(t.reserve)
		t.growth, t.reserve = footprint{}, footprint{}
		m.blocked = false
	}
	m.held.sub(t.held)
	heap := t.heap.Load()
	t.held = footprint{heap: heap, all: heap + t.external.Load()}
	m.held.add(t.held)
}

// victim is the idle tenant whose isolate is to be made smaller or given up, or nil. Those whose
// isolates were made least small since they last ran come first. Caller holds mu.
func (s *Scheduler) victim() *tenant {
	var v *tenant
	for _, t := range s.tenants {
		if t.idle() && (v == nil || t.size < v.size || v.size == t.size && t.lastRun.Before(v.lastRun)) {
			v = t
		}
	}
	return v
}

// idle tells whether t has an isolate that nobody needs now. Caller holds the scheduler's mu.
func (t *tenant) idle() bool {
	return !t.running && !t.queued && t.held.all > 0 && t.inFlight.Load() == 0 && len(t.evict) == 0
}

// claim takes an idle tenant, for reclaim. Caller holds mu.
func (s *Scheduler) claim(t *tenant) {
	t.running = true
	s.memory.freeing++
}

// reclaim makes the isolate of a tenant that was claimed smaller, or gives it up if that was done
// before.
func (x *executor) reclaim(t *tenant) {
	x.since = ownCPU()
	if t.size == collected {
		x.dispose(t)
	} else {
		x.trim(t)
	}
	s := x.s
	s.mu.Lock()
	s.settle(t)
	t.charge(x.spent(), 0)
	t.running = false
	s.lastRun, s.rested = time.Now(), false // what it gave back is still with the allocators
	s.memory.freeing--
	s.memory.blocked = false
	if len(t.queue) > 0 || len(t.evict) > 0 {
		s.runnable(t)
	}
	s.mu.Unlock()
}

// trim makes the isolate of an idle tenant smaller. That is nobody's CPU limit's.
func (x *executor) trim(t *tenant) {
	lightly := t.lightly
	t.size, t.lightly = collected, false
	if t.iso == nil {
		return
	}
	x.inside(t, func() {
		if !lightly {
			t.iso.Trim()
		} else if !t.iso.TrimLightly() {
			t.size = trimmed
		}
	})
	t.host.Rest()
	t.measure()
}

// measure reads what t's isolate takes. Called by t's executor.
func (t *tenant) measure() {
	if t.iso != nil {
		u := t.iso.Usage()
		t.heap.Store(u.HeapBytes)
		t.external.Store(u.ExternalBytes)
	}
}

// watchMemory brings the account up to date with what running turns have done, and stops the
// greediest if it has become too much. Called by the watchdog. Caller holds mu.
func (s *Scheduler) watchMemory() {
	m := &s.memory
	var greediest *executor
	var most uint64
	var staying footprint // without those that were stopped and have not ended yet
	staying.add(m.held)
	before := m.reserve
	for _, x := range s.executors {
		t := x.seenTenant
		if t == nil || !t.admitted {
			continue
		}
		s.estimate(t, x.seenCPU, x.seenUsage)
		if t.shed {
			staying.sub(t.held)
			continue
		}
		staying.add(t.growth)
		if sum := t.held.all + t.growth.all; sum > most {
			greediest, most = x, sum
		}
	}
	if m.reserve.all < before.all || m.reserve.heap < before.heap {
		m.blocked = false // there may be room now
	}
	if greediest != nil && !s.within(hardShare, staying) {
		greediest.seenTenant.shed = greediest.terminateTenant(greediest.seenTenant, reasonShed)
	}
}

// memoryMessage says why something cannot be done for lack of memory.
func (s *Scheduler) memoryMessage() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := &s.memory
	return fmt.Sprintf("this process is out of memory: its workers hold %d MiB of heap of a budget of %d MiB, and with buffers %d MiB of %d MiB",
		(m.held.heap+m.growth.heap)>>20, s.opt.CageBytes/100*softShare>>20, (m.held.all+m.growth.all)>>20, s.opt.MemoryBytes/100*softShare>>20)
}
