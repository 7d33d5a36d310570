package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"
)

// replays is which requests were replayed, as an upstream saw it.
type replays struct {
	Host          hostInfo     `json:"host"`
	NotApplicable string       `json:"notApplicable,omitempty"`
	Rows          []*replayRow `json:"rows"`
}

// replayRow is one sort of request whose process died under it.
type replayRow struct {
	What     string         `json:"what"`
	Requests int            `json:"requests"`
	Ends     map[string]int `json:"ends"`
	Runs     map[int]int    `json:"runs"`    // how often the handler ran, by requests
	Effects  map[int]int    `json:"effects"` // how often its non-safe subrequest arrived
	Wrong    []string       `json:"wrong"`

	tenant string
	query  string
	signal syscall.Signal     // to the process, while the handler waits for the upstream
	judged func(e ran) string // what is wrong with one, "" for nothing
}

// ran is what became of one request.
type ran struct {
	reply
	id            string
	runs, effects int
}

// twice wants the answer of a second run.
func twice(e ran) string {
	if want := e.id + " II\n"; !e.good() || string(e.body) != want {
		return fmt.Sprintf("answered %s %q, want %q", e.String(), e.body, want)
	}
	if e.runs != 2 {
		return fmt.Sprintf("ran %d times, want 2", e.runs)
	}
	return ""
}

// once wants a clean refusal after one run whose effect arrived once.
func once(e ran) string {
	switch {
	case e.good() || e.err != nil:
		return fmt.Sprintf("answered %s (%v), want a clean refusal", e.String(), e.err)
	case e.runs != 1 || e.effects != 1:
		return fmt.Sprintf("ran %d times with %d effects, want one of each", e.runs, e.effects)
	}
	return ""
}

// ownDoing allows both: a second run, or a refusal where the host saw at the first death that it was
// this request's own code that did it.
func ownDoing(e ran) string {
	if e.outcome == "exceededCpu" && e.runs == 1 {
		return ""
	}
	return twice(e)
}

// bounded wants a clean refusal after few runs: nobody is run again for ever.
func bounded(e ran) string {
	switch {
	case e.good() || e.err != nil:
		return fmt.Sprintf("answered %s (%v), want a clean refusal", e.String(), e.err)
	case e.runs < 2 || e.runs > 6:
		return fmt.Sprintf("ran %d times, want 2 to 6", e.runs)
	}
	return ""
}

func replayRows() []*replayRow {
	return []*replayRow{
		{tenant: "killed", What: "POST, no effect, SIGKILL while it waits", query: "&hook=first", signal: syscall.SIGKILL, judged: twice},
		{tenant: "faulted", What: "POST, no effect, SIGSEGV while it waits", query: "&hook=first", signal: syscall.SIGSEGV, judged: twice},
		{tenant: "own", What: "POST, no effect, its code ends the process", query: "&own=1", judged: ownDoing},
		{tenant: "effect-killed", What: "POST that has sent a POST, SIGKILL", query: "&effect=1&hook=first", signal: syscall.SIGKILL, judged: once},
		{tenant: "effect-faulted", What: "POST that has sent a POST, SIGSEGV", query: "&effect=1&hook=first", signal: syscall.SIGSEGV, judged: once},
		{tenant: "always", What: "POST, no effect, SIGSEGV in every run", query: "&hook=always", signal: syscall.SIGSEGV, judged: bounded},
	}
}

const replayed = 20 // requests of each row

func (b *bench) replay() (*replays, error) {
	source, err := os.ReadFile(filepath.Join(b.root, "bench/workloads/replay/worker.js"))
	if err != nil {
		return nil, err
	}
	up, err := startUpstream()
	if err != nil {
		return nil, err
	}
	defer up.server.Close()
	// A tenant for each row: what one does must not be held against the next.
	rows := replayRows()
	names := []string{"probe"}
	for _, r := range rows {
		names = append(names, r.tenant)
	}
	opt := hostOptions{tenants: workers(string(source), names...)}
	b.allowUpstream(&opt)
	t, err := b.startHost(opt)
	if err != nil {
		return nil, err
	}
	defer t.stop()
	if err := t.built(b.ctx); err != nil {
		return nil, err
	}
	res := &replays{Host: t.info}
	probe := t.public.do(request{method: "POST", host: "probe.localhost", path: "/?id=probe&up=" + up.url, body: []byte("x")})
	if up.count("probe", "GET /attempt") == 0 {
		res.NotApplicable = fmt.Sprintf("the worker's fetch does not reach the upstream (%s %s; %s)", probe.String(), probe.message(), opt.beside)
		return res, nil
	}
	for _, r := range rows {
		r.Ends, r.Runs, r.Effects, r.Wrong = map[string]int{}, map[int]int{}, map[int]int{}, []string{}
		up.onHook(func(string) { t.signalShardOf(r.tenant, r.signal) })
		for i := range replayed {
			if err := b.ctx.Err(); err != nil {
				return nil, err
			}
			b.say("replay: %s: %d of %d", r.tenant, i, replayed)
			id := fmt.Sprintf("%s-%d", r.tenant, i)
			a := t.public.do(request{method: "POST", host: r.tenant + ".localhost", path: "/?id=" + id + "&up=" + up.url + r.query, body: []byte(id)})
			r.note(ran{a, id, up.count(id, "GET /attempt"), up.count(id, "POST /effect")})
		}
		res.Rows = append(res.Rows, r)
	}
	return res, nil
}

// signalShardOf sends a signal to the process that hosts a tenant and waits until it is gone: a Go
// program takes a moment to die of a fault, and could answer in it.
func (t *target) signalShardOf(tenant string, sig syscall.Signal) {
	list, err := t.shards()
	if err != nil {
		return
	}
	for _, s := range list {
		if slices.Contains(s.Tenants, tenant) && name(s.PID) == "worker" {
			syscall.Kill(s.PID, sig)
			for end := time.Now().Add(2 * time.Second); name(s.PID) == "worker" && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
		}
	}
}

func (r *replayRow) note(e ran) {
	r.Requests++
	r.Ends[e.String()]++
	r.Runs[e.runs]++
	r.Effects[e.effects]++
	if wrong := r.judged(e); wrong != "" {
		r.Wrong = append(r.Wrong, e.id+": "+wrong)
	}
}

func (r *replays) broken() (out []string) {
	for _, row := range r.Rows {
		if len(row.Wrong) > 0 {
			out = append(out, fmt.Sprintf("%s: %d wrong, the first %s", row.What, len(row.Wrong), row.Wrong[0]))
		}
	}
	return out
}

func (r *replays) print(w io.Writer) {
	fmt.Fprintln(w, r.Host)
	if r.NotApplicable != "" {
		fmt.Fprintln(w, "not applicable:", r.NotApplicable)
		return
	}
	tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "request\tsent\thandler ran\teffects\tanswers\twrong")
	for _, row := range r.Rows {
		fmt.Fprintf(tw, "%s\t%d\t%s\t%s\t%s\t%d\n", row.What, row.Requests, times(row.Runs), times(row.Effects), counts(row.Ends), len(row.Wrong))
	}
	tw.Flush()
}

// times writes how many requests had a thing how often.
func times(m map[int]int) (out string) {
	for n := range 10 {
		if m[n] > 0 {
			out += fmt.Sprintf(" %d× in %d", n, m[n])
		}
	}
	return out
}
