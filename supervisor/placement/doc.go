// Package placement decides which shard serves a tenant, and keeps shards to choose from.
//
// Duty: spawn sealed shards through the launcher, one of them always warm and empty; load a
// tenant's version into one of those that have room, chosen at random, once for all requests that
// wait for it; unload what is idle; replace what dies; keep a new version beside the old one until
// the old one's requests have ended.
//
// Trust: a shard is hostile. What is asked of it has a deadline; one that breaks the protocol,
// stops or falls silent is killed and becomes an incident. Who was running in it is known from
// the leases held here and the streams in its connection; its black box may narrow that down.
//
// After a death: blame.go judges, standing.go keeps suspects apart from everybody else, verdict.go
// tells the requests that were in it. A suspect is served, alone or in a small group; the next
// death tells more.
//
// Invariants: a shard hosts at most limits.Shard.MaxTenants tenants, all of one kind and of one
// cordon. A handle is never used twice in a shard. Tenants of whom one can call the other never share
// one (apart.go). Every shard that was spawned is watched by one goroutine until
// its process is gone. A lease holds its tenant in place: nothing is evicted under a request.
package placement

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"bulkhead/ipc/gatewayside"
	"bulkhead/policy"
	"bulkhead/policy/limits"
	"bulkhead/policy/seccomp"
	"bulkhead/policy/suspicion"
	"bulkhead/schema/gen"
	"bulkhead/supervisor/launcher/orders"
	"bulkhead/supervisor/observe"
	"bulkhead/supervisor/tenants"
)

// Conn is what placement needs of the connection to a shard. *gatewayside.Conn is the one that
// serves; tests of timing use one without sockets, since a fake clock cannot wait for those.
type Conn interface {
	Load(context.Context, gatewayside.LoadRequest) (gatewayside.LoadResult, error)
	Evict(ctx context.Context, tenant uint32) error
	// Evacuate ends what can be begun again elsewhere; see gatewayside.Conn.
	Evacuate(tenant uint32) (ended int)
	Stats(context.Context) (gatewayside.Stats, error)
	CodeCache(ctx context.Context, tenant uint32) ([]byte, error)
	Open(context.Context, gatewayside.OpenRequest) (*gatewayside.Stream, error)
	Closed() <-chan struct{}
	Err() error
	// InFlight lists what had not ended when the connection did; see gatewayside.Conn.
	InFlight() []gatewayside.InFlight
	Close() error
}

// Process is a worker that the launcher has sealed and verified.
type Process struct {
	ID       uint32 // the shard's id, never reused
	PID      int    // as the host sees it; for people
	BlackBox *os.File
	Stderr   *os.File
	Exited   <-chan orders.Exit // one value
	Kill     func() error       // SIGKILL; no error if it is gone
	RSS      func() uint64      // resident bytes as the kernel told the launcher lately, 0 if not yet
}

// Spawn makes one shard. onViolation is to be called at most once, when the shard breaks the
// protocol. The pool owns what is returned.
type Spawn func(ctx context.Context, profile seccomp.Profile, memory uint64, onViolation func(error)) (Process, Conn, error)

// Options of a pool. Spawn, Shard and Observer are required.
type Options struct {
	Spawn Spawn
	// Secrets opens the secrets of a tenant for one load, which wipes them. May be nil.
	Secrets   func(tenant string) ([]gatewayside.EnvVar, error)
	Shard     limits.Shard
	Profile   seccomp.Profile // of the first warm spare
	Policy    *policy.Policy  // says kinds, cordons, spread and IdleEvict instead of Shard, Profile, Spread and IdleEvict; may be nil
	MaxShards int             // shards at once, spares included; 64. The launcher has a ceiling of its own.
	Spread    int             // shards that tenants are spread over before one gets a second; 1
	Spares    int             // empty shards of Profile kept warm; 2
	Memory    uint64          // bytes that all shards together should not exceed; 0: not watched
	IdleEvict time.Duration   // a tenant without a request for this long is unloaded; 10 min
	Observer  *observe.Observer
	// Fetch performs a subrequest of a tenant and returns when it is over; nil: there is no way out.
	Fetch func(v *tenants.Version, r *gatewayside.Subrequest)
	// MayCall says whether policy lets a tenant call another, beside what the callee's folder says; nil: no.
	MayCall func(caller, callee string) bool
	// OnLog is given the log lines of tenants as they come, beside Observer.Logs; may be nil.
	OnLog func(tenant string, line observe.Line)
	// OnObserved is given what was seen of tenants, where policy says that it is recorded; may be nil.
	OnObserved func(suspicion.Observation)
	// OnStarted is told that a shard started a version; may be nil.
	OnStarted func(*tenants.Version)
	// OnRejected is told that a shard could not start a version, by the version's fault, and says
	// what serves the tenant instead; may be nil.
	OnRejected func(*tenants.Version, gatewayside.LoadFailure) *tenants.Version
}

func (o Options) withDefaults() Options {
	if o.MaxShards <= 0 {
		o.MaxShards = 64
	}
	if o.Spread <= 0 {
		o.Spread = 1
	}
	if o.Spares <= 0 {
		o.Spares = 2
	}
	if o.IdleEvict <= 0 {
		o.IdleEvict = 10 * time.Minute
	}
	if o.Shard.MaxTenants <= 0 {
		o.Shard.MaxTenants = limits.DefaultShard().MaxTenants
	}
	return o
}

func (o *Options) log() *slog.Logger { return o.Observer.Log }

// Deadlines of what is asked of a shard or of the launcher.
const (
	spawnTimeout = 30 * time.Second
	// loadGrace is added to a tenant's start-up CPU limit: compiling may wait for a core.
	loadGrace    = 15 * time.Second
	evictTimeout = 10 * time.Second
	statsTimeout = 500 * time.Millisecond
	exitTimeout  = 5 * time.Second // from a shard's last sign of life to the launcher's report
)

// Backoff after failed spawns: doubling from the first to the last.
const (
	backoffFirst = 100 * time.Millisecond
	backoffLast  = 10 * time.Second
)

var (
	// ErrFull: every shard is full of tenants with requests in flight and no more may be made.
	ErrFull = errors.New("every shard is full")
	// ErrStarting: the version was not running within its wall-clock limit.
	ErrStarting = errors.New("the worker is still being started")
	// ErrDraining: the host is stopping.
	ErrDraining = errors.New("the host is shutting down")
)

// LoadError says that a version was given to a shard and could not be started there. It is the
// tenant's fault unless Outcome is internalError.
type LoadError struct {
	Tenant  string
	Outcome gen.Outcome
	Failure gatewayside.LoadFailure
	Instead *tenants.Version // what OnRejected said, or nil

	// unconfirmed: only a shard that other tenants have been in said so, and such a shard may lie
	// about this one on their behalf.
	unconfirmed bool
}

func (e *LoadError) Error() string {
	return fmt.Sprintf("start %s: %s: %s", e.Tenant, e.Outcome, e.Failure.Message)
}

// NoShardError says that no shard could be had.
type NoShardError struct {
	Err   error
	Retry time.Duration // when the next attempt is made
}

func (e *NoShardError) Error() string {
	return fmt.Sprintf("no worker process could be started (next attempt in %v): %v", e.Retry.Round(10*time.Millisecond), e.Err)
}

func (e *NoShardError) Unwrap() error { return e.Err }
