package gatewayside_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/ipc/ipctest"
	"bulkhead/ipc/workerside"
	"bulkhead/policy/limits"
	"bulkhead/schema/gen"

	"golang.org/x/sys/unix"
)

// A shard at work that does not answer is given up within a tenth of a second if it hangs, and
// given time if it only lacks a processor.
func TestHangingIsNotStarving(t *testing.T) {
	for _, c := range []struct {
		name  string
		look  func(n int) gatewayside.Activity
		hangs bool
		names []uint32 // tenants of which the end says that they ran
	}{
		{"a deadlock", func(int) gatewayside.Activity { return gatewayside.Activity{} }, true, nil},
		{"a spin", func(n int) gatewayside.Activity {
			return gatewayside.Activity{CPU: time.Duration(n) * 40 * time.Millisecond, Runnable: 1}
		}, true, nil},
		{"a turn beside others that come and go", func(n int) gatewayside.Activity {
			return gatewayside.Activity{Running: []ipc.Running{{Slot: 1, Turns: uint64(n), Tenant: 3}, {Slot: 2, Turns: 7, Tenant: 2}}}
		}, true, []uint32{2}},
		{"turns that come and go", func(n int) gatewayside.Activity {
			return gatewayside.Activity{Running: []ipc.Running{{Slot: 1, Turns: uint64(n), Tenant: 3}}}
		}, true, []uint32{3}},
		{"waiting for a processor", func(n int) gatewayside.Activity {
			return gatewayside.Activity{CPU: time.Duration(n) * time.Millisecond, Delay: time.Duration(n) * 40 * time.Millisecond, Runnable: 3}
		}, false, nil},
		{"waiting since the first look", func(int) gatewayside.Activity { return gatewayside.Activity{Runnable: 1} }, false, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			pair := ipctest.NewPair(t)
			var looks atomic.Int32
			conn, err := gatewayside.Dial(pair.GatewayControl, pair.GatewayData, gatewayside.Options{Look: func(context.Context) (gatewayside.Activity, error) {
				return c.look(int(looks.Add(1))), nil
			}})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			// Its control channel answers, so a tenant can be loaded; its data channel is not read.
			control := workerside.ServeControl(pair.Control, &ipctest.Shard{})
			t.Cleanup(func() {
				pair.Shutdown()
				<-control.Done()
				unix.Close(pair.Data)
			})
			load(t, conn, 2, limits.DefaultTenant())
			if _, err := conn.Open(t.Context(), get(2)); err != nil {
				t.Fatal(err)
			}
			spared := make(chan struct{})
			if !c.hangs {
				go func() { // two looks condemn a shard that hangs
					for looks.Load() < 5 {
						select {
						case <-conn.Closed():
							return
						case <-time.After(time.Millisecond):
						}
					}
					close(spared)
				}()
			}
			select {
			case <-spared:
			case <-conn.Closed():
				if !c.hangs || !errors.Is(conn.Err(), gatewayside.ErrUnresponsive) {
					t.Errorf("ended with %v", conn.Err())
				}
				var silent *gatewayside.SilentError
				var names []uint32
				if errors.As(conn.Err(), &silent) {
					for _, r := range silent.Running {
						names = append(names, r.Tenant)
					}
				}
				if !slices.Equal(names, c.names) {
					t.Errorf("%v names %v, want %v", conn.Err(), names, c.names)
				}
			case <-time.After(30 * time.Second): // a busy machine is given time
				t.Errorf("still alive after %d looks", looks.Load())
			}
		})
	}
}

// A launcher that does not answer condemns nobody: it may lack a processor as the shard does.
func TestALookThatFailsDecidesNothing(t *testing.T) {
	pair := ipctest.NewPair(t)
	var looks atomic.Int32
	conn, err := gatewayside.Dial(pair.GatewayControl, pair.GatewayData, gatewayside.Options{Look: func(context.Context) (gatewayside.Activity, error) {
		looks.Add(1)
		return gatewayside.Activity{}, context.DeadlineExceeded
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	control := workerside.ServeControl(pair.Control, &ipctest.Shard{})
	t.Cleanup(func() {
		pair.Shutdown()
		<-control.Done()
		unix.Close(pair.Data)
	})
	load(t, conn, 2, limits.DefaultTenant())
	if _, err := conn.Open(t.Context(), get(2)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for looks.Load() < 3 {
		select {
		case <-conn.Closed():
			t.Fatalf("given up after %v: %v", time.Since(began), conn.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	// For ever it is not waited for either.
	select {
	case <-conn.Closed():
		if !errors.Is(conn.Err(), gatewayside.ErrUnresponsive) {
			t.Errorf("ended with %v", conn.Err())
		}
		if took := time.Since(began); took < 9*time.Second {
			t.Errorf("given up after %v", took)
		}
	case <-time.After(60 * time.Second):
		t.Error("it is waited for")
	}
}

// Whoever is overdue is named by the shard, which may name only whom it hosts.
func TestOverdueFrames(t *testing.T) {
	for _, c := range []struct {
		name   string
		stream func(open uint64) uint64
		o      ipc.Overdue
		breach bool
	}{
		{"of a stream", func(open uint64) uint64 { return open }, ipc.Overdue{Tenant: 2, CPUMicros: 151_000, LimitMicros: 50_000}, false},
		{"of no stream", func(uint64) uint64 { return 0 }, ipc.Overdue{Tenant: 2, CPUMicros: 151_000, LimitMicros: 50_000}, false},
		{"of another tenant", func(open uint64) uint64 { return open }, ipc.Overdue{Tenant: 3, CPUMicros: 1}, true},
		{"of a stream that is not open", func(open uint64) uint64 { return open + 5 }, ipc.Overdue{Tenant: 2, CPUMicros: 1}, true},
		{"by years", func(open uint64) uint64 { return open }, ipc.Overdue{Tenant: 2, CPUMicros: 1 << 60, LimitMicros: 1}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := dial(t, func(d *workerside.Data, f gen.Frame) error {
				if f.Which() == gen.Frame_Which_open {
					d.Begin().Overdue(c.stream(f.Stream()), &c.o)
					d.End()
				}
				return nil
			}, gatewayside.Options{})
			load(t, conn, 2, limits.DefaultTenant())
			s, err := conn.Open(t.Context(), get(2))
			if err != nil {
				t.Fatal(err)
			}
			within(t, "the end of the connection", conn.Closed())
			var v *ipc.ViolationError
			var late *gatewayside.OverdueError
			if errors.As(conn.Err(), &v) != c.breach || errors.As(conn.Err(), &late) == c.breach {
				t.Errorf("ended with %v", conn.Err())
			}
			within(t, "the stream", s.Done())
			want := gen.Outcome_exceededCpu
			switch {
			case c.breach:
				want = gen.Outcome_protocolViolation
			case c.stream(s.ID()) == 0:
				want = gen.Outcome_crashed
			}
			if got := s.Result().Outcome; got != want {
				t.Errorf("outcome %v, want %v", got, want)
			}
			if f := conn.InFlight(); len(f) != 1 || f[0].Stream != s.ID() || f[0].Tenant != 2 {
				t.Errorf("in flight: %+v", f)
			}
		})
	}
}
