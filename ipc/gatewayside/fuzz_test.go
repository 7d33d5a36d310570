package gatewayside

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"bulkhead/ipc"
	"bulkhead/policy/limits"
	"bulkhead/schema/gen"

	capnp "capnproto.org/go/capnp/v3"
	"capnproto.org/go/capnp/v3/rpc/transport"
	rpccp "capnproto.org/go/capnp/v3/std/capnp/rpc"
)

// plainMessage encodes one message for a seed or a step.
func plainMessage(t testing.TB, fill func(*capnp.Segment) error) []byte {
	t.Helper()
	m, seg, err := capnp.NewMessage(capnp.SingleSegment(nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := fill(seg); err != nil {
		t.Fatal(err)
	}
	raw, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// received is raw as the control codec would hand it on, or nil.
func received(raw []byte) *capnp.Message {
	m, err := capnp.Unmarshal(raw)
	if err != nil {
		return nil
	}
	m.TraverseLimit = uint64(2*len(raw) + 64<<10) // as ControlCodec.Decode
	m.DepthLimit = 32
	return m
}

// FuzzAnswers: what a shard answers to load, stats and codeCache, and the log entries it sends, are
// read within bounds whatever they hold, and what is kept of them is text.
func FuzzAnswers(f *testing.F) {
	f.Add(plainMessage(f, func(s *capnp.Segment) error {
		r, err := gen.NewRootShard_load_Results(s)
		if err != nil {
			return err
		}
		res, err := r.NewResult()
		if err != nil {
			return err
		}
		l, err := res.NewLoaded()
		if err != nil {
			return err
		}
		h, err := l.NewHandlers(1)
		if err != nil {
			return err
		}
		return h.Set(0, "fetch")
	}))
	f.Add(plainMessage(f, func(s *capnp.Segment) error {
		r, err := gen.NewRootShard_load_Results(s)
		if err != nil {
			return err
		}
		res, err := r.NewResult()
		if err != nil {
			return err
		}
		l, err := res.NewFailed()
		if err != nil {
			return err
		}
		l.SetOutcome(gen.Outcome_exception)
		d, err := l.NewDiagnostic()
		if err != nil {
			return err
		}
		return errors.Join(l.SetStack("Error\n at /worker.js:1:2"), d.SetMessage_("m\xff"), d.SetFile("/worker.js"))
	}))
	f.Add(plainMessage(f, func(s *capnp.Segment) error {
		r, err := gen.NewRootShard_stats_Results(s)
		if err != nil {
			return err
		}
		st, err := r.NewStats()
		if err != nil {
			return err
		}
		_, err = st.NewTenants(2)
		return err
	}))
	f.Add(plainMessage(f, func(s *capnp.Segment) error {
		p, err := gen.NewRootTenantHost_log_Params(s)
		if err != nil {
			return err
		}
		e, err := p.NewEntries(2)
		if err != nil {
			return err
		}
		e.At(0).SetLevel(gen.LogEntry_Level_warn)
		return errors.Join(e.At(0).SetText("hello"), e.At(1).SetRequestId("r-1"))
	}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > 64<<10 {
			return
		}
		read := func(what string, each func(root capnp.Struct) int) {
			m := received(raw)
			if m == nil {
				return
			}
			root, err := m.Root()
			if err != nil {
				return
			}
			// A message twice its size may be read (ControlCodec), and invalid bytes become three.
			if n := each(root.Struct()); n > 3*(2*len(raw)+64<<10) {
				t.Errorf("%s: %d bytes became %d", what, len(raw), n)
			}
		}
		text := func(s string) int {
			if !utf8.ValidString(s) {
				t.Errorf("%q is kept", s)
			}
			return len(s)
		}
		read("load", func(root capnp.Struct) (n int) {
			r, err := readLoadResult(gen.Shard_load_Results(root))
			if err != nil {
				return 0
			}
			for _, h := range r.Handlers {
				n += text(h)
			}
			if x := r.Failed; x != nil {
				n += text(x.File) + text(x.Excerpt) + text(x.Message) + text(x.Stack)
			}
			if len(r.Handlers) > maxHandlers {
				t.Errorf("%d handlers", len(r.Handlers))
			}
			return n
		})
		read("stats", func(root capnp.Struct) int {
			s, err := readStats(gen.Shard_stats_Results(root))
			if err == nil && len(s.Tenants) > maxStatsTenants {
				t.Errorf("%d tenants", len(s.Tenants))
			}
			return 0
		})
		read("code cache", func(root capnp.Struct) int {
			b, _ := gen.Shard_codeCache_Results(root).Cache()
			return len(b)
		})
		read("log", func(root capnp.Struct) (n int) {
			entries, err := readLogEntries(gen.TenantHost_log_Params(root))
			if err == nil && len(entries) > maxLogEntries {
				t.Errorf("%d entries", len(entries))
			}
			for _, e := range entries {
				n += text(e.Text) + text(e.RequestID)
			}
			return n
		})
	})
}

// scripted is a transport whose shard says what a fuzzer wrote.
type scripted struct {
	transport.Transport
	m *capnp.Message
}

type scriptedMessage struct{ m rpccp.Message }

func (s scriptedMessage) Message() rpccp.Message { return s.m }
func (s scriptedMessage) Release()               {}

func (s *scripted) RecvMessage() (transport.IncomingMessage, error) {
	m, err := rpccp.ReadRootMessage(s.m)
	return scriptedMessage{m}, err
}

// FuzzGuard: no RPC message makes the guard panic; what it lets through was asked for or held, and
// what it remembers of the shard stays within its bounds.
func FuzzGuard(f *testing.F) {
	seed := func(fill func(rpccp.Message) error) []byte {
		return plainMessage(f, func(s *capnp.Segment) error {
			m, err := rpccp.NewRootMessage(s)
			if err != nil {
				return err
			}
			return fill(m)
		})
	}
	f.Add(seed(func(m rpccp.Message) error {
		r, err := m.NewReturn()
		if err != nil {
			return err
		}
		r.SetAnswerId(1)
		r.SetReleaseParamCaps(false)
		_, err = r.NewResults()
		return err
	}))
	f.Add(seed(func(m rpccp.Message) error {
		c, err := m.NewCall()
		if err != nil {
			return err
		}
		c.SetInterfaceId(gen.TenantHost_TypeID)
		t, err := c.NewTarget()
		if err != nil {
			return err
		}
		t.SetImportedCap(3)
		_, err = c.NewParams()
		return err
	}))
	f.Add(seed(func(m rpccp.Message) error {
		r, err := m.NewRelease()
		if err != nil {
			return err
		}
		r.SetId(3)
		r.SetReferenceCount(2)
		return nil
	}))
	f.Add(seed(func(m rpccp.Message) error { _, err := m.NewFinish(); return err }))
	f.Add(seed(func(m rpccp.Message) error { _, err := m.NewDisembargo(); return err }))
	f.Add(seed(func(m rpccp.Message) error { _, err := m.NewAbort(); return err }))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > 64<<10 {
			return
		}
		refused := 0
		s := &scripted{}
		g := newGuard(s, func(error) { refused++ })
		g.questions = map[uint32]question{0: {bootstrap: true}, 1: {}, 2: {finished: true}}
		g.exports = map[uint32]uint32{3: 2}
		for range 3 { // the same again: numbers in use, references spent
			if s.m = received(raw); s.m == nil {
				return
			}
			before, held := len(g.questions), g.exports[3]
			m, err := g.RecvMessage()
			if err != nil {
				var v *ipc.ViolationError
				if !errors.As(err, &v) || refused != 1 {
					t.Errorf("refused %d times with %v", refused, err)
				}
				return
			}
			switch k := m.Message().Which(); k {
			case rpccp.Message_Which_return:
				if len(g.questions) > before {
					t.Error("an answer made a question")
				}
			case rpccp.Message_Which_release:
				if g.exports[3] > held {
					t.Error("a release added a reference")
				}
			case rpccp.Message_Which_call:
				if c, err := m.Message().Call(); err != nil || c.InterfaceId() != gen.TenantHost_TypeID {
					t.Errorf("a call of %#x passed, %v", c.InterfaceId(), err)
				}
			case rpccp.Message_Which_abort:
			default:
				t.Errorf("a message of type %d passed", k)
			}
			if g.answered < 0 || len(g.calls)-g.answered > maxShardCalls || g.callBytes > maxShardCallBytes+uint64(len(raw)) {
				t.Errorf("%d calls of %d bytes", len(g.calls), g.callBytes)
			}
		}
	})
}

// FuzzFrames: valid frames in any order, of streams and subrequests that are there and that are not,
// as the bytes say. State never goes beyond what the wire's limits allow.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{0, 1, 0, 2, 0, 0, 3, 0, 0, 6, 0, 0})                    // a response
	f.Add([]byte{8, 1, 1, 2, 65, 0, 3, 65, 0, 5, 65, 1, 4, 65, 0})       // a subrequest with a body
	f.Add([]byte{8, 1, 0, 4, 65, 0, 8, 2, 0, 6, 0, 0, 5, 0, 1, 7, 0, 0}) // two, one let go of
	f.Fuzz(func(t *testing.T, script []byte) {
		w := limits.DefaultWire()
		c := &Conn{opt: Options{Wire: w}.withDefaults(), closed: make(chan struct{}), streams: map[uint64]*Stream{},
			tenants: map[uint32]*tenant{}, fetches: map[uint64]*Subrequest{}}
		c.w.wake, c.w.pending = make(chan struct{}, 1), new(ipc.Batch)
		c.pulse.begin(&c.opt)
		l := limits.DefaultTenant()
		l.Subrequests = 5
		c.tenants[1] = &tenant{limits: l, host: &tenantHost{c: c}, fetch: func(r *Subrequest) {}}
		for id := uint64(1); id <= 3; id++ {
			s := &Stream{c: c, id: id, tenant: 1, t: c.tenants[1], headReady: make(chan struct{}), recvWindow: w.Window, sendWindow: w.Window - 10, wall: time.Second}
			s.deadline.Store(time.Now().Add(time.Hour).UnixNano())
			c.streams[id] = s
		}
		sc := ipc.NewScanner(&w)
		var b ipc.Batch
		for len(script) >= 3 {
			op, id, arg := script[0], uint64(script[1]&0x3f), script[2]
			if script[1]&0x40 != 0 {
				id |= ipc.FetchBit
			}
			script = script[3:]
			b.Reset(1 << 20)
			step(&b, op, id, arg)
			sc.Fill(copy(sc.Free(), b.Bytes()))
			for {
				fr, ok, err := sc.Next()
				if err != nil {
					t.Fatalf("a valid frame: %v", err)
				}
				if !ok {
					break
				}
				err = c.dispatch(fr)
				var v *ipc.ViolationError
				if err != nil && !errors.As(err, &v) && !errors.As(err, new(*OverdueError)) {
					t.Fatalf("%v is no violation", err)
				}
				bounded(t, c, 3)
				if err != nil {
					c.running.Wait()
					return
				}
			}
			c.w.mu.Lock()
			c.w.pending.Reset(1 << 20) // as the writer does
			c.w.mu.Unlock()
		}
		c.running.Wait()
	})
}

// step appends the frame that three bytes of a script stand for.
func step(b *ipc.Batch, op byte, id uint64, arg byte) {
	body := make([]byte, 1+int(arg)*250)
	switch op % 12 {
	case 0:
		b.Head(id, &ipc.Head{Status: 200 + uint16(arg), BodyMode: gen.BodyMode_streamed})
	case 1:
		b.Head(id, &ipc.Head{Status: 200, Body: body, BodyMode: gen.BodyMode_whole})
	case 2:
		b.Chunk(id, body)
	case 3:
		b.End(id)
	case 4:
		b.Abort(id, gen.Abort_Reason(arg%5), strings.Repeat("m", int(arg)))
	case 5:
		b.Window(id, uint32(arg))
	case 6:
		b.Done(id, &ipc.Done{Outcome: gen.Outcome(arg % 15)})
	case 7:
		b.Pong(uint64(arg))
	case 8, 9:
		n := binary.LittleEndian.Uint16([]byte{arg, op})
		b.Fetch(ipc.FetchBit|uint64(n), &ipc.Fetch{Parent: id, Method: "POST", URL: "http://a/", BodyMode: gen.BodyMode(arg % 3)})
	case 10:
		b.Overdue(id, &ipc.Overdue{Tenant: uint32(arg % 3), CPUMicros: uint64(arg)})
	case 11:
		b.Window(id, 1<<32-1)
	}
}

// bounded fails the test if a shard has made the gateway keep more than the wire allows.
func bounded(t *testing.T, c *Conn, streams int) {
	t.Helper()
	if len(c.streams) > streams || len(c.fetches) > c.opt.Wire.Fetches {
		t.Fatalf("%d streams, %d subrequests", len(c.streams), len(c.fetches))
	}
	for _, s := range c.streams {
		s.mu.Lock()
		if s.buf.size() > c.opt.Wire.Window || s.sendWindow > c.opt.Wire.Window || s.recvWindow < 0 || len(s.subs) > c.opt.Wire.StreamFetch {
			t.Errorf("stream %d: %d bytes, windows %d and %d, %d subrequests", s.id, s.buf.size(), s.recvWindow, s.sendWindow, len(s.subs))
		}
		s.mu.Unlock()
	}
	for _, r := range c.fetches {
		r.mu.Lock()
		if r.buf.size() > c.opt.Wire.Window || r.sendWindow > c.opt.Wire.Window || r.recvWindow < 0 {
			t.Errorf("subrequest %x: %d bytes, windows %d and %d", r.id, r.buf.size(), r.recvWindow, r.sendWindow)
		}
		r.mu.Unlock()
	}
}
