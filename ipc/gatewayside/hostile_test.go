package gatewayside_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/ipc/ipctest"
	"bulkhead/policy/limits"
	"bulkhead/schema/gen"

	"golang.org/x/sys/unix"
)

// attack lets a hostile peer loose on a connection with one open GET (stream 1) and one open
// streamed POST (stream 2), and checks that the gateway ends both as it must.
func attack(t *testing.T, kind ipc.Kind, do func(p *ipctest.Peer)) {
	t.Helper()
	pair := ipctest.NewPair(t)
	peer := ipctest.NewPeer(t, pair)
	var reported atomic.Int32
	c, err := gatewayside.Dial(pair.GatewayControl, pair.GatewayData, gatewayside.Options{
		OnViolation: func(error) { reported.Add(1) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.ForceTenant(1, limits.DefaultTenant())
	post := get(1)
	post.Method, post.BodyMode = "POST", gen.BodyMode_streamed
	var streams []*gatewayside.Stream
	for _, r := range []gatewayside.OpenRequest{get(1), post} {
		s, err := c.Open(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, s)
		peer.Want(gen.Frame_Which_open)
	}
	do(peer)
	within(t, "violation", c.Closed())
	var v *ipc.ViolationError
	if !errors.As(c.Err(), &v) || v.Kind != kind {
		t.Errorf("ended with %v, want a violation of kind %s", c.Err(), kind)
	}
	for _, s := range streams {
		within(t, "stream of a hostile shard", s.Done())
		if o := s.Result().Outcome; o != gen.Outcome_protocolViolation && o != gen.Outcome_ok {
			t.Errorf("stream ended %s", o)
		}
	}
	peer.WantHangUp()
	c.Close()
	if n := reported.Load(); n != 1 {
		t.Errorf("reported %d times", n)
	}
}

func TestHostileFrames(t *testing.T) {
	w := limits.DefaultWire()
	send := func(fill func(b *ipc.Batch)) func(*ipctest.Peer) {
		return func(p *ipctest.Peer) { p.Send(fill) }
	}
	stream := func(b *ipc.Batch, id uint64) {
		b.Head(id, &ipc.Head{Status: 200, BodyMode: gen.BodyMode_streamed})
	}
	done := func(b *ipc.Batch, id uint64, o gen.Outcome) { b.Done(id, &ipc.Done{Outcome: o}) }
	for _, c := range []struct {
		name string
		kind ipc.Kind
		do   func(*ipctest.Peer)
	}{
		{"text", ipc.KindFraming, func(p *ipctest.Peer) { p.SendRaw([]byte("HTTP/1.1 200 OK\r\n\r\n")) }},
		{"oversized frame", ipc.KindFraming, func(p *ipctest.Peer) { p.SendRaw([]byte{0, 0, 0, 0, 0, 0, 0, 1}) }},
		{"pointer to itself", ipc.KindEncoding, func(p *ipctest.Peer) {
			// Frame whose pointer field points at the frame struct: the abort inside is the frame again.
			var b ipc.Batch
			b.Abort(1, gen.Abort_Reason_failed, "")
			raw := b.Bytes()
			// Words: header, root pointer, three of data, the pointer. Make it a far pointer chain
			// into itself: landing pad = its own word.
			binary.LittleEndian.PutUint64(raw[8+8+24:], 4<<3|2)
			p.SendRaw(raw)
		}},
		{"pointer out of bounds", ipc.KindEncoding, func(p *ipctest.Peer) {
			var b ipc.Batch
			b.Chunk(1, []byte("x"))
			raw := b.Bytes()
			binary.LittleEndian.PutUint32(raw[8+8+24:], 1000<<2|1)
			p.Send(func(b *ipc.Batch) { stream(b, 1) })
			p.SendRaw(raw)
		}},
		{"list of 2^29 bytes", ipc.KindEncoding, func(p *ipctest.Peer) {
			var b ipc.Batch
			b.Chunk(1, []byte("x"))
			raw := b.Bytes()
			binary.LittleEndian.PutUint32(raw[8+8+24+4:], 0xffffffff&^7|2)
			p.Send(func(b *ipc.Batch) { stream(b, 1) })
			p.SendRaw(raw)
		}},
		{"an open", ipc.KindType, send(func(b *ipc.Batch) { b.Open(9, &ipc.Open{Method: "GET"}) })},
		{"a ping", ipc.KindType, send(func(b *ipc.Batch) { b.Ping(1) })},
		{"forged id", ipc.KindStream, send(func(b *ipc.Batch) { stream(b, 77) })},
		{"stream zero", ipc.KindStream, send(func(b *ipc.Batch) { b.End(0) })},
		{"future id", ipc.KindStream, send(func(b *ipc.Batch) { done(b, 3, gen.Outcome_ok) })},
		{"replayed done", ipc.KindStream, send(func(b *ipc.Batch) {
			b.Head(1, &ipc.Head{Status: 200})
			done(b, 1, gen.Outcome_ok)
			done(b, 1, gen.Outcome_ok)
		})},
		{"second head", ipc.KindState, send(func(b *ipc.Batch) { stream(b, 1); stream(b, 1) })},
		{"chunk before head", ipc.KindState, send(func(b *ipc.Batch) { b.Chunk(1, []byte("x")) })},
		{"end before head", ipc.KindState, send(func(b *ipc.Batch) { b.End(1) })},
		{"chunk after a whole body", ipc.KindState, send(func(b *ipc.Batch) {
			b.Head(1, &ipc.Head{Status: 200, Body: []byte("x"), BodyMode: gen.BodyMode_whole})
			b.Chunk(1, []byte("y"))
		})},
		{"chunk after end", ipc.KindState, send(func(b *ipc.Batch) { stream(b, 1); b.End(1); b.Chunk(1, []byte("x")) })},
		{"two ends", ipc.KindState, send(func(b *ipc.Batch) { stream(b, 1); b.End(1); b.End(1) })},
		{"end after abort", ipc.KindState, send(func(b *ipc.Batch) {
			stream(b, 1)
			b.Abort(1, gen.Abort_Reason_failed, "")
			b.End(1)
		})},
		{"abort for the client", ipc.KindState, send(func(b *ipc.Batch) { b.Abort(1, gen.Abort_Reason_clientGone, "") })},
		{"ok without a head", ipc.KindState, send(func(b *ipc.Batch) { done(b, 1, gen.Outcome_ok) })},
		{"ok before the end", ipc.KindState, send(func(b *ipc.Batch) { stream(b, 1); done(b, 1, gen.Outcome_ok) })},
		{"outcome crashed", ipc.KindOutcome, send(func(b *ipc.Batch) { done(b, 1, gen.Outcome_crashed) })},
		{"outcome scriptNotFound", ipc.KindOutcome, send(func(b *ipc.Batch) { done(b, 1, gen.Outcome_scriptNotFound) })},
		{"outcome protocolViolation", ipc.KindOutcome, send(func(b *ipc.Batch) { done(b, 1, gen.Outcome_protocolViolation) })},
		{"status 101", ipc.KindState, send(func(b *ipc.Batch) { b.Head(1, &ipc.Head{Status: 101}) })},
		{"split response", ipc.KindHeaders, send(func(b *ipc.Batch) {
			b.Head(1, &ipc.Head{Status: 200, Headers: []byte("x\na\r\nset-cookie: y\n")})
		})},
		{"beyond the window", ipc.KindWindow, send(func(b *ipc.Batch) {
			stream(b, 1)
			for range w.Window/w.ChunkBytes + 1 {
				b.Chunk(1, make([]byte, w.ChunkBytes))
			}
		})},
		{"grant of nothing", ipc.KindWindow, send(func(b *ipc.Batch) { b.Window(2, 0) })},
		{"grant of more than was sent", ipc.KindWindow, send(func(b *ipc.Batch) { b.Window(2, 1) })},
		{"grant of 4 GiB", ipc.KindWindow, send(func(b *ipc.Batch) { b.Window(1, 0xffffffff) })},
		{"pong without ping", ipc.KindPong, send(func(b *ipc.Batch) { b.Pong(99) })},
	} {
		t.Run(c.name, func(t *testing.T) { attack(t, c.kind, c.do) })
	}
}

func TestHalfAFrameAndDeathIsADeath(t *testing.T) {
	pair := ipctest.NewPair(t)
	peer := ipctest.NewPeer(t, pair)
	c, err := gatewayside.Dial(pair.GatewayControl, pair.GatewayData, gatewayside.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var b ipc.Batch
	b.End(1)
	peer.SendRaw(b.Bytes()[:11])
	unix.Shutdown(pair.Data, unix.SHUT_RDWR)
	within(t, "death in a frame", c.Closed())
	if !errors.Is(c.Err(), gatewayside.ErrPeerGone) || !strings.Contains(c.Err().Error(), "middle of a frame") {
		t.Errorf("Err = %v", c.Err())
	}
}

// A client that leaves and a shard that answers cross on the wire: that is no violation.
func TestCrossingCancelIsNoViolation(t *testing.T) {
	pair := ipctest.NewPair(t)
	peer := ipctest.NewPeer(t, pair)
	c, err := gatewayside.Dial(pair.GatewayControl, pair.GatewayData, gatewayside.Options{
		OnViolation: func(err error) { t.Error(err) },
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
	s.Cancel(gen.Abort_Reason_clientGone, "")
	peer.Send(func(b *ipc.Batch) {
		b.Head(1, &ipc.Head{Status: 200, BodyMode: gen.BodyMode_streamed})
		b.Chunk(1, make([]byte, 1000))
		b.End(1)
		b.Done(1, &ipc.Done{Outcome: gen.Outcome_ok})
	})
	within(t, "canceled stream", s.Done())
	if r := s.Result(); r.Outcome != gen.Outcome_ok {
		t.Errorf("result = %+v", r)
	}
	if n, err := s.Read(make([]byte, 10)); n != 0 || err == nil {
		t.Errorf("a canceled stream gave %d bytes", n)
	}
}

// Random valid frames in random order never panic or hang the gateway: it ends in a violation
// or goes on, and its streams end.
func TestRandomFrames(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			pair := ipctest.NewPair(t)
			peer := ipctest.NewPeer(t, pair)
			c, err := gatewayside.Dial(pair.GatewayControl, pair.GatewayData, gatewayside.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.ForceTenant(1, limits.DefaultTenant())
			var streams []*gatewayside.Stream
			for range 4 {
				s, err := c.Open(t.Context(), get(1))
				if err != nil {
					t.Fatal(err)
				}
				streams = append(streams, s)
			}
			peer.Send(func(b *ipc.Batch) {
				for range 200 {
					randomFrame(rnd, b)
				}
			})
			pair.Shutdown()
			for _, s := range streams {
				within(t, "stream", s.Done())
			}
			within(t, "connection", c.Closed())
		})
	}
}

func randomFrame(rnd *rand.Rand, b *ipc.Batch) {
	id := 1 + rnd.Uint64N(4)
	switch rnd.IntN(12) {
	case 0, 1, 2:
		b.Head(id, &ipc.Head{Status: uint16(200 + rnd.IntN(350)), BodyMode: gen.BodyMode(rnd.IntN(3))})
	case 3, 4, 5:
		b.Chunk(id, make([]byte, 1+rnd.IntN(1000)))
	case 6, 7:
		b.End(id)
	case 8:
		b.Abort(id, gen.Abort_Reason(rnd.IntN(4)), "")
	case 9:
		b.Done(id, &ipc.Done{Outcome: gen.Outcome(1 + rnd.IntN(13))})
	case 10:
		b.Window(id, rnd.Uint32N(4))
	case 11:
		b.Pong(rnd.Uint64N(3))
	}
}

// FuzzShardBytes: whatever a shard writes, the gateway ends its streams and blames it or not,
// but neither panics nor hangs.
func FuzzShardBytes(f *testing.F) {
	for _, fill := range []func(*ipc.Batch){
		func(b *ipc.Batch) {
			b.Head(1, &ipc.Head{Status: 200, Body: []byte("x"), BodyMode: gen.BodyMode_whole})
			b.Done(1, &ipc.Done{Outcome: gen.Outcome_ok})
		},
		func(b *ipc.Batch) {
			b.Head(1, &ipc.Head{Status: 200, BodyMode: gen.BodyMode_streamed})
			b.Chunk(1, []byte("abc"))
			b.End(1)
		},
		func(b *ipc.Batch) { b.Abort(1, gen.Abort_Reason_refused, "m"); b.Window(1, 1); b.Pong(1) },
		func(b *ipc.Batch) {
			r := ask()
			call(r)
			b.Fetch(sub(1), r)
		},
	} {
		var b ipc.Batch
		fill(&b)
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		pair := ipctest.NewPair(t)
		peer := ipctest.NewPeer(t, pair)
		c, err := gatewayside.Dial(pair.GatewayControl, pair.GatewayData, gatewayside.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.ForceTenant(1, limits.DefaultTenant())
		s, err := c.Open(t.Context(), get(1))
		if err != nil {
			t.Fatal(err)
		}
		if len(raw) > 64<<10 {
			raw = raw[:64<<10]
		}
		peer.SendRaw(raw)
		pair.Shutdown()
		select {
		case <-s.Done():
		case <-time.After(30 * time.Second):
			t.Fatal("the stream did not end")
		}
	})
}
