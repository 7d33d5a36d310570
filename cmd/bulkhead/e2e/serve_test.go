// Package e2e runs the real binaries and uses them as clients and operators do.
package e2e

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/securitytests/hosttest"
)

func TestBothSyntaxes(t *testing.T) {
	h := hosttest.Start(t, hosttest.Options{Tenants: map[string]hosttest.Files{
		"modules": hosttest.Worker(`export default { async fetch(request, env, ctx) {
			const url = new URL(request.url);
			ctx.waitUntil(Promise.resolve());
			return Response.json({ method: request.method, path: url.pathname, q: url.searchParams.get("q"), ua: request.headers.get("user-agent") });
		} };`),
		"service-worker": hosttest.Worker(`addEventListener("fetch", (event) => {
			event.respondWith(new Response("Hello worker!", { headers: { "content-type": "text/plain" } }));
		});`),
		"vars": {"wrangler.toml": "name = \"vars\"\nmain = \"src/index.ts\"\ncompatibility_date = \"2026-01-01\"\n[vars]\nGREETING = \"hej\"\n",
			"src/index.ts": `interface Env { GREETING: string }
			export default { async fetch(_r: Request, env: Env): Promise<Response> { return new Response(env.GREETING); } } satisfies { fetch: unknown };`},
	}})
	if a := h.Get("modules", "/x?q=1%202"); a.Status != 200 || !strings.Contains(a.Body, `"path":"/x","q":"1 2"`) {
		t.Errorf("modules: %d %s", a.Status, a.Body)
	}
	if a := h.Get("service-worker", "/"); a.Body != "Hello worker!" || a.Header.Get("Content-Type") != "text/plain" {
		t.Errorf("service-worker: %d %q %v", a.Status, a.Body, a.Header)
	}
	if a := h.Get("vars", "/"); a.Body != "hej" {
		t.Errorf("vars: %d %q", a.Status, a.Body)
	}
	if id := h.Get("modules", "/").Header.Get("bulkhead-request-id"); id == "" {
		t.Error("an answer has no bulkhead-request-id")
	}
}

func TestBadTenants(t *testing.T) {
	h := hosttest.Start(t, hosttest.Options{Tenants: map[string]hosttest.Files{
		"throws":   hosttest.Worker(`export default { fetch() { throw new TypeError("boom"); } };`),
		"rejects":  hosttest.Worker(`export default { async fetch() { await null; throw new Error("later"); } };`),
		"number":   hosttest.Worker(`export default { fetch() { return 42; } };`),
		"never":    hosttest.Worker(`export default { fetch() { return new Promise(() => {}); } };`),
		"syntax":   hosttest.Worker("export default {\n  fetch() { return new Response('x' }\n};"),
		"startup":  hosttest.Worker("const x = 1;\nundefinedFunction();\nexport default { fetch() {} };"),
		"nothing":  hosttest.Worker(`export const x = 1;`),
		"loops":    hosttest.Worker(`export default { fetch(r) { if (new URL(r.url).pathname === "/loop") for (;;); return new Response("fine"); } };`),
		"evil":     hosttest.Worker(`export default { fetch() { try { return new Response(String(eval("1+1"))); } catch (e) { return new Response(e.name); } } };`),
		"shared":   hosttest.Worker(`export default { fetch() { return new Response(typeof SharedArrayBuffer); } };`),
		"survives": hosttest.Worker(`export default { fetch() { return new Response("here"); } };`),
	}})
	for _, c := range []struct {
		tenant, path string
		status       int
		outcome      string
		body         string
	}{
		{"throws", "/", 500, "exception", "exception"},
		{"rejects", "/", 500, "exception", "exception"},
		{"number", "/", 500, "exception", "no response"},
		{"never", "/", 500, "exception", "no response"},
		{"syntax", "/", 0, "notLoaded", ""},
		{"startup", "/", 0, "notLoaded", ""},
		{"nothing", "/", 0, "", ""},
		{"loops", "/loop", 503, "exceededCpu", "50"},
		{"loops", "/", 200, "", "fine"},
		{"evil", "/", 200, "", "EvalError"},
		{"shared", "/", 200, "", "undefined"},
		{"unknown", "/", 404, "scriptNotFound", "no worker"},
		{"survives", "/", 200, "", "here"},
	} {
		t.Run(c.tenant+c.path, func(t *testing.T) {
			a := h.Get(c.tenant, c.path)
			if c.status != 0 && a.Status != c.status || c.status == 0 && a.Status < 500 || c.outcome != "" && a.Outcome != c.outcome || !strings.Contains(a.Body, c.body) {
				t.Errorf("got %d, outcome %q, body %q; want %d, %q, body with %q", a.Status, a.Outcome, a.Body, c.status, c.outcome, c.body)
			}
			if c.outcome != "" {
				var e struct{ Outcome, Tenant, Request, Message string }
				if err := json.Unmarshal([]byte(a.Body), &e); err != nil || e.Outcome != c.outcome || e.Message == "" || e.Request == "" {
					t.Errorf("the answer's body is not the contract's JSON (%v): %s", err, a.Body)
				}
			}
		})
	}
	// What went wrong inside is for the tenant's log, not for whoever asks.
	for tenant, want := range map[string]string{"throws": "TypeError: boom", "rejects": "Error: later", "number": "Response", "never": "never"} {
		var log string
		if err := h.AdminGet("/v1/logs/"+tenant, &log); err != nil {
			t.Errorf("the log of %s: %v", tenant, err)
		} else if !strings.Contains(log, want) {
			t.Errorf("the log of %s does not say %q: %s", tenant, want, log)
		}
	}
	for tenant, want := range map[string]string{"syntax": "worker.js:2:", "startup": "worker.js:2:"} {
		line := ""
		for l := range strings.Lines(h.Log()) {
			if strings.Contains(l, tenant) && strings.Contains(l, want) {
				line = l
			}
		}
		if line == "" {
			t.Errorf("the terminal does not name the place of the error of %s:\n%s", tenant, h.Log())
		}
	}
}

func TestDevAnswersWithTheError(t *testing.T) {
	h := hosttest.Start(t, hosttest.Options{Args: []string{"--dev"}, Tenants: map[string]hosttest.Files{
		"syntax": hosttest.Worker("export default {\n  fetch() { return new Response('x' }\n};"),
		"throws": hosttest.Worker("undefinedFunction();\nexport default { fetch() {} };"),
	}})
	if a := h.Get("syntax", "/"); a.Status < 500 || !strings.Contains(a.Body, "worker.js") || !strings.Contains(a.Body, "2:") || !strings.Contains(a.Body, "return new Response") {
		t.Errorf("dev does not show file, line and excerpt: %d %s", a.Status, a.Body)
	}
	if a := h.Get("throws", "/"); a.Status < 500 || !strings.Contains(a.Body, "undefinedFunction") || !strings.Contains(a.Body, "worker.js") {
		t.Errorf("dev does not show the start-up error: %d %s", a.Status, a.Body)
	}
}

func TestHotReloadLosesNothing(t *testing.T) {
	version := func(n int) hosttest.Files {
		return hosttest.Worker(fmt.Sprintf(`export default { async fetch() { await new Promise((r) => setTimeout(r, 5)); return new Response("v%d"); } };`, n))
	}
	h := hosttest.Start(t, hosttest.Options{Tenants: map[string]hosttest.Files{"t": version(0)}})
	var stop atomic.Bool
	var wg sync.WaitGroup
	var served, failed atomic.Int64
	for range 8 {
		wg.Go(func() {
			for !stop.Load() {
				a, err := h.Do("GET", "t", "/", nil)
				if err != nil || a.Status != 200 {
					failed.Add(1)
					t.Logf("failed: %v %d %s", err, a.Status, a.Body)
				}
				served.Add(1)
			}
		})
	}
	for n := 1; n <= 5; n++ {
		h.Put("t", version(n))
		hosttest.Eventually(t, 10*time.Second, "the new version answers", func() bool {
			a, err := h.Do("GET", "t", "/", nil)
			return err == nil && a.Body == fmt.Sprintf("v%d", n)
		})
	}
	stop.Store(true)
	wg.Wait()
	if failed.Load() > 0 || served.Load() < 50 {
		t.Errorf("%d of %d requests failed during five reloads", failed.Load(), served.Load())
	}
}

const bodies = `export default { async fetch(request) {
	const { pathname, searchParams } = new URL(request.url);
	if (pathname === "/echo") return new Response(request.body);
	if (pathname === "/count") { let n = 0; for await (const c of request.body) n += c.byteLength; return new Response(String(n)); }
	if (pathname === "/down") {
		let left = Number(searchParams.get("n")); const piece = new Uint8Array(65536).fill(120);
		return new Response(new ReadableStream({ pull(c) {
			if (left <= 0) return c.close();
			const p = left >= piece.length ? piece.slice() : piece.slice(0, left); left -= p.length; c.enqueue(p);
		} }));
	}
	return new Response("no", { status: 404 });
} };`

func TestLargeBodiesStreamFlat(t *testing.T) {
	h := hosttest.Start(t, hosttest.Options{Tenants: map[string]hosttest.Files{"b": hosttest.Worker(bodies)}})
	// Twice what the tenant may hold: what passes through may wait for V8's collector, up to that.
	const size = 256 << 20
	h.Get("b", "/down?n=1000000")
	h.Do("POST", "b", "/count", bytes.NewReader(make([]byte, 4<<20)))
	gateway := h.Gateway()
	// Workers that are still being made would count as growth.
	hosttest.Eventually(t, 20*time.Second, "warm spares", func() bool { return len(h.Shards()) >= 4 })
	before, peak := hosttest.RSS(gateway), uint64(0)
	workersBefore, workersPeak := workersRSS(h), uint64(0)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				peak = max(peak, hosttest.RSS(gateway))
				workersPeak = max(workersPeak, workersRSS(h))
			}
		}
	})
	a, err := h.Do("POST", "b", "/count", io.LimitReader(zeros{}, size))
	if err != nil || a.Body != fmt.Sprint(size) {
		t.Errorf("upload of 256 MB: %v %d %q", err, a.Status, a.Body)
	}
	for _, path := range []string{fmt.Sprintf("/down?n=%d", size), "/echo"} {
		var body io.Reader
		method := "GET"
		if path == "/echo" {
			method, body = "POST", io.LimitReader(zeros{}, size)
		}
		req, _ := http.NewRequest(method, "http://b.localhost"+path, body)
		resp, err := h.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil || n != size {
			t.Errorf("%s: %d bytes, %v", path, n, err)
		}
	}
	close(stop)
	wg.Wait()
	for _, s := range h.Shards() {
		t.Logf("shard %d: %v, %d MB", s.ID, s.Tenants, hosttest.RSS(s.PID)>>20)
	}
	t.Logf("gateway %d → %d MB, workers %d → %d MB", before>>20, peak>>20, workersBefore>>20, workersPeak>>20)
	if peak > before+(48<<20) || workersPeak > workersBefore+(112<<20) {
		t.Errorf("memory is not flat: gateway %d → %d MB, workers %d → %d MB", before>>20, peak>>20, workersBefore>>20, workersPeak>>20)
	}
}

func workersRSS(h *hosttest.Host) (sum uint64) {
	for _, pid := range hosttest.Children(h.PID) {
		if hosttest.Comm(pid) == "bulkhead-worker" {
			sum += hosttest.RSS(pid)
		}
	}
	return sum
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestBodiesArriveAsSent(t *testing.T) {
	h := hosttest.Start(t, hosttest.Options{Tenants: map[string]hosttest.Files{"b": hosttest.Worker(bodies)}})
	rng := rand.NewChaCha8([32]byte{1})
	for _, n := range []int{0, 1, 65535, 65536, 65537, 262143, 262144, 262145, 3_000_001} {
		p := make([]byte, n)
		rng.Read(p)
		a, err := h.Do("POST", "b", "/echo", bytes.NewReader(p))
		if err != nil || sha256.Sum256([]byte(a.Body)) != sha256.Sum256(p) {
			t.Errorf("%d bytes came back as %d, different (%v, status %d)", n, len(a.Body), err, a.Status)
		}
	}
}

// A client that leaves is seen by the tenant as request.signal, and its stream stops.
func TestClientLeaves(t *testing.T) {
	h := hosttest.Start(t, hosttest.Options{Tenants: map[string]hosttest.Files{"c": hosttest.Worker(`
		let aborted = 0, canceled = 0;
		export default { async fetch(request) {
			if (new URL(request.url).pathname === "/seen") return Response.json({ aborted, canceled });
			request.signal.addEventListener("abort", () => { aborted++; });
			return new Response(new ReadableStream({
				async pull(c) { await new Promise((r) => setTimeout(r, 10)); c.enqueue(new TextEncoder().encode("tick\n")); },
				cancel() { canceled++; },
			}));
		} };`)}})
	req, _ := http.NewRequest("GET", "http://c.localhost/", nil)
	resp, err := h.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil || line != "tick\n" {
		t.Fatalf("first line %q, %v", line, err)
	}
	resp.Body.Close()
	hosttest.Eventually(t, 5*time.Second, "the tenant saw its client leave", func() bool {
		return h.Get("c", "/seen").Body == `{"aborted":1,"canceled":1}`
	})
}

func TestManyConnectionsManyTenants(t *testing.T) {
	tenants := map[string]hosttest.Files{}
	for i := range 50 {
		tenants[fmt.Sprintf("t%d", i)] = hosttest.Worker(fmt.Sprintf(`let n = 0; export default { async fetch(r) { n++; const b = await r.text(); return new Response("t%d " + b.length); } };`, i))
	}
	h := hosttest.Start(t, hosttest.Options{Tenants: tenants, Quiet: true})
	for id := range tenants {
		h.Get(id, "/")
	}
	length := 30 * time.Second
	if testing.Short() {
		length = 5 * time.Second
	}
	gateway := h.Gateway()
	end := time.Now().Add(length)
	var wg sync.WaitGroup
	var served, failed atomic.Int64
	var early uint64
	for c := range 500 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(c), 7))
			for time.Now().Before(end) {
				i, n := rng.IntN(50), rng.IntN(2000)
				a, err := h.Do("POST", fmt.Sprintf("t%d", i), "/", bytes.NewReader(make([]byte, n)))
				if err != nil || a.Status != 200 || a.Body != fmt.Sprintf("t%d %d", i, n) {
					if failed.Add(1) < 5 {
						t.Errorf("t%d: %v %d %s", i, err, a.Status, a.Body)
					}
				}
				served.Add(1)
			}
		})
	}
	time.Sleep(length / 3)
	early = hosttest.RSS(gateway) + workersRSS(h)
	wg.Wait()
	late := hosttest.RSS(gateway) + workersRSS(h)
	for _, s := range h.Shards() {
		t.Logf("shard %d: %d tenants, %d MB", s.ID, len(s.Tenants), hosttest.RSS(s.PID)>>20)
	}
	t.Logf("%d requests over 500 connections and 50 tenants in %v; memory %d MB after a third, %d MB at the end", served.Load(), length, early>>20, late>>20)
	if failed.Load() > 0 || served.Load() < 1000 {
		t.Errorf("%d of %d requests failed", failed.Load(), served.Load())
	}
	if late > early+early/2 {
		t.Errorf("memory grows: %d MB after a third, %d MB at the end", early>>20, late>>20)
	}
}
