// Package egress is the only code that dials out for a tenant.
//
// Duty: perform a subrequest that a shard has asked for: resolve, judge, dial, speak HTTP, follow
// redirects by mode, decode content codings, stream both bodies under back-pressure, and end with the
// subrequest's invocation.
//
// Trust: none in the request, which is a tenant's, nor in the upstream, which may be the same tenant's.
// What the shard's own limits say is checked before (ipc/gatewayside); what upstreams send is read by
// net/http and bounded here.
//
// Invariants:
//   - A host API is dialled where the operator's policy says, and nothing a worker sends changes that.
//     Fields named bulkhead-… are set here and nowhere else, whatever was written in a worker's request.
//   - Every connection is judged by the address that is really dialled, again at the moment of the
//     system call. Names, notations, redirects and name servers gain nothing.
//   - No connection of one tenant carries another's requests, and none outlives the rules it was made
//     under: a new policy has new connections.
//   - A method that is not safe is noted as an effect of its invocation before anything is dialled.
//   - Nothing is awaited without a deadline, and memory is bounded per subrequest: a chunk each way
//     here, a window each way in ipc, a decoder's window.
//   - The environment says nothing: no proxies, no resolver options.
package egress

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"bulkhead/policy"
	rules "bulkhead/policy/egress"
	"bulkhead/policy/limits"
	"bulkhead/supervisor/observe"
)

// Options of an Egress. Zero fields take the defaults named.
type Options struct {
	Policy   func() *policy.Policy // the one in force; asked for each subrequest
	Observer *observe.Observer
	Wire     limits.Wire    // limits.DefaultWire()
	Conns    int            // connections to upstreams, idle ones included; 1024
	Resolver *net.Resolver  // the system's name servers, asked by Go itself
	Roots    *x509.CertPool // the system's

	// Reached is told, before anything is dialled, that a tenant is about to ask a host name for a path.
	// chain names the tenants whose invocations led to it, the tenant itself last. May be nil.
	Reached func(chain []string, host, path string)

	// Socket says where a host API's socket stands for this process; nil: where the policy says. False: nowhere.
	Socket func(path string) (string, bool)

	ConnectTimeout time.Duration // of one address; 10 s
	HeadTimeout    time.Duration // from the request's last byte to the response's head; 100 s
	IdleTimeout    time.Duration // without a byte of the response although it is wanted; 100 s
}

func (o Options) withDefaults() Options {
	if o.Wire == (limits.Wire{}) {
		o.Wire = limits.DefaultWire()
	}
	if o.Conns == 0 {
		o.Conns = 1024
	}
	if o.Resolver == nil {
		o.Resolver = &net.Resolver{PreferGo: true}
	}
	for _, d := range []struct {
		to *time.Duration
		d  time.Duration
	}{{&o.ConnectTimeout, 10 * time.Second}, {&o.HeadTimeout, 100 * time.Second}, {&o.IdleTimeout, 100 * time.Second}} {
		if *d.to == 0 {
			*d.to = d.d
		}
	}
	return o
}

// Egress performs subrequests. Safe for concurrent use.
type Egress struct {
	opt   Options
	conns atomic.Int64 // open connections
	names *lookups
	stop  chan struct{}
	done  chan struct{}

	mu      sync.Mutex
	clients map[string]*client // guarded by mu; by tenant
	closed  bool               // guarded by mu
}

// client is what one tenant has of its own: rules, and connections made under them.
type client struct {
	e      *Egress
	tenant string
	policy *policy.Policy // the rules come from
	judge  *rules.Judge
	http   *http.Transport
	stats  *observe.Tenant

	open   atomic.Int64 // subrequests under way
	held   atomic.Int64 // connections, dials and lookups, idle and abandoned ones included
	coders atomic.Int32 // decoders with a large window under way
	used   atomic.Int64 // Unix ns of the last subrequest

	mu   sync.Mutex
	apis map[string]*hostAPI // guarded by mu; the operator's own, by name, made at first use
}

const (
	// idleConn is how long a connection waits for the tenant's next subrequest.
	idleConn = 60 * time.Second
	// idleClient is how long a tenant's client is kept without one.
	idleClient = 2 * time.Minute
	// idlePerHost and idlePerTenant bound what waits.
	idlePerHost   = 8
	idlePerTenant = 32
)

// New makes an Egress. Close ends it.
func New(opt Options) *Egress {
	opt = opt.withDefaults()
	e := &Egress{opt: opt, names: newLookups(opt.Conns), clients: map[string]*client{}, stop: make(chan struct{}), done: make(chan struct{})}
	go e.sweep()
	return e
}

// Close ends what waits; subrequests under way end with their invocations.
func (e *Egress) Close() {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return
	}
	e.closed = true
	for _, c := range e.clients {
		c.closeIdle()
	}
	e.clients = nil
	e.mu.Unlock()
	close(e.stop)
	<-e.done
}

// client returns the tenant's, making a new one when the policy has changed.
func (e *Egress) client(tenant string) (*client, error) {
	p := e.opt.Policy()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, errClosed
	}
	old := e.clients[tenant]
	if old != nil && old.policy == p {
		old.used.Store(time.Now().UnixNano())
		return old, nil
	}
	j, err := rules.NewJudge(p.EgressFor(tenant))
	if err != nil {
		return nil, fmt.Errorf("egress rules of %s: %w", tenant, err)
	}
	c := &client{e: e, tenant: tenant, policy: p, judge: j, stats: e.opt.Observer.Metrics.Tenant(tenant)}
	c.http = &http.Transport{
		DialContext:            c.dial,
		TLSClientConfig:        tlsConfig(e.opt.Roots),
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // codings are decoded here, all of them
		TLSHandshakeTimeout:    e.opt.ConnectTimeout,
		ResponseHeaderTimeout:  e.opt.HeadTimeout,
		MaxResponseHeaderBytes: int64(e.opt.Wire.HeaderBytes),
		IdleConnTimeout:        idleConn,
		MaxIdleConns:           idlePerTenant,
		MaxIdleConnsPerHost:    idlePerHost,
		WriteBufferSize:        16 << 10,
		ReadBufferSize:         16 << 10,
	}
	c.used.Store(time.Now().UnixNano())
	if old != nil {
		// Nothing waits there again: no request will be given to it.
		old.closeIdle()
	}
	e.clients[tenant] = c
	return c, nil
}

// sweep drops clients that nobody uses.
func (e *Egress) sweep() {
	defer close(e.done)
	tick := time.NewTicker(idleClient / 4)
	defer tick.Stop()
	for {
		select {
		case <-e.stop:
			return
		case <-tick.C:
		}
		e.mu.Lock()
		for id, c := range e.clients {
			if c.open.Load() == 0 && time.Since(time.Unix(0, c.used.Load())) > idleClient {
				delete(e.clients, id)
				c.closeIdle()
			}
		}
		e.mu.Unlock()
	}
}

// spare closes connections that wait, of all tenants, and reports whether one more may be opened.
func (e *Egress) spare() bool {
	e.mu.Lock()
	for _, c := range e.clients {
		c.closeIdle()
	}
	e.mu.Unlock()
	return e.conns.Load() < int64(e.opt.Conns)
}

// take counts one more connection, or says that there are too many.
func (e *Egress) take(ctx context.Context) error {
	for spared := false; ; {
		n := e.conns.Load()
		switch {
		case n < int64(e.opt.Conns):
			// Not counted before there is room: a moment too many would turn away somebody else.
			if e.conns.CompareAndSwap(n, n+1) {
				return nil
			}
		case ctx.Err() != nil:
			return ctx.Err()
		case spared || !e.spare():
			return errTooManyConns
		default:
			spared = true
		}
	}
}
