package scheduler

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/policy/limits"
	"bulkhead/schema/gen"
)

// A loop in each phase of a handler ends with its own invocation; the tenant is served again.
func TestLoopsAreTerminated(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`export default { async fetch(request) {
		switch (new URL(request.url).pathname) {
		case "/sync": for (;;) {}
		case "/async": await null; for (;;) {}
		case "/caught": for (;;) { try { for (;;) {} } catch {} }
		case "/promises": { const f = () => Promise.resolve().then(f); await f(); }
		case "/regexp": /(a*)*b/.test("a".repeat(40));
		case "/finally": try { for (;;) {} } finally { for (;;) {} }
		}
		return new Response("fine");
	} }`)
	for _, path := range []string{"/sync", "/async", "/caught", "/promises", "/regexp", "/finally"} {
		t.Run(path[1:], func(t *testing.T) {
			began := time.Now()
			a := h.get(n, path)
			h.wantOutcome(a, gen.Outcome_exceededCpu)
			if !strings.Contains(a.result.Message, "CPU limit of 50 ms") {
				t.Errorf("message = %q", a.result.Message)
			}
			t.Logf("ended after %v wall, %d µs CPU", time.Since(began).Round(time.Millisecond), a.result.CPUMicros)
			h.wantOK(h.get(n, "/"), "fine")
		})
	}
}

func TestCPUAddsUpOverTurns(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`export default { async fetch() {
		for (;;) {
			for (let i = 0; i < 1e6; i++) Math.sqrt(i);
			await new Promise(r => setTimeout(r, 1));
		}
	} }`)
	h.wantOutcome(h.get(n, "/"), gen.Outcome_exceededCpu)
}

func TestTimersOfSeveralRequestsAreCharged(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`export default { async fetch() {
		for (;;) {
			for (let i = 0; i < 1e5; i++) Math.sqrt(i);
			await new Promise(r => setTimeout(r, 1));
		}
	} }`)
	var streams []*gatewayside.Stream
	for range 3 {
		st, err := h.Open(t.Context(), request(n, "/"))
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, st)
	}
	over := 0
	for _, st := range streams {
		r := h.finish(st).result
		switch {
		case r.Outcome == gen.Outcome_exceededCpu:
			over++
		case r.Outcome == gen.Outcome_killed && strings.Contains(r.Message, "stopped together with another request"):
			// The first that was stopped in the middle of a turn took the isolate with it.
		default:
			t.Errorf("%+v", r)
		}
	}
	if over == 0 {
		t.Error("nobody exceeded the limit")
	}
}

func TestWallTime(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`export default { fetch(r) {
		if (r.url.endsWith("/wait")) return new Promise(r => setTimeout(r, 60_000));
		return new Response("fine");
	} }`, func(l *limits.Tenant) { l.Wall = 100 * time.Millisecond })
	began := time.Now()
	h.wantOutcome(h.get(n, "/wait"), gen.Outcome_exceededWallTime)
	if d := time.Since(began); d < 100*time.Millisecond || d > 20*time.Second {
		t.Errorf("ended after %v", d)
	}
	h.wantOK(h.get(n, "/"), "fine")
}

func TestMemory(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`const kept = []; let served = 0;
	export default { fetch(r) {
		if (r.url.endsWith("/heap")) for (;;) kept.push({ a: [1, 2, 3], b: "x" + kept.length });
		if (r.url.endsWith("/buffers")) for (;;) kept.push(new Uint8Array(1 << 20).fill(1));
		return new Response(String(++served));
	} }`, func(l *limits.Tenant) { l.Memory, l.CPU = 32<<20, 5*time.Second })
	for _, path := range []string{"/heap", "/buffers"} {
		h.get(n, "/")
		a := h.get(n, path)
		if o := a.result.Outcome; o != gen.Outcome_exceededMemory && !(path == "/buffers" && o == gen.Outcome_exception) {
			t.Errorf("%s: outcome %s (%s)", path, o, a.result.Message)
		}
	}
	// A fresh isolate from the kept bundle answers, or the old one with its room back.
	a := h.get(n, "/")
	if a.status != 200 {
		t.Errorf("after the limit: %+v", a)
	}
}

func TestOneTenantsMemoryIsNotAnothers(t *testing.T) {
	h := startShard(t, Options{})
	bad := h.load(`const kept = []; export default { fetch() { for (;;) kept.push([kept.length]); } }`,
		func(l *limits.Tenant) { l.Memory, l.CPU = 32<<20, 5*time.Second })
	good := h.load(`let n = 0; export default { fetch() { return new Response(String(++n)); } }`)
	h.wantOK(h.get(good, "/"), "1")
	h.wantOutcome(h.get(bad, "/"), gen.Outcome_exceededMemory)
	h.wantOK(h.get(good, "/"), "2")
}

func TestLoadFailures(t *testing.T) {
	h := startShard(t, Options{})
	quick := func(l *limits.Tenant) { l.StartupCPU = 100 * time.Millisecond }
	for _, c := range []struct {
		name, source, message string
		outcome               gen.Outcome
		line                  uint32
	}{
		{"syntax", "export default {\n  fetch( {", "SyntaxError", gen.Outcome_exception, 2},
		{"throw", "\nthrow new Error('no luck')", "no luck", gen.Outcome_exception, 2},
		{"undefined name", "const a = 1;\nundefinedFunction();\nexport default { fetch() {} }", "undefinedFunction is not defined", gen.Outcome_exception, 2},
		{"of undefined", "\n\nundefined.x", "Cannot read properties", gen.Outcome_exception, 3},
		{"loop", "for (;;) {}", "CPU limit of 100 ms", gen.Outcome_exceededCpu, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, res := h.tryLoad(c.source, quick)
			if res.Failed == nil {
				t.Fatal("it loaded")
			}
			f := res.Failed
			if f.Outcome != c.outcome || !strings.Contains(f.Message, c.message) || (c.line != 0 && (f.Line != c.line || f.Column == 0 || f.Excerpt == "" || f.File != "worker.js")) {
				t.Errorf("got %+v", *f)
			}
		})
	}
	h.wantOK(h.get(h.load(`export default { fetch() { return new Response("ok"); } }`), "/"), "ok")
}

// A tenant that loops does not keep others waiting beyond the kernel's own time slicing.
func TestNeighboursOfALoop(t *testing.T) {
	h := startShard(t, Options{})
	loop := h.load(`export default { fetch() { for (;;) {} } }`, func(l *limits.Tenant) { l.CPU = 400 * time.Millisecond })
	good := h.load(`export default { fetch() { return new Response("ok"); } }`)
	st, err := h.Open(t.Context(), request(loop, "/"))
	if err != nil {
		t.Fatal(err)
	}
	var worst time.Duration
	served := 0
	for done := st.Done(); ; served++ {
		select {
		case <-done:
		default:
			began := time.Now()
			h.wantOK(h.get(good, "/"), "ok")
			worst = max(worst, time.Since(began))
			continue
		}
		break
	}
	h.wantOutcome(h.finish(st), gen.Outcome_exceededCpu)
	t.Logf("%d requests of the neighbour meanwhile, worst %v", served, worst)
	if served < 5 { // each is served beside the loop, or the loop would have ended with the first
		t.Errorf("the neighbour got %d requests, worst %v", served, worst)
	}
}

func TestEvict(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`export default { fetch(r) {
		if (r.url.endsWith("/loop")) for (;;) {}
		return new Promise(() => setTimeout(() => {}, 60_000));
	} }`, func(l *limits.Tenant) { l.CPU = 10 * time.Second })
	if st, err := h.Stats(t.Context()); err != nil || len(st.Tenants) != 1 || st.Tenants[0].HeapBytes == 0 {
		t.Errorf("stats of a loaded tenant: %+v, %v", st, err)
	}
	var streams []*gatewayside.Stream
	for _, p := range []string{"/wait", "/loop", "/queued"} {
		st, err := h.Open(t.Context(), request(n, p))
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, st)
		time.Sleep(20 * time.Millisecond)
	}
	if got := ipc.ReadBlackBox(h.box); len(got) != 1 || got[0].Tenant != n || got[0].Stream != 2 {
		t.Errorf("black box says %+v, want tenant %d on stream 2", got, n)
	}
	if err := h.Evict(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	for _, st := range streams {
		h.wantOutcome(h.finish(st), gen.Outcome_killed)
	}
	if st, err := h.Stats(t.Context()); err != nil || len(st.Tenants) != 0 {
		t.Errorf("after evict: %+v, %v", st, err)
	}
	if got := ipc.ReadBlackBox(h.box); len(got) != 0 {
		t.Errorf("black box still says %+v", got)
	}
	if _, err := h.Open(t.Context(), request(n, "/")); err == nil {
		t.Error("an evicted tenant was opened")
	}
}

func TestManyTenants(t *testing.T) {
	h := startShard(t, Options{})
	const tenants, each = 32, 40
	var wg sync.WaitGroup
	for i := range tenants {
		n := h.load(fmt.Sprintf(`let n = 0; export default { async fetch() { await null; return new Response("%d:" + ++n); } }`, i))
		wg.Add(1)
		go func() {
			defer wg.Done()
			for k := range each {
				if a := h.get(n, "/"); a.body != fmt.Sprintf("%d:%d", i, k+1) {
					t.Errorf("tenant %d request %d: %+v", i, k, a)
					return
				}
			}
		}()
	}
	wg.Wait()
}

func TestGoneClientCancels(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`export default { async fetch(r) {
		if (r.url.endsWith("/wait")) await new Promise(r => setTimeout(r, 60_000));
		return new Response("ok");
	} }`, func(l *limits.Tenant) { l.WaitUntil = 200 * time.Millisecond })
	st, err := h.Open(t.Context(), request(n, "/wait"))
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	st.Cancel(gen.Abort_Reason_clientGone, "gone")
	a := h.finish(st)
	if o := a.result.Outcome; o != gen.Outcome_canceled {
		t.Errorf("outcome %s (%s)", o, a.result.Message)
	}
	var ae *gatewayside.AbortError
	if !errors.As(a.err, &ae) {
		t.Errorf("Head = %v", a.err)
	}
	h.wantOK(h.get(n, "/"), "ok")
}
