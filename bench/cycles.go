package main

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"
)

// cycles is a host whose tenants come and go, all in one shard, where one of them stays.
type cycles struct {
	Host      hostInfo       `json:"host"`
	Cycles    int            `json:"cycles"` // of load, request and eviction
	ForMs     float64        `json:"forMs"`
	Requests  int            `json:"requests"`
	Failed    int            `json:"failed"`
	Ends      map[string]int `json:"ends"` // of the failed
	Loads     float64        `json:"loads"`
	Evictions float64        `json:"evictions"`
	Incidents map[string]int `json:"incidents"` // by kind and tenants
	Recycled  bool           `json:"recycled"`  // the shard is another one than at the start
	OverTime  []cyclesMoment `json:"overTime"`  // at rest; the first is the start
}

type cyclesMoment struct {
	Cycles   int    `json:"cycles"`
	RSSBytes uint64 `json:"rssBytes"`
	PSSBytes uint64 `json:"pssBytes"`
}

const (
	// cyclers are the tenants that come and go, each on a client of its own.
	cyclers = 4
	// cyclesRest is how long a shard is left alone before it is measured: an idle one collects its
	// garbage and gives memory back after 3 s, one tenant after the other.
	cyclesRest = 5 * time.Second
	// cyclesMoments are looked at, besides the start, which is after a tenth of all cycles: the first
	// hundreds fill the pools of allocators and of Go.
	cyclesMoments = 5
)

// comeAndGo holds on to something of each kind when it is evicted.
const comeAndGo = `const kept = new Uint8Array(1 << 16).fill(1);
setTimeout(() => kept, 1000);
export default { async fetch(request) {
	console.log("a line");
	await new Promise((resolve) => setTimeout(resolve, 1));
	return new Response("hello " + kept.length);
} };
`

// cyclesOf loads and evicts tenants and looks at the shard's size at rest.
func (b *bench) cyclesOf() (*cycles, error) {
	names := []string{"stays"}
	for i := range cyclers {
		names = append(names, fmt.Sprint("comes-", i))
	}
	t, err := b.startHost(hostOptions{scratch: b.scratch, tenants: workers(comeAndGo, names...),
		args: []string{"--max-shards", "1"}, beside: "at most one shard"})
	if err != nil {
		return nil, err
	}
	defer t.stop()
	if err := t.built(b.ctx); err != nil {
		return nil, err
	}
	r := &cycles{Host: t.info, Ends: map[string]int{}}
	pid := func() (int, error) {
		list, err := t.shards()
		if err == nil && len(list) != 1 {
			err = fmt.Errorf("%d shards, of one that is allowed", len(list))
		}
		if err != nil {
			return 0, err
		}
		return list[0].PID, nil
	}
	if a, ok := t.public.get("stays.localhost", "/"); !ok {
		return nil, fmt.Errorf("the tenant that stays does not answer: %s %s", a.String(), a.message())
	}
	first, err := pid()
	if err != nil {
		return nil, err
	}
	look := func() error {
		rest(b.ctx, cyclesRest)
		now, err := pid()
		if err != nil {
			return err
		}
		r.Recycled = r.Recycled || now != first
		r.OverTime = append(r.OverTime, cyclesMoment{r.Cycles, field(fmt.Sprintf("/proc/%d/status", now), "VmRSS:"), pssOf(now)})
		return nil
	}
	part := max(b.cycles/cyclesMoments, 1)
	r.turn(b, t, max(b.cycles/10, 1))
	if err := look(); err != nil {
		return nil, err
	}
	for r.Cycles < b.cycles && b.ctx.Err() == nil {
		r.turn(b, t, min(part, b.cycles-r.Cycles))
		if err := look(); err != nil {
			return nil, err
		}
	}
	if m, err := t.metrics("bulkhead_placement_total"); err == nil {
		r.Loads, r.Evictions = m[`event="loaded"`], m[`event="evicted"`]
	}
	if r.Incidents, err = t.incidents(""); err != nil {
		return nil, err
	}
	return r, b.ctx.Err()
}

// turn does n cycles.
func (r *cycles) turn(b *bench, t *target, n int) {
	begin := time.Now()
	var mu sync.Mutex
	ask := func(name string) {
		a, ok := t.public.get(name+".localhost", "/")
		mu.Lock()
		defer mu.Unlock()
		r.Requests++
		if !ok {
			r.Failed++
			r.Ends[a.String()+" "+a.message()]++
		}
	}
	var begun atomic.Int64
	var wg sync.WaitGroup
	for c := range cyclers {
		wg.Go(func() {
			name := fmt.Sprint("comes-", c)
			for k := begun.Add(1); k <= int64(n) && b.ctx.Err() == nil; k = begun.Add(1) {
				ask(name)
				if k%16 == 0 {
					ask("stays")
				}
				if k%500 == 0 {
					b.say("cycles: %d of %d", r.Cycles+int(k), b.cycles)
				}
				if err := t.evict(name); err != nil {
					mu.Lock()
					r.Failed++
					r.Ends[err.Error()]++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	r.Cycles += n
	r.ForMs += ms(time.Since(begin))
}

// evictWithin is how long a tenant may be busy after its answer has arrived.
const evictWithin = 10 * time.Second

// evict unloads a tenant of which nothing runs any more, or will soon.
func (t *target) evict(name string) error {
	for deadline := time.Now().Add(evictWithin); ; time.Sleep(200 * time.Microsecond) {
		var out struct{ Evicted, Busy int }
		if err := t.admin.admin("POST", "/v1/evict/"+name, &out); err != nil {
			return fmt.Errorf("evict %s: %w", name, err)
		}
		if out.Evicted > 0 {
			return nil
		}
		if out.Busy == 0 { // it may be leaving a shard that is to end: then it is in none any more, or soon
			list, err := t.shards()
			if err != nil {
				return fmt.Errorf("evict %s: %w", name, err)
			}
			if !slices.ContainsFunc(list, func(s shard) bool { return slices.Contains(s.Tenants, name) }) {
				return nil
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("evict %s: %d evicted, %d busy", name, out.Evicted, out.Busy)
		}
	}
}

// growth is how much larger the shard is at the end than at the start.
func (r *cycles) growth() float64 {
	first, last := r.OverTime[0], r.OverTime[len(r.OverTime)-1]
	return float64(last.RSSBytes)/float64(max(first.RSSBytes, 1)) - 1
}

func (r *cycles) broken() (out []string) {
	if r.Failed > 0 {
		out = append(out, fmt.Sprintf("%d of %d requests failed: %s", r.Failed, r.Requests, counts(r.Ends)))
	}
	if r.Loads < float64(r.Cycles) {
		out = append(out, fmt.Sprintf("%d cycles and %.0f loads", r.Cycles, r.Loads))
	}
	if g := r.growth(); g > 0.1 && !r.Recycled {
		out = append(out, fmt.Sprintf("the shard grew by %.0f %% and was not recycled", g*100))
	}
	if len(r.Incidents) > 0 {
		out = append(out, "incidents: "+counts(r.Incidents))
	}
	return out
}

func (r *cycles) print(w io.Writer) {
	fmt.Fprintf(w, "%s\n%d cycles of load, request and eviction, %d at once, in %.0f s (%.1f ms each); %d requests, %d failed; %.0f loads, %.0f evictions; incidents: %s\n",
		r.Host, r.Cycles, cyclers, r.ForMs/1e3, r.ForMs/float64(r.Cycles)*cyclers, r.Requests, r.Failed, r.Loads, r.Evictions, counts(r.Incidents))
	recycled := "the same process all the time"
	if r.Recycled {
		recycled = "the shard was recycled"
	}
	fmt.Fprintf(w, "from the start to the end %+.1f %% (bar 10 %%), %s\n", r.growth()*100, recycled)
	if r.Failed > 0 {
		fmt.Fprintf(w, "failed: %s\n", counts(r.Ends))
	}
	tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "cycles\tRSS MB\tPSS MB")
	for _, m := range r.OverTime {
		fmt.Fprintf(tw, "%d\t%.1f\t%.1f\n", m.Cycles, mb(m.RSSBytes), mb(m.PSSBytes))
	}
	tw.Flush()
}
