package orders

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"bulkhead/policy/seccomp"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestOrdersSurviveTheWire(t *testing.T) {
	for _, o := range []Order{
		{Kind: KindReady},
		{Kind: KindSpawnShard, Profile: seccomp.JITWasm, Seq: 1 << 60, Memory: 3 << 30},
		{Kind: KindSpawnBundler, Seq: 2, Root: 7, Tenant: strings.Repeat("a", TenantMax)},
		{Kind: KindKill, Child: 1<<32 - 1},
		{Kind: KindLook, Child: 5, Seq: 3},
		{Kind: KindConfig, Seq: 4},
	} {
		b, err := o.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeOrder(b[:])
		if err != nil || got != o {
			t.Errorf("%+v came back as %+v, %v", o, got, err)
		}
	}
	if _, err := (Order{Tenant: strings.Repeat("a", TenantMax+1)}).Encode(); err == nil {
		t.Error("an over-long tenant id was encoded")
	}
}

func TestReportsSurviveTheWire(t *testing.T) {
	for _, r := range []Report{
		{Kind: ReportSpawned, Profile: seccomp.JIT, Seq: 9, Child: 3, PID: 4711, FDs: 4},
		{Kind: ReportRefused, Seq: 9, Step: "root", Errno: syscall.EPERM, Detail: "no"},
		{Kind: ReportExited, Child: 3, Code: -1, Signal: syscall.SIGSYS, Syscall: 41, Stopped: true, Step: "reason", Detail: "detail"},
		{Kind: ReportAdminConn, UID: 1000, FDs: 1},
		{Kind: ReportConfig, Seq: 4, FDs: 1},
		{Kind: ReportLook, Seq: 3, Child: 5, CPUMillis: 1<<32 - 1, DelayMillis: 1 << 31, Runnable: 7},
	} {
		b := r.Encode()
		got, err := DecodeReport(b[:])
		if diff := cmp.Diff(r, got); diff != "" || err != nil {
			t.Errorf("%v: %s", err, diff)
		}
	}
	b := Report{Kind: ReportRefused, Detail: strings.Repeat("x", 1000)}.Encode()
	if r, err := DecodeReport(b[:]); err != nil || len(r.Detail) != detailMax {
		t.Errorf("a long detail came back with %d bytes, %v", len(r.Detail), err)
	}
}

func TestBootSurvivesTheWire(t *testing.T) {
	b := Boot{
		Args: []string{"--preset", "strict", ""}, Listeners: []Listener{{Name: "http", Addr: "127.0.0.1:80", FD: 8}, {Name: "https", Addr: "", FD: 9}},
		TenantRoots: []string{"/srv/a", "/srv/b"}, SocketDirs: []string{"/run/a"}, SecretsKey: []byte("AGE-\x00"), ConfigFile: "p.yaml", ConfigPath: "/etc/p.yaml", DataPath: "/var/lib/b/gateway",
		Rootless: true, MaxShards: 3, MaxBundlers: 2, ShardMemory: 1 << 33, Profiles: seccomp.Profiles(),
		Degraded: []string{"cgroup: none"}, LauncherPID: 7, Generation: 2,
	}
	got, err := DecodeBoot(b.Encode())
	if diff := cmp.Diff(b, got); diff != "" || err != nil {
		t.Errorf("%v: %s", err, diff)
	}
}

// A hostile gateway's bytes: whatever decodes has exactly one spelling.
func FuzzDecodeOrder(f *testing.F) {
	b, err := Order{Kind: KindSpawnBundler, Seq: 2, Root: 7, Tenant: "hello"}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:])
	f.Add(make([]byte, OrderSize))
	f.Fuzz(func(t *testing.T, in []byte) {
		o, err := DecodeOrder(in)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("error %v is no ErrMalformed", err)
			}
			return
		}
		again, err := o.Encode()
		if err != nil || !bytes.Equal(again[:], in) {
			t.Errorf("%x decodes to %+v, which encodes to %x, %v", in, o, again, err)
		}
	})
}

func FuzzDecodeBoot(f *testing.F) {
	f.Add(Boot{Args: []string{"x"}, Listeners: []Listener{{Name: "a"}}}.Encode())
	f.Fuzz(func(t *testing.T, in []byte) {
		if _, err := DecodeBoot(in); err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("error %v is no ErrMalformed", err)
		}
	})
}

// peer is the launcher's end in a test.
type peer struct {
	t  *testing.T
	fd int
}

func connect(t *testing.T) (*Client, peer) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(p[1], false); err != nil {
		t.Fatal(err)
	}
	c := NewClient(os.NewFile(uintptr(p[0]), "orders"))
	t.Cleanup(func() { c.Close() })
	return c, peer{t, p[1]}
}

func (p peer) order() Order {
	p.t.Helper()
	b := make([]byte, OrderSize+1)
	n, err := unix.Read(p.fd, b)
	if err != nil {
		p.t.Fatal(err)
	}
	o, err := DecodeOrder(b[:n])
	if err != nil {
		p.t.Fatal(err)
	}
	return o
}

func (p peer) report(r Report, fds ...int) {
	p.t.Helper()
	b := r.Encode()
	if err := unix.Sendmsg(p.fd, b[:], unix.UnixRights(fds...), nil, 0); err != nil {
		p.t.Fatal(err)
	}
}

func TestClientMatchesAnswersToOrders(t *testing.T) {
	c, p := connect(t)
	type result struct {
		child *Child
		err   error
	}
	shard, bundler := make(chan result, 1), make(chan result, 1)
	go func() {
		child, err := c.SpawnShard(t.Context(), seccomp.JIT, 1<<30)
		shard <- result{child, err}
	}()
	first := p.order()
	go func() {
		child, err := c.SpawnBundler(t.Context(), 0, "hello")
		bundler <- result{child, err}
	}()
	second := p.order()
	p.report(Report{Kind: ReportRefused, Seq: second.Seq, Step: "tenant-folder", Errno: syscall.ENOENT, Detail: "gone"})
	p.report(Report{Kind: ReportSpawned, Seq: first.Seq, Child: 5, PID: 99, Profile: seccomp.JIT, FDs: 4}, 0, 0, 0, 0)

	if r := <-bundler; !errors.Is(r.err, syscall.ENOENT) {
		t.Errorf("the bundler's error is %v", r.err)
	}
	r := <-shard
	if r.err != nil {
		t.Fatal(r.err)
	}
	defer r.child.CloseFiles()
	if r.child.Control == nil || r.child.Stderr == nil || r.child.Output != nil || r.child.PID != 99 {
		t.Errorf("the shard is %+v", r.child)
	}
	p.report(Report{Kind: ReportExited, Child: 5, Code: -1, Signal: syscall.SIGSYS, Syscall: 41})
	if e := <-r.child.Exited(); e.Signal != syscall.SIGSYS || e.Syscall != 41 {
		t.Errorf("its end is %+v", e)
	}
	if _, open := <-r.child.Exited(); open {
		t.Error("a second end came")
	}
}

func TestAChildNobodyWaitsForIsKilled(t *testing.T) {
	c, p := connect(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		time.Sleep(5 * time.Millisecond)
		cancel()
	}()
	if _, err := c.SpawnShard(ctx, seccomp.JIT, 1<<30); !errors.Is(err, context.Canceled) {
		t.Fatalf("SpawnShard = %v", err)
	}
	o := p.order()
	p.report(Report{Kind: ReportSpawned, Seq: o.Seq, Child: 8, FDs: 4}, 0, 0, 0, 0)
	if k := p.order(); k.Kind != KindKill || k.Child != 8 {
		t.Errorf("the order after it is %+v", k)
	}
}

func TestEverybodyLearnsThatTheLauncherIsGone(t *testing.T) {
	c, p := connect(t)
	done := make(chan error, 1)
	go func() {
		_, err := c.SpawnShard(t.Context(), seccomp.JIT, 1<<30)
		done <- err
	}()
	p.order()
	unix.Close(p.fd)
	if err := <-done; !errors.Is(err, ErrLauncherGone) {
		t.Errorf("SpawnShard = %v", err)
	}
	if _, open := <-c.AdminConns(); open {
		t.Error("an admin connection came out of nowhere")
	}
	if _, err := c.SpawnShard(t.Context(), seccomp.JIT, 1<<30); !errors.Is(err, ErrLauncherGone) {
		t.Errorf("a later SpawnShard = %v", err)
	}
}

func TestAdminConnectionsAndDrainArrive(t *testing.T) {
	c, p := connect(t)
	p.report(Report{Kind: ReportAdminConn, UID: 1000, FDs: 1}, 0)
	a := <-c.AdminConns()
	a.Conn.Close()
	if a.UID != 1000 {
		t.Errorf("uid %d", a.UID)
	}
	p.report(Report{Kind: ReportDrain})
	p.report(Report{Kind: ReportDrain})
	<-c.Drain()
}

// FuzzDecodeReport: the gateway trusts the launcher, and still reads no further than a report goes.
func FuzzDecodeReport(f *testing.F) {
	for _, r := range []Report{
		{Kind: ReportSpawned, Profile: seccomp.JIT, Seq: 9, Child: 3, PID: 4711, FDs: 4},
		{Kind: ReportRefused, Seq: 9, Step: "root", Errno: syscall.EPERM, Detail: "no"},
		{Kind: ReportLook, Seq: 3, Child: 5, CPUMillis: 1, DelayMillis: 2, Runnable: 7},
	} {
		b := r.Encode()
		f.Add(b[:])
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := DecodeReport(in)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("error %v is no ErrMalformed", err)
			}
			return
		}
		again := r.Encode()
		if back, err := DecodeReport(again[:]); err != nil || back != r {
			t.Errorf("%+v came back as %+v, %v", r, back, err)
		}
	})
}
