package gateway

import (
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
	b := caller.Binding(r.Binding)
	if b == nil || s.opt.Get == nil {
		r.Fail("this host serves no service bindings")
		return
	}
	chain := append(slices.Clone(r.Chain), caller.Tenant)
	if most := s.opt.Policy().CallDepth; len(chain) >= most {
		r.Fail(fmt.Sprintf("service %s: calls are nested too deeply: one request may lead to %d invocations in a row (callDepth): %s",
			b.Service, most, strings.Join(chain, ", ")))
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
	s.call(callee, r, b, chain)
}

func (s *Server) mayCall(from string, to *tenants.Version) bool {
	return from == to.Tenant || to.Welcomes(from) || s.opt.Policy().MayCall(from, to.Tenant)
}

// call runs the callee's invocation.
func (s *Server) call(v *tenants.Version, r *gatewayside.Subrequest, b *tenants.EnvVar, chain []string) {
	u, err := url.Parse(r.URL)
	if err != nil {
		r.Fail("service " + b.Service + ": the URL cannot be read")
		return
	}
	w := &serviceWriter{r: r, service: b.Service, header: http.Header{}, url: r.URL, head: r.Method == http.MethodHead}
	req := (&http.Request{Method: r.Method, URL: u, Host: u.Host, Header: http.Header{}, Body: io.NopCloser(r), ContentLength: -1}).WithContext(r.Context())
	if r.BodyMode == gen.BodyMode_none {
		req.Body, req.ContentLength = http.NoBody, 0
	}
	g := &guard{Conn: serviceConn{r: r}, server: s}
	g.handling.Store(true)
	c := call{s: s, w: w, r: req, g: g, v: v, id: newRequestID(), start: time.Now(), stats: s.obs.Metrics.Tenant(v.Tenant)}
	c.req = gatewayside.OpenRequest{Entrypoint: b.Entrypoint, Chain: chain}
	c.service = r
	if r.Call != "" {
		c.req.Event, c.req.Name = gen.Event_call, r.Call
	}
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			panic(p)
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
	r       *gatewayside.Subrequest
	service string
	url     string
	head    bool // the request is a HEAD
	header  http.Header
	wrote   bool
	ours    []byte // of an answer of ours, its beginning
	isOurs  bool
	over    bool // End or Fail was said, or nothing follows the head
	err     error
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
		w.r.Fail("service " + w.service + ": " + message)
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
