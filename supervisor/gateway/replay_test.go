package gateway

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"bulkhead/supervisor/observe"
)

func TestRequestsWithoutEffectOutliveTheirShard(t *testing.T) {
	f := newFarm(t, nil)
	resp, body := f.request("POST", "/die?once=1", strings.NewReader("small"))
	if resp.StatusCode != 200 || body != "attempt 2" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	// It is known for what it did now: alone, it has no second try at the cost of another shard.
	resp, body = f.request("GET", "/die", nil)
	ours(t, resp, body, 502, "crashed", "a")
	if f.pool.Standing("a") == "" || f.pool.Standing("b") != "" {
		t.Errorf("standing of a: %q, of b: %q", f.pool.Standing("a"), f.pool.Standing("b"))
	}
	// It is served all the same, and its neighbour too, elsewhere.
	here, _ := f.request("GET", "/info", nil)
	there, _ := f.request("GET", "/info", nil, host("b.localhost"))
	if here.StatusCode != 200 || there.StatusCode != 200 || here.Header.Get("X-Shard") == there.Header.Get("X-Shard") {
		t.Errorf("a: %d in shard %s, b: %d in shard %s", here.StatusCode, here.Header.Get("X-Shard"), there.StatusCode, there.Header.Get("X-Shard"))
	}
	f.incidents(2, func(i observe.Incident) error {
		if i.Kind != observe.ShardDied || fmt.Sprint(i.Tenants) != "[a]" || i.Signal == nil || *i.Signal != "SIGSEGV" || i.Outcome != "crashed" {
			return fmt.Errorf("%+v", i)
		}
		return nil
	})
}

// A request body that streams is kept up to a bound; what was kept arrives again, once and in order.
func TestStreamedBodiesAreReplayed(t *testing.T) {
	for _, c := range []struct {
		name string
		size int
		code int
	}{{"small", 300 << 10, 200}, {"just fits", 1 << 20, 200}, {"too large", 1<<20 + 1, 502}} {
		t.Run(c.name, func(t *testing.T) {
			f := newFarm(t, nil)
			sent := bytes.Repeat([]byte("0123456789abcde\n"), c.size/16+1)[:c.size]
			resp, body := f.request("POST", "/uploaddie", io.MultiReader(bytes.NewReader(sent)))
			if resp.StatusCode != c.code {
				t.Fatalf("%d %q", resp.StatusCode, body)
			}
			if sum := sha256.Sum256(sent); c.code == 200 && body != hex.EncodeToString(sum[:]) {
				t.Errorf("the second attempt was given another body")
			}
			if n := f.metric(`bulkhead_interrupted_total{reason="body"}`); (n == "1") != (c.code != 200) {
				t.Errorf("interrupted by its body: %s", n)
			}
			until(t, "nothing is kept any more", func() bool { return f.server.keepRoom.Load() == maxAllKept })
		})
	}
}

// Who waits while somebody else ends the shard is run again, and nothing is held against it: the
// black box says who faulted.
func TestNeighboursOfACrashAreRunAgain(t *testing.T) {
	f := newFarm(t, nil)
	f.request("GET", "/info", nil)
	f.request("GET", "/info", nil, host("b.localhost"))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			resp, body := f.request("POST", "/meanwhile", strings.NewReader("x"), host("b.localhost"))
			if resp.StatusCode != 200 || body != "attempt 2" {
				t.Errorf("b: %d %q", resp.StatusCode, body)
			}
		})
	}
	f.reached("/meanwhile", 20)
	resp, body := f.request("GET", "/die", nil)
	ours(t, resp, body, 502, "crashed", "a")
	wg.Wait()
	if f.pool.Standing("a") == "" || f.pool.Standing("b") != "" {
		t.Errorf("standing of a: %q, of b: %q", f.pool.Standing("a"), f.pool.Standing("b"))
	}
	f.incidents(2, func(i observe.Incident) error {
		if fmt.Sprint(i.Tenants) != "[a]" {
			return fmt.Errorf("%+v", i)
		}
		return nil
	})
	f.outcomes("b", map[string]uint64{"ok": 21})
}

// When several ran and nothing says who it was, each is tried alone; innocents lose nothing.
func TestSuspectsAreTriedApart(t *testing.T) {
	f := newFarm(t, nil)
	f.request("GET", "/info", nil)
	f.request("GET", "/info", nil, host("b.localhost"))
	var wg sync.WaitGroup
	wg.Go(func() {
		resp, body := f.request("GET", "/meanwhile", nil, host("b.localhost"))
		if resp.StatusCode != 200 || body != "attempt 2" {
			t.Errorf("b: %d %q", resp.StatusCode, body)
		}
	})
	f.reached("/meanwhile", 1)
	resp, body := f.request("GET", "/die?box=all", nil)
	ours(t, resp, body, 502, "crashed", "a")
	wg.Wait()
	if a, b := f.pool.Standing("a"), f.pool.Standing("b"); !strings.HasPrefix(a, "alone") || !strings.HasPrefix(b, "apart") {
		t.Errorf("standing of a: %q, of b: %q", a, b)
	}
}

// A process that dies while nobody's code runs in it is held against nobody.
func TestADeathInPeaceIsHeldAgainstNobody(t *testing.T) {
	f := newFarm(t, nil)
	for range 2 {
		resp, body := f.request("POST", "/die?once=1&box=none", strings.NewReader("x"))
		if resp.StatusCode != 200 || body != "attempt 2" {
			t.Errorf("%d %q", resp.StatusCode, body)
		}
	}
	if st := f.pool.Standing("a"); st != "" {
		t.Errorf("after two: %s", st)
	}
	// Unless it is there each time.
	f.request("POST", "/die?once=1&box=none", strings.NewReader("x"))
	if st := f.pool.Standing("a"); st == "" {
		t.Error("nothing after three")
	}
}

// A kill from outside is nobody's doing.
func TestAKillFromOutsideIsHeldAgainstNobody(t *testing.T) {
	f := newFarm(t, nil)
	f.request("GET", "/info", nil, host("b.localhost"))
	var wg sync.WaitGroup
	wg.Go(func() {
		resp, body := f.request("GET", "/meanwhile", nil)
		if resp.StatusCode != 200 || !strings.HasPrefix(body, "attempt ") {
			t.Errorf("a: %d %q", resp.StatusCode, body)
		}
	})
	f.reached("/meanwhile", 1)
	resp, body := f.request("GET", "/kill?n=2", nil, host("b.localhost"))
	if resp.StatusCode != 200 || body != "attempt 3" {
		t.Errorf("b: %d %q", resp.StatusCode, body)
	}
	wg.Wait()
	if a, b := f.pool.Standing("a"), f.pool.Standing("b"); a != "" || b != "" {
		t.Errorf("standing of a: %q, of b: %q", a, b)
	}
	// A request that dies with each shard it gets ends after a bounded number of them.
	resp, body = f.request("GET", "/kill?n=99", nil, host("b.localhost"))
	ours(t, resp, body, 502, "crashed", "b")
	if n := f.metric(`bulkhead_interrupted_total{reason="attempts"}`); n != "1" {
		t.Errorf("interrupted by attempts: %s", n)
	}
}

// Code that cannot be stopped costs its process, and its own request alone.
func TestOverdueTurnsEndTheShard(t *testing.T) {
	f := newFarm(t, nil)
	f.request("GET", "/info", nil)
	var wg sync.WaitGroup
	wg.Go(func() {
		resp, body := f.request("GET", "/meanwhile", nil, host("b.localhost"))
		if resp.StatusCode != 200 || body != "attempt 2" {
			t.Errorf("b: %d %q", resp.StatusCode, body)
		}
	})
	f.reached("/meanwhile", 1)
	resp, body := f.request("GET", "/overdue", nil)
	ours(t, resp, body, 503, "exceededCpu", "a")
	if !strings.Contains(body, "limit of 50 ms: used 151.0 ms") {
		t.Errorf("%s", body)
	}
	wg.Wait()
	f.incidents(1, func(i observe.Incident) error {
		if i.Kind != observe.ShardOverdue || fmt.Sprint(i.Tenants) != "[a]" || i.Outcome != "exceededCpu" {
			return fmt.Errorf("%+v", i)
		}
		return nil
	})
}

// metric returns the value of one line of the metrics, "" if it is not there.
func (f *farm) metric(name string) string {
	f.t.Helper()
	w := &recorder{header: http.Header{}}
	r, _ := http.NewRequest("GET", "/metrics", nil)
	f.obs.Metrics.Handler().ServeHTTP(w, r)
	for line := range strings.Lines(w.body.String()) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

type recorder struct {
	header http.Header
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
func (r *recorder) WriteHeader(int)             {}
