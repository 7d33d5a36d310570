package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/ipc/ipctest"
	"bulkhead/ipc/workerside"
	"bulkhead/policy/limits"
	"bulkhead/policy/seccomp"
	"bulkhead/schema/gen"
	"bulkhead/supervisor/launcher/orders"
	"bulkhead/supervisor/observe"
	"bulkhead/supervisor/placement"
	"bulkhead/supervisor/tenants"

	"golang.org/x/sys/unix"
)

// farm is a gateway with everything real but the shards' JavaScript: clients over TCP, net/http,
// placement, both channels over socketpairs, and at their other end a script.
type farm struct {
	t      testing.TB
	server *Server
	pool   *placement.Pool
	obs    *observe.Observer
	addr   string
	serve  chan error
	closed sync.Once

	mu       sync.Mutex
	versions map[string]*tenants.Version // guarded by mu; by host name without port
	shards   map[uint32]*script          // guarded by mu
	ids      atomic.Uint32
	spawnErr atomic.Pointer[error]
	opens    tally         // requests that a shard has got, by path
	aborts   tally         // what shards were told of requests that should end, by "path reason"
	let      chan struct{} // closed by letGo: what /held and /late wait for
	letOnce  sync.Once
}

// tally counts by a key.
type tally struct {
	mu   sync.Mutex
	seen map[string]int // guarded by mu
}

func (a *tally) add(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seen == nil {
		a.seen = map[string]int{}
	}
	a.seen[key]++
}

func (a *tally) count(key string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen[key]
}

func newFarm(t testing.TB, change func(*Options, *placement.Options)) *farm {
	f := &farm{t: t, versions: map[string]*tenants.Version{}, shards: map[uint32]*script{}, serve: make(chan error, 1), let: make(chan struct{})}
	f.obs = observe.New(observe.NewLogger(io.Discard, slog.LevelInfo), observe.Options{})
	po := placement.Options{Spawn: f.spawn, Shard: limits.DefaultShard(), Profile: seccomp.JIT, Observer: f.obs}
	so := Options{Lookup: f.lookup, Tenants: f.list, Observer: f.obs, Index: true}
	if change != nil {
		change(&so, &po)
	}
	f.pool = placement.New(po)
	so.Pool = f.pool
	f.server = New(so)
	for _, id := range []string{"a", "b"} {
		f.add(id, nil)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.addr = l.Addr().String()
	go func() { f.serve <- f.server.Serve(l) }()
	t.Cleanup(f.close)
	return f
}

// until waits for a state that has to come, on however busy a machine.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in 30 s not: %s", what)
		}
	}
}

// reached waits until shards have got n requests of a path, since the beginning.
func (f *farm) reached(path string, n int) {
	f.t.Helper()
	until(f.t, fmt.Sprintf("%d requests of %s are in a shard", n, path), func() bool { return f.opens.count(path) >= n })
}

// letGo ends what /held and /late wait for.
func (f *farm) letGo() { f.letOnce.Do(func() { close(f.let) }) }

func (f *farm) close() {
	f.closed.Do(func() {
		f.letGo()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		f.pool.Close()
		f.server.Drain(ctx)
	})
}

// add makes or replaces a tenant.
func (f *farm) add(id string, change func(*tenants.Version)) *tenants.Version {
	v := &tenants.Version{Tenant: id, Hash: "h-" + id, Bundle: ipctest.Bundle(f.t, "export default {}"), Limits: limits.DefaultTenant(),
		Profile: seccomp.JIT, Made: time.Now()}
	if change != nil {
		change(v)
	}
	f.mu.Lock()
	f.versions[id+".localhost"] = v
	f.mu.Unlock()
	f.pool.Retire(id, v)
	return v
}

func (f *farm) lookup(_ context.Context, host, _ string) (*tenants.Version, bool) {
	host, _, _ = strings.Cut(strings.ToLower(host), ":")
	f.mu.Lock()
	defer f.mu.Unlock()
	v, ok := f.versions[host]
	return v, ok
}

func (f *farm) list() (out []tenants.Info) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, v := range f.versions {
		i := tenants.Info{ID: v.Tenant, State: "ready", Version: v.Hash}
		if v.Err != nil {
			i.State, i.Err = "failed", v.Err
		}
		out = append(out, i)
	}
	return out
}

func (f *farm) spawn(_ context.Context, _ seccomp.Profile, _ uint64, onViolation func(error)) (placement.Process, placement.Conn, error) {
	if err := f.spawnErr.Load(); err != nil {
		return placement.Process{}, nil, *err
	}
	id := f.ids.Add(1)
	pair := ipctest.NewPair(f.t)
	s := &script{farm: f, id: id, pair: pair, streams: map[uint64]*scriptStream{}, exited: make(chan orders.Exit, 1)}
	ipctest.StartShard(f.t, pair, &ipctest.Shard{Handle: s.handle})
	conn, err := gatewayside.Dial(pair.GatewayControl, pair.GatewayData, gatewayside.Options{OnViolation: onViolation,
		PingTimeout: time.Minute}) // nobody can tell here whether the shard hangs or the machine is busy
	if err != nil {
		return placement.Process{}, nil, err
	}
	// Before the sockets close: a process that dies is reported dead.
	f.t.Cleanup(func() {
		s.die(orders.Exit{Code: -1, Signal: syscall.SIGKILL, Syscall: -1})
		f.letGo()
		s.answers.Wait()
	})
	f.mu.Lock()
	f.shards[id] = s
	f.mu.Unlock()
	fd, err := unix.MemfdCreate("box", 0)
	if err != nil {
		return placement.Process{}, nil, err
	}
	box := os.NewFile(uintptr(fd), "box")
	if err := box.Truncate(ipc.BlackBoxBytes); err != nil {
		return placement.Process{}, nil, err
	}
	s.box = box
	return placement.Process{ID: id, PID: int(id), BlackBox: box, Exited: s.exited, RSS: func() uint64 { return 17 << 20 }, Kill: func() error {
		s.die(orders.Exit{Code: -1, Signal: syscall.SIGKILL, Syscall: -1})
		return nil
	}}, conn, nil
}

// script is a shard that answers by the path of the URL, mostly on the thread that reads.
type script struct {
	farm   *farm
	id     uint32
	pair   *ipctest.Pair
	exited chan orders.Exit
	dead   sync.Once
	box    *os.File

	answers sync.WaitGroup // those of other threads

	mu      sync.Mutex               // held by handle
	streams map[uint64]*scriptStream // guarded by mu
}

type scriptStream struct {
	open     ipc.Open
	query    url.Values
	path     string
	received int
	body     []byte
	ended    bool
	left     int // response bytes to send
	window   int
	aborted  string
}

// enter writes into the black box that a slot's executor runs a tenant for a stream, and the signal
// it faulted with.
func (s *script) enter(slot int, tenant uint32, stream uint64, fault unix.Signal) {
	var b [ipc.BlackBoxSlotBytes]byte
	binary.LittleEndian.PutUint64(b[0:], 1)
	binary.LittleEndian.PutUint64(b[8:], stream)
	binary.LittleEndian.PutUint32(b[16:], tenant)
	binary.LittleEndian.PutUint32(b[20:], uint32(fault))
	s.box.WriteAt(b[:], int64(slot*ipc.BlackBoxSlotBytes))
}

func (s *script) die(e orders.Exit) {
	s.dead.Do(func() {
		s.pair.Shutdown()
		s.exited <- e
		close(s.exited)
	})
}

func (s *script) handle(d *workerside.Data, fr gen.Frame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := limits.DefaultWire()
	id := fr.Stream()
	switch fr.Which() {
	case gen.Frame_Which_open:
		o, err := ipc.DecodeOpen(fr, &w)
		if err != nil {
			return err
		}
		o.Headers, o.Body = bytes.Clone(o.Headers), bytes.Clone(o.Body)
		o.URL, o.Method, o.RequestID = strings.Clone(o.URL), strings.Clone(o.Method), strings.Clone(o.RequestID)
		u, err := url.Parse(o.URL)
		if err != nil {
			return err
		}
		st := &scriptStream{open: o, query: u.Query(), path: u.Path, window: w.Window, body: o.Body, received: len(o.Body), ended: o.BodyMode != gen.BodyMode_streamed}
		s.streams[id] = st
		s.farm.opens.add(st.path)
		s.start(d, id, st)
	case gen.Frame_Which_chunk:
		st := s.streams[id]
		if st == nil {
			return nil
		}
		p, err := ipc.DecodeChunk(fr, &w)
		if err != nil {
			return err
		}
		st.received += len(p)
		if st.path == "/echo" || st.path == "/uploaddie" {
			st.body = append(st.body, p...)
		}
		if st.path != "/stall" {
			d.Begin().Window(id, uint32(len(p)))
			d.End()
		}
	case gen.Frame_Which_end:
		if st := s.streams[id]; st != nil {
			st.ended = true
			s.finishUpload(d, id, st)
		}
	case gen.Frame_Which_message_:
		if st := s.streams[id]; st != nil {
			return s.socket(d, id, st, fr)
		}
	case gen.Frame_Which_window:
		if st := s.streams[id]; st != nil {
			st.window += int(fr.Window())
			s.more(d, id, st)
		}
	case gen.Frame_Which_abort:
		reason, msg, err := ipc.DecodeAbort(fr, &w)
		if err != nil {
			return err
		}
		if st := s.streams[id]; st != nil {
			st.aborted = reason.String() + ": " + msg
			s.farm.aborts.add(st.path + " " + reason.String())
			o := gen.Outcome_canceled
			if reason == gen.Abort_Reason_refused || reason == gen.Abort_Reason_failed {
				o = gen.Outcome_ok
			}
			if reason == gen.Abort_Reason_failed {
				o = gen.Outcome_exception
			}
			s.done(d, id, o, "")
		}
	}
	return nil
}

func (s *script) done(d *workerside.Data, id uint64, o gen.Outcome, msg string) {
	d.Begin().Done(id, &ipc.Done{Outcome: o, Message: msg})
	d.End()
	delete(s.streams, id)
}

func (s *script) whole(d *workerside.Data, id uint64, status int, headers string, body string) {
	mode := gen.BodyMode_whole
	if body == "" {
		mode = gen.BodyMode_none
	}
	d.Begin().Head(id, &ipc.Head{Status: uint16(status), Headers: []byte(headers), Body: []byte(body), BodyMode: mode})
	d.End()
	s.done(d, id, gen.Outcome_ok, "")
}

// answer is whole for another thread: not if the stream is over by now.
func (s *script) answer(d *workerside.Data, id uint64, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[id] != nil {
		s.whole(d, id, 200, plain, body)
		d.Flush()
	}
}

const plain = "content-type\ntext/plain\n"

func (s *script) start(d *workerside.Data, id uint64, st *scriptStream) {
	number := func(name string) int { n, _ := strconv.Atoi(st.query.Get(name)); return n }
	switch st.path {
	case "/info":
		s.whole(d, id, 200, plain+"x-attempt\n"+strconv.Itoa(int(st.open.Attempt))+"\nx-shard\n"+fmt.Sprint(s.id)+"\nx-id\n"+st.open.RequestID+"\n",
			st.open.Method+" "+st.open.URL+"\n"+string(st.open.Headers))
	case "/status":
		s.whole(d, id, number("code"), strings.ReplaceAll(st.query.Get("h"), "|", "\n"), st.query.Get("body"))
	case "/stream": // n bytes, under the window; cl: the Content-Length claimed
		st.left = number("n")
		headers := plain
		if cl := st.query.Get("cl"); cl != "" {
			headers += "content-length\n" + cl + "\n"
		}
		d.Begin().Head(id, &ipc.Head{Status: 200, Headers: []byte(headers), BodyMode: gen.BodyMode_streamed})
		d.End()
		s.more(d, id, st)
	case "/socket": // a WebSocket; do: what comes of its close
		d.Begin().Head(id, &ipc.Head{Status: ipc.StatusUpgrade})
		d.End()
	case "/first": // one chunk, then silence
		b := d.Begin()
		b.Head(id, &ipc.Head{Status: 200, Headers: []byte(plain), BodyMode: gen.BodyMode_streamed})
		b.Chunk(id, []byte("first"))
		d.End()
	case "/broken": // fails in the middle of its body
		b := d.Begin()
		b.Head(id, &ipc.Head{Status: 200, Headers: []byte(plain), BodyMode: gen.BodyMode_streamed})
		b.Chunk(id, []byte("half"))
		b.Abort(id, gen.Abort_Reason_failed, "stream errored")
		d.End()
		s.done(d, id, gen.Outcome_exception, "stream errored")
	case "/meanwhile": // hangs the first time
		if st.open.Attempt > 1 {
			s.whole(d, id, 200, plain+"x-shard\n"+fmt.Sprint(s.id)+"\n", "attempt "+strconv.Itoa(int(st.open.Attempt)))
		}
	case "/kill": // somebody outside kills the process, the first n times
		if int(st.open.Attempt) <= number("n") {
			s.die(orders.Exit{Code: -1, Signal: syscall.SIGKILL, Syscall: -1})
			return
		}
		s.whole(d, id, 200, plain, "attempt "+strconv.Itoa(int(st.open.Attempt)))
	case "/overdue":
		d.Begin().Overdue(id, &ipc.Overdue{Tenant: st.open.Tenant, CPUMicros: 151_000, LimitMicros: 50_000})
		d.End()
	case "/late": // waitUntil goes on after the response
		d.Begin().Head(id, &ipc.Head{Status: 200, Headers: []byte(plain), Body: []byte("early"), BodyMode: gen.BodyMode_whole})
		d.End()
		s.answers.Go(func() {
			<-s.farm.let
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.streams[id] != nil {
				s.done(d, id, gen.Outcome_ok, "")
				d.Flush()
			}
		})
	case "/held": // answers when the test lets it
		s.answers.Go(func() {
			<-s.farm.let
			s.answer(d, id, "held")
		})
	case "/soon": // answers from another thread than the one that reads
		s.answers.Go(func() { s.answer(d, id, "soon") })
	case "/end":
		s.done(d, id, gen.OutcomeFromString(st.query.Get("o")), st.query.Get("m"))
	case "/early": // answers without reading the body
		s.whole(d, id, 413, plain, "too much")
	case "/hang", "/stall":
	case "/die":
		if st.query.Get("once") == "" || st.open.Attempt == 1 {
			switch st.query.Get("box") {
			case "": // the black box says who faulted
				s.enter(3, st.open.Tenant, id, unix.SIGSEGV)
			case "all": // it says that all of them ran
				slot := 0
				for other, st := range s.streams {
					s.enter(slot, st.open.Tenant, other, 0)
					slot++
				}
			}
			s.die(orders.Exit{Code: -1, Signal: syscall.SIGSEGV, Syscall: -1})
			return
		}
		s.whole(d, id, 200, plain, "attempt "+strconv.Itoa(int(st.open.Attempt)))
	case "/halfdie":
		b := d.Begin()
		b.Head(id, &ipc.Head{Status: 200, Headers: []byte(plain), BodyMode: gen.BodyMode_streamed})
		b.Chunk(id, []byte("half"))
		d.End()
		d.Flush()
		time.AfterFunc(50*time.Millisecond, func() { s.die(orders.Exit{Code: 2, Syscall: -1}) })
	case "/forge":
		d.Begin().Head(id+1000, &ipc.Head{Status: 200})
		d.End()
	default:
		s.finishUpload(d, id, st)
	}
}

// finishUpload answers uploads once they are whole.
func (s *script) finishUpload(d *workerside.Data, id uint64, st *scriptStream) {
	if !st.ended {
		return
	}
	switch st.path {
	case "/echo":
		if len(st.body) <= 64<<10 {
			s.whole(d, id, 200, plain, string(st.body))
		}
	case "/uploaddie": // ends its shard when the body is there, the first time
		if st.open.Attempt == 1 {
			s.enter(3, st.open.Tenant, id, unix.SIGSEGV)
			s.die(orders.Exit{Code: -1, Signal: syscall.SIGSEGV, Syscall: -1})
			return
		}
		sum := sha256.Sum256(st.body)
		s.whole(d, id, 200, plain, hex.EncodeToString(sum[:]))
	case "/hang", "/stall", "/first", "/stream", "/broken", "/meanwhile":
	default:
		s.whole(d, id, 200, plain, strconv.Itoa(st.received))
	}
}

// more sends what the window lets it.
func (s *script) more(d *workerside.Data, id uint64, st *scriptStream) {
	if st.path != "/stream" {
		return
	}
	for st.left > 0 && st.window > 0 {
		n := min(st.left, st.window, 64<<10)
		d.Begin().Chunk(id, bytes.Repeat([]byte{'x'}, n))
		d.End()
		st.left, st.window = st.left-n, st.window-n
	}
	if st.left == 0 {
		d.Begin().End(id)
		d.End()
		s.done(d, id, gen.Outcome_ok, "")
	}
}

// request sends one request of the tenant a and returns the answer with its body.
func (f *farm) request(method, target string, body io.Reader, change ...func(*http.Request)) (*http.Response, string) {
	f.t.Helper()
	resp, text, err := f.try(method, target, body, change...)
	if err != nil {
		f.t.Fatalf("%s %s: %v", method, target, err)
	}
	return resp, text
}

func (f *farm) try(method, target string, body io.Reader, change ...func(*http.Request)) (*http.Response, string, error) {
	r, err := http.NewRequest(method, "http://"+f.addr+target, body)
	if err != nil {
		return nil, "", err
	}
	r.Host = "a.localhost"
	for _, c := range change {
		c(r)
	}
	c := http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Do(r)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

func host(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }

// outcomes waits until the tenant's counters say want, e.g. "ok=1 canceled=1".
func (f *farm) outcomes(tenant string, want map[string]uint64) {
	f.t.Helper()
	var got map[string]uint64
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if _, got = f.obs.Metrics.Requests(tenant); fmt.Sprint(got) == fmt.Sprint(want) {
			return
		}
	}
	f.t.Errorf("outcomes of %s = %v, want %v", tenant, got, want)
}
