package scheduler

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	goruntime "runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/ipc/ipctest"
	"bulkhead/ipc/workerside"
	"bulkhead/policy/limits"
	"bulkhead/policy/seccomp"
	"bulkhead/sandboxworker/engine"
	"bulkhead/sandboxworker/runtime"
	"bulkhead/schema/gen"

	"go.uber.org/goleak"
)

// V8 can be set up once in a process: all tests share it.
var testEngine *engine.Engine

// profileEnv names the profile a child test process is for.
const profileEnv = "SCHEDULER_TEST_PROFILE"

func TestMain(m *testing.M) {
	goruntime.GOMAXPROCS(goruntime.NumCPU() + 2) // as in a worker
	profile := seccomp.JIT
	var err error
	if name := os.Getenv(profileEnv); name != "" {
		if profile, err = seccomp.ParseProfile(name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
	}
	testEngine, err = engine.Init(engine.Config{Profile: profile, Source: runtime.Source(), Data: runtime.Data(), HeapMaxBytes: 128 << 20})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// child runs the calling test again in a process of its own with one more environment variable,
// and returns the process's end and what it printed.
func child(t *testing.T, env string, args ...string) (*os.ProcessState, string) {
	t.Helper()
	return childOf(t, t.Name(), env, args...)
}

// childOf runs another test than the calling one in a process of its own.
func childOf(t *testing.T, name, env string, args ...string) (*os.ProcessState, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], append([]string{"-test.run=^" + name + "$", "-test.v"}, args...)...)
	cmd.Env = append(os.Environ(), env, "GOTRACEBACK=none")
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return cmd.ProcessState, string(out)
}

// shard is a scheduler with real V8 and the gateway's end of its channels.
type shard struct {
	*gatewayside.Conn
	t    testing.TB
	s    *Scheduler
	box  []byte
	next uint32

	mu   sync.Mutex
	logs map[uint32][]gatewayside.LogEntry
}

func startShard(t testing.TB, opt Options) *shard {
	t.Helper()
	p := ipctest.NewPair(t)
	box, err := syscall.Mmap(-1, 0, ipc.BlackBoxBytes, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED|syscall.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Munmap(box) })
	opt.BlackBox = box
	w := limits.DefaultWire()
	s, err := New(testEngine, workerside.NewData(p.Data, &w), opt)
	if err != nil {
		t.Fatal(err)
	}
	control := workerside.ServeControl(p.Control, s.Shard())
	ran := make(chan error, 1)
	go func() { ran <- s.Run() }()
	c, err := gatewayside.Dial(p.GatewayControl, p.GatewayData, gatewayside.Options{
		OnViolation: func(err error) { t.Errorf("the shard broke the protocol: %v", err) },
		// Nobody can tell here whether the shard hangs or the machine is busy; how fast it answers is
		// what TestStuckExecutorsAreJoined looks at.
		PingTimeout: 20 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Err(); err != nil {
			t.Errorf("the connection ended by itself: %v", err)
		}
		c.Close()
		select {
		case err := <-ran:
			if err != nil {
				t.Errorf("Run = %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the scheduler did not stop when the gateway was gone")
		}
		<-control.Done()
		syscall.Close(p.Data)
	})
	return &shard{Conn: c, t: t, s: s, box: box, logs: map[uint32][]gatewayside.LogEntry{}}
}

// load starts a tenant and returns its handle.
func (h *shard) load(source string, edit ...func(*limits.Tenant)) uint32 {
	h.t.Helper()
	n, res := h.tryLoad(source, edit...)
	if res.Failed != nil {
		h.t.Fatalf("load failed: %+v", *res.Failed)
	}
	return n
}

func (h *shard) tryLoad(source string, edit ...func(*limits.Tenant)) (uint32, gatewayside.LoadResult) {
	h.t.Helper()
	l := limits.DefaultTenant()
	for _, e := range edit {
		e(&l)
	}
	h.mu.Lock()
	h.next++
	n := h.next
	h.mu.Unlock()
	res, err := h.Load(h.t.Context(), gatewayside.LoadRequest{
		Tenant: n, Bundle: ipctest.Bundle(h.t, source), Limits: l,
		Logs: func(es []gatewayside.LogEntry) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.logs[n] = append(h.logs[n], es...)
		},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return n, res
}

// answer is a whole response.
type answer struct {
	status int
	body   string
	err    error
	result gatewayside.Result
}

func request(tenant uint32, path string) gatewayside.OpenRequest {
	return gatewayside.OpenRequest{
		Tenant: tenant, Method: "GET", URL: "http://t.localhost" + path, Headers: []byte("host\nt.localhost\n"),
		RequestID: "r-1", ReceivedMs: float64(time.Now().UnixMilli()), Attempt: 1,
	}
}

func (h *shard) get(tenant uint32, path string) answer {
	h.t.Helper()
	st, err := h.Open(h.t.Context(), request(tenant, path))
	if err != nil {
		h.t.Fatal(err)
	}
	return h.finish(st)
}

func (h *shard) finish(st *gatewayside.Stream) answer {
	h.t.Helper()
	var a answer
	head, err := st.Head(h.t.Context())
	if err != nil {
		a.err = err
	} else {
		a.status = head.Status
		b, err := io.ReadAll(st)
		a.body, a.err = string(b), err
	}
	select {
	case <-st.Done():
	case <-time.After(40 * time.Second):
		h.t.Fatal("the stream did not end")
	}
	a.result = st.Result()
	return a
}

func (h *shard) wantOK(a answer, body string) {
	h.t.Helper()
	if a.err != nil || a.status != 200 || a.body != body || a.result.Outcome != gen.Outcome_ok {
		h.t.Errorf("got %+v, want 200 %q", a, body)
	}
}

func (h *shard) wantOutcome(a answer, o gen.Outcome) {
	h.t.Helper()
	if a.result.Outcome != o {
		h.t.Errorf("got outcome %s (%s), want %s", a.result.Outcome, a.result.Message, o)
	}
}

func TestHello(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`export default { fetch(request) { return new Response("hello " + new URL(request.url).pathname); } }`)
	for range 3 {
		h.wantOK(h.get(n, "/x"), "hello /x")
	}
}
