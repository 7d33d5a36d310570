package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"text/tabwriter"
)

// replays is which requests were replayed, as an upstream saw it.
type replays struct {
	Host          hostInfo     `json:"host"`
	NotApplicable string       `json:"notApplicable,omitempty"`
	Rows          []*replayRow `json:"rows"`
}

// replayRow is one sort of request whose process died under it.
type replayRow struct {
	What      string         `json:"what"`
	Requests  int            `json:"requests"`
	Ends      map[string]int `json:"ends"`
	Runs      map[int]int    `json:"runs"`    // how often the handler ran, by requests
	Effects   map[int]int    `json:"effects"` // how often its non-safe subrequest arrived
	Wrong     []string       `json:"wrong"`
	query     string
	runs      int
	effects   int
	good      bool // the client is to get the handler's answer
	fromShell bool // the process is killed from outside, while the handler waits
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
	opt := hostOptions{tenants: workers(string(source), "own", "shell", "effect", "effectshell", "always")}
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
	probe := t.public.do(request{method: "POST", host: "own.localhost", path: "/?id=probe&hook=1&up=" + up.url, body: []byte("x")})
	if up.count("probe", "GET /attempt") == 0 {
		res.NotApplicable = fmt.Sprintf("the worker's fetch does not reach the upstream (%s %s; %s)", probe.String(), probe.message(), opt.beside)
		return res, nil
	}
	rows := map[string]*replayRow{
		"own":         {What: "POST, no effect, its code ends the process the first time", runs: 2, good: true},
		"shell":       {What: "POST, no effect, process killed while it waits", query: "&hook=1", runs: 2, good: true, fromShell: true},
		"effect":      {What: "POST after a POST of its own, its code ends the process", query: "&effect=1", runs: 1, effects: 1},
		"effectshell": {What: "POST after a POST of its own, process killed while it waits", query: "&effect=1&hook=1", runs: 1, effects: 1, fromShell: true},
		"always":      {What: "POST, no effect, its code ends the process every time", query: "&always=1", runs: 2},
	}
	for _, tenant := range []string{"own", "shell", "effect", "effectshell", "always"} {
		r := rows[tenant]
		r.Ends, r.Runs, r.Effects = map[string]int{}, map[int]int{}, map[int]int{}
		up.mu.Lock()
		up.onFirst = nil
		if r.fromShell {
			up.onFirst = func(string) { t.killShardOf(tenant) }
		}
		up.mu.Unlock()
		for i := range replayed {
			if err := b.ctx.Err(); err != nil {
				return nil, err
			}
			b.say("replay: %s: %d of %d", tenant, i, replayed)
			id := fmt.Sprintf("%s-%d", tenant, i)
			a := t.public.do(request{method: "POST", host: tenant + ".localhost", path: "/?id=" + id + "&up=" + up.url + r.query, body: []byte(id)})
			r.judge(a, id, up)
		}
		res.Rows = append(res.Rows, r)
	}
	return res, nil
}

// killShardOf kills the process that hosts a tenant.
func (t *target) killShardOf(tenant string) {
	list, err := t.shards()
	if err != nil {
		return
	}
	for _, s := range list {
		if slices.Contains(s.Tenants, tenant) && name(s.PID) == "worker" {
			syscall.Kill(s.PID, syscall.SIGKILL)
		}
	}
}

func (r *replayRow) judge(a reply, id string, up *upstream) {
	r.Requests++
	r.Ends[a.String()]++
	runs, effects := up.count(id, "GET /attempt"), up.count(id, "POST /effect")
	r.Runs[runs]++
	r.Effects[effects]++
	wrong := func(format string, args ...any) {
		r.Wrong = append(r.Wrong, id+": "+fmt.Sprintf(format, args...))
	}
	if runs != r.runs {
		wrong("ran %d times, want %d", runs, r.runs)
	}
	if effects != r.effects {
		wrong("its effect arrived %d times, want %d", effects, r.effects)
	}
	want := id + " II\n"
	switch {
	case r.good && (!a.good() || string(a.body) != want):
		wrong("answered %s %q %s, want %q", a.String(), a.body, a.message(), want)
	case !r.good && (a.good() || a.err != nil):
		wrong("answered %s (%v), want a clean refusal", a.String(), a.err)
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
