package placement

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"bulkhead/ipc/gatewayside"
)

// Usage is one line of `bulkhead top`: what a tenant uses, as its shard claims. The JSON names are a
// contract.
type Usage struct {
	Tenant      string  `json:"tenant"`
	Shard       uint32  `json:"shard"`
	Running     int64   `json:"running"`     // invocations in flight
	CPUMs       float64 `json:"cpuMs"`       // since it was loaded there
	BracketedMs float64 `json:"bracketedMs"` // of it, while somebody outside could time it
	HeapBytes   uint64  `json:"heapBytes"`   // buffers included
	Points      float64 `json:"points"`      // of suspicion
	Verdict     string  `json:"verdict"`
	Standing    string  `json:"standing"` // what is held against it, "" for nothing
}

// Usage lists what every loaded tenant uses, by tenant and shard. Shards that do not answer are left out.
func (p *Pool) Usage(ctx context.Context) []Usage {
	ctx, cancel := context.WithTimeout(ctx, statsTimeout)
	defer cancel()
	p.mu.Lock()
	var at []*shard
	for _, s := range p.shards {
		if s.used {
			at = append(at, s)
		}
	}
	p.mu.Unlock()
	all := make([]gatewayside.Stats, len(at))
	var wg sync.WaitGroup
	for i, s := range at {
		wg.Go(func() {
			if st, err := s.conn.Stats(ctx); err == nil {
				all[i] = st
			}
		})
	}
	wg.Wait()
	var out []Usage
	p.mu.Lock()
	for i, s := range at {
		for _, t := range all[i].Tenants {
			if pl := s.hosted[t.Tenant]; pl != nil {
				out = append(out, Usage{Tenant: pl.v.Tenant, Shard: s.proc.ID, Running: pl.refs.Load(), CPUMs: float64(t.CPUMicros) / 1000,
					BracketedMs: float64(t.BracketedMicros) / 1000, HeapBytes: t.HeapBytes + t.ExternalBytes})
			}
		}
	}
	p.mu.Unlock()
	for i := range out {
		u := &out[i]
		sc := p.Suspicion(u.Tenant)
		u.Points, u.Verdict, u.Standing = sc.Points, sc.Verdict.String(), p.Standing(u.Tenant)
	}
	slices.SortFunc(out, func(a, b Usage) int { return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Shard, b.Shard)) })
	return out
}
