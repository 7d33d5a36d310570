package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"time"

	"bulkhead/ipc/gatewayside"
	rules "bulkhead/policy/egress"
	"bulkhead/schema/gen"
	"bulkhead/supervisor/observe"
	"bulkhead/supervisor/socket"
)

// maxRedirects is the Fetch standard's (https://fetch.spec.whatwg.org/#http-redirect-fetch).
const maxRedirects = 20

// Exchange is the shard's side of a subrequest; see gatewayside.Subrequest for the contract.
type Exchange interface {
	io.ReadWriter // the request's body, the response's
	Context() context.Context
	Affect(gatewayside.Effect) error
	Redirected() error
	RefuseBody()
	Respond(*gatewayside.Answer) error
	End()
	Fail(message string)
}

// Request is what a subrequest asks for.
type Request struct {
	Method   string
	URL      string
	Headers  []byte // flat
	BodyMode gen.BodyMode
	Redirect gen.Fetch_Redirect
	ID       string   // of the client's request, for the log
	Chain    []string // tenants whose invocations led to this one
	Upgrade  bool     // a WebSocket is asked for; the Exchange is an Upgrader
}

// Fetch performs a subrequest of the tenant and returns when it is over.
func (e *Egress) Fetch(tenant string, r *gatewayside.Subrequest) {
	e.Serve(tenant, Request{Method: r.Method, URL: r.URL, Headers: r.Headers, BodyMode: r.BodyMode, Redirect: r.Redirect, ID: r.Request, Chain: r.Chain, Upgrade: r.Upgrade}, r)
}

// Upgrader is an Exchange that a WebSocket can be given to; see gatewayside.Subrequest.
type Upgrader interface {
	Exchange
	socket.Peer
	Switch(headers []byte, url string) error
	// Closed: the worker has closed the WebSocket.
	Closed() bool
}

// Serve is Fetch for any Exchange.
func (e *Egress) Serve(tenant string, r Request, x Exchange) {
	metrics := e.opt.Observer.Metrics
	c, err := e.client(tenant)
	if err != nil {
		metrics.Fetched(observe.FetchFailed)
		x.Fail(explain(err))
		return
	}
	defer c.open.Add(-1)
	if n, most := c.open.Add(1), c.judge.Rules().Concurrent; n > int64(most) {
		metrics.Fetched(observe.FetchShed)
		x.Fail(fmt.Sprintf("too many subrequests at once: this worker may have %d open", most))
		return
	}
	f := &fetch{c: c, x: x, r: r}
	err = f.run()
	c.used.Store(time.Now().UnixNano())
	c.stats.FetchSent.Add(f.sent.Load())
	c.stats.FetchReceived.Add(f.received)
	result := observe.FetchDone
	var refusal *rules.Refusal
	switch {
	case err == nil:
		x.End()
	case errors.As(err, &refusal):
		result = observe.FetchRefused
		metrics.FetchRefused(refusal.Rule)
		addr := ""
		if refusal.Addr.IsValid() {
			addr = refusal.Addr.String()
		}
		told := refused{tenant, shorten(refusal.Host), addr, refusal.What, refusal.Rule, r.ID}
		if e.opt.Observer.LogOften(slog.LevelWarn, "egress "+refusal.Rule+" "+tenant, "egress refused", "tenant", tenant, "host", told.Host,
			"address", addr, "what", refusal.What, "rule", refusal.Rule, "request", r.ID) {
			e.opt.Observer.Events.Add("egressRefused", told)
		}
	case errors.Is(err, gatewayside.ErrReleased), x.Context().Err() != nil:
		result = observe.FetchCanceled
	default:
		result = observe.FetchFailed
	}
	metrics.Fetched(result)
	if err != nil {
		x.Fail(explain(err))
	}
}

// refused is the event of a subrequest that the rules do not allow.
type refused struct {
	Tenant  string `json:"tenant"`
	Host    string `json:"host"`
	Address string `json:"address,omitempty"`
	What    string `json:"what"`
	Rule    string `json:"rule"`
	Request string `json:"request"`
}

// fetch is one subrequest under way.
type fetch struct {
	c        *client
	x        Exchange
	r        Request
	body     requestBody
	sent     counter // bytes of the request's body
	received uint64  // bytes of the response's body, as the tenant gets them
	coder    bool    // holds one of the client's places for large decoders
}

// run follows redirects until there is a response to give.
func (f *fetch) run() error {
	ctx, cancel := context.WithCancelCause(f.x.Context())
	defer cancel(nil)
	defer f.releaseCoder()
	f.body.init(f)
	u, err := parseURL(f.r.URL)
	if err != nil {
		return err
	}
	header := requestHeaders(f.r.Headers)
	if f.r.Upgrade {
		return f.webSocket(ctx, u, header)
	}
	method, first := f.r.Method, u
	for hops := 0; ; hops++ {
		resp, err := f.send(ctx, method, u, header)
		if err != nil {
			return err
		}
		location := resp.Header.Get("Location")
		if !redirects(resp.StatusCode) || location == "" || f.r.Redirect == gen.Fetch_Redirect_manual {
			return f.answer(ctx, cancel, method, u, u != first, resp)
		}
		discard(resp.Body)
		if f.r.Redirect == gen.Fetch_Redirect_error {
			return fmt.Errorf("%s redirects, and the request's redirect mode is \"error\"", u.Host)
		}
		if hops == maxRedirects {
			return fmt.Errorf("more than %d redirects", maxRedirects)
		}
		next, err := follow(u, location)
		if err != nil {
			return err
		}
		if err := f.x.Redirected(); err != nil {
			return err
		}
		toGet := resp.StatusCode == http.StatusSeeOther && method != "GET" && method != "HEAD" ||
			(resp.StatusCode == http.StatusMovedPermanently || resp.StatusCode == http.StatusFound) && method == "POST"
		if !toGet && !f.body.again() {
			return fmt.Errorf("%s redirects with status %d, and a streamed request body cannot be sent again", u.Host, resp.StatusCode)
		}
		if toGet {
			method = "GET"
			f.body.drop()
			for _, name := range []string{"Content-Encoding", "Content-Language", "Content-Location", "Content-Type"} {
				header.Del(name)
			}
		}
		if next.Scheme != u.Scheme || next.Host != u.Host {
			// Fetch drops the first; the others are a browser's own business there and the tenant's here.
			for _, name := range []string{"Authorization", "Cookie", "Proxy-Authorization"} {
				header.Del(name)
			}
		}
		u = next
	}
}

func redirects(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// send makes one request and returns the response's head.
func (f *fetch) send(ctx context.Context, method string, u *url.URL, header http.Header) (*http.Response, error) {
	host, port := hostPort(u)
	if err := f.c.judge.Host(host, port); err != nil {
		return nil, err
	}
	if !safeMethod(method) && !f.c.judge.Safe(host, port) {
		if err := f.x.Affect(gatewayside.EffectSubrequest); err != nil {
			return nil, err
		}
	}
	if reached := f.c.e.opt.Reached; reached != nil {
		reached(append(slices.Clone(f.r.Chain), f.c.tenant), u.Host, u.EscapedPath())
	}
	h := header.Clone()
	if f.c.judge.Internal(host, port) {
		h[headerTenant] = []string{f.c.tenant}
	}
	if h["Accept-Encoding"] == nil {
		h["Accept-Encoding"] = []string{f.offer()}
	}
	req := (&http.Request{Method: method, URL: u, Host: u.Host, Header: h, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}).WithContext(ctx)
	if err := f.body.attach(req); err != nil {
		return nil, err
	}
	resp, err := f.c.http.RoundTrip(req)
	if err != nil {
		if cause := context.Cause(ctx); ctx.Err() != nil && cause != nil {
			return nil, cause
		}
		return nil, err
	}
	return resp, nil
}

// safeMethod: RFC 9110 §9.2.1. (TRACE cannot be asked for.)
func safeMethod(m string) bool { return m == "GET" || m == "HEAD" || m == "OPTIONS" }

const (
	// discardBytes and discardTime bound what is done for the sake of a connection with the body of a
	// redirect, which nobody wants.
	discardBytes = 4 << 10
	discardTime  = 250 * time.Millisecond
)

// discard reads a little of a body nobody wants, so that its connection can be used again.
func discard(body io.ReadCloser) {
	timer := time.AfterFunc(discardTime, func() { body.Close() }) // and the read returns
	defer timer.Stop()
	io.CopyN(io.Discard, body, discardBytes)
	body.Close()
}
