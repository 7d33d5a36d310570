package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// corpus is what suspicion makes of honest workers: each run of each workload, whether it was isolated or
// stopped, whether it lost a request, and what explains it.
type corpus struct {
	Host      hostInfo     `json:"host"`
	Seeds     int          `json:"seeds"`
	ForMs     float64      `json:"forMs"` // of each run
	Workloads int          `json:"workloads"`
	Runs      []*honestRun `json:"runs"`
}

// honestRun is one workload with one seed.
type honestRun struct {
	Name      string         `json:"name"`
	What      string         `json:"what"`
	Seed      int            `json:"seed"`
	Sent      int            `json:"sent"`
	Lost      int            `json:"lost"`
	Ends      map[string]int `json:"ends"` // of what was lost
	Points    float64        `json:"points"`
	CPUMs     float64        `json:"cpuMs"` // of its last isolate
	Bracketed float64        `json:"bracketedMs"`
	Isolated  bool           `json:"isolated"`
	Stopped   bool           `json:"stopped"`
	Why       string         `json:"why"`   // the event of the isolation or stop
	Parts     string         `json:"parts"` // of the score, at the end

	ctx context.Context
	t   *target
	rng *rand.Rand // of the goroutine that drives; each client makes its own of it
	up  string     // URL of the upstream
	mu  sync.Mutex // guards Sent, Lost, Ends
}

// mostIsolated is the share of honest runs that may be isolated.
const mostIsolated = 0.01

// measurable is the policy beside the preset that corpus and spies need.
const measurable = "egress: {allow: [\"127.0.0.1\"]}\ntenants:\n  image: {profile: jit+wasm, limits: {wasm: true}}\n  \"wasm-*\": {profile: jit+wasm, limits: {wasm: true}}\n"

const measurableIs = "egress to 127.0.0.1, Wasm for the ones that use it"

// corpusOf runs all workloads at once on one host, once for each seed.
func (b *bench) corpusOf() (*corpus, error) {
	up, err := startSource()
	if err != nil {
		return nil, err
	}
	defer up.Close()
	all := honestWorkloads()
	if len(b.rows) > 0 {
		all = slices.DeleteFunc(all, func(w honest) bool { return !slices.Contains(b.rows, w.name) })
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no workload is named like -rows")
	}
	c := &corpus{Seeds: b.seeds, ForMs: ms(b.duration), Workloads: len(all)}
	for seed := 1; seed <= b.seeds && b.ctx.Err() == nil; seed++ {
		runs, host, err := b.honestSeed(all, seed, "http://"+up.Addr)
		if err != nil {
			return nil, fmt.Errorf("seed %d: %w", seed, err)
		}
		c.Host = host
		c.Runs = append(c.Runs, runs...)
		isolated := 0
		for _, r := range runs {
			if r.Isolated {
				isolated++
			}
		}
		b.say("corpus: seed %d of %d: %d of %d isolated", seed, b.seeds, isolated, len(runs))
	}
	return c, b.ctx.Err()
}

func (b *bench) honestSeed(all []honest, seed int, up string) ([]*honestRun, hostInfo, error) {
	t, err := b.startHost(hostOptions{scratch: b.scratch, policy: measurable, beside: measurableIs, tenants: func(dir string) error {
		for _, w := range all {
			for _, id := range append([]string{w.name}, w.with...) {
				if err := b.workload(dir, id, "honest/"+id+".js", w.manifests[id]); err != nil {
					return err
				}
			}
		}
		return nil
	}})
	if err != nil {
		return nil, hostInfo{}, err
	}
	defer t.stop()
	if err := t.built(b.ctx); err != nil {
		return nil, hostInfo{}, err
	}
	ctx, cancel := context.WithTimeout(b.ctx, b.duration)
	defer cancel()
	w := t.watch(b.ctx)
	var wg sync.WaitGroup
	var runs []*honestRun
	for i, h := range all {
		r := &honestRun{Name: h.name, What: h.what, Seed: seed, Ends: map[string]int{}, ctx: ctx, t: t, up: up, rng: rand.New(rand.NewPCG(uint64(seed), uint64(i)))}
		runs = append(runs, r)
		wg.Go(func() { h.drive(r) })
	}
	wg.Wait()
	rest(b.ctx, time.Second) // the last look
	if err := t.judged(runs, w.incidents()); err != nil {
		return nil, hostInfo{}, err
	}
	return runs, t.info, nil
}

// workload makes a tenant of a file of bench/workloads; manifest may be empty.
func (b *bench) workload(dir, id, file, manifest string) error {
	source, err := os.ReadFile(filepath.Join(b.root, "bench/workloads", file))
	if err != nil {
		return err
	}
	if err := writeWorker(dir, id, string(source)); err != nil || manifest == "" {
		return err
	}
	return os.WriteFile(filepath.Join(dir, id, "bulkhead.yaml"), []byte("main: worker.js\n"+manifest), 0o644)
}

// judged asks the host what it makes of each.
func (t *target) judged(runs []*honestRun, events []incident) error {
	var top []usageRow
	if err := t.admin.admin("GET", "/v1/top", &top); err != nil {
		return err
	}
	for _, r := range runs {
		for _, u := range top {
			if u.Tenant == r.Name {
				r.CPUMs, r.Bracketed, r.Points = u.CPUMs, u.BracketedMs, u.Points
			}
		}
		var e struct {
			Suspicion struct {
				Parts []struct {
					Signal string
					Points float64
				}
			}
		}
		if err := t.admin.admin("GET", "/v1/explain/"+r.Name, &e); err != nil {
			return err
		}
		var parts []string
		for _, p := range e.Suspicion.Parts {
			if p.Points >= 0.5 {
				parts = append(parts, fmt.Sprintf("%.0f %s", p.Points, p.Signal))
			}
		}
		r.Parts = strings.Join(parts, ", ")
		for _, i := range events {
			if i.names(r.Name) && (i.Kind == "isolated" || i.Kind == "stopped") {
				r.Isolated, r.Stopped, r.Why = true, r.Stopped || i.Kind == "stopped", i.Detail
			}
		}
	}
	return nil
}

// usageRow is a row of /v1/top.
type usageRow struct {
	Tenant      string  `json:"tenant"`
	CPUMs       float64 `json:"cpuMs"`
	BracketedMs float64 `json:"bracketedMs"`
	Points      float64 `json:"points"`
	Verdict     string  `json:"verdict"`
}

// startSource is an upstream that has what workloads ask for.
func startSource() (*http.Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/json", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"items": [{"id": 1, "price": 3.5}, {"id": 2, "price": 4.25}, {"id": 3, "price": 7}]}`)
	})
	page := "<html><head><title>A page</title></head><body>" + strings.Repeat(`<p>Some text and <a href="http://elsewhere.example/x?y=1">a link</a>, and more of both.</p>`+"\n", 200) + "</body></html>"
	mux.HandleFunc("/html", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, page)
	})
	text := strings.Repeat("lorem ipsum dolor sit amet, consectetur adipiscing elit\n", 4000)
	mux.HandleFunc("/text", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) })
	mux.HandleFunc("/bytes", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.ParseInt(r.URL.Query().Get("n"), 10, 64)
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		buf := make([]byte, 256<<10)
		for at := int64(0); at < n; at += int64(len(buf)) {
			if _, err := w.Write(buf[:min(int64(len(buf)), n-at)]); err != nil {
				return
			}
		}
	})
	s := &http.Server{Addr: l.Addr().String(), Handler: mux}
	go s.Serve(l)
	return s, nil
}

func (c *corpus) isolated() (isolated, stopped, lost int) {
	for _, r := range c.Runs {
		if r.Isolated {
			isolated++
		}
		if r.Stopped {
			stopped++
		}
		lost += r.Lost
	}
	return isolated, stopped, lost
}

func (c *corpus) broken() (out []string) {
	isolated, stopped, lost := c.isolated()
	if stopped > 0 || lost > 0 {
		out = append(out, fmt.Sprintf("of honest workers %d were stopped, and %d requests lost", stopped, lost))
	}
	if float64(isolated) > mostIsolated*float64(len(c.Runs)) {
		out = append(out, fmt.Sprintf("%d of %d honest runs were isolated, more than 1 %%", isolated, len(c.Runs)))
	}
	for _, r := range c.Runs {
		if r.Sent == 0 {
			out = append(out, fmt.Sprintf("%s, seed %d, did nothing", r.Name, r.Seed))
		}
		if r.Isolated && r.Why == "" {
			out = append(out, r.Name+" was isolated and nothing explains it")
		}
	}
	return out
}

func (c *corpus) print(w io.Writer) {
	fmt.Fprintf(w, "%s\n%d workloads, %d seeds, %.0f s each\n", c.Host, c.Workloads, c.Seeds, c.ForMs/1e3)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "workload\trequests and messages\tlost\tCPU ms\tbracketed ms, most\tpoints, most\tisolated\twhat\n")
	byName := map[string][]*honestRun{}
	var names []string
	for _, r := range c.Runs {
		if byName[r.Name] == nil {
			names = append(names, r.Name)
		}
		byName[r.Name] = append(byName[r.Name], r)
	}
	for _, n := range names {
		var sum, most honestRun
		isolated := 0
		for _, r := range byName[n] {
			sum.Sent, sum.Lost, sum.CPUMs = sum.Sent+r.Sent, sum.Lost+r.Lost, sum.CPUMs+r.CPUMs
			most.Bracketed = max(most.Bracketed, r.Bracketed)
			if r.Points >= most.Points {
				most.Points, most.Parts = r.Points, r.Parts
			}
			if r.Isolated {
				isolated++
			}
		}
		fmt.Fprintf(tw, "%s\t%d\t%d\t%.0f\t%.0f\t%.0f (%s)\t%d of %d\t%s\n", n, sum.Sent, sum.Lost, sum.CPUMs/float64(len(byName[n])), most.Bracketed, most.Points, most.Parts, isolated, len(byName[n]), byName[n][0].What)
	}
	tw.Flush()
	for _, r := range c.Runs {
		if r.Isolated {
			fmt.Fprintf(w, "isolated: %s, seed %d: %s\n", r.Name, r.Seed, r.Why)
		}
		if r.Lost > 0 {
			fmt.Fprintf(w, "lost: %s, seed %d: %s\n", r.Name, r.Seed, counts(r.Ends))
		}
	}
	isolated, stopped, lost := c.isolated()
	fmt.Fprintf(w, "of %d runs %d isolated (bar: 1 %%), %d stopped, %d requests lost\n", len(c.Runs), isolated, stopped, lost)
}
