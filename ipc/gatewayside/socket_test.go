package gatewayside_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/ipc/ipctest"
	"bulkhead/policy/limits"
	"bulkhead/schema/gen"
)

func text(s string) *ipc.Message {
	return &ipc.Message{Opcode: ipc.OpText, Last: true, Data: []byte(s)}
}

// upgraded connects a hand-driven shard whose stream 1 asks for a WebSocket.
func upgraded(t *testing.T, l limits.Tenant, grace time.Duration) (*ipctest.Peer, *gatewayside.Conn, *gatewayside.Stream) {
	t.Helper()
	pair := ipctest.NewPair(t)
	peer := ipctest.NewPeer(t, pair)
	c, err := gatewayside.Dial(pair.GatewayControl, pair.GatewayData, gatewayside.Options{PingTimeout: time.Minute, Grace: grace})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.ForceTenant(1, l)
	r := get(1)
	r.Upgrade = true
	s, err := c.Open(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	w := limits.DefaultWire()
	if o, err := ipc.DecodeOpen(peer.Want(gen.Frame_Which_open), &w); err != nil || !o.Upgrade {
		t.Fatalf("open %+v, %v", o, err)
	}
	return peer, c, s
}

func switching(b *ipc.Batch) { b.Head(1, &ipc.Head{Status: 101}) }

func TestHostileMessages(t *testing.T) {
	w := limits.DefaultWire()
	begun := func(send func(*ipc.Batch)) func(*ipc.Batch) {
		return func(b *ipc.Batch) { switching(b); send(b) }
	}
	for _, c := range []struct {
		name string
		kind ipc.Kind
		send func(*ipc.Batch)
	}{
		{"a message before the head", ipc.KindState, func(b *ipc.Batch) { b.Message(1, text("x")) }},
		{"a message of a response", ipc.KindState, func(b *ipc.Batch) {
			b.Head(1, &ipc.Head{Status: 200, BodyMode: gen.BodyMode_streamed})
			b.Message(1, text("x"))
		}},
		{"101 with a body", ipc.KindHeaders, func(b *ipc.Batch) {
			b.Head(1, &ipc.Head{Status: 101, BodyMode: gen.BodyMode_whole, Body: []byte("x")})
		}},
		{"101 twice", ipc.KindState, begun(switching)},
		{"a chunk", ipc.KindState, begun(func(b *ipc.Batch) { b.Chunk(1, []byte("x")) })},
		{"an end", ipc.KindState, begun(func(b *ipc.Batch) { b.End(1) })},
		{"an abort", ipc.KindState, begun(func(b *ipc.Batch) { b.Abort(1, gen.Abort_Reason_failed, "") })},
		{"opcode 0", ipc.KindEncoding, begun(func(b *ipc.Batch) { b.Message(1, &ipc.Message{Last: true}) })},
		{"a ping", ipc.KindEncoding, begun(func(b *ipc.Batch) { b.Message(1, &ipc.Message{Opcode: 9, Last: true}) })},
		{"an empty part", ipc.KindSize, begun(func(b *ipc.Batch) { b.Message(1, &ipc.Message{Opcode: ipc.OpText}) })},
		{"another opcode within a message", ipc.KindState, begun(func(b *ipc.Batch) {
			b.Message(1, &ipc.Message{Opcode: ipc.OpText, Data: []byte("x")})
			b.Message(1, &ipc.Message{Opcode: ipc.OpBinary, Last: true})
		})},
		{"a close of one byte", ipc.KindSize, begun(func(b *ipc.Batch) { b.Message(1, &ipc.Message{Opcode: ipc.OpClose, Last: true, Data: []byte("x")}) })},
		{"a close in parts", ipc.KindState, begun(func(b *ipc.Batch) { b.Message(1, &ipc.Message{Opcode: ipc.OpClose, Data: []byte("xx")}) })},
		{"a close that is not UTF-8", ipc.KindEncoding, begun(func(b *ipc.Batch) {
			b.Message(1, &ipc.Message{Opcode: ipc.OpClose, Last: true, Data: []byte("\x03\xe8\xff")})
		})},
		{"a long close", ipc.KindSize, begun(func(b *ipc.Batch) {
			b.Message(1, &ipc.Message{Opcode: ipc.OpClose, Last: true, Data: make([]byte, 126)})
		})},
		{"a message after the close", ipc.KindState, begun(func(b *ipc.Batch) { b.Message(1, ipc.CloseMessage(1000, "")); b.Message(1, text("x")) })},
		{"ok without a close", ipc.KindState, begun(func(b *ipc.Batch) { b.Done(1, &ipc.Done{Outcome: gen.Outcome_ok}) })},
		{"beyond the window", ipc.KindWindow, begun(func(b *ipc.Batch) {
			for range w.Window/w.ChunkBytes + 1 {
				b.Message(1, &ipc.Message{Opcode: ipc.OpBinary, Last: true, Data: make([]byte, w.ChunkBytes)})
			}
		})},
		{"a flood of nothing", ipc.KindWindow, begun(func(b *ipc.Batch) {
			for range w.Window/64 + 1 {
				b.Message(1, text(""))
			}
		})},
		{"a grant of what was not sent", ipc.KindWindow, begun(func(b *ipc.Batch) { b.Window(1, 1) })},
	} {
		t.Run(c.name, func(t *testing.T) {
			peer, conn, s := upgraded(t, limits.DefaultTenant(), 0)
			peer.Send(c.send)
			within(t, "the end", conn.Closed())
			var v *ipc.ViolationError
			if !errors.As(conn.Err(), &v) || v.Kind != c.kind {
				t.Errorf("ended by %v, want a violation of kind %v", conn.Err(), c.kind)
			}
			within(t, "the stream", s.Done())
			if r := s.Result(); r.Outcome != gen.Outcome_protocolViolation {
				t.Errorf("result %+v", r)
			}
		})
	}
	t.Run("101 without an upgrade", func(t *testing.T) {
		peer, conn, _ := fetcher(t, limits.DefaultTenant(), nil)
		peer.Send(switching)
		within(t, "the end", conn.Closed())
		var v *ipc.ViolationError
		if !errors.As(conn.Err(), &v) || v.Kind != ipc.KindState {
			t.Errorf("ended by %v", conn.Err())
		}
	})
}

// Messages pass both ways within the windows: who does not read is not sent more.
func TestMessages(t *testing.T) {
	l := limits.DefaultTenant()
	peer, c, s := upgraded(t, l, 0)
	w := limits.DefaultWire()
	peer.Send(func(b *ipc.Batch) { switching(b); b.Message(1, text("hello")) })
	if h, err := s.Head(t.Context()); err != nil || h.Status != 101 {
		t.Fatalf("head %+v, %v", h, err)
	}
	m, err := s.NextMessage(t.Context())
	if err != nil || m.Opcode != ipc.OpText || !m.Last || string(m.Data) != "hello" {
		t.Fatalf("message %+v, %v", m, err)
	}
	sent := make(chan int, 1)
	part := &ipc.Message{Opcode: ipc.OpBinary, Last: true, Data: make([]byte, 1000)}
	go func() {
		n := 0
		for s.SendMessage(t.Context(), part) == nil {
			if n++; n == 1000 {
				break
			}
		}
		sent <- n
	}()
	got, room := 0, w.Window
	for got < 1000 {
		f := peer.Want(gen.Frame_Which_message_)
		m, err := ipc.DecodeMessage(f, &w)
		if err != nil || len(m.Data) != 1000 {
			t.Fatal(err)
		}
		if room -= ipc.MessageCost(1000); room < 0 {
			t.Fatal("sent beyond the window")
		}
		if got++; room < ipc.MessageCost(1000) {
			grant := uint32(w.Window - room)
			room = w.Window
			peer.Send(func(b *ipc.Batch) { b.Window(1, grant) })
		}
	}
	if n := <-sent; n != 1000 {
		t.Errorf("%d sent", n)
	}
	if err := s.SendMessage(t.Context(), ipc.CloseMessage(1000, "bye")); err != nil {
		t.Error(err)
	}
	if err := s.SendMessage(t.Context(), text("late")); !errors.Is(err, gatewayside.ErrBodyRefused) {
		t.Errorf("after the close: %v", err)
	}
	peer.Send(func(b *ipc.Batch) {
		b.Message(1, ipc.CloseMessage(1000, "bye"))
		b.Done(1, &ipc.Done{Outcome: gen.Outcome_ok})
	})
	if m, err := s.NextMessage(t.Context()); err != nil || m.Opcode != ipc.OpClose {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := s.NextMessage(t.Context()); err != io.EOF {
		t.Errorf("after the close: %v", err)
	}
	within(t, "the stream", s.Done())
	if r := s.Result(); r.Outcome != gen.Outcome_ok || c.Err() != nil {
		t.Errorf("result %+v, %v", r, c.Err())
	}
}

// An open WebSocket has no limit of time; a message that its worker does not take to its end has.
func TestMessagesHaveADeadline(t *testing.T) {
	l := limits.DefaultTenant()
	l.Wall = 3 * time.Second // for a handshake on a busy machine
	peer, _, s := upgraded(t, l, 50*time.Millisecond)
	peer.Send(switching)
	if _, err := s.Head(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Done():
		t.Fatal("it ended while nothing was asked of it")
	case <-time.After(l.Wall + time.Second):
	}
	if err := s.SendMessage(t.Context(), text("x")); err != nil {
		t.Fatal(err)
	}
	within(t, "the deadline", s.Done())
	if r := s.Result(); r.Outcome != gen.Outcome_exceededWallTime {
		t.Errorf("result %+v", r)
	}
	var ended *gatewayside.AbortError
	if _, err := s.NextMessage(t.Context()); !errors.As(err, &ended) {
		t.Errorf("%v", err)
	}
}

// Whatever a shard sends of a WebSocket: it is judged, and nothing panics or stays open.
func FuzzMessages(f *testing.F) {
	for _, fill := range []func(*ipc.Batch){
		func(b *ipc.Batch) { switching(b); b.Message(1, text("x")); b.Message(1, ipc.CloseMessage(1000, "")) },
		func(b *ipc.Batch) { b.Message(1, &ipc.Message{Opcode: ipc.OpBinary, Data: []byte("x")}) },
		func(b *ipc.Batch) { switching(b); b.Window(1, 3); b.Done(1, &ipc.Done{Outcome: gen.Outcome_ok}) },
	} {
		var b ipc.Batch
		fill(&b)
		f.Add(bytes.Clone(b.Bytes()))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		peer, conn, s := upgraded(t, limits.DefaultTenant(), 0)
		peer.SendRaw(raw)
		peer.Shutdown()
		within(t, "the end", conn.Closed())
		within(t, "the stream", s.Done())
	})
}

// A subrequest's WebSocket: messages both ways, judged like a client's, and nothing before it is switched.
func TestFetchMessages(t *testing.T) {
	w := limits.DefaultWire()
	up := func() *ipc.Fetch {
		r := ask()
		r.Upgrade = true
		return r
	}
	t.Run("both ways", func(t *testing.T) {
		got := make(chan string, 2)
		peer, c, _ := fetcher(t, limits.DefaultTenant(), func(r *gatewayside.Subrequest) {
			if !r.Upgrade {
				t.Error("no upgrade")
			}
			if err := r.Switch([]byte("a\nb\n"), r.URL); err != nil {
				t.Error(err)
			}
			m, err := r.NextMessage(t.Context())
			got <- string(m.Data)
			if err != nil || r.SendMessage(t.Context(), text("to the worker")) != nil {
				t.Error(err)
			}
			r.SendMessage(t.Context(), ipc.CloseMessage(1000, ""))
			_, err = r.NextMessage(t.Context())
			if !errors.Is(err, gatewayside.ErrReleased) {
				t.Errorf("after the last word: %v", err)
			}
			got <- "over"
		})
		peer.Send(func(b *ipc.Batch) { b.Fetch(sub(1), up()) })
		h, err := ipc.DecodeAnswer(peer.Want(gen.Frame_Which_head), &w)
		if err != nil || h.Status != 101 || string(h.Headers) != "a\nb\n" {
			t.Fatalf("head %+v, %v", h, err)
		}
		peer.Send(func(b *ipc.Batch) { b.Message(sub(1), text("to the upstream")) })
		m, err := ipc.DecodeMessage(peer.Want(gen.Frame_Which_message_), &w)
		if err != nil || string(m.Data) != "to the worker" || <-got != "to the upstream" {
			t.Errorf("%+v, %v", m, err)
		}
		peer.Want(gen.Frame_Which_message_)
		peer.Send(func(b *ipc.Batch) { b.Abort(sub(1), gen.Abort_Reason_clientGone, "") })
		if <-got != "over" || c.Err() != nil {
			t.Errorf("%v", c.Err())
		}
	})
	for _, c := range []struct {
		name string
		kind ipc.Kind
		send func(*ipc.Batch)
	}{
		{"a message before the head", ipc.KindState, func(b *ipc.Batch) { b.Fetch(sub(1), up()); b.Message(sub(1), text("x")) }},
		{"a message of a plain fetch", ipc.KindState, func(b *ipc.Batch) { b.Fetch(sub(1), ask()); b.Message(sub(1), text("x")) }},
		{"an upgrade by POST", ipc.KindState, func(b *ipc.Batch) { r := up(); r.Method = "POST"; b.Fetch(sub(1), r) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			peer, conn, _ := fetcher(t, limits.DefaultTenant(), func(r *gatewayside.Subrequest) { <-r.Context().Done() })
			peer.Send(c.send)
			within(t, "the end", conn.Closed())
			var v *ipc.ViolationError
			if !errors.As(conn.Err(), &v) || v.Kind != c.kind {
				t.Errorf("ended by %v", conn.Err())
			}
		})
	}
}
