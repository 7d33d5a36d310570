package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/supervisor/placement"
	"bulkhead/supervisor/tenants"
)

// A client that announces a body and never sends it gets its refusal soon, and its connection is
// not held for ever: net/http would read such a body, without a deadline, before it answers.
func TestRefusalDoesNotWaitForABody(t *testing.T) {
	for name, c := range map[string]struct {
		head   string
		status string
	}{
		"unknown host, length":   {"POST / HTTP/1.1\r\nHost: nobody.localhost\r\nContent-Length: 100\r\n\r\n", "404"},
		"unknown host, chunked":  {"POST / HTTP/1.1\r\nHost: nobody.localhost\r\nTransfer-Encoding: chunked\r\n\r\n", "404"},
		"unknown host, half":     {"POST / HTTP/1.1\r\nHost: nobody.localhost\r\nContent-Length: 100\r\n\r\nhalf", "404"},
		"index page":             {"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n", "200"},
		"broken worker":          {"POST / HTTP/1.1\r\nHost: broken.localhost\r\nContent-Length: 100\r\n\r\n", "500"},
		"broken worker, chunked": {"POST / HTTP/1.1\r\nHost: broken.localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "500"},
		"too busy":               {"POST / HTTP/1.1\r\nHost: busy.localhost\r\nContent-Length: 100000\r\n\r\n", "429"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFarm(t, nil)
			f.add("broken", func(v *tenants.Version) { v.Err = &tenants.StartError{Tenant: "broken", Step: tenants.StepBundle} })
			f.add("busy", func(v *tenants.Version) { v.Limits.Concurrent = 1 })
			f.obs.Metrics.Tenant("busy").Running.Add(1)
			defer f.obs.Metrics.Tenant("busy").Running.Add(-1)
			conn, err := net.Dial("tcp", f.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprint(conn, c.head)
			conn.SetReadDeadline(time.Now().Add(30 * time.Second))
			line, err := bufio.NewReader(conn).ReadString('\n')
			if err != nil || !strings.Contains(line, c.status) {
				t.Fatalf("%q, %v", line, err)
			}
			until(t, "the connection is given up", func() bool { return f.server.conns.Load() == 0 })
		})
	}
}

// The same while the host drains: the drain ends.
func TestDrainDoesNotWaitForABody(t *testing.T) {
	f := newFarm(t, nil)
	conn, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: nobody.localhost\r\nContent-Length: 100\r\n\r\n")
	until(t, "the request has come", f.server.asked.Load)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := f.server.Drain(ctx); err != nil {
		t.Errorf("drain: %v", err)
	}
}

// Bodies that do come are still read, so that clients that send everything first get the answer,
// and the connection lives on.
func TestRefusalReadsABodyThatComes(t *testing.T) {
	f := newFarm(t, func(o *Options, _ *placement.Options) { o.unreadBody = 30 * time.Second })
	conn, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for range 2 {
		fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: nobody.localhost\r\nContent-Length: 4\r\n\r\n")
		time.Sleep(20 * time.Millisecond)
		fmt.Fprint(conn, "body")
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != 404 {
			t.Fatalf("%v, %v", resp, err)
		}
		resp.Body.Close()
		r.Discard(r.Buffered())
	}
}

// Tenants that keep all their requests waiting cannot take the last place on the host from one
// that asks for little.
func TestManyGreedyTenantsLeaveRoom(t *testing.T) {
	f := newFarm(t, func(o *Options, _ *placement.Options) { o.MaxRunning = 40 })
	for i := range 4 {
		f.add(fmt.Sprintf("greedy%d", i), func(v *tenants.Version) { v.Limits.Concurrent = 1000 })
	}
	for i := range 80 {
		conn, err := net.Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET /hang HTTP/1.1\r\nHost: greedy%d.localhost\r\n\r\n", i%4)
	}
	until(t, "all run, or are refused", func() bool {
		n := uint64(f.server.Running())
		for i := range 4 {
			_, outcomes := f.obs.Metrics.Requests(fmt.Sprintf("greedy%d", i))
			n += outcomes["loadShed"]
		}
		return n == 80
	})
	if resp, _ := f.request("GET", "/info", nil, host("b.localhost")); resp.StatusCode != 200 {
		t.Errorf("the modest tenant got %d with %d running", resp.StatusCode, f.server.Running())
	}
}

// Who fills the host with connections on which nothing happens loses those, not everybody's turn.
func TestIdleConnectionsGiveWay(t *testing.T) {
	f := newFarm(t, func(o *Options, _ *placement.Options) { o.MaxConns = 20 })
	f.request("GET", "/info", nil) // nobody waits for the load below
	var closed atomic.Int64
	for i := range 60 {
		conn, err := net.Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if i%2 == 0 {
			fmt.Fprint(conn, "GET /info HTTP/1.1\r\nHost: a.localhost\r\n\r\n")
		}
		go func() {
			io.Copy(io.Discard, conn)
			closed.Add(1)
		}()
	}
	until(t, "40 of 60 are closed, and nothing happens on the others", func() bool {
		f.server.guards.mu.Lock()
		defer f.server.guards.mu.Unlock()
		for g := range f.server.guards.set {
			if g.handling.Load() {
				return false
			}
		}
		return closed.Load() >= 40
	})
	for i := range 5 {
		if resp, _, err := f.try("GET", "/info", nil, host("b.localhost")); err != nil || resp.StatusCode != 200 {
			t.Errorf("request %d: %v %v", i, resp, err)
		}
	}
	if n := f.server.conns.Load(); n > 20 {
		t.Errorf("%d connections", n)
	}
}

// A request that another server passed on does not come from this machine's user.
func TestIndexIsNotForProxies(t *testing.T) {
	f := newFarm(t, nil)
	for _, name := range []string{"X-Forwarded-For", "Forwarded", "Via", "X-Real-Ip", "X-Forwarded-Host"} {
		resp, body := f.request("GET", "/", nil, host("localhost"), func(r *http.Request) { r.Header.Set(name, "203.0.113.7") })
		if resp.StatusCode != 404 {
			t.Errorf("%s: %d %.100q", name, resp.StatusCode, body)
		}
	}
	if resp, _ := f.request("GET", "/", nil, host("localhost")); resp.StatusCode != 200 {
		t.Errorf("without: %d", resp.StatusCode)
	}
}

// A port that no URL can hold is refused here, not by the worker's URL parser.
func TestImpossiblePorts(t *testing.T) {
	for h, ok := range map[string]bool{"a.localhost:65535": true, "a.localhost:65536": false, "a.localhost:99999": false, "a.localhost:": true, "a.localhost:00080": true} {
		if plainHost(h) != ok {
			t.Errorf("plainHost(%q) = %v", h, !ok)
		}
	}
}

// A compromised shard sends content where HTTP has none: the client must not take it for the next
// response.
func TestNoContentMeansNone(t *testing.T) {
	f := newFarm(t, nil)
	for _, status := range []int{204, 205, 304} {
		for _, headers := range []string{"", "content-length|4|", "transfer-encoding|chunked|"} {
			conn, err := net.Dial("tcp", f.addr)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(conn, "GET /status?code=%d&body=HTTP/1.1+200&h=%s HTTP/1.1\r\nHost: a.localhost\r\nConnection: close\r\n\r\n", status, headers)
			all, err := io.ReadAll(conn)
			conn.Close()
			head, body, ok := strings.Cut(string(all), "\r\n\r\n")
			if err != nil || !ok || body != "" || strings.Contains(head, "chunked") || status == 205 && !strings.Contains(head, "Content-Length: 0") {
				t.Errorf("%d with %q: %q %v", status, headers, all, err)
			}
		}
	}
}

func TestResponseValuesHoldNoControlCharacters(t *testing.T) {
	f := newFarm(t, nil)
	resp, _ := f.request("GET", "/status?code=200&body=x&h=x-bad|a%01b|x-del|%7f|x-esc|%1b[2J|x-tab|a%09b|x-latin|%e9|", nil)
	if h := resp.Header; h["X-Bad"] != nil || h["X-Del"] != nil || h["X-Esc"] != nil || h.Get("X-Tab") != "a\tb" || h.Get("X-Latin") != "\xe9" {
		t.Errorf("%q", resp.Header)
	}
}
