package main

import (
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"text/tabwriter"
)

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

func (r *result) print(w io.Writer) {
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
	fmt.Fprintf(w, "cold start over %d tenants, first byte minus warm: p50 %.1f ms, p99 %.1f ms\n", r.ColdStart.Tenants, r.ColdStart.P50Micros/1e3, r.ColdStart.P99Micros/1e3)
	fmt.Fprintf(w, "memory, all processes (PSS): %.0f MB with one tenant live, %.0f MB with %d more; %.2f MB a tenant, shards included; page tables %.1f MB\n",
		mb(r.Memory.BaseBytes), mb(r.Memory.AllBytes), r.Memory.Tenants, r.Memory.PerTenant/(1<<20), mb(r.Memory.PageTableBytes))
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
