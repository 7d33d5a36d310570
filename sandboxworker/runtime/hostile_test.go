package runtime_test

import (
	"strings"
	"testing"

	"bulkhead/sandboxworker/engine"
	"bulkhead/schema/gen"
)

// Hostile arguments end in a JavaScript exception or a sane result, never in anything else.
func TestHostileArguments(t *testing.T) {
	for _, c := range []struct{ name, body string }{
		{"detached buffers", `
			const gone = () => { const b = new ArrayBuffer(8); const v = new Uint8Array(b); structuredClone(b, { transfer: [b] }); return v; };
			eq(await new Response(gone()).text(), "", "Response"); eq(new TextDecoder().decode(gone()), "", "TextDecoder"); eq(new Blob([gone()]).size, 0, "Blob");
			eq(new TextEncoder().encodeInto("abc", gone()), { read: 0, written: 0 }, "encodeInto"); eq((await crypto.subtle.digest("SHA-1", gone())).byteLength, 20, "digest");
			throws(() => { new ReadableStream({ type: "bytes", start(c) { c.enqueue(gone()); } }); }, TypeError, "enqueue");
			await rejects(new ReadableStream({ type: "bytes" }).getReader({ mode: "byob" }).read(gone()), TypeError, "byob"); crypto.getRandomValues(gone());
			const s = new ReadableStream({ type: "bytes", pull(c) { const r = c.byobRequest; structuredClone(r.view.buffer, { transfer: [r.view.buffer] }); r.respond(1); } });
			await rejects(s.getReader({ mode: "byob" }).read(new Uint8Array(4)), TypeError, "respond to a detached view");`},
		{"resizable buffers", `
			if (ArrayBuffer.prototype.resize) { const b = new ArrayBuffer(8, { maxByteLength: 16 }); const v = new Uint8Array(b, 4); b.resize(2);
			eq(await new Response(v).text(), "", "out of bounds"); eq(new TextDecoder().decode(v), "", "decode"); try { crypto.getRandomValues(v); } catch (e) { ok(e instanceof Error, "random"); } b.resize(16); eq(new Blob([v]).size, 12, "grown");
			const w = new Response(b); b.resize(0); eq((await w.arrayBuffer()).byteLength, 16, "copied at once"); const d = new DataView(new ArrayBuffer(4, { maxByteLength: 8 }), 2); d.buffer.resize(1); eq(await new Response(d).text(), "", "DataView"); }`},
		{"proxies and getters", `
			throws(() => new Headers(new Proxy({}, { ownKeys() { throw new RangeError("keys"); } })), RangeError, "ownKeys"); throws(() => new Response("", { get status() { throw new RangeError("s"); } }), RangeError, "status getter");
			throws(() => new Response("", new Proxy({}, { get() { throw new RangeError("g"); } })), RangeError, "proxy init"); throws(() => new Request("http://x", { get headers() { throw new RangeError("h"); } }), RangeError, "headers getter");
			throws(() => new URL({ toString() { throw new RangeError("t"); } }), RangeError, "toString"); throws(() => new URLSearchParams({ [Symbol.iterator]: 1 }), TypeError, "iterator"); throws(() => new Blob({ [Symbol.iterator]() { return { next() { throw new RangeError("n"); } }; } }), RangeError, "next");
			throws(() => structuredClone({ get a() { throw new RangeError("c"); } }), RangeError, "clone getter"); throws(() => new Headers([new Proxy([], {})]), TypeError, "pair proxy"); throws(() => btoa({ toString() { throw new RangeError("b"); } }), RangeError, "btoa"); throws(() => new Response(Symbol()), TypeError, "symbol"); throws(() => new Headers({ [Symbol("x")]: "y" }), TypeError, "symbol key");
			const r = new Proxy(new Response("x"), {}); throws(() => r.status, TypeError, "proxy receiver"); await rejects(r.text(), TypeError, "proxy body"); eq(Object.prototype.toString.call(r), "[object Response]", "tag");`},
		{"re-entrancy", `
			const h = new Headers(); h.append("a", { toString() { h.append("b", "1"); return "2"; } }); eq([...h], [["a", "2"], ["b", "1"]], "headers");
			const p = new URLSearchParams("a=1&b=2"); p.forEach((v, k) => { p.delete(k); }); eq(p.toString(), "b=2", "params"); const u = new URL("http://x/?a=1"); u.searchParams.append("b", { toString() { u.search = "?c=3"; return "4"; } }); eq(u.search, "?c=3&b=4", "url");
			let c; const s = new ReadableStream({ start(k) { c = k; } }, { highWaterMark: 5, size() { if (!this) { try { c.close(); } catch {} } return 1; } }); try { c.enqueue(1); } catch (e) { ok(e instanceof TypeError, "size closes"); }
			const t = new EventTarget(); let n = 0; t.addEventListener("x", function f() { if (++n < 50) { t.addEventListener("x", () => {}); t.dispatchEvent(new Event("x")); } }); t.dispatchEvent(new Event("x")); eq(n, 50, "nested dispatch");
			const a = new AbortController(); a.signal.addEventListener("abort", () => { a.abort("again"); }); a.abort("first"); eq(a.signal.reason, "first", "abort in abort"); const w = new WritableStream({ write() { w2.abort("stop"); } }); const w2 = w.getWriter(); w2.write(1).catch(() => {}); w2.closed.catch(() => {}); await scheduler.wait(1);
			const id = setInterval(() => { clearInterval(id); setTimeout(() => {}, 0); }, 1); await scheduler.wait(5);`},
		{"huge sizes", `
			throws(() => new ReadableStream({ type: "bytes", autoAllocateChunkSize: -1 }), TypeError, "negative"); await rejects(new ReadableStream({ type: "bytes", autoAllocateChunkSize: 2 ** 53 - 1 }).getReader().read(), RangeError, "allocation");
			throws(() => crypto.getRandomValues(new Uint8Array(1e6)), "QuotaExceededError", "random"); throws(() => new FixedLengthStream(-1), TypeError, "fixed"); throws(() => AbortSignal.timeout(Infinity), TypeError, "timeout"); await rejects(scheduler.wait(NaN), TypeError, "wait");
			throws(() => new URL("http://" + "a".repeat(5e6)), TypeError, "url"); eq(new URLSearchParams("a=" + "%41".repeat(1e5)).get("a").length, 1e5, "params"); const b = new Blob(["x".repeat(1e6)]); eq(new Blob([b, b, b, b]).size, 4e6, "blob"); eq(atob(btoa("x".repeat(1e5))).length, 1e5, "base64");
			eq(b.slice(-Infinity, Infinity).size, 1e6, "slice"); eq(b.slice(NaN, 2 ** 60).size, 1e6, "slice NaN"); await rejects(crypto.subtle.generateKey({ name: "HMAC", hash: "SHA-1", length: 4294967295 }, true, ["sign"]), "OperationError", "key"); const hs = new Headers(); for (let i = 0; i < 5000; i++) hs.append("n" + i, "v"); eq([...hs].length, 5000, "headers");`},
		{"promises that lie", `
			const liar = { then(a, b) { a(new Response("x")); b(new Error("y")); a(1); } }; eq(await (await liar).text(), "x", "thenable"); ctx.waitUntil(liar); ctx.waitUntil({ get then() { return undefined; } }); throws(() => ctx.waitUntil(), TypeError, "arguments");`},
	} {
		t.Run(c.name, func(t *testing.T) { script(t, c.body) })
	}
}

// A response whose header block would not fit the wire's form cannot be made.
func TestHeaderInjection(t *testing.T) {
	script(t, `
		for (const v of ["a\r\nx: y", "a\nb", "a\0b", "\r", "a\u0100"]) { const h = new Headers(); try { h.set("x", v); } catch (e) { ok(e instanceof TypeError, "type"); continue; } ok(!/[\r\n\0]/.test(h.get("x")), "kept " + JSON.stringify(h.get("x"))); }
		for (const n of ["", "a b", "a\n", "a:", "\u00e9", "a\0"]) throws(() => new Headers([[n, "v"]]), TypeError, "name " + JSON.stringify(n));
		throws(() => new Response("", { statusText: "OK\r\nx: y" }), TypeError, "statusText");
		eq(new Headers({ x: " \t a \t " }).get("x"), "a", "trim"); eq(new Headers({ x: "" }).get("x"), "", "empty");`)
}

// One invocation cannot use the streams of another that has ended.
func TestEndedInvocationIsDead(t *testing.T) {
	w := load(t, `let old; export default { async fetch(r, env, ctx) {
		if (!old) { old = { r, ctx, reader: r.body.getReader() }; setTimeout(() => console.log("late timer"), 1000); return new Response("first"); }
		const out = [];
		try { await old.reader.read(); out.push("read"); } catch (e) { out.push(e.message); }
		try { old.ctx.waitUntil(1); out.push("waited"); } catch (e) { out.push(e.message); }
		return new Response(out.join("|")); } }`)
	w.send(1, engine.Request{Method: "POST", BodyMode: gen.BodyMode_streamed, Body: nil})
	got := w.get()
	if !strings.Contains(got, "has ended") || !strings.Contains(got, "had ended") || strings.Contains(got, "|waited") {
		t.Error(got)
	}
	if len(w.logs) != 0 {
		t.Error(w.logs)
	}
}

// A tenant that fills the turn's output still ends, and its neighbours in the isolate too.
func TestOutputFlood(t *testing.T) {
	w := load(t, `export default { async fetch(r) {
		if (r.url.endsWith("/log")) { const s = "x".repeat(16000); for (let i = 0; i < 20000; i++) console.log(s); throw new Error("after the flood"); }
		if (r.url.endsWith("/digest")) { const b = new Uint8Array(8 << 20); let n = 0; await Promise.allSettled(Array.from({ length: 8 }, () => crypto.subtle.digest("SHA-1", b).then(() => n++))); return new Response("done " + (n > 0)); }
		await (globalThis.gate ??= new Promise((f) => setTimeout(f, 5))); return new Response("y".repeat(21000)); } }`)
	if a := w.do(engine.Request{URL: "http://t.localhost/log"}); a.finished != 1 || a.outcome != gen.Outcome_exception || !strings.Contains(a.message, "after the flood") {
		t.Errorf("log: %d %v %q", a.finished, a.outcome, a.message)
	}
	if a := w.do(engine.Request{URL: "http://t.localhost/digest"}); a.finished != 1 || a.body.String() != "done true" {
		t.Errorf("digest: %d %v %q %q", a.finished, a.outcome, a.message, a.body.String())
	}
	const n = 2000 // 42 MB of bodies from one promise, in one turn
	for i := uint32(1000); i < 1000+n; i++ {
		w.send(i, engine.Request{})
	}
	w.settle()
	good := 0
	for i := uint32(1000); i < 1000+n; i++ {
		a := w.answer(i)
		if a.finished != 1 {
			t.Fatalf("%d finished %d times", i, a.finished)
		}
		if a.outcome == gen.Outcome_ok {
			good++
		}
	}
	if good < n/2 {
		t.Errorf("%d of %d were answered", good, n)
	}
}

// Setters on Array.prototype see nothing of the runtime's own records: with an invocation in hand a
// tenant could lift its window, or end another of its requests.
func TestElementSettersSeeNoRecords(t *testing.T) {
	script(t, `
		const seen = { __proto__: null, n: 0 };
		for (const proto of [Array.prototype, Object.prototype]) for (let i = 0; i < 8; i++) Object.defineProperty(proto, i, { configurable: true, get() {}, set(v) {
			Object.defineProperty(this, i, { value: v, writable: true, enumerable: true, configurable: true });
			if (typeof v === "object" && v !== null) seen[seen.n++] = v; else if (typeof v === "function") seen[seen.n++] = v;
		} });
		for (let i = 0; i < 3; i++) setTimeout(() => {}, 1); const id = setTimeout(() => {}, 5); clearTimeout(id);
		await scheduler.wait(2); ctx.waitUntil(scheduler.wait(5));
		const s = new ReadableStream({ pull(c) { c.enqueue(new Uint8Array(3)); c.close(); } }); await new Response(s).text();
		const b = new ReadableStream({ type: "bytes", pull(c) { c.enqueue(new Uint8Array(8)); c.close(); } }).getReader({ mode: "byob" });
		await Promise.all([b.read(new Uint8Array(4)), b.read(new Uint8Array(4))]);
		const [x, y] = new Response("abc").body.tee(); await Promise.all([new Response(x).text(), new Response(y).text()]);
		await new ReadableStream({ start(c) { c.enqueue(new Uint8Array(1)); c.close(); } }).pipeThrough(new TransformStream()).pipeTo(new WritableStream());
		const a = new AbortController(); a.signal.addEventListener("abort", () => {}); new ReadableStream().pipeTo(new WritableStream(), { signal: a.signal }).catch(() => {}); a.abort();
		addEventListener("error", () => {}); await crypto.subtle.digest("SHA-1", new Uint8Array(1)); request.signal.addEventListener("abort", () => {});
		for (const proto of [Array.prototype, Object.prototype]) for (let i = 0; i < 8; i++) delete proto[i];
		const known = new Set([Uint8Array.prototype, ArrayBuffer.prototype, Array.prototype, Promise.prototype, AbortSignal.prototype]);
		for (let i = 0; i < seen.n; i++) { const p = Object.getPrototypeOf(seen[i]); if (!known.has(p)) fail("leaked {" + Object.getOwnPropertyNames(seen[i]) + "}"); }`)
}
