package gatewayside

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/ipctest"
	"bulkhead/policy/limits"
	"bulkhead/schema/gen"

	capnp "capnproto.org/go/capnp/v3"
	rpccp "capnproto.org/go/capnp/v3/std/capnp/rpc"
)

// The two channels as a whole, from a shard's bytes to the end of the connection. Only the sockets are
// missing, for speed: a reader in memory takes their place. Those of hostile_test.go and guard_test.go
// have them.

// pieces is a shard's end of the data channel: it has said everything already, and its bytes arrive at
// most n at a time.
type pieces struct {
	b      []byte
	n      int
	before func() // called before each read
}

func (p *pieces) Read(to []byte) (int, error) {
	if p.before != nil {
		p.before()
	}
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(to, p.b[:min(p.n, len(p.b))])
	p.b = p.b[n:]
	return n, nil
}

func (p *pieces) Close() error { return nil }

type nothing struct{}

func (nothing) Close() error { return nil }

// Streams of a fuzzed data channel.
const (
	plainStream   = iota + 1 // GET
	postStream               // POST with a body that is sent in parts
	upgradeStream            // asks for a WebSocket
	cancelStream             // canceled by its client once the shard has been read from
	lateStream               // past its deadline by then
	streamsFuzzed = iota
)

// dataConn is a connection with one tenant and a stream of each kind, whose data channel is p and whose
// last ping, numbered 7, is unanswered.
func dataConn(p *pieces, fetch func(*Subrequest)) *Conn {
	c := &Conn{opt: Options{}.withDefaults(), closed: make(chan struct{}), dialed: make(chan struct{}), data: p, control: nothing{},
		streams: map[uint64]*Stream{}, tenants: map[uint32]*tenant{}, fetches: map[uint64]*Subrequest{}}
	close(c.dialed)
	c.w.wake, c.w.pending = make(chan struct{}, 1), new(ipc.Batch)
	c.pulse.begin(&c.opt)
	c.pulse.seq.Store(7)
	c.pulse.waiting.Store(true)
	l := limits.DefaultTenant()
	l.Subrequests = 8
	c.tenants[1] = &tenant{limits: l, host: &tenantHost{c: c}, fetch: fetch, bindings: 1}
	for id := uint64(1); id <= streamsFuzzed; id++ {
		r := OpenRequest{Tenant: 1, Method: "GET", URL: "http://a/", RequestID: "r", Attempt: 1, Upgrade: id == upgradeStream}
		if id == postStream || id == cancelStream {
			r.Method, r.BodyMode = "POST", gen.BodyMode_streamed
		}
		s, err := c.Open(context.Background(), r)
		if err != nil {
			panic(err)
		}
		if s.streamed {
			if err := s.WriteBody(context.Background(), make([]byte, 1000)); err != nil {
				panic(err)
			}
		}
	}
	return c
}

// end runs the reader to its end, and the connection: what the shard is found guilty of, and each stream's
// outcome.
func (c *Conn) end(t *testing.T) (verdict string) {
	streams := make([]*Stream, 0, streamsFuzzed)
	for id := uint64(1); id <= streamsFuzzed; id++ {
		streams = append(streams, c.streams[id])
	}
	blamed := 0
	c.opt.OnViolation = func(error) { blamed++ }
	err := c.read(ipc.NewScanner(&c.opt.Wire))
	bounded(t, c, streamsFuzzed)
	c.fail(err)
	c.running.Wait()
	guilty := errors.As(err, new(*ipc.ViolationError))
	if guilty != (blamed == 1) || blamed > 1 {
		t.Errorf("blamed %d times for %v", blamed, err)
	}
	if !guilty && !errors.As(err, new(*OverdueError)) && !errors.Is(err, ErrPeerGone) {
		t.Errorf("ended with %v", err)
	}
	verdict = err.Error()
	for _, s := range streams {
		select {
		case <-s.Done():
		default:
			t.Errorf("stream %d did not end", s.id)
		}
		r := s.Result()
		verdict += fmt.Sprintf("\n%d %v %q %d", s.id, r.Outcome, r.Message, r.CPUMicros)
	}
	return verdict
}

// consume does what the gateway's own goroutines do meanwhile: they take what has come, which gives the
// shard more to send, and the client and the deadline of one stream each end it.
func (c *Conn) consume() {
	c.mu.Lock()
	streams, fetches := c.streams, c.fetches
	c.mu.Unlock()
	buf := make([]byte, 8<<10)
	for _, s := range streams {
		for !s.buf.empty() {
			s.Read(buf)
		}
		for len(s.socket.msgs) > 0 {
			s.NextMessage(context.Background())
		}
		switch s.id {
		case cancelStream:
			s.Cancel(gen.Abort_Reason_clientGone, "")
		case lateStream:
			s.expire(time.Now())
		}
	}
	for _, r := range fetches {
		for !r.buf.empty() {
			r.Read(buf)
		}
		for len(r.socket.msgs) > 0 {
			r.NextMessage(context.Background())
		}
	}
	c.w.mu.Lock()
	c.w.pending.Reset(1 << 20) // as the writer does
	c.w.mu.Unlock()
}

// framesOfEveryKind are conversations that an honest shard might lead, and a few that none does.
func framesOfEveryKind() (all [][]byte) {
	streamed := &ipc.Head{Status: 200, Headers: []byte("content-type\ntext/plain\n"), BodyMode: gen.BodyMode_streamed}
	ok := &ipc.Done{Outcome: gen.Outcome_ok, CPUMicros: 1500}
	sub := func(n uint64) uint64 { return ipc.FetchBit | n }
	for _, fill := range []func(*ipc.Batch){
		func(b *ipc.Batch) {
			b.Head(1, &ipc.Head{Status: 200, Body: []byte("x"), BodyMode: gen.BodyMode_whole})
			b.Done(1, ok)
		},
		func(b *ipc.Batch) {
			b.Head(1, streamed)
			b.Chunk(1, []byte("abc"))
			b.End(1)
			b.Done(1, ok)
		},
		func(b *ipc.Batch) {
			b.Head(2, streamed)
			b.Window(2, 900)
			b.Abort(2, gen.Abort_Reason_refused, "m")
			b.Chunk(2, bytes.Repeat([]byte("y"), 3000))
			b.Abort(2, gen.Abort_Reason_failed, "failed")
			b.Done(2, &ipc.Done{Outcome: gen.Outcome_exception, Message: "Error: m"})
		},
		func(b *ipc.Batch) {
			b.Head(upgradeStream, &ipc.Head{Status: ipc.StatusUpgrade})
			b.Message(upgradeStream, &ipc.Message{Opcode: ipc.OpText, Data: []byte("he")})
			b.Message(upgradeStream, &ipc.Message{Opcode: ipc.OpText, Data: []byte("llo"), Last: true})
			b.Message(upgradeStream, &ipc.Message{Opcode: ipc.OpBinary, Data: []byte{0, 255}, Last: true})
			b.Message(upgradeStream, &ipc.Message{Opcode: ipc.OpClose, Data: []byte("\x03\xe8bye"), Last: true})
			b.Done(upgradeStream, ok)
		},
		func(b *ipc.Batch) {
			b.Pong(7)
			b.Head(cancelStream, streamed)
			b.End(cancelStream)
			b.Done(cancelStream, ok)
		},
		func(b *ipc.Batch) {
			b.Head(lateStream, &ipc.Head{Status: 204})
			b.Done(lateStream, &ipc.Done{Outcome: gen.Outcome_exceededWallTime})
		},
		func(b *ipc.Batch) {
			b.Fetch(sub(1), &ipc.Fetch{Parent: 1, Method: "POST", URL: "http://upstream.test/p?q", Headers: []byte("a\nb\n"), BodyMode: gen.BodyMode_streamed})
			b.Chunk(sub(1), []byte("body"))
			b.End(sub(1))
			b.Window(sub(1), uint32(len(fuzzedAnswer)))
			b.Abort(sub(1), gen.Abort_Reason_clientGone, "")
			b.Fetch(sub(2), &ipc.Fetch{Parent: 1, Method: "POST", URL: "https://rpc.invalid/", Binding: 1, Call: "add", Body: []byte("2\n[]"), BodyMode: gen.BodyMode_whole})
			b.Head(1, streamed)
			b.Done(1, &ipc.Done{Outcome: gen.Outcome_canceled})
		},
		func(b *ipc.Batch) {
			b.Fetch(sub(3), &ipc.Fetch{Parent: upgradeStream, Method: "GET", URL: "http://upstream.test/", Upgrade: true})
			b.Message(sub(3), &ipc.Message{Opcode: ipc.OpBinary, Data: []byte("m"), Last: true})
			b.Message(sub(3), &ipc.Message{Opcode: ipc.OpClose, Last: true})
		},
		func(b *ipc.Batch) {
			b.Fetch(sub(4), &ipc.Fetch{Parent: 2, Method: "PUT", URL: "http://upstream.test/", BodyMode: gen.BodyMode_streamed})
			b.Abort(sub(4), gen.Abort_Reason_failed, "no more")
			b.Overdue(2, &ipc.Overdue{Tenant: 1, CPUMicros: 150_000, LimitMicros: 50_000})
		},
		func(b *ipc.Batch) { b.Open(9, &ipc.Open{Tenant: 1, Method: "GET", URL: "http://a/"}); b.Ping(1) },
	} {
		var b ipc.Batch
		fill(&b)
		all = append(all, bytes.Clone(b.Bytes()))
	}
	return append(all, bytes.Join([][]byte{all[6], all[2], all[3], all[4], all[5]}, nil))
}

// fuzzedAnswer is the body that every subrequest is answered with.
const fuzzedAnswer = "response"

// upstreams answer subrequests; what they have said by the next read does not depend on the machine.
type upstreams struct{ answered sync.Map } // of *Subrequest

func (u *upstreams) fetch(r *Subrequest) {
	if r.Upgrade {
		r.Switch([]byte("a\nb\n"), "")
	} else if r.Respond(&Answer{Status: 200, URL: r.URL}) == nil {
		r.Write([]byte(fuzzedAnswer))
	}
	u.answered.Store(r, true)
	<-r.c.closed
}

// await returns when every subrequest of c is answered.
func (u *upstreams) await(c *Conn) {
	for again := true; again; {
		again = false
		c.mu.Lock()
		for _, r := range c.fetches {
			_, answered := u.answered.Load(r)
			r.mu.Lock()
			refused := r.response == bodyAborted
			r.mu.Unlock()
			again = again || !answered && !refused
		}
		c.mu.Unlock()
		if again {
			time.Sleep(time.Microsecond)
		}
	}
}

// What FuzzShardBytes begins from is honest, but for the last conversation but one.
func TestFramesOfEveryKind(t *testing.T) {
	all := framesOfEveryKind()
	for i, raw := range all {
		var u upstreams
		p := &pieces{b: raw, n: 1}
		c := dataConn(p, u.fetch)
		p.before = func() { u.await(c) }
		err := c.read(ipc.NewScanner(&c.opt.Wire))
		c.fail(ErrClosed)
		c.running.Wait()
		switch honest := i != len(all)-2; {
		case honest && !errors.Is(err, ErrPeerGone) && !errors.As(err, new(*OverdueError)):
			t.Errorf("conversation %d: %v", i, err)
		case !honest && !errors.As(err, new(*ipc.ViolationError)):
			t.Errorf("a gateway's frames from a shard: %v", err)
		}
	}
}

// FuzzShardBytes: whatever a shard writes to the data channel, the gateway ends its streams and blames
// it or not, but neither panics nor hangs, and keeps no more than the wire allows. How the bytes are cut
// decides nothing.
func FuzzShardBytes(f *testing.F) {
	for _, raw := range framesOfEveryKind() {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		raw = raw[:min(len(raw), 64<<10)]
		idle := func(r *Subrequest) { <-r.c.closed }
		whole := dataConn(&pieces{b: raw, n: 1 << 20}, idle).end(t)
		if cut := dataConn(&pieces{b: raw, n: 1 + len(raw)/3}, idle).end(t); cut != whole {
			t.Errorf("whole: %s\ncut: %s", whole, cut)
		}
		var u upstreams
		p := &pieces{b: raw, n: 1 + len(raw)/7}
		c := dataConn(p, u.fetch)
		p.before = func() { u.await(c); c.consume() }
		c.end(t)
	})
}

// speech is a shard's end of the control channel: once the gateway has asked its n questions it says
// all that it has to say, and hangs up.
type speech struct {
	b      []byte
	n      int           // used by Write alone, which one goroutine calls
	asked  chan struct{} // one for each question
	closed chan struct{}
	once   sync.Once
	all    chan struct{} // closed with the last question
}

func newSpeech(b []byte, questions int) *speech {
	return &speech{b: b, n: questions, asked: make(chan struct{}, questions), all: make(chan struct{}), closed: make(chan struct{})}
}

func (s *speech) Read(to []byte) (int, error) {
	select {
	case <-s.all:
	case <-s.closed:
		return 0, io.ErrClosedPipe
	}
	if len(s.b) == 0 {
		return 0, io.EOF
	}
	n := copy(to, s.b)
	s.b = s.b[n:]
	return n, nil
}

// Write takes one message: the codec flushes after each, and these are small.
func (s *speech) Write(b []byte) (int, error) {
	select {
	case <-s.closed:
		return 0, io.ErrClosedPipe
	default:
	}
	if s.n--; s.n >= 0 {
		s.asked <- struct{}{}
	}
	if s.n == 0 {
		close(s.all)
	}
	return len(b), nil
}

func (s *speech) Close() error { s.once.Do(func() { close(s.closed) }); return nil }

// The gateway's questions to a fuzzed control channel, in order: 0 is for the bootstrap capability, and
// the shard is given one capability, 0.
const (
	loadQuestion = iota + 1
	statsQuestion
	cacheQuestion
	drainQuestion
	questions
)

// converse has a gateway ask all of them of a shard that says raw. It returns how the connection ended
// and how many log lines came.
func converse(t testing.TB, bundle, raw []byte) (loaded *LoadResult, lines int64, end error) {
	s := newSpeech(raw, questions)
	c := &Conn{opt: Options{}.withDefaults(), closed: make(chan struct{}), dialed: make(chan struct{}), data: &pieces{},
		streams: map[uint64]*Stream{}, tenants: map[uint32]*tenant{}, fetches: map[uint64]*Subrequest{}}
	c.w.wake, c.w.pending = make(chan struct{}, 1), new(ipc.Batch)
	c.pulse.begin(&c.opt)
	var blamed atomic.Int32
	c.opt.OnViolation = func(error) { blamed.Add(1) }
	c.dialControl(s)
	var logs atomic.Int64
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	// In turns, so that each question has its number.
	asked := func() {
		select {
		case <-s.asked:
		case <-c.closed:
		}
	}
	var callers sync.WaitGroup
	asked() // for the bootstrap capability
	var result LoadResult
	var loadErr error
	callers.Go(func() {
		result, loadErr = c.Load(ctx, LoadRequest{Tenant: 1, Bundle: bundle, Limits: limits.DefaultTenant(),
			Env: []EnvVar{{Name: "A", Value: "b"}}, Logs: func(e []LogEntry) { logs.Add(int64(len(e))) }})
	})
	asked()
	callers.Go(func() { c.Stats(ctx) })
	asked()
	callers.Go(func() { c.CodeCache(ctx, 1) })
	asked()
	callers.Go(func() { c.Drain(ctx) })
	select {
	case <-c.closed:
	case <-ctx.Done():
		t.Fatal("the connection did not end")
	}
	c.Close()
	callers.Wait()
	if ctx.Err() != nil {
		t.Fatal("a call outlived its connection")
	}
	if guilty := errors.As(c.err, new(*ipc.ViolationError)); guilty != (blamed.Load() == 1) {
		t.Errorf("blamed %d times for %v", blamed.Load(), c.err)
	}
	if loadErr == nil {
		loaded = &result
	}
	return loaded, logs.Load(), c.err
}

// controlMessages are what an honest shard says on the control channel to the questions of converse, one
// by one, and a few things that none does.
func controlMessages(t testing.TB) (honest, others [][]byte) {
	encode := func(fill func(rpccp.Message) error) []byte {
		return plainMessage(t, func(s *capnp.Segment) error {
			m, err := rpccp.NewRootMessage(s)
			if err != nil {
				return err
			}
			return fill(m)
		})
	}
	answer := func(id uint32, fill func(*capnp.Segment) (capnp.Struct, error)) []byte {
		return encode(func(m rpccp.Message) error {
			r, err := m.NewReturn()
			if err != nil {
				return err
			}
			r.SetAnswerId(id)
			r.SetReleaseParamCaps(false)
			p, err := r.NewResults()
			if err != nil {
				return err
			}
			if id == 0 {
				caps, err := p.NewCapTable(1)
				if err != nil {
					return err
				}
				caps.At(0).SetSenderHosted(0)
				return p.SetContent(capnp.NewInterface(p.Segment(), 0).ToPtr())
			}
			content, err := fill(p.Segment())
			if err != nil {
				return err
			}
			return p.SetContent(content.ToPtr())
		})
	}
	log := encode(func(m rpccp.Message) error {
		c, err := m.NewCall()
		if err != nil {
			return err
		}
		c.SetInterfaceId(gen.TenantHost_TypeID)
		target, err := c.NewTarget()
		if err != nil {
			return err
		}
		target.SetImportedCap(0)
		p, err := c.NewParams()
		if err != nil {
			return err
		}
		args, err := gen.NewTenantHost_log_Params(p.Segment())
		if err != nil {
			return err
		}
		e, err := args.NewEntries(2)
		if err != nil {
			return err
		}
		e.At(1).SetLevel(gen.LogEntry_Level_warn)
		return errors.Join(e.At(0).SetText("hello"), e.At(0).SetRequestId("r"), e.At(1).SetText("w\xff"), p.SetContent(capnp.Struct(args).ToPtr()))
	})
	honest = [][]byte{
		answer(0, nil),
		log,
		answer(loadQuestion, func(s *capnp.Segment) (capnp.Struct, error) {
			r, err := gen.NewShard_load_Results(s)
			if err != nil {
				return capnp.Struct{}, err
			}
			res, err := r.NewResult()
			if err != nil {
				return capnp.Struct{}, err
			}
			l, err := res.NewLoaded()
			if err != nil {
				return capnp.Struct{}, err
			}
			h, err := l.NewHandlers(1)
			return capnp.Struct(r), errors.Join(err, h.Set(0, "fetch"))
		}),
		answer(statsQuestion, func(s *capnp.Segment) (capnp.Struct, error) {
			r, err := gen.NewShard_stats_Results(s)
			if err != nil {
				return capnp.Struct{}, err
			}
			st, err := r.NewStats()
			if err != nil {
				return capnp.Struct{}, err
			}
			_, err = st.NewTenants(2)
			return capnp.Struct(r), err
		}),
		answer(cacheQuestion, func(s *capnp.Segment) (capnp.Struct, error) {
			r, err := gen.NewShard_codeCache_Results(s)
			return capnp.Struct(r), errors.Join(err, r.SetCache([]byte("cache")))
		}),
		answer(drainQuestion, func(s *capnp.Segment) (capnp.Struct, error) {
			r, err := gen.NewShard_drain_Results(s)
			return capnp.Struct(r), err
		}),
		encode(func(m rpccp.Message) error { // of the log call
			_, err := m.NewFinish()
			return err
		}),
		encode(func(m rpccp.Message) error {
			r, err := m.NewRelease()
			r.SetReferenceCount(1)
			return err
		}),
	}
	exception := func(id uint32) []byte {
		return encode(func(m rpccp.Message) error {
			r, err := m.NewReturn()
			if err != nil {
				return err
			}
			r.SetAnswerId(id)
			e, err := r.NewException()
			return errors.Join(err, e.SetReason("no"))
		})
	}
	others = [][]byte{
		exception(0), exception(loadQuestion), exception(statsQuestion),
		encode(func(m rpccp.Message) error { _, err := m.NewBootstrap(); return err }),
		encode(func(m rpccp.Message) error { _, err := m.NewResolve(); return err }),
		encode(func(m rpccp.Message) error { _, err := m.NewDisembargo(); return err }),
		encode(func(m rpccp.Message) error { _, err := m.NewProvide(); return err }),
		encode(func(m rpccp.Message) error { _, err := m.NewAbort(); return err }),
		encode(func(m rpccp.Message) error { _, err := m.NewUnimplemented(); return err }),
		binary.LittleEndian.AppendUint32(nil, 511),
	}
	return honest, others
}

func fuzzedBundle(t testing.TB) []byte {
	t.Helper()
	b, err := ipctest.EncodeBundle("export default {}")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What FuzzControlBytes begins from is understood: the load succeeds, the lines arrive.
func TestHonestControlMessages(t *testing.T) {
	honest, others := controlMessages(t)
	// The finish is of a call that may not be answered yet: allowed.
	loaded, lines, err := converse(t, fuzzedBundle(t), bytes.Join(honest, nil))
	if !errors.Is(err, ErrPeerGone) || loaded == nil || len(loaded.Handlers) != 1 || lines != 2 {
		t.Errorf("%v, %+v, %d lines", err, loaded, lines)
	}
	for i, raw := range others {
		if loaded, _, _ := converse(t, fuzzedBundle(t), bytes.Join([][]byte{raw, honest[0]}, nil)); loaded != nil {
			t.Errorf("message %d: loaded", i)
		}
	}
}

// FuzzControlBytes: whatever a shard says on the control channel while the gateway waits for answers of
// every kind, the gateway neither panics nor hangs, and blames it at most once.
func FuzzControlBytes(f *testing.F) {
	honest, others := controlMessages(f)
	f.Add(bytes.Join(honest, nil))
	for i, raw := range append(honest[1:], others...) {
		f.Add(raw)
		f.Add(bytes.Join([][]byte{honest[0], raw}, nil))
		if i < len(honest) {
			f.Add(bytes.Join([][]byte{honest[0], raw, raw}, nil)) // the same twice
		}
	}
	bundle := fuzzedBundle(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		converse(t, bundle, raw[:min(len(raw), 32<<10)])
	})
}
