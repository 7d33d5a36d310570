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

// driven is a hand-driven shard whose tenant 1 has a way out.
func driven(t *testing.T, l limits.Tenant, fetch func(*gatewayside.Subrequest)) (*ipctest.Peer, *gatewayside.Conn) {
	t.Helper()
	pair := ipctest.NewPair(t)
	peer := ipctest.NewPeer(t, pair)
	c, err := gatewayside.Dial(pair.GatewayControl, pair.GatewayData, gatewayside.Options{PingTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.ForceFetcher(1, l, fetch)
	c.ForceBindings(1, 1)
	return peer, c
}

// function calls the function of that number.
func function(n uint16) *ipc.Fetch {
	r := ask()
	call(r)
	r.Binding, r.Call, r.Function = ipc.FunctionBinding, "", n
	return r
}

// A call of a function arrives where the call that brought it came from, whatever number it names, and not after that call.
func TestFunctions(t *testing.T) {
	l := limits.DefaultTenant()
	calls := make(chan *gatewayside.Subrequest, 1)
	functions := make(chan *gatewayside.Subrequest, 1)
	caller, cc := driven(t, l, func(r *gatewayside.Subrequest) { calls <- r; <-r.Context().Done() })
	callee, ce := driven(t, l, func(r *gatewayside.Subrequest) { functions <- r; <-r.Context().Done() })
	wait := func(c chan *gatewayside.Subrequest) *gatewayside.Subrequest {
		t.Helper()
		select {
		case r := <-c:
			return r
		case <-time.After(30 * time.Second):
			t.Fatal("nothing arrived")
			return nil
		}
	}
	open := func(c *gatewayside.Conn, peer *ipctest.Peer, r gatewayside.OpenRequest) (*gatewayside.Stream, ipc.Open) {
		t.Helper()
		s, err := c.Open(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		w := limits.DefaultWire()
		o, err := ipc.DecodeOpen(peer.Want(gen.Frame_Which_open), &w)
		if err != nil {
			t.Fatal(err)
		}
		return s, o
	}
	open(cc, caller, get(1))
	r := ask()
	call(r)
	caller.Send(func(b *ipc.Batch) { b.Fetch(sub(1), r) })
	carrier := wait(calls)
	serving := get(1)
	serving.Event, serving.Name, serving.Serves = gen.Event_call, "add", carrier
	open(ce, callee, serving)

	callee.Send(func(b *ipc.Batch) { b.Fetch(sub(1), function(7)) })
	f := wait(functions)
	if f.Function != 7 || f.Carrier != carrier {
		t.Fatalf("function %d of %p, want 7 of %p", f.Function, f.Carrier, carrier)
	}
	req := get(99) // not the tenant that it will be
	inner, err := f.OpenFunction(t.Context(), &req)
	if err != nil {
		t.Fatal(err)
	}
	w := limits.DefaultWire()
	o, err := ipc.DecodeOpen(caller.Want(gen.Frame_Which_open), &w)
	if err != nil || o.Event != gen.Event_function || o.Tenant != 1 || o.Carrier != sub(1) || o.Function != 7 {
		t.Errorf("open: %+v, %v", o, err)
	}
	if inner.ID() == 1 {
		t.Error("the function runs in the invocation of the call itself")
	}
	// The call is over for its caller: no function of it is called any more, and that is nobody's breach.
	caller.Send(func(b *ipc.Batch) { b.Abort(sub(1), gen.Abort_Reason_clientGone, "") })
	<-carrier.Context().Done()
	callee.Send(func(b *ipc.Batch) { b.Fetch(sub(2), function(1)) })
	late := wait(functions)
	if late.Carrier.Live() {
		t.Error("the call that is over counts as live")
	}
	if _, err := late.OpenFunction(t.Context(), &req); !errors.Is(err, gatewayside.ErrReleased) {
		t.Errorf("a function of a call that is over: %v", err)
	}
	// An invocation that answers no call has been given none.
	open(ce, callee, get(1))
	forged := function(1)
	forged.Parent = 2
	callee.Send(func(b *ipc.Batch) { b.Fetch(sub(3), forged) })
	within(t, "the liar's end", ce.Closed())
	var v *ipc.ViolationError
	if !errors.As(ce.Err(), &v) || v.Kind != ipc.KindState {
		t.Errorf("a function's call by who has none: %v", ce.Err())
	}
	if err := cc.Err(); err != nil {
		t.Errorf("the other shard: %v", err)
	}
}
