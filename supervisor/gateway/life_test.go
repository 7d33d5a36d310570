package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead/supervisor/observe"
	"bulkhead/supervisor/placement"
	"bulkhead/supervisor/tenants"
)

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

// incidents waits for n of them and checks each.
func (f *farm) incidents(n int, check func(observe.Incident) error) {
	f.t.Helper()
	var list []observe.Incident
	until(f.t, fmt.Sprintf("%d incidents", n), func() bool { list = f.obs.Incidents.List(); return len(list) >= n })
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
	// Who did it cannot be told from such a shard; a, tried once more by itself, shows it.
	f.incidents(2, func(i observe.Incident) error {
		if i.Kind != observe.ShardViolation || fmt.Sprint(i.Tenants) != "[a b]" && fmt.Sprint(i.Tenants) != "[a]" || i.Outcome != "protocolViolation" {
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
	until(t, "recovery", func() bool { resp, _ = f.request("GET", "/info", nil); return resp.StatusCode == 200 })
}

func TestConcurrencyCaps(t *testing.T) {
	f := newFarm(t, func(o *Options, _ *placement.Options) { o.MaxRunning = 3 })
	f.add("a", func(v *tenants.Version) { v.Limits.Concurrent = 2 })
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { f.request("GET", "/held", nil) })
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
	wg.Go(func() { f.request("GET", "/held", nil, host("b.localhost")) })
	f.running(3)
	resp, body = f.request("GET", "/info", nil, host("b.localhost"))
	ours(t, resp, body, 429, "loadShed", "b")
	f.letGo()
	wg.Wait()
	f.running(0)
	if resp, _ := f.request("GET", "/info", nil); resp.StatusCode != 200 {
		t.Errorf("afterwards: %d", resp.StatusCode)
	}
}

func (f *farm) running(n int64) {
	f.t.Helper()
	until(f.t, fmt.Sprintf("%d requests run", n), func() bool { return f.server.Running() == n })
}

// waitUntil holds the slot and the lease, not the client.
func TestWaitUntilOutlivesTheResponse(t *testing.T) {
	f := newFarm(t, nil)
	if _, body := f.request("GET", "/late", nil); body != "early" { // which comes before letGo
		t.Errorf("body %q", body)
	}
	f.running(1)
	if _, busy := f.pool.Evict("a"); busy != 1 {
		t.Error("a tenant with waitUntil running was evicted")
	}
	f.letGo()
	f.running(0)
	f.outcomes("a", map[string]uint64{"ok": 1})
}

func TestNewVersionServesBesideTheOld(t *testing.T) {
	f := newFarm(t, nil)
	var wg sync.WaitGroup
	wg.Go(func() {
		if resp, body := f.request("GET", "/held", nil); resp.StatusCode != 200 || body != "held" {
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
	f.letGo()
	wg.Wait()
	until(t, "the old version is evicted", func() bool {
		ws := f.pool.Tenants()["a"]
		return len(ws) == 1 && ws[0].Version.Hash == "new"
	})
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
		if resp, body := f.request("GET", "/held", nil); resp.StatusCode != 200 || body != "held" {
			t.Errorf("in flight: %d %q", resp.StatusCode, body)
		}
	})
	wg.Go(func() { f.request("GET", "/late", nil) })
	f.running(2)
	drained := make(chan error, 1)
	go func() { drained <- f.server.Drain(context.Background()) }()
	until(t, "it drains", f.server.draining.Load)
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
	f.letGo()
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
	// A request is counted when its outcome is known, which may be after its answer; so may the end of
	// the load that it was sent with.
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if _, page := f.request("GET", "/", nil, host("localhost")); strings.Contains(page, "1 request<") && strings.Contains(page, `class="live"`) {
			break
		}
	}
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
