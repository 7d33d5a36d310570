// Package needed shows that no row of the worker's filter is there for nothing: a real worker of a real
// host is watched from its seal on under a workload that uses what workers are for, and every row that no
// call took must say why it stands all the same.
package needed

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead/policy/seccomp"
	"bulkhead/securitytests/hosttest"
)

// unseen are the rows that the workload does not bring about, or that only the tracer does, and why they
// stay.
var unseen = map[string]string{
	"restart_syscall": "only after a freeze: the cgroup freezer, a suspend, a debugger; a machine that wakes up must not find its workers dead",
}

// everything is a tenant that does a bit of all a worker can do.
const everything = `
let kept = [];
export default { async fetch(request, env, ctx) {
	const u = new URL(request.url);
	switch (u.pathname) {
	case "/random": return new Response(crypto.getRandomValues(new Uint8Array(32)).join());
	case "/digest": return new Response(new Uint8Array(await crypto.subtle.digest("SHA-256", new Uint8Array(1 << 20))).join());
	case "/sleep": await new Promise(r => setTimeout(r, 20)); return new Response("slept");
	case "/log": for (let i = 0; i < 50; i++) console.log("line", i, { a: [1, 2, 3] }); return new Response("logged");
	case "/echo": return new Response(request.body);
	case "/grow": { let a = []; for (let i = 0; i < 40; i++) a.push(new ArrayBuffer(1 << 20)); return new Response("" + a.length); }
	case "/heap": { let a = []; for (let i = 0; i < 200000; i++) a.push({ i, s: "x" + i }); kept = i => a; return new Response("" + a.length); }
	case "/drop": kept = []; return new Response("dropped");
	case "/spin": for (;;);
	case "/abort": new Array(1e8).fill(0); return new Response("survived");
	case "/throw": throw new Error("thrown");
	case "/after": ctx.waitUntil(new Promise(r => setTimeout(r, 10))); return new Response("later");
	case "/compute": { let f = 0; for (let i = 0; i < 3e6; i++) f = (f * 31 + i) | 0; return new Response("" + f); }
	case "/regexp": return new Response("" + /(a+)+b/.test("a".repeat(22)));
	case "/wasm": {
		const m = new WebAssembly.Module(new Uint8Array([0,97,115,109,1,0,0,0,1,5,1,96,0,1,127,3,2,1,0,7,5,1,1,102,0,0,10,6,1,4,0,65,42,11]));
		return new Response("" + new WebAssembly.Instance(m).exports.f());
	}
	}
	return new Response("hello");
} };`

func TestNoRowIsUnneeded(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: a worker is not dumpable, so its own user may not trace it")
	}
	taken := map[string]int{}
	for _, p := range seccomp.Profiles() {
		for row, n := range watch(t, p) {
			taken[row] += n
		}
	}
	rows := map[string]bool{}
	for _, p := range seccomp.Profiles() {
		for _, r := range seccomp.Worker(p) {
			rows[r.String()] = true
			if r.Action == seccomp.Allow && taken[r.String()] == 0 && ends[r.String()] == "" && unseen[r.String()] == "" {
				t.Errorf("%v: no call took row %q (%s)", p, r, r.Why)
			}
		}
	}
	for row, why := range unseen {
		if !rows[row] {
			t.Errorf("%q is no row any more: take it off the list of the unseen (%s)", row, why)
		}
	}
}

// policyOf gives a traced worker, which is slow, time.
func policyOf(p seccomp.Profile) string {
	return fmt.Sprintf("profile: %v\nlimits: {cpu: 5s, wasm: %v}\n", p, p == seccomp.JITWasm)
}

// watch counts the calls that took each row of a profile.
func watch(t *testing.T, p seccomp.Profile) map[string]int {
	tenants := map[string]hosttest.Files{}
	for i := range 6 {
		tenants[fmt.Sprintf("t%d", i)] = hosttest.Worker(everything)
	}
	tr := newTracer(t)
	h := hosttest.Start(t, hosttest.Options{Tenants: tenants, Policy: policyOf(p), Quiet: true})
	hosttest.Eventually(t, 20*time.Second, "sealed shards", func() bool { return len(h.Shards()) >= 2 })
	traced := map[int]bool{}
	follow := func() {
		for _, s := range h.Shards() {
			if s.Sealed && !traced[s.PID] {
				traced[s.PID] = true
				tr.attach <- s.PID
			}
		}
	}
	follow()
	paths := strings.Fields("/ /random /digest /sleep /log /echo /grow /heap /drop /throw /after /compute /regexp /wasm")
	for round := range 3 {
		var all sync.WaitGroup
		for tenant := range tenants {
			for _, path := range paths {
				all.Add(1)
				go func() {
					defer all.Done()
					method, body := "GET", ""
					if path == "/echo" {
						method, body = "POST", strings.Repeat("x", 300<<10)
					}
					if _, err := h.Do(method, tenant, path, strings.NewReader(body)); err != nil {
						t.Log(err)
					}
				}()
			}
		}
		all.Wait()
		if round == 0 {
			h.Get("t0", "/spin") // a termination
		}
		follow()
		time.Sleep(300 * time.Millisecond) // idle threads, the collectors
	}
	if _, err := h.Do("GET", "t5", "/abort", nil); err != nil {
		t.Log(err)
	}
	time.Sleep(200 * time.Millisecond)
	calls, err := tr.calls()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	rules := seccomp.Worker(p)
	for c, n := range calls {
		name := seccomp.CallName(int64(c.nr))
		if _, _, row := seccomp.Decide(rules, name, c.args[:]); row >= 0 {
			out[rules[row].String()] += n
		} else {
			t.Errorf("%v: %s(%#x) was made and stands on no row", p, name, c.args)
		}
	}
	t.Logf("%v: %d different calls of %d processes", p, len(calls), len(traced))
	return out
}
