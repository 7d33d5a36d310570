package runtime_test

import "testing"

// Each case is the body of an async function run by script.
func TestStreams(t *testing.T) {
	for _, c := range []struct{ name, body string }{
		{"read", `
			const s = new ReadableStream({ start(c) { c.enqueue("a"); c.enqueue("b"); c.close(); } });
			const r = s.getReader();
			eq(await r.read(), { value: "a", done: false }, "first");
			eq(await r.read(), { value: "b", done: false }, "second");
			eq((await r.read()).done, true, "end");
			await r.closed;
			ok(s.locked, "locked"); r.releaseLock(); ok(!s.locked, "released");
			await rejects(r.read(), TypeError, "read after release");`},
		{"pull follows demand", `
			let pulls = 0;
			const s = new ReadableStream({ pull(c) { pulls++; c.enqueue(pulls); } }, { highWaterMark: 2 });
			await scheduler.wait(1);
			eq(pulls, 2, "pulls before reading");
			const r = s.getReader(); await r.read(); await scheduler.wait(1);
			eq(pulls, 3, "pulls after one read");`},
		{"size and high water mark", `
			let c; const s = new ReadableStream({ start(k) { c = k; } }, new ByteLengthQueuingStrategy({ highWaterMark: 10 }));
			eq(c.desiredSize, 10, "empty"); c.enqueue(new Uint8Array(4)); eq(c.desiredSize, 6, "after 4");
			throws(() => new ReadableStream({}, { highWaterMark: -1 }), RangeError, "negative");
			throws(() => new ReadableStream({}, { highWaterMark: NaN }), RangeError, "NaN");
			const bad = new ReadableStream({ start(k) { c = k; } }, { size() { return -1; } });
			throws(() => c.enqueue(1), RangeError, "bad size");
			await rejects(bad.getReader().read(), RangeError, "errored by it");`},
		{"error and cancel", `
			const boom = new Error("boom");
			const s = new ReadableStream({ pull() { throw boom; } });
			eq(await rejects(s.getReader().read(), Error, "pull throws") === boom, true, "same error");
			let reason; const t = new ReadableStream({ cancel(r) { reason = r; } });
			await t.cancel("why"); eq(reason, "why", "reason");
			const u = new ReadableStream({}); u.getReader();
			await rejects(u.cancel(), TypeError, "locked");`},
		{"constructor checks", `
			throws(() => new ReadableStream(null), TypeError, "null source");
			throws(() => new ReadableStream({ type: "x" }), TypeError, "type");
			throws(() => new ReadableStream({ type: "bytes" }, { size() {} }), RangeError, "size of bytes");
			throws(() => new ReadableStream({ pull: 1 }), TypeError, "pull");
			throws(() => ReadableStream({}), TypeError, "no new");
			throws(() => new ReadableStreamDefaultController(), TypeError, "illegal");
			throws(() => new WritableStream({ type: "bytes" }), RangeError, "sink type");
			throws(() => new TransformStream({ readableType: "bytes" }), RangeError, "readableType");`},
		{"tee", `
			const [a, b] = new ReadableStream({ start(c) { c.enqueue(1); c.enqueue(2); c.close(); } }).tee();
			const read = async (s) => { const out = []; for await (const v of s) out.push(v); return out; };
			eq(await Promise.all([read(a), read(b)]), [[1, 2], [1, 2]], "both");
			let reason; const [x, y] = new ReadableStream({ cancel(r) { reason = r; } }).tee();
			const p = x.cancel("one"); y.cancel("two"); await p; eq(reason, ["one", "two"], "composite reason");`},
		{"byte tee", `
			const src = new ReadableStream({ type: "bytes", start(c) { c.enqueue(new Uint8Array([1, 2, 3])); c.close(); } });
			const [a, b] = src.tee();
			eq([...(await a.getReader({ mode: "byob" }).read(new Uint8Array(8))).value], [1, 2, 3], "byob branch");
			eq([...(await b.getReader().read()).value], [1, 2, 3], "default branch");`},
		{"byob", `
			const s = new ReadableStream({ type: "bytes", pull(c) {
				const v = c.byobRequest.view; v[0] = 7; v[1] = 8; c.byobRequest.respond(2); } });
			const r = s.getReader({ mode: "byob" });
			const buf = new ArrayBuffer(4); const { value, done } = await r.read(new Uint8Array(buf));
			eq([...value], [7, 8], "bytes"); eq(done, false, "done"); eq(buf.byteLength, 0, "transferred");
			const w = await r.read(new Uint16Array(2)); ok(w.value instanceof Uint16Array, "type"); eq(w.value.length, 1, "one element");
			const m = await r.read(new Uint8Array(6), { min: 5 }); eq(m.value.length, 6, "min");
			await rejects(r.read(new Uint8Array(0)), TypeError, "empty view");
			await rejects(r.read(new Uint8Array(2), { min: 3 }), RangeError, "min too big");
			await rejects(r.read("x"), TypeError, "no view");
			throws(() => new ReadableStream().getReader({ mode: "byob" }), TypeError, "not a byte stream");`},
		{"byte queue splits", `
			const s = new ReadableStream({ type: "bytes", start(c) { c.enqueue(new Uint8Array([1, 2, 3, 4, 5])); c.close(); } });
			const r = s.getReader({ mode: "byob" });
			eq([...(await r.read(new Uint8Array(2))).value], [1, 2], "first");
			eq([...(await r.read(new Uint8Array(9))).value], [3, 4, 5], "rest");
			const end = await r.read(new Uint8Array(3)); eq([end.done, end.value.byteLength], [true, 0], "end");`},
		{"autoAllocateChunkSize", `
			const s = new ReadableStream({ type: "bytes", autoAllocateChunkSize: 16, pull(c) { eq(c.byobRequest.view.byteLength, 16, "room"); c.byobRequest.view[0] = 9; c.byobRequest.respond(1); } });
			eq([...(await s.getReader().read()).value], [9], "value");`},
		{"write", `
			const got = []; let closed = false;
			const w = new WritableStream({ write(c) { got.push(c); }, close() { closed = true; } }).getWriter();
			eq(w.desiredSize, 1, "room"); await w.ready; w.write(1); await w.write(2); await w.close();
			eq(got, [1, 2], "chunks"); ok(closed, "closed"); await w.closed;
			await rejects(w.write(3), TypeError, "after close");`},
		{"write errors and abort", `
			const boom = new Error("boom");
			const w = new WritableStream({ write() { throw boom; } }).getWriter();
			ok(await rejects(w.write(1), Error, "write") === boom, "same"); await rejects(w.closed, Error, "closed");
			let reason, sig; const s = new WritableStream({ start(c) { sig = c.signal; }, abort(r) { reason = r; } });
			await s.abort("stop"); eq(reason, "stop", "reason"); ok(sig.aborted && sig.reason === "stop", "signal");`},
		{"back-pressure", `
			let release; const w = new WritableStream({ write() { return new Promise((r) => { release = r; }); } }).getWriter();
			await w.ready; w.write(1); let ready = false; w.ready.then(() => { ready = true; });
			await scheduler.wait(1); eq(ready, false, "full"); release(); await scheduler.wait(1); eq(ready, true, "drained");`},
		{"pipe", `
			const got = [];
			await new ReadableStream({ start(c) { c.enqueue(1); c.enqueue(2); c.close(); } })
				.pipeThrough(new TransformStream({ transform(v, c) { c.enqueue(v * 10); }, flush(c) { c.enqueue("end"); } }))
				.pipeTo(new WritableStream({ write(v) { got.push(v); } }));
			eq(got, [10, 20, "end"], "all");`},
		{"pipe errors", `
			const boom = new Error("boom"); let aborted;
			ok(await rejects(new ReadableStream({ start(c) { c.error(boom); } }).pipeTo(new WritableStream({ abort(e) { aborted = e; } })), Error, "source") === boom, "same");
			ok(aborted === boom, "aborted");
			let canceled; const dest = new WritableStream({ write() { throw boom; } });
			await rejects(new ReadableStream({ pull(c) { c.enqueue(1); }, cancel(e) { canceled = e; } }).pipeTo(dest), Error, "dest");
			ok(canceled === boom, "canceled");
			const ac = new AbortController(); const p = new ReadableStream({}).pipeTo(new WritableStream({}), { signal: ac.signal });
			ac.abort("enough"); try { await p; fail("no abort"); } catch (e) { eq(e, "enough", "reason"); }
			await rejects(new ReadableStream().pipeTo({}), TypeError, "no stream");`},
		{"transform", `
			const t = new TransformStream(); const w = t.writable.getWriter(); w.write("x"); w.close();
			eq((await t.readable.getReader().read()).value, "x", "identity");
			const boom = new Error("boom"); const u = new TransformStream({ transform() { throw boom; } });
			const uw = u.writable.getWriter(); uw.write(1).catch(() => {});
			await rejects(u.readable.getReader().read(), Error, "error");
			const term = new TransformStream({ transform(c, k) { k.terminate(); } }); const tw = term.writable.getWriter();
			tw.write(1).catch(() => {}); eq((await term.readable.getReader().read()).done, true, "terminated"); await rejects(tw.closed, TypeError, "writer");`},
		{"from and iteration", `
			const out = []; for await (const v of ReadableStream.from([1, 2, Promise.resolve(3)])) out.push(v);
			eq(out, [1, 2, 3], "array");
			async function* g() { yield "a"; yield "b"; } const o2 = []; for await (const v of ReadableStream.from(g())) o2.push(v);
			eq(o2, ["a", "b"], "generator");
			let canceled = false; const s = new ReadableStream({ pull(c) { c.enqueue(1); }, cancel() { canceled = true; } });
			for await (const v of s) break; ok(canceled, "break cancels"); ok(!s.locked, "released");
			const k = new ReadableStream({ pull(c) { c.enqueue(1); } }); for await (const v of k.values({ preventCancel: true })) break;
			eq((await k.getReader().read()).value, 1, "preventCancel");
			throws(() => ReadableStream.from(null), TypeError, "null"); throws(() => ReadableStream.from(1), TypeError, "number");`},
		{"text streams", `
			const bytes = new TextEncoder().encode("h\u00e9llo \ud83d\ude00");
			const s = new ReadableStream({ start(c) { for (const b of bytes) c.enqueue(new Uint8Array([b])); c.close(); } });
			let text = ""; for await (const v of s.pipeThrough(new TextDecoderStream())) text += v;
			eq(text, "h\u00e9llo \ud83d\ude00", "decode byte by byte");
			const e = ReadableStream.from(["a\ud83d", "\ude00b", "\ud83d"]).pipeThrough(new TextEncoderStream());
			eq(await new Response(e).text(), "a\ud83d\ude00b\ufffd", "surrogates over chunks");
			await rejects(new Response(ReadableStream.from([new Uint8Array([0xff])]).pipeThrough(new TextDecoderStream("utf-8", { fatal: true })).pipeThrough(new TextEncoderStream())).text(), TypeError, "fatal");`},
		{"identity and fixed length", `
			const { readable, writable } = new IdentityTransformStream(); const w = writable.getWriter();
			w.write(new Uint8Array([1, 2])); w.close(); eq([...new Uint8Array(await new Response(readable).arrayBuffer())], [1, 2], "bytes");
			const f = new FixedLengthStream(3); const fw = f.writable.getWriter(); const p = new Response(f.readable).arrayBuffer().catch(() => {});
			await rejects(fw.write(new Uint8Array(4)), TypeError, "too many"); await p;
			const g = new FixedLengthStream(3); const gw = g.writable.getWriter(); const q = new Response(g.readable).arrayBuffer();
			q.catch(() => {}); await gw.write(new Uint8Array(2)); await rejects(gw.close(), TypeError, "too few"); await rejects(q, TypeError, "reader");
			throws(() => new FixedLengthStream(), TypeError, "no length");`},
		{"patched prototypes", `
			const save = Promise.prototype.then, push = Array.prototype.push, iter = Array.prototype[Symbol.iterator];
			Promise.prototype.then = () => { throw new Error("then"); }; Array.prototype.push = () => { throw new Error("push"); };
			Array.prototype[Symbol.iterator] = () => { throw new Error("iterator"); };
			Object.defineProperty(Object.prototype, "start", { get() { throw new Error("start"); }, configurable: true });
			let text; try { const t = new Response("abc").body; const x = t.tee(); text = await new Response(x[0]).text(); }
			finally { Promise.prototype.then = save; Array.prototype.push = push; Array.prototype[Symbol.iterator] = iter; delete Object.prototype.start; }
			eq(text, "abc", "text");`},
	} {
		t.Run(c.name, func(t *testing.T) { script(t, c.body) })
	}
}
