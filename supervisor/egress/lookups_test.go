package egress

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// However many tenants ask slow name servers, the host looks up a bounded number of names at once, no
// tenant has more than its part of them, and who comes with a single name is next.
func TestLookupsAreBoundedForTheHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLookups(1024)
		if l.most != 128 || l.each != 16 {
			t.Fatalf("%d places, %d a tenant", l.most, l.each)
		}
		var mu sync.Mutex
		var most int
		by := map[string]int{}
		var wg sync.WaitGroup
		slow := func(tenant string) {
			end, err := l.begin(t.Context(), tenant)
			if err != nil {
				t.Error(err)
				return
			}
			defer end()
			mu.Lock()
			by[tenant]++
			if by[tenant] > l.each {
				t.Errorf("%s has %d places", tenant, by[tenant])
			}
			most = max(most, l.taken)
			mu.Unlock()
			time.Sleep(10 * time.Second)
			mu.Lock()
			by[tenant]--
			mu.Unlock()
		}
		for n := range 20 {
			for range 100 {
				wg.Go(func() { slow(fmt.Sprint("t", n)) })
			}
		}
		synctest.Wait()
		// All places are taken; the next one that is free is for who has none.
		time.Sleep(time.Second)
		began := time.Now()
		end, err := l.begin(t.Context(), "single")
		if err != nil || time.Since(began) > 9*time.Second {
			t.Errorf("the single one got %v after %v", err, time.Since(began))
		}
		end()
		end() // once
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := l.begin(ctx, "t0"); err != errLookups {
			t.Errorf("without a place: %v", err)
		}
		wg.Wait()
		if most != 128 || l.taken != 0 || len(l.by) != 0 || len(l.waiting) != 0 {
			t.Errorf("at most %d at once; at rest %d taken by %v, %d wait", most, l.taken, l.by, len(l.waiting))
		}
	})
}

// The names of tenants whose name servers are slow cost others nothing.
func TestSlowNameServersAreTheirTenantsAffair(t *testing.T) {
	w := newWorld(t, nil, Options{})
	hang := make(chan struct{})
	addr := serve(t, good, func(http.ResponseWriter, *http.Request) {})
	w.dns.set("quick.test", good)
	_, port, _ := strings.Cut(addr, ":")
	// Places are taken as the lookups of other tenants would.
	for i := range w.names.most {
		end, err := w.names.begin(t.Context(), fmt.Sprint("t", i/w.names.each))
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			time.AfterFunc(50*time.Millisecond, func() { end(); close(hang) })
		}
	}
	if x := w.get("http://quick.test:" + port + "/"); x.answer == nil {
		t.Error(x.failed)
	}
	<-hang
	if x := w.get("http://" + netip.MustParseAddr(good).String() + ":" + port + "/"); x.answer == nil {
		t.Errorf("an address needs no lookup: %q", x.failed)
	}
}

// A redirect whose body does not come holds nobody up.
func TestRedirectBodiesAreNotWaitedFor(t *testing.T) {
	hang := make(chan struct{})
	addr := serve(t, good, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			io.WriteString(w, "there")
			return
		}
		w.Header().Set("Location", "/")
		w.WriteHeader(http.StatusFound)
		io.WriteString(w, "x")
		w.(http.Flusher).Flush()
		<-hang
	})
	w := newWorld(t, nil, Options{})
	ended := make(chan *exchange, 1)
	go func() { ended <- w.get("http://" + addr + "/slow") }()
	select {
	case x := <-ended:
		if x.out.String() != "there" {
			t.Errorf("%q %q", x.out.String(), x.failed)
		}
	case <-time.After(15 * time.Second):
		t.Error("it waits for the body of the redirect")
	}
	close(hang)
}
