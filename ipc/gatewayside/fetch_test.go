package gatewayside_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/ipc/ipctest"
	"bulkhead/policy/limits"
	"bulkhead/schema/gen"
)

// sub is the nth id a shard can give a subrequest.
func sub(n uint64) uint64 { return ipc.FetchBit | n }

// ask is a subrequest of stream 1.
func ask() *ipc.Fetch {
	return &ipc.Fetch{Parent: 1, Method: "GET", URL: "http://upstream.test/"}
}

// call makes an RPC call of r, by the first binding.
func call(r *ipc.Fetch) {
	r.Method, r.Binding, r.Call, r.Body, r.BodyMode = "POST", 1, "add", []byte("2\n[]"), gen.BodyMode_whole
}

// What a shard may ask of a binding arrives as it was asked, with the tenants that led to it.
func TestServiceCall(t *testing.T) {
	got := make(chan *gatewayside.Subrequest, 1)
	pair := ipctest.NewPair(t)
	peer := ipctest.NewPeer(t, pair)
	c, err := gatewayside.Dial(pair.GatewayControl, pair.GatewayData, gatewayside.Options{PingTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.ForceFetcher(1, limits.DefaultTenant(), func(r *gatewayside.Subrequest) { got <- r; r.Fail("no") })
	c.ForceBindings(1, 2)
	open := get(1)
	open.Event, open.Entrypoint, open.Name, open.Chain = gen.Event_call, "Sums", "add", []string{"a", "b"}
	if _, err := c.Open(t.Context(), open); err != nil {
		t.Fatal(err)
	}
	w := limits.DefaultWire()
	o, err := ipc.DecodeOpen(peer.Want(gen.Frame_Which_open), &w)
	if err != nil || o.Event != gen.Event_call || o.Entrypoint != "Sums" || o.Name != "add" {
		t.Errorf("open: %+v, %v", o, err)
	}
	r := ask()
	call(r)
	r.Binding = 2
	peer.Send(func(b *ipc.Batch) { b.Fetch(sub(1), r) })
	select {
	case q := <-got:
		if q.Binding != 2 || q.Call != "add" || strings.Join(q.Chain, ",") != "a,b" {
			t.Errorf("binding %d, call %q, chain %q", q.Binding, q.Call, q.Chain)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nothing arrived")
	}
	r.Binding = 3
	peer.Send(func(b *ipc.Batch) { b.Fetch(sub(2), r) })
	within(t, "the end", c.Closed())
	var v *ipc.ViolationError
	if !errors.As(c.Err(), &v) || v.Kind != ipc.KindState {
		t.Errorf("binding 3 of 2: %v", c.Err())
	}
}

// fetcher connects a hand-driven shard whose tenant 1 has stream 1 open and a way out.
func fetcher(t *testing.T, l limits.Tenant, fetch func(*gatewayside.Subrequest)) (*ipctest.Peer, *gatewayside.Conn, *gatewayside.Stream) {
	t.Helper()
	pair := ipctest.NewPair(t)
	peer := ipctest.NewPeer(t, pair)
	c, err := gatewayside.Dial(pair.GatewayControl, pair.GatewayData, gatewayside.Options{PingTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.ForceFetcher(1, l, fetch)
	s, err := c.Open(t.Context(), get(1))
	if err != nil {
		t.Fatal(err)
	}
	peer.Want(gen.Frame_Which_open)
	return peer, c, s
}

func TestHostileFetches(t *testing.T) {
	w := limits.DefaultWire()
	edit := func(f func(r *ipc.Fetch)) func(*ipc.Batch) {
		return func(b *ipc.Batch) {
			r := ask()
			f(r)
			b.Fetch(sub(1), r)
		}
	}
	streamed := func(b *ipc.Batch) {
		r := ask()
		r.Method, r.BodyMode = "POST", gen.BodyMode_streamed
		b.Fetch(sub(1), r)
	}
	release := func(b *ipc.Batch, id uint64) { b.Abort(id, gen.Abort_Reason_clientGone, "") }
	done := func(b *ipc.Batch) {
		b.Head(1, &ipc.Head{Status: 200})
		b.Done(1, &ipc.Done{Outcome: gen.Outcome_ok})
	}
	for _, c := range []struct {
		name string
		kind ipc.Kind
		send func(*ipc.Batch)
	}{
		{"forged parent", ipc.KindStream, edit(func(r *ipc.Fetch) { r.Parent = 77 })},
		{"parent zero", ipc.KindStream, edit(func(r *ipc.Fetch) { r.Parent = 0 })},
		{"a subrequest as parent", ipc.KindStream, func(b *ipc.Batch) {
			b.Fetch(sub(1), ask())
			r := ask()
			r.Parent = sub(1)
			b.Fetch(sub(2), r)
		}},
		{"parent after its done", ipc.KindStream, func(b *ipc.Batch) {
			done(b)
			b.Fetch(sub(1), ask())
		}},
		{"an id of the gateway's", ipc.KindStream, func(b *ipc.Batch) { b.Fetch(2, ask()) }},
		{"id zero", ipc.KindStream, func(b *ipc.Batch) { b.Fetch(0, ask()) }},
		{"the same id again", ipc.KindStream, func(b *ipc.Batch) { b.Fetch(sub(1), ask()); b.Fetch(sub(1), ask()) }},
		{"an id used again", ipc.KindStream, func(b *ipc.Batch) { b.Fetch(sub(1), ask()); release(b, sub(1)); b.Fetch(sub(1), ask()) }},
		{"a falling id", ipc.KindStream, func(b *ipc.Batch) { b.Fetch(sub(9), ask()); b.Fetch(sub(8), ask()) }},
		{"frames of none", ipc.KindStream, func(b *ipc.Batch) { b.Window(sub(1), 1) }},
		{"frames after the last word", ipc.KindStream, func(b *ipc.Batch) { b.Fetch(sub(1), ask()); release(b, sub(1)); release(b, sub(1)) }},
		{"frames after the parent's done", ipc.KindStream, func(b *ipc.Batch) {
			b.Fetch(sub(1), ask())
			done(b)
			release(b, sub(1))
		}},
		{"a head", ipc.KindType, func(b *ipc.Batch) { b.Fetch(sub(1), ask()); b.Head(sub(1), &ipc.Head{Status: 200}) }},
		{"a done", ipc.KindType, func(b *ipc.Batch) { b.Fetch(sub(1), ask()); b.Done(sub(1), &ipc.Done{Outcome: gen.Outcome_ok}) }},
		{"abort for a deadline", ipc.KindState, func(b *ipc.Batch) { b.Fetch(sub(1), ask()); b.Abort(sub(1), gen.Abort_Reason_deadline, "") }},
		{"abort as refused", ipc.KindState, func(b *ipc.Batch) { streamed(b); b.Abort(sub(1), gen.Abort_Reason_refused, "") }},
		{"chunk without a body", ipc.KindState, func(b *ipc.Batch) { b.Fetch(sub(1), ask()); b.Chunk(sub(1), []byte("x")) }},
		{"end without a body", ipc.KindState, func(b *ipc.Batch) { b.Fetch(sub(1), ask()); b.End(sub(1)) }},
		{"two ends", ipc.KindState, func(b *ipc.Batch) { streamed(b); b.End(sub(1)); b.End(sub(1)) }},
		{"chunk after a failure", ipc.KindState, func(b *ipc.Batch) {
			streamed(b)
			b.Abort(sub(1), gen.Abort_Reason_failed, "")
			b.Chunk(sub(1), []byte("x"))
		}},
		{"beyond the window", ipc.KindWindow, func(b *ipc.Batch) {
			streamed(b)
			for range w.Window/w.ChunkBytes + 1 {
				b.Chunk(sub(1), make([]byte, w.ChunkBytes))
			}
		}},
		{"a grant of what was not sent", ipc.KindWindow, func(b *ipc.Batch) { b.Fetch(sub(1), ask()); b.Window(sub(1), 1) }},
		{"a grant of 4 GiB", ipc.KindWindow, func(b *ipc.Batch) { b.Fetch(sub(1), ask()); b.Window(sub(1), 0xffffffff) }},
		{"a grant of nothing", ipc.KindWindow, func(b *ipc.Batch) { b.Fetch(sub(1), ask()); b.Window(sub(1), 0) }},
		{"CONNECT", ipc.KindHeaders, edit(func(r *ipc.Fetch) { r.Method = "CONNECT" })},
		{"trace", ipc.KindHeaders, edit(func(r *ipc.Fetch) { r.Method = "trace" })},
		{"no method", ipc.KindHeaders, edit(func(r *ipc.Fetch) { r.Method = "" })},
		{"a split method", ipc.KindHeaders, edit(func(r *ipc.Fetch) { r.Method = "GET / HTTP/1.1\r\n" })},
		{"a long method", ipc.KindSize, edit(func(r *ipc.Fetch) { r.Method = strings.Repeat("A", 33) })},
		{"a relative URL", ipc.KindHeaders, edit(func(r *ipc.Fetch) { r.URL = "/x" })},
		{"a file URL", ipc.KindHeaders, edit(func(r *ipc.Fetch) { r.URL = "file:///etc/passwd" })},
		{"a URL without a host", ipc.KindHeaders, edit(func(r *ipc.Fetch) { r.URL = "http:///x" })},
		{"a URL with credentials", ipc.KindHeaders, edit(func(r *ipc.Fetch) { r.URL = "http://a:b@c/" })},
		{"a URL with a fragment", ipc.KindHeaders, edit(func(r *ipc.Fetch) { r.URL = "http://a/#b" })},
		{"a split URL", ipc.KindHeaders, edit(func(r *ipc.Fetch) { r.URL = "http://a/ HTTP/1.1\r\nHost: b" })},
		{"a long URL", ipc.KindSize, edit(func(r *ipc.Fetch) { r.URL = "http://a/" + strings.Repeat("x", w.URLBytes) })},
		{"split headers", ipc.KindHeaders, edit(func(r *ipc.Fetch) { r.Headers = []byte("x\na\r\nb: c\n") })},
		{"half a header", ipc.KindHeaders, edit(func(r *ipc.Fetch) { r.Headers = []byte("x\n") })},
		{"too many headers", ipc.KindSize, edit(func(r *ipc.Fetch) { r.Headers = bytes.Repeat([]byte("x\ny\n"), w.HeaderCount+1) })},
		{"a binding of none", ipc.KindState, edit(func(r *ipc.Fetch) { r.Binding = 1 })},
		{"a binding of many", ipc.KindState, edit(func(r *ipc.Fetch) { r.Binding = 65534 })},
		{"a call of caches", ipc.KindState, edit(func(r *ipc.Fetch) { call(r); r.Binding = ipc.CacheBinding })},
		{"a POST to caches", ipc.KindState, edit(func(r *ipc.Fetch) { r.Binding, r.Method = ipc.CacheBinding, "POST" })},
		{"a WebSocket of caches", ipc.KindState, edit(func(r *ipc.Fetch) { r.Binding, r.Upgrade = ipc.CacheBinding, true })},
		{"a call of no binding", ipc.KindState, edit(func(r *ipc.Fetch) { call(r); r.Binding = 0 })},
		{"a call without arguments", ipc.KindState, edit(func(r *ipc.Fetch) { call(r); r.Body, r.BodyMode = nil, gen.BodyMode_none })},
		{"a call by GET", ipc.KindState, edit(func(r *ipc.Fetch) { call(r); r.Method = "GET" })},
		{"a call of no identifier", ipc.KindHeaders, edit(func(r *ipc.Fetch) { call(r); r.Call = "a\nb" })},
		{"a call of a number", ipc.KindHeaders, edit(func(r *ipc.Fetch) { call(r); r.Call = "1a" })},
		{"a call of a long name", ipc.KindSize, edit(func(r *ipc.Fetch) { call(r); r.Call = strings.Repeat("a", ipc.MaxNameBytes+1) })},
		{"a body of a GET", ipc.KindState, edit(func(r *ipc.Fetch) { r.BodyMode, r.Body = gen.BodyMode_whole, []byte("x") })},
		{"a body of none", ipc.KindState, edit(func(r *ipc.Fetch) { r.Method, r.Body = "POST", []byte("x") })},
		{"an unknown body mode", ipc.KindEncoding, edit(func(r *ipc.Fetch) { r.BodyMode = 9 })},
		{"an unknown redirect mode", ipc.KindEncoding, edit(func(r *ipc.Fetch) { r.Redirect = 9 })},
		{"more open than one invocation may have", ipc.KindState, func(b *ipc.Batch) {
			for n := range uint64(w.StreamFetch) + 1 {
				b.Fetch(sub(n+1), ask())
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) { attack(t, c.kind, func(p *ipctest.Peer) { p.Send(c.send) }) })
	}
}

// A flood: more fetch frames than the tenant may ever make in one invocation, and more open than the
// channel takes.
func TestFetchFloods(t *testing.T) {
	ended := func(t *testing.T, c *gatewayside.Conn) {
		t.Helper()
		within(t, "violation", c.Closed())
		var v *ipc.ViolationError
		if !errors.As(c.Err(), &v) || v.Kind != ipc.KindState {
			t.Errorf("ended with %v", c.Err())
		}
	}
	t.Run("one after the other", func(t *testing.T) {
		l := limits.DefaultTenant()
		l.Subrequests = 10
		peer, c, _ := fetcher(t, l, func(r *gatewayside.Subrequest) { r.Fail("no") })
		for n := range uint64(11) {
			peer.Send(func(b *ipc.Batch) { b.Fetch(sub(n+1), ask()); b.Abort(sub(n+1), gen.Abort_Reason_clientGone, "") })
		}
		ended(t, c)
	})
	t.Run("all at once", func(t *testing.T) {
		w := limits.DefaultWire()
		var running atomic.Int64
		peer, c, _ := fetcher(t, limits.DefaultTenant(), func(r *gatewayside.Subrequest) {
			running.Add(1)
			defer running.Add(-1)
			<-r.Context().Done()
		})
		streams := w.Fetches/w.StreamFetch + 1
		for n := 2; n <= streams; n++ {
			if _, err := c.Open(t.Context(), get(1)); err != nil {
				t.Fatal(err)
			}
			peer.Want(gen.Frame_Which_open)
		}
		for n := range w.Fetches + 1 {
			r := ask()
			r.Parent = uint64(n/w.StreamFetch + 1)
			peer.Send(func(b *ipc.Batch) { b.Fetch(sub(uint64(n+1)), r) })
		}
		ended(t, c)
		c.Close()
		if n := running.Load(); n != 0 {
			t.Errorf("%d subrequests run on after the connection's end", n)
		}
	})
}

func TestFetchBothWays(t *testing.T) {
	w := limits.DefaultWire()
	body := bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // 1 MiB, four windows
	peer, c, s := fetcher(t, limits.DefaultTenant(), func(r *gatewayside.Subrequest) {
		if err := r.Affect(gatewayside.EffectSubrequest); err != nil {
			t.Error(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, body) {
			t.Errorf("request body: %d bytes, %v", len(got), err)
		}
		if err := r.Respond(&gatewayside.Answer{Status: 999, StatusText: "Odd", URL: r.URL, Redirected: true, Headers: []byte("a\nb\n")}); err != nil {
			t.Error(err)
		}
		if n, err := r.Write(got); n != len(got) || err != nil {
			t.Errorf("Write = %d, %v", n, err)
		}
		r.End()
	})
	r := ask()
	r.Method, r.BodyMode, r.Body = "POST", gen.BodyMode_streamed, body[:1000]
	peer.Send(func(b *ipc.Batch) { b.Fetch(sub(1), r) })
	window := w.Window - 1000
	for rest := body[1000:]; len(rest) > 0; {
		if window == 0 {
			f := peer.Want(gen.Frame_Which_window)
			window += int(f.Window())
		}
		n := min(len(rest), window, w.ChunkBytes)
		peer.Send(func(b *ipc.Batch) { b.Chunk(sub(1), rest[:n]) })
		rest, window = rest[n:], window-n
	}
	peer.Send(func(b *ipc.Batch) { b.End(sub(1)) })
	var got []byte
	for head := false; ; {
		f, err := peer.Next()
		if err != nil {
			t.Fatal(err)
		}
		switch f.Which() {
		case gen.Frame_Which_window:
			continue
		case gen.Frame_Which_head:
			h, err := ipc.DecodeAnswer(f, &w)
			if err != nil || h.Status != 999 || h.StatusText != "Odd" || !h.Redirected || h.URL != ask().URL {
				t.Errorf("head = %+v, %v", h, err)
			}
			head = true
			continue
		case gen.Frame_Which_chunk:
			p, err := ipc.DecodeChunk(f, &w)
			if err != nil || !head {
				t.Fatal("chunk", err, head)
			}
			got = append(got, p...)
			n := uint32(len(p))
			peer.Send(func(b *ipc.Batch) { b.Window(sub(1), n) })
			continue
		case gen.Frame_Which_end:
		default:
			t.Fatalf("a %s frame", f.Which())
		}
		break
	}
	if !bytes.Equal(got, body) {
		t.Errorf("response body: %d bytes", len(got))
	}
	if c.Fetches() != 1 {
		t.Error("forgotten before the shard's last word")
	}
	peer.Send(func(b *ipc.Batch) {
		b.Abort(sub(1), gen.Abort_Reason_clientGone, "")
		b.Done(1, &ipc.Done{Outcome: gen.Outcome_exception})
	})
	within(t, "parent", s.Done())
	if c.Fetches() != 0 || s.Effects() != gatewayside.EffectSubrequest {
		t.Errorf("%d open, effects %b", c.Fetches(), s.Effects())
	}
	if s.Affect(gatewayside.EffectCall) || s.Effects() != gatewayside.EffectSubrequest {
		t.Error("an effect after the end")
	}
}

// What ends a subrequest from the shard's side or the gateway's: its context is done, and nothing more
// is sent.
func TestFetchEnds(t *testing.T) {
	for name, end := range map[string]func(p *ipctest.Peer, s *gatewayside.Stream){
		"released": func(p *ipctest.Peer, _ *gatewayside.Stream) {
			p.Send(func(b *ipc.Batch) { b.Abort(sub(1), gen.Abort_Reason_clientGone, "") })
		},
		"parent done": func(p *ipctest.Peer, _ *gatewayside.Stream) {
			p.Send(func(b *ipc.Batch) { b.Done(1, &ipc.Done{Outcome: gen.Outcome_exception}) })
		},
		"shard dead": func(p *ipctest.Peer, _ *gatewayside.Stream) { p.Shutdown() },
	} {
		t.Run(name, func(t *testing.T) {
			started, ended := make(chan struct{}), make(chan error, 1)
			peer, _, s := fetcher(t, limits.DefaultTenant(), func(r *gatewayside.Subrequest) {
				r.Respond(&gatewayside.Answer{Status: 200})
				close(started)
				_, err := r.Write(make([]byte, 10<<20)) // nobody grants
				if !errors.Is(err, gatewayside.ErrReleased) {
					t.Errorf("Write = %v", err)
				}
				<-r.Context().Done()
				_, err = r.Read(make([]byte, 1))
				ended <- err
			})
			r := ask()
			r.Method, r.BodyMode = "POST", gen.BodyMode_streamed
			peer.Send(func(b *ipc.Batch) { b.Fetch(sub(1), r) })
			within(t, "start", started)
			end(peer, s)
			select {
			case err := <-ended:
				if !errors.Is(err, gatewayside.ErrReleased) {
					t.Errorf("Read = %v", err)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("the subrequest goes on")
			}
		})
	}
}

// A stream that the gateway has ended may still ask: the shard need not know. It is answered, and not
// dialled for.
func TestFetchOfAnExpiredParent(t *testing.T) {
	l := limits.DefaultTenant()
	l.Wall = 10 * time.Millisecond
	pair := ipctest.NewPair(t)
	peer := ipctest.NewPeer(t, pair)
	c, err := gatewayside.Dial(pair.GatewayControl, pair.GatewayData, gatewayside.Options{Grace: 10 * time.Millisecond, PingTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.ForceFetcher(1, l, func(*gatewayside.Subrequest) { t.Error("it was started") })
	s, err := c.Open(t.Context(), get(1))
	if err != nil {
		t.Fatal(err)
	}
	peer.Want(gen.Frame_Which_open)
	within(t, "deadline", s.Done())
	peer.Send(func(b *ipc.Batch) { b.Fetch(sub(1), ask()) })
	for {
		f := peer.Want(gen.Frame_Which_abort)
		if f.Stream() != sub(1) {
			continue // the deadline of the parent
		}
		break
	}
	if err := c.Err(); err != nil {
		t.Error(err)
	}
}

// Redirects count, too, and going over with them is the upstream's doing: a failure, no violation.
func TestRedirectsAreSpent(t *testing.T) {
	l := limits.DefaultTenant()
	l.Subrequests = 3
	said := make(chan error, 8)
	peer, _, _ := fetcher(t, l, func(r *gatewayside.Subrequest) {
		err := r.Redirected()
		if err != nil {
			r.Fail(err.Error())
		}
		said <- err
	})
	for n := range uint64(2) {
		peer.Send(func(b *ipc.Batch) { b.Fetch(sub(n+1), ask()) })
		if err := <-said; (n == 1) != errors.Is(err, gatewayside.ErrSubrequests) {
			t.Errorf("redirect %d: %v", n, err)
		}
		f := peer.Want(gen.Frame_Which_abort)
		if _, msg, _ := ipc.DecodeAbort(f, new(limits.DefaultWire())); n == 1 && !strings.Contains(msg, "3, redirects included") {
			t.Errorf("message %q", msg)
		}
	}
	peer.Send(func(b *ipc.Batch) { b.Fetch(sub(3), ask()) })
	f := peer.Want(gen.Frame_Which_abort)
	if _, msg, _ := ipc.DecodeAbort(f, new(limits.DefaultWire())); !strings.Contains(msg, "too many subrequests") {
		t.Errorf("third: %q", fmt.Sprint(msg))
	}
}
