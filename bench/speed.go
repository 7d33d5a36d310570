package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"text/tabwriter"
)

// row is one target under one number of connections, all rounds.
type row struct {
	Target      string    `json:"target"`
	Connections int       `json:"connections"`
	PerSecond   []float64 `json:"requestsPerSecond"`
	P50Micros   []float64 `json:"p50Micros"`
	P99Micros   []float64 `json:"p99Micros"`
	Failed      int       `json:"failed"`
	CPUMicros   cpuShares `json:"cpuMicrosPerRequest"`
}

// speed is the comparison with a peer: the same worker, the same load generator, the same machine,
// the two in turn, so that a drift of the machine meets both alike. Ratios are what it claims.
type speed struct {
	Host  hostInfo `json:"host"`
	Peers []string `json:"peers"`
	Rows  []*row   `json:"rows"`
}

func (b *bench) speed() (*speed, error) {
	source, err := os.ReadFile(filepath.Join(b.root, "bench/workloads/hello/worker.js"))
	if err != nil {
		return nil, err
	}
	bulkhead, err := b.startHost(hostOptions{tenants: workers(string(source), "hello")})
	if err != nil {
		return nil, err
	}
	defer bulkhead.stop()
	workerd, err := b.startWorkerd(filepath.Join(b.root, "bench/peers/workerd.capnp"))
	if err != nil {
		return nil, err
	}
	defer workerd.stop()
	if err := bulkhead.built(b.ctx); err != nil {
		return nil, err
	}

	res := &speed{Host: bulkhead.info, Peers: []string{workerd.version}}
	connections := []int{1, 32, 128}
	targets := []*target{bulkhead, workerd}
	for _, c := range connections {
		for _, t := range targets {
			res.Rows = append(res.Rows, &row{Target: t.name, Connections: c})
		}
	}
	total, done := b.rounds*len(res.Rows), 0
	for round := range b.rounds {
		for i, c := range connections {
			// Every other round starts with the other target: neither always runs on a warm machine.
			order := []int{0, 1}
			if round%2 == 1 {
				slices.Reverse(order)
			}
			for _, j := range order {
				if err := b.ctx.Err(); err != nil {
					return nil, err
				}
				done++
				b.say("[%d/%d] %s, %d connections", done, total, targets[j].name, c)
				before := targets[j].cpu()
				m, err := load(targets[j], c, b.sample)
				if err != nil {
					return nil, err
				}
				r := res.Rows[i*len(targets)+j]
				r.PerSecond = append(r.PerSecond, m.perSecond)
				r.P50Micros = append(r.P50Micros, m.p50)
				r.P99Micros = append(r.P99Micros, m.p99)
				r.Failed += m.failed
				r.CPUMicros.add(targets[j].cpu().since(before), m.requests)
			}
		}
	}
	return res, nil
}

func (r *speed) broken() (out []string) {
	for _, row := range r.Rows {
		if row.Failed > 0 && row.Target == "bulkhead" {
			out = append(out, fmt.Sprintf("%d requests failed over %d connections", row.Failed, row.Connections))
		}
	}
	return out
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if len(s) == 0 {
		return 0
	}
	return s[len(s)/2]
}

func spread(v []float64) string {
	return fmt.Sprintf("%.0f (%.0f–%.0f)", median(v), slices.Min(v), slices.Max(v))
}

func (r *speed) print(w io.Writer) {
	fmt.Fprintf(w, "%s; peers: %v\n", r.Host, r.Peers)
	tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "hello\tconnections\trequests/s (min–max)\tp50 µs\tp99 µs\tfailed\tCPU µs a request")
	for _, row := range r.Rows {
		fmt.Fprintf(tw, "%s\t%d\t%s\t%.0f\t%.0f\t%d\t%s\n", row.Target, row.Connections, spread(row.PerSecond), median(row.P50Micros), median(row.P99Micros), row.Failed, row.CPUMicros)
	}
	tw.Flush()
	for i := 0; i+1 < len(r.Rows); i += 2 {
		a, b := r.Rows[i], r.Rows[i+1]
		var ratios []float64
		for k := range a.PerSecond {
			ratios = append(ratios, a.PerSecond[k]/b.PerSecond[k])
		}
		fmt.Fprintf(w, "%s / %s at %3d connections: %.2fx requests/s (%.2f–%.2f), p50 %.2fx, p99 %.2fx\n", a.Target, b.Target, a.Connections,
			median(ratios), slices.Min(ratios), slices.Max(ratios), median(a.P50Micros)/median(b.P50Micros), median(a.P99Micros)/median(b.P99Micros))
	}
}

func mb(b uint64) float64 { return float64(b) / (1 << 20) }

// String lists the parts, the dearest first: it says where the time goes.
func (c cpuShares) String() string {
	type part struct {
		name string
		us   float64
	}
	var parts []part
	for k, v := range c {
		if v >= 0.05 {
			parts = append(parts, part{k, v})
		}
	}
	sort.Slice(parts, func(i, j int) bool { return parts[i].us > parts[j].us })
	var s []string
	for _, p := range parts {
		s = append(s, fmt.Sprintf("%s %.1f", p.name, p.us))
	}
	return strings.Join(s, ", ")
}
