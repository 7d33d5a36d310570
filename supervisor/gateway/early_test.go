package gateway

import (
	"context"
	"fmt"
	"testing"

	"bulkhead/ipc/gatewayside"
	"bulkhead/policy/seccomp"
	"bulkhead/schema/gen"
	"bulkhead/supervisor/placement"
)

// quickFailure is a shard whose load fails between the lease of a request that did not wait for it and
// its stream.
type quickFailure struct {
	placement.Conn
	opened, failed chan struct{}
}

func (c *quickFailure) Load(_ context.Context, r gatewayside.LoadRequest) (gatewayside.LoadResult, error) {
	r.Begun()
	<-c.opened
	defer close(c.failed)
	return gatewayside.LoadResult{Failed: &gatewayside.LoadFailure{Outcome: gen.Outcome_exception, Message: "not today"}}, nil
}

func (c *quickFailure) Open(ctx context.Context, r gatewayside.OpenRequest) (*gatewayside.Stream, error) {
	close(c.opened)
	<-c.failed
	return c.Conn.Open(ctx, r) // which knows no such tenant
}

// A load can fail before the request that it was not waited for is sent. The client is told that the
// worker does not start, not that a process died.
func TestALoadFailsBetweenLeaseAndStream(t *testing.T) {
	f := newFarm(t, func(_ *Options, o *placement.Options) {
		spawn := o.Spawn
		o.Spawn = func(ctx context.Context, p seccomp.Profile, n uint64, violated func(error)) (placement.Process, placement.Conn, error) {
			proc, conn, err := spawn(ctx, p, n, violated)
			if err != nil {
				return proc, conn, fmt.Errorf("spawn: %w", err)
			}
			return proc, &quickFailure{Conn: conn, opened: make(chan struct{}), failed: make(chan struct{})}, nil
		}
	})
	resp, body := f.request("GET", "/hello", nil)
	ours(t, resp, body, 500, "notLoaded", "a")
}
