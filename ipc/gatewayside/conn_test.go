package gatewayside_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/ipc/ipctest"
	"bulkhead/ipc/workerside"
	"bulkhead/policy/limits"
	"bulkhead/schema/gen"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hello answers every open with a whole body.
func hello(d *workerside.Data, f gen.Frame) error {
	if f.Which() != gen.Frame_Which_open {
		return nil
	}
	b := d.Begin()
	b.Head(f.Stream(), &ipc.Head{Status: 200, Headers: []byte("content-type\ntext/plain\n"), Body: []byte("hello"), BodyMode: gen.BodyMode_whole})
	b.Done(f.Stream(), &ipc.Done{Outcome: gen.Outcome_ok, CPUMicros: 17})
	d.End()
	return nil
}

// dial connects to a shard, loads tenant 1 and cleans up.
func dial(t testing.TB, handle func(*workerside.Data, gen.Frame) error, opt gatewayside.Options) *gatewayside.Conn {
	t.Helper()
	if opt.PingTimeout == 0 {
		opt.PingTimeout = time.Minute // nobody can tell here whether the shard hangs or the machine is busy
	}
	p := ipctest.NewPair(t)
	ipctest.StartShard(t, p, &ipctest.Shard{Handle: handle})
	c, err := gatewayside.Dial(p.GatewayControl, p.GatewayData, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	load(t, c, 1, limits.DefaultTenant())
	return c
}

func load(t testing.TB, c *gatewayside.Conn, tenant uint32, l limits.Tenant) {
	t.Helper()
	res, err := c.Load(t.Context(), gatewayside.LoadRequest{Tenant: tenant, Bundle: ipctest.Bundle(t, "export default {}"), Limits: l})
	if err != nil || res.Failed != nil {
		t.Fatalf("Load = %+v, %v", res, err)
	}
}

func get(tenant uint32) gatewayside.OpenRequest {
	return gatewayside.OpenRequest{Tenant: tenant, Method: "GET", URL: "http://a.localhost/", RequestID: "r", Attempt: 1}
}

func within(t testing.TB, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s: nothing within 30 s", what)
	}
}

func TestHello(t *testing.T) {
	c := dial(t, hello, gatewayside.Options{})
	s, err := c.Open(t.Context(), get(1))
	if err != nil {
		t.Fatal(err)
	}
	h, err := s.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if h.Status != 200 || !h.BodyWhole || string(h.Body) != "hello" || string(h.Headers) != "content-type\ntext/plain\n" {
		t.Errorf("head = %+v", h)
	}
	body, err := io.ReadAll(s)
	if err != nil || string(body) != "hello" {
		t.Errorf("body = %q, %v", body, err)
	}
	within(t, "done", s.Done())
	if r := s.Result(); r.Outcome != gen.Outcome_ok || r.CPUMicros != 17 {
		t.Errorf("result = %+v", r)
	}
}

func TestOpenRefusesWhatTheWorkerWould(t *testing.T) {
	c := dial(t, hello, gatewayside.Options{})
	long := strings.Repeat("x", 70<<10)
	for name, r := range map[string]gatewayside.OpenRequest{
		"unknown tenant": get(9),
		"long url":       {Tenant: 1, Method: "GET", URL: long},
		"long body":      {Tenant: 1, Method: "GET", BodyMode: gen.BodyMode_whole, Body: []byte(long)},
		"bad headers":    {Tenant: 1, Method: "GET", Headers: []byte("a\nb\r\n")},
		"no method":      {Tenant: 1},
		"body and none":  {Tenant: 1, Method: "GET", Body: []byte("x")},
		"long id":        {Tenant: 1, Method: "GET", RequestID: long},
	} {
		if _, err := c.Open(t.Context(), r); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	if c.Err() != nil {
		t.Errorf("the connection ended: %v", c.Err())
	}
}

func TestStreamsAreBounded(t *testing.T) {
	w := limits.DefaultWire()
	w.Streams = 3
	c := dial(t, func(*workerside.Data, gen.Frame) error { return nil }, gatewayside.Options{Wire: w})
	for i := range 4 {
		_, err := c.Open(t.Context(), get(1))
		if want := i == 3; errors.Is(err, gatewayside.ErrTooManyStreams) != want {
			t.Errorf("stream %d: %v", i, err)
		}
	}
}

// source answers each open with total bytes under the shard's honest accounting of windows.
type source struct {
	total int
	left  map[uint64]int
	win   map[uint64]int
}

func (s *source) handle(d *workerside.Data, f gen.Frame) error {
	id := f.Stream()
	switch f.Which() {
	case gen.Frame_Which_open:
		s.left[id], s.win[id] = s.total, limits.DefaultWire().Window
		d.Begin().Head(id, &ipc.Head{Status: 200, BodyMode: gen.BodyMode_streamed})
		d.End()
	case gen.Frame_Which_window:
		s.win[id] += int(f.Window())
	case gen.Frame_Which_abort:
		delete(s.left, id)
		d.Begin().Done(id, &ipc.Done{Outcome: gen.Outcome_canceled})
		d.End()
		return nil
	}
	chunk := make([]byte, 64<<10)
	for s.left[id] > 0 && s.win[id] > 0 {
		n := min(s.left[id], s.win[id], len(chunk))
		s.left[id] -= n
		s.win[id] -= n
		b := d.Begin()
		b.Chunk(id, chunk[:n])
		if s.left[id] == 0 {
			b.End(id)
			b.Done(id, &ipc.Done{Outcome: gen.Outcome_ok})
		}
		d.End()
	}
	return nil
}

func newSource(total int) *source {
	return &source{total: total, left: map[uint64]int{}, win: map[uint64]int{}}
}

func TestDownloadsFlowWhileOneIsStalled(t *testing.T) {
	src := newSource(100 << 20)
	c := dial(t, src.handle, gatewayside.Options{})
	stalled, err := c.Open(t.Context(), get(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stalled.Head(t.Context()); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	flowing, err := c.Open(t.Context(), get(1))
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, flowing)
	if err != nil || n != 100<<20 {
		t.Fatalf("read %d bytes, %v", n, err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapInuse) - int64(before.HeapInuse); grown > 8<<20 {
		t.Errorf("the heap grew by %d bytes over 100 MiB", grown)
	}
	stalled.Cancel(gen.Abort_Reason_clientGone, "gone")
	within(t, "canceled stream", stalled.Done())
	if r := stalled.Result(); r.Outcome != gen.Outcome_canceled {
		t.Errorf("result = %+v", r)
	}
}

// sink counts request bodies and grants windows for all streams but the stalled one.
type sink struct {
	stalled uint64
	got     map[uint64]int
}

func (s *sink) handle(d *workerside.Data, f gen.Frame) error {
	id := f.Stream()
	b := d.Begin()
	defer d.End()
	switch f.Which() {
	case gen.Frame_Which_chunk:
		p, err := f.Chunk()
		if err != nil {
			return err
		}
		s.got[id] += len(p)
		if id != s.stalled {
			b.Window(id, uint32(len(p)))
		}
	case gen.Frame_Which_end:
		b.Head(id, &ipc.Head{Status: 200, Body: fmt.Appendf(nil, "%d", s.got[id]), BodyMode: gen.BodyMode_whole})
		b.Done(id, &ipc.Done{Outcome: gen.Outcome_ok})
	case gen.Frame_Which_abort:
		b.Done(id, &ipc.Done{Outcome: gen.Outcome_canceled})
	}
	return nil
}

func TestUploadsFlowWhileOneIsStalled(t *testing.T) {
	c := dial(t, (&sink{stalled: 1, got: map[uint64]int{}}).handle, gatewayside.Options{})
	r := get(1)
	r.BodyMode = gen.BodyMode_streamed
	stalled, err := c.Open(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	block := make([]byte, 1<<20)
	if err := stalled.WriteBody(ctx, block); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("WriteBody beyond the window: %v", err)
	}
	flowing, err := c.Open(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if err := flowing.WriteBody(t.Context(), block); err != nil {
			t.Fatal(err)
		}
	}
	if err := flowing.CloseBody(); err != nil {
		t.Fatal(err)
	}
	h, err := flowing.Head(t.Context())
	if err != nil || string(h.Body) != fmt.Sprint(100<<20) {
		t.Errorf("head = %+v, %v", h, err)
	}
	stalled.Cancel(gen.Abort_Reason_clientGone, "")
	within(t, "canceled upload", stalled.Done())
	if err := stalled.WriteBody(t.Context(), block); !errors.Is(err, gatewayside.ErrBodyRefused) {
		t.Errorf("WriteBody after the end: %v", err)
	}
}

func TestDeathEndsStreamsCrashed(t *testing.T) {
	p := ipctest.NewPair(t)
	peer := ipctest.NewPeer(t, p)
	c, err := gatewayside.Dial(p.GatewayControl, p.GatewayData, gatewayside.Options{
		OnViolation: func(err error) { t.Errorf("a death is no violation: %v", err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.ForceTenant(1, limits.DefaultTenant())
	s, err := c.Open(t.Context(), get(1))
	if err != nil {
		t.Fatal(err)
	}
	peer.Want(gen.Frame_Which_open)
	p.Shutdown()
	within(t, "stream of a dead shard", s.Done())
	if r := s.Result(); r.Outcome != gen.Outcome_crashed {
		t.Errorf("result = %+v", r)
	}
	var ae *gatewayside.AbortError
	if _, err := s.Head(t.Context()); !errors.As(err, &ae) || ae.Outcome != gen.Outcome_crashed {
		t.Errorf("Head = %v", err)
	}
	within(t, "connection", c.Closed())
	if !errors.Is(c.Err(), gatewayside.ErrPeerGone) {
		t.Errorf("Err = %v", c.Err())
	}
	if _, err := c.Open(t.Context(), get(1)); err == nil {
		t.Error("opened a stream on a dead shard")
	}
}

func TestSilenceEndsTheConnection(t *testing.T) {
	p := ipctest.NewPair(t)
	c, err := gatewayside.Dial(p.GatewayControl, p.GatewayData, gatewayside.Options{PingEvery: 20 * time.Millisecond, PingTimeout: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	within(t, "silent shard", c.Closed())
	if !errors.Is(c.Err(), gatewayside.ErrUnresponsive) {
		t.Errorf("Err = %v", c.Err())
	}
}

func TestDeadlines(t *testing.T) {
	l := limits.DefaultTenant()
	l.Wall, l.WaitUntil = 50*time.Millisecond, 50*time.Millisecond
	opt := gatewayside.Options{Wire: limits.DefaultWire(), Grace: 50 * time.Millisecond, PingEvery: 20 * time.Millisecond}
	opt.Wire.Streams = 1
	obey := func(d *workerside.Data, f gen.Frame) error {
		if f.Which() == gen.Frame_Which_abort {
			d.Begin().Done(f.Stream(), &ipc.Done{Outcome: gen.Outcome_exceededWallTime})
			d.End()
		}
		return nil
	}
	ignore := func(*workerside.Data, gen.Frame) error { return nil }
	for _, c := range []struct {
		name   string
		handle func(*workerside.Data, gen.Frame) error
		dies   bool
	}{{"obeyed", obey, false}, {"ignored", ignore, true}} {
		t.Run(c.name, func(t *testing.T) {
			conn := dial(t, c.handle, opt)
			l := l
			if !c.dies {
				l.WaitUntil = time.Minute // for a shard that obeys in its own time, on a busy machine
			}
			load(t, conn, 2, l)
			s, err := conn.Open(t.Context(), get(2))
			if err != nil {
				t.Fatal(err)
			}
			within(t, "overdue stream", s.Done())
			if r := s.Result(); r.Outcome != gen.Outcome_exceededWallTime {
				t.Errorf("result = %+v", r)
			}
			if !c.dies {
				// Its done frame is taken: there is room for another stream, of which there may be one.
				for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
					if _, err := conn.Open(t.Context(), get(1)); err == nil {
						break
					} else if !errors.Is(err, gatewayside.ErrTooManyStreams) || time.Now().After(end) {
						t.Fatal(err)
					}
				}
				if conn.Err() != nil {
					t.Errorf("the connection ended: %v", conn.Err())
				}
				return
			}
			within(t, "shard that ignores deadlines", conn.Closed())
			if !errors.Is(conn.Err(), gatewayside.ErrUnresponsive) {
				t.Errorf("Err = %v", conn.Err())
			}
		})
	}
}

func TestLogsArriveInOrder(t *testing.T) {
	p := ipctest.NewPair(t)
	shard := &ipctest.Shard{Handle: hello}
	hosts := make(chan gen.TenantHost, 1)
	shard.Loaded = func(_ uint32, h gen.TenantHost) { hosts <- h.AddRef() }
	ipctest.StartShard(t, p, shard)
	c, err := gatewayside.Dial(p.GatewayControl, p.GatewayData, gatewayside.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var got bytes.Buffer
	done := make(chan struct{})
	_, err = c.Load(t.Context(), gatewayside.LoadRequest{Tenant: 1, Bundle: ipctest.Bundle(t, ""), Limits: limits.DefaultTenant(),
		Logs: func(es []gatewayside.LogEntry) {
			for _, e := range es {
				got.WriteString(e.Text)
			}
			if got.Len() == 300 {
				close(done)
			}
		}})
	if err != nil {
		t.Fatal(err)
	}
	host := <-hosts
	defer host.Release()
	for i := range 100 {
		err := host.Log(t.Context(), func(p gen.TenantHost_log_Params) error {
			es, err := p.NewEntries(1)
			if err != nil {
				return err
			}
			es.At(0).SetLevel(gen.LogEntry_Level_info)
			return es.At(0).SetText(fmt.Sprintf("%02d,", i))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := host.WaitStreaming(); err != nil {
		t.Fatal(err)
	}
	within(t, "logs", done)
	var want strings.Builder
	for i := range 100 {
		fmt.Fprintf(&want, "%02d,", i)
	}
	if got.String() != want.String() {
		t.Errorf("got %s", got.String())
	}
	st, err := c.Stats(t.Context())
	if err != nil || st.Executors != 1 {
		t.Errorf("Stats = %+v, %v", st, err)
	}
	if err := c.Evict(t.Context(), 1); err != nil {
		t.Error(err)
	}
}
