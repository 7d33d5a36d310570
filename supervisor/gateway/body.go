package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/schema/gen"
)

// stopPump ends the copying, if any, before the handler returns: after that the body is not ours.
// flush: the response's head is written and may go out before the client has sent everything.
func (c *call) stopPump(flush bool) {
	p := c.pump
	if p == nil {
		return
	}
	select {
	case <-p.done:
	default:
		if flush {
			http.NewResponseController(c.w).Flush()
		}
		// The rest may be on its way; reading it keeps the connection.
		timer := time.NewTimer(drainTime)
		select {
		case <-p.done:
		case <-timer.C:
			p.cancel()
			c.g.SetReadDeadline(time.Unix(1, 0)) // wakes a read
			<-p.done
		}
		timer.Stop()
	}
	p.cancel()
	p.drop()
	if !p.drained {
		// Bytes of the body are still to come and nobody will read them as such.
		c.g.spent.Store(true)
	}
	if o, ok := p.bad.(*overLimit); ok {
		c.note("request 413", o.Error())
	}
}

// drainTime is how long a finished response waits for the rest of its request's body.
const drainTime = 100 * time.Millisecond

// respond copies the response to the client and ends the call.
func (c *call) respond(stream *gatewayside.Stream, head *gatewayside.Head) {
	if head.Status == ipc.StatusUpgrade {
		c.upgrade(stream, head)
		return
	}
	h := c.w.Header()
	length := setResponseHeaders(h, head.Headers)
	h[headerRequestID] = []string{c.id}
	if c.s.draining.Load() {
		h["Connection"] = []string{"close"}
	}
	bodyless := c.r.Method == http.MethodHead || noContent(head.Status)
	switch {
	case head.Status == http.StatusResetContent:
		length = 0
	case head.BodyWhole && !bodyless:
		// The length is known for sure: a worker's own claim to another one would desynchronise.
		length = int64(len(head.Body))
	case head.BodyWhole && length < 0 && c.r.Method == http.MethodHead:
		length = int64(len(head.Body)) // what GET would have said
	case head.NoBody && !bodyless:
		length = 0
	}
	if length >= 0 && head.Status != http.StatusNoContent {
		h["Content-Length"] = []string{strconv.FormatInt(length, 10)}
	}
	if o := c.responseOver(head, bodyless, length); o != nil {
		c.refuseResponse(stream, o)
		return
	}
	c.w.WriteHeader(head.Status)
	switch {
	case bodyless:
		if !head.BodyWhole && !head.NoBody {
			stream.Cancel(gen.Abort_Reason_refused, "the response has no body")
		}
		c.stopPump(true)
		c.finish(stream, gen.Outcome_unknown)
	case head.BodyWhole || head.NoBody:
		_, err := c.w.Write(head.Body)
		c.stopPump(true)
		if err != nil {
			c.gone(stream)
			return
		}
		c.finish(stream, gen.Outcome_unknown)
	default:
		c.copyResponse(stream, length)
	}
}

// noContent says whether a response of this status has no content (RFC 9110 §15.3.5, §15.3.6,
// §15.4.5). net/http would send one with 205; a client or front that knows better would take it
// for the beginning of the next response on the connection, which may be another tenant's.
func noContent(status int) bool {
	return status == http.StatusNoContent || status == http.StatusResetContent || status == http.StatusNotModified
}

// copyResponse streams a body under the client's back-pressure: what the client does not take is
// not read from the stream, so its window is not granted again and the worker stops.
func (c *call) copyResponse(stream *gatewayside.Stream, length int64) {
	// Read does not watch the client; a client that leaves cancels the stream, which ends Read.
	stop := context.AfterFunc(c.r.Context(), func() {
		stream.Cancel(gen.Abort_Reason_clientGone, "the client closed the connection")
	})
	sent, err := c.copyChunks(stream)
	stop()
	c.stopPump(true)
	over, isOver := errors.AsType[*overLimit](err)
	switch {
	case isOver:
		c.s.obs.Metrics.Broken()
		c.cutResponse(stream, over)
	case c.uploadCut():
		// The end of the stream that was read is the cancelling's, not the response's.
		c.s.obs.Metrics.Broken()
		c.cut(stream, gen.Outcome_canceled)
	case err == nil && length >= 0 && sent == length:
		c.finish(stream, gen.Outcome_unknown) // a client that has all it was promised may leave
	case c.r.Context().Err() != nil || errors.Is(err, errClient):
		c.gone(stream)
	case err != nil && died(stream.Result().Outcome):
		c.s.obs.Metrics.Broken()
		c.s.obs.Metrics.Interrupted(interruptedResponse)
		c.cut(stream, stream.Result().Outcome)
	case err != nil || length >= 0 && sent != length:
		// The head promised something else. Only a cut connection tells the client; an orderly
		// end of the chunks would make it believe it has everything.
		c.s.obs.Metrics.Broken()
		instead := gen.Outcome_unknown
		if err == nil || errors.Is(err, http.ErrContentLength) {
			instead = gen.Outcome_exception // its Content-Length was wrong
		}
		c.cut(stream, instead)
	default:
		c.finish(stream, gen.Outcome_unknown)
	}
}

// errClient marks a failed write to the client.
var errClient = errors.New("the client does not take the response")

func (c *call) copyChunks(stream *gatewayside.Stream) (sent int64, err error) {
	rc := http.NewResponseController(c.w)
	if err := rc.Flush(); err != nil { // the head, before the first chunk is there
		return 0, errClient
	}
	limit := bodyLimit(c.v.Limits.ResponseBody)
	for {
		piece, more, err := stream.Next()
		if err == io.EOF {
			return sent, nil
		}
		if err != nil {
			return sent, err
		}
		n := len(piece.Bytes)
		if uint64(sent)+uint64(n) > limit {
			piece.Free()
			return sent, &overLimit{what: "the response's body", key: "responseBody", limit: limit, use: uint64(sent) + uint64(n), least: true, size: true}
		}
		_, werr := c.w.Write(piece.Bytes)
		piece.Free()
		if errors.Is(werr, http.ErrContentLength) {
			return sent + int64(n), werr
		}
		if werr != nil {
			return sent, errClient
		}
		sent += int64(n)
		// What there is must not wait for more.
		if !more && rc.Flush() != nil {
			return sent, errClient
		}
	}
}

// gone ends a call whose client left, or does not read, in the middle of a response.
func (c *call) gone(stream *gatewayside.Stream) {
	stream.Cancel(gen.Abort_Reason_clientGone, "the client closed the connection")
	c.cut(stream, gen.Outcome_canceled)
}

// cut ends the call and aborts the connection, visibly for the client.
func (c *call) cut(stream *gatewayside.Stream, instead gen.Outcome) {
	if instead == gen.Outcome_exception {
		stream.Cancel(gen.Abort_Reason_clientGone, "the response is not as long as its Content-Length")
	}
	c.finish(stream, instead)
	panic(http.ErrAbortHandler)
}
