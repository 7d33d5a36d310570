package gatewayside

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"bulkhead/ipc"
	"bulkhead/policy/limits"
	"bulkhead/schema/gen"
)

// ErrBodyRefused is what WriteBody and CloseBody return once the tenant reads no more of the
// request's body, or the stream is over. The caller goes on with the response.
var ErrBodyRefused = errors.New("the request body is not wanted any more")

// OpenRequest starts an invocation. Limits are those of limits.Wire.
type OpenRequest struct {
	Tenant     uint32 // handle given to Load
	Method     string
	URL        string // absolute
	Headers    []byte // flat: "name\nvalue\n" repeated, lower-case names
	Body       []byte // the first bytes, or all of them; see BodyMode
	BodyMode   gen.BodyMode
	RequestID  string
	ReceivedMs float64 // wall clock at the request's head, ms since 1970
	Attempt    uint8   // 1 for the first try
	Event      gen.Event
	Entrypoint string // export that handles the event; "": the default one
	Name       string // see schema Open.name
	Props      string // JSON; likewise
	// Chain names the tenants whose invocations led to this one, the client's first. It stays here.
	Chain []string
	// Upgrade: the client asks for a WebSocket. The head may have status 101 then; see socket.go.
	Upgrade bool
	// Serves is the call of another tenant's that this invocation answers, if it does: it can call the
	// functions in that call's arguments. It stays here.
	Serves *Subrequest

	carrier  uint64 // of a function event; see Subrequest.OpenFunction
	function uint16
}

// check refuses what the worker's decoder would refuse: sending it would cost the connection.
func (r *OpenRequest) check(w *limits.Wire) error {
	switch {
	case len(r.URL) > w.URLBytes:
		return fmt.Errorf("open stream: URL of %d bytes, limit %d", len(r.URL), w.URLBytes)
	case len(r.Body) > w.ChunkBytes:
		return fmt.Errorf("open stream: first body part of %d bytes, limit %d: stream the rest", len(r.Body), w.ChunkBytes)
	case r.BodyMode == gen.BodyMode_none && len(r.Body) != 0:
		return errors.New("open stream: a body in a request without one")
	case r.BodyMode > gen.BodyMode_streamed:
		return fmt.Errorf("open stream: body mode %d", r.BodyMode)
	case len(r.Method) == 0 || len(r.Method) > 32:
		return fmt.Errorf("open stream: method of %d bytes, 1 to 32 allowed", len(r.Method))
	case len(r.RequestID) > 128:
		return fmt.Errorf("open stream: request id of %d bytes, limit 128", len(r.RequestID))
	case len(r.Props) > ipc.MaxPropsBytes:
		return fmt.Errorf("open stream: props of %d bytes, limit %d", len(r.Props), ipc.MaxPropsBytes)
	case len(r.Entrypoint) > ipc.MaxNameBytes || len(r.Name) > ipc.MaxNameBytes:
		return fmt.Errorf("open stream: entrypoint or name of more than %d bytes", ipc.MaxNameBytes)
	}
	if err := ipc.CheckHeaders(r.Headers, w); err != nil {
		return fmt.Errorf("open stream: request headers: %s", err.(*ipc.ViolationError).Detail)
	}
	return nil
}

// Head is a response's beginning. Headers are checked flat headers and hold hop-by-hop fields
// if the tenant set them.
type Head struct {
	Status    int
	Headers   []byte
	Body      []byte // all of it if BodyWhole; Read returns it too. Not to be changed.
	BodyWhole bool
	NoBody    bool
}

// Result is how a stream ended. Message is for the tenant's developer; CPUMicros is the
// shard's claim.
type Result struct {
	Outcome   gen.Outcome
	Message   string
	CPUMicros uint64
}

// AbortError says that a response, or its rest, will not come.
type AbortError struct {
	Outcome gen.Outcome
	Message string
}

func (e *AbortError) Error() string {
	return fmt.Sprintf("response ended by the shard (%s): %s", e.Outcome, e.Message)
}

// Effect is what an invocation has done to the world: while it is none, the invocation can be run
// again elsewhere without anybody knowing.
type Effect uint32

// The effects that an invocation can have, besides a response that has begun to go out.
const (
	EffectSubrequest Effect = 1 << iota // a subrequest with a method that is not safe (RFC 9110 §9.2.1)
	EffectCall                          // a call of another tenant that had an effect
	EffectMessage                       // a WebSocket message
	EffectEvent                         // it is an event of the host's making, such as a cron run
)

// maxRefusals bounds what a shard says to no effect. An honest one refuses a body once.
const maxRefusals = 8

// direction is the state of one direction's body.
type direction uint8

const (
	bodyOpen direction = iota
	bodyClosed
	bodyAborted
)

// Stream is one invocation. Its methods may be called from different goroutines; each of
// Head, Read and WriteBody by one at a time.
type Stream struct {
	c      *Conn
	t      *tenant
	id     uint64
	tenant uint32
	name   string        // the client's request id
	chain  []string      // OpenRequest.Chain
	wall   time.Duration // allowed from its opening to the response's end
	grace  time.Duration // allowed from the response's end to done

	// deadline is when the stream is ended from this side, Unix ns.
	deadline atomic.Int64

	effects   atomic.Uint32 // of Effect
	evacuated atomic.Bool
	streamed  bool // the request's body is not in its first frame

	mu        sync.Mutex
	headReady chan struct{} // closed by mu's holder when head is set or the stream is over
	head      *Head         // guarded by mu
	headless  bool          // guarded by mu; the stream was over without a head: what crosses the end is nobody's
	response  direction     // guarded by mu; as the shard's frames have it, whatever ended here
	failure   *AbortError   // guarded by mu; what Head or Read return when nothing is left
	buf       backlog       // guarded by mu; received, not read

	recvWindow int           // guarded by mu; bytes the shard may still send
	consumed   int           // guarded by mu; read here, not yet granted again
	unwanted   bool          // guarded by mu; nobody reads the response: drop it
	canceled   bool          // guarded by mu; the client left or the deadline passed
	readable   chan struct{} // guarded by mu; made by a reader that waits

	request    direction     // guarded by mu
	sendWindow int           // guarded by mu; bytes the shard still takes
	writable   chan struct{} // guarded by mu; made by a writer that waits
	refusals   int           // guarded by mu; that the shard has sent

	over    bool          // guarded by mu; result is final for the caller
	result  Result        // guarded by mu
	gone    bool          // guarded by mu; done received, or the connection ended
	done    chan struct{} // guarded by mu; made by Done
	expired bool          // guarded by mu; ended by deadline, done awaited

	upgrade bool        // OpenRequest.Upgrade
	serves  *Subrequest // OpenRequest.Serves
	socket  socket      // guarded by mu

	subs  map[uint64]*Subrequest // guarded by mu; those that the shard has not let go of
	asked int                    // guarded by mu; fetch frames
	spent int                    // guarded by mu; fetch frames and redirects followed
}

// ID is the stream's number, unique over the life of the connection.
func (s *Stream) ID() uint64 { return s.id }

// Effects says what the invocation has done to the world so far.
func (s *Stream) Effects() Effect { return Effect(s.effects.Load()) }

// MarkEffect notes an effect, before it takes place.
func (s *Stream) MarkEffect(e Effect) { s.effects.Or(uint32(e)) }

// receive judges one frame from the shard and applies it. Called by the connection's reader
// only; never blocks.
func (s *Stream) receive(f gen.Frame) error {
	w := &s.c.opt.Wire
	switch f.Which() {
	case gen.Frame_Which_head:
		h, err := ipc.DecodeHead(f, w)
		if err != nil {
			return err
		}
		return s.onHead(&h)
	case gen.Frame_Which_chunk:
		p, err := ipc.DecodeChunk(f, w)
		if err != nil {
			return err
		}
		return s.onChunk(p)
	case gen.Frame_Which_end:
		return s.onEnd()
	case gen.Frame_Which_abort:
		reason, msg, err := ipc.DecodeAbort(f, w)
		if err != nil {
			return err
		}
		return s.onAbort(reason, msg)
	case gen.Frame_Which_window:
		return s.onWindow(f.Window())
	case gen.Frame_Which_message_:
		m, err := ipc.DecodeMessage(f, w)
		if err != nil {
			return err
		}
		return s.onMessage(&m)
	case gen.Frame_Which_done:
		d, err := ipc.DecodeDone(f, w)
		if err != nil {
			return err
		}
		return s.onDone(&d)
	default:
		return ipc.Violation(ipc.KindType, s.id, "unknown frame type %d", f.Which())
	}
}

func (s *Stream) onHead(h *ipc.Head) error {
	// One allocation for both, as they live equally long.
	both := make([]byte, 0, len(h.Headers)+len(h.Body))
	both = append(append(both, h.Headers...), h.Body...)
	n := len(h.Headers)
	head := &Head{Status: int(h.Status), Headers: both[:n:n]}

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.head != nil {
		return ipc.Violation(ipc.KindState, s.id, "second head")
	}
	if h.Status == ipc.StatusUpgrade {
		return s.onUpgrade(head)
	}
	body := both[n:]
	s.head = head
	s.recvWindow -= len(body)
	switch h.BodyMode {
	case gen.BodyMode_none:
		head.NoBody = true
	case gen.BodyMode_whole:
		head.BodyWhole, head.Body = true, body
	}
	if h.BodyMode != gen.BodyMode_streamed {
		s.endResponse()
	}
	if !s.unwanted {
		s.buf.first = body
	}
	if !s.over {
		close(s.headReady)
	}
	return nil
}

// endResponse notes the response's last byte and starts the clock of what may follow it.
// Caller holds mu.
func (s *Stream) endResponse() {
	s.response = bodyClosed
	if !s.expired {
		s.deadline.Store(time.Now().Add(s.grace).UnixNano())
	}
}

// streaming refuses body frames when no body is under way. Caller holds mu.
func (s *Stream) streaming(what string) error {
	if s.head == nil || s.response != bodyOpen || s.socket.open {
		return ipc.Violation(ipc.KindState, s.id, "%s without a body under way", what)
	}
	return nil
}

func (s *Stream) onChunk(p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.streaming("chunk"); err != nil {
		return err
	}
	if len(p) > s.recvWindow {
		return ipc.Violation(ipc.KindWindow, s.id, "chunk of %d bytes, window %d", len(p), s.recvWindow)
	}
	s.recvWindow -= len(p)
	if s.unwanted {
		return nil
	}
	s.buf.add(p)
	notify(s.readable)
	return nil
}

func (s *Stream) onEnd() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.streaming("end"); err != nil {
		return err
	}
	s.endResponse()
	notify(s.readable)
	return nil
}

func (s *Stream) onAbort(reason gen.Abort_Reason, msg string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch reason {
	case gen.Abort_Reason_failed:
		if err := s.streaming("abort"); err != nil {
			return err
		}
		s.endResponse()
		s.response = bodyAborted
		if s.failure == nil {
			s.failure = &AbortError{Outcome: gen.Outcome_exception, Message: msg}
		}
		notify(s.readable)
		return nil
	case gen.Abort_Reason_refused:
		if s.refusals++; s.refusals > maxRefusals {
			return ipc.Violation(ipc.KindState, s.id, "%d refusals of one body", s.refusals)
		}
		if s.request == bodyAborted {
			// It may cross our own abort on the wire; a second of its own is not told apart.
			return nil
		}
		s.request = bodyAborted
		notify(s.writable)
		return nil
	default:
		return ipc.Violation(ipc.KindState, s.id, "a shard does not abort with reason %s", reason)
	}
}

func (s *Stream) onWindow(n uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A shard grants what it has consumed, so the sum never exceeds the first window; grants that
	// cross an abort are counted like others, or frames could come without end.
	if n == 0 || int64(s.sendWindow)+int64(n) > int64(s.c.opt.Wire.Window) {
		return ipc.Violation(ipc.KindWindow, s.id, "grant of %d bytes on top of %d", n, s.sendWindow)
	}
	s.sendWindow += int(n)
	s.acknowledged()
	notify(s.writable)
	return nil
}

// shardOutcomes are the outcomes a shard may claim. The others are the gateway's to decide.
var shardOutcomes = [...]bool{
	gen.Outcome_ok:               true,
	gen.Outcome_exception:        true,
	gen.Outcome_exceededCpu:      true,
	gen.Outcome_exceededMemory:   true,
	gen.Outcome_exceededWallTime: true,
	gen.Outcome_killed:           true,
	gen.Outcome_loadShed:         true,
	gen.Outcome_canceled:         true,
	gen.Outcome_notLoaded:        true,
	gen.Outcome_internalError:    true,
}

func (s *Stream) onDone(d *ipc.Done) error {
	if int(d.Outcome) >= len(shardOutcomes) || !shardOutcomes[d.Outcome] {
		return ipc.Violation(ipc.KindOutcome, s.id, "a shard does not decide %s", d.Outcome)
	}
	s.mu.Lock()
	if d.Outcome == gen.Outcome_ok && s.response == bodyOpen && !s.unwanted {
		s.mu.Unlock()
		return ipc.Violation(ipc.KindState, s.id, "ok before the end of the response")
	}
	s.mu.Unlock()
	s.c.forget(s.id)
	s.c.releaseAll(s)
	s.closeSocket()
	s.finish(Result{Outcome: d.Outcome, Message: d.Message, CPUMicros: d.CPUMicros})
	return nil
}

// finish gives the stream its result, once, and wakes everybody.
func (s *Stream) finish(r Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
	s.conclude(r)
}

// conclude is finish for a stream whose done frame may still be awaited. Caller holds mu.
func (s *Stream) conclude(r Result) {
	if s.over {
		return
	}
	s.over, s.result = true, r
	if s.response == bodyOpen {
		s.failure = &AbortError{Outcome: r.Outcome, Message: r.Message}
	}
	s.request = bodyAborted
	if s.head == nil {
		s.headless = true
		close(s.headReady)
	}
	notify(s.readable)
	notify(s.writable)
	s.orphan()
	if s.done != nil {
		close(s.done)
	}
}

// overdue reports whether the deadline has passed.
func (s *Stream) overdue(now time.Time) bool { return now.UnixNano() > s.deadline.Load() }

// expire ends an overdue stream for its caller and asks the shard to end it. It returns false
// if that had been asked before and the shard did not comply.
func (s *Stream) expire(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return true
	}
	if s.expired {
		return false
	}
	s.expired = true
	s.deadline.Store(now.Add(s.grace).UnixNano())
	s.drop()
	s.conclude(Result{Outcome: gen.Outcome_exceededWallTime, Message: s.lateness()})
	s.c.w.begin().Abort(s.id, gen.Abort_Reason_deadline, "")
	s.c.w.end()
	return true
}

// lateness says which limit the stream has exceeded. Caller holds mu.
func (s *Stream) lateness() string {
	if s.response == bodyClosed {
		return fmt.Sprintf("exceeded what may follow its response: no end within %d ms", s.grace.Milliseconds())
	}
	return fmt.Sprintf("exceeded its wall-clock limit of %d ms, and did not end when it was told to", s.wall.Milliseconds())
}

// drop forgets what was received and will be. Caller holds mu.
func (s *Stream) drop() {
	s.unwanted = true
	s.buf.drop()
}

// notify wakes the goroutine that made c, if any.
func notify(c chan struct{}) {
	if c == nil {
		return
	}
	select {
	case c <- struct{}{}:
	default:
	}
}
