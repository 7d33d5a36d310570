package e2e

import (
	"fmt"
	"strings"
	"testing"

	"bulkhead/securitytests/hosttest"
)

const streamCallee = `import { WorkerEntrypoint } from "cloudflare:workers";
let pulled = 0, cancelled = "no";
export default class extends WorkerEntrypoint {
	async count(stream, label) { let n = 0, sum = 0; for await (const c of stream) { n += c.length; for (let i = 0; i < c.length; i += 997) sum += c[i]; } return { label, n, sum }; }
	upper(stream) { return { kind: "upper", body: stream.pipeThrough(new TextDecoderStream()).pipeThrough(new TransformStream({ transform(s, c) { c.enqueue(s.toUpperCase()); } })).pipeThrough(new TextEncoderStream()) }; }
	endless() { pulled = 0; return new ReadableStream({ pull(c) { pulled += 65536; c.enqueue(new Uint8Array(65536)); }, cancel(r) { cancelled = "yes"; } }, { highWaterMark: 0 }); }
	state() { return { pulled, cancelled }; }
	ignore(stream) { return "ignored"; }
	breaks() { let n = 0; return new ReadableStream({ pull(c) { if (n++ < 3) c.enqueue(new Uint8Array(10)); else throw new Error("broke off"); } }); }
	strings() { return new ReadableStream({ pull(c) { c.enqueue("text"); } }); }
	two() { return [new Blob(["a"]).stream(), new Blob(["b"]).stream()]; }
	locked() { const s = new Blob(["a"]).stream(); s.getReader(); return s; }
	fn() { return () => 1; }
	throwsStream() { throw new Blob(["a"]).stream(); }
	late(stream) { this.ctx.waitUntil((async () => { try { for await (const c of stream); console.log("late: whole"); } catch (e) { console.log("late: " + e.name); } })()); return "early"; }
}
`

const streamCaller = `
const bytes = (n) => { let at = 0; return new ReadableStream({ pull(c) { const k = Math.min(50000, n - at); c.enqueue(new Uint8Array(k).fill(7)); at += k; if (at >= n) c.close(); } }, { highWaterMark: 0 }); };
const read = async (s) => { let n = 0; for await (const c of s) n += c.length; return n; };
const cases = {
	async argument(B) { const r = await B.count(bytes(5000000), "l"); return [r.label, r.n, r.sum > 0]; },
	async small(B) { return (await B.count(new Blob(["abc"]).stream(), "s")).n; },
	async empty(B) { return (await B.count(new Blob([]).stream(), "s")).n; },
	async bothWays(B) { const r = await B.upper(new Blob(["hello"]).stream()); return [r.kind, await new Response(r.body).text()]; },
	async withBuffers(B) { return (await B.count(bytes(300000), new Uint8Array(70000))).label.length; },
	async backPressure(B) {
		const reader = (await B.endless()).getReader();
		let n = 0;
		while (n < 1 << 20) n += (await reader.read()).value.length;
		await new Promise((r) => setTimeout(r, 300));
		await reader.cancel();
		let s;
		for (let i = 0; i < 40; i++) { s = await B.state(); if (s.cancelled === "yes") break; await new Promise((r) => setTimeout(r, 250)); }
		return [s.pulled >= 1 << 20, s.pulled < 4 << 20, s.cancelled];
	},
	async passedOn(B) { return await read(new Response(await B.endless()).body.pipeThrough(new TransformStream({ n: 0, transform(c, t) { this.n += c.length; t.enqueue(c); if (this.n > 500000) t.terminate(); } }))) > 500000; },
	async ignored(B) { return B.ignore(bytes(5000000)); },
	async breaks(B) { try { return await read(await B.breaks()); } catch (e) { return e.name; } },
	async argumentBreaks(B) { try { return await B.count(new ReadableStream({ pull(c) { throw new Error("mine"); } }), ""); } catch (e) { return e.name; } },
	async strings(B) { try { return await read(await B.strings()); } catch (e) { return e.name; } },
	async two(B) { try { await B.two(); } catch (e) { return e.message; } },
	async locked(B) { try { await B.locked(); } catch (e) { return e.message; } },
	async used(B) { const s = new Blob(["a"]).stream(); await read(s); try { await B.count(s, ""); } catch (e) { return e.message; } },
	async taken(B) { const s = new Blob(["a"]).stream(); const p = B.count(s, ""); const locked = s.locked; return [locked, (await p).n]; },
	async fn(B) { try { await B.fn(); } catch (e) { return e.message; } },
	async fnArgument(B) { try { await B.count(() => 1); } catch (e) { return e.message; } },
	async thrown(B) { try { await B.throwsStream(); } catch (e) { return e instanceof Error; } },
	async same(B) { const s = new Blob(["abc"]).stream(); return (await B.count(s, "x")).n; },
	async late(B) { return B.late(bytes(3000000)); },
};
export default { async fetch(r, env) {
	const name = new URL(r.url).pathname.slice(1);
	if (name === "client") return new Response((await env.B.upper(r.body)).body);
	return Response.json(await cases[name](env.B));
} };`

// A stream in an argument or a result is read as it comes, within the windows of both workers.
func TestServiceStreams(t *testing.T) {
	for _, rootless := range []bool{false, true} {
		t.Run(fmt.Sprintf("rootless=%v", rootless), func(t *testing.T) {
			h := hosttest.Start(t, hosttest.Options{Quiet: true, Rootless: rootless, Tenants: map[string]hosttest.Files{
				"callee": open(streamCallee), "caller": boundTo("callee", "", streamCaller),
			}})
			for path, want := range map[string]string{
				"argument": `["l",5000000,true]`, "small": `3`, "empty": `0`, "bothWays": `["upper","HELLO"]`, "withBuffers": `70000`,
				"backPressure": `[true,true,"yes"]`, "passedOn": `true`, "ignored": `"ignored"`, "breaks": `"TypeError"`, "argumentBreaks": `"TypeError"`,
				"strings": `"TypeError"`, "two": "A second ReadableStream cannot be sent", "locked": "A ReadableStream that was read from or is locked",
				"used": "A ReadableStream that was read from or is locked", "taken": `[true,1]`, "fn": "Make it a method of an exported WorkerEntrypoint",
				"fnArgument": "not async iterable", "thrown": "true", "same": "3", "late": `"early"`,
			} {
				if a := h.Get("caller", "/"+path); a.Status != 200 || !strings.Contains(a.Body, want) {
					t.Errorf("%s: %d %s, want %s", path, a.Status, a.Body, want)
				}
			}
			if s := together(t, h, "caller", "callee"); len(s) > 0 {
				t.Errorf("they share shards %v", s)
			}
			if in := h.Incidents(); len(in) > 0 {
				t.Errorf("incidents: %+v", in)
			}
		})
	}
}
