package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// kind is one sort of request of the steady load.
type kind struct {
	name  string
	share int // of kindsPerRound
	path  string
	body  int // bytes to POST; 0 for a GET
	want  func(tenant string, body []byte) []byte
}

// kinds are what the victims are asked for: short answers, bodies there and back, waiting on
// timers, some CPU, and a response that is long under way.
func kinds() []kind {
	name := func(tenant string, _ []byte) []byte { return []byte(tenant + ".localhost\n") }
	echo := func(_ string, body []byte) []byte { return body }
	return []kind{
		{"hello", 8, "/hello", 0, name},
		{"echo 200 B", 4, "/echo", 200, echo},
		{"echo 200 KB", 1, "/echo", 200_000, echo},
		{"wait 20 ms", 4, "/wait?ms=20", 0, name},
		{"cpu 3 ms", 2, "/cpu", 0, name},
		{"stream 40 ms", 1, "/stream", 0, func(string, []byte) []byte { return bytes.Repeat([]byte("0123456789\n"), 8) }},
	}
}

// generator sends a steady load: each tenant gets its requests at a fixed rate whatever becomes of
// the ones before (an open loop, so that a host that stalls is not spared), in a mix that repeats.
type generator struct {
	client  *client
	tenants []string
	rate    float64 // requests a second, each tenant
}

// failure is one request that should have been answered and was not.
type failure struct {
	At     time.Time     `json:"at"` // its end
	ID     string        `json:"id"` // of the host; empty if no head came
	Tenant string        `json:"tenant"`
	Kind   string        `json:"kind"`
	How    string        `json:"how"`
	Text   string        `json:"message"`
	Took   time.Duration `json:"tookNanos"`
	// Since is the time from the nearest incident to its end, negative if the incident was on record
	// only later; nil if there was no incident.
	Since *time.Duration `json:"sinceDeathNanos"`
}

func (f failure) String() string {
	since := "no shard died"
	switch {
	case f.Since == nil:
	case *f.Since >= 0:
		since = fmt.Sprintf("%v after a death", f.Since.Round(time.Millisecond))
	default:
		since = fmt.Sprintf("%v before a death was on record", -f.Since.Round(time.Millisecond))
	}
	return fmt.Sprintf("%s %s (%s) after %v: %s %q; %s", f.Tenant, f.Kind, f.ID, f.Took.Round(time.Millisecond), f.How, f.Text, since)
}

// kindTally is what became of the requests of one kind.
type kindTally struct {
	Kind string `json:"kind"`
	tallied
	Latency latency `json:"latency"` // of those answered
	hist    histogram
}

// tallied accounts for every request: Sent is the sum of the others.
type tallied struct {
	Sent        int `json:"sent"`
	OK          int `json:"ok"`
	Interrupted int `json:"interrupted"` // the response had begun: such a request cannot be replayed
	Failed      int `json:"failed"`
}

// tally is what became of a load.
type tally struct {
	tallied
	Ends    map[string]int `json:"ends"` // of those not ok, by how
	Kinds   []*kindTally   `json:"kinds"`
	Latency latency        `json:"latency"`
	// WorstTenantP99Micros is the p99 of the tenant that had the worst.
	WorstTenantP99Micros float64   `json:"worstTenantP99Micros"`
	LagP99Micros         float64   `json:"lagP99Micros"` // how late the generator itself was
	Failures             []failure `json:"failures"`     // the first maxFailures

	mu     sync.Mutex
	hist   histogram
	lag    histogram
	tenant map[string]*histogram // complete before the first request
}

const maxFailures = 200

// run loads for d, or until ctx ends, and waits for every request's end.
func (g *generator) run(ctx context.Context, d time.Duration) *tally {
	t := &tally{Ends: map[string]int{}, Failures: []failure{}, tenant: map[string]*histogram{}}
	var mix []int
	for i, k := range kinds() {
		t.Kinds = append(t.Kinds, &kindTally{Kind: k.name})
		for range k.share {
			mix = append(mix, i)
		}
	}
	// The same shuffle each time: before, during and after see the same order.
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(mix), func(i, j int) { mix[i], mix[j] = mix[j], mix[i] })
	for _, tenant := range g.tenants {
		t.tenant[tenant] = &histogram{}
	}
	gap := time.Duration(float64(time.Second) / g.rate)
	end := time.Now().Add(d)
	var wg sync.WaitGroup
	for n, tenant := range g.tenants {
		// Phases spread over one gap: no bursts of the generator's own making.
		next := time.Now().Add(gap * time.Duration(n) / time.Duration(len(g.tenants)))
		wg.Go(func() {
			rng := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)})
			for i := n; next.Before(end); i++ {
				select {
				case <-ctx.Done():
					return
				case <-time.After(time.Until(next)):
				}
				lag := time.Since(next)
				k := mix[i%len(mix)]
				body := make([]byte, kinds()[k].body)
				rng.Read(body)
				wg.Go(func() { t.note(g.one(tenant, k, body), tenant, k, lag) })
				next = next.Add(gap)
			}
		})
	}
	wg.Wait()
	t.sum()
	return t
}

// one sends one request and judges the answer.
func (g *generator) one(tenant string, k int, body []byte) reply {
	kd := kinds()[k]
	r := request{method: http.MethodGet, host: tenant + ".localhost", path: kd.path}
	if kd.body > 0 {
		r.method, r.body = http.MethodPost, body
	}
	a := g.client.do(r)
	if a.err == nil && a.outcome == "" && a.status == http.StatusOK && !bytes.Equal(a.body, kd.want(tenant, body)) {
		a.outcome = "wrong body: " + strconv.Quote(string(a.body[:min(len(a.body), 60)]))
	}
	return a
}

// good says that the answer is whole and the tenant's own.
func (a *reply) good() bool { return a.err == nil && a.status == http.StatusOK && a.outcome == "" }

// interrupted says that the response had begun when it was cut.
func (a *reply) interrupted() bool { return a.err != nil && a.head && a.status == http.StatusOK }

func (t *tally) note(a reply, tenant string, k int, lag time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lag.add(lag)
	kt := t.Kinds[k]
	kt.Sent++
	switch {
	case a.good():
		kt.OK++
		kt.hist.add(a.took)
		t.hist.add(a.took)
		t.tenant[tenant].add(a.took)
	case a.interrupted():
		kt.Interrupted++
		t.Ends[kt.Kind+": "+a.String()]++
	default:
		kt.Failed++
		t.Ends[kt.Kind+": "+a.String()]++
		if len(t.Failures) < maxFailures {
			t.Failures = append(t.Failures, failure{At: time.Now(), ID: a.id, Tenant: tenant, Kind: kt.Kind, How: a.String(), Text: a.message(), Took: a.took})
		}
	}
}

func (t *tally) sum() {
	for _, k := range t.Kinds {
		k.Latency = k.hist.latency()
		t.Sent += k.Sent
		t.OK += k.OK
		t.Interrupted += k.Interrupted
		t.Failed += k.Failed
	}
	t.Latency = t.hist.latency()
	t.LagP99Micros = t.lag.latency().P99Micros
	for _, h := range t.tenant {
		t.WorstTenantP99Micros = max(t.WorstTenantP99Micros, h.latency().P99Micros)
	}
}

// since fills in how long before or after each failure the nearest death was.
func (t *tally) since(deaths []time.Time) {
	for i := range t.Failures {
		f := &t.Failures[i]
		for _, d := range deaths {
			if s := f.At.Sub(d); f.Since == nil || s.Abs() < f.Since.Abs() {
				f.Since = &s
			}
		}
	}
}

// counts writes a count by name, the most frequent first.
func counts(m map[string]int) string {
	names := slices.Sorted(maps.Keys(m))
	slices.SortStableFunc(names, func(a, b string) int { return m[b] - m[a] })
	out := ""
	for i, n := range names {
		if i > 0 {
			out += ", "
		}
		out += fmt.Sprintf("%d × %s", m[n], n)
	}
	if out == "" {
		return "none"
	}
	return out
}
