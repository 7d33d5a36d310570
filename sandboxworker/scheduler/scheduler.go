package scheduler

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/workerside"
	"bulkhead/policy/limits"
	"bulkhead/sandboxworker/engine"
	"bulkhead/schema/gen"
)

// Options of a Scheduler. Zero fields take the defaults named.
type Options struct {
	Wire      limits.Wire   // limits.DefaultWire()
	Executors int           // threads that run isolates, beside the stuck ones and the one that reads; one for each processor
	Ready     int           // isolates kept bootstrapped for the next tenant, none if below 0; 4
	BlackBox  []byte        // shared memory laid out by ipc.BlackBox; nil: none is kept
	Quantum   time.Duration // a tenant's share before the next one's turn; 2 ms

	TrimAfter time.Duration // an idle tenant's isolate is made smaller after it; 3 s

	QueueRequests int // requests that may wait to be begun, all tenants together; 12,288
	QueueBytes    int // bytes of frames that may wait, all tenants together; 64 MiB

	CageBytes uint64 // what the heaps of all isolates share; 4 GiB
	// MemoryBytes is the memory limit of the process and MaxTenants what it is to expect, until
	// Shard.Configure says otherwise: limits.DefaultShard's.
	MemoryBytes uint64
	MaxTenants  int

	LeaveTraces bool // an eviction wipes nothing: see engine.Config
}

func (o Options) withDefaults() Options {
	if o.Wire == (limits.Wire{}) {
		o.Wire = limits.DefaultWire()
	}
	if o.Executors == 0 {
		o.Executors = runtime.NumCPU()
	}
	if o.Ready == 0 {
		o.Ready = 4
	}
	o.Ready = max(o.Ready, 0)
	if o.Quantum == 0 {
		o.Quantum = 2 * time.Millisecond
	}
	if o.TrimAfter == 0 {
		o.TrimAfter = 3 * time.Second
	}
	if o.QueueRequests == 0 {
		o.QueueRequests = 12 << 10
	}
	if o.QueueBytes == 0 {
		o.QueueBytes = 64 << 20
	}
	if o.CageBytes == 0 {
		o.CageBytes = 4 << 30
	}
	if o.MaxTenants == 0 {
		o.MaxTenants = limits.DefaultShard().MaxTenants
	}
	if o.MemoryBytes == 0 {
		o.MemoryBytes = limits.DefaultShard().Memory
	}
	return o
}

// Scheduler runs the isolates of one shard.
type Scheduler struct {
	opt  Options
	eng  *engine.Engine
	data *workerside.Data
	pool *pool
	logs *logger
	box  *ipc.BlackBox
	work sync.WaitGroup // everything Run waits for

	frames sync.Pool // *[]byte of small frames
	chunks sync.Pool // *[]byte of large ones

	mu        sync.Mutex
	queue     queue                  // guarded by mu
	memory    memory                 // guarded by mu
	threads   threads                // guarded by mu
	polling   bool                   // guarded by mu; an executor is reading the data socket
	polls     uint64                 // guarded by mu; how often somebody began to read
	pollDue   bool                   // guarded by mu; nobody has read for a tick: it goes before running
	pong      bool                   // guarded by mu; an answer to a ping waits to be written
	lastRun   time.Time              // guarded by mu; when the last quantum of any tenant began, or memory was given up
	rested    bool                   // guarded by mu; the process has been made smaller since
	trimDue   bool                   // guarded by mu; a stale tenant waits for an executor without work
	dozing    bool                   // guarded by mu; the janitor looks seldom
	trimming  bool                   // guarded by mu; an executor makes a stale tenant smaller
	stopped   bool                   // guarded by mu
	err       error                  // guarded by mu; why it stopped
	tenants   map[uint32]*tenant     // guarded by mu
	streams   map[uint64]*invocation // guarded by mu
	fetches   map[uint64]*subrequest // guarded by mu; whose last word was not said
	lastFetch uint64                 // guarded by mu; stream ids of subrequests rise
	early     early                  // guarded by mu
	timer     *time.Timer            // guarded by mu; fires at timerDue
	timerDue  float64                // guarded by mu; <0: not armed

	scrub scrub

	executors []*executor // one for each slot of the black box; fixed after New
	dog       *watchdog
	stop      chan struct{} // closed when stopped
	rouse     chan struct{} // ends the janitor's doze; capacity 1
}

// New makes a scheduler that reads and writes data and runs isolates of eng. It fills the pool
// of ready isolates before it returns, so that this happens before the process is sealed.
func New(eng *engine.Engine, data *workerside.Data, opt Options) (*Scheduler, error) {
	opt = opt.withDefaults()
	s := &Scheduler{
		opt:      opt,
		eng:      eng,
		data:     data,
		tenants:  make(map[uint32]*tenant),
		streams:  make(map[uint64]*invocation),
		fetches:  make(map[uint64]*subrequest),
		timerDue: -1,
		lastRun:  time.Now(),
		stop:     make(chan struct{}),
		rouse:    make(chan struct{}, 1),
	}
	s.threads.idle = sync.NewCond(&s.mu)
	s.scrub.wiped = sync.NewCond(&s.mu)
	s.frames.New = func() any { b := make([]byte, 0, smallFrame); return &b }
	if opt.BlackBox != nil {
		box, err := ipc.NewBlackBox(opt.BlackBox)
		if err != nil {
			return nil, fmt.Errorf("scheduler: %w", err)
		}
		s.box = box
	}
	s.logs = newLogger()
	s.dog = newWatchdog(s)
	for i := range ipc.BlackBoxSlots {
		s.executors = append(s.executors, newExecutor(s, i))
	}
	p, err := newPool(eng, opt.Ready)
	if err != nil {
		return nil, fmt.Errorf("scheduler: first isolates: %w", err)
	}
	s.pool = p
	return s, nil
}

// Run serves until the gateway is gone, which is a nil error, or the data channel fails. It
// returns when all its threads are done and all isolates are disposed of.
func (s *Scheduler) Run() error {
	s.mu.Lock()
	s.startThread()
	s.mu.Unlock()
	s.goRun(s.dog.run)
	s.goRun(s.janitor)
	s.goRun(func() { s.logs.run(s.stop) })
	s.goRun(func() { s.pool.run(s.stop) })
	s.work.Wait()
	s.pool.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
	if errors.Is(s.err, io.EOF) {
		return nil
	}
	return s.err
}

func (s *Scheduler) goRun(f func()) {
	s.work.Add(1)
	go func() {
		defer s.work.Done()
		f()
	}()
}

// halt stops everything with the first error given.
func (s *Scheduler) halt(err error) {
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		return
	}
	s.stopped, s.err = true, err
	close(s.stop)
	for _, t := range s.tenants {
		t.queue = nil
	}
	s.queue.runnable = nil
	s.threads.idle.Broadcast()
	s.scrub.wiped.Broadcast()
	s.mu.Unlock()
	for _, x := range s.executors {
		x.terminate(engine.ReasonEvict)
	}
}

// smallFrame is the size up to which copies of frames are pooled.
const smallFrame = 4 << 10

// keep copies a frame out of the reader's buffer.
func (s *Scheduler) keep(raw []byte) []byte {
	if len(raw) > smallFrame {
		return s.keepLarge(raw)
	}
	b := *s.frames.Get().(*[]byte)
	return append(b[:0], raw...)
}

// A chunk of the largest size in its frame fits a pooled copy; one much smaller would waste it.
const (
	largeFrame = ipc.ChunkRoom + 64<<10
	leastLarge = 32 << 10
)

func (s *Scheduler) keepLarge(raw []byte) []byte {
	if len(raw) < leastLarge || len(raw) > largeFrame {
		return append([]byte(nil), raw...)
	}
	b, _ := s.chunks.Get().(*[]byte)
	if b == nil {
		p := make([]byte, 0, largeFrame)
		b = &p
	}
	return append((*b)[:0], raw...)
}

// drop wipes a copy made by keep and gives it back.
func (s *Scheduler) drop(b []byte) {
	clear(b)
	switch cap(b) {
	case smallFrame:
		s.frames.Put(&b)
	case largeFrame:
		s.chunks.Put(&b)
	}
}

// poll reads one batch from the data socket and fills mailboxes. Called, without mu, by the
// executor that holds the polling role; returns with mu held and the role given up.
func (s *Scheduler) poll() error {
	var nowMs float64
	locked := false
	err := s.data.Poll(func(f gen.Frame, raw []byte) error {
		if !locked {
			nowMs = float64(time.Now().UnixMilli())
			s.mu.Lock()
			locked = true
		}
		return s.dispatch(f, raw, nowMs)
	})
	if !locked {
		s.mu.Lock()
	}
	s.polling = false
	// Whoever reads also runs; help is called for when there is work for two.
	if len(s.queue.runnable) > 1 {
		s.call()
	}
	if s.pong {
		// Written before anything runs: the gateway kills a shard that is slow to answer.
		s.pong = false
		s.mu.Unlock()
		s.flush()
		s.mu.Lock()
	}
	return err
}

// dispatch files one frame from the gateway. Caller holds mu. Frames of streams that are over
// are in flight legitimately and ignored.
func (s *Scheduler) dispatch(f gen.Frame, raw []byte, nowMs float64) error {
	id := f.Stream()
	switch f.Which() {
	case gen.Frame_Which_ping:
		s.data.Begin().Pong(f.Ping())
		s.data.End()
		s.pong = true
		return nil
	case gen.Frame_Which_open:
		return s.dispatchOpen(f, raw)
	}
	e := event{inv: s.streams[id], nowMs: nowMs}
	if id&ipc.FetchBit != 0 {
		if e.sub = s.fetches[id]; e.sub != nil {
			e.inv = e.sub.inv
		}
	}
	if e.inv == nil {
		return nil
	}
	switch f.Which() {
	case gen.Frame_Which_chunk:
		e.kind, e.frame = evChunk, s.keep(raw)
	case gen.Frame_Which_message_:
		e.kind, e.frame = evMessage, s.keep(raw)
	case gen.Frame_Which_end:
		e.kind = evEnd
	case gen.Frame_Which_abort:
		reason, text, err := ipc.DecodeAbort(f, &s.opt.Wire)
		if err != nil {
			return err
		}
		e.kind, e.reason, e.text = evAbort, reason, text
	case gen.Frame_Which_window:
		e.kind, e.n, e.nowMs = evWindow, f.Window(), 0
	case gen.Frame_Which_head:
		if e.sub == nil {
			return ipc.Violation(ipc.KindType, id, "the gateway answers only subrequests")
		}
		e.kind, e.frame = evHead, s.keep(raw)
	default:
		return ipc.Violation(ipc.KindType, id, "the gateway sends no %s frames", f.Which())
	}
	s.post(e.inv.t, e)
	s.shed()
	return nil
}

// dispatchOpen registers a new stream. Caller holds mu.
func (s *Scheduler) dispatchOpen(f gen.Frame, raw []byte) error {
	o, err := f.Open()
	if err != nil || !o.IsValid() {
		return ipc.Violation(ipc.KindEncoding, f.Stream(), "open frame without its struct")
	}
	id := f.Stream()
	now := time.Now()
	t := s.tenants[o.Tenant()]
	if t == nil {
		t = s.awaited(o.Tenant(), now)
	}
	if t == nil || len(t.evict) > 0 || id == 0 {
		// An evict may overtake requests on the other channel; the gateway places them anew.
		s.data.Begin().Done(id, &ipc.Done{Outcome: gen.Outcome_killed, Message: "the tenant was moved out of this process"})
		s.data.End()
		return nil
	}
	if s.streams[id] != nil {
		return ipc.Violation(ipc.KindStream, id, "stream opened twice")
	}
	inv := &invocation{stream: id, id: uint32(id) &^ fetchID, t: t, window: s.opt.Wire.Window, started: now}
	inv.deadline.Store(now.Add(t.limits.wall).UnixNano())
	if t.awaited {
		if s.early.requests >= earlyRequests {
			// Not loadShed: that is for good, and this one need only wait where there is room, in the gateway.
			s.refuse(inv, gen.Outcome_notLoaded, "too many requests wait for tenants that are being started")
			return nil
		}
		s.early.requests++
	} else {
		t.inFlight.Add(1)
	}
	s.streams[id] = inv
	if s.dozing { // its wall clock runs from now on
		s.dozing = false
		select {
		case s.rouse <- struct{}{}:
		default: // it was called before, and has not looked yet
		}
	}
	s.post(t, event{kind: evOpen, inv: inv, frame: s.keep(raw)})
	s.shed()
	return nil
}

const (
	janitorEvery = 25 * time.Millisecond
	// janitorDozes is how long the janitor sleeps while there is nothing that it could find late. A host has
	// hundreds of shards that nobody asks anything: forty looks a second in each took two thirds of a core of 200.
	janitorDozes = 500 * time.Millisecond
)

// janitor looks for invocations whose wall clock has run out while they wait.
func (s *Scheduler) janitor() {
	tick := time.NewTimer(janitorEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		case <-s.rouse:
		}
		now := time.Now()
		s.mu.Lock()
		woke := false
		for _, inv := range s.streams {
			if !inv.late && !inv.t.awaited && now.UnixNano() > inv.deadline.Load() {
				inv.late, woke = true, true
				s.post(inv.t, event{kind: evDeadline, inv: inv})
			}
		}
		if woke {
			s.call()
		}
		s.expire(now)
		s.askToTrim(now)
		s.retireThreads(now)
		rest := s.resting(now)
		next := janitorEvery
		if s.dozing = len(s.streams) == 0 && len(s.early.tenants) == 0 && !s.trimDue && !s.trimming; s.dozing {
			next = janitorDozes
		}
		tick.Reset(next)
		s.mu.Unlock()
		if rest {
			// Go's heap and the C++ one keep what their last burst needed; nobody waits for a core now.
			s.eng.Trim()
			debug.FreeOSMemory()
		}
	}
}

// setTimer notes when a tenant wants its next timer turn and on whose account. Caller holds mu.
func (s *Scheduler) setTimer(t *tenant, dueMs float64, inv uint32) {
	t.dueInv = inv
	if t.due == dueMs {
		return
	}
	t.due = dueMs
	s.rearm()
}

// rearm sets the Go timer to the earliest tenant's. At most 64 tenants share a shard, so a
// scan beats a heap. Caller holds mu.
func (s *Scheduler) rearm() {
	due := -1.0
	for _, t := range s.tenants {
		if t.due >= 0 && !t.ticking && (due < 0 || t.due < due) {
			due = t.due
		}
	}
	if due == s.timerDue || s.stopped {
		return
	}
	s.timerDue = due
	if due < 0 {
		s.timer.Stop()
		return
	}
	wait := time.Until(time.UnixMicro(int64(due * 1000)))
	if s.timer == nil {
		s.timer = time.AfterFunc(wait, s.timerFired)
		return
	}
	s.timer.Reset(wait)
}

// timerFired posts a timer event to every tenant that is due.
func (s *Scheduler) timerFired() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := float64(time.Now().UnixMicro()) / 1000
	for _, t := range s.tenants {
		if t.due >= 0 && t.due <= now && !t.ticking {
			t.ticking = true
			s.post(t, event{kind: evTimer})
		}
	}
	s.timerDue = -1
	s.rearm()
	s.call()
}
