package placement

import (
	"context"
	"sync/atomic"
	"time"

	"bulkhead/ipc/gatewayside"
	"bulkhead/supervisor/tenants"
)

// place is one version of a tenant in one shard.
type place struct {
	v      *tenants.Version
	shard  *shard // guarded by the pool's mu until ready is closed
	handle uint32 // guarded by the pool's mu until ready is closed
	to     *shard // where it is to be, if it can; nil: anywhere

	begun chan struct{} // closed when the first attempt at a load takes requests
	open  bool          // guarded by the pool's mu; the present attempt does

	ready chan struct{} // closed when the load is over, err then says how
	err   error
	until time.Time // a failed load is not tried again before

	refs     atomic.Int64 // leases held
	lastUsed atomic.Int64 // ns since the pool's start, of the last release
	gone     atomic.Bool  // takes no more leases
	retired  atomic.Bool  // superseded: evict at the last release
	evicting atomic.Bool
	mercy    atomic.Int64 // ns since the pool's start, until when WebSockets are let be if retired
}

// acquire takes a lease and reports whether the place still gives any; it is to be given back if not.
func (pl *place) acquire() bool {
	pl.refs.Add(1)
	return !pl.gone.Load()
}

// Lease is the right to open streams of one version in one shard. It holds the tenant in place
// until Release.
type Lease struct {
	pool   *Pool
	pl     *place
	shard  *shard
	handle uint32
	early  bool
}

// Shard is the id of the shard.
func (l Lease) Shard() uint32 { return l.shard.proc.ID }

// Open starts an invocation; r.Tenant is filled in.
func (l Lease) Open(ctx context.Context, r *gatewayside.OpenRequest) (*gatewayside.Stream, error) {
	r.Tenant = l.handle
	return l.shard.conn.Open(ctx, *r)
}

// Alive says whether the shard still lives, as far as is known.
func (l Lease) Alive() bool { return l.shard.conn.Err() == nil }

// Early says that the version was still being loaded when the lease was given: a stream may end
// notLoaded or killed because that failed. Acquire then tells what became of it.
func (l Lease) Early() bool { return l.early }

// Retired says whether the version, or its place, is on its way out, waits for its requests in flight, and has
// waited for as long as WebSockets are let be.
func (l Lease) Retired() bool {
	return l.pl.retired.Load() && time.Since(l.pool.start) >= time.Duration(l.pl.mercy.Load())
}

// Release gives the lease back, once.
func (l Lease) Release() {
	l.pl.lastUsed.Store(int64(time.Since(l.pool.start)))
	l.pool.giveBack(l.pl)
}
