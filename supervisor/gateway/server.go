package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"bulkhead/policy"
	"bulkhead/policy/limits"
	"bulkhead/supervisor/observe"
	"bulkhead/supervisor/placement"
	"bulkhead/supervisor/tenants"
)

// Options of a server. Lookup, Tenants, Pool and Observer are required.
type Options struct {
	// Lookup finds the tenant of a Host header and a raw path (no query).
	Lookup func(ctx context.Context, host, path string) (*tenants.Version, bool)
	// Tenants lists what is known, for the index page and the admin API.
	Tenants  func() []tenants.Info
	Known    func(id string) bool // whether Tenants lists it; may be nil
	Len      func() int           // how many it lists; may be nil
	Pool     *placement.Pool
	Observer *observe.Observer
	// Get finds a tenant by its id, for calls between tenants; nil: there are none.
	Get func(ctx context.Context, id string) (*tenants.Version, bool)
	// Owner says which tenant a Host and a path lead to, without waiting for anything; nil: nobody is asked.
	Owner func(host, path string) (tenant string, ok bool)
	// Policy is the one in force, for who may call whom; required with Get.
	Policy func() *policy.Policy
	// OnLog is given what the gateway itself writes into tenants' logs, beside Observer.Logs; may be nil.
	OnLog func(tenant string, line observe.Line)

	Wire   limits.Wire // limits.DefaultWire()
	Index  bool        // the index page at localhost and loopback addresses
	Scheme string      // of the URLs that tenants see: "http", or "https" behind a front that ends TLS

	MaxConns   int           // client connections at once; 16384
	MaxRunning int           // invocations at once over all tenants; 8192. One tenant gets at most half.
	HeadTime   time.Duration // to read a request's head; 10 s
	IdleTime   time.Duration // an idle connection is kept; 120 s
	Grace      time.Duration // beyond a tenant's wall limit before its client is cut off; 5 s

	unreadBody time.Duration // the rest of a refused request's body may take; 1 s
}

func (o Options) withDefaults() Options {
	if o.Wire == (limits.Wire{}) {
		o.Wire = limits.DefaultWire()
	}
	if o.Known == nil {
		o.Known = func(id string) bool {
			return slices.ContainsFunc(o.Tenants(), func(t tenants.Info) bool { return t.ID == id })
		}
	}
	if o.Len == nil {
		o.Len = func() int { return len(o.Tenants()) }
	}
	if o.Scheme == "" {
		o.Scheme = "http"
	}
	if o.MaxConns <= 0 {
		o.MaxConns = 16 << 10
	}
	if o.MaxRunning <= 0 {
		o.MaxRunning = 8 << 10
	}
	if o.HeadTime <= 0 {
		o.HeadTime = 10 * time.Second
	}
	if o.IdleTime <= 0 {
		o.IdleTime = 120 * time.Second
	}
	if o.Grace <= 0 {
		o.Grace = 5 * time.Second
	}
	if o.unreadBody <= 0 {
		o.unreadBody = time.Second
	}
	return o
}

// Server serves clients. Its ServeHTTP expects connections that came through Serve.
type Server struct {
	opt  Options
	wire limits.Wire
	obs  *observe.Observer
	http *http.Server

	conns    atomic.Int64
	guards   guardSet
	sockets  socketSet
	tails    tails
	running  atomic.Int64 // invocations admitted and not over
	draining atomic.Bool
	asked    atomic.Bool    // a request came since Idle was last called
	keepRoom atomic.Int64   // bytes of request bodies that may still be kept for replays
	after    sync.WaitGroup // invocations that outlive their response
}

// New makes a server; Serve starts it.
func New(opt Options) *Server {
	opt = opt.withDefaults()
	s := &Server{opt: opt, wire: opt.Wire, obs: opt.Observer}
	s.keepRoom.Store(maxAllKept)
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	s.http = &http.Server{
		Handler:           s,
		Protocols:         &protocols,
		ReadHeaderTimeout: opt.HeadTime,
		IdleTimeout:       opt.IdleTime,
		// The strict reader refuses earlier, with a better answer.
		MaxHeaderBytes:               2 * (opt.Wire.HeaderBytes + opt.Wire.URLBytes),
		DisableGeneralOptionsHandler: true,
		ConnContext:                  connContext,
		ConnState:                    connState,
		ErrorLog:                     slog.NewLogLogger(s.obs.Log.Handler(), slog.LevelDebug),
	}
	return s
}

// Serve accepts connections until the listener fails or Drain ends it; then it returns nil.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(guardListener{l, s}); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Drain refuses new requests, waits until those in flight have ended, waitUntil included, and
// closes the listeners. While it waits, new requests are told to try again elsewhere. If ctx ends
// first, what still runs is cut off.
func (s *Server) Drain(ctx context.Context) error {
	s.draining.Store(true)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for s.running.Load() > 0 {
		s.sockets.endAll()
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.http.Close()
			return ctx.Err()
		}
	}
	if err := s.http.Shutdown(ctx); err != nil {
		s.http.Close()
		return err
	}
	done := make(chan struct{})
	go func() { s.after.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Running is the number of invocations in flight.
func (s *Server) Running() int64 { return s.running.Load() }

// Idle reports whether no request has come since it was last called, and none is in flight.
func (s *Server) Idle() bool { return !s.asked.Swap(false) && s.running.Load() == 0 }
