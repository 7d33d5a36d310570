package gatewayside

import (
	"context"

	"bulkhead/schema/gen"
)

// Functions in the arguments of a call. Whoever answers the call can call them while it lasts: an invocation is
// opened beside the one that made the call, in its very isolate. Which one that is the gateway knows from having
// opened the answering invocation for that call (OpenRequest.Serves); the asking shard names a number, and only
// the shard that the function is in has to make sense of it.

// Live says whether r is a call under way: neither answered whole nor given up. Its functions can be called.
func (r *Subrequest) Live() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.released && r.response == bodyOpen
}

// OpenFunction starts the invocation that a call of r, a function, asks for; o.Event, o.Tenant and which function
// it is are filled in. ErrReleased: the call that brought the function is over.
func (r *Subrequest) OpenFunction(ctx context.Context, o *OpenRequest) (*Stream, error) {
	q := r.Carrier
	if !q.Live() {
		return nil, ErrReleased
	}
	f := *o
	f.Event, f.Tenant, f.carrier, f.function = gen.Event_function, q.parent.tenant, q.id, r.Function
	return q.c.Open(ctx, f)
}
