package gateway

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"bulkhead/schema/gen"
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
	until(t, "the shard is told that nobody wants a HEAD's body", func() bool { return f.aborts.count("/stream refused") == 1 })
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
	for _, id := range []string{"a", "b"} {
		f.add(id, func(v *tenants.Version) { v.Limits.Wall = 10 * time.Minute }) // a busy machine's
	}
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
	// Of each upload whose response has not begun, the beginning is kept for a replay.
	if during := heap(); during > before+24<<20+10*2*maxKept {
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
	c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

// What a worker has written reaches the client at once, not when a buffer is full.
func TestFirstChunkIsNotHeldBack(t *testing.T) {
	f := newFarm(t, nil)
	c := f.dial()
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
	until(t, "the shard is told that the client left", func() bool { return f.aborts.count("/first clientGone") == 1 })
}

func TestClientGone(t *testing.T) {
	f := newFarm(t, nil)
	for path, body := range map[string]string{"/hang": "", "/stall": "Content-Length: 10000000\r\n"} {
		c := f.dial()
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: a.localhost\r\n%s\r\n", path, body)
		f.reached(path, 1) // who leaves earlier is nothing a shard is told of
		c.Close()
	}
	until(t, "the shard is told that the client of /hang left", func() bool { return f.aborts.count("/hang clientGone") == 1 })
	until(t, "the shard is told that the upload ended early", func() bool {
		return f.aborts.count("/stall failed")+f.aborts.count("/stall clientGone") == 1
	})
	f.running(0)
}

// A client that closes only its sending half still reads; an empty 200 would be a lie.
func TestHalfClosedClientGetsNoFalseAnswer(t *testing.T) {
	f := newFarm(t, nil)
	c := f.dial().(*net.TCPConn)
	fmt.Fprint(c, "GET /hang HTTP/1.1\r\nHost: a.localhost\r\n\r\n")
	f.reached("/hang", 1)
	c.CloseWrite()
	b, err := io.ReadAll(c)
	if len(b) != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("it got %q, %v", b, err)
	}
}
