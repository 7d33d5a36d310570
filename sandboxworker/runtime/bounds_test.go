package runtime_test

import (
	"strings"
	"testing"

	"bulkhead/sandboxworker/engine"
)

// A rope of 2^28 characters is nothing until it is read; reading two of them ended the process. Whatever
// takes a string refuses it, and whatever shows one to people says how long it was.
func TestHugeStringsAreNotRead(t *testing.T) {
	const prelude = `const huge = "x".repeat(2 ** 28), name = (f) => { try { return String(f()); } catch (e) { return e.name; } };`
	for what, code := range map[string]string{
		"strings": `
			for (const f of [() => btoa(huge), () => atob(huge), () => new Response(huge), () => new Response("", { statusText: huge }), () => new Headers({ a: huge }), () => new Headers([[huge, "a"]]),
				() => new Headers().get(huge), () => new URL(huge), () => new URL("a", huge), () => URL.canParse(huge), () => new URLSearchParams(huge), () => new Request(huge), () => new Request("http://a/", { method: huge }),
				() => new TextEncoder().encode(huge), () => new TextDecoder(huge), () => new Blob([huge]), () => new FormData().append(huge, huge), () => new Event(huge), () => new DOMException(huge),
				() => addEventListener(huge, () => {}), () => new ReadableStream({ type: huge }), () => Response.redirect(huge), () => ({ toString: () => huge }, btoa({ toString: () => huge }))])
				if (name(f) !== "RangeError") fail(name(f) + ": " + f);
			eq(name(() => structuredClone(huge)), "DataCloneError", "clone"); await rejects(crypto.subtle.digest(huge, new Uint8Array(1)), RangeError, "digest"); await rejects(fetch(huge), RangeError, "fetch");`,
		"logs": `
			console.log(huge, huge); console.log("%s %d %i %f %j %o %O %c", huge, huge, huge, huge, huge, huge, huge, huge); console.log(huge + "%s", huge); console.error({ [Symbol(huge)]: huge, a: [huge] }); console.table([{ a: huge }]);
			console.assert(false, huge); console.trace(huge); console.group(huge); console.groupEnd(); console.dir(new Map([[huge, huge]])); try { console.count(huge); } catch {} try { console.time(huge); } catch {} reportError(huge); reportError(new Error(huge));
			console.log(Object.defineProperty(class {}, "name", { value: huge }), new (Object.defineProperty(class {}, "name", { value: huge }))(), { [Symbol.toStringTag]: huge }, Symbol("x".repeat(2 ** 29 - 25)));`,
		"errors": `
			class E extends Error {} E.prototype.name = huge; const late = new E("y"); Object.defineProperty(late, "message", { value: huge }); const odd = new Error("a"); odd.stack = huge; odd.cause = huge;
			for (const e of [huge, Symbol(huge), late, odd, new Error(huge), { toString: Error.prototype.toString, name: huge, message: huge }, new AggregateError([huge], huge)]) { Promise.reject(e); setTimeout(() => { throw e; }, 1); ctx.waitUntil(Promise.reject(e)); }
			await scheduler.wait(5);`,
	} {
		t.Run(what, func(t *testing.T) {
			w := load(t, scriptPrelude+prelude+"export default { async fetch(request, env, ctx) {\n"+code+"\n;return new Response(failures.join('\\n')); } }")
			a := w.do(engine.Request{})
			if got := a.body.String(); got != "" {
				t.Error(got)
			}
			if what != "strings" && (len(w.logs) < 7 || !strings.Contains(strings.Join(w.logs, ""), "too long to show")) {
				t.Errorf("logs: %.2000q", w.logs)
			}
			for _, l := range w.logs {
				if len(l) > 64<<10 {
					t.Errorf("a line of %d bytes", len(l))
				}
			}
			if got := load(t, `export default { fetch: () => new Response("alive") }`).get(); got != "alive" {
				t.Error(got)
			}
		})
	}
	t.Run("start", func(t *testing.T) {
		for _, code := range []string{`throw huge;`, `throw Symbol("x".repeat(2 ** 29 - 25));`, `class E extends Error {} E.prototype.name = huge; throw new E("y".repeat(2 ** 28 + 2 ** 27));`,
			`throw new (Object.defineProperty(class {}, "name", { value: huge }))();`, `throw { toString: Error.prototype.toString, name: huge, message: huge };`, `throw { [Symbol.toStringTag]: huge };`} {
			if _, out := tryLoad(t, prelude+code); out.Failure == nil || len(out.Failure.Message) > 8<<10 {
				t.Errorf("%s: %+v", code, out)
			}
		}
	})
}

// Bytes that are no UTF-8 become twice as many bytes of text: 110 MiB passed the heap's limit of 128.
func TestDecodedTextFitsTheHeap(t *testing.T) {
	script(t, `
		const big = new Uint8Array(70 << 20).fill(255);
		throws(() => new TextDecoder().decode(big), RangeError, "utf-8"); await rejects(new Blob([big.subarray(0, 1)]).text().then(() => new Blob([big])), RangeError, "blob");
		eq(new TextDecoder().decode(big.subarray(0, 1 << 20)).length, 1 << 20, "a small one"); eq(new TextDecoder("latin1").decode(big.subarray(0, 1 << 20)).length, 1 << 20, "latin1");`)
}

// console.log(map) copied all entries of a map to show a hundred.
func TestEntriesOfHugeMapsAreNotCopied(t *testing.T) {
	w := load(t, `export default { fetch() { const m = new Map(); for (let i = 0; i < 4e6; i++) m.set(i, i); console.log(m); console.log(m.entries()); console.table(m); return new Response("ok"); } }`)
	if got := w.get(); got != "ok" || len(w.logs) != 3 {
		t.Errorf("%q, %d lines", got, len(w.logs))
	}
	if l := strings.Join(w.logs, ""); !strings.Contains(l, "too many to show") {
		t.Errorf("%.1000q", l)
	}
}

// Each resizable buffer takes mappings of the process: 32,700 of one byte ended it, in a tenth of a second.
func TestResizableBuffersAreFew(t *testing.T) { script(t, resizableScript) }

// The clone of text with many tildes: the serializer's tag of a resizable buffer is one.
const resizableScript = `
		const make = (n = 1) => new ArrayBuffer(n, { maxByteLength: 1 << 20 });
		eq(structuredClone("~".repeat(5000)).length, 5000, "text that looks like buffers, in a worker that never had any");
		const fill = (f) => { const a = []; try { for (let i = 0; i < 1000; i++) a.push(f(a)); } catch (e) { ok(e instanceof RangeError || e.name === "DataCloneError", e); return a.length; } return a.length; };
		eq(fill(() => make()), 128, "constructor"); eq(fill(() => make().transfer()), 127, "transfer: the old one is still there when the new one is made"); ok(fill(() => structuredClone(make())) <= 128, "clone");
		ok(fill(() => structuredClone([{ m: new Map([[new Set([make()]), new DataView(make())]]) }])) <= 64, "clone of a graph"); ok(fill(() => { const b = make(); return structuredClone(b, { transfer: [b] }); }) <= 128, "clone with transfer");
		class Sub extends ArrayBuffer {} eq(fill(() => new Sub(1, { maxByteLength: 9 })), 128, "subclass"); eq(fill(() => Reflect.construct(ArrayBuffer, [1, { maxByteLength: 9 }], Sub)), 128, "construct"); ok(fill(() => new (new Uint8Array(1).buffer.constructor)(1, { maxByteLength: 9 })) <= 128, "constructor property");
		for (let i = 0; i < 1000; i++) make(); // garbage is collected
		throws(() => new ArrayBuffer(1, { maxByteLength: 2 ** 33 }), RangeError, "longer than the limit"); eq(fill(() => new ArrayBuffer(1, { maxByteLength: 64 << 20 })), 8, "address space");
		let order = ""; const b = new ArrayBuffer({ valueOf() { order += "l"; return 4; } }, { get maxByteLength() { order += "m"; return { valueOf() { order += "v"; return 8.9; } }; } }); eq([order, b.byteLength, b.maxByteLength, b.resizable], ["lmv", 4, 8, true], "order");
		eq([new ArrayBuffer(3, { maxByteLength: undefined }).resizable, new ArrayBuffer(3, 5).byteLength, new ArrayBuffer().byteLength, ArrayBuffer.name, ArrayBuffer.length, ArrayBuffer.isView(new Uint8Array(1)), ArrayBuffer[Symbol.species] === ArrayBuffer], [false, 3, 0, "ArrayBuffer", 1, true, true], "plain");
		throws(() => ArrayBuffer(1), TypeError, "call"); throws(() => new ArrayBuffer(9, { maxByteLength: 8 }), RangeError, "too short"); throws(() => new ArrayBuffer(1, { maxByteLength: -1 }), RangeError, "negative"); throws(() => new ArrayBuffer(1, { maxByteLength: 1n }), TypeError, "bigint"); throws(() => new ArrayBuffer(1, { get maxByteLength() { throw new SyntaxError(); } }), SyntaxError, "getter");
		ok(new ArrayBuffer(1) instanceof ArrayBuffer && new Uint8Array(2).buffer.constructor === ArrayBuffer && new ArrayBuffer(8).slice(2).byteLength === 6, "same class"); throws(() => ArrayBuffer.prototype.transfer.call({}), TypeError, "transfer of nothing");
		const t = make(4), u = t.transfer(2); eq([t.detached, u.byteLength, u.maxByteLength, new ArrayBuffer(4).transfer(8).byteLength, new ArrayBuffer(4).transfer().byteLength], [true, 2, 1 << 20, 8, 4], "transfer keeps"); eq(ArrayBuffer.prototype.transfer.length, 0, "length"); ok(!("prototype" in ArrayBuffer.prototype.transfer), "no constructor");
		await rejects(new ReadableStream({ type: "bytes", pull(c) { c.enqueue(new Uint8Array(make(4))); c.close(); } }).pipeTo(new WritableStream({ write(c) { throw new SyntaxError(c.length); } })), SyntaxError, "streams take them");`

// Ada takes the square of a host's length to encode it, and cannot be stopped: 20,000 characters took
// 0.6 s, the four million a URL may have would have taken hours.
func TestHostsOfURLsAreBounded(t *testing.T) {
	script(t, `
		let wide = ""; for (let i = 0; i < 200000; i++) wide += String.fromCodePoint(0x4e00 + i % 20000);
		for (const p of ["http://", "HTTPS:", " http:\\\\", "ws:/", "ht\ntp:\t//u:p@", "x://", "//"]) { ok(!URL.canParse(p + wide, p === "//" ? "http://a/" : undefined), p); throws(() => new URL(p + wide + "/p?q#h", "http://a/"), TypeError, p); }
		for (const p of ["host", "hostname"]) { const u = new URL("http://a/"); u[p] = wide; eq(u.href, "http://a/", p); } const u = new URL("http://a/"); throws(() => { u.href = "http://" + wide; }, TypeError, "href");
		eq(new URL("http://a/" + "x".repeat(1e5)).pathname.length, 100001, "a long path"); eq(new URL("data:" + "x".repeat(1e5)).href.length, 100005, "data"); eq(new URL("x".repeat(1e5), "http://a/").pathname.length, 100001, "relative"); eq(new URL("?" + "//".repeat(1e5), "http://a/").search.length, 200001, "query");
		eq(new URL("http://u:" + "p".repeat(5000) + "@a/").password.length, 5000, "a long password"); eq(new URL("http://b\u00fccher.example/").host, "xn--bcher-kva.example", "a host");`)
}

// What load() tells the host stood in an array whose elements a tenant's setter could catch, and whose
// getter then said what the host read: a rope.
func TestHandlersAreNotReadFromPollutedArrays(t *testing.T) {
	for _, get := range []string{`throw 1`, `return "x".repeat(2 ** 28)`, `return {}`} {
		w, out := tryLoad(t, `Object.defineProperty(Array.prototype, 0, { get() { `+get+`; }, set() {}, configurable: true }); export default { fetch() { return new Response("x"); } }`)
		if out.Failure != nil || len(out.Handlers) != 1 || out.Handlers[0] != "fetch" {
			t.Errorf("%s: %+v %q", get, out, w.logs)
		}
	}
}
