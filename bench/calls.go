package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// calls is how often a call that starts its callee put it into its caller's process.
type calls struct {
	Host     hostInfo       `json:"host"`
	Calls    int            `json:"calls"`
	Failed   int            `json:"failed"`
	Ends     map[string]int `json:"ends"` // of the failed
	Together int            `json:"together"`
	Unseen   int            `json:"unseen"` // of the listings that one of the two was missing from
	Loads    float64        `json:"loads"`
	ForMs    float64        `json:"forMs"`
	Shards   map[string]int `json:"shards"` // pairs of processes seen, by how often
}

// callPairs are callers with a callee each, on clients of their own.
const callPairs = 8

const (
	callerSource = `export default { fetch: (request, env) => env.BACK.fetch(request) };` + "\n"
	calleeSource = `export default { fetch: () => new Response("called") };` + "\n"
)

func callTenants(dir string) error {
	for i := range callPairs {
		caller, callee := fmt.Sprintf("caller-%d", i), fmt.Sprintf("callee-%d", i)
		if err := writeWorker(dir, caller, callerSource); err != nil {
			return err
		}
		if err := writeWorker(dir, callee, calleeSource); err != nil {
			return err
		}
		for name, text := range map[string]string{
			caller: "main: worker.js\nservices: [{binding: BACK, service: " + callee + "}]\n",
			callee: "main: worker.js\ncallers: [" + caller + "]\n",
		} {
			if err := os.WriteFile(filepath.Join(dir, name, "bulkhead.yaml"), []byte(text), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// callsOf evicts a callee, calls it, and looks where both are, over and over. Every other time the caller
// is started anew as well.
func (b *bench) callsOf() (*calls, error) {
	t, err := b.startHost(hostOptions{scratch: b.scratch, tenants: callTenants})
	if err != nil {
		return nil, err
	}
	defer t.stop()
	if err := t.built(b.ctx); err != nil {
		return nil, err
	}
	r := &calls{Host: t.info, Ends: map[string]int{}, Shards: map[string]int{}}
	begin := time.Now()
	var mu sync.Mutex
	var begun atomic.Int64
	var wg sync.WaitGroup
	for i := range callPairs {
		wg.Go(func() {
			caller, callee := fmt.Sprintf("caller-%d", i), fmt.Sprintf("callee-%d", i)
			for k := begun.Add(1); k <= int64(b.calls) && b.ctx.Err() == nil; k = begun.Add(1) {
				a, ok := t.public.get(caller+".localhost", "/")
				list, err := t.shards()
				mu.Lock()
				r.Calls++
				if !ok || string(a.body) != "called" || err != nil {
					r.Failed++
					r.Ends[a.String()+" "+a.message()]++
				}
				r.judge(list, caller, callee)
				mu.Unlock()
				if k%500 == 0 {
					b.say("calls: %d of %d", k, b.calls)
				}
				gone := []string{callee}
				if k%2 == 0 {
					gone = append(gone, caller)
				}
				for _, name := range gone {
					if err := t.evict(name); err != nil {
						mu.Lock()
						r.Failed++
						r.Ends[err.Error()]++
						mu.Unlock()
					}
				}
			}
		})
	}
	wg.Wait()
	r.ForMs = ms(time.Since(begin))
	if m, err := t.metrics("bulkhead_placement_total"); err == nil {
		r.Loads = m[`event="loaded"`]
	}
	return r, b.ctx.Err()
}

// judge looks for the two in a listing. Caller holds the lock of r.
func (r *calls) judge(list []shard, caller, callee string) {
	at := func(name string) int {
		return slices.IndexFunc(list, func(s shard) bool { return slices.Contains(s.Tenants, name) })
	}
	from, to := at(caller), at(callee)
	switch {
	case from < 0 || to < 0:
		r.Unseen++
	case from == to:
		r.Together++
	default:
		r.Shards[fmt.Sprintf("%d and %d", list[from].ID, list[to].ID)]++
	}
	for _, s := range list { // nor a moment ago: who is being evicted is listed until it is wiped
		if slices.Contains(s.Tenants, caller) && slices.Contains(s.Tenants, callee) && from != to {
			r.Together++
		}
	}
}

func (r *calls) broken() (out []string) {
	if r.Together > 0 {
		out = append(out, fmt.Sprintf("in %d of %d calls caller and callee shared a process", r.Together, r.Calls))
	}
	if r.Failed > 0 {
		out = append(out, fmt.Sprintf("%d of %d calls failed: %s", r.Failed, r.Calls, counts(r.Ends)))
	}
	if r.Loads < float64(r.Calls) {
		out = append(out, fmt.Sprintf("%d calls and %.0f loads: some did not start their callee", r.Calls, r.Loads))
	}
	if r.Unseen > r.Calls/10 {
		out = append(out, fmt.Sprintf("%d of %d listings lacked one of the two", r.Unseen, r.Calls))
	}
	return out
}

func (r *calls) print(w io.Writer) {
	fmt.Fprintf(w, "%s\n%d calls that started their callee, %d failed, in %.0f s; %.0f loads; over %d pairs of processes; one process for both: %d (unseen %d)\n",
		r.Host, r.Calls, r.Failed, r.ForMs/1e3, r.Loads, len(r.Shards), r.Together, r.Unseen)
}
