package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"bulkhead/ipc/gatewayside"
	"bulkhead/schema/gen"
	"bulkhead/supervisor/observe"
	"bulkhead/supervisor/placement"
	"bulkhead/supervisor/tenants"
)

// call is one request on its way. It belongs to the goroutine of its connection.
type call struct {
	s     *Server
	w     http.ResponseWriter
	r     *http.Request
	g     *guard
	v     *tenants.Version
	stats *observe.Tenant
	id    string
	start time.Time
	req   gatewayside.OpenRequest
	lease placement.Lease
	held  bool // lease
	pump  *pump
	alone int  // deaths of shards in which nobody else was
	over  bool // its response has gone out whole

	event   bool          // it is an event of the host's, and no client waits
	settled chan struct{} // closed by settle, if it is not nil

	service *gatewayside.Subrequest // what it answers, if it is a call by another tenant; see service.go
}

// scratch is what a request needs of memory besides: flat headers, URL, a small body.
type scratch struct {
	headers, url, body []byte
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// copyBuffers are what bodies are copied through, each of the largest chunk's size.
var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// ServeHTTP serves one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g := r.Context().Value(guardKey{}).(*guard)
	g.handling.Store(true)
	if !s.asked.Load() {
		s.asked.Store(true) // read first: all processors share the line
	}
	c := call{s: s, w: w, r: r, g: g, id: newRequestID(), start: time.Now()}
	if !plainHost(r.Host) {
		c.refuse(http.StatusBadRequest, gen.Outcome_loadShed, "", "Host is not a name or address with a port", 0)
		return
	}
	path := r.RequestURI
	if path == "" || path[0] != '/' {
		path = r.URL.EscapedPath() // absolute form, or OPTIONS *
	}
	path, _, _ = strings.Cut(path, "?")
	if s.draining.Load() {
		w.Header()["Connection"] = []string{"close"}
		c.refuse(0, gen.Outcome_loadShed, "", "this host is shutting down; try again", 2*time.Second)
		return
	}
	v, ok := s.opt.Lookup(r.Context(), r.Host, path)
	if !ok {
		if s.opt.Index && localHost(r.Host) && localPeer(r.RemoteAddr) && !forwarded(r.Header) {
			s.serveIndex(&c, path)
			return
		}
		c.refuse(0, gen.Outcome_scriptNotFound, "", "no worker answers for this host name", 0)
		return
	}
	c.v = v
	c.stats = s.obs.Metrics.Tenant(v.Tenant)
	if !c.admit() {
		return
	}
	c.serve()
}

// admit counts the invocation in, or sheds it.
func (c *call) admit() bool {
	own := c.stats.Running.Add(1)
	if own > int64(max(1, c.v.Limits.Concurrent)) && c.v.Err == nil {
		c.stats.Running.Add(-1)
		c.shed(c.tooMany(own))
		return false
	}
	// No tenant may have more in flight than there is room left (dynamic thresholds, Choudhury and
	// Hahne 1998): however many want everything, there is always some for one that wants little.
	all, most := c.s.running.Add(1), int64(c.s.opt.MaxRunning)
	if own <= most-all+1 {
		return true
	}
	c.stats.Running.Add(-1)
	c.s.running.Add(-1)
	if all > most {
		c.shed("this host has as many requests in flight as it takes")
	} else {
		c.shed("this host is busy, and this worker has more requests in flight than its share")
	}
	return false
}

func (c *call) shed(message string) {
	c.stats.Count(gen.Outcome_loadShed)
	c.note("shed", message)
	c.answer(gen.Outcome_loadShed, message, time.Second)
}

// settle counts the invocation out: exactly once for each that was admitted.
func (c *call) settle(o gen.Outcome) {
	c.drop()
	c.stats.Count(o)
	c.stats.Running.Add(-1)
	c.s.running.Add(-1)
	c.s.obs.Metrics.Latency(time.Since(c.start))
	c.tail(o)
	if c.settled != nil {
		close(c.settled)
	}
}

// drop releases the lease, if any.
func (c *call) drop() {
	if c.held {
		c.held = false
		c.lease.Release()
	}
}

// serve runs an admitted invocation.
func (c *call) serve() {
	if c.v.Err != nil {
		c.startError(c.v.Err)
		c.settle(gen.Outcome_notLoaded)
		return
	}
	c.g.extendWrite(c.start.Add(c.v.Limits.Wall + c.s.opt.Grace))
	b := scratches.Get().(*scratch)
	if !c.prepare(b) {
		scratches.Put(b)
		return
	}
	stream, head, err := c.begin()
	// The frame was copied into the shard's batch: the scratch is free again.
	c.req.Headers, c.req.Body = nil, nil
	scratches.Put(b)
	switch {
	case err == nil:
		c.respond(stream, head)
	case stream != nil:
		c.failed(stream)
	default:
		c.stopPump(false) // of an earlier attempt
		c.refused(err)
	}
}

// errBodyLost: the request cannot be begun again, because the beginning of its body is gone. It ends
// as its first attempt did.
var errBodyLost = errors.New("the process ended while this request was in it, and its body could not be kept whole")

// prepare builds the frame's parts. A small body is read whole before the tenant sees anything of
// the request: what arrived whole can be replayed if the shard dies. It returns false if it has
// answered.
func (c *call) prepare(b *scratch) bool {
	if c.service != nil {
		return c.prepareService(b)
	}
	if c.event {
		return c.prepareEvent(b)
	}
	r := c.r
	b.headers = appendRequestHeaders(b.headers[:0], r)
	b.url = requestURL(b.url[:0], r, c.s.opt.Scheme)
	if !c.requestFits(b) {
		return false
	}
	upgrade := wantsSocket(r)
	if upgrade {
		b.headers = appendSocketHeader(b.headers)
	}
	c.req = gatewayside.OpenRequest{
		Upgrade: upgrade,
		Method:  r.Method, URL: string(b.url), Headers: b.headers, RequestID: c.id,
		ReceivedMs: float64(c.start.UnixMicro()) / 1e3, Attempt: 1,
	}
	switch n := r.ContentLength; {
	case n == 0:
	case n > 0 && n <= int64(c.s.wire.ChunkBytes):
		if cap(b.body) < int(n) {
			b.body = make([]byte, c.s.wire.ChunkBytes)
		}
		b.body = b.body[:n]
		c.g.SetReadDeadline(c.start.Add(c.v.Limits.Wall))
		if _, err := io.ReadFull(r.Body, b.body); err != nil {
			c.badBody(err)
			return false
		}
		c.g.SetReadDeadline(time.Time{}) // net/http watches for the client's leave from here on
		c.req.Body, c.req.BodyMode = b.body, gen.BodyMode_whole
	default:
		c.req.BodyMode = gen.BodyMode_streamed
	}
	return true
}

// begin opens the stream and waits for its head. Errors: with a stream, its Result says more;
// without one, nothing has begun. If a shard dies under a request that had no effect yet, the
// request is begun again (replay.go).
func (c *call) begin() (*gatewayside.Stream, *gatewayside.Head, error) {
	ctx := c.r.Context()
	c.req.Attempt = 1
	if c.service != nil && c.service.Function != 0 {
		return c.beginFunction(ctx)
	}
	early := true // until a load that was not waited for failed
	for tries := 1; ; tries++ {
		lease, err := c.acquire(ctx, early)
		if err != nil {
			return nil, nil, err
		}
		c.lease, c.held = lease, true
		stream, err := lease.Open(ctx, &c.req)
		if err != nil {
			// The frame was not sent: this was no attempt, if the shard's death was the reason.
			again := !lease.Alive() && tries < maxTries
			if lease.Early() && errors.Is(err, gatewayside.ErrNotLoaded) {
				// Its load failed between lease and stream: the next Acquire knows how.
				again, early = tries < maxTries, false
			}
			c.drop()
			if again {
				continue
			}
			return nil, nil, err
		}
		if c.event {
			stream.MarkEffect(gatewayside.EffectEvent)
		}
		if c.req.BodyMode == gen.BodyMode_streamed {
			if !c.feed(stream) {
				c.s.obs.Metrics.Interrupted(interruptedBody)
				stream.Cancel(gen.Abort_Reason_clientGone, "the beginning of the body was not kept")
				return nil, nil, errBodyLost
			}
		}
		head, err := stream.Head(ctx)
		if err == nil {
			if c.pump != nil {
				c.pump.keepNoMore()
			}
			return stream, head, nil
		}
		if ctx.Err() == nil && c.unstarted(stream) && tries < maxTries {
			early = false
			continue
		}
		if ctx.Err() != nil || !died(stream.Result().Outcome) || !c.again(stream) {
			return stream, nil, err
		}
		tries = 1
		c.g.extendWrite(time.Now().Add(c.v.Limits.Wall + c.s.opt.Grace))
	}
}

// acquire gets a lease on the tenant's version, or on the last good one if the newest turns out
// not to start.
func (c *call) acquire(ctx context.Context, early bool) (placement.Lease, error) {
	acquire := c.s.opt.Pool.Acquire
	if early {
		acquire = c.s.opt.Pool.AcquireEarly
	}
	lease, err := acquire(ctx, c.v)
	if err == nil {
		return lease, nil
	}
	if le, ok := errors.AsType[*placement.LoadError](err); ok && le.Instead != nil && le.Instead.Err == nil {
		c.v = le.Instead
		return c.s.opt.Pool.Acquire(ctx, c.v)
	}
	return lease, err
}

// unstarted says whether a stream ended because its tenant, whose load it did not wait for, did not
// start there, or was moved at once. The request had no effect and is sent anew, now behind the load,
// which may have gone well elsewhere. The lease is released.
func (c *call) unstarted(stream *gatewayside.Stream) bool {
	o := stream.Result().Outcome
	if !c.lease.Early() || o != gen.Outcome_notLoaded && o != gen.Outcome_killed || stream.Effects() != 0 {
		return false
	}
	if c.pump != nil && !c.pump.whole() {
		return false
	}
	if o == gen.Outcome_killed {
		c.req.Attempt++ // its code may have begun
	}
	c.drop()
	return true
}

// failed ends a call whose stream gave no head.
func (c *call) failed(stream *gatewayside.Stream) {
	if c.r.Context().Err() != nil {
		stream.Cancel(gen.Abort_Reason_clientGone, "the client closed the connection")
		c.stopPump(false)
		c.finish(stream, gen.Outcome_canceled)
		if !c.answerBadBody() {
			c.abandon()
		}
		return
	}
	res := stream.Result()
	c.stopPump(false)
	if c.pump != nil && c.pump.bad != nil {
		// The tenant's failure follows from the client's.
		c.settle(gen.Outcome_canceled)
		if !c.answerBadBody() {
			c.abandon()
		}
		return
	}
	c.noteEnd(res)
	c.settle(res.Outcome)
	retry := time.Duration(0)
	if res.Outcome == gen.Outcome_loadShed {
		retry = time.Second
	}
	c.answer(res.Outcome, c.explain(res.Outcome, res.Message), retry)
}

// refused ends a call that reached no shard.
func (c *call) refused(err error) {
	var le *placement.LoadError
	switch {
	case c.r.Context().Err() != nil:
		c.settle(gen.Outcome_canceled)
		c.abandon()
	case errors.Is(err, errFunctionGone):
		c.settle(gen.Outcome_canceled)
		c.answer(gen.Outcome_canceled, err.Error(), 0)
	case errors.As(err, &le) && le.Instead != nil && le.Instead.Err != nil:
		c.v = le.Instead
		c.startError(le.Instead.Err)
		c.settle(gen.Outcome_notLoaded)
	case errors.As(err, &le) && le.Outcome == gen.Outcome_killed: // stopped, by an operator or by suspicion
		c.settle(gen.Outcome_killed)
		c.answer(gen.Outcome_killed, le.Failure.Message, 0)
	case errors.As(err, &le):
		c.loadError(le)
		c.settle(gen.Outcome_notLoaded)
	case errors.Is(err, placement.ErrFull), errors.Is(err, placement.ErrDraining), errors.Is(err, placement.ErrStarting), errors.Is(err, gatewayside.ErrTooManyStreams):
		c.settle(gen.Outcome_loadShed)
		c.answer(gen.Outcome_loadShed, err.Error(), 2*time.Second)
	default:
		c.s.obs.LogOften(slog.LevelError, "request "+c.v.Tenant, "request failed", "tenant", c.v.Tenant, "request", c.id, "error", err.Error())
		o := gen.Outcome_internalError
		if !errors.As(err, new(*placement.NoShardError)) {
			o = gen.Outcome_crashed // the shard died between lease and stream, twice
		}
		c.settle(o)
		c.answer(o, plainMessage(o), 0)
	}
}

// finish ends a call whose response is over, one way or the other. The invocation may go on in
// waitUntil; whoever wrote the response does not wait for that. instead is what to count in place
// of the shard's outcome, or unknown.
func (c *call) finish(stream *gatewayside.Stream, instead gen.Outcome) {
	c.over = instead == gen.Outcome_unknown
	if stream.Result().Outcome != gen.Outcome_unknown {
		c.conclude(stream, instead)
		return
	}
	// A copy: net/http takes the request back when the handler returns.
	rest := *c
	rest.w, rest.r, rest.g, rest.pump, rest.service = nil, nil, nil, nil, nil
	c.held = false
	c.s.after.Go(func() {
		<-stream.Done()
		rest.conclude(stream, instead)
	})
}

func (c *call) conclude(stream *gatewayside.Stream, instead gen.Outcome) {
	res := stream.Result()
	o := res.Outcome
	if c.over && died(o) {
		c.s.obs.Metrics.Interrupted(interruptedWaitUntil)
	}
	c.noteEnd(res)
	if instead != gen.Outcome_unknown {
		o = instead
	}
	if o == gen.Outcome_ok {
		c.s.opt.Pool.NearMiss(c.v, time.Duration(res.CPUMicros)*time.Microsecond)
	}
	c.settle(o)
}

// abandon ends a request whose client is gone. Returning would send an empty 200, which a client
// that has only closed its sending half would believe.
func (c *call) abandon() {
	panic(http.ErrAbortHandler)
}

// badBody ends a call whose body could not be read before anything of it reached the tenant.
func (c *call) badBody(err error) {
	c.settle(gen.Outcome_canceled)
	c.g.spent.Store(true)
	if status, message := c.judgeBody(err); status != 0 {
		c.refuse(status, gen.Outcome_canceled, c.v.Tenant, message, 0)
		return
	}
	c.abandon()
}

// answerBadBody tells a client that its streamed body was malformed or late; false if it is gone.
// net/http cancels the request's context for all of these.
func (c *call) answerBadBody() bool {
	if c.pump == nil || c.pump.bad == nil {
		return false
	}
	status, message := c.judgeBody(c.pump.bad)
	if status == 0 {
		return false
	}
	c.refuse(status, gen.Outcome_canceled, c.v.Tenant, message, 0)
	return true
}

// judgeBody says what to answer for a body's read error; status 0 if nobody is there to read it.
func (c *call) judgeBody(err error) (status int, message string) {
	if o, ok := errors.AsType[*overLimit](err); ok {
		return http.StatusRequestEntityTooLarge, o.Error()
	}
	// The guard's own reason: net/http replaces it in trailers. Nobody reads the connection now.
	if m, ok := errors.AsType[*malformed](c.g.err); ok {
		return m.status, m.message
	}
	if isTimeout(err) {
		return http.StatusRequestTimeout, "the request body did not arrive in time"
	}
	return 0, ""
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// refuse answers a request that no tenant got to see. status 0: the outcome's own.
func (c *call) refuse(status int, o gen.Outcome, tenant, message string, retryAfter time.Duration) {
	if status == 0 {
		status = statusOf(o)
	}
	c.s.obs.Metrics.Refused(strconv.Itoa(status))
	c.hasten()
	c.g.extendWrite(time.Now().Add(refusalWrite))
	a := answer{status: status, outcome: o, tenant: tenant, request: c.id, message: message, retryAfter: retryAfter,
		close: c.s.draining.Load() || c.g.spent.Load()}
	a.write(c.w, c.r)
}

// hasten bounds how long an answer of ours waits for a request body that nobody has read: net/http
// reads up to 256 KiB of it before it answers, so that the connection can go on, and by itself
// without a deadline.
func (c *call) hasten() {
	if c.r.ContentLength != 0 && c.pump == nil {
		c.g.hasten(time.Now().Add(c.s.opt.unreadBody))
		if c.r.Close {
			// net/http then closes at once, and what is unread would turn that into a reset that
			// overtakes the answer.
			c.g.spent.Store(true)
		}
	}
}

// answer gives the tenant's client an answer of ours.
func (c *call) answer(o gen.Outcome, message string, retryAfter time.Duration) {
	c.hasten()
	a := answer{status: statusOf(o), outcome: o, tenant: c.v.Tenant, request: c.id, message: message, retryAfter: retryAfter,
		close: c.s.draining.Load() || c.g.spent.Load()}
	a.write(c.w, c.r)
}

// explain chooses what a client may read of a failure: everything in dev; else, for what the
// tenant's code said, nothing, and for limits the first line, which holds limit and use.
func (c *call) explain(o gen.Outcome, message string) string {
	if c.v.Dev && message != "" {
		return c.v.MapStack(message)
	}
	switch o {
	case gen.Outcome_exceededCpu, gen.Outcome_exceededMemory, gen.Outcome_exceededWallTime, gen.Outcome_loadShed:
		if line, _, _ := strings.Cut(message, "\n"); line != "" {
			return bounded(line, 200)
		}
	}
	return plainMessage(o)
}
