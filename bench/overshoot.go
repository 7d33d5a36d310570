package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"text/tabwriter"
	"time"
)

// overshoots is how far beyond its CPU limit each hostile shape came.
type overshoots struct {
	Host     hostInfo        `json:"host"`
	WasmHost hostInfo        `json:"wasmHost"` // the preset whose profile has WebAssembly
	Rows     []*overshootRow `json:"rows"`
	All      overshootRow    `json:"all"` // of the shapes the bar names: loop, Wasm and regexp
}

// overshootRow is one shape. Over is CPU beyond the limit, as the outcome's message says.
type overshootRow struct {
	Shape string         `json:"shape"`
	Kills int            `json:"kills"`
	Over  latency        `json:"over"`
	Ends  map[string]int `json:"ends"`
	Lag   latency        `json:"answeredAfter"` // wall time of the whole request
	Next  latency        `json:"next"`          // the same tenant's next request
	Lost  []string       `json:"nextFailed"`
	Death string         `json:"lastDeath,omitempty"` // the latest incident, if a process ended

	path      string
	named     bool // by the bar
	over, lag histogram
	next      histogram
}

// spent is the message of exceededCpu: limit and use, in ms.
var spent = regexp.MustCompile(`CPU limit of (\d+) ms: used ([\d.]+) ms`)

// overshoot stops each shape again and again, one at a time on idle cores.
func (b *bench) overshoot() (*overshoots, error) {
	source, err := os.ReadFile(filepath.Join(b.root, "bench/workloads/attacker/worker.js"))
	if err != nil {
		return nil, err
	}
	rows := []*overshootRow{
		{Shape: "JS loop", path: "/loop", named: true}, {Shape: "Wasm loop", path: "/wasm-loop", named: true}, {Shape: "regexp", path: "/regexp", named: true},
		{Shape: "promise storm", path: "/promises"}, {Shape: "getter", path: "/getter"}, {Shape: "comparator", path: "/comparator"},
		{Shape: "catches everything", path: "/catch"}, {Shape: "un-terminable loop", path: "/unterminable"},
	}
	res := &overshoots{Rows: rows, All: overshootRow{Shape: "JS, Wasm, regexp together"}}
	plain, err := b.startHost(hostOptions{tenants: workers(string(source), attacker)})
	if err != nil {
		return nil, err
	}
	defer plain.stop()
	res.Host = plain.info
	for _, r := range rows {
		t := plain
		if r.path == "/wasm-loop" {
			t, err = b.startHost(hostOptions{tenants: workers(string(source), attacker), preset: "dev",
				policy: "limits: {cpu: 50ms}\n", beside: "cpu: 50ms, for WebAssembly, which standard does not have"})
			if err != nil {
				return nil, err
			}
			res.WasmHost = t.info
		}
		n := max(1, b.kills/10)
		if r.named {
			n = max(1, b.kills/3)
		}
		err := r.run(b, t, n)
		if t != plain {
			t.stop()
		}
		if err != nil {
			return nil, err
		}
		if r.named {
			res.All.over.merge(&r.over)
			res.All.lag.merge(&r.lag)
			res.All.next.merge(&r.next)
			res.All.Kills += r.Kills
		}
	}
	res.All.sum()
	return res, nil
}

func (r *overshootRow) sum() {
	r.Over, r.Lag, r.Next = r.over.latency(), r.lag.latency(), r.next.latency()
}

// run stops one shape n times.
func (r *overshootRow) run(b *bench, t *target, n int) error {
	if err := t.built(b.ctx); err != nil {
		return err
	}
	r.Ends = map[string]int{}
	host := attacker + ".localhost"
	if a, ok := t.public.get(host, "/harmless"); !ok {
		return fmt.Errorf("the tenant does not answer: %s %s", a.String(), a.message())
	}
	var earlier []incident
	if err := t.admin.admin("GET", "/v1/incidents", &earlier); err != nil {
		return err
	}
	before := len(earlier)
	for i := range n {
		if err := b.ctx.Err(); err != nil {
			return err
		}
		if i%10 == 0 {
			b.say("overshoot: %s: %d of %d", r.Shape, i, n)
		}
		a, _ := t.public.get(host, r.path)
		end := a.String()
		if m := spent.FindStringSubmatch(a.message()); m != nil && a.outcome == "exceededCpu" {
			limit, _ := strconv.ParseFloat(m[1], 64)
			used, _ := strconv.ParseFloat(m[2], 64)
			r.Kills++
			r.over.add(time.Duration((used - limit) * float64(time.Millisecond)))
			r.lag.add(a.took)
		} else if msg := a.message(); msg != "" {
			end += ": " + msg
		}
		r.Ends[end]++
		next, ok := t.public.get(host, "/harmless")
		if !ok {
			r.Lost = append(r.Lost, fmt.Sprintf("after kill %d: %s %s (%v)", i+1, next.String(), next.message(), next.err))
		}
		r.next.add(next.took)
	}
	r.sum()
	var list []incident
	if err := t.admin.admin("GET", "/v1/incidents", &list); err != nil {
		return err
	}
	if len(list) > before {
		r.Death = fmt.Sprintf("%d deaths, the latest %s: %s", len(list)-before, list[0].Kind, list[0].Detail)
	}
	return nil
}

func (r *overshoots) broken() (out []string) {
	for _, row := range r.Rows {
		if len(row.Lost) > 0 {
			out = append(out, fmt.Sprintf("%s: the tenant's next request failed %d times, first %s", row.Shape, len(row.Lost), row.Lost[0]))
		}
		if row.Kills == 0 {
			out = append(out, fmt.Sprintf("%s: never stopped at the limit: %s; %s", row.Shape, counts(row.Ends), row.Death))
		}
	}
	return out
}

func (r *overshoots) print(w io.Writer) {
	fmt.Fprintf(w, "%s\nWasm: %s\n", r.Host, r.WasmHost)
	tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "shape\tstopped\tCPU over the limit, ms: p50\tp99 (bar 5)\tmax\tanswered after, ms: p50\tp99\tnext request, ms: p50\tp99\tnext failed\tanswers")
	for _, row := range append(r.Rows, &r.All) {
		fmt.Fprintf(tw, "%s\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%d\t%s\n", row.Shape, row.Kills, row.Over.P50Micros/1e3, row.Over.P99Micros/1e3, row.Over.MaxMicros/1e3,
			row.Lag.P50Micros/1e3, row.Lag.P99Micros/1e3, row.Next.P50Micros/1e3, row.Next.P99Micros/1e3, len(row.Lost), counts(row.Ends))
	}
	tw.Flush()
}
