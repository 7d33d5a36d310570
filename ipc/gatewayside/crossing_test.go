package gatewayside_test

import (
	"errors"
	"testing"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/ipc/ipctest"
	"bulkhead/policy/limits"
	"bulkhead/schema/gen"
)

// A head that crosses the end of its stream on the wire is nobody's: whoever waits for it is told how the
// stream ended, and not sent into a response that will not come. It may be a hostile shard's, much later.
func TestHeadsThatCrossTheEnd(t *testing.T) {
	evacuated := func(t *testing.T, c *gatewayside.Conn, _ *gatewayside.Stream) {
		if n := c.Evacuate(1); n != 1 {
			t.Fatalf("%d evacuated", n)
		}
	}
	late := func(t *testing.T, _ *gatewayside.Conn, s *gatewayside.Stream) { within(t, "the deadline", s.Done()) }
	wall := limits.DefaultTenant()
	wall.Wall = 10 * time.Millisecond
	for _, c := range []struct {
		name    string
		limits  limits.Tenant
		upgrade bool
		end     func(*testing.T, *gatewayside.Conn, *gatewayside.Stream)
		head    ipc.Head
		outcome gen.Outcome
	}{
		{"evacuated, a body that streams", limits.DefaultTenant(), false, evacuated, ipc.Head{Status: 200, BodyMode: gen.BodyMode_streamed}, gen.Outcome_crashed},
		{"evacuated, a whole body", limits.DefaultTenant(), false, evacuated, ipc.Head{Status: 200, BodyMode: gen.BodyMode_whole, Body: []byte("x")}, gen.Outcome_crashed},
		{"evacuated, a WebSocket", limits.DefaultTenant(), true, evacuated, ipc.Head{Status: 101}, gen.Outcome_crashed},
		{"late, a body that streams", wall, false, late, ipc.Head{Status: 200, BodyMode: gen.BodyMode_streamed}, gen.Outcome_exceededWallTime},
		{"late, a WebSocket", wall, true, late, ipc.Head{Status: 101}, gen.Outcome_exceededWallTime},
	} {
		t.Run(c.name, func(t *testing.T) {
			pair := ipctest.NewPair(t)
			peer := ipctest.NewPeer(t, pair)
			// The deadline has no grace, so that the test need not wait for it; what the shard then may
			// take to obey is the tenant's waitUntil.
			conn, err := gatewayside.Dial(pair.GatewayControl, pair.GatewayData, gatewayside.Options{Grace: time.Millisecond, PingTimeout: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.ForceTenant(1, c.limits)
			conn.ForceTenant(2, limits.DefaultTenant())
			r := get(1)
			r.Upgrade = c.upgrade
			s, err := conn.Open(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			peer.Want(gen.Frame_Which_open)
			c.end(t, conn, s)
			peer.Want(gen.Frame_Which_abort)
			other, err := conn.Open(t.Context(), get(2)) // its answer says that the head before it was read
			if err != nil {
				t.Fatal(err)
			}
			peer.Send(func(b *ipc.Batch) {
				b.Head(s.ID(), &c.head)
				b.Done(s.ID(), &ipc.Done{Outcome: gen.Outcome_canceled})
				b.Done(other.ID(), &ipc.Done{Outcome: gen.Outcome_notLoaded})
			})
			within(t, "the other's end", other.Done())
			var ended *gatewayside.AbortError
			if h, err := s.Head(t.Context()); !errors.As(err, &ended) || ended.Outcome != c.outcome {
				t.Errorf("head %+v, %v", h, err)
			}
			if r := s.Result(); r.Outcome != c.outcome {
				t.Errorf("result %+v", r)
			}
			if err := conn.Err(); err != nil {
				t.Error(err)
			}
		})
	}
}
