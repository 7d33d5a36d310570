package egress

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"bulkhead/ipc/gatewayside"
	"bulkhead/policy"
	"bulkhead/policy/limits"
	"bulkhead/schema/gen"
	"bulkhead/supervisor/observe"
)

// Requests of workers to the operator's own web APIs. Where one is dialled is the policy's word alone:
// the URL's authority is not looked at, redirects are handed over and not followed, nothing is upgraded.
// Who asks is the gateway's word: the fields below are never taken from a worker (dropped).

// Fields that a host API can rely on, by their canonical names. Values come from the gateway's own records.
const (
	headerTenant  = "Bulkhead-Tenant"     // the tenant's id
	headerRequest = "Bulkhead-Request-Id" // of the invocation that asks, as in its log lines
	headerLimits  = "Bulkhead-Limits"     // see limitsField
)

// hostAPI is what one tenant has of one API: connections of its own, since who finds a way to smuggle a
// request into a connection must find nobody else's there.
type hostAPI struct {
	c    *client
	name string
	rule policy.HostAPI
	host string // of the Host field
	http *http.Transport
	use  *observe.HostAPIUse
	open atomic.Int64 // requests under way
}

// hostAPI returns the tenant's use of an API that it is permitted.
func (c *client) hostAPI(name string) (*hostAPI, error) {
	rule, ok := c.policy.HostAPIFor(c.tenant, name)
	if !ok {
		// One answer for both: who may not use an API learns nothing of what there is.
		return nil, fmt.Errorf("there is none of this name that %s may use: the operator's policy must declare it under hostApis and permit it (tenants: {%s: {hostApis: [%s]}})", c.tenant, c.tenant, name)
	}
	addr, err := policy.ParseHostAddress(rule.Address)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if a := c.apis[name]; a != nil {
		return a, nil
	}
	a := &hostAPI{c: c, name: name, rule: rule, host: name, use: c.stats.HostAPI(name)}
	if addr.TCP.IsValid() {
		a.host = addr.TCP.String() // servers check it against what they listen on
	}
	a.http = &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return a.dial(ctx, addr) },
		DisableCompression:     true,
		ResponseHeaderTimeout:  rule.Timeout,
		MaxResponseHeaderBytes: int64(c.e.opt.Wire.HeaderBytes),
		IdleConnTimeout:        idleConn,
		MaxIdleConns:           idlePerHost,
		MaxIdleConnsPerHost:    idlePerHost,
		WriteBufferSize:        16 << 10,
		ReadBufferSize:         16 << 10,
	}
	if c.apis == nil {
		c.apis = map[string]*hostAPI{}
	}
	c.apis[name] = a
	return a, nil
}

// closeIdle ends the connections that wait, to upstreams and host APIs.
func (c *client) closeIdle() {
	c.http.CloseIdleConnections()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.apis {
		a.http.CloseIdleConnections()
	}
}

// errNoRoom: the socket's directory was not in the policy when the launcher started.
var errNoRoom = errors.New("this host cannot reach it before it is started again")

// fullPause is how long a dial waits when a unix socket's queue is full, which TCP would do by itself.
const fullPause = 5 * time.Millisecond

// dial connects to the API. No argument of net/http's has a say in where.
func (a *hostAPI) dial(ctx context.Context, addr policy.HostAddress) (net.Conn, error) {
	c := a.c
	if c.held.Add(1) > int64(max(tenantConns, c.e.opt.Conns/8)) {
		c.held.Add(-1)
		return nil, errTooMany
	}
	if err := c.e.take(ctx); err != nil {
		c.held.Add(-1)
		return nil, err
	}
	release := sync.OnceFunc(func() { c.e.conns.Add(-1); c.held.Add(-1) })
	network, to := "tcp", addr.TCP.String()
	if addr.Unix != "" {
		network, to = "unix", addr.Unix
		if c.e.opt.Socket != nil {
			here, ok := c.e.opt.Socket(addr.Unix)
			if !ok {
				release()
				return nil, errNoRoom
			}
			to = here
		}
	}
	ctx, cancel := context.WithTimeout(ctx, c.e.opt.ConnectTimeout)
	defer cancel()
	d := &net.Dialer{KeepAlive: 30 * time.Second}
	for {
		conn, err := d.DialContext(ctx, network, to)
		switch {
		case err == nil:
			return &counted{Conn: conn, release: release}, nil
		case !errors.Is(err, syscall.EAGAIN):
			release()
			return nil, err
		}
		select {
		case <-time.After(fullPause):
		case <-ctx.Done():
			release()
			return nil, err
		}
	}
}

// HostAPI performs a request of the tenant to one of the operator's APIs and returns when it is over.
func (e *Egress) HostAPI(tenant, name string, r *gatewayside.Subrequest) {
	if r.Call != "" {
		r.Fail(fmt.Sprintf("host API %s: it is a web API and has no methods: call fetch()", name))
		return
	}
	e.ServeHostAPI(tenant, name, Request{Method: r.Method, URL: r.URL, Headers: r.Headers, BodyMode: r.BodyMode, Redirect: r.Redirect, ID: r.Request, Chain: r.Chain, Upgrade: r.Upgrade}, r)
}

// ServeHostAPI is HostAPI for any Exchange.
func (e *Egress) ServeHostAPI(tenant, name string, r Request, x Exchange) {
	fail := func(err error) { x.Fail(fmt.Sprintf("host API %s: %s", name, explain(err))) }
	c, err := e.client(tenant)
	if err != nil {
		fail(err)
		return
	}
	defer c.open.Add(-1)
	n, most := c.open.Add(1), int64(c.judge.Rules().Concurrent)
	a, err := c.hostAPI(name)
	if err != nil {
		x.Fail(fmt.Sprintf("host API %s: %v", name, err))
		return
	}
	defer a.open.Add(-1)
	if m := a.open.Add(1); n > most || m > int64(a.rule.Concurrent) {
		a.use.Count(observe.FetchShed)
		x.Fail(fmt.Sprintf("host API %s: too many requests at once: this worker may have %d open", name, min(most, int64(a.rule.Concurrent))))
		return
	}
	f := &fetch{c: c, x: x, r: r}
	err = f.ask(a)
	c.used.Store(time.Now().UnixNano())
	a.use.Sent.Add(f.sent.Load())
	a.use.Received.Add(f.received)
	switch {
	case err == nil:
		x.End()
		a.use.Count(observe.FetchDone)
		return
	case errors.Is(err, gatewayside.ErrReleased), x.Context().Err() != nil:
		a.use.Count(observe.FetchCanceled)
	default:
		a.use.Count(observe.FetchFailed)
		// For the operator, whose service it is: with the address, which the tenant is not told.
		e.opt.Observer.LogOften(slog.LevelWarn, "host API "+name, "host API failed", "api", name, "address", a.rule.Address, "tenant", tenant, "request", r.ID, "error", err.Error()+remedy(err))
	}
	fail(err)
}

// remedy says what a failure to connect to one's own socket mostly is.
func remedy(err error) string {
	switch {
	case errors.Is(err, syscall.EACCES):
		return "; the socket must belong to the user and group of its directory, or be writable by everybody"
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return "; is the service running? (if its directory was made anew since bulkhead started: systemd keeps it with RuntimeDirectoryPreserve=yes)"
	}
	return ""
}

// ask makes the request and gives the answer to the shard, redirects as they are.
func (f *fetch) ask(a *hostAPI) error {
	ctx, cancel := context.WithCancelCause(f.x.Context())
	defer cancel(nil)
	defer f.releaseCoder()
	f.body.init(f)
	if f.r.Upgrade {
		return errors.New("a host API cannot be asked for a WebSocket")
	}
	asked, err := parseURL(f.r.URL)
	if err != nil {
		return err
	}
	if !safeMethod(f.r.Method) {
		if err := f.x.Affect(gatewayside.EffectSubrequest); err != nil {
			return err
		}
	}
	u := *asked
	u.Scheme, u.Host = "http", a.host
	h := requestHeaders(f.r.Headers)
	h[headerTenant] = []string{f.c.tenant}
	h[headerRequest] = []string{f.r.ID}
	h[headerLimits] = []string{limitsField(f.c.policy.For(f.c.tenant).Limits)}
	if h["Accept-Encoding"] == nil {
		h["Accept-Encoding"] = []string{"identity"} // there is no network to save
	}
	req := (&http.Request{Method: f.r.Method, URL: &u, Host: a.host, Header: h, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}).WithContext(ctx)
	if err := f.body.attach(req); err != nil {
		return err
	}
	resp, err := a.http.RoundTrip(req)
	if err != nil {
		if cause := context.Cause(ctx); ctx.Err() != nil && cause != nil {
			return cause
		}
		return err
	}
	if f.r.Redirect == gen.Fetch_Redirect_error && redirects(resp.StatusCode) && resp.Header.Get("Location") != "" {
		discard(resp.Body)
		return errors.New("it redirects, and the request's redirect mode is \"error\"")
	}
	// The URL that the worker sees is the one it asked for.
	return f.answer(ctx, cancel, f.r.Method, asked, false, resp)
}

// limitsField writes a tenant's limits as a dictionary of RFC 9651: what the service may want to know of
// who asks, so that its own limits can follow. Units are in the names.
func limitsField(l limits.Tenant) string {
	var b strings.Builder
	for i, x := range []struct {
		name string
		n    uint64
	}{
		{"cpu-ms", uint64(l.CPU.Milliseconds())}, {"wall-ms", uint64(l.Wall.Milliseconds())}, {"memory-bytes", l.Memory},
		{"concurrent", uint64(l.Concurrent)}, {"subrequests", uint64(l.Subrequests)},
		{"request-body-bytes", l.RequestBody}, {"response-body-bytes", l.ResponseBody}, {"weight", uint64(l.Weight)},
	} {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s=%d", x.name, x.n)
	}
	return b.String()
}
