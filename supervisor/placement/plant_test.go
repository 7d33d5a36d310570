package placement

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/policy/limits"
	"bulkhead/policy/seccomp"
	"bulkhead/supervisor/launcher/orders"
	"bulkhead/supervisor/observe"
	"bulkhead/supervisor/tenants"

	"golang.org/x/sys/unix"
)

// plant makes shards without processes or sockets, so that a fake clock can run. The real
// connection is tried in package gateway and in cmd/bulkhead/e2e.
type plant struct {
	mu      sync.Mutex
	shards  []*fakeShard // guarded by mu
	spawned atomic.Int32
	boxes   bool                                 // shards have black boxes
	err     error                                // guarded by mu; what the next spawns answer
	takes   time.Duration                        // guarded by mu; of a spawn
	onStats func(s *fakeShard) gatewayside.Stats // guarded by mu; what a shard says it has used
	onLoad  func(s *fakeShard, r gatewayside.LoadRequest) (gatewayside.LoadResult, error)
}

type fakeShard struct {
	id       uint32
	exited   chan orders.Exit
	closed   chan struct{}
	once     sync.Once
	die      sync.Once
	err      error
	break_   func(error)
	blackBox *os.File

	mu     sync.Mutex
	loads  map[uint32]bool        // guarded by mu
	seen   map[uint32]bool        // guarded by mu; every handle ever given
	most   int                    // guarded by mu
	flight []gatewayside.InFlight // guarded by mu; what InFlight says
}

func (p *plant) spawn(ctx context.Context, _ seccomp.Profile, _ uint64, onViolation func(error)) (Process, Conn, error) {
	p.mu.Lock()
	err, takes := p.err, p.takes
	p.mu.Unlock()
	if takes > 0 {
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return Process{}, nil, ctx.Err()
		}
	}
	if err != nil {
		return Process{}, nil, err
	}
	c := &fakeConn{plant: p}
	s := &fakeShard{id: uint32(p.spawned.Add(1)), exited: make(chan orders.Exit, 1), closed: make(chan struct{}), loads: map[uint32]bool{}, seen: map[uint32]bool{}, break_: onViolation}
	c.fakeShard = s
	if p.boxes {
		fd, err := unix.MemfdCreate("box", unix.MFD_CLOEXEC)
		if err != nil {
			return Process{}, nil, err
		}
		s.blackBox = os.NewFile(uintptr(fd), "box")
		if err := s.blackBox.Truncate(ipc.BlackBoxBytes); err != nil {
			return Process{}, nil, err
		}
	}
	p.mu.Lock()
	p.shards = append(p.shards, s)
	p.mu.Unlock()
	return Process{ID: s.id, PID: 1000 + int(s.id), BlackBox: s.blackBox, Exited: s.exited, RSS: func() uint64 { return 17 << 20 }, Kill: func() error {
		s.exit(orders.Exit{Code: -1, Signal: syscall.SIGKILL, Syscall: -1})
		return nil
	}}, c, nil
}

func (p *plant) shard(i int) *fakeShard {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shards[i]
}

// exit ends the process: its sockets close and the launcher reports.
func (s *fakeShard) exit(e orders.Exit) {
	s.die.Do(func() {
		s.end(gatewayside.ErrPeerGone)
		s.exited <- e
		close(s.exited)
	})
}

// inFlight says that a stream of a tenant has not ended.
func (s *fakeShard) inFlight(stream uint64, tenant uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flight = append(s.flight, gatewayside.InFlight{Stream: stream, Tenant: tenant})
}

// box writes into the black box what was running.
func (s *fakeShard) box(t *testing.T, running ...ipc.Running) {
	var mem [ipc.BlackBoxBytes]byte
	for _, r := range running {
		b := mem[r.Slot*ipc.BlackBoxSlotBytes:]
		binary.LittleEndian.PutUint64(b[0:], 1)
		binary.LittleEndian.PutUint64(b[8:], r.Stream)
		binary.LittleEndian.PutUint32(b[16:], r.Tenant)
		binary.LittleEndian.PutUint32(b[20:], r.Fault)
	}
	if _, err := s.blackBox.WriteAt(mem[:], 0); err != nil {
		t.Fatal(err)
	}
}

func (s *fakeShard) end(err error) {
	s.once.Do(func() { s.err = err; close(s.closed) })
}

type fakeConn struct {
	*fakeShard
	plant *plant
}

func (c *fakeConn) Load(ctx context.Context, r gatewayside.LoadRequest) (gatewayside.LoadResult, error) {
	c.plant.mu.Lock()
	on := c.plant.onLoad
	c.plant.mu.Unlock()
	c.mu.Lock()
	if c.seen[r.Tenant] {
		panic("BUG: a handle was given twice")
	}
	c.seen[r.Tenant] = true
	c.mu.Unlock()
	var res gatewayside.LoadResult
	var err error
	if on != nil {
		res, err = on(c.fakeShard, r)
	} else {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-c.closed:
			return res, c.err
		case <-ctx.Done():
			return res, ctx.Err()
		}
	}
	if err == nil && res.Failed == nil {
		c.mu.Lock()
		c.loads[r.Tenant] = true
		c.most = max(c.most, len(c.loads))
		c.mu.Unlock()
	}
	return res, err
}

func (c *fakeConn) Evict(_ context.Context, tenant uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.loads, tenant)
	return c.Err()
}

func (c *fakeConn) Evacuate(uint32) int { return 0 }

func (c *fakeConn) CodeCache(context.Context, uint32) ([]byte, error) {
	return []byte("cache made in shard " + strconv.Itoa(int(c.id))), nil
}

func (c *fakeConn) Stats(context.Context) (gatewayside.Stats, error) {
	c.plant.mu.Lock()
	on := c.plant.onStats
	c.plant.mu.Unlock()
	if on != nil {
		return on(c.fakeShard), nil
	}
	return gatewayside.Stats{IsolatesReady: 2}, nil
}
func (c *fakeConn) Open(context.Context, gatewayside.OpenRequest) (*gatewayside.Stream, error) {
	return nil, c.Err()
}
func (c *fakeConn) Closed() <-chan struct{} { return c.closed }
func (c *fakeConn) Err() error {
	select {
	case <-c.closed:
		return c.err
	default:
		return nil
	}
}
func (c *fakeConn) InFlight() []gatewayside.InFlight {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flight
}
func (c *fakeConn) Close() error { c.end(gatewayside.ErrClosed); return nil }

func newPool(t *testing.T, p *plant, change func(*Options)) *Pool {
	o := Options{Spawn: p.spawn, Shard: limits.Shard{MaxTenants: 4, Memory: 1 << 30}, Profile: seccomp.JIT,
		Observer: observe.New(observe.NewLogger(io.Discard, slog.LevelError), observe.Options{})}
	if change != nil {
		change(&o)
	}
	pool := New(o)
	t.Cleanup(pool.Close)
	return pool
}

func version(id string) *tenants.Version {
	return &tenants.Version{Tenant: id, Hash: id, Limits: limits.DefaultTenant(), Profile: seccomp.JIT, Made: time.Now()}
}

func take(t *testing.T, p *Pool, v *tenants.Version) Lease {
	t.Helper()
	l, err := p.Acquire(t.Context(), v)
	if err != nil {
		t.Fatalf("acquire %s: %v", v.Tenant, err)
	}
	return l
}

// checkSlots compares the pool's books with what the shards hold.
func checkSlots(t *testing.T, pool *Pool, p *plant) {
	t.Helper()
	synctest.Wait()
	pool.mu.Lock()
	defer pool.mu.Unlock()
	for id, s := range pool.shards {
		if s.slots != len(s.hosted) {
			t.Errorf("shard %d: %d slots, %d hosted", id, s.slots, len(s.hosted))
		}
		f := p.shard(int(id) - 1)
		f.mu.Lock()
		if len(f.loads) != s.slots || f.most > pool.opt.Shard.MaxTenants {
			t.Errorf("shard %d holds %d tenants, the pool says %d; most ever %d", id, len(f.loads), s.slots, f.most)
		}
		f.mu.Unlock()
	}
}
