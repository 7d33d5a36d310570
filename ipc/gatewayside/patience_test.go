package gatewayside_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/ipc/ipctest"
	"bulkhead/policy/limits"
	"bulkhead/schema/gen"

	capnp "capnproto.org/go/capnp/v3"
	rpccp "capnproto.org/go/capnp/v3/std/capnp/rpc"
	"golang.org/x/sys/unix"
)

// A shard that begins a message and does not end it, or a byte at a time, has broken the protocol: so
// does one that says for ever what has no effect.

// drip writes raw a byte at a time until the gateway hangs up, or to its last but one byte.
func drip(fd int, raw []byte, every time.Duration) {
	for _, c := range raw[:len(raw)-1] {
		if _, err := unix.SendmsgN(fd, []byte{c}, nil, nil, unix.MSG_NOSIGNAL); err != nil {
			return
		}
		time.Sleep(every)
	}
}

func TestMessagesHaveToEnd(t *testing.T) {
	var b ipc.Batch
	b.Chunk(1, make([]byte, 2000))
	rpcRaw := rpcMessage(t, func(m rpccp.Message) error {
		a, err := m.NewAbort()
		if err != nil {
			return err
		}
		return a.SetReason(strings.Repeat("x", 2000))
	})
	for _, c := range []struct {
		name  string
		kind  ipc.Kind
		raw   []byte
		every time.Duration
		data  bool
	}{
		{"half a frame", ipc.KindFraming, b.Bytes(), 0, true},
		{"a frame by the byte", ipc.KindFraming, b.Bytes(), 5 * time.Millisecond, true},
		{"half an RPC message", ipc.KindControl, rpcRaw, 0, false},
		{"an RPC message by the byte", ipc.KindControl, rpcRaw, 5 * time.Millisecond, false},
		{"half an RPC header", ipc.KindControl, rpcRaw[:6], 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			pair := ipctest.NewPair(t)
			ipctest.NewPeer(t, pair)
			conn, err := gatewayside.Dial(pair.GatewayControl, pair.GatewayData, gatewayside.Options{
				PingTimeout: time.Minute, PingEvery: 50 * time.Millisecond, FrameTimeout: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fd := pair.Control
			if c.data {
				fd = pair.Data
			}
			dripped := make(chan struct{})
			go func() { drip(fd, c.raw, c.every); close(dripped) }()
			within(t, "violation", conn.Closed())
			conn.Close()
			<-dripped // its descriptor's number is soon another's
			var v *ipc.ViolationError
			if !errors.As(conn.Err(), &v) || v.Kind != c.kind || !strings.Contains(v.Detail, "not whole") {
				t.Errorf("ended with %v", conn.Err())
			}
		})
	}
}

// Frames that end in time are none of this, however many there are and however they are cut.
func TestMessagesThatEndAreInTime(t *testing.T) {
	pair := ipctest.NewPair(t)
	peer := ipctest.NewPeer(t, pair)
	conn, err := gatewayside.Dial(pair.GatewayControl, pair.GatewayData, gatewayside.Options{
		PingTimeout: time.Minute, PingEvery: 50 * time.Millisecond, FrameTimeout: 5 * time.Second, OnViolation: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.ForceTenant(1, limits.DefaultTenant())
	s, err := conn.Open(t.Context(), get(1))
	if err != nil {
		t.Fatal(err)
	}
	peer.Want(gen.Frame_Which_open)
	var b ipc.Batch
	b.Head(1, &ipc.Head{Status: 200, BodyMode: gen.BodyMode_streamed})
	for range 60 {
		b.Chunk(1, []byte("some bytes"))
	}
	b.End(1)
	b.Done(1, &ipc.Done{Outcome: gen.Outcome_ok})
	// Cut so that every piece but the last leaves a frame unfinished: longer in all than a frame may be.
	for raw := b.Bytes(); len(raw) > 0; time.Sleep(100 * time.Millisecond) {
		n := min(61, len(raw))
		peer.SendRaw(raw[:n])
		raw = raw[n:]
	}
	within(t, "done", s.Done())
	if r := s.Result(); r.Outcome != gen.Outcome_ok {
		t.Errorf("%+v", r)
	}
}

func TestFramesWithoutEffectHaveAnEnd(t *testing.T) {
	t.Run("refusals", func(t *testing.T) {
		attack(t, ipc.KindState, func(p *ipctest.Peer) {
			p.Send(func(b *ipc.Batch) {
				for range 1000 {
					b.Abort(2, gen.Abort_Reason_refused, "")
				}
			})
		})
	})
	t.Run("grants after an abort", func(t *testing.T) {
		w := limits.DefaultWire()
		attack(t, ipc.KindWindow, func(p *ipctest.Peer) {
			p.Send(func(b *ipc.Batch) {
				b.Abort(2, gen.Abort_Reason_refused, "")
				b.Window(2, uint32(w.Window)+1)
			})
		})
	})
}

// awaitCall reads the gateway's messages up to a call.
func awaitCall(t *testing.T, peer *ipctest.Peer) {
	for d := capnp.NewDecoder(descriptor(peer.Control)); ; {
		m, err := d.Decode()
		if err != nil {
			t.Error(err)
			return
		}
		root, err := rpccp.ReadRootMessage(m)
		if err != nil {
			t.Error(err)
			return
		}
		if root.Which() == rpccp.Message_Which_call {
			return
		}
	}
}

type descriptor int

func (d descriptor) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(d), p)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n == 0 && err == nil {
			err = io.EOF
		}
		return max(n, 0), err
	}
}

// An exception of an RPC answer goes into logs and incidents: not by the megabyte.
func TestExceptionsAreCut(t *testing.T) {
	pair := ipctest.NewPair(t)
	peer := ipctest.NewPeer(t, pair)
	conn, err := gatewayside.Dial(pair.GatewayControl, pair.GatewayData, gatewayside.Options{PingTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	awaitBootstrap(t, peer)
	go func() {
		unix.Write(peer.Control, rpcMessage(t, bootstrapAnswer))
		raw := rpcMessage(t, func(m rpccp.Message) error {
			r, err := m.NewReturn()
			if err != nil {
				return err
			}
			r.SetAnswerId(1)
			r.SetReleaseParamCaps(false)
			e, err := r.NewException()
			if err != nil {
				return err
			}
			return e.SetReason(strings.Repeat("\x1b[31mno ", 100_000))
		})
		awaitCall(t, peer) // an answer before the question is a lie
		unix.Write(peer.Control, raw)
	}()
	_, err = conn.Load(t.Context(), gatewayside.LoadRequest{Tenant: 1, Bundle: ipctest.Bundle(t, ""), Limits: limits.DefaultTenant()})
	if err == nil || !strings.Contains(err.Error(), "[31mno") || len(err.Error()) > 4<<10 {
		t.Errorf("an error of %d bytes: %.200v", len(fmt.Sprint(err)), err)
	}
}
