package engine

import (
	"strings"
	"testing"
)

func TestURLs(t *testing.T) {
	locked(t)
	i := load(t, `
		const out = new Uint32Array(9);
		const show = (h) => h === undefined ? "none" : h + " " + [...out].map((n) => n === 0xffffffff ? "-" : n).join();
		export default { fetch() { return [
			show(raw.urlParse("HTTP://user:pa@EXAMPLE.com:8080/a/../b?q#h", undefined, out)),
			show(raw.urlParse("../x y?\u00fc", "https://b.example/p/q/r", out)),
			show(raw.urlParse("no base", undefined, out)),
			show(raw.urlParse("http://b\u00fccher.example/\ud800", undefined, out)),
			show(raw.urlSet("http://a.example/p", 6, "99", out)),
			show(raw.urlSet("http://a.example/p", 1, "nonsense:", out)),
			show(raw.urlSet("http://a.example/p?x", 8, "", out)),
			raw.urlCanParse("x", "http://a/"), raw.urlCanParse("x", undefined),
			show(raw.urlParse("http://" + "a".repeat(5e6), undefined, out)),
		].join("\n"); } }`)
	want := `http://user:pa@example.com:8080/b?q#h 5,11,14,26,8080,31,33,35,0
https://b.example/p/x%20y?%C3%BC 6,8,8,17,-,17,25,-,2
none
http://xn--bcher-kva.example/%EF%BF%BD 5,7,7,28,-,28,-,-,0
http://a.example:99/p 5,7,7,16,99,19,-,-,0
http://a.example/p 5,7,7,16,-,16,-,-,0
http://a.example/p 5,7,7,16,-,16,-,-,0
true
false
none`
	if got := ask(t, i); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestText(t *testing.T) {
	locked(t)
	i := load(t, `
		const name = (f) => { try { return f(); } catch (e) { return e.name; } };
		const u8 = (...b) => new Uint8Array(b);
		export default { fetch() {
			const into = new Uint8Array(5), into3 = new Uint8Array(8).subarray(2, 5);
			const n = raw.utf8EncodeInto("a\u00e9\u20ac", into), m = raw.utf8EncodeInto("\u20ac\u20ac", into3);
			const grow = new ArrayBuffer(8, { maxByteLength: 16 }), tracking = new Uint8Array(grow); grow.resize(2);
			const gone = new Uint8Array(8); gone.buffer.transfer();
			const r = new Uint8Array(64); raw.randomFill(r);
			return [
				raw.utf8Encode("a\u00e9\ud83d\ude00\ud800").join(),
				Math.floor(n / 2 ** 32) + ":" + n % 2 ** 32 + ":" + into.join(), Math.floor(m / 2 ** 32) + ":" + m % 2 ** 32,
				raw.utf8Decode(u8(0xef, 0xbb, 0xbf, 0x61), false, false), raw.utf8Decode(u8(0xef, 0xbb, 0xbf, 0x61), false, true).length,
				raw.utf8Decode(u8(0xff, 0x41, 0xe2, 0x82), false, false), name(() => raw.utf8Decode(u8(0xff), true, false)),
				name(() => raw.utf8Decode(u8(0xed, 0xa0, 0x80), true, false)), name(() => raw.utf8Decode(u8(0xc0, 0x80), true, false)),
				raw.utf8Decode(u8(0xf0, 0x9f, 0x98, 0x80), true, false), name(() => raw.utf8Decode(u8(0xf4, 0x90, 0x80, 0x80), true, false)),
				raw.latin1Decode(u8(0x41, 0xe9, 0xff)), raw.utf8Decode(tracking, false, false).length, raw.utf8Decode(gone, true, false).length,
				raw.utf8EncodeInto("abc", gone), raw.utf8Decode(new DataView(new ArrayBuffer(3)), true, false).length, new Set(r).size > 20,
			].join("|");
		} }`)
	want := "97,195,169,240,159,152,128,239,191,189|2:3:97,195,169,0,0|1:3|a|2|\ufffdA\ufffd|TypeError|TypeError|TypeError|😀|TypeError|Aéÿ|2|0|0|3|true"
	if got := ask(t, i); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestStructuredClone(t *testing.T) {
	locked(t)
	i := load(t, `
		const name = (f) => { try { return f(); } catch (e) { return e.name + ": " + e.message; } };
		export default { fetch() {
			const a = { d: new Date(5), m: new Map([[1, { x: new Set([2]) }]]), r: /x/g, b: new Uint8Array([1, 2]), n: 10n, e: new RangeError("e") };
			a.self = a;
			const c = raw.structuredClone(a, undefined);
			const t = new Uint8Array([9]).buffer, moved = raw.structuredClone({ t }, [t]);
			const one = new ArrayBuffer(8), two = new ArrayBuffer(8);
			const rab = raw.structuredClone(new ArrayBuffer(2, { maxByteLength: 4 }));
			return [
				c !== a && c.self === c, +c.d, [...c.m.get(1).x], c.r.flags, c.b.join(), c.n, c.e instanceof RangeError,
				t.byteLength + ":" + t.detached + ":" + moved.t.byteLength, rab.maxByteLength,
				name(() => raw.structuredClone(() => 0)), name(() => raw.structuredClone(Symbol())), name(() => raw.structuredClone(new WeakMap())),
				name(() => raw.structuredClone(1, [{}])), name(() => raw.structuredClone(1, [one, one])), name(() => raw.structuredClone(1, [t])),
				name(() => raw.structuredClone({ get x() { two.transfer(); return 1; } }, [two])),
				name(() => raw.structuredClone({ get x() { throw new TypeError("mine"); } })), name(() => raw.structuredClone(1, 5)), one.byteLength,
			].join("|");
		} }`)
	want := "true|5|2|g|1,2|10|true|0:true:1|4|DataCloneError: () => 0 could not be cloned.|DataCloneError: Symbol() could not be cloned.|" +
		"DataCloneError: #<WeakMap> could not be cloned.|DataCloneError: Value at index 0 of the transfer list is not transferable|" +
		"DataCloneError: An ArrayBuffer stands twice in the transfer list|DataCloneError: An ArrayBuffer is detached and could not be cloned|" +
		"DataCloneError: An ArrayBuffer is detached and could not be cloned|TypeError: mine|TypeError: host: the transfer list must be an array|8"
	if got := ask(t, i); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestInspection(t *testing.T) {
	locked(t)
	i := load(t, `export default { fetch() {
		const target = {}, p = new Proxy(target, { get() { throw 1; }, ownKeys() { throw new Error("trap"); } });
		const arr = [1, 2]; arr.k = 1; Object.defineProperty(arr, "hidden", { value: 1 });
		const cls = [new Map(), new Map().keys(), new Set(), new Date(), /x/, new Error(), Promise.resolve(), p, new Uint8Array(), new DataView(new ArrayBuffer(1)), new ArrayBuffer(1),
			Object(1), Object("s"), Object(1n), (function* () {})(), (function () { return arguments; })(), async () => {}, function* () {}, class {}, [], {}, Object.create(null), 5, undefined,
			Object.setPrototypeOf(new Map(), null)].map(raw.classOf);
		let trap; try { raw.getOwnNonIndexProperties(p); } catch (e) { trap = e.message; }
		let lazy = 0; const o = {}; raw.defineLazy(o, "big", (name) => { lazy++; return name + "!"; });
		const before = lazy, d = Object.getOwnPropertyDescriptor(o, "big");
		let thrown; const bad = {}; raw.defineLazy(bad, "x", () => { throw new Error("made it fail"); }); try { bad.x; } catch (e) { thrown = e.message; }
		raw.setContext({ v: 4 });
		return [cls.join(), raw.promiseDetails(Promise.reject(3).catch(() => {}) && Promise.resolve(4)).join(), raw.promiseDetails(new Promise(() => {}))[0], raw.promiseDetails(p),
			raw.proxyDetails(p)[0] === target, raw.proxyDetails({}), JSON.stringify(raw.previewEntries(new Map([[1, 2]]).entries())), raw.getOwnNonIndexProperties(arr).join(),
			raw.getOwnNonIndexProperties(arr, true).join(), trap, before, d.value, d.enumerable, o.big, o.big, lazy, thrown, raw.constructorName(new (class Foo {})()), raw.getContext().v].join("|");
	} }`)
	want := "Map,MapIterator,Set,Date,RegExp,NativeError,Promise,Proxy,TypedArray,DataView,ArrayBuffer,NumberObject,StringObject,BigIntObject,GeneratorObject,Arguments,AsyncFunction,GeneratorFunction,Function,Array,Object,Object,,,Map" +
		"|1,4|0||true||[[1,2],true]|length,k,hidden|k|trap|0|big!|false|big!|big!|1|made it fail|Foo|4"
	if got := ask(t, i); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Every host function gets every hostile value in every place. None may do more than throw.
func TestHostFunctionsSurviveAnything(t *testing.T) {
	locked(t)
	i := load(t, `
		const bomb = { valueOf() { throw new Error("coerced"); }, toString() { throw new Error("coerced"); }, [Symbol.toPrimitive]() { throw new Error("coerced"); } };
		const values = () => {
			const gone = new Uint8Array(16); gone.buffer.transfer();
			const rab = new ArrayBuffer(64, { maxByteLength: 128 }), shrunk = new Uint8Array(rab, 32); rab.resize(8);
			const big = new Uint8Array(1 << 20);
			return [undefined, null, 0, -1, 1.5, NaN, Infinity, 2 ** 32, 2 ** 31, 7, "", "x", "\ud800", "é\n\0", "y".repeat(70000), Symbol("s"), 10n, true, bomb, [], [bomb], {},
				new Proxy({}, { get() { throw 1; }, ownKeys() { throw 2; } }), new Proxy(function () {}, {}), () => { throw 3; }, gone, gone.buffer, shrunk, rab, big, new DataView(big.buffer, 5),
				new Float64Array(2), new Uint32Array(9), new Uint32Array(3), new Uint32Array(new ArrayBuffer(36, { maxByteLength: 72 })), globalThis, Promise.resolve(), new Date(NaN), raw];
		};
		export default { fetch() {
			let calls = 0, thrown = 0, coerced = 0, state = 12345;
			const random = (n) => { state = (state * 1103515245 + 12345) >>> 0; return (state >>> 8) % n; };
			for (const name of Object.keys(raw)) {
				const f = raw[name];
				if (typeof f !== "function" || name === "setDataCloneError") continue;
				const vs = values();
				const lists = [[]];
				for (const v of vs) for (let at = 0; at < 5; at++) { const l = [1, 200, "x", 1, "y"]; l[at] = v; lists.push(l); }
				for (let k = 0; k < 400; k++) lists.push(Array.from({ length: random(7) }, () => vs[random(vs.length)]));
				for (const l of lists) {
					calls++;
					try { f(...l); } catch (e) { thrown++; if (e && e.message === "coerced") coerced++; }
				}
			}
			return calls + " " + thrown + " " + coerced;
		} }`)
	turn := get(i, 1)
	if turn.Status != OK {
		t.Fatalf("%v %v", turn.Status, turn.Reason)
	}
	found := false
	for r := range turn.Records() {
		if r.Kind == RecordHead && r.Inv == 1 && strings.HasSuffix(string(r.Data), " 0") {
			found = true
			t.Logf("calls, exceptions, coercions: %s", r.Data)
		}
	}
	if !found {
		t.Errorf("no answer without a coercion")
	}
	if got := ask(t, load(t, `export default { fetch: () => "alive" }`)); got != "alive" {
		t.Errorf("got %q", got)
	}
}
