package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/securitytests/hosttest"
)

// spy lets its client time what it does: a message in, cache-touching work, a message out.
const spy = `const memory = new Uint8Array(1 << 20);
function probe() { let x = 1; for (let i = 0; i < 200000; i++) { x = (x * 16807) % 2147483647; memory[x & 0xfffff] ^= i; } return x; }
export default { fetch(r) {
	const { readable, writable } = new TransformStream();
	const out = writable.getWriter();
	(async () => {
		for await (const _ of r.body) { probe(); await out.write(new TextEncoder().encode("tock")); }
		await out.close();
	})();
	return new Response(readable);
} };`

// converse opens one conversation and sends so many messages, each after the answer to the one before. It
// returns how many were answered.
func converse(h *hosttest.Host, tenant string, messages int, stop *atomic.Bool) (answered int, err error) {
	pr, pw := io.Pipe()
	defer pw.Close()
	req, err := http.NewRequest("POST", "http://"+tenant+".localhost/", pr)
	if err != nil {
		return 0, err
	}
	go pw.Write([]byte("tick"))
	resp, err := h.Client().Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var b [64]byte
	for answered < messages && !stop.Load() {
		if _, err := resp.Body.Read(b[:]); err != nil {
			return answered, err
		}
		answered++
		if _, err := pw.Write([]byte("tick")); err != nil {
			return answered, err
		}
	}
	pw.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return answered, err
}

// A worker that has its client time cache-touching work is alone in its process while its conversation goes
// on; its neighbours lose no request, and what is recorded explains it.
func TestWhoMeasuresIsAlone(t *testing.T) {
	tenants := map[string]hosttest.Files{"spy": hosttest.Worker(spy)}
	var honest []string
	for i := range 8 {
		id := fmt.Sprintf("honest-%d", i)
		honest = append(honest, id)
		tenants[id] = hosttest.Worker(slow)
	}
	h := hosttest.Start(t, hosttest.Options{Tenants: tenants,
		Policy: "placement: {spread: 1}\nsuspicion: {record: true}\ntenants: {spy: {limits: {cpu: 30s}}}\n"})
	for _, id := range honest {
		h.Get(id, "/")
	}
	var stop, done atomic.Bool
	var failed, served atomic.Int64
	var wg sync.WaitGroup
	for _, id := range honest[:4] {
		wg.Go(func() {
			for !done.Load() {
				a, err := h.Do("GET", id, "/?ms=5", nil)
				if err != nil || a.Status != 200 {
					failed.Add(1)
					t.Logf("%s: %v %d %s", id, err, a.Status, a.Body)
				}
				served.Add(1)
			}
		})
	}
	talked := make(chan error, 1)
	go func() {
		n, err := converse(h, "spy", 1<<30, &stop)
		if err == nil && n < 20 {
			err = fmt.Errorf("only %d messages were answered", n)
		}
		talked <- err
	}()
	where := func(id string) []string {
		for _, s := range h.Shards() {
			if slices.Contains(s.Tenants, id) {
				return s.Tenants
			}
		}
		return nil
	}
	hosttest.Eventually(t, 60*time.Second, "the spy is alone", func() bool { return slices.Equal(where("spy"), []string{"spy"}) })
	select {
	case err := <-talked:
		t.Errorf("its conversation ended: %v", err)
	default:
	}
	for _, id := range honest {
		if a := h.Get(id, "/"); a.Status != 200 {
			t.Errorf("%s: %d %s", id, a.Status, a.Body)
		}
		if slices.Contains(where(id), "spy") {
			t.Errorf("%s came back to the spy", id)
		}
	}
	done.Store(true)
	wg.Wait()
	if failed.Load() > 0 || served.Load() < 10 {
		t.Errorf("%d of %d requests of the neighbours failed", failed.Load(), served.Load())
	}
	stop.Store(true)
	if err := <-talked; err != nil {
		t.Errorf("the conversation: %v", err)
	}

	var e struct {
		Standing  string
		Suspicion struct {
			Points float64
			Parts  []struct{ Signal string }
		}
	}
	if err := h.AdminGet("/v1/explain/spy", &e); err != nil || !strings.HasPrefix(e.Standing, "alone by suspicion") || len(e.Suspicion.Parts) == 0 || e.Suspicion.Parts[0].Signal != "bracketedCpu" {
		t.Errorf("explained as %+v, %v", e, err)
	}
	explained := false
	for _, i := range h.Incidents() {
		if i.Kind == "isolated" {
			explained = strings.Contains(i.Detail, "bracketedCpu") && slices.Equal(i.Tenants, []string{"spy"})
			if slices.ContainsFunc(i.Tenants, func(id string) bool { return id != "spy" }) {
				t.Errorf("a false alarm: %+v", i)
			}
		}
	}
	if !explained {
		t.Error("no event explains the isolation")
	}

	bulkhead := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(filepath.Join(hosttest.Binaries(t), "bulkhead"), append(args, "--admin", h.Admin)...).CombinedOutput()
		if err != nil {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if out := bulkhead("top", "--rounds", "1"); !strings.Contains(out, "spy") || !strings.Contains(out, "isolate") {
		t.Errorf("top:\n%s", out)
	}
	if out := bulkhead("policy", "explain", "spy"); !strings.Contains(out, "with nobody else") || !strings.Contains(out, "suspicion") {
		t.Errorf("explain:\n%s", out)
	}
	if out := bulkhead("release", "spy", "--reason", "a test"); !strings.Contains(out, "spy is released") {
		t.Errorf("release: %s", out)
	}
	if out := bulkhead("isolate", "honest-1", "--reason", "by hand"); !strings.Contains(out, "honest-1 is kept apart") {
		t.Errorf("isolate: %s", out)
	}
	h.Get("honest-1", "/")
	// Its neighbours are listed until what they left has been wiped.
	got := where("honest-1")
	for end := time.Now().Add(20 * time.Second); !slices.Equal(got, []string{"honest-1"}) && time.Now().Before(end); got = where("honest-1") {
		time.Sleep(5 * time.Millisecond)
	}
	if !slices.Equal(got, []string{"honest-1"}) {
		t.Errorf("isolated by hand, it is with %v", got)
	}
	if out := bulkhead("reshuffle"); !strings.Contains(out, "tenants leave") {
		t.Errorf("reshuffle: %s", out)
	}
	for _, id := range honest {
		if a := h.Get(id, "/"); a.Status != 200 {
			t.Errorf("%s after the reshuffle: %d", id, a.Status)
		}
	}
	// The recording, replayed under what is shipped, says the same; under a lax policy it would have missed.
	out, err := exec.Command(filepath.Join(hosttest.Binaries(t), "bulkhead"), "policy", "simulate", "--events", filepath.Join(h.Data, "gateway", "events.jsonl"),
		"--policy", "standard", "--guilty", "spy").CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("1 isolated, 0 false alarms, 0 of the guilty missed")) {
		t.Errorf("simulate: %v\n%s", err, out)
	}
}
