package runtime_test

import (
	"bytes"
	"strings"
	"testing"

	"bulkhead/policy/limits"
	"bulkhead/sandboxworker/engine"
	"bulkhead/schema/gen"
)

// Handlers of every shape answer.
func TestHandlerShapes(t *testing.T) {
	for _, c := range []struct{ name, src, want string }{
		{"object", `export default { fetch(r) { return new Response("ok " + r.url); } }`, "ok http://t.localhost/"},
		{"async", `export default { async fetch() { await null; return new Response("ok"); } }`, "ok"},
		{"this is the export", `export default { x: "ok", fetch() { return new Response(this.x); } }`, "ok"},
		{"thenable", `export default { fetch() { return { then(f) { f(new Response("ok")); } }; } }`, "ok"},
		{"class instance", `class A { fetch() { return new Response(this.x); } x = "ok" } export default new A()`, "ok"},
		{"class", `export default class { constructor(ctx, env) { this.env = env; this.ctx = ctx; } fetch() { this.ctx.waitUntil(1); return new Response(this.env.V); } }`, "ok"},
		{"arrow property, as Hono has", `class App { fetch = (r, env) => new Response(env.V) } export default new App()`, "ok"},
		{"service worker", `addEventListener("fetch", (e) => { e.waitUntil(Promise.resolve()); e.respondWith(new Response("ok " + e.request.method)); })`, "ok GET"},
		{"service worker, promise", `self.addEventListener("fetch", (e) => e.respondWith((async () => { await scheduler.wait(5); return new Response("ok"); })()))`, "ok"},
		{"env json", `export default { fetch(r, env) { return new Response(env.J.a[1] + Object.keys(env).join()); } }`, "2V,J"},
		{"ctx", `export default { fetch(r, env, ctx) { ctx.passThroughOnException(); ctx.waitUntil(scheduler.wait(10)); return new Response(typeof ctx.props + Object.prototype.toString.call(ctx)); } }`, "object[object ExecutionContext]"},
		{"null body", `export default { fetch() { return new Response(null, { status: 204 }); } }`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := load(t, c.src, engine.EnvVar{Name: "V", Value: "ok"}, engine.EnvVar{Name: "J", JSON: true, Value: `{"a":[1,2]}`})
			for range 2 {
				if got := w.get(); got != c.want {
					t.Errorf("got %q, want %q", got, c.want)
				}
			}
		})
	}
}

// Code that cannot be a worker is refused with the reason.
func TestLoadErrors(t *testing.T) {
	for _, c := range []struct{ name, src, want string }{
		{"nothing", `const x = 1;`, "handles no event"},
		{"no fetch", `export default { other() {} }`, "no fetch() method"},
		{"throws", `throw new Error("at start")`, "at start"},
		{"never", `await new Promise(() => {}); export default { fetch() {} }`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, out := tryLoad(t, c.src)
			if out.Failure == nil || !strings.Contains(out.Failure.Message+out.Failure.Stack, c.want) {
				t.Errorf("got %+v, want %q", out.Failure, c.want)
			}
		})
	}
	_, out := tryLoad(t, `export default { fetch() {} }`, engine.EnvVar{Name: "J", JSON: true, Value: "{"})
	if out.Failure == nil || !strings.Contains(out.Failure.Message, "variable J is not valid JSON") {
		t.Errorf("bad JSON: %+v", out.Failure)
	}
}

// A handler that goes wrong ends in one outcome, with a message its developer can use.
func TestHandlerFailures(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"throws", `throw new TypeError("bad thing")`, "TypeError: bad thing\n    at "},
		{"rejects", `await scheduler.wait(1); throw new Error("later", { cause: new Error("root") })`, "[cause]: Error: root"},
		{"throws a string", `throw "just text"`, "just text"},
		{"throws undefined", `throw undefined`, "undefined"},
		{"throws an object", `throw { code: 7 }`, "{ code: 7 }"},
		{"throws a hostile object", `throw new Proxy({}, { get() { throw 1; }, getPrototypeOf() { throw 1; } })`, ""},
		{"throws a hostile error", `const e = new Error("x"); Object.defineProperty(e, "message", { get() { throw 1; } }); throw e`, "Error"},
		{"DOMException", `throw new DOMException("stop", "AbortError")`, "AbortError: stop"},
		{"nothing", ``, "returned undefined instead of a Response"},
		{"string", `return "text"`, `returned a string ("text") instead of a Response`},
		{"object", `return { status: 200 }`, "returned a plain object instead"},
		{"fake", `return Object.create(Response.prototype)`, "instead of a Response"},
		{"never", `await new Promise(() => {})`, "can never settle"},
		{"used body", `const r = new Response("x"); await r.text(); return r`, "already used"},
		{"locked body", `const r = new Response("x"); r.body.getReader(); return r`, "locked"},
		{"Response.error", `return Response.error()`, "Response.error()"},
		{"getter on then", `return { get then() { throw new RangeError("then") } }`, "RangeError: then"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := load(t, `export default { async fetch(request, env, ctx) { `+c.body+` } }`)
			a := w.do(engine.Request{})
			if a.head || a.finished != 1 || a.outcome != gen.Outcome_exception || !strings.Contains(a.message, c.want) {
				t.Errorf("head %v, finished %d, %v: %q, want %q", a.head, a.finished, a.outcome, a.message, c.want)
			}
			if len(w.logs) == 0 {
				t.Error("nothing was logged")
			}
		})
	}
}

// The isolate serves on after failures, and a stuck invocation waits as long as another one may wake it.
func TestStuckOnlyWhenAllAre(t *testing.T) {
	w := load(t, `let wake; export default { async fetch(r) {
		if (r.url.endsWith("/wait")) return new Response(await new Promise((f) => { wake = f; }));
		await scheduler.wait(50); wake?.("woken"); return new Response("waker"); } }`)
	b := w.send(2, engine.Request{})
	a := w.send(1, engine.Request{URL: "http://t.localhost/wait"})
	if a.finished != 0 {
		t.Fatalf("ended while another invocation has a timer: %s", a.message)
	}
	w.settle()
	if a.body.String() != "woken" || b.body.String() != "waker" || a.finished != 1 || b.finished != 1 {
		t.Errorf("%q %q %v %v", a.body.String(), b.body.String(), a.message, b.message)
	}
	if c := w.send(3, engine.Request{URL: "http://t.localhost/wait"}); c.finished != 1 || c.outcome != gen.Outcome_exception {
		t.Errorf("alone: finished %d %v", c.finished, c.outcome)
	}
}

func TestWaitUntil(t *testing.T) {
	w := load(t, `export default { async fetch(r, env, ctx) {
		const mode = new URL(r.url).pathname;
		if (mode === "/ok") ctx.waitUntil((async () => { await scheduler.wait(100); console.log("done"); })());
		if (mode === "/reject") ctx.waitUntil(scheduler.wait(10).then(() => { throw new Error("late"); }));
		if (mode === "/never") ctx.waitUntil(new Promise(() => {}));
		if (mode === "/nested") ctx.waitUntil(scheduler.wait(1).then(() => ctx.waitUntil(scheduler.wait(5).then(() => console.log("nested")))));
		return new Response("x"); } }`)
	for _, c := range []struct {
		path, log string
		outcome   gen.Outcome
		message   string
	}{
		{"/ok", "done", gen.Outcome_ok, ""},
		{"/nested", "nested", gen.Outcome_ok, ""},
		{"/reject", "Error: late", gen.Outcome_exception, "waitUntil() rejected: Error: late"},
		{"/never", "can never settle", gen.Outcome_exception, "can never settle"},
	} {
		w.logs = nil
		a := w.do(engine.Request{URL: "http://t.localhost" + c.path})
		if a.finished != 1 || a.status != 200 || a.outcome != c.outcome || !strings.Contains(a.message, c.message) {
			t.Errorf("%s: %d %v %q", c.path, a.finished, a.outcome, a.message)
		}
		if !strings.Contains(strings.Join(w.logs, "\n"), c.log) {
			t.Errorf("%s: logs %q", c.path, w.logs)
		}
	}
}

const window = 256 << 10 // limits.DefaultWire().Window

// A response larger than the window waits for the client, whatever it is made of.
func TestResponseBackPressure(t *testing.T) {
	for _, c := range []struct{ name, expr string }{
		{"string", `"x".repeat(1000000)`},
		{"bytes", `new Uint8Array(1000000).fill(120)`},
		{"blob", `new Blob(["x".repeat(1000000)])`},
		{"stream", `new ReadableStream({ n: 0, pull(c) { c.enqueue(new Uint8Array(10000).fill(120)); if (++this.n === 100) c.close(); } })`},
		{"one big chunk", `new ReadableStream({ start(c) { c.enqueue(new Uint8Array(1000000).fill(120)); c.close(); } })`},
		{"byte stream", `new ReadableStream({ type: "bytes", n: 0, pull(c) { c.enqueue(new Uint8Array(10000).fill(120)); if (++this.n === 100) c.close(); } })`},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := load(t, `export default { fetch() { return new Response(`+c.expr+`); } }`)
			a := w.do(engine.Request{})
			if a.body.Len() > limits.DefaultWire().Window || a.ended || a.finished != 0 {
				t.Fatalf("sent %d bytes into a window of %d, ended %v, finished %d %s", a.body.Len(), window, a.ended, a.finished, a.message)
			}
			for i := 0; i < 1000 && a.finished == 0; i++ {
				w.take(w.iso.Window(w.now, 101-1, 50_000))
				w.settle()
			}
			if a.body.Len() != 1000000 || !a.ended || a.outcome != gen.Outcome_ok || strings.Trim(a.body.String(), "x") != "" {
				t.Errorf("%d bytes, ended %v, %v %s", a.body.Len(), a.ended, a.outcome, a.message)
			}
		})
	}
}

// Small bodies are one frame; larger known ones have a Content-Length.
func TestResponseModes(t *testing.T) {
	for _, c := range []struct {
		name, expr string
		mode       gen.BodyMode
		length     string
		ct         string
	}{
		{"string", `new Response("h\u00e9")`, gen.BodyMode_whole, "", "text/plain;charset=UTF-8"},
		{"bytes", `new Response(new Uint8Array(10))`, gen.BodyMode_whole, "", ""},
		{"params", `new Response(new URLSearchParams({ a: "b c" }))`, gen.BodyMode_whole, "", "application/x-www-form-urlencoded;charset=UTF-8"},
		{"json", `Response.json({ a: 1 })`, gen.BodyMode_whole, "", "application/json"},
		{"own type", `new Response("x", { headers: { "Content-Type": "a/b" } })`, gen.BodyMode_whole, "", "a/b"},
		{"none", `new Response()`, gen.BodyMode_none, "", ""},
		{"large", `new Response("x".repeat(70000))`, gen.BodyMode_streamed, "70000", "text/plain;charset=UTF-8"},
		{"fixed", `(() => { const f = new FixedLengthStream(3); const w = f.writable.getWriter(); w.write(new Uint8Array(3)); w.close(); return new Response(f.readable); })()`, gen.BodyMode_streamed, "3", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := load(t, `export default { fetch() { return `+c.expr+`; } }`)
			a := w.do(engine.Request{})
			if a.mode != c.mode || a.header("content-length") != c.length || a.header("content-type") != c.ct || a.outcome != gen.Outcome_ok {
				t.Errorf("%v %q %v %s", a.mode, a.headers, a.outcome, a.message)
			}
		})
	}
	w := load(t, `export default { fetch() { return new Response("body", { headers: { a: "b" } }); } }`)
	if a := w.do(engine.Request{Method: "HEAD"}); a.mode != gen.BodyMode_none || a.body.Len() != 0 || a.header("a") != "b" {
		t.Errorf("HEAD: %v %q", a.mode, a.body.String())
	}
}

// Streams that fail after the head abort the response and say why.
func TestResponseStreamFailures(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"error", `return new Response(new ReadableStream({ start(c) { c.enqueue(new Uint8Array(3)); }, pull() { throw new Error("broken"); } }))`, "Error: broken"},
		{"string chunk", `return new Response(ReadableStream.from(["text"]))`, "instead of bytes"},
		{"never closed", `const t = new TransformStream(); t.writable.getWriter().write(new Uint8Array(1)); return new Response(t.readable)`, "Was close() forgotten?"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := load(t, `export default { async fetch() { `+c.body+` } }`)
			a := w.do(engine.Request{})
			if a.status != 200 || a.aborted == "" || a.ended || a.outcome != gen.Outcome_exception || !strings.Contains(a.message, c.want) || a.finished != 1 {
				t.Errorf("%d aborted %q ended %v %v %q", a.status, a.aborted, a.ended, a.outcome, a.message)
			}
		})
	}
}

func streamed(method string, first []byte) engine.Request {
	return engine.Request{Method: method, BodyMode: gen.BodyMode_streamed, Body: first}
}

// A request body is granted back byte by byte as the tenant takes it.
func TestRequestBody(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"text", `return new Response(await request.text())`, "one two three"},
		{"arrayBuffer", `return new Response((await request.arrayBuffer()).byteLength)`, "13"},
		{"iterate", `let n = 0; for await (const c of request.body) n += c.length; return new Response(n)`, "13"},
		{"pass through", `return new Response(request.body)`, "one two three"},
		{"transform", `return new Response(request.body.pipeThrough(new TransformStream({ transform(c, k) { k.enqueue(c.map((b) => b === 32 ? 95 : b)); } })))`, "one_two_three"},
		{"byob", `const r = request.body.getReader({ mode: "byob" }); let n = 0, b = new Uint8Array(4); for (;;) { const x = await r.read(b); if (x.done) break; n += x.value.length; b = new Uint8Array(x.value.buffer); } return new Response(n)`, "13"},
		{"clone", `const c = request.clone(); return new Response(await c.text() + "|" + await request.text())`, "one two three|one two three"},
		{"new Request", `return new Response(await new Request(request).text() + request.bodyUsed)`, "one two threetrue"},
		{"late", `await scheduler.wait(10); return new Response(await request.text())`, "one two three"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := load(t, `export default { async fetch(request) { `+c.body+` } }`)
			a := w.send(1, streamed("POST", []byte("one ")))
			w.take(w.iso.Chunk(w.now, 1, []byte("two ")))
			w.take(w.iso.Chunk(w.now, 1, []byte("three")))
			w.take(w.iso.End(w.now, 1))
			w.settle()
			if a.body.String() != c.want || a.outcome != gen.Outcome_ok || a.finished != 1 {
				t.Errorf("%q %v %s", a.body.String(), a.outcome, a.message)
			}
			if a.credit > 13 {
				t.Errorf("credit %d", a.credit)
			}
			whole := w.do(engine.Request{Method: "POST", BodyMode: gen.BodyMode_whole, Body: []byte("one two three")})
			if whole.body.String() != c.want || whole.credit != 0 {
				t.Errorf("whole: %q %s, credit %d", whole.body.String(), whole.message, whole.credit)
			}
		})
	}
}

func TestRequestBodyCredit(t *testing.T) {
	w := load(t, `export default { async fetch(request) { const r = request.body.getReader(); await r.read(); await scheduler.wait(5); await r.cancel(); return new Response("x"); } }`)
	a := w.send(1, streamed("POST", nil))
	w.take(w.iso.Chunk(w.now, 1, make([]byte, 100)))
	w.take(w.iso.Chunk(w.now, 1, make([]byte, 1000)))
	if a.credit != 100 {
		t.Errorf("credit %d after one read of 100 bytes", a.credit)
	}
	w.settle()
	if !a.refused || a.finished != 1 || a.credit != 100 {
		t.Errorf("refused %v, finished %d, credit %d %s", a.refused, a.finished, a.credit, a.message)
	}
}

// A handler that ignores its body completes.
func TestRequestBodyIgnored(t *testing.T) {
	w := load(t, `let kept; export default { async fetch(request) { if (request.url.endsWith("late")) { try { await kept.text(); } catch (e) { return new Response(String(e)); } } kept = request; return new Response("x"); } }`)
	a := w.send(1, streamed("POST", []byte("abc")))
	if a.finished != 1 || a.outcome != gen.Outcome_ok || a.credit != 0 {
		t.Errorf("finished %d %v credit %d", a.finished, a.outcome, a.credit)
	}
	w.take(w.iso.Chunk(w.now, 1, []byte("more"))) // crossed on the wire
	w.take(w.iso.End(w.now, 1))
	if b := w.do(engine.Request{URL: "http://t.localhost/late"}); !strings.Contains(b.body.String(), "has ended") {
		t.Errorf("body of an ended invocation: %q %s", b.body.String(), b.message)
	}
}

func TestAborts(t *testing.T) {
	const gone, failed, deadline, refused = 0, 1, 2, 3
	src := `export default { async fetch(request, env, ctx) {
		const mode = new URL(request.url).pathname;
		if (mode === "/signal") { request.signal.addEventListener("abort", () => console.log("aborted", request.signal.reason.name)); await new Promise(() => {}); }
		if (mode === "/body") { try { await request.text(); } catch (e) { return new Response(e.message); } }
		if (mode === "/stream") return new Response(new ReadableStream({ pull(c) { c.enqueue(new Uint8Array(100000)); }, cancel(r) { console.log("canceled", r.name); } }));
		if (mode === "/wait") { ctx.waitUntil(scheduler.wait(1000).then(() => console.log("waited"))); await scheduler.wait(500); console.log("slept"); return new Response("late"); }
	} }`
	for _, c := range []struct {
		path    string
		reason  uint8
		outcome gen.Outcome
		log     string
	}{
		{"/signal", gone, gen.Outcome_canceled, "aborted AbortError"},
		{"/signal", deadline, gen.Outcome_exceededWallTime, ""},
		{"/body", deadline, gen.Outcome_exceededWallTime, ""},
		{"/stream", deadline, gen.Outcome_exceededWallTime, ""},
		{"/wait", deadline, gen.Outcome_exceededWallTime, ""},
		{"/body", gone, gen.Outcome_canceled, ""},
		{"/body", failed, gen.Outcome_ok, ""},
		{"/stream", gone, gen.Outcome_canceled, "canceled AbortError"},
		{"/stream", refused, gen.Outcome_ok, "canceled AbortError"},
		{"/wait", gone, gen.Outcome_canceled, "waited"},
	} {
		w := load(t, src)
		r := streamed("POST", []byte("x"))
		r.URL = "http://t.localhost" + c.path
		a := w.send(1, r)
		if a.finished != 0 {
			t.Errorf("%s: ended early: %s", c.path, a.message)
		}
		w.take(w.iso.Abort(w.now, 1, c.reason, ""))
		w.settle()
		if a.finished != 1 || a.outcome != c.outcome || !strings.Contains(strings.Join(w.logs, "\n"), c.log) {
			t.Errorf("%s %d: finished %d %v %q, logs %q", c.path, c.reason, a.finished, a.outcome, a.message, w.logs)
		}
		if c.reason == deadline && len(w.logs) != 0 {
			t.Errorf("%s: code ran after the deadline: %q", c.path, w.logs)
		}
		if c.reason == failed && !strings.Contains(a.body.String(), "ended early") {
			t.Errorf("body: %q", a.body.String())
		}
		w.take(w.iso.Abort(w.now, 1, c.reason, "again")) // unknown by now
	}
}

// Logs and timers belong to the invocation that started them, over awaits and concurrency.
func TestAttribution(t *testing.T) {
	w := load(t, `console.log("start"); export default { async fetch(r) {
		const id = new URL(r.url).pathname;
		console.log("a" + id); await scheduler.wait(10); console.log("b" + id);
		setTimeout(() => console.log("c" + id), 5); await new Promise((f) => queueMicrotask(f)); console.log("d" + id);
		await crypto.subtle.digest("SHA-256", new Uint8Array(3)); console.log("e" + id); await scheduler.wait(20);
		Promise.reject(new Error("lost" + id));
		return new Response("x"); } }`)
	w.send(1, engine.Request{URL: "http://t.localhost/1"})
	w.send(2, engine.Request{URL: "http://t.localhost/2"})
	w.settle()
	for _, l := range w.logs {
		if strings.HasSuffix(l, "start") {
			if l[0] != '0' {
				t.Errorf("start-up log: %q", l)
			}
			continue
		}
		line, _, _ := strings.Cut(l, "\n")
		if line[len(line)-1] != l[0] {
			t.Errorf("attributed to %c: %q", l[0], l)
		}
	}
	if len(w.logs) != 13 {
		t.Errorf("%d lines: %q", len(w.logs), w.logs)
	}
}

func TestTimers(t *testing.T) {
	w := load(t, `export default { async fetch(r, env, ctx) {
		const out = [], t0 = Date.now(), log = (x) => out.push(x + "@" + (Date.now() - t0));
		setTimeout(log, 20, "d"); setTimeout(log, 0, "a"); setTimeout(log, 1, "b"); setTimeout(log, 10.9, "c"); setTimeout(log, -5, "e");
		const dead = setTimeout(log, 3, "never"); clearTimeout(dead); clearTimeout(12345); clearTimeout("x");
		let n = 0; const i = setInterval(() => { log("i"); if (++n === 3) clearInterval(i); }, 7);
		setTimeout(() => { Promise.resolve().then(() => log("micro")); }, 2); setTimeout(() => log("after"), 2);
		await scheduler.wait(30); log("w");
		return new Response(out.join(" ")); } }`)
	want := "a@1 b@1 e@1 micro@2 after@2 i@7 c@10 i@14 d@20 i@21 w@30"
	if got := w.get(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if w.timer >= 0 {
		t.Errorf("a timer is left: %v", w.timer)
	}
}

// Timers die with their invocation; those of start-up code sleep while nothing runs.
func TestTimerOwnership(t *testing.T) {
	w := load(t, `setInterval(() => console.log("global"), 1000); export default { fetch() { setInterval(() => console.log("mine"), 1); setTimeout(() => console.log("mine"), 5); return new Response("x"); } }`)
	if w.timer >= 0 {
		t.Error("start-up code set a wake-up")
	}
	if w.get(); w.timer >= 0 || len(w.logs) != 0 {
		t.Errorf("timer %v, logs %q", w.timer, w.logs)
	}
	w = load(t, `export default { async fetch() {
		for (let i = 0; i < 500; i++) setTimeout(() => {}, 5); return new Response("x"); } }`)
	if a := w.do(engine.Request{}); !strings.Contains(a.message, "QuotaExceededError") {
		t.Errorf("500 timers of 400: %v %q", a.outcome, a.message)
	}
}

// The clock stands still between events.
func TestFrozenClock(t *testing.T) {
	script(t, `
		const a = Date.now(), p = performance.now(); for (let i = 0; i < 1e6; i++); eq(Date.now(), a, "Date"); eq(performance.now(), p, "performance");
		eq(performance.timeOrigin + p, a, "origin"); await scheduler.wait(7); eq(Date.now() - a, 7, "nominal"); eq(performance.now() - p, 7, "performance");
		throws(() => new Performance(), TypeError, "illegal");`)
}

func TestUnhandledRejections(t *testing.T) {
	w := load(t, `export default { async fetch() { Promise.reject(new Error("lost")); const p = Promise.reject(1); await scheduler.wait(1); p.catch(() => {}); return new Response("x"); } }`)
	w.get()
	if all := strings.Join(w.logs, "\n"); !strings.Contains(all, "Uncaught (in promise) Error: lost") {
		t.Errorf("logs %q", w.logs)
	}
	w = load(t, `const seen = []; addEventListener("unhandledrejection", (e) => { seen.push(e.type + e.reason + (e.promise instanceof Promise)); e.preventDefault(); });
		onrejectionhandled = (e) => { seen.push(e.type); }; onerror = (m, f, l, c, e) => { seen.push(m + e.x); return true; };
		export default { async fetch() { const p = Promise.reject("r"); setTimeout(() => { const e = new Error("boom"); e.x = 5; throw e; }, 1); await scheduler.wait(2); p.catch(() => {}); reportError({ x: 1 }); await scheduler.wait(1); return new Response(seen.join()); } }`)
	if got := w.get(); got != "unhandledrejectionrtrue,Uncaught Error: boom5,Uncaught { x: 1 }1,rejectionhandled" || len(w.logs) != 0 {
		t.Errorf("%q, logs %q", got, w.logs)
	}
}

// What a tenant does to the intrinsics must not break its own host calls.
func TestPollutedPrototypes(t *testing.T) {
	w := load(t, `
		const evil = () => { throw new Error("polluted"); };
		const list = [Promise, Map, Set, WeakMap, String, Function, RegExp, Object.getPrototypeOf(Uint8Array), Uint8Array, Number, Array];
		const own = Reflect.ownKeys, define = Object.defineProperty;
		for (let i = 0; i < list.length; i++) {
			const C = list[i], keys = own(C.prototype);
			for (let j = 0; j < keys.length; j++) {
				const k = keys[j];
				if (k === "constructor" || k === "length" || (C === Function && k !== "call" && k !== "apply" && k !== "bind")) continue;
				try { define(C.prototype, k, { get: evil, set: evil, configurable: true }); } catch {}
			}
		}
		const fields = ["state", "reader", "pump", "kind", "source", "wire", "list", "dead", "closed", "implied"];
		for (let i = 0; i < fields.length; i++) define(Object.prototype, fields[i], { get: evil, set: evil, configurable: true });
		Object.defineProperty(Object.prototype, "get", { value: undefined, configurable: true });
		globalThis.Promise = globalThis.TypeError = globalThis.Uint8Array = globalThis.Map = evil; JSON.stringify = JSON.parse = evil; Reflect.apply = evil;
		export default { async fetch(r, env, ctx) {
			setTimeout(() => {}, 1); console.log("line", { a: [1] }, new Error("e"));
			const text = await r.text(); ctx.waitUntil(scheduler.wait(3));
			return new Response(text + new URL(r.url).pathname + r.headers.get("accept") + btoa("a"), { headers: { x: "y" } }); } }`)
	a := w.do(engine.Request{Method: "POST", URL: "http://t.localhost/p", Headers: []byte("accept\n*/*\n"), BodyMode: gen.BodyMode_whole, Body: []byte("body")})
	if a.body.String() != "body/p*/*YQ==" || a.outcome != gen.Outcome_ok || a.header("x") != "y" {
		t.Errorf("%q %v %s\n%q", a.body.String(), a.outcome, a.message, w.logs)
	}
}

// Hundreds of concurrent invocations with interleaved bodies stay apart.
func TestConcurrent(t *testing.T) {
	w := load(t, `export default { async fetch(r) { await scheduler.wait(1); return new Response((await r.text()) + r.headers.get("n")); } }`)
	const n = 300
	for i := uint32(1); i <= n; i++ {
		r := streamed("POST", nil)
		r.Headers = []byte("n\n" + strings.Repeat("i", int(i)) + "\n")
		w.send(i, r)
	}
	for i := uint32(1); i <= n; i++ {
		w.take(w.iso.Chunk(w.now, i, bytes.Repeat([]byte("b"), int(i))))
	}
	w.settle()
	for i := uint32(n); i >= 1; i-- {
		w.take(w.iso.End(w.now, i))
	}
	w.settle()
	for i := uint32(1); i <= n; i++ {
		if a := w.answer(i); a.body.String() != strings.Repeat("b", int(i))+strings.Repeat("i", int(i)) || a.finished != 1 {
			t.Fatalf("%d: %q %d %s", i, a.body.String(), a.finished, a.message)
		}
	}
}
