package runtime_test

import (
	"strings"
	"testing"
)

// What console methods write, as people know it from other runtimes.
func TestConsole(t *testing.T) {
	for _, c := range []struct{ expr, want string }{
		{`console.log("a", 1, true, null, undefined, 5n, Symbol("s"), -0)`, "log a 1 true null undefined 5n Symbol(s) -0"},
		{`console.log()`, "log "},
		{`console.debug("x")`, "debug x"},
		{`console.info("x")`, "info x"},
		{`console.warn("x")`, "warn x"},
		{`console.error("x")`, "error x"},
		{`console.log({ a: 1, "b-c": "x", [Symbol("k")]: [1, "two"] })`, "log { a: 1, 'b-c': 'x', [Symbol(k)]: [ 1, 'two' ] }"},
		{`console.log({ a: { b: { c: { d: 1 } } } })`, "log { a: { b: { c: [Object] } } }"},
		{`console.log([[[[1]]]], [], {})`, "log [ [ [ [Array] ] ] ] [] {}"},
		{`console.log(new Map([["a", { x: 1 }], [2, null]]), new Set([1, "b"]), new Map())`, "log Map(2) { 'a' => { x: 1 }, 2 => null } Set(2) { 1, 'b' } Map(0) {}"},
		{`console.log([undefined, , 3, , ,])`, "log [ undefined, <1 empty item>, 3, <2 empty items> ]"},
		{`console.log(new Uint8Array([1, 2]), new ArrayBuffer(3), new Float64Array(0), new DataView(new ArrayBuffer(2), 1))`,
			"log Uint8Array(2) [ 1, 2 ] ArrayBuffer { [Uint8Contents]: <00 00 00>, byteLength: 3 } Float64Array(0) [] DataView { byteLength: 1, byteOffset: 1 }"},
		{`class Foo { constructor() { this.x = 1; } } class Bar extends Foo {} console.log(new Foo(), new Bar(), Foo, Bar, class {})`,
			"log Foo { x: 1 } Bar { x: 1 } [class Foo] [class Bar extends Foo] [class (anonymous)]"},
		{`console.log(function f() {}, () => {}, async function g() {}, function* h() {}, Math.max)`,
			"log [Function: f] [Function (anonymous)] [AsyncFunction: g] [GeneratorFunction: h] [Function: max]"},
		{`console.log(Object.create(null), Object.assign(Object.create(null), { a: 1 }))`, "log [Object: null prototype] {} [Object: null prototype] { a: 1 }"},
		{`const o = { name: "o" }; o.self = o; o.list = [o]; console.log(o)`, "log <ref *1> { name: 'o', self: [Circular *1], list: [ [Circular *1] ] }"},
		{`console.log({ get a() { throw 1; }, set b(v) {}, get c() { return 1; }, set c(v) {} })`, "log { a: [Getter], b: [Setter], c: [Getter/Setter] }"},
		{`console.log(new Date(0), /a\/b/gi, new Date(NaN))`, "log 1970-01-01T00:00:00.000Z /a\\/b/gi Invalid Date"},
		{`console.log(Promise.resolve(5), new Promise(() => {}), (() => { const p = Promise.reject(new TypeError("x")); p.catch(() => {}); return [p].length; })())`, "log Promise { 5 } Promise { <pending> } 1"},
		{`console.log(new WeakMap(), new WeakSet(), [1].values(), new Map([[1, 2]]).entries(), new Set([1]).values())`,
			"log WeakMap { <items unknown> } WeakSet { <items unknown> } Object [Array Iterator] {} [Map Entries] { 1 => 2 } [Set Iterator] { 1 }"},
		{`console.log(new Number(1), new String("ab"), Object(Symbol("x")), Object(1n), new Boolean(false))`,
			"log [Number: 1] [String: 'ab'] [Symbol: Symbol(x)] [BigInt: 1n] [Boolean: false]"},
		{`console.log(new Proxy({ a: 1 }, { get() { throw 1; }, ownKeys() { throw 1; } }), new Proxy(class A {}, {}))`, "log { a: 1 } [class A]"},
		{`console.log("it's", ["it's", "a\nb", 'q"\'', "\u0001"])`, "log it's [ \"it's\", 'a\\nb', `q\"'`, '\\x01' ]"},
		{`console.log(new Headers({ a: "b", "c-d": "e" }), new URL("http://a/b").searchParams, new URLSearchParams("x=1"))`,
			"log Headers { a: 'b', 'c-d': 'e' } URLSearchParams {} URLSearchParams { 'x': '1' }"},
		{`console.log(new Response("x", { status: 404 }))`, "log Response {\n  status: 404,\n  statusText: '',\n  headers: { 'content-type': 'text/plain;charset=UTF-8' },\n  ok: false,\n  bodyUsed: false,\n  redirected: false,\n  type: 'default',\n  url: ''\n}"},
		{`console.log("%s is %d years and %i, %f, %j %o %O %% %c|%x", "Bob", 42.5, 42.9, "1.5", { a: 1 }, [1], { b: 2 }, "css", "rest")`,
			"log Bob is 42.5 years and 42, 1.5, {\"a\":1} [ 1, [length]: 1 ] { b: 2 } % |%x rest"},
		{`console.log("%s %s", "one")`, "log one %s"},
		{`console.log("100%", 5)`, "log 100% 5"},
		{`console.log(Array.from({ length: 120 }, (_, i) => i))`, "... 20 more items\n]"},
		{`class T { get [Symbol.toStringTag]() { return "tag"; } } console.log(new T(), { [Symbol.toStringTag]: "X" })`, "log T {} Object [X] { [Symbol(Symbol.toStringTag)]: 'X' }"},
		{`console.assert(true, "no"); console.assert(false, "yes %d", 1); console.assert(false)`, "error Assertion failed: yes 1|error Assertion failed"},
		{`console.group("g"); console.log("in\nside"); console.group(); console.log(1); console.groupEnd(); console.groupEnd(); console.log("out")`, "log g|log   in\n  side|log     1|log out"},
		{`console.count(); console.count("x"); console.count(); console.countReset(); console.count(); console.countReset("no")`, "info default: 1|info x: 1|info default: 2|info default: 1|warn Count for 'no' does not exist"},
		{`console.time(); await scheduler.wait(5); console.timeLog("default", "mid"); console.timeEnd(); console.timeEnd()`, "log default: 5ms mid|info default: 5ms|warn Timer 'default' does not exist"},
		{`console.table([{ a: 1, b: "x" }, { a: 2 }])`, "log +---------+---+-----+\n| (index) | a | b   |\n+---------+---+-----+\n| 0       | 1 | 'x' |\n| 1       | 2 |     |\n+---------+---+-----+"},
		{`console.dir({ a: { b: { c: { d: 1 } } } }, { depth: 0 })`, "log { a: [Object] }"},
		{`const log = console.log; log("unbound")`, "log unbound"},
		{`let e; try { null.x } catch (err) { e = err; } console.log(e)`, "log TypeError: Cannot read properties of null (reading 'x')\n    at "},
		{`const e = new RangeError("m", { cause: "why" }); e.code = 7; console.log(e)`, "{ [cause]: 'why', code: 7 }"},
		{`console.log({ e: new Error("in") })`, "log {\n  e: Error: in\n      at "},
		{`console.log("x".repeat(100000))`, "more characters)"},
		{`const deep = {}; let d = deep; for (let i = 0; i < 10000; i++) d = d.x = {}; console.dir(deep, { depth: null })`, "x: {\n"},
		{`console.log(Array(1e5).fill({ a: [1, 2, 3] }))`, "items"},
		{`console.log(Array(4e9))`, "log [ <4000000000 empty items> ]"},
		{`console.trace("here")`, "log Trace: here\n    at "},
	} {
		t.Run(c.expr, func(t *testing.T) {
			w := load(t, `export default { async fetch() { `+c.expr+`; return new Response(); } }`)
			w.get()
			var got []string
			for _, l := range w.logs {
				_, l, _ = strings.Cut(l, " ")
				if len(l) > 40_000 {
					t.Errorf("a line of %d bytes", len(l))
				}
				got = append(got, l)
			}
			all := strings.Join(got, "|")
			if len(c.want) > 4 && !strings.HasPrefix(c.want, "log ") && !strings.Contains(c.want, "|") && !strings.HasPrefix(all, c.want) {
				if !strings.Contains(all, c.want) {
					t.Errorf("got  %.600s\nwant it to contain %s", all, c.want)
				}
			} else if all != c.want && !(strings.HasSuffix(c.want, "at ") && strings.HasPrefix(all, c.want)) {
				t.Errorf("got  %.600s\nwant %s", all, c.want)
			}
		})
	}
}
