package scheduler

import (
	"strings"
	"testing"
	"time"

	"bulkhead/ipc/gatewayside"
	"bulkhead/policy/limits"
	"bulkhead/schema/gen"
)

// open starts a request and leaves it running.
func (h *shard) open(tenant uint32, path string) *gatewayside.Stream {
	h.t.Helper()
	st, err := h.Open(h.t.Context(), request(tenant, path))
	if err != nil {
		h.t.Fatal(err)
	}
	return st
}

// V8 drops every pending microtask of an isolate when it stops a turn: requests that wait beside
// the stopped one would hang until their wall-clock limit. They end at once, by name.
func TestTerminationEndsTheOthersAtOnce(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`let started = 0;
	export default { async fetch(request) {
		switch (new URL(request.url).pathname) {
		case "/wait": await new Promise(r => setTimeout(r, 20_000)); break;
		case "/loop": await null; for (;;) {}
		case "/timer": setTimeout(() => { for (;;) {} }, 1); await new Promise(r => setTimeout(r, 20_000)); break;
		}
		return new Response(String(++started));
	} }`)
	for _, path := range []string{"/loop", "/timer"} {
		t.Run(path[1:], func(t *testing.T) {
			waiting := []*gatewayside.Stream{h.open(n, "/wait"), h.open(n, "/wait")}
			began := time.Now()
			h.wantOutcome(h.get(n, path), gen.Outcome_exceededCpu)
			for _, st := range waiting {
				a := h.finish(st)
				h.wantOutcome(a, gen.Outcome_killed)
				if !strings.Contains(a.result.Message, "another request") || !strings.Contains(a.result.Message, "CPU limit") {
					t.Errorf("message = %q", a.result.Message)
				}
			}
			if d := time.Since(began); d > 3*time.Second {
				t.Errorf("they ended after %v", d)
			}
			h.wantOK(h.get(n, "/"), "1") // a fresh isolate
		})
	}
}

// What a stopped turn held locked is not locked for ever.
func TestTerminationLeavesNoLockBehind(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`let lock = Promise.resolve();
	export default { async fetch(request) {
		let free; const before = lock; lock = new Promise(r => free = r);
		await before;
		try { if (request.url.endsWith("/loop")) for (;;) {} } finally { free(); }
		return new Response("fine");
	} }`)
	h.wantOK(h.get(n, "/"), "fine")
	h.wantOutcome(h.get(n, "/loop"), gen.Outcome_exceededCpu)
	h.wantOK(h.get(n, "/"), "fine")
}

// A request pays for its own timers and for nobody else's.
func TestTimersAreChargedToWhoSetThem(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`export default { async fetch(request) {
		const greedy = request.url.endsWith("/greedy");
		for (let k = 0; k < (greedy ? 1e9 : 60); k++) {
			if (greedy) for (let i = 0; i < 1e5; i++) Math.sqrt(i);
			await new Promise(r => setTimeout(r, greedy ? 1 : 5));
		}
		return new Response("fine");
	} }`)
	modest := []*gatewayside.Stream{h.open(n, "/"), h.open(n, "/"), h.open(n, "/")}
	h.wantOutcome(h.get(n, "/greedy"), gen.Outcome_exceededCpu)
	for _, st := range modest {
		a := h.finish(st)
		h.wantOK(a, "fine")
		if a.result.CPUMicros > 25_000 {
			t.Errorf("charged with %d us", a.result.CPUMicros)
		}
	}
}

// Operations take no time that the code could see: neither their order nor the number of timers
// that fire before their results tells how long anything took.
func TestOperationsAreNoClock(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`export default { async fetch() {
		const big = new Uint8Array(4 << 20), small = new Uint8Array(1), order = [];
		const digest = (name, data) => crypto.subtle.digest("SHA-1", data).then(() => order.push(name));
		setTimeout(() => order.push("timer"), 1);
		const first = digest("big", big), second = digest("small", small);
		await first;
		for (let i = 0; i < 3; i++) await digest("next", big);
		await second;
		await new Promise(r => setTimeout(r, 2));
		return new Response(order.join());
	} }`, roomy)
	for range 5 {
		h.wantOK(h.get(n, "/"), "big,small,next,next,next,timer")
	}
}

// Start-up code has no account once it has run: what it started goes on with the next request and
// is paid by it.
func TestNoWorkWithoutARequest(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`let rounds = 0;
	(async () => { const u = new Uint8Array(1 << 16); for (;;) { await crypto.subtle.digest("SHA-512", u); rounds++; } })();
	export default { fetch() { return new Response(String(rounds)); } }`)
	time.Sleep(100 * time.Millisecond)
	h.wantOK(h.get(n, "/"), "0")
}

// An operation that would take for ever stops at the limit of whoever it is for: the request's, or
// start-up's, once for all that start-up code asks for.
func TestOperationsAreStopped(t *testing.T) {
	h := startShard(t, Options{})
	const endless = `const derive = async () => crypto.subtle.deriveBits({ name: "PBKDF2", hash: "SHA-512", salt: new Uint8Array(8), iterations: 2 ** 31 - 1 }, await crypto.subtle.importKey("raw", new Uint8Array(8), "PBKDF2", false, ["deriveBits"]), 512);`
	n := h.load(endless+` export default { async fetch() { await derive(); return new Response("never"); } }`, func(l *limits.Tenant) { l.CPU = 50 * time.Millisecond })
	h.wantOutcome(h.get(n, "/"), gen.Outcome_exceededCpu)
	began := time.Now()
	m := h.load(endless+` const all = Promise.allSettled(Array.from({ length: 500 }, derive)); export default { async fetch() { const s = await all; return new Response(s.filter((x) => x.status === "rejected").length + s[499].reason.name); } }`,
		func(l *limits.Tenant) { l.StartupCPU = 50 * time.Millisecond; l.CPU = 2 * time.Second })
	h.wantOK(h.get(m, "/"), "500OperationError")
	if d := time.Since(began); d > 20*time.Second {
		t.Errorf("start-up's operations took %v", d)
	}
}

// What operations give and keep outside the isolate is bounded, and goes with the invocation.
func TestOperationsAreBounded(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`export default { async fetch(r) {
		if (r.url.endsWith("/open")) { // left in the middle; goleak looks for what remains
			for (let i = 0; i < 16; i++) { const d = new DecompressionStream("gzip"); d.readable.getReader().read(); d.writable.getWriter().write(new Uint8Array([0x1f, 0x8b])); }
			await new Promise((done) => setTimeout(done, 2));
			return new Response("open");
		}
		const k = await crypto.subtle.importKey("raw", new Uint8Array(8), "HKDF", false, ["deriveBits"]), none = new Uint8Array();
		const all = await Promise.allSettled(Array.from({ length: 3500 }, () => crypto.subtle.deriveBits({ name: "HKDF", hash: "SHA-512", salt: none, info: none }, k, 255 * 512)));
		const why = all.find((x) => x.status === "rejected")?.reason;
		return new Response(why?.name + " " + why?.message);
	} }`, func(l *limits.Tenant) { l.CPU = 20 * time.Second; l.Pending = 4096; l.Memory = 128 << 20 })
	for range 3 {
		h.wantOK(h.get(n, "/open"), "open")
	}
	if a := h.get(n, "/"); !strings.Contains(a.body, "too many bytes of results of operations wait") {
		t.Errorf("%+v", a)
	}
}

func TestOperationsAreCharged(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`export default { async fetch() {
		const u = new Uint8Array(1 << 20);
		for (;;) await crypto.subtle.digest("SHA-512", u);
	} }`, func(l *limits.Tenant) { l.CPU = 50 * time.Millisecond })
	began := time.Now()
	h.wantOutcome(h.get(n, "/"), gen.Outcome_exceededCpu)
	if d := time.Since(began); d > 3*time.Second {
		t.Errorf("ended after %v", d)
	}
}
