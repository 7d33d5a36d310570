package gateway

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"bulkhead/policy/limits"
	"bulkhead/supervisor/observe"
	"bulkhead/supervisor/tenants"
)

// unsized hides a body's length, so that it is sent in chunks.
func unsized(n int) io.Reader { return io.MultiReader(strings.NewReader(strings.Repeat("x", n))) }

// Every limit that is the gateway's to hold: what the client is told, how it is counted, and that
// the tenant's log says which limit it was and by how much it was exceeded.
func TestLimits(t *testing.T) {
	for _, c := range []struct {
		name    string
		set     func(*limits.Tenant)
		method  string
		target  string
		body    io.Reader
		header  int // bytes of a field sent along
		status  int // 0: the response is cut
		outcome string
		message string // regular expression, of the answer and of the log
	}{
		{"announced request body", func(l *limits.Tenant) { l.RequestBody = 4 << 10 }, "POST", "/echo", strings.NewReader(strings.Repeat("x", 5000)), 0,
			413, "loadShed", `^the request's body is over the limit \(requestBody\): it has 5000, allowed are 4KiB$`},
		{"announced and large", func(l *limits.Tenant) { l.RequestBody = 256 << 10 }, "POST", "/count", strings.NewReader(strings.Repeat("x", 1<<20)), 0,
			413, "loadShed", `\(requestBody\): it has 1MiB, allowed are 256KiB$`},
		{"streamed request body", func(l *limits.Tenant) { l.RequestBody = 1 << 20 }, "POST", "/count", unsized(2 << 20), 0,
			413, "canceled", `\(requestBody\): it has at least \d.*, allowed are 1MiB$`},
		{"streamed by one byte", func(l *limits.Tenant) { l.RequestBody = 70_000 }, "POST", "/count", unsized(70_001), 0,
			413, "canceled", `\(requestBody\): it has at least 70001, allowed are 70000$`},
		{"streamed, response under way", func(l *limits.Tenant) { l.RequestBody = 70_000 }, "POST", "/first", unsized(200_000), 0,
			0, "canceled", `\(requestBody\): it has at least`},
		{"request head", func(l *limits.Tenant) { l.HeaderBytes = 2 << 10 }, "GET", "/info", nil, 2100,
			431, "loadShed", `^the request's head is over the limit \(headers\): it has \d+, allowed are 2KiB$`},
		{"response head", func(l *limits.Tenant) { l.HeaderBytes = 1 << 10 }, "GET", "/status?code=200&h=x-large|" + strings.Repeat("y", 1024) + "|", nil, 0,
			500, "exception", `^the response's head is over the limit \(headers\): it has \d+, allowed are 1KiB$`},
		{"response body", func(l *limits.Tenant) { l.ResponseBody = 100_000 }, "GET", "/stream?n=100001", nil, 0,
			0, "exception", `\(responseBody\): it has at least \d+, allowed are 100000$`},
		{"announced response body", func(l *limits.Tenant) { l.ResponseBody = 100_000 }, "GET", "/stream?n=100001&cl=100001", nil, 0,
			500, "exception", `\(responseBody\): it has 100001, allowed are 100000$`},
		{"whole response body", func(l *limits.Tenant) { l.ResponseBody = 10 }, "GET", "/status?code=200&body=12345678901", nil, 0,
			500, "exception", `\(responseBody\): it has 11, allowed are 10$`},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFarm(t, nil)
			f.add("a", func(v *tenants.Version) { c.set(&v.Limits) })
			resp, body, err := f.try(c.method, c.target, c.body, func(r *http.Request) {
				if c.header > 0 {
					r.Header.Set("X-Large", strings.Repeat("y", c.header))
				}
			})
			message := regexp.MustCompile(c.message)
			switch {
			case c.status == 0 && err == nil:
				t.Errorf("the client believes that it has everything: %d, %d bytes", resp.StatusCode, len(body))
			case c.status != 0 && err != nil:
				t.Fatal(err)
			case c.status != 0:
				if said := ours(t, resp, body, c.status, c.outcome, "a").Message; !message.MatchString(said) {
					t.Errorf("message: %s", said)
				}
			}
			f.outcomes("a", map[string]uint64{c.outcome: 1})
			if lines := f.obs.Logs.Read("a", 0); len(lines) != 1 || !message.MatchString(lines[0].Text) || lines[0].Request == "" || lines[0].Version != "h-a" {
				t.Errorf("the tenant's log: %+v", lines)
			}
			// The next request is served as if nothing had been.
			f.add("a", nil)
			if resp, _ := f.request("GET", "/info", nil); resp.StatusCode != 200 {
				t.Errorf("afterwards: %d", resp.StatusCode)
			}
		})
	}
}

// What is within a limit to the byte passes.
func TestLimitsAreExact(t *testing.T) {
	f := newFarm(t, nil)
	f.add("a", func(v *tenants.Version) { v.Limits.RequestBody, v.Limits.ResponseBody = 70_000, 70_000 })
	for _, body := range []io.Reader{unsized(70_000), strings.NewReader(strings.Repeat("x", 70_000))} {
		if resp, text := f.request("POST", "/count", body); resp.StatusCode != 200 || text != "70000" {
			t.Errorf("%d %.50s", resp.StatusCode, text)
		}
	}
	for _, target := range []string{"/stream?n=70000", "/stream?n=70000&cl=70000"} {
		if resp, text := f.request("GET", target, nil); resp.StatusCode != 200 || len(text) != 70_000 {
			t.Errorf("%s: %d, %d bytes", target, resp.StatusCode, len(text))
		}
	}
	if resp, _ := f.request("HEAD", "/stream?n=0&cl=99999", nil); resp.StatusCode != 200 {
		t.Errorf("HEAD of something large: %d", resp.StatusCode)
	}
	f.outcomes("a", map[string]uint64{"ok": 5})
}

func TestConcurrencyLimitSaysLimitAndUse(t *testing.T) {
	f := newFarm(t, nil)
	f.add("a", func(v *tenants.Version) { v.Limits.Concurrent = 2 })
	done := make(chan struct{})
	for range 2 {
		go func() { f.try("GET", "/held", nil); done <- struct{}{} }()
	}
	f.running(2)
	resp, body := f.request("GET", "/info", nil)
	if said := ours(t, resp, body, 429, "loadShed", "a").Message; said != "the number of this worker's requests in flight is over the limit (concurrent): 3, allowed are 2" {
		t.Error(said)
	}
	if resp.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	f.letGo()
	<-done
	<-done
	if lines := f.obs.Logs.Read("a", 0); len(lines) != 1 || !strings.Contains(lines[0].Text, "(concurrent): 3, allowed are 2") {
		t.Errorf("the tenant's log: %+v", lines)
	}
}

// Clients can cause refusals at will: they do not wash a tenant's own lines out of its log.
func TestRefusalsDoNotFloodTheTenantsLog(t *testing.T) {
	f := newFarm(t, nil)
	f.add("a", func(v *tenants.Version) { v.Limits.RequestBody = 1 << 10 })
	f.obs.Logs.Append("a", observe.Line{Text: "the worker's own"})
	told := 0
	f.server.opt.OnLog = func(string, observe.Line) { told++ }
	for range 50 {
		f.request("POST", "/echo", strings.NewReader(strings.Repeat("x", 2000)))
	}
	lines := f.obs.Logs.Read("a", 0)
	if len(lines) != 6 || lines[0].Text != "the worker's own" || told != 5 {
		t.Errorf("%d lines, %d told: %s", len(lines), told, fmt.Sprint(lines))
	}
}
