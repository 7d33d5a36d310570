package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bulkhead/securitytests/hosttest"
)

// fetcher is a worker that does what its path says.
const fetcher = `
const name = (e) => e.name + ": " + e.message;
export default { async fetch(request, env, ctx) {
	const url = new URL(request.url), up = url.searchParams.get("u");
	const init = { method: request.method, redirect: url.searchParams.get("redirect") ?? "follow" };
	try {
		switch (url.pathname) {
		case "/pass": return await fetch(up, { ...init, body: request.body });
		case "/text": {
			const r = await fetch(up, init);
			return Response.json({ status: r.status, text: await r.text(), url: r.url, redirected: r.redirected, type: r.type, location: r.headers.get("location"), coding: r.headers.get("content-encoding") });
		}
		case "/abort": return new Response((await fetch(up, { signal: AbortSignal.timeout(50) })).status);
		case "/many": {
			let n = 0;
			try { for (;;) { const r = await fetch(up); await r.text(); n++; } } catch (e) { return new Response(n + " " + e.message); }
		}
		case "/parallel": {
			const all = await Promise.all(Array.from({ length: 150 }, (_, i) => fetch(up + "?" + i).then((r) => r.text())));
			return new Response(String(all.length));
		}
		case "/hash": {
			const r = await fetch(up);
			let n = 0;
			for await (const c of r.body) n += c.byteLength;
			return new Response(String(n));
		}
		case "/late": ctx.waitUntil(fetch(up, { method: "POST", body: "late" })); return new Response("ok");
		}
	} catch (e) { return new Response(name(e), { status: 418 }); }
} };`

// upstream is a server on an address of this machine that the tests' policy allows.
func upstream(t *testing.T, h http.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

const allowUpstream = "egress: {allow: [127.0.0.2], internal: [127.0.0.2]}\n"

func TestOutboundFetch(t *testing.T) {
	var posts, hanging atomic.Int32
	var mux http.ServeMux
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s", r.Method, r.Header.Get("Bulkhead-Tenant"), b)
	})
	mux.HandleFunc("/to", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/echo", http.StatusFound) })
	mux.HandleFunc("/inside", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://127.0.0.1:"+r.URL.Query().Get("p")+"/", http.StatusFound)
	})
	mux.HandleFunc("/gzip", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		io.WriteString(z, strings.Repeat("packed ", 1000))
		z.Close()
	})
	mux.HandleFunc("/hang", func(w http.ResponseWriter, r *http.Request) {
		hanging.Add(1)
		<-r.Context().Done()
		hanging.Add(-1)
	})
	mux.HandleFunc("/cut", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	mux.HandleFunc("/late", func(w http.ResponseWriter, r *http.Request) { posts.Add(1) })
	up := upstream(t, &mux)
	garbage, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer garbage.Close()
	go func() {
		for {
			c, err := garbage.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "220 mail.example ESMTP\r\n")
			c.Close()
		}
	}()
	var inside atomic.Int32
	canary := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { inside.Add(1) }))
	defer canary.Close()
	_, canaryPort, _ := net.SplitHostPort(canary.Listener.Addr().String())

	h := hosttest.Start(t, hosttest.Options{Policy: allowUpstream + "limits: {cpu: 2s}\n", Tenants: map[string]hosttest.Files{"a": hosttest.Worker(fetcher), "b": hosttest.Worker(fetcher)}})
	for _, c := range []struct {
		method, path, u, body string
		status                int
		want                  string
	}{
		{"GET", "/pass", up + "/echo", "", 200, "GET a "},
		{"POST", "/pass", up + "/echo", "hello", 200, "POST a hello"},
		{"PUT", "/pass", up + "/echo", strings.Repeat("x", 200_000), 200, "PUT a xxx"},
		{"GET", "/text", up + "/to", "", 200, `"text":"GET a ","url":"` + up + `/echo","redirected":true,"type":"basic"`},
		{"GET", "/text?redirect=manual", up + "/to", "", 200, `{"status":302`},
		{"GET", "/text?redirect=error", up + "/to", "", 418, `TypeError: fetch failed: ` + strings.TrimPrefix(up, "http://") + ` redirects`},
		{"GET", "/text", up + "/gzip", "", 200, `"coding":null`},
		{"GET", "/pass", up + "/gzip", "", 200, "packed packed"},
		{"GET", "/text", up + "/cut", "", 418, "TypeError: fetch failed: the response was cut"},
		{"GET", "/text", "http://" + garbage.Addr().String() + "/", "", 418, "TypeError: fetch failed: "},
		{"GET", "/abort", up + "/hang", "", 418, "TimeoutError: "},
		{"GET", "/text", canary.URL, "", 418, "TypeError: fetch failed: 127.0.0.1:" + canaryPort + " is a loopback address (egress rule: public only)"},
		{"GET", "/text", "http://2130706433:" + canaryPort, "", 418, "127.0.0.1:" + canaryPort + " is a loopback address"},
		{"GET", "/text", "http://0x7f.1:" + canaryPort, "", 418, "127.0.0.1:" + canaryPort + " is a loopback address"},
		{"GET", "/text", "http://017700000001:" + canaryPort, "", 418, "127.0.0.1:" + canaryPort + " is a loopback address"},
		{"GET", "/text", "http://\uff11\uff12\uff17.0.0.1:" + canaryPort, "", 418, "127.0.0.1:" + canaryPort + " is a loopback address"},
		{"GET", "/text", "http://localhost:" + canaryPort, "", 418, "localhost resolves to a loopback address"},
		{"GET", "/text", "http://[::ffff:127.0.0.1]:" + canaryPort, "", 418, "an IPv4-mapped address"},
		{"GET", "/text", up + "/inside?p=" + canaryPort, "", 418, "127.0.0.1:" + canaryPort + " is a loopback address"},
		{"GET", "/text", "http://10.0.0.1/", "", 418, "10.0.0.1:80 is a private address (egress rule: public only)"},
		{"GET", "/text", "http://169.254.169.254/latest/meta-data/", "", 418, "a link-local address"},
		{"GET", "/text", "ftp://10.0.0.1/", "", 418, "is not http or https"},
		{"GET", "/parallel", up + "/echo", "", 200, "150"},
		{"GET", "/many", up + "/echo", "", 200, "1000 fetch failed: too many subrequests: one request may make 1000"},
	} {
		sep := "?"
		if strings.Contains(c.path, "?") {
			sep = "&"
		}
		var body io.Reader
		if c.body != "" {
			body = strings.NewReader(c.body)
		}
		a, err := h.Do(c.method, "a", c.path+sep+"u="+strings.NewReplacer("&", "%26", "?", "%3f").Replace(c.u), body)
		if err != nil || a.Status != c.status || !strings.Contains(a.Body, c.want) {
			t.Errorf("%s %s %s: %v %d %.300s, want %d %s", c.method, c.path, c.u, err, a.Status, a.Body, c.status, c.want)
		}
	}
	if n := inside.Load(); n != 0 {
		t.Errorf("%d requests reached the inside", n)
	}
	if !strings.Contains(h.Log(), "egress refused") {
		t.Error("the operator was not told of the refusals")
	}
	if text, err := os.ReadFile(filepath.Join(h.Data, "gateway", "events.jsonl")); err != nil || !strings.Contains(string(text), `"tenant":"a","host":`) ||
		!strings.Contains(string(text), `"rule":"public only"`) || !strings.Contains(string(text), `"kind":"egressRefused"`) {
		t.Errorf("the event log says nothing of them: %v %s", err, text)
	}
	hosttest.Eventually(t, 5*time.Second, "the aborted call leaves its upstream", func() bool { return hanging.Load() == 0 })

	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://b.localhost/text?u="+up+"/hang", nil)
	go h.Send(req)
	hosttest.Eventually(t, 5*time.Second, "the upstream is asked", func() bool { return hanging.Load() == 1 })
	cancel()
	hosttest.Eventually(t, 5*time.Second, "a client that leaves takes the upstream call with it", func() bool { return hanging.Load() == 0 })

	if a := h.Get("a", "/late?u="+up+"/late"); a.Body != "ok" {
		t.Error(a.Body)
	}
	hosttest.Eventually(t, 5*time.Second, "waitUntil carries a subrequest", func() bool { return posts.Load() == 1 })
	var metrics string
	if err := h.AdminGet("/v1/metrics", &metrics); err != nil || !strings.Contains(metrics, `bulkhead_fetch_refused_total{rule="public only"}`) {
		t.Error("metrics say nothing of the refusals")
	}
	if n := len(h.Incidents()); n != 0 {
		t.Errorf("%d incidents", n)
	}
}

// rss is the resident memory of a process in bytes.
func rss(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "statm"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n * int64(os.Getpagesize())
}

// 50 MB go from the client through the worker to an upstream and back; no process holds them.
func TestFetchStreamsFlat(t *testing.T) {
	for _, rootless := range []bool{false, true} {
		t.Run(fmt.Sprintf("rootless=%v", rootless), func(t *testing.T) { streamsFlat(t, rootless) })
	}
}

func streamsFlat(t *testing.T, rootless bool) {
	up := upstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, r.Body)
	}))
	h := hosttest.Start(t, hosttest.Options{Policy: allowUpstream, Rootless: rootless,
		Tenants: map[string]hosttest.Files{"a": hosttest.Worker(fetcher)}})
	h.Get("a", "/pass?u="+up)
	var pids []int
	for _, s := range h.Shards() {
		pids = append(pids, s.PID)
	}
	pids = append(pids, h.Gateway())
	before := make([]int64, len(pids))
	peak := make([]int64, len(pids))
	for i, pid := range pids {
		before[i] = rss(t, pid)
	}
	stop := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for {
			for i, pid := range pids {
				peak[i] = max(peak[i], rss(t, pid))
			}
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	const size = 50 << 20
	block := bytes.Repeat([]byte("0123456789abcdef"), 4<<10)
	sent, got := sha256.New(), sha256.New()
	pr, pw := io.Pipe()
	go func() {
		for range size / len(block) {
			sent.Write(block)
			pw.Write(block)
		}
		pw.Close()
	}()
	req, _ := http.NewRequest("POST", "http://a.localhost/pass?u="+up, pr)
	began := time.Now()
	resp, err := h.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(got, resp.Body)
	resp.Body.Close()
	close(stop)
	<-watched
	if err != nil || n != size || !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Errorf("%d bytes, %v", n, err)
	}
	for i := range pids {
		t.Logf("process %d: %d MiB before, %d MiB at most", pids[i], before[i]>>20, peak[i]>>20)
		if grown := peak[i] - before[i]; grown > 32<<20 {
			t.Errorf("process %d grew by %d MiB while 50 MiB passed twice", pids[i], grown>>20)
		}
	}
	t.Logf("50 MiB there and back in %v", time.Since(began).Round(time.Millisecond))
}

// A shard dies under two POSTs. The one whose handler had POSTed to an upstream is not run again, and
// the upstream sees one; the one whose handler had only read is, once.
func TestReplayKnowsSubrequests(t *testing.T) {
	var orders, safe, reads, holds atomic.Int32
	var mux http.ServeMux
	count := func(path string, n *atomic.Int32, hold func(visit int32) bool) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if visit := n.Add(1); hold(visit) {
				<-r.Context().Done()
			}
		})
	}
	never := func(int32) bool { return false }
	count("POST /order", &orders, never)
	count("POST /search", &safe, never)
	count("GET /read", &reads, never)
	count("GET /hold", &holds, func(visit int32) bool { return visit == 1 })
	up := upstream(t, &mux)
	searches := upstream(t, &mux)
	const worker = `export default { async fetch(request) {
		const [method, url, hold] = (await request.text()).split(" ");
		await (await fetch(url, { method })).text();
		await (await fetch(hold)).text();
		return new Response("done");
	} };`
	for _, c := range []struct {
		name, method, url string
		counter           *atomic.Int32
		again             bool
	}{
		{"after an effect", "POST", up + "/order", &orders, false},
		{"after a safe method", "GET", up + "/read", &reads, true},
		{"after a POST to an upstream that the policy calls safe", "POST", searches + "/search", &safe, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			holds.Store(0)
			policy := fmt.Sprintf("egress: {allow: [127.0.0.2], safe: [%q]}\n", strings.TrimPrefix(searches, "http://"))
			h := hosttest.Start(t, hosttest.Options{Policy: policy, Quiet: true, Tenants: map[string]hosttest.Files{"a": hosttest.Worker(worker)}})
			answered := make(chan hosttest.Answer, 1)
			go func() {
				a, _ := h.Do("POST", "a", "/", strings.NewReader(c.method+" "+c.url+" "+up+"/hold"))
				answered <- a
			}()
			hosttest.Eventually(t, 10*time.Second, "the worker waits for its upstream", func() bool { return holds.Load() == 1 })
			for _, s := range h.Shards() {
				if len(s.Tenants) > 0 {
					syscall.Kill(s.PID, syscall.SIGKILL)
				}
			}
			a := <-answered
			want := int32(1)
			if c.again {
				want = 2
			}
			if ok := a.Status == 200 && a.Body == "done"; ok != c.again || c.counter.Load() != want {
				t.Errorf("answered %d %.200s; the upstream saw %d, want %d", a.Status, a.Body, c.counter.Load(), want)
			}
		})
	}
}
