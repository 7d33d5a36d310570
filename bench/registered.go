package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"sync"
	"text/tabwriter"
	"time"
)

// registered is a host with far more tenants than it keeps loaded, asked at random.
type registered struct {
	Host       hostInfo       `json:"host"`
	Tenants    int            `json:"tenants"`
	StartMs    float64        `json:"startMs"` // of the host, with all those folders
	ForMs      float64        `json:"forMs"`
	Requests   int            `json:"requests"`
	Failed     int            `json:"failed"`
	Ends       map[string]int `json:"ends"` // of the failed
	PerSecond  float64        `json:"requestsPerSecond"`
	Latency    latency        `json:"latency"`
	Loads      float64        `json:"loads"` // into a shard
	Evictions  float64        `json:"evictions"`
	Distinct   int            `json:"distinctTenants"`
	ColdShare  float64        `json:"coldShare"`         // loads to requests
	Budget     uint64         `json:"budgetBytes"`       // of all shards together
	MaxShards  uint64         `json:"maxShardsPssBytes"` // what they came to
	MaxBytes   uint64         `json:"maxPssBytes"`       // launcher and gateway included
	OverTime   []moment       `json:"overTime"`
	HotTenants int            `json:"hotTenants"`
}

// moment is the host's size at one moment.
type moment struct {
	Second    float64 `json:"second"`
	PSSBytes  uint64  `json:"pssBytes"`
	ShardsPSS uint64  `json:"shardsPssBytes"`
	Loaded    int     `json:"loaded"`
	Shards    int     `json:"shards"`
	PerSecond float64 `json:"requestsPerSecond"` // since the last
}

// registeredTenants hits the tenants at random. The first request of each builds it, which is slow
// and would hide what eviction and loading cost: every second request goes to one of a thousandth
// (at least 500) of them, whose builds are soon done.
func (b *bench) registeredTenants() (*registered, error) {
	source, err := b.coldSource(0, 0)
	if err != nil {
		return nil, err
	}
	n := b.registered
	r := &registered{Tenants: n, HotTenants: min(n, max(500, n/1000)), Budget: b.budget, Ends: map[string]int{}}
	start := time.Now()
	t, err := b.startHost(hostOptions{scratch: b.scratch, args: []string{"--memory", strconv.FormatUint(b.budget, 10)}, tenants: func(dir string) error {
		for i := range n {
			if i%5000 == 0 {
				b.say("registered: writing folders, %d of %d", i, n)
			}
			if err := writeWorker(dir, fmt.Sprintf("t%d", i), source); err != nil {
				return err
			}
		}
		start = time.Now()
		b.say("registered: starting the host")
		return nil
	}})
	if err != nil {
		return nil, err
	}
	defer t.stop()
	r.Host, r.StartMs = t.info, ms(time.Since(start))
	r.hit(b, t)
	if m, err := t.metrics("bulkhead_placement_total"); err == nil {
		r.Loads, r.Evictions = m[`event="loaded"`], m[`event="evicted"`]
		r.ColdShare = r.Loads / float64(max(r.Requests, 1))
	}
	return r, b.ctx.Err()
}

func (r *registered) hit(b *bench, t *target) {
	var mu sync.Mutex
	var h histogram
	asked := map[int]bool{}
	begin := time.Now()
	end := begin.Add(b.hitFor)
	var wg sync.WaitGroup
	for c := range 16 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(c), 5))
			for time.Now().Before(end) && b.ctx.Err() == nil {
				i := rng.IntN(r.Tenants)
				if rng.IntN(2) == 0 {
					i = rng.IntN(r.HotTenants)
				}
				a, ok := t.public.get(fmt.Sprintf("t%d.localhost", i), "/")
				mu.Lock()
				r.Requests++
				asked[i] = true
				h.add(a.took)
				if !ok {
					r.Failed++
					r.Ends[a.String()+" "+a.message()]++
				}
				mu.Unlock()
			}
		})
	}
	last, lastAt := 0, begin
	for time.Now().Before(end) && b.ctx.Err() == nil {
		rest(b.ctx, min(2*time.Second, time.Until(end)))
		var st struct{ Loaded, Shards int }
		t.admin.admin("GET", "/v1/status", &st)
		bytes, shards := pssShards(t)
		mu.Lock()
		now := time.Now()
		u := moment{Second: now.Sub(begin).Seconds(), PSSBytes: bytes, ShardsPSS: shards, Loaded: st.Loaded, Shards: st.Shards,
			PerSecond: float64(r.Requests-last) / now.Sub(lastAt).Seconds()}
		last, lastAt = r.Requests, now
		b.say("registered: %.0f of %.0f s, %d requests, %d failed, %d loaded in %d shards, %.0f MB", u.Second, b.hitFor.Seconds(), r.Requests, r.Failed, u.Loaded, u.Shards, mb(bytes))
		mu.Unlock()
		r.OverTime = append(r.OverTime, u)
		r.MaxBytes, r.MaxShards = max(r.MaxBytes, bytes), max(r.MaxShards, shards)
	}
	wg.Wait()
	r.ForMs = ms(time.Since(begin))
	r.PerSecond = float64(r.Requests) / (r.ForMs / 1e3)
	r.Latency, r.Distinct = h.latency(), len(asked)
}

func (r *registered) broken() (out []string) {
	if r.Failed > 0 {
		out = append(out, fmt.Sprintf("%d of %d requests failed: %s", r.Failed, r.Requests, counts(r.Ends)))
	}
	if r.MaxShards > r.Budget {
		out = append(out, fmt.Sprintf("the shards held %.0f MB, their budget is %.0f", mb(r.MaxShards), mb(r.Budget)))
	}
	return out
}

func (r *registered) print(w io.Writer) {
	fmt.Fprintf(w, "%s\n%d tenants registered, host ready after %.1f s; %d requests to %d tenants in %.0f s, %d failed, %.0f/s; p50 %.1f ms, p99 %.1f ms\n",
		r.Host, r.Tenants, r.StartMs/1e3, r.Requests, r.Distinct, r.ForMs/1e3, r.Failed, r.PerSecond, r.Latency.P50Micros/1e3, r.Latency.P99Micros/1e3)
	fmt.Fprintf(w, "%.0f loads (%.0f %% of requests), %.0f evictions; shards at most %.0f MB of their budget of %.0f, all processes %.0f (PSS)\n",
		r.Loads, r.ColdShare*100, r.Evictions, mb(r.MaxShards), mb(r.Budget), mb(r.MaxBytes))
	if r.Failed > 0 {
		fmt.Fprintf(w, "failed: %s\n", counts(r.Ends))
	}
	tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "second\tshards MB\tall MB\tloaded\tshards\trequests/s")
	step := max(1, len(r.OverTime)/12)
	for i := 0; i < len(r.OverTime); i += step {
		u := r.OverTime[i]
		fmt.Fprintf(tw, "%.0f\t%.0f\t%.0f\t%d\t%d\t%.0f\n", u.Second, mb(u.ShardsPSS), mb(u.PSSBytes), u.Loaded, u.Shards, u.PerSecond)
	}
	tw.Flush()
}
