package e2e

import (
	"fmt"
	"strings"
	"testing"

	"bulkhead/securitytests/hosttest"
)

const functionCallee = `import { WorkerEntrypoint } from "cloudflare:workers";
let kept;
const outcome = async (f) => { try { return await f(); } catch (e) { return e.name + ": " + e.message; } };
export default class extends WorkerEntrypoint {
	apply(f, ...args) { return f(...args); }
	async twice(f) { return [await f(1), await f(2)]; }
	kinds(o) { return [typeof o, typeof o.f, o.f === o.list[0], o.map.get("f") === o.f, o.f.length >= 0]; }
	keep(f) { kept = f; return "kept"; }
	useKept() { return outcome(() => kept("late")); }
	last() { return kept?.result; }
	late(f) {
		this.ctx.waitUntil((async () => { await new Promise((r) => setTimeout(r, 200)); kept = { result: await outcome(() => f("late")) }; })());
		return "early";
	}
	notAwaited(f) { f("forgotten").catch(() => {}); return "at once"; }
	many(f, n) { return Promise.all(Array.from({ length: n }, (_, i) => f(i))).then((l) => l.reduce((a, b) => a + b, 0)); }
	async flood(f) { let n = 0; try { for (;;) { await f(0); n++; } } catch (e) { return [n, e.message]; } }
	back(f) { return f((y) => "callee's " + y); }
	give() { return () => 1; }
	props() { return this.ctx.props; }
	async pass(f) { return "passed " + await this.env.C.apply((x) => f("by the middle " + x)); }
	async stream(f) { const r = await f(new Blob(["abc"]).stream()); return r.n; }
	async take(f) { let s = ""; for await (const c of (await f()).pipeThrough(new TextDecoderStream())) s += c; return s; }
	fails(f) { return outcome(f); }
	async meet(f) { const a = f(), b = f(); return [await a, await b]; }
}
`

const functionCaller = `
let calls = 0;
const work = (n) => { let x = 0; for (let i = 0; i < n; i++) x = (x * 31 + i) | 0; return x; };
const outcome = async (f) => { try { return await f(); } catch (e) { return e.name + ": " + e.message; } };
const cases = {
	async apply(B) { return B.apply((a, b) => a + b, 2, 3); },
	async applyAsync(B) { return B.apply(async (a) => { await new Promise((r) => setTimeout(r, 5)); return { a, at: new Date(0) }; }, [1]); },
	async closure(B) { let n = 0; const r = await B.twice((k) => { n += k; return n; }); return [r, n]; },
	async kinds(B) { const f = () => 1; return B.kinds({ f, list: [f], map: new Map([["f", f]]) }); },
	async keep(B) { return [await B.keep((x) => x), await B.useKept()]; },
	async late(B) {
		const early = await B.late((x) => { calls++; return x; });
		let last;
		for (let i = 0; i < 100 && last === undefined; i++) { await new Promise((r) => setTimeout(r, 100)); last = await B.last(); }
		return [early, calls, last];
	},
	async notAwaited(B) { return B.notAwaited(() => new Promise(() => {})); },
	async many(B) { let open = 0, most = 0; const sum = await B.many(async (i) => { most = Math.max(most, ++open); await new Promise((r) => setTimeout(r, 1)); open--; return i; }, 40); return [sum, open]; },
	async flood(B) { return B.flood(() => 0); },
	async back(B) { return B.back((g) => g("function, by the caller")); },
	async props(B, env) { return [await B.props(), await env.P.props(), await (await env.D.fetch("http://x/")).text()]; },
	async give(B) { return outcome(() => B.give()); },
	async giveBack(B) { return outcome(() => B.apply(() => () => 1)); },
	async pass(B) { return B.pass((x) => "the caller " + x); },
	async stream(B) { return B.stream(async (s) => { let n = 0; for await (const c of s) n += c.length; return { n }; }); },
	async take(B) { return B.take(() => new Blob(["of the caller"]).stream()); },
	async throws(B) { return B.fails(() => { throw new RangeError("mine"); }); },
	async rejects(B) { return B.fails(async () => { throw { code: 7 }; }).then((r) => typeof r); },
	async notSendable(B) { return B.fails(() => Symbol("s")); },
	async tooMany(B) { return outcome(() => B.apply(...Array.from({ length: 65 }, () => () => 1))); },
	async sixtyFour(B) { return B.apply(...Array.from({ length: 64 }, () => () => 1)); },
	async depth(B) { const again = (n) => B.apply((m) => m < 20 ? again(m + 1) : m, n); return outcome(() => again(0)); },
	async meets(B) { let release; const gate = new Promise((r) => { release = r; }); let n = 0; return B.meet(async () => { if (++n === 2) release(n); return gate; }); },
	async fetches(B, env) { return B.apply(async () => (await env.D.fetch("http://x/")).text()); },
	async proxy(B) { return B.apply(new Proxy(() => 1, { apply: (t, self, args) => [self === undefined, args], get() { throw new Error("read"); } }), 9); },
	async clazz(B) { return outcome(() => B.apply(class {})); },
	async prototype(B) { Function.prototype.call = Function.prototype.apply = () => "patched"; Array.prototype.push = () => { throw new Error("patched"); };
		try { return await B.apply((x) => x, "as it was"); } finally { delete Function.prototype.call; } },
	async getter(B) { let inner; const r = await B.apply((o) => o.v, { get v() { inner = B.apply((x) => x, "inner"); return "outer"; } }); return [r, await inner]; },
	async toJSON(B) { const f = (x) => x; f.toJSON = () => "json"; f.then = () => { throw new Error("then"); }; return B.apply(f, "plain"); },
	async cpu(B) { return B.many(() => work(2e7), 60); },
	async burns(B) { return B.apply(() => { for (;;); }); },
};
export default { async fetch(r, env) { return Response.json(await cases[new URL(r.url).pathname.slice(1)](env.B, env)); } };`

// A function in the arguments of a call is run where it is, for as long as the call lasts, on its own worker's
// account.
func TestServiceFunctions(t *testing.T) {
	for _, rootless := range []bool{false, true} {
		t.Run(fmt.Sprintf("rootless=%v", rootless), func(t *testing.T) {
			callee := open(functionCallee)
			callee["bulkhead.yaml"] += "services: [{binding: C, service: third}]\n"
			caller := hosttest.Files{"worker.js": functionCaller,
				"wrangler.jsonc": `{"main": "worker.js", "services": [{"binding": "B", "service": "callee"}, {"binding": "D", "service": "plain", "props": {"d": 1}}, {"binding": "P", "service": "callee", "props": {"a": [1, {"b": "\n"}]}}]}`}
			h := hosttest.Start(t, hosttest.Options{Quiet: true, Rootless: rootless, Policy: "limits: {subrequests: 64, cpu: 200ms}\n", Tenants: map[string]hosttest.Files{
				"callee": callee, "caller": caller, "spender": caller,
				"third": open(functionCallee), "plain": open(`export default { fetch: (r, e, ctx) => new Response("plain " + ctx.props.d) };`),
			}})
			const over = "is over: "
			for _, c := range []struct{ path, want string }{
				{"apply", `5`}, {"applyAsync", `{"a":[1],"at":"1970-01-01T00:00:00.000Z"}`}, {"closure", `[[1,3],3]`},
				{"kinds", `["object","function",true,true,true]`}, {"keep", over}, {"late", `["early",0,"TypeError: `},
				{"notAwaited", `"at once"`}, {"many", `[780,0]`}, {"flood", `[64,"fetch failed: too many subrequests`},
				{"back", `"callee's function, by the caller"`}, {"props", `[{},{"a":[1,{"b":"\n"}]},"plain 1"]`}, {"give", "take a function as an argument"},
				{"giveBack", "take a function as an argument"}, {"pass", `"passed the caller by the middle `},
				{"stream", `3`}, {"take", `"of the caller"`}, {"throws", `"RangeError: mine"`}, {"rejects", `"string"`},
				{"notSendable", "DataCloneError"}, {"tooMany", "More than 64 functions"}, {"sixtyFour", `1`},
				{"depth", "calls are nested too deeply"}, {"meets", `[2,2]`}, {"fetches", `"plain 1"`},
				{"proxy", `[true,[9]]`}, {"clazz", "TypeError"}, {"getter", `["outer","inner"]`}, {"toJSON", `"plain"`},
				{"prototype", `"as it was"`}, // the last: its prototypes are broken from here on
			} {
				if a := h.Get("caller", "/"+c.path); a.Status != 200 || !strings.Contains(a.Body, c.want) {
					t.Errorf("%s: %d %s, want %s", c.path, a.Status, a.Body, c.want)
				}
			}
			// CPU of the functions is the caller's, whoever calls them and however often.
			for _, path := range []string{"/cpu", "/burns"} {
				if a := h.Get("spender", path); a.Status != 503 || a.Outcome != "exceededCpu" {
					t.Errorf("%s: %d %s %s", path, a.Status, a.Outcome, a.Body)
				}
			}
			for _, p := range [][2]string{{"caller", "callee"}, {"spender", "callee"}, {"callee", "third"}} {
				if s := together(t, h, p[0], p[1]); len(s) > 0 {
					t.Errorf("%s and %s share shards %v", p[0], p[1], s)
				}
			}
			if in := h.Incidents(); len(in) > 0 {
				t.Errorf("incidents: %+v", in)
			}
		})
	}
}
