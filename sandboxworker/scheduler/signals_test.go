package scheduler

import (
	"context"
	"io"
	"testing"
	"time"

	"bulkhead/ipc/gatewayside"
	"bulkhead/schema/gen"
)

// spins runs for about so many units of work. There is no clock to measure with, in a worker.
const spins = `function spin(n) { let x = 1; for (let i = 0; i < n * 100000; i++) x = (x * 16807 + i) % 2147483647; return x; }
`

// seenOf asks the shard what it has seen of a tenant.
func (h *shard) seenOf(tenant uint32) (bracketed, request, cpu time.Duration) {
	h.t.Helper()
	st, err := h.Stats(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	for _, s := range st.Tenants {
		if s.Tenant == tenant {
			us := time.Microsecond
			return time.Duration(s.BracketedMicros) * us, time.Duration(s.RequestMicros) * us, time.Duration(s.CPUMicros) * us
		}
	}
	h.t.Fatalf("no stats of tenant %d", tenant)
	return 0, 0, 0
}

// converse sends so many pieces of body, each after the answer to the one before, and returns when the
// response has ended.
func (h *shard) converse(tenant uint32, path string, pieces int) {
	h.t.Helper()
	r := request(tenant, path)
	r.Method, r.BodyMode = "POST", gen.BodyMode_streamed
	st, err := h.Open(h.t.Context(), r)
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := st.Head(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	var b [64]byte
	for range pieces {
		if err := st.WriteBody(context.Background(), []byte("tick")); err != nil {
			h.t.Fatal(err)
		}
		if _, err := st.Read(b[:]); err != nil {
			h.t.Fatal(err)
		}
	}
	st.CloseBody()
	io.Copy(io.Discard, st)
	<-st.Done()
	if out := st.Result().Outcome; out != gen.Outcome_ok {
		h.t.Errorf("outcome %s", out)
	}
}

// spy has its client for a clock, in as many ways as a worker has.
const spy = spins + `
let last = 0;
export default { async fetch(r) {
	const path = new URL(r.url).pathname;
	if (path === "/other") return new Response(String(spin(2)));
	const { readable, writable } = new TransformStream();
	const out = writable.getWriter();
	(async () => {
		for await (const _ of r.body) {
			if (path === "/message") last = spin(2);
			if (path === "/timer") await new Promise((ok) => setTimeout(() => { last = spin(2); ok(); }, 1));
			if (path === "/digest") { await crypto.subtle.digest("SHA-256", new Uint8Array(8)); last = spin(2); }
			await out.write(new TextEncoder().encode("tock"));
		}
		await out.close();
	})();
	return new Response(readable);
} };`

// CPU between dealings with somebody outside is seen, wherever the code puts it; so is that of other
// requests of the isolate meanwhile.
func TestBracketedCPUIsSeen(t *testing.T) {
	for _, path := range []string{"/message", "/timer", "/digest"} {
		t.Run(path[1:], func(t *testing.T) {
			h := startShard(t, Options{})
			n := h.load(spy, roomy)
			h.converse(n, path, 40)
			bracketed, _, cpu := h.seenOf(n)
			if cpu < 20*time.Millisecond || bracketed < cpu*6/10 {
				t.Errorf("%v of %v is seen to be bracketed, want nearly all", bracketed, cpu)
			}
		})
	}
	t.Run("beside", func(t *testing.T) {
		h := startShard(t, Options{})
		n := h.load(spy, roomy)
		talk := make(chan struct{})
		go func() { defer close(talk); h.converse(n, "/message", 200) }()
		var spent time.Duration
		for {
			a := h.get(n, "/other")
			spent += time.Duration(a.result.CPUMicros) * time.Microsecond
			select {
			case <-talk:
				bracketed, _, _ := h.seenOf(n)
				if spent == 0 || bracketed < spent/3 {
					t.Errorf("%v of %v that ran beside a conversation is bracketed", bracketed, spent)
				}
				return
			default:
			}
		}
	})
}

// Requests that wait for each other's answers are seen to; those of several visitors at once are not.
func TestLockstepIsSeen(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(spins+`export default { fetch: () => new Response(String(spin(2))) };`, roomy)
	lockstep := func() time.Duration {
		st, err := h.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range st.Tenants {
			if s.Tenant == n {
				return time.Duration(s.LockstepMicros) * time.Microsecond
			}
		}
		t.Fatal("no stats")
		return 0
	}
	for range 40 { // visitors: two requests at a time
		a, b := h.open(n, "/"), h.open(n, "/")
		h.finish(a)
		h.finish(b)
		time.Sleep(2 * lockstepGap)
	}
	if got := lockstep(); got != 0 {
		t.Errorf("%v of visitors' CPU is taken for lockstep", got)
	}
	// A machine so busy that a round takes longer than the gap breaks rows: then the next ones tell.
	for end := time.Now().Add(30 * time.Second); lockstep() < 20*time.Millisecond; {
		if time.Now().After(end) {
			t.Fatalf("%v after 30 s of one request after the other", lockstep())
		}
		for range 50 {
			h.get(n, "/")
		}
	}
}

// Bytes that a turn moves excuse what moving them takes, other bytes and other turns nothing.
func TestCredit(t *testing.T) {
	const ms, mib = time.Millisecond, 1 << 20
	for _, c := range []struct {
		name  string
		turns []turnOf
		want  time.Duration
	}{
		{"nothing", nil, 0},
		{"the host's own work", []turnOf{{turnCost, 0}, {turnCost / 2, 0}}, 0},
		{"code", []turnOf{{turnCost + 2*ms, 0}}, 2 * ms},
		{"a short one counts in part", []turnOf{{turnCost + turnShort/2, 0}}, turnShort / 4},
		{"idle turns earn nothing", []turnOf{{0, 0}, {0, 0}, {turnCost + 2*ms, 0}}, 2 * ms},
		{"moving bytes", []turnOf{{turnCost + 2*ms, mib / 2}}, 0},
		{"beyond moving bytes", []turnOf{{turnCost + 5*ms, mib / 2}}, 3 * ms},
		{"bytes moved before excuse a little", []turnOf{{turnCost, 64 * mib}, {turnCost + 5*ms, 0}}, 5*ms - mostCredit},
		{"once", []turnOf{{turnCost, 64 * mib}, {turnCost + mostCredit, 0}, {turnCost + 2*ms, 0}}, 2 * ms},
		{"a message begins, and counts anew", []turnOf{{turnCost + 2*ms, -mib}}, 2 * ms},
	} {
		inv, got := &invocation{}, time.Duration(0)
		for _, x := range c.turns {
			got += inv.beyond(x.cpu, x.bytes)
		}
		if got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	var none *invocation
	if got := none.beyond(turnCost+2*ms, 1<<30); got != 2*ms {
		t.Errorf("a turn of nobody's: %v", got)
	}
}

type turnOf = struct {
	cpu   time.Duration
	bytes int
}

// What honest workers do in plenty is none of it.
func TestHonestCPUIsNotBracketed(t *testing.T) {
	const worker = spins + `export default { async fetch(r) {
		switch (new URL(r.url).pathname) {
		case "/render": return new Response(String(spin(2)));
		case "/count": { let n = 0; for await (const c of r.body) n += c.byteLength; return new Response(String(n)); }
		case "/cron": { for (let i = 0; i < 5; i++) { await new Promise((ok) => setTimeout(ok, 1)); spin(2); } return new Response("done"); }
		case "/echo": return new Response(r.body);
		case "/page": { // some subrequests, then a page
			for (let i = 0; i < 5; i++) await (await fetch("http://upstream.example/")).text();
			return new Response(String(spin(2)));
		}
		}
	} };`
	for _, c := range []struct {
		name string
		run  func(h *shard, n uint32)
	}{
		{"render", func(h *shard, n uint32) {
			for range 60 {
				h.get(n, "/render")
			}
		}},
		{"cron", func(h *shard, n uint32) {
			for range 12 {
				h.get(n, "/cron")
			}
		}},
		{"page", func(h *shard, n uint32) {
			for range 30 {
				h.get(n, "/page")
			}
		}},
		{"chat", func(h *shard, n uint32) { h.converse(n, "/echo", 300) }},
		{"upload", func(h *shard, n uint32) {
			r := request(n, "/count")
			r.Method, r.BodyMode = "POST", gen.BodyMode_streamed
			st, err := h.Open(h.t.Context(), r)
			if err != nil {
				h.t.Fatal(err)
			}
			go func() {
				st.WriteBody(context.Background(), make([]byte, 16<<20))
				st.CloseBody()
			}()
			h.finish(st)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := startShard(t, Options{})
			n := h.loadFetcher(worker, func(r *gatewayside.Subrequest) { echo(r) }, roomy)
			c.run(h, n)
			bracketed, request, cpu := h.seenOf(n)
			// Of hundreds of events a few take long on a busy machine.
			if bracketed > 15*time.Millisecond {
				t.Errorf("%v of %v is seen to be bracketed", bracketed, cpu)
			}
			if request > cpu {
				t.Errorf("%v of requests is more than all, %v", request, cpu)
			}
			t.Logf("bracketed %v, requests %v, all %v", bracketed, request, cpu)
		})
	}
}
