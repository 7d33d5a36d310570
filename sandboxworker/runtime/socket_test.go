package runtime_test

import (
	"bytes"
	"strings"
	"testing"

	"bulkhead/sandboxworker/engine"
	"bulkhead/sandboxworker/runtime"
	"bulkhead/schema/gen"
)

// parts splits what a WebSocket's stream carried into its flagged parts: each chunk is one.
func (w *worker) say(inv uint32, flag byte, data string) {
	w.t.Helper()
	w.take(w.iso.Chunk(w.now, inv, append([]byte{flag}, data...)))
}

const (
	lastText  = 0x81
	lastBytes = 0x82
	lastClose = 0x88
)

func socketWorker(t *testing.T, server string) (*worker, *answer) {
	t.Helper()
	w := load(t, `export default { fetch(request) {
		if (request.headers.get("upgrade") !== "websocket") return new Response("no");
		const [client, server] = Object.values(new WebSocketPair());
		`+server+`
		return new Response(null, { status: 101, webSocket: client, headers: { "x-a": "b" } });
	} };`)
	a := w.send(1, engine.Request{Headers: []byte("upgrade\nwebsocket\n")})
	if !a.head || a.status != 101 || a.mode != gen.BodyMode_none || a.header("x-a") != "b" {
		t.Fatalf("head %v, status %d, mode %v, headers %q; %v %s", a.head, a.status, a.mode, a.headers, a.outcome, a.message)
	}
	return w, a
}

func TestWebSocketEcho(t *testing.T) {
	w, a := socketWorker(t, `server.accept();
		server.addEventListener("message", (e) => server.send(e.data instanceof ArrayBuffer ? new Uint8Array(e.data).reverse() : e.data.toUpperCase()));
		server.addEventListener("close", (e) => console.log("close", e.code, e.reason, e.wasClean, server.readyState));
		server.send("hi");`)
	w.say(1, lastText, "häl")
	w.say(1, lastBytes, "abc")
	w.say(1, 1, "in ")
	w.say(1, 1, "parts")
	w.say(1, lastText, "")
	if got, want := a.body.String(), "\x81hi\x81HÄL\x82cba\x81IN PARTS"; got != want {
		t.Errorf("said %q, want %q", got, want)
	}
	// All is granted again once it is dispatched, and 64 bytes for each part.
	if want := uint64(len("häl") + len("abc") + len("in parts") + 5*64); a.credit != want {
		t.Errorf("granted %d, want %d", a.credit, want)
	}
	if a.finished != 0 {
		t.Error("it ended while it was open")
	}
	w.say(1, lastClose, "\x03\xe9bye")
	if !strings.HasSuffix(a.body.String(), "\x88\x03\xe9bye") || a.finished != 1 || a.outcome != gen.Outcome_ok {
		t.Errorf("after the close: %q, finished %d, %v %s", a.body.String(), a.finished, a.outcome, a.message)
	}
	if len(w.logs) != 1 || !strings.Contains(w.logs[0], "close 1001 bye true 3") {
		t.Errorf("logs %q", w.logs)
	}
}

func TestWebSocketEnds(t *testing.T) {
	t.Run("the worker closes", func(t *testing.T) {
		w, a := socketWorker(t, `server.accept(); server.addEventListener("message", () => server.close(4000, "enough"));`)
		w.say(1, lastText, "x")
		if a.body.String() != "\x88\x0f\xa0enough" || a.finished != 0 {
			t.Errorf("%q, finished %d", a.body.String(), a.finished)
		}
		w.say(1, lastText, "ignored")
		w.say(1, lastClose, "\x0f\xa0")
		if a.finished != 1 || a.outcome != gen.Outcome_ok {
			t.Errorf("finished %d, %v", a.finished, a.outcome)
		}
	})
	t.Run("nobody accepts", func(t *testing.T) {
		w, a := socketWorker(t, ``)
		w.say(1, lastText, "x")
		if a.credit != 0 {
			t.Error("granted what nobody has heard")
		}
		w.say(1, lastClose, "")
		if a.body.String() != "\x88" || a.finished != 1 {
			t.Errorf("%q, finished %d", a.body.String(), a.finished)
		}
	})
	t.Run("the client goes", func(t *testing.T) {
		w, a := socketWorker(t, `server.accept(); server.addEventListener("close", (e) => console.log(e.code, e.wasClean));`)
		w.say(1, lastClose, "\x03\xee")
		if a.finished != 1 || len(w.logs) != 1 || !strings.Contains(w.logs[0], "1006 false") {
			t.Errorf("finished %d, logs %q", a.finished, w.logs)
		}
	})
	for _, c := range []struct{ name, code, want, logs string }{
		{"listeners that wait", `server.addEventListener("message", async (e) => { await scheduler.wait(10); server.send("to " + e.data); });`, "\x81to a\x81to b\x88\x03\xe8", ""},
		{"a handler that waits", `server.onmessage = async (e) => { await scheduler.wait(10); server.send(e.data + server.readyState); };`, "\x81a2\x81b2\x88\x03\xe8", ""},
		{"one that waits for ever", `server.addEventListener("message", () => new Promise(() => {}));`, "\x88\x03\xe8", ""},
		{"one that fails", `server.addEventListener("message", async () => { await scheduler.wait(10); throw new Error("boom"); });`, "\x88\x03\xe8", "boom"},
		{"closed with a code of its own", `server.addEventListener("message", async (e) => { await scheduler.wait(10); server.send(e.data); });
			server.addEventListener("close", () => server.close(4000, "x"));`, "\x81a\x81b\x88\x0f\xa0x", ""},
		{"no promises", `server.addEventListener("message", () => ({ then() { throw new Error("then"); } })); server.addEventListener("message", () => 7);`, "\x88\x03\xe8", ""},
		{"hostile promises", `server.addEventListener("message", () => { const p = Promise.resolve(); p.constructor = { get [Symbol.species]() { throw new Error("species"); } }; return p; });
			server.addEventListener("message", () => class extends Promise { static get [Symbol.species]() { server.close(4001); return Promise; } }.resolve(1));`, "\x88\x0f\xa1", ""},
	} {
		t.Run("a close after "+c.name, func(t *testing.T) {
			w, a := socketWorker(t, `server.accept();`+c.code)
			w.say(1, lastText, "a")
			w.say(1, lastText, "b")
			w.say(1, lastClose, "\x03\xe8")
			for i := 0; i < 10 && a.finished == 0 && w.timer >= 0; i++ {
				w.now = max(w.now, w.timer)
				w.take(w.iso.Timer(w.now))
			}
			if a.body.String() != c.want || a.finished != 1 || (c.logs == "") != (len(w.logs) == 0) || !strings.Contains(strings.Join(w.logs, ""), c.logs) {
				t.Errorf("%q, want %q; finished %d, logs %q", a.body.String(), c.want, a.finished, w.logs)
			}
		})
	}
	t.Run("a listener throws", func(t *testing.T) {
		w, a := socketWorker(t, `server.accept(); server.addEventListener("message", (e) => { if (e.data === "bad") throw new Error("boom"); server.send("still here"); });`)
		w.say(1, lastText, "bad")
		w.say(1, lastText, "good")
		if a.body.String() != "\x81still here" || len(w.logs) != 1 || !strings.Contains(w.logs[0], "boom") {
			t.Errorf("%q, logs %q", a.body.String(), w.logs)
		}
	})
	t.Run("timers live as long as it is open", func(t *testing.T) {
		w, a := socketWorker(t, `server.accept(); setInterval(() => server.send("tick"), 1000);`)
		for range 3 {
			w.now = max(w.now, w.timer)
			w.take(w.iso.Timer(w.now))
		}
		w.say(1, lastClose, "")
		if a.body.String() != "\x81tick\x81tick\x81tick\x88" || w.timer >= 0 || a.finished != 1 {
			t.Errorf("%q, timer %v", a.body.String(), w.timer)
		}
	})
}

// What the client does not read waits here within a bound, and goes out as it grants.
func TestWebSocketBackPressure(t *testing.T) {
	w, a := socketWorker(t, `server.accept();
		server.addEventListener("message", (e) => {
			const big = new Uint8Array(1 << 20);
			let n = 0;
			try { for (;;) { server.send(big); n++; } } catch (error) { console.log(error.name, n, server.bufferedAmount > 0); }
		});`)
	w.say(1, lastText, "go")
	if len(w.logs) != 1 || !strings.Contains(w.logs[0], "QuotaExceededError 8 true") {
		t.Errorf("logs %q", w.logs)
	}
	if n := a.body.Len(); n > 262144 {
		t.Errorf("%d bytes within a window of 262144", n)
	}
	for range 200 {
		w.take(w.iso.Window(w.now, 1, 65536))
	}
	total := 0
	for _, n := range a.chunks {
		total += n - 1
	}
	if total != 8<<20 {
		t.Errorf("%d bytes went out in all, want 8 MiB", total)
	}
	if !bytes.Contains([]byte(a.body.String()), []byte{0x82}) {
		t.Error("no message was ended")
	}
}

func TestWebSocketPairInside(t *testing.T) {
	script(t, `
		const { 0: a, 1: b } = new WebSocketPair();
		const got = [];
		b.accept();
		b.onmessage = (e) => { got.push(e.data); b.send("re: " + e.data); };
		a.addEventListener("message", (e) => got.push(e.data));
		throws(() => a.send("x"), TypeError, "send before accept");
		a.accept();
		a.send("one");
		await new Promise((r) => setTimeout(r, 1));
		eq(got, ["one", "re: one"], "both ways");
		b.onmessage = null;
		a.send("x".repeat(1 << 20));
		throws(() => a.send("x".repeat((1 << 20) + 1)), TypeError, "too large");
		throws(() => a.close(1005), "InvalidAccessError", "close code");
		throws(() => a.close(999), "InvalidAccessError", "close code");
		throws(() => a.close(3000, "x".repeat(124)), "SyntaxError", "long reason");
		let closed;
		b.onclose = (e) => { closed = [e.code, e.reason, e.wasClean, b.readyState]; };
		a.close(3001, "why");
		throws(() => a.send("late"), TypeError, "send after close");
		await new Promise((r) => setTimeout(r, 1));
		eq(closed, [3001, "why", true, WebSocket.CLOSED], "close event");
		throws(() => new Response(null, { status: 101 }), RangeError, "101 without a socket");
		throws(() => new Response(null, { webSocket: a }), RangeError, "a socket without 101");
		throws(() => new Response(null, { status: 101, webSocket: {} }), TypeError, "no socket");
		eq(new Response("").webSocket, null, "no socket");
		throws(() => WebSocketPair(), TypeError, "without new");
	`)
}

// An upstream's WebSocket: by fetch(), by new WebSocket(), and passed on to the client as it is.
func TestWebSocketUpstream(t *testing.T) {
	answer := func(w *worker, a *answer) uint32 {
		t.Helper()
		if len(w.ops) != 1 || w.ops[0].code != runtime.OpFetch {
			t.Fatalf("operations %+v, %v %s, logs %q", w.ops, a.outcome, a.message, w.logs)
		}
		q, err := runtime.ParseFetch(w.ops[0].meta)
		if err != nil || !q.Upgrade || q.Method != "GET" || !strings.HasPrefix(q.URL, "https://up.test/") {
			t.Fatalf("%+v, %v", q, err)
		}
		id := w.ops[0].id
		w.ops = nil
		head := runtime.FetchAnswer{Status: 101, URL: q.URL, Headers: []byte("sec-websocket-protocol\nchat\n")}
		w.take(w.iso.OpResult(w.now, id, true, head.Meta(), nil))
		return id
	}
	t.Run("fetch", func(t *testing.T) {
		w := load(t, `export default { async fetch() {
			const r = await fetch("https://up.test/x", { headers: { Upgrade: "websocket" } });
			const ws = r.webSocket;
			ws.accept();
			ws.send("hello");
			const said = await new Promise((done) => ws.addEventListener("message", (e) => done(e.data)));
			ws.close(1000, "done");
			return new Response(r.status + " " + said);
		} };`)
		a := w.send(1, engine.Request{})
		id := answer(w, a)
		w.say(id, lastText, "welcome")
		up := w.answer(id)
		if a.body.String() != "101 welcome" || up.body.String() != "\x81hello\x88\x03\xe8done" || a.finished != 1 {
			t.Errorf("%q; upstream got %q; finished %d", a.body.String(), up.body.String(), a.finished)
		}
	})
	t.Run("new WebSocket", func(t *testing.T) {
		w := load(t, `export default { async fetch() {
			const ws = new WebSocket("wss://up.test/x", ["chat"]);
			const events = [ws.readyState];
			try { ws.send("early"); } catch (e) { events.push(e.name); }
			await new Promise((done) => {
				ws.onopen = () => { events.push("open", ws.protocol, ws.readyState); ws.send(new Uint8Array([1, 2])); };
				ws.onmessage = (e) => events.push(new Uint8Array(e.data).join());
				ws.onclose = (e) => { events.push(e.code, e.reason, e.wasClean); done(); };
			});
			return Response.json(events);
		} };`)
		a := w.send(1, engine.Request{})
		id := answer(w, a)
		w.say(id, lastBytes, "\x03\x04")
		w.say(id, lastClose, "\x0f\xa0bye")
		up := w.answer(id)
		if a.body.String() != `[0,"InvalidStateError","open","chat",1,"3,4",4000,"bye",true]` || up.body.String() != "\x82\x01\x02\x88\x0f\xa0bye" || !up.refused {
			t.Errorf("%q; upstream got %q, released %v", a.body.String(), up.body.String(), up.refused)
		}
	})
	t.Run("closed while a listener waits", func(t *testing.T) {
		w := load(t, `export default { async fetch() {
			const ws = new WebSocket("wss://up.test/x");
			ws.addEventListener("message", async (e) => { await scheduler.wait(300); ws.send("late " + e.data); });
			return new Response(await new Promise((done) => { ws.onclose = async (e) => { await scheduler.wait(1000); done(e.code + " " + e.wasClean); }; }));
		} };`)
		a := w.send(1, engine.Request{})
		id := answer(w, a)
		w.say(id, lastText, "hello")
		w.say(id, lastClose, "\x03\xe8")
		up := w.answer(id)
		for i := 0; i < 10 && a.finished == 0 && w.timer >= 0; i++ {
			w.now = max(w.now, w.timer)
			w.take(w.iso.Timer(w.now))
		}
		if a.body.String() != "1000 true" || up.body.String() != "\x81late hello\x88\x03\xe8" || !up.refused {
			t.Errorf("%q; upstream got %q, released %v", a.body.String(), up.body.String(), up.refused)
		}
	})
	t.Run("refused", func(t *testing.T) {
		w := load(t, `export default { async fetch() {
			const ws = new WebSocket("wss://up.test/x");
			const events = [];
			ws.onerror = (e) => events.push(e.message);
			await new Promise((done) => { ws.onclose = (e) => { events.push(e.code); done(); }; });
			return Response.json(events);
		} };`)
		a := w.send(1, engine.Request{})
		w.take(w.iso.OpResult(w.now, w.ops[0].id, false, "no", nil))
		if a.body.String() != `["fetch failed: no",1006]` {
			t.Errorf("%q, %v %s", a.body.String(), a.outcome, a.message)
		}
	})
	t.Run("passed on", func(t *testing.T) {
		w := load(t, `export default { async fetch(request) {
			const r = await fetch("https://up.test/x", { headers: request.headers });
			return new Response(null, { status: 101, webSocket: r.webSocket });
		} };`)
		a := w.send(1, engine.Request{Headers: []byte("upgrade\nwebsocket\n")})
		id := answer(w, a)
		up := w.answer(id)
		if !a.head || a.status != 101 {
			t.Fatalf("status %d, %v %s", a.status, a.outcome, a.message)
		}
		w.say(1, lastText, "to upstream")
		w.say(id, lastText, "to client")
		w.say(1, lastClose, "\x03\xe8")
		w.say(id, lastClose, "\x03\xe8")
		if a.body.String() != "\x81to client\x88\x03\xe8" || up.body.String() != "\x81to upstream\x88\x03\xe8" || a.finished != 1 || a.outcome != gen.Outcome_ok {
			t.Errorf("client got %q, upstream %q, finished %d, %v %s", a.body.String(), up.body.String(), a.finished, a.outcome, a.message)
		}
		if want := uint64(len("to upstream") + 64 + 64 + 2); a.credit != want {
			t.Errorf("granted %d, want %d", a.credit, want)
		}
	})
}
