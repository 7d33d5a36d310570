// Package ipctest drives the gateway's end of a shard's channels from the other side: an
// honest shard without an engine, and a hostile peer that says what a compromised one could.
//
// It is for tests and benchmarks. Sockets, framing and RPC are the real ones; only the
// JavaScript is missing.
package ipctest

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/workerside"
	"bulkhead/policy/limits"
	"bulkhead/schema/gen"

	"golang.org/x/sys/unix"
)

// Pair makes the two socketpairs between a gateway and a shard. The gateway's ends are files
// (to be given to gatewayside.Dial), the shard's blocking descriptors, closed by the test's end
// unless CloseShard was called before.
type Pair struct {
	GatewayControl, GatewayData *os.File
	Control, Data               int
	// Shutdown's own duplicates: whoever serves the shard's ends closes them when he likes, and their
	// numbers are soon somebody else's.
	ends [2]int
	once sync.Once
}

// NewPair makes a Pair.
func NewPair(t testing.TB) *Pair {
	t.Helper()
	p := &Pair{}
	p.GatewayControl, p.Control = socketpair(t, "control")
	p.GatewayData, p.Data = socketpair(t, "data")
	for i, fd := range []int{p.Control, p.Data} {
		own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatalf("duplicate a socket: %v", err)
		}
		p.ends[i] = own
	}
	t.Cleanup(p.Shutdown)
	return p
}

func socketpair(t testing.TB, name string) (*os.File, int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("socketpair: %v", err)
	}
	return os.NewFile(uintptr(fds[0]), name), fds[1]
}

// Shutdown makes both ends read end-of-file, as the death of the shard does.
func (p *Pair) Shutdown() {
	p.once.Do(func() {
		for _, fd := range p.ends {
			unix.Shutdown(fd, unix.SHUT_RDWR)
			unix.Close(fd)
		}
	})
}

// Peer is a shard that a test drives by hand.
type Peer struct {
	*Pair
	t  testing.TB
	sc *ipc.Scanner
	w  limits.Wire
}

// NewPeer makes a hand-driven shard on p. Reads fail the test after ten seconds of silence.
func NewPeer(t testing.TB, p *Pair) *Peer {
	t.Helper()
	w := limits.DefaultWire()
	for _, fd := range []int{p.Data, p.Control} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { p.Shutdown(); unix.Close(p.Data); unix.Close(p.Control) })
	return &Peer{Pair: p, t: t, sc: ipc.NewScanner(&w), w: w}
}

// SendRaw writes bytes to the data socket. That the gateway has hung up already is no failure.
func (p *Peer) SendRaw(b []byte) {
	p.t.Helper()
	for len(b) > 0 {
		n, err := unix.SendmsgN(p.Data, b, nil, nil, unix.MSG_NOSIGNAL)
		if err != nil {
			return
		}
		b = b[n:]
	}
}

// Send writes frames to the data socket.
func (p *Peer) Send(fill func(*ipc.Batch)) {
	p.t.Helper()
	var b ipc.Batch
	fill(&b)
	p.SendRaw(b.Bytes())
}

// Next reads the next frame that is not a ping; pings are answered. It is valid until the next
// call. io.EOF when the gateway has hung up.
func (p *Peer) Next() (gen.Frame, error) {
	for {
		f, ok, err := p.sc.Next()
		if err != nil {
			return gen.Frame{}, err
		}
		if ok && f.Which() == gen.Frame_Which_ping {
			p.Send(func(b *ipc.Batch) { b.Pong(f.Ping()) })
			continue
		}
		if ok {
			return f, nil
		}
		n, err := unix.Read(p.Data, p.sc.Free())
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return gen.Frame{}, err
		}
		if n == 0 {
			return gen.Frame{}, io.EOF
		}
		p.sc.Fill(n)
	}
}

// Want reads the next frame and fails the test if it is of another kind.
func (p *Peer) Want(kind gen.Frame_Which) gen.Frame {
	p.t.Helper()
	f, err := p.Next()
	if err != nil {
		p.t.Fatalf("waiting for a %s frame: %v", kind, err)
	}
	if f.Which() != kind {
		p.t.Fatalf("got a %s frame, want %s", f.Which(), kind)
	}
	return f
}

// WantHangUp fails the test unless the gateway closes the data socket.
func (p *Peer) WantHangUp() {
	p.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	buf := make([]byte, 4096)
	for time.Now().Before(deadline) {
		n, err := unix.Read(p.Data, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n == 0 || errors.Is(err, unix.ECONNRESET) {
			return
		}
		if err != nil {
			p.t.Fatalf("waiting for the gateway to hang up: %v", err)
		}
	}
	p.t.Fatal("the gateway did not hang up")
}

// Shard is an honest shard without an engine: it loads whatever it is given and answers each
// frame through Handle, on the thread that reads.
type Shard struct {
	Data *workerside.Data
	// Handle is called for each frame but pings. f is valid during the call.
	Handle func(d *workerside.Data, f gen.Frame) error
	// Loaded, if set, is called with each tenant's host capability; it must AddRef to keep it.
	Loaded func(tenant uint32, host gen.TenantHost)
}

// StartShard runs an honest shard on p until the gateway hangs up.
func StartShard(t testing.TB, p *Pair, s *Shard) {
	t.Helper()
	w := limits.DefaultWire()
	s.Data = workerside.NewData(p.Data, &w)
	control := workerside.ServeControl(p.Control, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s.Data.Poll(func(f gen.Frame, _ []byte) error {
			if f.Which() == gen.Frame_Which_ping {
				s.Data.Begin().Pong(f.Ping())
				s.Data.End()
				return nil
			}
			return s.Handle(s.Data, f)
		}) == nil {
			if s.Data.Flush() != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		p.Shutdown()
		<-done
		<-control.Done()
		syscall.Close(p.Data)
	})
}

// Load implements gen.Shard_Server.
func (s *Shard) Load(_ context.Context, call gen.Shard_load) error {
	res, err := call.AllocResults()
	if err != nil {
		return err
	}
	if s.Loaded != nil {
		s.Loaded(call.Args().Tenant(), call.Args().Host())
	}
	r, err := res.NewResult()
	if err != nil {
		return err
	}
	l, err := r.NewLoaded()
	if err != nil {
		return err
	}
	names, err := l.NewHandlers(1)
	if err != nil {
		return err
	}
	return names.Set(0, "fetch")
}

// Evict implements gen.Shard_Server.
func (s *Shard) Evict(context.Context, gen.Shard_evict) error { return nil }

// Stats implements gen.Shard_Server.
func (s *Shard) Stats(_ context.Context, call gen.Shard_stats) error {
	res, err := call.AllocResults()
	if err != nil {
		return err
	}
	st, err := res.NewStats()
	if err != nil {
		return err
	}
	st.SetExecutors(1)
	return nil
}

// Configure implements gen.Shard_Server.
func (s *Shard) Configure(context.Context, gen.Shard_configure) error { return nil }

// CodeCache implements gen.Shard_Server: it has none.
func (s *Shard) CodeCache(_ context.Context, call gen.Shard_codeCache) error {
	_, err := call.AllocResults()
	return err
}

// Drain implements gen.Shard_Server.
func (s *Shard) Drain(context.Context, gen.Shard_drain) error { return nil }

// Bundle makes a Bundle message with one ES module.
func Bundle(t testing.TB, source string) []byte {
	t.Helper()
	b, err := EncodeBundle(source)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
