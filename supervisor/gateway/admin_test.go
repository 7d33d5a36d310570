package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"bulkhead/policy"
	"bulkhead/supervisor/launcher/orders"
	"bulkhead/supervisor/observe"
)

// operatorOf serves the admin API as the launcher would feed it: over connected sockets that it
// accepted. The client's transport makes a socketpair per connection.
func operatorOf(t *testing.T, f *farm) (*http.Client, chan struct{}) {
	t.Helper()
	pol, err := policy.Preset("standard")
	if err != nil {
		t.Fatal(err)
	}
	drained := make(chan struct{})
	a := NewAdmin(AdminOptions{Server: f.server, Policy: func() *policy.Policy { return pol }, Drain: func() { close(drained) },
		Boot: orders.Boot{Generation: 3, LauncherPID: 42, Listeners: []orders.Listener{{Addr: f.addr}}, TenantRoots: []string{"/srv/t"}}})
	conns := make(chan orders.AdminConn)
	done := make(chan struct{})
	go func() { a.Serve(conns); close(done) }()
	t.Cleanup(func() { close(conns); a.Close(); <-done })
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
			if err != nil {
				return nil, err
			}
			conns <- orders.AdminConn{UID: 1234, Conn: os.NewFile(uintptr(fds[0]), "admin")}
			file := os.NewFile(uintptr(fds[1]), "operator")
			defer file.Close()
			return net.FileConn(file)
		}}}, drained
}

func ask(t *testing.T, c *http.Client, method, path string, into any) int {
	t.Helper()
	r, err := http.NewRequest(method, "http://admin"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if s, ok := into.(*string); ok {
		*s = string(b)
	} else if err := json.Unmarshal(b, into); err != nil {
		t.Fatalf("%s %s: %v in %q", method, path, err, b)
	}
	return resp.StatusCode
}

func TestAdminAnswersWithStableNames(t *testing.T) {
	f := newFarm(t, nil)
	c, drained := operatorOf(t, f)
	f.request("GET", "/info", nil)
	f.request("GET", "/end?o=exception", nil)
	f.outcomes("a", map[string]uint64{"exception": 1, "ok": 1})
	until(t, "the load that the first request was sent with is over", func() bool { return f.pool.Gauges().TenantsLoaded == 1 })

	for path, names := range map[string]string{
		"/v1/tenants":   "tenant version cordon shard state requests outcomes",
		"/v1/shards":    "id pid class profile cordon sealed tenants isolates rssBytes ageSeconds",
		"/v1/incidents": "id time kind shard tenants outcome signal syscall detail",
	} {
		if path == "/v1/incidents" {
			f.obs.Incidents.Add(observe.Incident{Kind: observe.ShardDied, Shard: 1})
		}
		var list []map[string]any
		if status := ask(t, c, "GET", path, &list); status != 200 || len(list) == 0 {
			t.Fatalf("%s: %d %v", path, status, list)
		}
		for _, name := range strings.Fields(names) {
			if _, ok := list[0][name]; !ok {
				t.Errorf("%s has no field %q: %v", path, name, list[0])
			}
		}
		if path == "/v1/tenants" {
			a := list[0]
			if a["tenant"] != "a" {
				a = list[1]
			}
			if a["state"] != "loaded" || a["shard"] != 1.0 || a["requests"] != 2.0 || fmt.Sprint(a["outcomes"]) != "map[exception:1 ok:1]" {
				t.Errorf("tenant a: %v", a)
			}
		}
	}
	var st Status
	if ask(t, c, "GET", "/v1/status", &st); st.Preset != "standard" || st.PolicyHash == "" || st.Generation != 3 || st.Tenants != 2 || st.Loaded != 1 || len(st.Listen) != 1 {
		t.Errorf("status %+v", st)
	}
	var pol struct{ Hash, Preset string }
	if ask(t, c, "GET", "/v1/policy", &pol); pol.Preset != "standard" || pol.Hash != st.PolicyHash {
		t.Errorf("policy %+v", pol)
	}
	var metrics string
	if ask(t, c, "GET", "/v1/metrics", &metrics); !strings.Contains(metrics, `bulkhead_requests_total{outcome="exception",tenant="a"} 1`) {
		t.Errorf("metrics: %.500s", metrics)
	}
	var e struct{ Error string }
	if status := ask(t, c, "GET", "/v1/nothing", &e); status != 404 || e.Error == "" {
		t.Errorf("%d %+v", status, e)
	}
	if status := ask(t, c, "GET", "/v1/logs/nobody", &e); status != 404 || !strings.Contains(e.Error, "nobody") {
		t.Errorf("%d %+v", status, e)
	}
	if status := ask(t, c, "GET", "/v1/logs/a?after=x", &e); status != 400 {
		t.Errorf("%d %+v", status, e)
	}
	var ev struct{ Evicted, Busy int }
	if ask(t, c, "POST", "/v1/evict/a", &ev); ev.Evicted != 1 || ev.Busy != 0 {
		t.Errorf("evict %+v", ev)
	}
	if status := ask(t, c, "GET", "/v1/evict/a", &e); status != 404 {
		t.Errorf("evict by GET: %d", status)
	}
	var d struct{ Draining bool }
	ask(t, c, "POST", "/v1/drain", &d)
	select {
	case <-drained:
	default:
		t.Error("drain was not passed on")
	}
}

func TestAdminFollowsLogs(t *testing.T) {
	f := newFarm(t, nil)
	c, _ := operatorOf(t, f)
	f.obs.Logs.Append("a", observe.Line{Level: "log", Text: "one"}, observe.Line{Level: "error", Text: "two\nlines"})
	resp, err := c.Get("http://admin/v1/logs/a?follow=1&after=1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	next := func() (l observe.Line) {
		t.Helper()
		if !lines.Scan() {
			t.Fatal("no line")
		}
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		return l
	}
	if l := next(); l.Text != "two\nlines" || l.Seq != 2 || l.Level != "error" {
		t.Errorf("%+v", l)
	}
	f.obs.Logs.Append("b", observe.Line{Text: "not asked for"})
	f.obs.Logs.Append("a", observe.Line{Text: "three"})
	if l := next(); l.Text != "three" || l.Seq != 3 {
		t.Errorf("%+v", l)
	}
}
