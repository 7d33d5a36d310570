package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/schema/gen"
	"bulkhead/supervisor/tenants"
)

// Calls of one worker by another, through a service binding. A call is a request like a client's: it is
// admitted, placed, limited, replayed and counted as the callee's, by the same code. Only its ends differ:
// they lead to the caller's shard, and what would be an answer of ours is an exception there.

// Service performs a subrequest that names a binding of the version that made it, and returns when it is
// over.
func (s *Server) Service(caller *tenants.Version, r *gatewayside.Subrequest) {
	if r.Function != 0 {
		s.function(caller, r)
		return
	}
	b := caller.Binding(r.Binding)
	if b == nil || s.opt.Get == nil {
		r.Fail("this host serves no service bindings")
		return
	}
	chain, ok := s.chain(caller, r, "service "+b.Service)
	if !ok {
		return
	}
	callee, ok := s.opt.Get(r.Context(), b.Service)
	if !ok || !s.mayCall(caller.Tenant, callee) {
		// One answer for both: who may not call learns nothing of who is there.
		r.Fail(fmt.Sprintf("service %s: no worker of this name lets %s call it: its bulkhead.yaml must name it under callers, or the operator's policy must allow it under calls",
			b.Service, caller.Tenant))
		return
	}
	if err := r.Affect(gatewayside.EffectCall); err != nil {
		r.Fail(err.Error())
		return
	}
	s.opt.Pool.Apart(chain, callee.Tenant)
	r.Owner = caller
	open := gatewayside.OpenRequest{Entrypoint: b.Entrypoint, Props: b.Value, Chain: chain}
	if r.Call != "" {
		open.Event, open.Name, open.Serves = gen.Event_call, r.Call, r
	}
	s.call(callee, r, "service "+b.Service, open)
}

// chain names who led to what caller now asks for, or refuses it because they are too many.
func (s *Server) chain(caller *tenants.Version, r *gatewayside.Subrequest, what string) ([]string, bool) {
	chain := append(slices.Clone(r.Chain), caller.Tenant)
	if most := s.opt.Policy().CallDepth; len(chain) >= most {
		r.Fail(fmt.Sprintf("%s: calls are nested too deeply: one request may lead to %d invocations in a row (callDepth): %s",
			what, most, strings.Join(chain, ", ")))
		return nil, false
	}
	return chain, true
}

// function performs the call of a function that an earlier call of another tenant's brought to caller: in the
// process where it is, as part of the invocation that made that call. Nobody has to be kept apart for it: whoever
// is in the chain was, when the earlier call was made.
func (s *Server) function(caller *tenants.Version, r *gatewayside.Subrequest) {
	v, ok := r.Carrier.Owner.(*tenants.Version)
	if !ok {
		r.Fail("this host serves no functions of other workers")
		return
	}
	what := "a function of " + v.Tenant
	chain, ok := s.chain(caller, r, what)
	if !ok {
		return
	}
	if !r.Carrier.Live() {
		r.Fail(what + ": " + errFunctionGone.Error())
		return
	}
	if err := r.Affect(gatewayside.EffectCall); err != nil {
		r.Fail(err.Error())
		return
	}
	r.Owner = caller // whose functions are in its arguments
	s.call(v, r, what, gatewayside.OpenRequest{Event: gen.Event_function, Chain: chain, Serves: r})
}

var errFunctionGone = errors.New("the call that brought it is over: a function can be called until the method it was given to has answered")

// beginFunction is begin for a function: there is one place where it can run, and it runs there once.
func (c *call) beginFunction(ctx context.Context) (*gatewayside.Stream, *gatewayside.Head, error) {
	stream, err := c.service.OpenFunction(ctx, &c.req)
	if err != nil {
		if errors.Is(err, gatewayside.ErrReleased) {
			err = errFunctionGone
		}
		return nil, nil, err
	}
	stream.MarkEffect(gatewayside.EffectCall)
	if c.req.BodyMode == gen.BodyMode_streamed {
		c.feed(stream)
	}
	head, err := stream.Head(ctx)
	if err == nil && c.pump != nil {
		c.pump.keepNoMore()
	}
	return stream, head, err
}

func (s *Server) mayCall(from string, to *tenants.Version) bool {
	return from == to.Tenant || to.Welcomes(from) || s.opt.Policy().MayCall(from, to.Tenant)
}

// call runs the callee's invocation.
func (s *Server) call(v *tenants.Version, r *gatewayside.Subrequest, what string, open gatewayside.OpenRequest) {
	u, err := url.Parse(r.URL)
	if err != nil {
		r.Fail(what + ": the URL cannot be read")
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	if r.Function != 0 { // and with the call that brought it
		stop := context.AfterFunc(r.Carrier.Context(), cancel)
		defer stop()
	}
	w := &serviceWriter{r: r, what: what, header: http.Header{}, url: r.URL, head: r.Method == http.MethodHead}
	req := (&http.Request{Method: r.Method, URL: u, Host: u.Host, Header: http.Header{}, Body: io.NopCloser(r), ContentLength: -1}).WithContext(ctx)
	if r.BodyMode == gen.BodyMode_none {
		req.Body, req.ContentLength = http.NoBody, 0
	}
	g := &guard{Conn: serviceConn{r: r}, server: s}
	g.handling.Store(true)
	c := call{s: s, w: w, r: req, g: g, v: v, id: newRequestID(), start: time.Now(), stats: s.obs.Metrics.Tenant(v.Tenant)}
	c.req = open
	c.service = r
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			panic(p)
		} else if p != nil && r.Function != 0 && !r.Carrier.Live() {
			w.fail(errFunctionGone.Error())
			return
		} else if p != nil {
			w.fail("the response was cut off")
			return
		}
		w.end()
	}()
	if !c.admit() {
		return
	}
	c.serve()
}

// prepareService is prepare for a call: its parts come from the caller's shard, and were checked there.
func (c *call) prepareService(b *scratch) bool {
	r := c.service
	b.headers = serviceHeaders(b.headers[:0], r.Headers, c.r.Host)
	b.url = append(b.url[:0], r.URL...)
	if !c.requestFits(b) {
		return false
	}
	if err := ipc.CheckHeaders(b.headers, &c.s.wire); err != nil {
		c.settle(gen.Outcome_loadShed)
		c.refuse(http.StatusRequestHeaderFieldsTooLarge, gen.Outcome_loadShed, c.v.Tenant, "the request has too many headers", 0)
		return false
	}
	c.req.Method, c.req.URL, c.req.Headers, c.req.RequestID = r.Method, string(b.url), b.headers, c.id
	c.req.ReceivedMs, c.req.Attempt = float64(c.start.UnixMicro())/1e3, 1
	switch r.BodyMode {
	case gen.BodyMode_whole:
		body, err := io.ReadAll(r) // it is here, and at most a chunk
		if err != nil {
			c.settle(gen.Outcome_canceled)
			c.refuse(0, gen.Outcome_canceled, c.v.Tenant, err.Error(), 0)
			return false
		}
		c.req.Body, c.req.BodyMode = body, gen.BodyMode_whole
	case gen.BodyMode_streamed:
		c.req.BodyMode = gen.BodyMode_streamed
	}
	return true
}

// serviceHeaders is appendRequestHeaders for flat fields.
func serviceHeaders(dst, flat []byte, host string) []byte {
	dst = ipc.AppendHeader(dst, "host", host)
	for name, value := range ipc.Headers(flat) {
		n := http.CanonicalHeaderKey(string(name))
		if n != "Host" && !hopByHop(n) && !strings.HasPrefix(n, ownPrefix) {
			dst = ipc.AppendHeader(dst, string(name), string(value))
		}
	}
	return dst
}

// serviceWriter is the caller's end of a response.
type serviceWriter struct {
	r      *gatewayside.Subrequest
	what   string // what is asked, for people
	url    string
	head   bool // the request is a HEAD
	header http.Header
	wrote  bool
	ours   []byte // of an answer of ours, its beginning
	isOurs bool
	over   bool // End or Fail was said, or nothing follows the head
	err    error
}

// maxOurs is how much of an answer of ours is kept to be told in one sentence.
const maxOurs = 4 << 10

func (w *serviceWriter) Header() http.Header { return w.header }

func (w *serviceWriter) WriteHeader(status int) {
	if w.wrote {
		return
	}
	w.wrote = true
	if w.header[headerOutcome] != nil { // a tenant can set none that begins so
		w.isOurs = true
		return
	}
	var flat []byte
	for name, values := range w.header {
		if name == "Connection" || strings.HasPrefix(name, ownPrefix) {
			continue
		}
		for _, v := range values {
			flat = ipc.AppendHeader(flat, strings.ToLower(name), v)
		}
	}
	a := gatewayside.Answer{Status: status, URL: w.url, Headers: flat, NoBody: w.head || noContent(status)}
	w.over = a.NoBody
	w.err = w.r.Respond(&a)
	var breach *ipc.ViolationError
	if errors.As(w.err, &breach) {
		w.fail("the response's headers are over the limit")
	}
}

func (w *serviceWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	switch {
	case w.isOurs:
		w.ours = append(w.ours, p[:min(len(p), maxOurs-len(w.ours))]...)
		return len(p), nil
	case w.err != nil:
		return 0, w.err
	case w.over:
		return len(p), nil
	}
	return w.r.Write(p)
}

// FlushError has nothing to do: what is written goes out with the next batch.
func (w *serviceWriter) FlushError() error { return w.err }

func (w *serviceWriter) fail(message string) {
	if !w.over {
		w.over = true
		w.r.Fail(w.what + ": " + message)
	}
}

// end is the last word of a call that was not cut off.
func (w *serviceWriter) end() {
	switch {
	case w.isOurs:
		var a answerBody
		if json.Unmarshal(w.ours, &a) != nil {
			a.Message = string(w.ours) // in dev: why it does not start
		}
		if o := w.header[headerOutcome]; len(o) > 0 {
			a.Message = o[0] + ": " + a.Message
		}
		w.fail(a.Message)
	case !w.wrote:
		w.fail("no answer")
	case !w.over:
		w.over = true
		w.r.End()
	}
}

// serviceConn is the connection that a call does not have: deadlines are those of the invocations at both
// ends. Only what wakes a read of the body means something.
type serviceConn struct {
	net.Conn
	r *gatewayside.Subrequest
}

func (c serviceConn) SetReadDeadline(t time.Time) error {
	if !t.IsZero() && time.Until(t) <= 0 {
		c.r.RefuseBody()
	}
	return nil
}

func (c serviceConn) SetWriteDeadline(time.Time) error { return nil }

// Reached keeps tenants apart from the one that they are about to reach by its public address, if it is
// one of this host's: the request will come in again through a listener, from nobody in particular.
func (s *Server) Reached(chain []string, host, path string) {
	if s.opt.Owner == nil {
		return
	}
	if callee, ok := s.opt.Owner(host, path); ok {
		s.opt.Pool.Apart(chain, callee)
	}
}
