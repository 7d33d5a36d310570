package scheduler

import (
	"errors"
	"strings"
	"testing"
	"time"

	"bulkhead/ipc/gatewayside"
	"bulkhead/ipc/ipctest"
	"bulkhead/policy/limits"
	"bulkhead/schema/gen"
)

// early loads a tenant and sends n requests for it before the load's own call goes out.
func (h *shard) early(bundle []byte, n int) ([]answer, gatewayside.LoadResult, error) {
	h.t.Helper()
	h.mu.Lock()
	h.next++
	handle := h.next
	h.mu.Unlock()
	var streams []*gatewayside.Stream
	res, err := h.Load(h.t.Context(), gatewayside.LoadRequest{Tenant: handle, Bundle: bundle, Limits: limits.DefaultTenant(), Begun: func() {
		for range n {
			st, err := h.Open(h.t.Context(), request(handle, "/early"))
			if err != nil {
				h.t.Fatal(err)
			}
			streams = append(streams, st)
		}
	}})
	var answers []answer
	for _, st := range streams {
		answers = append(answers, h.finish(st))
	}
	return answers, res, err
}

func TestRequestsMayOvertakeTheirTenant(t *testing.T) {
	h := startShard(t, Options{})
	for round := range 3 {
		answers, res, err := h.early(ipctest.Bundle(t, `let n = 0; export default { fetch(r) { return new Response(new URL(r.url).pathname + ++n); } }`), 20)
		if err != nil || res.Failed != nil {
			t.Fatalf("round %d: %+v, %v", round, res, err)
		}
		seen := map[string]bool{}
		for _, a := range answers {
			if a.status != 200 || a.result.Outcome != gen.Outcome_ok {
				t.Errorf("round %d: %+v", round, a)
			}
			seen[a.body] = true
		}
		if len(seen) != 20 {
			t.Errorf("round %d: %d different answers of 20: the requests met more than one isolate", round, len(seen))
		}
	}
}

// A tenant that does not start leaves nobody waiting, and is not started by who waited.
func TestRequestsThatOvertookATenantThatDoesNotStart(t *testing.T) {
	h := startShard(t, Options{})
	answers, res, err := h.early(ipctest.Bundle(t, `console.log("start"); throw new Error("not today");`), 5)
	if err != nil || res.Failed == nil || !strings.Contains(res.Failed.Message, "not today") {
		t.Fatalf("load = %+v, %v", res, err)
	}
	for _, a := range answers {
		// One that the other channel brought after all was over is told that nobody is here.
		late := a.result.Outcome == gen.Outcome_killed && strings.Contains(a.result.Message, "moved out")
		if !late && (a.result.Outcome != gen.Outcome_notLoaded || !strings.Contains(a.result.Message, "not today")) {
			t.Errorf("ended %v: %s; want notLoaded, and why", a.result.Outcome, a.result.Message)
		}
	}
	h.s.mu.Lock()
	if n := len(h.s.tenants) + len(h.s.streams) + len(h.s.early.tenants) + h.s.early.requests; n != 0 {
		t.Errorf("%d things are left of it", n)
	}
	h.s.mu.Unlock()
}

// A load that never comes, because its call could not be made, ends its requests.
func TestRequestsWhoseTenantNeverComes(t *testing.T) {
	h := startShard(t, Options{})
	answers, _, err := h.early([]byte("no bundle"), 5)
	if err == nil {
		t.Fatal("a load of nonsense was called")
	}
	for _, a := range answers {
		if a.result.Outcome != gen.Outcome_killed || !strings.Contains(a.result.Message, "never came") {
			t.Errorf("ended %v: %s", a.result.Outcome, a.result.Message)
		}
	}
	// Handles go on, and this one may still come.
	if a := h.get(h.load(`export default { fetch() { return new Response("next"); } }`), "/"); a.body != "next" {
		t.Errorf("the next tenant answered %+v", a)
	}
}

// More than are kept are told to wait in the gateway: notLoaded is what it sends again, loadShed is not.
func TestTooManyRequestsOvertakeTheirTenant(t *testing.T) {
	h := startShard(t, Options{})
	answers, res, err := h.early(ipctest.Bundle(t, `export default { fetch() { return new Response("ok"); } }`), earlyRequests+50)
	if err != nil || res.Failed != nil {
		t.Fatal(res, err)
	}
	ok, later := 0, 0
	for _, a := range answers {
		switch a.result.Outcome {
		case gen.Outcome_ok:
			ok++
		case gen.Outcome_notLoaded:
			later++
		default:
			t.Errorf("ended %+v", a.result)
		}
	}
	if ok+later != earlyRequests+50 || ok < earlyRequests {
		t.Errorf("%d answered, %d not taken", ok, later)
	}
}

// A load that the shard refuses ends what waits for it there and then, and leaves no gap.
func TestRequestsWhoseLoadIsRefused(t *testing.T) {
	h := startShard(t, Options{})
	h.mu.Lock()
	h.next++
	handle := h.next
	h.mu.Unlock()
	var st *gatewayside.Stream
	begun := time.Now()
	lim := limits.DefaultTenant()
	lim.Pending = 0
	_, err := h.Load(t.Context(), gatewayside.LoadRequest{Tenant: handle, Bundle: ipctest.Bundle(t, "export default {}"), Limits: lim, Begun: func() {
		var err error
		if st, err = h.Open(t.Context(), request(handle, "/early")); err != nil {
			t.Fatal(err)
		}
		for !h.waits(handle) { // it overtakes the load
			if time.Since(begun) > 10*time.Second {
				t.Fatal("the request does not arrive")
			}
			time.Sleep(time.Millisecond)
		}
	}})
	if err == nil {
		t.Fatal("a limit of zero was taken")
	}
	if a := h.finish(st); a.result.Outcome != gen.Outcome_notLoaded || !strings.Contains(a.result.Message, "limit of zero") {
		t.Errorf("ended %v: %s", a.result.Outcome, a.result.Message)
	}
	if _, err := h.Open(t.Context(), request(handle, "/late")); !errors.Is(err, gatewayside.ErrNotLoaded) {
		t.Errorf("a stream for what is not there: %v", err)
	}
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	if e := &h.s.early; e.upTo != handle || len(e.beyond) != 0 || len(e.tenants) != 0 || e.requests != 0 {
		t.Errorf("left: %+v", e)
	}
}

// waits says whether a request waits for a handle.
func (h *shard) waits(handle uint32) bool {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	return h.s.early.tenants[handle] != nil
}

// A handle whose load could not be called is a gap for good. What is noted behind it stays bounded.
func TestAGapInTheHandles(t *testing.T) {
	var e early
	for h := uint32(1); h < 100_000; h++ {
		if h != 7 && h != 50_000 {
			e.came(h)
		}
		if len(e.beyond) > earlyHandles {
			t.Fatalf("%d handles are noted", len(e.beyond))
		}
	}
	if e.upTo != 99_999 || len(e.beyond) != 0 {
		t.Errorf("up to %d, %d beyond", e.upTo, len(e.beyond))
	}
	e.came(7) // late after all
	if len(e.beyond) != 0 {
		t.Error("a handle of the past is noted for ever")
	}
}
