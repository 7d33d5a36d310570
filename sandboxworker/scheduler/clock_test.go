package scheduler

import (
	"strconv"
	"testing"
	"time"
)

// A timer that was cleared while its event was on the way must not fire the next one in its place: the
// clock would be ahead of the real one.
func TestAnEventForAClearedTimerFiresNoOther(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`export default { async fetch(r) {
		if (r.url.endsWith("/wait")) { await new Promise((f) => setTimeout(f, 600_000)); return new Response("too early"); }
		return new Response(String(Date.now()));
	} }`)
	st, err := h.Open(t.Context(), request(n, "/wait"))
	if err != nil {
		t.Fatal(err)
	}
	h.wantClock(n)
	h.s.mu.Lock()
	tenant := h.s.tenants[n]
	armed := tenant.due
	tenant.ticking = true
	h.s.post(tenant, event{kind: evTimer})
	h.s.call()
	h.s.mu.Unlock()
	h.wantClock(n)
	h.s.mu.Lock()
	if tenant.due != armed || tenant.ticking {
		t.Errorf("the timer is armed for %v, ticking %t; it was for %v", tenant.due, tenant.ticking, armed)
	}
	h.s.mu.Unlock()
	st.Cancel(0, "")
	h.finish(st)
}

// wantClock asks a tenant for the time: the real one of a moment ago, in whole milliseconds.
func (h *shard) wantClock(n uint32) {
	h.t.Helper()
	a := h.get(n, "/")
	ms, err := strconv.ParseFloat(a.body, 64)
	if err != nil {
		h.t.Fatal(err)
	}
	if ms != float64(int64(ms)) || ms > float64(time.Now().UnixMilli()+1000) {
		h.t.Errorf("the clock says %v, which is %v ahead", ms, time.Until(time.UnixMilli(int64(ms))))
	}
}

// Requests are timed in whole milliseconds, like everything else JavaScript can see.
func TestRequestsAreTimedInMilliseconds(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`export default { fetch() { return new Response(String(performance.timeOrigin + performance.now())); } }`)
	for range 20 {
		h.wantClock(n)
	}
}

// Whoever evicts one of several tenants waits for all that it left, while others work.
func TestEvictionScrubsBesideWork(t *testing.T) {
	h := startShard(t, Options{})
	busy := h.load(`export default { fetch() { for (let i = 0; i < 1e5; i++); return new Response("ok"); } }`)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 200 {
			h.wantOK(h.get(busy, "/"), "ok")
		}
	}()
	for range 20 {
		n := h.load(`let n = 0; export default { fetch() { console.log("said"); return new Response(String(++n)); } }`)
		h.wantOK(h.get(n, "/"), "1")
		if err := h.Evict(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	<-done
}
