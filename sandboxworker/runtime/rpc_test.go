package runtime_test

import (
	"fmt"
	"strings"
	"testing"

	"bulkhead/sandboxworker/engine"
	"bulkhead/sandboxworker/runtime"
	"bulkhead/schema/gen"
)

// entrypoints is what the bundler gives for import { WorkerEntrypoint } from "cloudflare:workers".
const entrypoints = `class WorkerEntrypoint { constructor(ctx, env) { this.ctx = ctx; this.env = env; } }
Object.defineProperty(WorkerEntrypoint.prototype, Symbol.for("bulkhead.entrypoint"), { value: true });
`

// wire joins two workers as the gateway would: each call of the one is an invocation of the other.
type wire struct {
	caller, callee *worker
	entrypoint     string
	calls          int
	last           *answer // of the callee's last invocation
}

// run answers the caller's subrequests until it has none.
func (l *wire) run() {
	l.caller.t.Helper()
	for len(l.caller.ops) > 0 {
		o := l.caller.ops[0]
		l.caller.ops = l.caller.ops[1:]
		if o.code != runtime.OpFetch {
			l.caller.t.Fatalf("operation %d", o.code)
		}
		q, err := runtime.ParseFetch(o.meta)
		if err != nil || q.Binding != 1 {
			l.caller.t.Fatalf("subrequest %q: %v, binding %d", o.meta, err, q.Binding)
		}
		event := "fetch"
		if q.Call != "" {
			event = "call"
		}
		l.calls++
		l.last = l.callee.do(engine.Request{Method: runtime.EventMethod(q.Method, event, l.entrypoint, q.Call), URL: q.URL,
			Headers: q.Headers, BodyMode: gen.BodyMode(q.BodyMode), Body: o.data})
		a := l.last
		if a.finished != 1 {
			l.caller.t.Fatalf("the callee finished %d times", a.finished)
		}
		if !a.head {
			l.caller.take(l.caller.iso.OpResult(l.caller.now, o.id, false, "callee: "+a.outcome.String(), nil))
			continue
		}
		head := runtime.FetchAnswer{Status: a.status, URL: q.URL, Body: a.mode != gen.BodyMode_none, Headers: []byte(a.headers)}
		l.caller.take(l.caller.iso.OpResult(l.caller.now, o.id, true, head.Meta(), nil))
		if head.Body {
			l.caller.take(l.caller.iso.Chunk(l.caller.now, o.id, []byte(a.body.String())))
			l.caller.take(l.caller.iso.End(l.caller.now, o.id))
		}
	}
}

func join(t *testing.T, caller, callee, entrypoint string) *wire {
	t.Helper()
	return &wire{caller: load(t, caller, engine.EnvVar{Name: "B", JSON: true, Value: runtime.ServiceValue(1)}), callee: load(t, callee), entrypoint: entrypoint}
}

// call runs the caller's fetch handler to its end.
func (l *wire) call() *answer {
	l.caller.t.Helper()
	inv := uint32(len(l.caller.answers) + 100)
	a := l.caller.send(inv, engine.Request{})
	l.run()
	if a.finished != 1 || a.outcome != gen.Outcome_ok {
		l.caller.t.Fatalf("finished %d times, %v: %s\n%s", a.finished, a.outcome, a.message, strings.Join(l.caller.logs, "\n"))
	}
	return a
}

func TestServiceBinding(t *testing.T) {
	callee := entrypoints + `
	export default {
		async fetch(request) { return new Response(request.method + " " + new URL(request.url).pathname + " " + await request.text(), { status: 201, headers: { "x-from": "callee" } }); },
	};
	export class Sums extends WorkerEntrypoint {
		#secret = 1;
		own = () => "own";
		get getter() { return () => "getter"; }
		add(a, b) { return a + b; }
		async later(v) { await null; return v; }
		echo(...args) { return args; }
		fails() { throw new RangeError("too far"); }
		odd() { throw { code: 7, list: [1] }; }
		bad() { return () => 1; }
		env() { return [typeof this.env, typeof this.ctx.waitUntil]; }
		fetch() { return new Response("named"); }
	}
	export class Plain { hidden() { return 1; } fetch() { return new Response("plain"); } }
	export const object = { fetch: () => new Response("object") };
	`
	t.Run("fetch", func(t *testing.T) {
		l := join(t, `export default { async fetch(r, env) {
			const x = await env.B.fetch("http://any/path?q", { method: "POST", body: "hello" });
			return Response.json([x.status, x.headers.get("x-from"), await x.text(), typeof env.B, typeof env.B.then, String(env.B)]);
		} }`, callee, "")
		if got := l.call().body.String(); got != `[201,"callee","POST /path hello","object","undefined","[object Fetcher]"]` {
			t.Error(got)
		}
	})
	for name, want := range map[string]string{"Sums": "named", "Plain": "plain", "object": "object"} {
		t.Run("fetch of "+name, func(t *testing.T) {
			l := join(t, `export default { fetch: (r, env) => env.B.fetch(r.url) }`, callee, name)
			if got := l.call().body.String(); got != want {
				t.Errorf("%q", got)
			}
		})
	}
	t.Run("methods", func(t *testing.T) {
		l := join(t, scriptPrelude+`export default { async fetch(r, { B }) {
			eq(await B.add(2, 3), 5, "add");
			eq(await B.add("a", "b"), "ab", "strings");
			eq(await B.later({ a: [1, { b: null }] }), { a: [1, { b: null }] }, "nested");
			eq(await B.echo(), [], "no arguments");
			eq(await B.env(), ["object", "function"], "env and ctx");
			const e = await rejects(B.fails(), RangeError, "an exception");
			eq(e.message, "too far", "its message");
			try { await B.odd(); fail("odd"); } catch (e) { eq(e, { code: 7, list: [1] }, "thrown value"); }
			await rejects(B.bad(), "DataCloneError".constructor === String ? Error : Error, "a result that cannot be sent");
			for (const name of ["own", "getter", "toString", "hasOwnProperty", "missing", "scheduled", "__proto__x"]) {
				const e = await rejects(B[name](1), TypeError, name);
				ok(e && e.message.includes("no method"), name + ": " + e);
			}
			for (const bad of [Symbol("x"), new Response(""), Promise.resolve(1), new WeakMap(), B, [,,].concat(new Array(5000)), 10n ** 10001n]) {
				await rejects(B.echo(bad), "DataCloneError", "cannot be sent: " + typeof bad);
			}
			eq((await rejects(B.echo(() => 1), Error, "a function as a result")).name, "DataCloneError", "its name");
			return new Response(failures.join("\n"));
		} }`, callee, "Sums")
		if got := l.call().body.String(); got != "" {
			t.Error(got)
		}
	})
	t.Run("no entrypoint", func(t *testing.T) {
		for _, name := range []string{"Plain", "object", "", "Nothing"} {
			l := join(t, `export default { fetch: (r, env) => env.B.hidden().then(() => new Response("called"), (e) => new Response(e.message)) }`, callee, name)
			if got := l.call().body.String(); !strings.Contains(got, "WorkerEntrypoint") && !strings.Contains(got, "no entrypoint") {
				t.Errorf("%q: %q", name, got)
			}
			if l.last.outcome != gen.Outcome_exception {
				t.Errorf("%q: outcome %v", name, l.last.outcome)
			}
		}
	})
}

// Values arrive as structuredClone would give them, whatever the caller did to the prototypes.
func TestServiceValues(t *testing.T) {
	callee := entrypoints + `export default class extends WorkerEntrypoint { async echo(v) { return v; } }`
	for i, patched := range []string{"", `
		const trap = () => { throw new Error("patched"); };
		Array.prototype.toJSON = trap; Object.prototype.toJSON = trap; Map.prototype.set = trap; Set.prototype.add = trap;
		Array.prototype[Symbol.iterator] = trap; Object.defineProperty(Map.prototype, "size", { get: trap });
		Date.prototype.getTime = trap; JSON.parse = trap; JSON.stringify = trap; Array.prototype.push = trap;`} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			l := join(t, patched+`
			export default { async fetch(r, { B }) {
				const bytes = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
				const cyclic = { name: "c" }; cyclic.self = cyclic; cyclic.list = new Array(2); cyclic.list[1] = cyclic;
				const sparse = new Array(3); sparse[1] = "x";
				const v = {
					u: undefined, n: null, t: true, i: 1.5, nan: NaN, inf: -Infinity, zero: -0, big: -123456789012345678901234567890n,
					s: "\u0000\ud800 \u{1f600}", d: new Date(5), bad: new Date(NaN), re: /a+/gi, e: new TypeError("m", { cause: { c: 1 } }),
					buf: bytes.buffer, view: bytes.subarray(2, 4), dv: new DataView(bytes.buffer, 1, 2), f64: new Float64Array(2).fill(0.5),
					boxed: Object("s"), cyclic, sparse, ["__proto__"]: 1, proto: Object.create({ inherited: 1 }),
				};
				const out = await B.echo(v);
				const c = out.cyclic;
				const got = "" + [
					"u" in out && out.u === undefined, out.n === null, out.t, out.i, out.nan, out.inf, Object.is(out.zero, -0), out.big,
					out.s === v.s, out.d instanceof Date && +out.d, isNaN(out.bad), out.re.source + out.re.flags,
					out.e instanceof TypeError && out.e.message + out.e.cause.c, out.buf instanceof ArrayBuffer && out.buf.byteLength,
					out.view instanceof Uint8Array && out.view.join("-"), out.view.buffer === out.buf, out.dv.getUint8(1), out.f64.join("-"),
					typeof out.boxed + out.boxed, c.self === c && c.list[1] === c && !(0 in c.list), out.sparse.length + out.sparse[1] + (0 in out.sparse),
					Object.getPrototypeOf(out) === Object.prototype && Object.hasOwn(out, "__proto__"), "inherited" in out.proto,
				];
				return new Response(got);
			} }`, callee, "")
			want := "true,true,true,1.5,NaN,-Infinity,true,-123456789012345678901234567890,true,5,true,a+gi,m1,8,3-4,true,3,0.5-0.5,objects,true,3xfalse,true,false"
			if got := l.call().body.String(); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
	t.Run("maps", func(t *testing.T) {
		l := join(t, `export default { async fetch(r, { B }) {
			const key = {}; const m = new Map([[key, new Set([1, key])], ["k", new Map()]]);
			const out = await B.echo([m, key]);
			const [k] = out[0].keys();
			return Response.json([out[0] instanceof Map, out[0].size, k === out[1], out[0].get(k) instanceof Set, out[0].get(k).has(k), out[0].get("k").size]);
		} }`, callee, "")
		if got := l.call().body.String(); got != `[true,2,true,true,true,0]` {
			t.Error(got)
		}
	})
	t.Run("deep", func(t *testing.T) {
		l := join(t, `export default { async fetch(r, { B }) {
			let v = null; for (let i = 0; i < 2000; i++) v = { v };
			let n = 0; for (let o = await B.echo(v); o !== null; o = o.v) n++;
			return new Response(String(n));
		} }`, callee, "")
		if got := l.call().body.String(); got != "2000" {
			t.Error(got)
		}
	})
}
