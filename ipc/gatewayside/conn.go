package gatewayside

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"bulkhead/ipc"
	"bulkhead/policy/limits"
	"bulkhead/schema/gen"

	"golang.org/x/sys/unix"
)

// Errors that a Conn ends with, besides *ipc.ViolationError. Test with errors.Is.
var (
	// ErrClosed: Close was called.
	ErrClosed = errors.New("the connection to the shard was closed")
	// ErrPeerGone: the shard closed its end or died.
	ErrPeerGone = errors.New("the shard is gone")
	// ErrNotLoaded: the tenant is not loaded in this shard, perhaps not any more. Nothing was sent.
	ErrNotLoaded = errors.New("it is not loaded in this shard")
	// ErrUnresponsive: the shard left a ping, or the end of a stream, unanswered past its deadline. It
	// may be a livelock, a stopped process, or a machine that gave it no processor.
	ErrUnresponsive = errors.New("the shard does not answer")
	// ErrTooManyStreams: Wire.Streams streams are in flight; the caller sheds load.
	ErrTooManyStreams = errors.New("too many requests in flight on this shard")
)

// Options of a Conn. Zero fields take the defaults named.
type Options struct {
	Wire limits.Wire // limits.DefaultWire()
	// OnViolation is called at most once, from a goroutine of the Conn and without locks held,
	// when the shard breaks the protocol. The shard must be killed.
	OnViolation func(error)
	// PingTimeout without an answer makes a shard at work a suspect; 45 ms, and 5 s without Look. See
	// pulse.
	PingTimeout time.Duration
	// PingEvery is how long a shard at work may be silent before it is asked; 20 ms.
	PingEvery time.Duration
	// Look says what the shard's process is doing, as the kernel has it. With it, one that only lacks
	// a processor is waited for longer than one that hangs; nil: all are taken to hang.
	Look  func(context.Context) (Activity, error)
	Grace time.Duration // 2 s beyond a tenant's own limits before a stream is ended here
	// FrameTimeout is how long a message may take from its first byte to its last, on either channel; 10 s.
	FrameTimeout time.Duration
}

func (o Options) withDefaults() Options {
	if o.Wire == (limits.Wire{}) {
		o.Wire = limits.DefaultWire()
	}
	if o.PingEvery == 0 {
		o.PingEvery = 20 * time.Millisecond
	}
	if o.PingTimeout == 0 {
		o.PingTimeout = 45 * time.Millisecond
		if o.Look == nil {
			o.PingTimeout = restTimeout // nothing tells a busy machine from a shard that hangs
		}
	}
	if o.Grace == 0 {
		o.Grace = 2 * time.Second
	}
	if o.FrameTimeout == 0 {
		o.FrameTimeout = 10 * time.Second
	}
	return o
}

// Conn is the gateway's end of the channels to one shard. Safe for concurrent use.
type Conn struct {
	opt     Options
	w       writer
	data    io.ReadCloser
	control io.Closer // the RPC connection
	shard   gen.Shard
	dialed  chan struct{} // closed when control and shard are set
	closed  chan struct{}
	running sync.WaitGroup

	halfSince atomic.Int64 // pulse's now when the frame that is not whole yet began; 0: none

	failOnce sync.Once
	err      error      // written before closed is closed
	inFlight []InFlight // as err
	pulse    pulse

	mu      sync.Mutex
	streams map[uint64]*Stream // guarded by mu; nil once failed
	nextID  uint64             // guarded by mu
	sockets int                // guarded by mu; those of streams that are WebSockets, which wait for their clients
	tenants map[uint32]*tenant // guarded by mu

	fetches   map[uint64]*Subrequest // guarded by mu; those that the shard has not let go of
	lastFetch uint64                 // guarded by mu; the shard's ids rise
}

// InFlight is an invocation that had not ended when the connection did.
type InFlight struct {
	Stream uint64
	Tenant uint32 // handle
}

// Dial takes over both sockets of a shard, which it closes when the connection ends. Both
// must be stream sockets; they are made non-blocking here.
func Dial(control, data *os.File, opt Options) (*Conn, error) {
	opt = opt.withDefaults()
	cf, err := pollable(control, "control")
	if err != nil {
		return nil, errors.Join(err, data.Close())
	}
	df, err := pollable(data, "data")
	if err != nil {
		return nil, errors.Join(err, cf.Close())
	}
	c := &Conn{
		opt:     opt,
		data:    df,
		dialed:  make(chan struct{}),
		closed:  make(chan struct{}),
		streams: make(map[uint64]*Stream),
		tenants: make(map[uint32]*tenant),
		fetches: make(map[uint64]*Subrequest),
	}
	c.pulse.begin(&c.opt)
	c.w.f, c.w.wake, c.w.pending = df, make(chan struct{}, 1), new(ipc.Batch)
	c.dialControl(cf)
	c.goRun(func() { c.fail(c.read(ipc.NewScanner(&c.opt.Wire))) })
	c.goRun(func() {
		if err := c.w.run(c.closed); err != nil {
			c.fail(fmt.Errorf("data channel: write: %w: %w", ErrPeerGone, err))
		}
	})
	c.goRun(c.heartbeat)
	return c, nil
}

// pollable returns f's socket as a file of Go's poller, so that reads can be interrupted and
// no thread waits in them, and closes f.
func pollable(f *os.File, name string) (*os.File, error) {
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("shard %s socket: %w", name, err)
	}
	fd, dupErr := -1, error(nil)
	if err := raw.Control(func(p uintptr) {
		fd, dupErr = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return nil, fmt.Errorf("shard %s socket: %w", name, err)
	}
	if dupErr != nil {
		return nil, fmt.Errorf("shard %s socket: duplicate: %w", name, dupErr)
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("shard %s socket: make non-blocking: %w", name, err)
	}
	return os.NewFile(uintptr(fd), "shard-"+name), nil
}

func (c *Conn) goRun(f func()) {
	c.running.Add(1)
	go func() {
		defer c.running.Done()
		f()
	}()
}

// Closed is closed when the connection has ended; Err then says why.
func (c *Conn) Closed() <-chan struct{} { return c.closed }

// Err is nil while the connection lives, else the reason of its end: *ipc.ViolationError, or
// one of this package's errors wrapped.
func (c *Conn) Err() error {
	select {
	case <-c.closed:
		return c.err
	default:
		return nil
	}
}

// InFlight lists, once Closed is closed, the invocations that were then in the shard: what the
// gateway itself knows to have been running or waiting there.
func (c *Conn) InFlight() []InFlight {
	select {
	case <-c.closed:
		return c.inFlight
	default:
		return nil
	}
}

// Close ends the connection; open streams end killed. It waits for the Conn's goroutines and
// returns nil, also when the connection had already ended.
func (c *Conn) Close() error {
	c.fail(ErrClosed)
	c.running.Wait()
	return nil
}

// fail ends the connection with the first error given.
func (c *Conn) fail(err error) {
	c.failOnce.Do(func() {
		c.mu.Lock()
		open := c.streams
		c.streams = nil
		c.mu.Unlock()
		c.err, c.inFlight = err, make([]InFlight, 0, len(open))
		for id, s := range open {
			c.inFlight = append(c.inFlight, InFlight{Stream: id, Tenant: s.tenant})
		}
		close(c.closed)
		c.w.stop()
		c.data.Close()
		c.goRun(func() {
			// A shard can break the protocol before dialControl has returned.
			<-c.dialed
			// In this order: releasing a bootstrap capability waits for its answer, which
			// closing turns into an error.
			c.control.Close()
			c.shard.Release()
		})
		res := Result{Outcome: gen.Outcome_crashed, Message: "the worker process died while this request was in it"}
		var v *ipc.ViolationError
		var late *OverdueError
		switch {
		case errors.As(err, &v):
			res = Result{Outcome: gen.Outcome_protocolViolation, Message: "the worker process broke the protocol and was stopped"}
		case errors.Is(err, ErrClosed):
			res = Result{Outcome: gen.Outcome_killed, Message: "the worker process was stopped"}
		}
		if errors.As(err, &late) && open[late.Stream] != nil {
			open[late.Stream].finish(Result{Outcome: gen.Outcome_exceededCpu, Message: late.message(), CPUMicros: uint64(late.CPU.Microseconds())})
		}
		for _, s := range open {
			s.finish(res)
		}
		if v != nil && c.opt.OnViolation != nil {
			c.opt.OnViolation(err)
		}
	})
}

// read reads batches and dispatches their frames until one is refused or there are no more; its error
// says which.
func (c *Conn) read(sc *ipc.Scanner) error {
	for {
		n, err := c.data.Read(sc.Free())
		sc.Fill(n)
		c.pulse.heard()
		whole := false
		for {
			f, ok, verr := sc.Next()
			if verr == nil && ok {
				verr = c.dispatch(f)
			}
			if verr != nil {
				return verr
			}
			if !ok {
				break
			}
			whole = true
		}
		switch {
		case sc.Buffered() == 0:
			c.halfSince.Store(0)
		case whole || c.halfSince.Load() == 0:
			c.halfSince.Store(max(1, c.pulse.now()))
		}
		if err != nil {
			if errors.Is(err, io.EOF) && sc.Buffered() > 0 {
				return fmt.Errorf("data channel: %w in the middle of a frame", ErrPeerGone)
			}
			return fmt.Errorf("data channel: read: %w: %w", ErrPeerGone, err)
		}
	}
}

// dispatch judges one frame. Its error is a *ipc.ViolationError.
func (c *Conn) dispatch(f gen.Frame) error {
	switch f.Which() {
	case gen.Frame_Which_pong:
		return c.pulse.pong(f)
	case gen.Frame_Which_overdue:
		return c.overdue(f)
	case gen.Frame_Which_open, gen.Frame_Which_ping:
		return ipc.Violation(ipc.KindType, f.Stream(), "a shard sends no %s frames", f.Which())
	}
	id := f.Stream()
	if id&ipc.FetchBit != 0 || f.Which() == gen.Frame_Which_fetch {
		return c.receiveFetch(f)
	}
	c.mu.Lock()
	s := c.streams[id]
	over := c.streams == nil
	c.mu.Unlock()
	if over {
		return ErrClosed
	}
	if s == nil {
		return ipc.Violation(ipc.KindStream, id, "%s frame for a stream that is not open", f.Which())
	}
	return s.receive(f)
}

// sweepEvery is how often streams are looked at for passed deadlines.
const sweepEvery = 250 * time.Millisecond

// heartbeat asks the shard for signs of life and ends what has outlived its deadline.
func (c *Conn) heartbeat() {
	timer := time.NewTimer(c.opt.PingEvery)
	defer timer.Stop()
	due, swept := time.Now().Add(c.opt.PingEvery), time.Now()
	for {
		woken := false
		select {
		case <-c.closed:
			return
		case <-timer.C:
		case <-c.pulse.wake:
			woken = true
		}
		now := time.Now()
		late := max(0, now.Sub(due))
		if woken {
			late = 0
		}
		busy := c.busy()
		ping, suspect, next := c.pulse.beat(late, busy)
		if suspect {
			if err := c.examine(); err != nil {
				c.fail(err)
				return
			}
			next = c.opt.PingEvery
		}
		if ping {
			c.w.begin().Ping(c.pulse.seq.Load())
			c.w.end()
		}
		if now.Sub(swept) >= sweepEvery {
			swept = now
			var err error
			if late < sweepEvery { // else our own reader may not have had a processor
				err = c.dripping(now)
			}
			if err == nil {
				err = c.sweep(now)
			}
			if err != nil {
				c.fail(err)
				return
			}
		}
		if busy {
			next = min(next, sweepEvery)
		}
		if next > c.opt.PingEvery {
			c.pulse.resting.Store(true) // work wakes this goroutine, also if it came just now
			if c.pulse.working() {
				c.pulse.resting.Store(false)
				next = c.opt.PingEvery
			}
		}
		due = time.Now().Add(next)
		timer.Reset(next)
	}
}

func (c *Conn) busy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.streams) > c.sockets
}

// dripping is a breach of the protocol: a shard that begins a frame sends the rest of it. An honest
// one writes whole batches, and stops in one only while nobody here reads. Where a stream's deadline
// passes behind such a frame, it is the frame that is late and not the stream, which may be a
// neighbour's: it is not ended for it, but replayed elsewhere.
func (c *Conn) dripping(now time.Time) error {
	since := c.halfSince.Load()
	if since == 0 {
		return nil
	}
	took := time.Duration(c.pulse.now() - since)
	if took < c.opt.FrameTimeout && (took < halfAtDeadline || len(c.late(now)) == 0) {
		return nil
	}
	return ipc.Violation(ipc.KindFraming, 0, "a frame was not whole after %v", took.Round(time.Millisecond))
}

// halfAtDeadline is how long a frame must have been half for a passed deadline to be its fault.
const halfAtDeadline = 500 * time.Millisecond

// sweep ends streams past their deadline. One whose end the shard does not confirm in time
// means that the shard hangs.
func (c *Conn) sweep(now time.Time) error {
	for _, s := range c.late(now) {
		if !s.expire(now) {
			return fmt.Errorf("stream %d did not end after its deadline: %w", s.id, ErrUnresponsive)
		}
	}
	return nil
}

// late are the streams past their deadline.
func (c *Conn) late(now time.Time) []*Stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	var late []*Stream
	for _, s := range c.streams {
		if s.overdue(now) {
			late = append(late, s)
		}
	}
	return late
}

// Open starts an invocation. It blocks only while the shard does not read, until ctx is done.
func (c *Conn) Open(ctx context.Context, r OpenRequest) (*Stream, error) {
	if err := r.check(&c.opt.Wire); err != nil {
		return nil, err
	}
	if err := c.w.room(ctx, c.closed); err != nil {
		return nil, fmt.Errorf("open stream: the shard does not read: %w", err)
	}
	s := &Stream{c: c, upgrade: r.Upgrade, name: r.RequestID, chain: r.Chain, serves: r.Serves, headReady: make(chan struct{}), recvWindow: c.opt.Wire.Window, sendWindow: c.opt.Wire.Window - len(r.Body)}
	s.streamed = r.BodyMode == gen.BodyMode_streamed
	if !s.streamed {
		s.request, s.sendWindow = bodyClosed, 0
	}
	c.mu.Lock()
	t := c.tenants[r.Tenant]
	switch {
	case c.streams == nil:
		c.mu.Unlock()
		<-c.closed
		return nil, fmt.Errorf("open stream: %w", c.err)
	case t == nil:
		c.mu.Unlock()
		return nil, fmt.Errorf("open stream: tenant handle %d: %w", r.Tenant, ErrNotLoaded)
	case len(c.streams) >= c.opt.Wire.Streams:
		c.mu.Unlock()
		return nil, ErrTooManyStreams
	}
	c.nextID++
	s.id, s.tenant, s.t = c.nextID, r.Tenant, t
	s.wall, s.grace = t.limits.Wall, t.limits.WaitUntil+c.opt.Grace
	s.deadline.Store(time.Now().Add(t.limits.Wall + c.opt.Grace).UnixNano())
	c.streams[s.id] = s
	c.mu.Unlock()

	c.pulse.asked()
	c.w.begin().Open(s.id, &ipc.Open{
		Tenant: r.Tenant, Method: r.Method, URL: r.URL, Headers: r.Headers, Body: r.Body, BodyMode: r.BodyMode,
		RequestID: r.RequestID, ReceivedMs: r.ReceivedMs, Attempt: r.Attempt, Event: r.Event, Entrypoint: r.Entrypoint, Name: r.Name, Props: r.Props, Upgrade: r.Upgrade,
		Carrier: r.carrier, Function: r.function,
	})
	c.w.end()
	return s, nil
}

// forget removes a stream that is over.
func (c *Conn) forget(id uint64) {
	c.mu.Lock()
	delete(c.streams, id)
	c.mu.Unlock()
}
