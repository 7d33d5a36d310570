package gateway

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"bulkhead/ipc/gatewayside"
	"bulkhead/policy"
	"bulkhead/schema/gen"
	"bulkhead/supervisor/observe"
)

// The gateway's share of a tenant's limits: what arrives and what leaves. What it refuses is told
// three times, with the limit and the use: to the client, who gets an outcome and a status; to
// whoever reads the tenant's log; and to the counters.
//
// A request that is refused before its tenant sees anything of it ends loadShed, as everything
// does that never began; one whose body grows too large on the way ends canceled, like every
// request whose client does not keep to the rules. A response that is too large is the worker's
// own doing: exception.

// overLimit says which limit was exceeded and by what.
type overLimit struct {
	what  string // begins the sentence
	key   string // of the policy
	limit uint64
	use   uint64
	least bool // use is what had been counted when it was stopped
	size  bool // of bytes
}

// Error names the limit as the policy does, so that whoever reads it finds what to change.
func (o *overLimit) Error() string {
	if !o.size {
		return fmt.Sprintf("%s is over the limit (%s): %d, allowed are %d", o.what, o.key, o.use, o.limit)
	}
	least := ""
	if o.least {
		least = "at least "
	}
	return fmt.Sprintf("%s is over the limit (%s): it has %s%s, allowed are %s", o.what, o.key, least, policy.FormatBytes(o.use), policy.FormatBytes(o.limit))
}

// note writes a line of ours into the tenant's log. kind bounds how often: see observe.Logs.Note.
func (c *call) note(kind, text string) {
	line := observe.Line{Time: c.start.UTC(), Level: gen.LogEntry_Level_error.String(), Request: c.id, Attempt: max(1, c.req.Attempt), Text: text, Version: c.v.Hash}
	if c.s.obs.Logs.Note(c.v.Tenant, kind, line) && c.s.opt.OnLog != nil {
		c.s.opt.OnLog(c.v.Tenant, line)
	}
}

// noteEnd writes into the tenant's log which limit ended an invocation, or, after a good response,
// its waitUntil. What its code threw its worker has logged.
func (c *call) noteEnd(res gatewayside.Result) {
	switch res.Outcome {
	case gen.Outcome_ok, gen.Outcome_exceededCpu, gen.Outcome_exceededMemory, gen.Outcome_exceededWallTime, gen.Outcome_loadShed:
		if line, _, _ := strings.Cut(res.Message, "\n"); line != "" {
			c.note("end "+res.Outcome.String(), bounded(line, maxMessage))
		}
	}
}

// tooMany is what a request over the tenant's concurrency is told.
func (c *call) tooMany(own int64) string {
	return (&overLimit{what: "the number of this worker's requests in flight", key: "concurrent", limit: uint64(c.v.Limits.Concurrent), use: uint64(own)}).Error()
}

// requestFits refuses a request whose head, or whose announced body, is larger than its tenant may
// get. It returns false if it has answered.
func (c *call) requestFits(b *scratch) bool {
	l := &c.v.Limits
	status, message := 0, ""
	switch limit := headerLimit(l.HeaderBytes, c.s.wire.HeaderBytes); {
	case len(b.url) > c.s.wire.URLBytes:
		status, message = http.StatusRequestURITooLong, "the request's URL has "+strconv.Itoa(len(b.url))+" bytes, allowed are "+strconv.Itoa(c.s.wire.URLBytes)
	case len(b.headers) > limit:
		status = http.StatusRequestHeaderFieldsTooLarge
		message = (&overLimit{what: "the request's head", key: "headers", limit: uint64(limit), use: uint64(len(b.headers)), size: true}).Error()
	case c.r.ContentLength > 0 && bodyLimit(l.RequestBody) < uint64(c.r.ContentLength):
		status = http.StatusRequestEntityTooLarge
		message = (&overLimit{what: "the request's body", key: "requestBody", limit: l.RequestBody, use: uint64(c.r.ContentLength), size: true}).Error()
	default:
		return true
	}
	c.note("request "+strconv.Itoa(status), message)
	c.settle(gen.Outcome_loadShed)
	c.refuse(status, gen.Outcome_loadShed, c.v.Tenant, message, 0)
	return false
}

// headerLimit is the tenant's own limit within what a frame can carry; 0 is none of its own.
func headerLimit(own, wire int) int {
	if own <= 0 {
		return wire
	}
	return min(own, wire)
}

// bodyLimit is a limit as it counts; 0 is none.
func bodyLimit(own uint64) uint64 {
	if own == 0 {
		return 1 << 62
	}
	return own
}

// uploadOver ends an invocation whose request body has grown too large on its way. The pump calls
// it; what the client is told is judgeBody's to say, once the stream has ended.
func uploadOver(stream *gatewayside.Stream, limit, received uint64) *overLimit {
	o := &overLimit{what: "the request's body", key: "requestBody", limit: limit, use: received, least: true, size: true}
	stream.Cancel(gen.Abort_Reason_clientGone, o.Error())
	return o
}

// uploadCut says whether the request's body ended the invocation. Only after stopPump.
func (c *call) uploadCut() bool {
	if c.pump == nil {
		return false
	}
	_, over := c.pump.bad.(*overLimit)
	return over
}

// responseOver says which limit a response exceeds before anything of it is sent, or nil. length is
// what it announces, negative if nothing.
func (c *call) responseOver(head *gatewayside.Head, bodyless bool, length int64) *overLimit {
	l := &c.v.Limits
	limit := headerLimit(l.HeaderBytes, c.s.wire.HeaderBytes)
	switch body := bodyLimit(l.ResponseBody); {
	case len(head.Headers) > limit:
		return &overLimit{what: "the response's head", key: "headers", limit: uint64(limit), use: uint64(len(head.Headers)), size: true}
	case bodyless || length < 0 || uint64(length) <= body:
		return nil
	}
	return &overLimit{what: "the response's body", key: "responseBody", limit: l.ResponseBody, use: uint64(length), size: true}
}

// refuseResponse answers in place of a response that is too large.
func (c *call) refuseResponse(stream *gatewayside.Stream, o *overLimit) {
	clear(c.w.Header())
	c.note("response", o.Error())
	stream.Cancel(gen.Abort_Reason_clientGone, o.Error())
	c.stopPump(false)
	c.finish(stream, gen.Outcome_exception)
	c.answer(gen.Outcome_exception, o.Error(), time.Duration(0))
}

// cutResponse ends a response that has grown too large after its head was sent: its client sees the
// connection cut, since nothing else can tell it that the body is not whole.
func (c *call) cutResponse(stream *gatewayside.Stream, o *overLimit) {
	c.note("response", o.Error())
	stream.Cancel(gen.Abort_Reason_clientGone, o.Error())
	c.cut(stream, gen.Outcome_exception)
}
