package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bulkhead/securitytests/hosttest"
)

// A document that changes is in force within seconds: who is given another cordon leaves the others, what
// runs goes on, and a wrong document changes nothing.
func TestPolicyIsReloadedWhole(t *testing.T) {
	const before = "placement: {spread: 1}\ncordons: {paid: {}}\n"
	worker := hosttest.Worker(slow)
	h := hosttest.Start(t, hosttest.Options{Policy: before, Tenants: map[string]hosttest.Files{"a": worker, "b": worker, "paid-1": worker, "paid-2": worker}})
	ids := []string{"a", "b", "paid-1", "paid-2"}
	for _, id := range ids {
		h.Get(id, "/")
	}
	together := func(x, y string) bool {
		return slices.ContainsFunc(h.Shards(), func(s hosttest.Shard) bool { return slices.Contains(s.Tenants, x) && slices.Contains(s.Tenants, y) })
	}
	if !together("a", "paid-1") {
		t.Fatal("with a spread of one the four are not together: nothing to separate")
	}
	status := func() (hash string) {
		var s struct{ PolicyHash string }
		h.AdminGet("/v1/status", &s)
		return s.PolicyHash
	}
	first := status()
	running := make(chan hosttest.Answer, 1)
	go func() {
		a, _ := h.Do("GET", "paid-1", "/?ms=4000", nil)
		running <- a
	}()
	time.Sleep(200 * time.Millisecond)
	write := func(text string) {
		t.Helper()
		// As editors do: another file takes the name.
		path := filepath.Join(filepath.Dir(h.Data), "config", "policy.yaml")
		if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	write(before + "limits: {cpu: 20ms}\ntenants: {\"paid-*\": {cordon: payd}}\n")
	hosttest.Eventually(t, 20*time.Second, "the wrong document is refused", func() bool { return strings.Contains(h.Log(), "did you mean") })
	if status() != first {
		t.Error("a wrong document changed something")
	}
	write(before + "tenants: {\"paid-*\": {cordon: paid}}\n")
	hosttest.Eventually(t, 20*time.Second, "the good document is in force", func() bool { return status() != first })
	if !strings.Contains(h.Log(), "2 tenants will move to other processes") {
		t.Error("the effect is not logged")
	}
	for _, id := range ids {
		if a := h.Get(id, "/"); a.Status != 200 {
			t.Errorf("%s: %d %s", id, a.Status, a.Body)
		}
	}
	if a := <-running; a.Status != 200 || a.Body != "done" {
		t.Errorf("the request that ran meanwhile: %d %s", a.Status, a.Body)
	}
	hosttest.Eventually(t, 20*time.Second, "the cordons are apart", func() bool { return !together("a", "paid-1") && !together("b", "paid-2") })
	if !together("a", "b") || !together("paid-1", "paid-2") {
		t.Error("those of one cordon are not together, with a spread of one")
	}
	var e struct {
		Values []struct{ Key, Value, From string }
		Beside []string
	}
	if err := h.AdminGet("/v1/explain/paid-1", &e); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(e.Values, func(v struct{ Key, Value, From string }) bool { return v.Key == "cordon" })
	if i < 0 || e.Values[i].Value != `"paid"` || !strings.Contains(e.Values[i].From, "policy.yaml:3, tenants.paid-*") || !slices.Equal(e.Beside, []string{"paid-2"}) {
		t.Errorf("explained as %+v", e)
	}
}
