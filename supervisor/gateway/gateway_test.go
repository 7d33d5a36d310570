package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead/schema/gen"
	"bulkhead/supervisor/observe"
	"bulkhead/supervisor/placement"
	"bulkhead/supervisor/tenants"
)

func TestRequestReachesItsTenantAsTheClientNamedIt(t *testing.T) {
	f := newFarm(t, nil)
	resp, body := f.request("PROPFIND", "/info/../info?q=%20é#not-sent", nil, func(r *http.Request) {
		r.URL.Path, r.URL.RawPath, r.URL.RawQuery = "", "", ""
		r.URL.Opaque = "/info?q=1%202"
		r.Header.Set("X-Kept", "yes")
		r.Header.Add("Cookie", "a=1")
		r.Header.Set("Bulkhead-Outcome", "forged")
		r.Header.Set("bulkhead-secret", "forged")
		r.Header.Set("Connection", "X-Hop, close")
		r.Header.Set("X-Hop", "not crossing")
		r.Header.Set("Te", "trailers")
		r.Header.Set("Upgrade", "h2c")
		r.Header.Set("Proxy-Authorization", "secret")
	})
	first, rest, _ := strings.Cut(body, "\n")
	if first != "PROPFIND http://a.localhost/info?q=1%202" {
		t.Errorf("the shard got %q", first)
	}
	for _, want := range []string{"host\na.localhost\n", "x-kept\nyes\n", "cookie\na=1\n"} {
		if !strings.Contains(rest, want) {
			t.Errorf("no %q in %q", want, rest)
		}
	}
	for _, not := range []string{"bulkhead", "forged", "x-hop", "connection", "te\n", "upgrade", "proxy-"} {
		if strings.Contains(rest, not) {
			t.Errorf("%q crossed: %q", not, rest)
		}
	}
	id := resp.Header.Get(headerRequestID)
	if len(id) != 24 || resp.Header.Get("X-Id") != id {
		t.Errorf("request id %q at the client, %q at the shard", id, resp.Header.Get("X-Id"))
	}
	if resp.Header.Get(headerOutcome) != "" {
		t.Error("a tenant's own answer carries an outcome")
	}
	f.outcomes("a", map[string]uint64{"ok": 1})
}

func TestResponseRules(t *testing.T) {
	f := newFarm(t, nil)
	for name, c := range map[string]struct {
		method, target string
		status         int
		body           string
		length         int64
		header         map[string]string // "" means absent
	}{
		"no content":                 {"GET", "/status?code=204&h=x-a|b|", 204, "", 0, map[string]string{"X-A": "b", "Content-Length": ""}},
		"a body with 204 is dropped": {"GET", "/status?code=204&body=no", 204, "", 0, nil},
		"a body with 304 is dropped": {"GET", "/status?code=304&body=no", 304, "", 0, nil},
		"head":                       {"HEAD", "/status?code=200&body=hello", 200, "", 5, nil},
		"head keeps the claim":       {"HEAD", "/status?code=200&h=content-length|99|", 200, "", 99, nil},
		"head of a stream":           {"HEAD", "/stream?n=100000000&cl=100000000", 200, "", 100000000, nil},
		"whole bodies have a length": {"GET", "/status?code=200&body=hello", 200, "hello", 5, nil},
		"a wrong claim is corrected": {"GET", "/status?code=200&body=hello&h=content-length|3|", 200, "hello", 5, nil},
		"no body":                    {"GET", "/status?code=200", 200, "", 0, nil},
		"claimed stream":             {"GET", "/stream?n=5&cl=5", 200, "xxxxx", 5, nil},
		"unclaimed stream":           {"GET", "/stream?n=5", 200, "xxxxx", -1, nil},
		"an unreadable claim":        {"GET", "/stream?n=5&cl=%2b5", 200, "xxxxx", -1, nil},
		"hygiene": {"GET", "/status?code=200&body=x&h=bulkhead-outcome|ok|connection|x-hop|x-hop|1|transfer-encoding|gzip|upgrade|foo|keep-alive|1|bulkhead-request-id|mine|set-cookie|a=1|set-cookie|b=2|", 200, "x", 1,
			map[string]string{"Bulkhead-Outcome": "", "X-Hop": "", "Upgrade": "", "Keep-Alive": "", "Content-Type": ""}},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := f.request(c.method, c.target, nil)
			if resp.StatusCode != c.status || body != c.body {
				t.Errorf("%d %q, want %d %q", resp.StatusCode, body, c.status, c.body)
			}
			if resp.ContentLength != c.length && c.status != 304 && c.status != 204 {
				t.Errorf("length %d, want %d", resp.ContentLength, c.length)
			}
			for k, want := range c.header {
				if got := resp.Header.Get(k); got != want {
					t.Errorf("%s: %q, want %q", k, got, want)
				}
			}
			if id := resp.Header.Get(headerRequestID); len(id) != 24 {
				t.Errorf("request id %q", id)
			}
			if name == "hygiene" && len(resp.Header["Set-Cookie"]) != 2 {
				t.Errorf("cookies %v", resp.Header["Set-Cookie"])
			}
		})
	}
	for range 100 {
		if f.aborts.count("/stream refused") == 1 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if f.aborts.count("/stream refused") != 1 {
		t.Error("the shard was not told that nobody wants a HEAD's body")
	}
}

// ours checks the form of an answer that is not the tenant's.
func ours(t *testing.T, resp *http.Response, body string, status int, outcome, tenant string) answerBody {
	t.Helper()
	if resp.StatusCode != status || resp.Header.Get(headerOutcome) != outcome {
		t.Errorf("%d %s, want %d %s", resp.StatusCode, resp.Header.Get(headerOutcome), status, outcome)
	}
	dec := json.NewDecoder(strings.NewReader(body))
	dec.DisallowUnknownFields()
	var a answerBody
	if err := dec.Decode(&a); err != nil {
		t.Fatalf("body %q: %v", body, err)
	}
	if a.Outcome != outcome || a.Tenant != tenant || a.Request != resp.Header.Get(headerRequestID) || len(a.Request) != 24 || a.Message == "" {
		t.Errorf("body %+v", a)
	}
	return a
}

func TestOutcomesBecomeAnswers(t *testing.T) {
	f := newFarm(t, nil)
	for outcome, status := range map[string]int{
		"exception": 500, "exceededCpu": 503, "exceededMemory": 503, "killed": 503, "exceededWallTime": 504, "loadShed": 429, "internalError": 500, "notLoaded": 500,
	} {
		resp, body := f.request("GET", "/end?o="+outcome+"&m=secret+of+the+tenant%0Asecond+line", nil)
		a := ours(t, resp, body, status, outcome, "a")
		shown := strings.HasPrefix(outcome, "exceeded") || outcome == "loadShed"
		if strings.Contains(a.Message, "secret") != shown || strings.Contains(a.Message, "second") {
			t.Errorf("%s: message %q", outcome, a.Message)
		}
		if (resp.Header.Get("Retry-After") != "") != (outcome == "loadShed") {
			t.Errorf("%s: Retry-After %q", outcome, resp.Header.Get("Retry-After"))
		}
	}
	resp, body := f.request("GET", "/x", nil, host("nobody.localhost"))
	ours(t, resp, body, 404, "scriptNotFound", "")

	f.add("a", func(v *tenants.Version) { v.Dev = true })
	resp, body = f.request("GET", "/end?o=exception&m=Error:+boom%0A+at+worker.js:3:7", nil)
	if a := ours(t, resp, body, 500, "exception", "a"); !strings.Contains(a.Message, "worker.js:3:7") {
		t.Errorf("dev hides the stack: %q", a.Message)
	}
}

func TestStartErrorIsTheAnswerInDevOnly(t *testing.T) {
	f := newFarm(t, nil)
	broken := func(dev bool) func(*tenants.Version) {
		return func(v *tenants.Version) {
			v.Dev = dev
			v.Err = &tenants.StartError{Tenant: "a", Step: tenants.StepBundle, Outcome: gen.Outcome_notLoaded,
				Diagnostics: []tenants.Diagnostic{{File: "src/index.ts", Line: 3, Column: 7, Excerpt: "let x = <script>", Message: "Unexpected <"}}}
		}
	}
	f.add("a", broken(false))
	resp, body := f.request("GET", "/", nil)
	if a := ours(t, resp, body, 500, "notLoaded", "a"); strings.Contains(a.Message, "index.ts") {
		t.Errorf("the place is shown: %q", a.Message)
	}
	f.add("a", broken(true))
	resp, body = f.request("GET", "/", nil)
	if resp.StatusCode != 500 || !strings.Contains(body, "src/index.ts:3:7: Unexpected <\n  | let x = <script>") {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	resp, body = f.request("GET", "/", nil, func(r *http.Request) { r.Header.Set("Accept", "text/html") })
	if !strings.Contains(body, "let x = &lt;script&gt;") || strings.Contains(body, "<script>") || resp.Header.Get("Content-Security-Policy") == "" {
		t.Errorf("the page does not quote the excerpt: %s", body)
	}
	if resp.Header.Get(headerOutcome) != "notLoaded" || resp.Header.Get(headerRequestID) == "" {
		t.Errorf("headers %v", resp.Header)
	}
}

func TestBodies(t *testing.T) {
	f := newFarm(t, nil)
	for _, n := range []int{0, 1, 1000, 64 << 10, 64<<10 + 1, 300_000, 5 << 20} {
		for _, chunked := range []bool{false, true} {
			body := io.Reader(strings.NewReader(strings.Repeat("y", n)))
			if chunked {
				body = io.MultiReader(body) // hides the length
			}
			if resp, text := f.request("POST", "/upload", body); resp.StatusCode != 200 || text != fmt.Sprint(n) {
				t.Errorf("%d bytes, chunked %v: %d %q", n, chunked, resp.StatusCode, text)
			}
		}
		if _, text := f.request("GET", fmt.Sprintf("/stream?n=%d", n), nil); len(text) != n {
			t.Errorf("%d bytes down: got %d", n, len(text))
		}
	}
	if _, text := f.request("POST", "/echo", strings.NewReader("hello")); text != "hello" {
		t.Errorf("echo: %q", text)
	}
}

// A large body both ways leaves the gateway's memory as it was, also behind a client that stops
// reading and a worker that stops reading.
func TestLargeAndStalledBodiesLeaveMemoryFlat(t *testing.T) {
	f := newFarm(t, nil)
	f.request("GET", "/info", nil)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	const n = 100 << 20
	resp, err := http.Get("http://" + f.addr + "/") // warm the client
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	var stalled []net.Conn
	for range 10 {
		c := f.dial()
		fmt.Fprintf(c, "GET /stream?n=%d HTTP/1.1\r\nHost: a.localhost\r\n\r\n", n)
		stalled = append(stalled, c)
		c = f.dial()
		fmt.Fprintf(c, "POST /stall HTTP/1.1\r\nHost: a.localhost\r\nContent-Length: %d\r\n\r\n", n)
		go func() { io.CopyN(c, zeros{}, n) }()
	}
	time.Sleep(200 * time.Millisecond)
	if during := heap(); during > before+24<<20 {
		t.Errorf("heap went from %d to %d MB with 20 stalled bodies", before>>20, during>>20)
	}
	r, err := http.NewRequest("GET", fmt.Sprintf("http://%s/stream?n=%d", f.addr, n), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "b.localhost"
	resp, err = http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.Copy(io.Discard, resp.Body); got != n || err != nil {
		t.Errorf("down: %d bytes, %v", got, err)
	}
	resp.Body.Close()
	r, err = http.NewRequest("POST", "http://"+f.addr+"/upload", io.LimitReader(zeros{}, n))
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "b.localhost"
	resp, err = http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(resp.Body); string(b) != fmt.Sprint(n) {
		t.Errorf("up: %q", b)
	}
	resp.Body.Close()
	if after := heap(); after > before+24<<20 {
		t.Errorf("heap went from %d to %d MB over 200 MB of bodies", before>>20, after>>20)
	}
	for _, c := range stalled {
		c.Close()
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func (f *farm) dial() net.Conn {
	f.t.Helper()
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// What a worker has written reaches the client at once, not when a buffer is full.
func TestFirstChunkIsNotHeldBack(t *testing.T) {
	f := newFarm(t, nil)
	c := f.dial()
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprint(c, "GET /first HTTP/1.1\r\nHost: a.localhost\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 5)
	if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != "first" {
		t.Fatalf("%q %v", buf, err)
	}
	c.Close()
	f.outcomes("a", map[string]uint64{"canceled": 1})
	if f.aborts.count("/first clientGone") != 1 {
		t.Error("the shard was not told that the client left")
	}
}

func TestClientGone(t *testing.T) {
	f := newFarm(t, nil)
	for path, body := range map[string]string{"/hang": "", "/stall": "Content-Length: 10000000\r\n"} {
		c := f.dial()
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: a.localhost\r\n%s\r\n", path, body)
		time.Sleep(50 * time.Millisecond)
		c.Close()
	}
	for range 200 {
		if f.aborts.count("/hang clientGone") == 1 && f.aborts.count("/stall failed")+f.aborts.count("/stall clientGone") == 1 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if f.aborts.count("/hang clientGone") != 1 {
		t.Error("the shard was not told that the client of /hang left")
	}
	if f.aborts.count("/stall failed")+f.aborts.count("/stall clientGone") != 1 {
		t.Error("the shard was not told that the upload ended early")
	}
	for range 100 {
		if f.server.Running() == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d invocations still count as running", f.server.Running())
}

// A client that closes only its sending half still reads; an empty 200 would be a lie.
func TestHalfClosedClientGetsNoFalseAnswer(t *testing.T) {
	f := newFarm(t, nil)
	c := f.dial().(*net.TCPConn)
	fmt.Fprint(c, "GET /hang HTTP/1.1\r\nHost: a.localhost\r\n\r\n")
	time.Sleep(50 * time.Millisecond)
	c.CloseWrite()
	b, _ := io.ReadAll(c)
	if len(b) != 0 {
		t.Errorf("it got %q", b)
	}
}

// A response that fails after its head is cut where the client can see it.
func TestBrokenResponsesAreVisible(t *testing.T) {
	for target, outcome := range map[string]string{
		"/broken": "exception", "/halfdie": "crashed", "/stream?n=5&cl=9": "exception", "/stream?n=9&cl=5": "exception",
	} {
		t.Run(target, func(t *testing.T) {
			f := newFarm(t, nil)
			resp, body, err := f.try("GET", target, nil)
			if err == nil && (resp.ContentLength < 0 || int64(len(body)) == resp.ContentLength) && target != "/stream?n=9&cl=5" {
				t.Errorf("the client believes %q (%d)", body, resp.ContentLength)
			}
			f.outcomes("a", map[string]uint64{outcome: 1})
		})
	}
}

func TestShardDeathIsRetriedOnceWithoutEffect(t *testing.T) {
	f := newFarm(t, nil)
	resp, body := f.request("POST", "/die?once=1", strings.NewReader("small"))
	if resp.StatusCode != 200 || body != "attempt 2" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	resp, body = f.request("GET", "/die", nil)
	ours(t, resp, body, 502, "crashed", "a")
	// A streamed body is gone with the shard: no second try.
	resp, body = f.request("POST", "/die?once=1", io.MultiReader(strings.NewReader("streamed")))
	ours(t, resp, body, 502, "crashed", "a")
	// The neighbour is served on.
	if resp, _ := f.request("GET", "/info", nil, host("b.localhost")); resp.StatusCode != 200 {
		t.Errorf("b: %d", resp.StatusCode)
	}
	f.incidents(4, func(i observe.Incident) error {
		if i.Kind != observe.ShardDied || fmt.Sprint(i.Tenants) != "[a]" || i.Signal == nil || *i.Signal != "SIGSEGV" || i.Outcome != "crashed" {
			return fmt.Errorf("%+v", i)
		}
		return nil
	})
}

// incidents waits for n of them and checks each.
func (f *farm) incidents(n int, check func(observe.Incident) error) {
	f.t.Helper()
	var list []observe.Incident
	for range 300 {
		if list = f.obs.Incidents.List(); len(list) >= n {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if len(list) != n {
		f.t.Fatalf("%d incidents, want %d: %+v", len(list), n, list)
	}
	for _, i := range list {
		if err := check(i); err != nil {
			f.t.Errorf("incident: %v", err)
		}
	}
}

func TestProtocolViolationEndsTheShardNotTheGateway(t *testing.T) {
	f := newFarm(t, nil)
	f.request("GET", "/info", nil, host("b.localhost"))
	resp, body := f.request("GET", "/forge", nil)
	ours(t, resp, body, 502, "protocolViolation", "a")
	f.incidents(1, func(i observe.Incident) error {
		if i.Kind != observe.ShardViolation || fmt.Sprint(i.Tenants) != "[a b]" || i.Outcome != "protocolViolation" {
			return fmt.Errorf("%+v", i)
		}
		return nil
	})
	if resp, _ := f.request("GET", "/info", nil, host("b.localhost")); resp.StatusCode != 200 || resp.Header.Get("X-Shard") == "1" {
		t.Errorf("b: %d in shard %s", resp.StatusCode, resp.Header.Get("X-Shard"))
	}
}

func TestNoShardIsAClearAnswer(t *testing.T) {
	f := newFarm(t, nil)
	err := error(errors.New("launcher: step cgroup: permission denied"))
	f.spawnErr.Store(&err)
	resp, body := f.request("GET", "/info", nil)
	ours(t, resp, body, 500, "internalError", "a")
	f.spawnErr.Store(nil)
	for range 100 {
		if resp, _ = f.request("GET", "/info", nil); resp.StatusCode == 200 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("no recovery: %d", resp.StatusCode)
}

func TestConcurrencyCaps(t *testing.T) {
	f := newFarm(t, func(o *Options, _ *placement.Options) { o.MaxRunning = 3 })
	f.add("a", func(v *tenants.Version) { v.Limits.Concurrent = 2 })
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { f.request("GET", "/slow?ms=600", nil) })
	}
	f.running(2)
	resp, body := f.request("GET", "/info", nil)
	if a := ours(t, resp, body, 429, "loadShed", "a"); resp.Header.Get("Retry-After") != "1" || !strings.Contains(a.Message, "2") {
		t.Errorf("%v %q", resp.Header, a.Message)
	}
	// The neighbour has room until the host has none.
	if resp, _ := f.request("GET", "/info", nil, host("b.localhost")); resp.StatusCode != 200 {
		t.Errorf("b: %d", resp.StatusCode)
	}
	wg.Go(func() { f.request("GET", "/slow?ms=300", nil, host("b.localhost")) })
	f.running(3)
	resp, body = f.request("GET", "/info", nil, host("b.localhost"))
	ours(t, resp, body, 429, "loadShed", "b")
	wg.Wait()
	f.running(0)
	if resp, _ := f.request("GET", "/info", nil); resp.StatusCode != 200 {
		t.Errorf("afterwards: %d", resp.StatusCode)
	}
}

func (f *farm) running(n int64) {
	f.t.Helper()
	for range 500 {
		if f.server.Running() == n {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	f.t.Fatalf("%d running, want %d", f.server.Running(), n)
}

// waitUntil holds the slot and the lease, not the client.
func TestWaitUntilOutlivesTheResponse(t *testing.T) {
	f := newFarm(t, nil)
	began := time.Now()
	if _, body := f.request("GET", "/late?ms=400", nil); body != "early" {
		t.Errorf("body %q", body)
	}
	if d := time.Since(began); d > 300*time.Millisecond {
		t.Errorf("the client waited %v", d)
	}
	f.running(1)
	if _, busy := f.pool.Evict("a"); busy != 1 {
		t.Error("a tenant with waitUntil running was evicted")
	}
	f.running(0)
	f.outcomes("a", map[string]uint64{"ok": 1})
}

func TestNewVersionServesBesideTheOld(t *testing.T) {
	f := newFarm(t, nil)
	var wg sync.WaitGroup
	wg.Go(func() {
		if resp, body := f.request("GET", "/slow?ms=300", nil); resp.StatusCode != 200 || body != "slow" {
			t.Errorf("the old version's request: %d %q", resp.StatusCode, body)
		}
	})
	f.running(1)
	f.add("a", func(v *tenants.Version) { v.Hash = "new" })
	if resp, _ := f.request("GET", "/info", nil); resp.StatusCode != 200 {
		t.Errorf("the new version: %d", resp.StatusCode)
	}
	if n := len(f.pool.Tenants()["a"]); n != 2 {
		t.Errorf("%d versions side by side, want 2", n)
	}
	wg.Wait()
	for range 200 {
		if ws := f.pool.Tenants()["a"]; len(ws) == 1 && ws[0].Version.Hash == "new" {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("the old version was not evicted: %+v", f.pool.Tenants()["a"])
}

func TestDrain(t *testing.T) {
	f := newFarm(t, nil)
	keep := f.dial()
	fmt.Fprint(keep, "GET /info HTTP/1.1\r\nHost: a.localhost\r\n\r\n")
	kr := bufio.NewReader(keep)
	if resp, err := http.ReadResponse(kr, nil); err != nil {
		t.Fatal(err)
	} else {
		io.Copy(io.Discard, resp.Body)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if resp, body := f.request("GET", "/slow?ms=500", nil); resp.StatusCode != 200 || body != "slow" {
			t.Errorf("in flight: %d %q", resp.StatusCode, body)
		}
	})
	wg.Go(func() { f.request("GET", "/late?ms=500", nil) })
	f.running(2)
	drained := make(chan error, 1)
	go func() { drained <- f.server.Drain(context.Background()) }()
	time.Sleep(50 * time.Millisecond)
	resp, body := f.request("GET", "/info", nil)
	ours(t, resp, body, 429, "loadShed", "")
	if resp.Header.Get("Retry-After") == "" || !resp.Close {
		t.Errorf("Retry-After %q, Connection close %v", resp.Header.Get("Retry-After"), resp.Close)
	}
	// A connection kept alive from before is told as well.
	fmt.Fprint(keep, "GET /info HTTP/1.1\r\nHost: a.localhost\r\n\r\n")
	if resp, err := http.ReadResponse(kr, nil); err != nil || resp.StatusCode != 429 || !resp.Close {
		t.Errorf("kept alive: %v %v", resp, err)
	}
	select {
	case <-drained:
		t.Error("drained before its requests had ended")
	default:
	}
	wg.Wait()
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if err := <-f.serve; err != nil {
		t.Error(err)
	}
}

func TestExpectContinue(t *testing.T) {
	f := newFarm(t, nil)
	for _, n := range []int{5, 200_000} {
		c := f.dial()
		fmt.Fprintf(c, "POST /upload HTTP/1.1\r\nHost: a.localhost\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", n)
		br := bufio.NewReader(c)
		if line, err := br.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("%q %v", line, err)
		}
		br.ReadString('\n')
		io.CopyN(c, zeros{}, int64(n))
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(resp.Body); string(b) != fmt.Sprint(n) {
			t.Errorf("%q", b)
		}
	}
	// Nobody there to read it: no invitation.
	c := f.dial()
	fmt.Fprint(c, "POST /upload HTTP/1.1\r\nHost: nobody.localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 404 {
		t.Errorf("%v %v", resp, err)
	}
}

func TestIndex(t *testing.T) {
	f := newFarm(t, nil)
	f.add("broken", func(v *tenants.Version) {
		v.Err = &tenants.StartError{Tenant: "broken", Step: tenants.StepBundle, Diagnostics: []tenants.Diagnostic{{File: "w.js", Line: 1, Message: "no <b>"}}}
	})
	f.request("GET", "/info", nil)
	for _, name := range []string{"localhost", "127.0.0.1", "LOCALHOST:80", "[::1]:80"} {
		resp, body := f.request("GET", "/", nil, host(name))
		if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") || resp.Header.Get(headerRequestID) == "" {
			t.Errorf("%s: %d %v", name, resp.StatusCode, resp.Header)
		}
		for _, want := range []string{`href="http://a.localhost`, `<li class="live">`, `<li class="failed">`, "w.js:1: no &lt;b&gt;", "1 request<"} {
			if !strings.Contains(body, want) {
				t.Errorf("%s: no %q in the page", name, want)
			}
		}
		if strings.Contains(body, "src=") || strings.Contains(body, "@import") {
			t.Error("the page loads something")
		}
	}
	resp, body := f.request("GET", "/nothing", nil, host("localhost"))
	ours(t, resp, body, 404, "scriptNotFound", "")
	resp, body = f.request("POST", "/", nil, host("localhost"))
	ours(t, resp, body, 405, "scriptNotFound", "")
	f.server.opt.Index = false
	resp, body = f.request("GET", "/", nil, host("localhost"))
	ours(t, resp, body, 404, "scriptNotFound", "")
}
