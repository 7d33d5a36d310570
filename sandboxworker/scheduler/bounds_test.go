package scheduler

import (
	"strings"
	"testing"
	"time"

	"bulkhead/ipc/gatewayside"
	"bulkhead/policy/limits"
	"bulkhead/schema/gen"
)

func TestResponseBodyLimit(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`export default { fetch(r) {
		const size = Number(new URL(r.url).searchParams.get("n"));
		if (r.url.includes("/whole")) return new Response("x".repeat(size));
		let left = size;
		return new Response(new ReadableStream({ pull(c) {
			if (left <= 0) return c.close();
			c.enqueue(new Uint8Array(Math.min(left, 1000)).fill(120));
			left -= 1000;
		} }));
	} }`, func(l *limits.Tenant) { l.ResponseBody = 100_000 })
	for _, path := range []string{"/whole", "/stream"} {
		if a := h.get(n, path+"?n=100000"); a.err != nil || len(a.body) != 100_000 || a.result.Outcome != gen.Outcome_ok {
			t.Errorf("%s at the limit: %d bytes, %+v", path, len(a.body), a.result)
		}
		a := h.get(n, path+"?n=150000")
		h.wantOutcome(a, gen.Outcome_exception)
		if a.err == nil || !strings.Contains(a.result.Message, "response body exceeded its limit of 100000 bytes: 1") {
			t.Errorf("%s beyond it: %v, message = %q", path, a.err, a.result.Message)
		}
	}
	if a := h.get(n, "/whole?n=3"); a.body != "xxx" {
		t.Errorf("afterwards: %+v", a)
	}
}

func TestPendingLimit(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`export default { async fetch(r, env, ctx) {
		const failed = [];
		const list = [];
		if (r.url.endsWith("/ops")) {
			for (let i = 0; i < 60; i++) list.push(crypto.subtle.digest("SHA-1", new Uint8Array(1)).catch((e) => failed.push(e)));
		} else {
			for (let i = 0; i < 60; i++) try { ctx.waitUntil(new Promise((f) => setTimeout(f, 5))); } catch (e) { failed.push(e); }
		}
		await Promise.all(list);
		return new Response(failed.length + " " + failed[0]?.name + " " + failed[0]?.message);
	} }`, func(l *limits.Tenant) { l.Pending = 50 })
	for range 3 { // what has settled does not count
		for _, path := range []string{"/ops", "/waits"} {
			a := h.get(n, path)
			if !strings.HasPrefix(a.body, "10 QuotaExceededError Too much is pending: the limit is 50 ") || !strings.Contains(a.body, "and 50 have not settled") {
				t.Errorf("%s: %+v", path, a)
			}
			h.wantOutcome(a, gen.Outcome_ok)
		}
	}
}

func TestTimerLimit(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`export default { fetch() {
		try { for (let i = 0; ; i++) setTimeout(() => {}, 60_000); } catch (e) { return new Response(e.name + " " + e.message); }
	} }`, func(l *limits.Tenant) { l.Timers = 20; l.WaitUntil = 50 * time.Millisecond })
	for range 2 {
		if a := h.get(n, "/"); !strings.HasPrefix(a.body, "QuotaExceededError Too many timers: the limit is 20 ") {
			t.Errorf("%+v", a)
		}
	}
}

// What a request logs beyond its limit is dropped, counted and said once.
func TestLogLimit(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`console.log("start");
	for (let i = 0; i < 100; i++) console.log("s".repeat(100));
	export default { fetch() {
		for (let i = 0; i < 100; i++) console.log("x".repeat(99));
		return new Response("ok");
	} }`, func(l *limits.Tenant) { l.LogBytes = 1000 })
	for range 2 {
		h.wantOK(h.get(n, "/"), "ok")
	}
	var got []gatewayside.LogEntry
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		h.mu.Lock()
		got = append([]gatewayside.LogEntry(nil), h.logs[n]...)
		h.mu.Unlock()
		notes := 0
		for _, e := range got {
			if strings.Contains(e.Text, "were dropped") {
				notes++
			}
		}
		if notes == 2 || time.Now().After(deadline) {
			break
		}
	}
	bytes, start, notes := 0, 0, 0
	for _, e := range got {
		switch {
		case e.Text == "90 log lines were dropped: this request's log exceeded its limit of 1000 bytes" && e.RequestID == "r-1":
			notes++
		case e.RequestID == "":
			start += len(e.Text)
		default:
			bytes += len(e.Text)
		}
	}
	if notes != 2 || bytes > 2000 || bytes < 1800 || start > 1000 || start < 800 {
		t.Errorf("%d notes, %d bytes of two requests, %d of start-up", notes, bytes, start)
	}
}
