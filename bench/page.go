package main

import (
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// results are what runs wrote with -json, decoded again: a page is made of a run, or of several.
type results struct {
	Machine   string       `json:"machine"`
	Speed     *speed       `json:"speed"`
	Workloads *comparison  `json:"workloads"`
	Crowd     *crowds      `json:"crowd"`
	Curve     *curve       `json:"curve"`
	Growth    *growth      `json:"growth"`
	Seal      *sealCost    `json:"seal"`
	Cold      *coldStarts  `json:"cold"`
	Memory    *memory      `json:"memory"`
	Attack    *containment `json:"attack"`
	Hits      *registered  `json:"registered"`
}

// readResults merges files that -json wrote; of an instrument that stands in several the last counts.
func readResults(files ...string) (map[string]json.RawMessage, error) {
	all := map[string]json.RawMessage{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(text, &all); err != nil {
			return nil, fmt.Errorf("%s is no result of bench -json: %w", f, err)
		}
	}
	return all, nil
}

// writePage writes the self-contained page of these results.
func writePage(file string, all any) error {
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	var r results
	if err := json.Unmarshal(text, &r); err != nil {
		return fmt.Errorf("the page cannot be made of these results: %w", err)
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := r.page(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

func (r *results) page(w io.Writer) error {
	return pageTemplate.Execute(w, struct {
		Machine string
		When    string
		Rules   []string
		Figures []figure
		Colours [6]struct{} // of plots, as svg.go counts them
	}{r.Machine, time.Now().UTC().Format("2 January 2006"), r.rules(), r.figures(), [6]struct{}{}})
}

// rules name policies and peers, each once.
func (r *results) rules() (out []string) {
	add := func(s string) {
		if s != "" && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	if r.Speed != nil {
		add(r.Speed.Host.String())
		add("peers: " + strings.Join(r.Speed.Peers, ", "))
	}
	if r.Workloads != nil {
		add(r.Workloads.Host.String())
		add("peers: " + strings.Join(r.Workloads.Peers, ", "))
	}
	return out
}

func (r *results) figures() (out []figure) {
	for _, f := range []func() []figure{r.speedFigures, r.comparedFigures, r.curveFigures, r.growthFigures, r.sealFigures, r.coldFigures, r.memoryFigures, r.attackFigures, r.hitFigures} {
		out = append(out, f()...)
	}
	return out
}

func (r *results) speedFigures() []figure {
	if r.Speed == nil {
		return nil
	}
	var bars []bar
	for i := 0; i+1 < len(r.Speed.Rows); i += 2 {
		a, b := r.Speed.Rows[i], r.Speed.Rows[i+1]
		mid, low, high := (&compared{row: *a}).ratio(&compared{row: *b})
		want := 2.0
		if a.Connections == 1 {
			want = 0
		}
		bars = append(bars, bar{fmt.Sprintf("%d connections", a.Connections), mid, low, high, 0, fmt.Sprintf("%.2fx", mid), want},
			bar{"its p99", ratioOf(median(a.P99Micros), median(b.P99Micros)), 0, 0, 2, fmt.Sprintf("%.2fx", ratioOf(median(a.P99Micros), median(b.P99Micros))), want / 10})
	}
	return []figure{{"hello, against workerd", "Requests a second, sealed against unsealed, pairs of runs in turn; below, the p99 of the same runs (shorter is better there). The whisker is the range over rounds, the tick what the project aims at.",
		barChart("hello against workerd", "times workerd's", true, bars)}}
}

func ratioOf(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func (r *results) comparedFigures() (out []figure) {
	plot := func(what, note string, rows []*compared) {
		var bars []bar
		for _, g := range grouped(rows) {
			for i, other := range g[1:] {
				mid, low, high := g[0].ratio(other)
				bars = append(bars, bar{g[0].Workload + " / " + other.Target, mid, low, high, i, fmt.Sprintf("%.2fx", mid), 0})
			}
		}
		out = append(out, figure{what, note, barChart(what, "times the peer's requests a second", true, bars)})
	}
	if r.Workloads != nil {
		plot("The same worker on each", "bulkhead's requests a second divided by the peer's: workerd with all workers in one unsealed process, Node with a process for each.", r.Workloads.Rows)
	}
	if r.Crowd != nil {
		plot("Many tenants at once", "32 requests under way, spread over workers; workerd has all of them in one process, each at a port of its own.", r.Crowd.Rows)
	}
	return out
}

func (r *results) curveFigures() []figure {
	if r.Curve == nil {
		return nil
	}
	byTarget := map[string]int{}
	var p50, p99 []series
	for _, row := range r.Curve.Rows {
		i, ok := byTarget[row.Target]
		if !ok {
			i = len(p50)
			byTarget[row.Target] = i
			p50, p99 = append(p50, series{name: row.Target + " p50"}), append(p99, series{name: row.Target + " p99"})
		}
		add := func(s *series, v []float64) {
			if len(v) > 0 {
				s.points = append(s.points, point{row.Asked, slices.Min(v) / 1e3, median(v) / 1e3, slices.Max(v) / 1e3})
			}
		}
		add(&p50[i], row.P50Micros)
		add(&p99[i], row.P99Micros)
	}
	return []figure{{"Latency over load", "hello at fixed rates in an open loop: latency counts from when a request was due, whatever became of the ones before.",
		lineChart("latency over load", "requests a second", "ms", true, true, append(p50, p99...))}}
}

func (r *results) growthFigures() (out []figure) {
	if r.Growth == nil {
		return nil
	}
	for _, c := range r.Growth.curves() {
		cpu, p99 := series{name: "CPU µs a request"}, series{name: "p50 µs"}
		if c.per > 0 {
			cpu.name, p99.name = "CPU ms a MiB", "p50 ms a MiB"
		}
		for _, row := range c.rows {
			scale := 1.0
			if c.per > 0 {
				scale = 1e-3 * c.per / float64(row.N)
			}
			cpu.points = append(cpu.points, point{x: float64(row.N), y: row.CPUMicros.total() * scale})
			p99.points = append(p99.points, point{float64(row.N), slices.Min(row.P50Micros) * scale, median(row.P50Micros) * scale, slices.Max(row.P50Micros) * scale})
		}
		out = append(out, figure{"Growth: " + c.title + " " + c.unit, "What a request costs as there is more of it; a host without a knee pays for what it does.",
			lineChart("growth over "+c.unit, c.unit, "", true, true, []series{cpu, p99})})
	}
	return out
}

func (r *results) sealFigures() []figure {
	if r.Seal == nil {
		return nil
	}
	var bars []bar
	colour := map[string]int{}
	for _, row := range r.Seal.Rows {
		if _, ok := colour[row.Without]; !ok {
			colour[row.Without] = len(colour)
		}
		mid, low, high := (&compared{row: rates(row.Sealed)}).ratio(&compared{row: rates(row.Unsealed)})
		bars = append(bars, bar{row.Workload + " − " + row.Without, mid, low, high, colour[row.Without], fmt.Sprintf("%+.1f %%", 100*(mid-1)), 0.97})
	}
	return []figure{{"What the seal costs", "Requests a second of the sealed host divided by those of the same commit without a part of the worker's seal. \"nothing\" compares two sealed hosts and shows the noise; the tick is the aim, 3 %.",
		barChart("cost of the seal", "sealed / without that part", true, bars)}}
}

func rates(perSecond []float64) row { return row{PerSecond: perSecond} }

func (r *results) coldFigures() []figure {
	if r.Cold == nil {
		return nil
	}
	var bars []bar
	add := func(label string, group int, l latency, want float64) {
		if l.Requests > 0 {
			bars = append(bars, bar{label, l.P50Micros / 1e3, 0, l.P99Micros / 1e3, group, fmt.Sprintf("%.1f | %.1f", l.P50Micros/1e3, l.P99Micros/1e3), want})
		}
	}
	for i, row := range r.Cold.Rows {
		add(row.Worker+", first", 0, row.Fresh, 0)
		add(row.Worker+", after eviction", 0, row.Evicted, 0)
		if i < len(r.Cold.Workerd) {
			add(row.Worker+", workerd's loader", 1, r.Cold.Workerd[i].Loader, 0)
		}
	}
	return []figure{{"Cold start", "First byte of a tenant that is not loaded, minus the time of a warm request; the bar is the median, the whisker ends at the p99 (ms).",
		barChart("cold start", "ms", false, bars)}}
}

func (r *results) memoryFigures() []figure {
	if r.Memory == nil {
		return nil
	}
	var bars []bar
	for _, row := range r.Memory.Rows {
		bars = append(bars, bar{fmt.Sprintf("%d tenants", row.Tenants), row.PerTenant / (1 << 20), 0, 0, 0, fmt.Sprintf("%.2f MB", row.PerTenant/(1<<20)), 1.2})
	}
	if p := r.Memory.Workerd; p != nil {
		bars = append(bars, bar{fmt.Sprintf("workerd, %d", p.Workers), p.PerWorker / (1 << 20), 0, 0, 1, fmt.Sprintf("%.2f MB", p.PerWorker/(1<<20)), 0})
	}
	return []figure{{"Memory of a live tenant", "Proportional set size of all processes, divided by the tenants that are live; the tick is the aim.", barChart("memory of a live tenant", "MB", false, bars)}}
}

func (r *results) attackFigures() []figure {
	if r.Attack == nil {
		return nil
	}
	var bars []bar
	for _, o := range r.Attack.Rows {
		if o.During == nil || o.P99Ratio == 0 {
			continue
		}
		bars = append(bars, bar{o.Name, o.P99Ratio, 0, 0, 0, fmt.Sprintf("%d failed", o.During.Failed), 3})
	}
	return []figure{{"What neighbours feel of an attack", "p99 of 63 tenants while the 64th attacks, divided by theirs before and after; at the right, how many of their requests failed. The tick is the aim, 3x.",
		barChart("neighbours' p99 under attack", "times the calm", true, bars)}}
}

func (r *results) hitFigures() []figure {
	if r.Hits == nil {
		return nil
	}
	shards, loaded := series{name: "shards, MB"}, series{name: "tenants loaded"}
	for _, m := range r.Hits.OverTime {
		shards.points = append(shards.points, point{x: m.Second, y: mb(m.ShardsPSS)})
		loaded.points = append(loaded.points, point{x: m.Second, y: float64(m.Loaded)})
	}
	return []figure{{fmt.Sprintf("%d registered tenants hit at random", r.Hits.Tenants), fmt.Sprintf("%d requests, %d failed; the budget of all shards is %.0f MB.", r.Hits.Requests, r.Hits.Failed, mb(r.Hits.Budget)),
		lineChart("registered tenants", "seconds", "", false, false, []series{shards, loaded})}}
}

var pageTemplate = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>bulkhead: benchmarks</title>
<style>
:root { color-scheme: light dark; --ink: #1c2330; --soft: #667085; --grid: #e3e6ec; --page: #fff; --c0: #1769aa; --c1: #c2570c; --c2: #2e8540; --c3: #7a3e9d; --c4: #8a6d00; --c5: #b3195d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ebf0; --soft: #9aa4b2; --grid: #2c3441; --page: #12161d; --c0: #6cb2f0; --c1: #f0a35e; --c2: #74cf8a; --c3: #c795e8; --c4: #dcc04a; --c5: #f07ab0; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 780px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .2rem; } p { margin: .2rem 0; color: var(--soft); } svg { width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); } .tick, .unit { fill: var(--soft); } .middle { text-anchor: middle; } .end { text-anchor: end; }
.grid { stroke: var(--grid); } .one { stroke: var(--soft); stroke-width: 1.5; } .whisker { stroke: var(--ink); stroke-width: 1.5; } .reference { stroke: var(--ink); stroke-width: 3; }
.curve { fill: none; stroke-width: 2; } .range { stroke-width: 1; opacity: .5; }
{{range $i, $_ := .Colours}}.bar.c{{$i}}, .dot.c{{$i}} { fill: var(--c{{$i}}); } .curve.c{{$i}}, .range.c{{$i}} { stroke: var(--c{{$i}}); }
{{end}}</style>
<h1>bulkhead, measured</h1>
<p>{{.Machine}}; {{.When}}. Absolute figures are this machine's on that day; the ratios are what is claimed.</p>
{{range .Rules}}<p>{{.}}</p>
{{end}}{{range .Figures}}<h2>{{.Title}}</h2>
<p>{{.Note}}</p>
{{.SVG}}
{{else}}<p>None of the instruments that have a plot was run.</p>
{{end}}</html>
`))
