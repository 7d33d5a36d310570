package gateway

import (
	"context"
	"hash/fnv"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"bulkhead/ipc/gatewayside"
	"bulkhead/policy/cron"
	"bulkhead/schema/gen"
	"bulkhead/supervisor/tenants"
)

// Scheduled events. A run is a request of its tenant's like any other, without a client: admitted,
// placed, limited and counted as those are. It is not run again when its process dies: it is an effect by
// itself.
//
// A run that is still going when its expression comes due again is not joined by a second one. Minutes
// that pass while the host is down, stopped or asleep are missed; of those that a loaded machine was only
// late for, at most cronCatchUp, each expression runs once. Runs are spread over the first cronJitter of
// their minute, by tenant and expression, so that not everybody starts at second 0.

const (
	cronCatchUp = 5 * time.Minute
	cronJitter  = 5 * time.Second
)

// cronKey names an expression of a tenant.
type cronKey struct{ tenant, text, zone string }

// crons is what runs now.
type crons struct {
	mu      sync.Mutex
	running map[cronKey]bool // guarded by mu
}

// RunCrons runs scheduled handlers as they come due, until ctx ends. list hands out the expressions that
// there are.
func (s *Server) RunCrons(ctx context.Context, list func(yield func(tenant string, e cron.Expr))) {
	s.runCrons(ctx, list, s.runCron)
}

func (s *Server) runCrons(ctx context.Context, list func(yield func(tenant string, e cron.Expr)), run func(ctx context.Context, tenant string, e cron.Expr, due time.Time)) {
	seen := time.Now().Truncate(time.Minute)
	c := crons{running: map[cronKey]bool{}}
	timer := time.NewTimer(time.Until(seen.Add(time.Minute)))
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		now := time.Now().Truncate(time.Minute)
		from := seen.Add(time.Minute)
		if late := now.Add(-cronCatchUp + time.Minute); from.Before(late) {
			from = late // slept, or stopped: what is further back is missed
		}
		list(func(tenant string, e cron.Expr) {
			for due := now; !due.Before(from); due = due.Add(-time.Minute) {
				if e.Due(due) {
					c.start(ctx, tenant, e, due, run)
					break
				}
			}
		})
		seen = now
		timer.Reset(time.Until(seen.Add(time.Minute)))
	}
}

// start runs one expression, unless it still runs.
func (c *crons) start(ctx context.Context, tenant string, e cron.Expr, due time.Time, run func(context.Context, string, cron.Expr, time.Time)) {
	key := cronKey{tenant, e.Text, e.Zone}
	c.mu.Lock()
	busy := c.running[key]
	c.running[key] = true
	c.mu.Unlock()
	if busy {
		return
	}
	go func() {
		defer func() {
			c.mu.Lock()
			delete(c.running, key)
			c.mu.Unlock()
		}()
		select {
		case <-time.After(jitter(key)):
			run(ctx, tenant, e, due)
		case <-ctx.Done():
		}
	}()
}

// jitter is an expression's own delay, the same each time.
func jitter(k cronKey) time.Duration {
	h := fnv.New64a()
	for _, s := range []string{k.tenant, k.text, k.zone} {
		h.Write([]byte(s))
		h.Write([]byte{0})
	}
	return time.Duration(h.Sum64() % uint64(cronJitter))
}

// runCron runs a tenant's scheduled handler and returns when it is over, waitUntil included.
func (s *Server) runCron(ctx context.Context, tenant string, e cron.Expr, due time.Time) {
	if s.draining.Load() {
		return
	}
	v, ok := s.opt.Get(ctx, tenant)
	if !ok || v.Err != nil {
		return // said where it was found
	}
	// The due time travels in the URL: the event has none of its own.
	s.event(ctx, v, gatewayside.OpenRequest{Event: gen.Event_scheduled, Name: e.Text,
		Method: http.MethodPost, URL: "https://scheduled.invalid/" + strconv.FormatInt(due.UnixMilli(), 10)})
}

// event runs an event that no client waits for, and returns when the invocation is over.
func (s *Server) event(ctx context.Context, v *tenants.Version, r gatewayside.OpenRequest) {
	u, err := url.Parse(r.URL)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	req := (&http.Request{Method: r.Method, URL: u, Host: u.Host, Header: http.Header{}, Body: http.NoBody}).WithContext(ctx)
	g := &guard{Conn: noConn{}, server: s}
	g.handling.Store(true)
	over := make(chan struct{})
	c := call{s: s, w: &nobody{header: http.Header{}}, r: req, g: g, v: v, id: newRequestID(), start: time.Now(),
		stats: s.obs.Metrics.Tenant(v.Tenant), req: r, event: true, settled: over}
	if !c.admit() {
		return
	}
	func() {
		defer func() {
			if p := recover(); p != nil && p != http.ErrAbortHandler {
				panic(p)
			}
		}()
		c.serve()
	}()
	<-over
}

// prepareEvent is prepare for an event that the host makes.
func (c *call) prepareEvent(b *scratch) bool {
	b.headers = append(b.headers[:0], c.req.Headers...)
	c.req.Headers, c.req.RequestID = b.headers, c.id
	c.req.ReceivedMs, c.req.Attempt = float64(c.start.UnixMicro())/1e3, 1
	return true
}

// nobody takes an answer that nobody waits for.
type nobody struct{ header http.Header }

func (n *nobody) Header() http.Header         { return n.header }
func (n *nobody) WriteHeader(int)             {}
func (n *nobody) Write(p []byte) (int, error) { return len(p), nil }
func (n *nobody) FlushError() error           { return nil }

// noConn is the connection that an event does not have.
type noConn struct{ net.Conn }

func (noConn) SetReadDeadline(time.Time) error  { return nil }
func (noConn) SetWriteDeadline(time.Time) error { return nil }
