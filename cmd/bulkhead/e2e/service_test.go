package e2e

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead/securitytests/hosttest"
)

// boundTo is a worker's folder with a binding B to another's.
func boundTo(service, entrypoint, code string) hosttest.Files {
	return hosttest.Files{
		"wrangler.jsonc": fmt.Sprintf(`{"main": "worker.js", "services": [{"binding": "B", "service": %q, "entrypoint": %q}]}`, service, entrypoint),
		"worker.js":      code,
	}
}

// open lets everybody call the worker.
func open(code string) hosttest.Files {
	return hosttest.Files{"bulkhead.yaml": "main: worker.js\ncallers: ['*']\n", "worker.js": code}
}

// together lists the shards that host both of two tenants now.
func together(t *testing.T, h *hosttest.Host, a, b string) (shards []uint32) {
	t.Helper()
	for _, s := range h.Shards() {
		if slices.Contains(s.Tenants, a) && slices.Contains(s.Tenants, b) {
			shards = append(shards, s.ID)
		}
	}
	return shards
}

const entrypointCode = `import { WorkerEntrypoint } from "cloudflare:workers";
export default class extends WorkerEntrypoint {
	async fetch(request) { return new Response(request.method + " " + request.url + " " + await request.text(), { status: 202, headers: { "x-a": "b" } }); }
}
export class Math2 extends WorkerEntrypoint {
	add(a, b) { return a + b; }
	async sum(bytes) { let n = 0; for (const b of bytes) n += b; return { n, copy: bytes }; }
	fails() { throw new RangeError("too far"); }
	burns() { for (;;); }
	crashes() { return "x".repeat(2 ** 28).split("").length; }
}
`

func TestServiceBindings(t *testing.T) {
	h := hosttest.Start(t, hosttest.Options{Tenants: map[string]hosttest.Files{
		"callee": {"bulkhead.yaml": "main: worker.js\ncallers: [fetcher, caller, stranger-not]\n", "worker.js": entrypointCode},
		"fetcher": boundTo("callee", "", `export default { async fetch(r, env) {
			const u = new URL(r.url);
			if (u.pathname === "/pass") return env.B.fetch(new Request("http://inside/x?y", r));
			const a = await env.B.fetch("http://inside/x?y", { method: "POST", body: "hi" });
			return Response.json([a.status, a.headers.get("x-a"), await a.text()]);
		} };`),
		"caller": boundTo("callee", "Math2", `export default { async fetch(r, env) {
			const u = new URL(r.url), n = +u.searchParams.get("n");
			try {
				switch (u.pathname) {
				case "/add": return Response.json(await env.B.add(2, 3));
				case "/sum": { const r = await env.B.sum(new Uint8Array(n).fill(1)); return Response.json([r.n, r.copy instanceof Uint8Array, r.copy.length]); }
				case "/large": return Response.json(await env.B.add("x".repeat(n), ""));
				default: return Response.json(await env.B[u.pathname.slice(1)]());
				}
			} catch (e) { return new Response(e.name + ": " + e.message, { status: 418 }); }
		} };`),
		"stranger": boundTo("callee", "Math2", `export default { async fetch(r, env) { try { return Response.json(await env.B.add(1, 1)); } catch (e) { return new Response(e.message, { status: 418 }); } } };`),
		"nobody":   boundTo("nowhere", "", `export default { async fetch(r, env) { try { return await env.B.fetch("http://x/"); } catch (e) { return new Response(e.message, { status: 418 }); } } };`),
		"ping":     {"bulkhead.yaml": "main: worker.js\ncallers: ['*']\nservices: [{binding: B, service: pong}]\n", "worker.js": `export default { async fetch(r, env) { const d = +new URL(r.url).searchParams.get("d"); console.log("depth", d); return env.B.fetch("http://x/?d=" + (d + 1)); } };`},
		"pong":     {"bulkhead.yaml": "main: worker.js\ncallers: ['*']\nservices: [{binding: B, service: ping}]\n", "worker.js": `export default { async fetch(r, env) { const d = +new URL(r.url).searchParams.get("d"); console.log("depth", d); return env.B.fetch("http://x/?d=" + (d + 1)); } };`},
		"self": {"wrangler.toml": "main = \"worker.js\"\n[[services]]\nbinding = \"ME\"\nservice = \"self\"\n",
			"worker.js": `export default { async fetch(r, env) { if (r.url.endsWith("/in")) return new Response("inner"); return new Response("outer " + await (await env.ME.fetch("http://x/in")).text()); } };`},
	}})
	for _, c := range []struct {
		tenant, path string
		status       int
		body         string
	}{
		{"fetcher", "/", 200, `[202,"b","POST http://inside/x?y hi"]`},
		{"fetcher", "/pass", 202, "GET http://inside/x?y "},
		{"caller", "/add", 200, "5"},
		{"caller", "/sum?n=10", 200, "[10,true,10]"},
		{"caller", "/sum?n=900000", 200, "[900000,true,900000]"},
		{"caller", "/fails", 418, "RangeError: too far"},
		{"caller", "/burns", 418, "TypeError: fetch failed: service callee: exceededCpu: exceeded its CPU limit"},
		{"caller", "/missing", 418, `has no method "missing"`},
		{"caller", "/large?n=3000000", 418, "DataCloneError"},
		{"stranger", "/", 418, "no worker of this name lets stranger call it: its bulkhead.yaml must name it under callers"},
		{"nobody", "/", 418, "no worker of this name lets nobody call it"},
		{"self", "/", 200, "outer inner"},
	} {
		t.Run(c.tenant+c.path, func(t *testing.T) {
			if a := h.Get(c.tenant, c.path); a.Status != c.status || !strings.Contains(a.Body, c.body) {
				t.Errorf("got %d %q, want %d with %q", a.Status, a.Body, c.status, c.body)
			}
		})
	}
	t.Run("a loop ends at the depth limit", func(t *testing.T) {
		a := h.Get("ping", "/?d=1")
		if a.Status != 500 || a.Outcome != "exception" {
			t.Errorf("got %d %s %s", a.Status, a.Outcome, a.Body)
		}
		var list []struct {
			Tenant   string         `json:"tenant"`
			Outcomes map[string]int `json:"outcomes"`
		}
		if err := h.AdminGet("/v1/tenants", &list); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, e := range list {
			if e.Tenant == "ping" || e.Tenant == "pong" {
				n += e.Outcomes["exception"]
			}
		}
		if n != 8 { // callDepth of the standard preset
			t.Errorf("%d invocations ended with an exception, want 8", n)
		}
	})
	for _, p := range [][2]string{{"caller", "callee"}, {"fetcher", "callee"}, {"ping", "pong"}} {
		if s := together(t, h, p[0], p[1]); len(s) > 0 {
			t.Errorf("%s and %s share shards %v", p[0], p[1], s)
		}
	}
	t.Run("the callee's death is its own", func(t *testing.T) {
		a := h.Get("caller", "/crashes")
		if a.Status != 418 || !strings.Contains(a.Body, "service callee: crashed") && !strings.Contains(a.Body, "service callee: exceeded") {
			t.Errorf("got %d %s", a.Status, a.Body)
		}
		if a := h.Get("caller", "/add"); a.Body != "5" {
			t.Errorf("afterwards: %d %s", a.Status, a.Body)
		}
	})
}

// Tenants that start each other, by binding or by a public host name of this very host, in any order and
// with whatever else comes and goes beside them, never share a process.
func TestCallerAndCalleeNeverMeet(t *testing.T) {
	const pairs, others, rounds = 8, 40, 12
	tenants := map[string]hosttest.Files{}
	for i := range pairs {
		tenants[fmt.Sprintf("callee%d", i)] = open(`export default { fetch: () => new Response("here") };`)
		tenants[fmt.Sprintf("caller%d", i)] = boundTo(fmt.Sprintf("callee%d", i), "", `export default { fetch: (r, env) => env.B.fetch(r.url) };`)
		tenants[fmt.Sprintf("guest%d", i)] = hosttest.Worker(`export default { async fetch(r) { const u = new URL(r.url).searchParams.get("u"); try { return await fetch(u); } catch (e) { return new Response(e.message, { status: 418 }); } } };`)
	}
	for i := range others {
		tenants[fmt.Sprintf("other%d", i)] = hosttest.Worker(`export default { fetch: () => new Response("other") };`)
	}
	h := hosttest.Start(t, hosttest.Options{Tenants: tenants, Policy: "egress: {allow: ['*.localhost', 127.0.0.0/8]}\n"})
	port := h.Addr[strings.LastIndex(h.Addr, ":"):]
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() { // whoever is idle may be evicted at any time
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			h.AdminPost(fmt.Sprintf("/v1/evict/%s%d", []string{"callee", "caller", "guest"}[i%3], i/3%pairs))
			time.Sleep(2 * time.Millisecond)
		}
	})
	bad := 0
	for round := range rounds {
		var calls sync.WaitGroup
		for i := range pairs {
			calls.Go(func() {
				if a := h.Get(fmt.Sprintf("caller%d", i), "/"); a.Status != 200 || a.Body != "here" {
					t.Errorf("call: %d %s", a.Status, a.Body)
				}
			})
			calls.Go(func() {
				// Names below localhost do not resolve in the gateway's room. It is enough to have asked for
				// one: what the request starts is started here by a client.
				callee := fmt.Sprintf("callee%d", (i+round)%pairs)
				if a := h.Get(fmt.Sprintf("guest%d", i), "/?u="+url.QueryEscape("http://"+callee+".localhost"+port+"/")); a.Status != 200 && a.Status != 418 {
					t.Errorf("by its public name: %d %s", a.Status, a.Body)
				}
				if a := h.Get(callee, "/"); a.Body != "here" {
					t.Errorf("callee: %d %s", a.Status, a.Body)
				}
			})
			calls.Go(func() { h.Get(fmt.Sprintf("other%d", (i*7+round)%others), "/") })
		}
		calls.Wait()
		// together counts those who share a process: callers with their callees, and guests with whom they
		// have reached by name. Those of the second kind may have shared it before, and are listed until
		// what the one that leaves has left is wiped.
		together := func() (bound, named int) {
			for _, s := range h.Shards() {
				for _, a := range s.Tenants {
					for _, b := range s.Tenants {
						var i, j int
						if n, _ := fmt.Sscanf(a, "caller%d", &i); n == 1 && b == fmt.Sprintf("callee%d", i) {
							bound++
						}
						if n, _ := fmt.Sscanf(a, "guest%d", &i); n == 1 {
							if n, _ := fmt.Sscanf(b, "callee%d", &j); n == 1 && (j-i+pairs)%pairs <= round {
								named++
							}
						}
					}
				}
			}
			return bound, named
		}
		bound, named := together()
		for end := time.Now().Add(20 * time.Second); named > 0 && time.Now().Before(end); {
			time.Sleep(5 * time.Millisecond)
			var more int
			more, named = together()
			bound += more
		}
		bad += bound + named
	}
	close(stop)
	wg.Wait()
	if bad > 0 {
		t.Errorf("%d times somebody shared a process with whom it had started", bad)
	}
	t.Logf("%d calls by binding, %d by public name", pairs*rounds, pairs*rounds)
	if in := h.Incidents(); len(in) > 0 {
		t.Errorf("incidents: %+v", in)
	}
}

// Who may call whom, and how deep, is the policy's word of now, not of the start.
func TestCallsFollowTheReloadedPolicy(t *testing.T) {
	const allowed = "calls: [{from: [front], to: [back]}]\n"
	h := hosttest.Start(t, hosttest.Options{Quiet: true, Policy: "calls: []\n", Tenants: map[string]hosttest.Files{
		"front": {"bulkhead.yaml": "main: worker.js\nservices: [{binding: BACK, service: back}]\n",
			"worker.js": `export default { async fetch(r, env) { try { return await env.BACK.fetch(r); } catch (e) { return new Response(String(e), { status: 418 }); } } };`},
		"back": hosttest.Worker(`export default { fetch: () => new Response("called") };`),
	}})
	path := filepath.Join(filepath.Dir(h.Data), "config", "policy.yaml")
	for _, step := range []struct {
		policy string
		status int
		body   string
	}{
		{"", 418, "no worker of this name lets front call it"},
		{allowed, 200, "called"},
		{allowed + "callDepth: 1\n", 418, "calls are nested too deeply"},
		{"calls: []\n", 418, "no worker of this name lets front call it"},
	} {
		if step.policy != "" {
			if err := os.WriteFile(path, []byte(step.policy), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := h.AdminPost("/v1/policy/reload"); err != nil {
				t.Fatal(err)
			}
		}
		var a hosttest.Answer
		hosttest.Eventually(t, 30*time.Second, "front is built", func() bool { a = h.Get("front", "/"); return a.Outcome != "notLoaded" })
		if a.Status != step.status || !strings.Contains(a.Body, step.body) {
			t.Errorf("under %q: %d %s", step.policy, a.Status, a.Body)
		}
	}
}
