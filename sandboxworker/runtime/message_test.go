package runtime_test

import "testing"

// Channels, and what passes through them: clones of platform objects, ports and streams that move.
func TestMessages(t *testing.T) {
	for _, c := range []struct{ name, body string }{
		{"order and tasks", `
			const { port1, port2 } = new MessageChannel(), log = []; const got = new Promise((done) => { port2.onmessage = (e) => { log.push(e.data); Promise.resolve().then(() => log.push("micro " + e.data)); if (e.data === 3) done(e); }; });
			port1.postMessage(1); port1.postMessage(2); port1.postMessage(3); log.push("sync"); queueMicrotask(() => log.push("first micro")); const e = await got; await scheduler.wait(1);
			eq(log, ["sync", "first micro", 1, "micro 1", 2, "micro 2", 3, "micro 3"], "order"); eq([e.isTrusted, e.origin, e.source, e.ports, e.type], [true, "", null, [], "message"], "event"); ok(Object.isFrozen(e.ports), "frozen"); ok(e.target === port2, "target");`},
		{"start", `
			const { port1, port2 } = new MessageChannel(); const seen = []; port2.addEventListener("message", (e) => seen.push(e.data)); port1.postMessage("a"); await scheduler.wait(1); eq(seen, [], "not started"); port2.start(); port1.postMessage("b"); await scheduler.wait(1); eq(seen, ["a", "b"], "started");
			port1.onmessage = (e) => seen.push("back " + e.data); port2.postMessage("c"); await scheduler.wait(1); eq(seen[2], "back c", "both ways"); port1.onmessage = 5; eq(port1.onmessage, null, "cleared");`},
		{"ping-pong costs no time", `
			const { port1, port2 } = new MessageChannel(); const t = Date.now(); let n = 0; await new Promise((done) => { port1.onmessage = () => { if (++n === 500) done(); else port1.postMessage(n); }; port2.onmessage = () => port2.postMessage(n); port1.postMessage(0); }); eq([n, Date.now() - t], [500, 0], "frozen clock");`},
		{"close", `
			const { port1, port2 } = new MessageChannel(); let closed = 0; const seen = []; port2.onmessage = (e) => seen.push(e.data); port2.onclose = () => closed++; port1.postMessage(1); port1.close(); port1.postMessage(2); await scheduler.wait(1); eq([seen, closed], [[1], 1], "what was sent before arrives"); port2.postMessage(3); throws(() => structuredClone(port1, { transfer: [port1] }), "DataCloneError", "closed port");`},
		{"ports move", `
			const a = new MessageChannel(), b = new MessageChannel(); b.port2.postMessage("early"); const got = new Promise((done) => { a.port2.onmessage = done; });
			a.port1.postMessage({ p: b.port1, list: [b.port1] }, [b.port1]); const e = await got; const p = e.data.p; ok(p instanceof MessagePort && p !== b.port1 && e.data.list[0] === p && e.ports[0] === p, "same new port"); eq(e.ports.length, 1, "ports");
			const seen = []; p.onmessage = (e) => seen.push(e.data); b.port2.postMessage("late"); b.port1.postMessage("lost"); await scheduler.wait(1); eq(seen, ["early", "late"], "queue moved");
			throws(() => a.port1.postMessage(1, [a.port1]), "DataCloneError", "itself"); throws(() => a.port1.postMessage(b.port2), "DataCloneError", "not in the list"); throws(() => a.port1.postMessage(1, [b.port2, b.port2]), "DataCloneError", "twice"); throws(() => a.port1.postMessage(1, [b.port1]), "DataCloneError", "moved already");
			const c = structuredClone(b.port2, { transfer: [b.port2] }); ok(c instanceof MessagePort, "structuredClone"); throws(() => a.port1.postMessage(), TypeError, "arguments"); throws(() => a.port1.postMessage(1, [1]), TypeError, "list"); throws(() => new MessagePort(), TypeError, "illegal");`},
		{"nested platform objects", `
			const e = new DOMException("m", "AbortError"), b = new Blob(["x"], { type: "a/b" }), f = new File(["yz"], "n", { lastModified: 3 }); const c = structuredClone({ e, list: [b, b, f], m: new Map([[1, e]]) });
			ok(c.e instanceof DOMException && c.e.name === "AbortError" && c.e.message === "m" && c.e !== e && c.e.stack === e.stack, "DOMException"); ok(c.list[0] === c.list[1] && c.list[0] instanceof Blob && c.list[0] !== b, "identity"); eq([await c.list[0].text(), c.list[0].type, c.list[2].name, c.list[2].lastModified, c.m.get(1) === c.e], ["x", "a/b", "n", 3, true], "contents");
			const k = await crypto.subtle.generateKey({ name: "HMAC", hash: "SHA-256" }, false, ["sign"]); const kc = structuredClone([k])[0]; ok(kc instanceof CryptoKey && kc !== k && !kc.extractable, "CryptoKey"); eq(new Uint8Array(await crypto.subtle.sign("HMAC", kc, new Uint8Array(1))), new Uint8Array(await crypto.subtle.sign("HMAC", k, new Uint8Array(1))), "same key");
			for (const v of [new Response(), new Headers(), request, new URL("http://x"), new ReadableStream(), new Event("x"), new AbortController(), new FormData(), crypto, new TextDecoder()]) throws(() => structuredClone({ v }), "DataCloneError", "nested " + v);
			class Mine { constructor() { this.a = 1; } } eq(structuredClone([new Mine(), Object.create(null), Object.create({ b: 1 })]), [{ a: 1 }, {}, {}], "ordinary objects");`},
		{"streams move", `
			const s = new ReadableStream({ start(c) { c.enqueue({ a: 1 }); c.enqueue("b"); c.close(); } }); const r = structuredClone(s, { transfer: [s] }); ok(s.locked && r instanceof ReadableStream && r !== s, "readable"); const out = []; for await (const v of r) out.push(v); eq(out, [{ a: 1 }, "b"], "chunks");
			const got = []; const w = new WritableStream({ write(c) { got.push(c); } }); const o = { n: 1 }; const x = structuredClone({ w }, { transfer: [w] }).w; const wr = x.getWriter(); await wr.write(o); await wr.close(); eq(got, [{ n: 1 }], "writable"); ok(got[0] !== o, "cloned");
			const t = new TransformStream(); const u = structuredClone(t, { transfer: [t] }); const p = u.readable.getReader().read(); u.writable.getWriter().write("q"); eq((await p).value, "q", "transform"); ok(t.readable.locked && t.writable.locked, "old one locked");
			const bad = new ReadableStream({ start(c) { c.enqueue(() => {}); } }); const br = structuredClone(bad, { transfer: [bad] }); await rejects(br.getReader().read(), "DataCloneError", "chunk that cannot be cloned"); const l = new ReadableStream(); l.getReader(); throws(() => structuredClone(l, { transfer: [l] }), "DataCloneError", "locked");
			const late = new ReadableStream(); throws(() => structuredClone({ get x() { late.getReader(); return late; } }, { transfer: [late] }), "DataCloneError", "locked by a getter"); const e = new ReadableStream({ start(c) { c.error(new Error("boom")); } }); await rejects(structuredClone(e, { transfer: [e] }).getReader().read(), Error, "error passes");`},
		{"hostile", `
			const { port1, port2 } = new MessageChannel(); throws(() => port1.postMessage({ get x() { throw new RangeError("g"); } }), RangeError, "getter"); throws(() => port1.postMessage(1, { get transfer() { throw new RangeError("t"); } }), RangeError, "transfer getter"); throws(() => port1.postMessage(Symbol()), "DataCloneError", "symbol");
			const b = new ArrayBuffer(8); let seen; port2.onmessage = (e) => { seen = e.data; }; port1.postMessage(b, [b]); eq(b.byteLength, 0, "detached at once"); await scheduler.wait(1); eq(seen.byteLength, 8, "buffer");
			const spoof = Object.create(MessagePort.prototype); throws(() => spoof.postMessage(1), TypeError, "brand"); throws(() => structuredClone(spoof, { transfer: [spoof] }), "DataCloneError", "spoof"); throws(() => new MessageEvent("x", { ports: [1] }), TypeError, "ports"); throws(() => new MessageEvent("x", { source: {} }), TypeError, "source");
			const nested = structuredClone({ get a() { return structuredClone([new Blob(["x"]), { get b() { return structuredClone(new Blob(["yy"])); } }]); }, c: new Blob(["zzz"]) }); eq([nested.a[0].size, nested.a[1].b.size, nested.c.size], [1, 2, 3], "clones within clones"); const pp = new MessageChannel(); throws(() => structuredClone({ get a() { pp.port1.postMessage(1, [pp.port2]); return pp.port2; } }, { transfer: [pp.port2] }), "DataCloneError", "moved by a getter"); const deep = []; let d = deep; for (let i = 0; i < 1e5; i++) d = d[0] = []; try { structuredClone(deep); } catch (e) { ok(e instanceof RangeError, "depth " + e); } throws(() => structuredClone(new Proxy(new Blob([]), {})), "DataCloneError", "proxy");
			const bl = new Blob(["x"]); for (const o of [Object.prototype, Array.prototype]) Object.defineProperty(o, "0", { configurable: true, set() { throw new Error("setter"); } }); try { const m = new MessageChannel(); m.port1.postMessage(bl); } finally { delete Object.prototype[0]; delete Array.prototype[0]; }`},
	} {
		t.Run(c.name, func(t *testing.T) { script(t, c.body) })
	}
}
