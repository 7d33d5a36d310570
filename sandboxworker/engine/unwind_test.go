package engine

import (
	"os"
	"strings"
	"testing"
	"time"
)

// Each host function is called from every frame of a stack that has overflowed, so with every amount of
// room that JavaScript can leave it. C++ does not look at the limit.
func TestHostCallsAtTheEndOfTheStack(t *testing.T) {
	locked(t)
	i := load(t, validArgs+`export default { fetch() {
		const out = [];
		for (const name of Object.keys(validArgs)) {
			const f = raw[name], args = validArgs[name]();
			let calls = 0, done = 0, other;
			const call = () => { calls++; try { f(...args); done++; } catch (e) { if (!(e instanceof RangeError) && !(e instanceof TypeError) && e.name !== "DataCloneError") other = e; } };
			const dive = (a, b, c) => { try { dive(b, c, a); } catch { } if (calls < 60) call(); };
			dive(1, 2, 3);
			if (other) out.push(name + " " + done + " " + other);
		}
		raw.setDataCloneError(cloneError);
		return out.join() || "fine";
	} }`)
	turn := i.Request(epoch, Request{Inv: 70_000_000, Method: "GET", URL: "http://t/"})
	got := ""
	for r := range turn.Records() {
		if r.Kind == RecordHead && r.Inv == 70_000_000 {
			got = string(r.Data)
		}
	}
	if turn.Status != OK || got != "fine" {
		t.Errorf("%v %v %q", turn.Status, turn.Reason, got)
	}
}

// Each host function that makes something is called with much, again and again, in an isolate whose heap
// is nearly full: an exception or the end of the turn, never of the process.
func TestHostCallsNearTheHeapLimit(t *testing.T) {
	if os.Getenv(profileEnv) != "" {
		return
	}
	locked(t)
	for name, make := range map[string]string{
		"utf8Encode":               `const s = "\u20ac".repeat(1 << 20); raw.readable(s); f = () => raw.utf8Encode(s)`,
		"utf8Encode of ropes":      `f = (n) => raw.utf8Encode("\u20ac".repeat((2 << 20) + n))`,
		"utf8EncodeInto":           `const u = new Uint8Array(4); f = (n) => { const s = "\u20ac".repeat((2 << 20) + n); raw.utf8EncodeInto(s, u); return s; }`,
		"utf8Decode":               `const u = new Uint8Array(3 << 20).fill(255); f = () => raw.utf8Decode(u, false, false)`,
		"utf8Decode of ASCII":      `const u = new Uint8Array(3 << 20).fill(65); f = () => raw.utf8Decode(u, false, false)`,
		"latin1Decode":             `const u = new Uint8Array(3 << 20).fill(200); f = () => raw.latin1Decode(u)`,
		"structuredClone":          `const o = Array.from({ length: 20000 }, (_, i) => ({ i })); f = () => raw.structuredClone(o)`,
		"structuredClone of holes": `const o = new Array(1 << 20).fill(undefined); f = () => raw.structuredClone(o)`,
		"structuredClone of text":  `f = (n) => raw.structuredClone({ s: "x".repeat((3 << 20) + n) })`,
		"structuredClone of bytes": `const o = new Uint8Array(2 << 20); f = () => raw.structuredClone(o)`,
		"previewEntries":           `const m = new Map(); for (let i = 0; i < 100000; i++) m.set(i, i); f = () => raw.previewEntries(m)`,
		"previewEntries of one":    `const m = new Map(); for (let i = 0; i < 100000; i++) m.set(i, i); f = () => raw.previewEntries(m.entries())`,
		"getOwnNonIndexProperties": `const o = {}; for (let i = 0; i < 20000; i++) o["k" + i] = i; f = () => raw.getOwnNonIndexProperties(o)`,
		"urlParse":                 `const u = new Uint32Array(9), s = "http://a/" + "\u20ac".repeat(500000); f = () => raw.urlParse(s, undefined, u)`,
		"urlSet":                   `const u = new Uint32Array(9), s = "\u20ac".repeat(500000); f = () => raw.urlSet("http://a/", 7, s, u)`,
		"log":                      `f = (n) => { const s = "x".repeat((3 << 20) + n); raw.log(1, 1, s); return s; }`,
		"op":                       `f = (n) => { const s = "x".repeat((1 << 20) + n); raw.op(1, 1, 1, s); return s; }`,
		"respond":                  `f = (n) => { const s = "\u20ac".repeat((1 << 20) + n); raw.respond(1, 200, "", 1, s); return s; }`,
		"promiseDetails":           `const p = Promise.resolve(1); f = () => raw.promiseDetails(p)`,
		"randomFill":               `f = () => { const u = new Uint8Array(64); raw.randomFill(u); return u; }`,
		"defineLazy":               `f = (n) => { const o = {}; raw.defineLazy(o, "x" + n, () => new Array(100)); return o["x" + n]; }`,
		"import":                   `f = (n) => import("./" + "x".repeat((1 << 20) + n))`,
		"rejections":               `f = (n) => Promise.reject(new Error("x".repeat((1 << 20) + n)))`,
	} {
		t.Run(name, func(t *testing.T) {
			i := load(t, `export default { fetch(r) {
				let f; `+make+`;
				globalThis.kept = [];
				// 40 of 64 MiB are taken; the loop takes the rest in pieces of the host's making.
				for (let n = 0; n < 80; n++) kept.push(new Array(65536).fill(n + 0.5));
				let thrown = 0;
				for (let n = 0; n < 3000; n++) { try { kept.push(f(n)); } catch (e) { if (++thrown > 20) break; } }
				return "thrown " + thrown;
			} }`)
			stop := time.AfterFunc(5*time.Second, func() { i.Terminate(ReasonWall) })
			defer stop.Stop()
			turn := get(i, 70_000_000)
			if turn.Status == Fatal {
				t.Errorf("%v %v %v", turn.Status, turn.Reason, texts(&turn))
			}
			t.Logf("%v %v", turn.Status, turn.Reason)
			i.Dispose()
		})
	}
}

// What a FinalizationRegistry's callback throws goes to V8 first, which makes a text of it.
func TestThrownByAFinalizer(t *testing.T) {
	locked(t)
	for _, thrown := range []string{`new Error("plain")`, `"x".repeat(2 ** 28)`, `new Error("x".repeat(2 ** 28))`, `Symbol("x".repeat(2 ** 28))`, `{ toString() { throw 1; } }`, `{ toString() { return "x".repeat(2 ** 28); } }`, `new Proxy({}, { get() { throw 1; } })`, `undefined`} {
		i := load(t, `const r = new FinalizationRegistry(() => { throw `+thrown+`; }); export default { fetch(q) { if (q.inv === 1) for (let n = 0; n < 100; n++) r.register({}, 1); return "fine"; } }`)
		get(i, 1)
		i.Trim()
		turn := get(i, 2)
		if got := body(t, &turn); got != "fine" {
			t.Errorf("%s: %q", thrown, got)
		}
		if !strings.Contains(strings.Join(texts(&turn), ""), "Uncaught") {
			t.Errorf("%s: nothing was logged: %.300q", thrown, texts(&turn))
		}
		i.Dispose()
	}
}
