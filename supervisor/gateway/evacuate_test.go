package gateway

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Neighbours of a suspect whose requests wait for an answer are begun again elsewhere at once; those whose
// answer has begun go on where they are, and so does the suspect. Nobody loses a request.
func TestNeighboursOfASuspectAreBegunAgain(t *testing.T) {
	f := newFarm(t, nil)
	c, _ := operatorOf(t, f)
	f.request("GET", "/info", nil)
	f.request("GET", "/info", nil, host("b.localhost"))
	var wg sync.WaitGroup
	answers := make(chan string, 20)
	for range 20 {
		wg.Go(func() {
			resp, body := f.request("POST", "/meanwhile", strings.NewReader("x"), host("b.localhost"))
			if resp.StatusCode != 200 || body != "attempt 2" {
				t.Errorf("b: %d %q", resp.StatusCode, body)
			}
			answers <- resp.Header.Get("X-Shard")
		})
	}
	r, err := http.NewRequest("GET", "http://"+f.addr+"/first", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "b.localhost"
	begun, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer begun.Body.Close()
	suspect, err := http.NewRequest("GET", "http://"+f.addr+"/first", nil)
	if err != nil {
		t.Fatal(err)
	}
	suspect.Host = "a.localhost"
	runs, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(suspect)
	if err != nil {
		t.Fatal(err)
	}
	defer runs.Body.Close()
	f.reached("/meanwhile", 20)

	var e struct{ Error string }
	if status := ask(t, c, "POST", "/v1/isolate/a", &e); status != 400 || !strings.Contains(e.Error, "reason") {
		t.Errorf("without a reason: %d %+v", status, e)
	}
	if status := ask(t, c, "POST", "/v1/isolate/nobody?reason=x", &e); status != 404 {
		t.Errorf("nobody: %d", status)
	}
	var ev struct {
		Shards     []uint32
		Left, Busy int
		Begun      int
	}
	if status := ask(t, c, "POST", "/v1/isolate/a?reason="+url.QueryEscape("it measures"), &ev); status != 200 || ev.Busy != 1 || ev.Begun != 20 || len(ev.Shards) != 1 {
		t.Errorf("%d %+v", status, ev)
	}
	wg.Wait()
	here, _ := f.request("GET", "/info", nil)
	there, _ := f.request("GET", "/info", nil, host("b.localhost"))
	if here.Header.Get("X-Shard") == there.Header.Get("X-Shard") {
		t.Errorf("both are in shard %s", here.Header.Get("X-Shard"))
	}
	if here.Header.Get("X-Shard") != runs.Header.Get("X-Shard") && runs.Header.Get("X-Shard") != "" {
		t.Errorf("the suspect was moved from %s to %s", runs.Header.Get("X-Shard"), here.Header.Get("X-Shard"))
	}
	for range 20 {
		if got := <-answers; got != "" && got == here.Header.Get("X-Shard") {
			t.Error("a request of b was begun again in the suspect's process")
		}
	}
	var list []struct{ Kind, Detail string }
	if ask(t, c, "GET", "/v1/incidents", &list); len(list) != 1 || list[0].Kind != "isolated" || !strings.Contains(list[0].Detail, "it measures (by uid 1234)") {
		t.Errorf("recorded: %+v", list)
	}
	// What had begun was not touched: its body is still open.
	var b [64]byte
	if n, err := begun.Body.Read(b[:]); n == 0 || err != nil {
		t.Errorf("the answer that had begun: %d bytes, %v", n, err)
	}
	if status := ask(t, c, "POST", "/v1/release/a?reason=done", &e); status != 200 {
		t.Errorf("release: %d %+v", status, e)
	}
	if status := ask(t, c, "POST", "/v1/release/a?reason=done", &e); status != 409 {
		t.Errorf("released twice: %d", status)
	}
	// Stopped, it is refused in so many words.
	if status := ask(t, c, "POST", "/v1/stop/a?reason=enough", &e); status != 200 {
		t.Errorf("stop: %d", status)
	}
	resp, body := f.request("GET", "/info", nil)
	ours(t, resp, body, 503, "killed", "a")
}

// However often neighbours are moved under load, nobody loses a request.
func TestMovesUnderLoadLoseNothing(t *testing.T) {
	f := newFarm(t, nil)
	f.request("GET", "/info", nil)
	f.request("GET", "/info", nil, host("b.localhost")) // beside it
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var served atomic.Int64
	for range 6 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, path := range []string{"/info", "/soon"} {
					resp, body := f.request("POST", path, strings.NewReader("x"), host("b.localhost"))
					if resp.StatusCode != 200 {
						t.Errorf("%s: %d %s", path, resp.StatusCode, body)
					}
					served.Add(1)
				}
			}
		})
	}
	moves, neighbours, begun := 0, 0, 0
	for began := time.Now(); moves < 300 && time.Since(began) < time.Minute; moves++ {
		ev := f.pool.Isolate("a", "a test", "nobody")
		neighbours, begun = neighbours+ev.Left+ev.Busy, begun+ev.Begun
		f.request("GET", "/info", nil)
		if err := f.pool.Release("a", "a test", "nobody"); err != nil {
			t.Fatal(err)
		}
		f.request("GET", "/info", nil)
	}
	close(stop)
	wg.Wait()
	if served.Load() < int64(moves) || neighbours == 0 {
		t.Errorf("%d requests during %d moves, %d of them of a neighbour", served.Load(), moves, neighbours)
	}
	t.Logf("%d requests, %d moves, %d of them of a neighbour, %d requests begun again", served.Load(), moves, neighbours, begun)
}
