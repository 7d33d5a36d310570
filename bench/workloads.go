package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/evanw/esbuild/pkg/api"
)

// workload is one worker that every peer serves from the same bundle, and how it is asked.
type workload struct {
	name        string
	worker      string // folder below bench/workloads
	path        string
	body        []byte // to POST; nil for a GET
	connections int
	want        func(body []byte) bool
}

func workloads() []workload {
	says := func(s string) func([]byte) bool { return func(b []byte) bool { return string(b) == s } }
	holds := func(s string) func([]byte) bool { return func(b []byte) bool { return bytes.Contains(b, []byte(s)) } }
	return []workload{
		{"hello", "hello", "/", nil, 32, says("Hello, World!\n")},
		{"JSON 1 KB", "json", "/", order(1 << 10), 32, holds(`"seen":`)},
		{"JSON 100 KB", "json", "/", order(100 << 10), 16, holds(`"seen":`)},
		{"Hono routes", "hono", "/teams/42?page=7", nil, 32, says(`{"kind":"teams","id":"42","page":7}`)},
		{"Preact SSR", "ssr", "/?page=3", nil, 32, holds(`data-id="399"><b>Row &lt;99`)},
		{"HMAC", "hmac", "/hook?id=1", nil, 32, says("good")},
		{"ECDSA P-256", "ecdsa", "/", nil, 32, says("good")},
		{"1 MiB down", "download", "/", nil, 8, func(b []byte) bool { return len(b) == 1<<20 }},
		{"1 MiB up", "upload", "/", bytes.Repeat([]byte("a"), 1<<20), 8, says("1048576")},
	}
}

// chosen is the workloads that -rows names, all without it.
func (b *bench) chosen() []workload {
	all := workloads()
	if len(b.rows) > 0 {
		all = slices.DeleteFunc(all, func(w workload) bool { return !slices.Contains(b.rows, w.name) })
	}
	return all
}

// order is a JSON document of about size bytes.
func order(size int) []byte {
	var b strings.Builder
	b.WriteString(`{"id":"o-1","customer":"somebody","items":[`)
	for i := 0; b.Len() < size-80; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"sku":"s-%06d","count":%d,"price":%d.5,"note":"as \"ordered\""}`, i, i%9+1, i%97)
	}
	b.WriteString("]}")
	return []byte(b.String())
}

// script writes what wrk needs to send the workload's body. The bytes go through a file of their own:
// a Lua string has no need to be quoted then.
func (w *workload) shot(dir string) (shot, error) {
	s := shot{path: w.path}
	if w.body == nil {
		return s, nil
	}
	base := filepath.Join(dir, strings.ReplaceAll(w.name, " ", "-"))
	if err := os.WriteFile(base+".body", w.body, 0o644); err != nil {
		return s, err
	}
	s.script = base + ".lua"
	text := fmt.Sprintf("local f = assert(io.open(%q, \"rb\"))\nwrk.body = f:read(\"*a\")\nf:close()\nwrk.method = \"POST\"\nwrk.headers[\"content-type\"] = \"application/json\"\n", base+".body")
	return s, os.WriteFile(s.script, []byte(text), 0o644)
}

// bundleWorkload makes one module of a worker and the packages it imports.
func (b *bench) bundleWorkload(name string) (string, error) {
	r := api.Build(api.BuildOptions{
		EntryPoints: []string{filepath.Join(b.root, "bench/workloads", name, "worker.js")}, Bundle: true,
		Format: api.FormatESModule, Platform: api.PlatformNeutral, MainFields: []string{"module", "main"}, Target: api.ES2022,
		Conditions: []string{"worker", "import"}, NodePaths: []string{filepath.Join(b.root, "bench/peers/node_modules")}, LogLevel: api.LogLevelSilent,
	})
	if len(r.Errors) > 0 {
		return "", fmt.Errorf("bundle workload %s: %s (`make bench` installs its packages)", name, r.Errors[0].Text)
	}
	return string(r.OutputFiles[0].Contents), nil
}

// compared is one workload on one target, all rounds.
type compared struct {
	Workload string `json:"workload"`
	row
}

// comparison is what the peers do with the same workers: workerd with all of them in one process, Node
// with a process for each.
type comparison struct {
	Host  hostInfo    `json:"host"`
	Peers []string    `json:"peers"`
	Rows  []*compared `json:"rows"` // by workload, and within one by target, bulkhead first
}

// contender is a target on which each workload has an address.
type contender struct {
	name string
	at   map[string]*target // by workers' folders
}

func (b *bench) comparison() (res *comparison, err error) {
	sources := map[string]string{}
	var names []string
	if len(b.chosen()) == 0 {
		return nil, errors.New("no workload is named like -rows")
	}
	for _, w := range b.chosen() {
		if sources[w.worker] == "" {
			if sources[w.worker], err = b.bundleWorkload(w.worker); err != nil {
				return nil, err
			}
			names = append(names, w.worker)
		}
	}
	dir, err := os.MkdirTemp("", "bhwork")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	host, err := b.startHost(hostOptions{tenants: func(dir string) error {
		for _, name := range names {
			if err := writeWorker(dir, name, sources[name]); err != nil {
				return err
			}
		}
		return nil
	}})
	if err != nil {
		return nil, err
	}
	defer host.stop()
	if err := host.built(b.ctx); err != nil {
		return nil, err
	}
	ours := &contender{name: "bulkhead", at: map[string]*target{}}
	for _, name := range names {
		t := *host
		t.host = name + ".localhost"
		ours.at[name] = &t
	}
	workerd, version, err := b.workerdOf(names, sources)
	if err != nil {
		return nil, err
	}
	defer workerd.at[names[0]].stop()
	res = &comparison{Host: host.info, Peers: []string{version}}
	node, version, err := b.nodeOf(dir, names, sources)
	if node != nil {
		defer func() {
			for _, t := range node.at {
				t.stop()
			}
		}()
	}
	if err != nil {
		return nil, err
	}
	res.Peers = append(res.Peers, version)
	return res, res.measure(b, dir, []*contender{ours, workerd, node})
}

// measure asks each workload of each contender in turn, so that a drift of the machine meets all alike.
func (r *comparison) measure(b *bench, dir string, contenders []*contender) error {
	for _, w := range b.chosen() {
		for _, c := range contenders {
			if err := w.check(c.at[w.worker]); err != nil {
				return fmt.Errorf("%s on %s: %w", w.name, c.name, err)
			}
			r.Rows = append(r.Rows, &compared{w.name, row{Target: c.name, Connections: w.connections}})
		}
	}
	total, done := b.rounds*len(r.Rows), 0
	for round := range b.rounds {
		for i, w := range b.chosen() {
			s, err := w.shot(dir)
			if err != nil {
				return err
			}
			order := []int{0, 1, 2}
			if round%2 == 1 {
				slices.Reverse(order) // neither always runs on a warm machine
			}
			for _, j := range order {
				if err := b.ctx.Err(); err != nil {
					return err
				}
				done++
				c := contenders[j]
				t := c.at[w.worker]
				b.say("[%d/%d] %s on %s", done, total, w.name, c.name)
				before := t.cpu()
				m, err := loadWith(t, s, w.connections, b.sample)
				if err != nil {
					return err
				}
				row := r.Rows[i*len(contenders)+j]
				row.PerSecond = append(row.PerSecond, m.perSecond)
				row.P50Micros = append(row.P50Micros, m.p50)
				row.P99Micros = append(row.P99Micros, m.p99)
				row.Failed += m.failed
				row.CPUMicros.add(t.cpu().since(before), m.requests)
			}
		}
	}
	return nil
}

// check asks once and looks at the answer: a fast wrong answer is no result.
func (w *workload) check(t *target) error {
	q := request{method: http.MethodGet, host: t.host, path: w.path}
	if w.body != nil {
		q.method, q.body = http.MethodPost, w.body
	}
	if a := t.public.do(q); !a.good() || !w.want(a.body) {
		return fmt.Errorf("it answers %s (%v) %.200q", a.String(), a.err, a.body)
	}
	return nil
}

// workerdOf is one workerd with a port for each worker.
func (b *bench) workerdOf(names []string, sources map[string]string) (*contender, string, error) {
	t, bin, err := b.newWorkerd()
	if err != nil {
		return nil, "", err
	}
	c := &contender{name: "workerd", at: map[string]*target{}}
	var services, sockets, defs strings.Builder
	for _, name := range names {
		addr, err := freeAddr()
		if err != nil {
			return nil, "", err
		}
		if err := os.WriteFile(filepath.Join(t.dir, name+".js"), []byte(sources[name]), 0o644); err != nil {
			return nil, "", err
		}
		fmt.Fprintf(&services, "    (name = %q, worker = .%s),\n", name, name)
		fmt.Fprintf(&sockets, "    (name = %q, address = %q, http = (), service = %q),\n", name, addr, name)
		fmt.Fprintf(&defs, "const %s :Workerd.Worker = (modules = [ (name = \"worker.js\", esModule = embed \"%s.js\") ], compatibilityDate = \"2026-01-01\");\n", name, name)
		at := *t
		at.addr, at.public = addr, newClient(addr)
		c.at[name] = &at
	}
	config := filepath.Join(t.dir, "config.capnp")
	text := "using Workerd = import \"/workerd/workerd.capnp\";\nconst config :Workerd.Config = (\n  services = [\n" + services.String() +
		"  ],\n  sockets = [\n" + sockets.String() + "  ],\n);\n" + defs.String()
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, "", err
	}
	err = t.start(bin, []string{"serve", config}, func() error { return listens(c) })
	for _, at := range c.at {
		at.cmd, at.ended = t.cmd, t.ended
	}
	return c, t.version, err
}

// nodeOf is a Node process for each worker.
func (b *bench) nodeOf(dir string, names []string, sources map[string]string) (*contender, string, error) {
	bin, err := exec.LookPath("node")
	if err != nil {
		return nil, "", fmt.Errorf("node: %w: `make bench` installs it", err)
	}
	version, err := exec.Command(bin, "--version").Output()
	if err != nil {
		return nil, "", err
	}
	c := &contender{name: "node", at: map[string]*target{}}
	for _, name := range names {
		addr, err := freeAddr()
		if err != nil {
			return c, "", err
		}
		own, err := os.MkdirTemp(dir, name)
		if err != nil {
			return c, "", err
		}
		file := filepath.Join(own, "worker.mjs")
		if err := os.WriteFile(file, []byte(sources[name]), 0o644); err != nil {
			return c, "", err
		}
		_, port, _ := strings.Cut(addr, ":")
		t := &target{name: "node", addr: addr, host: name + ".localhost", dir: own, public: newClient(addr)}
		if err := t.start(bin, []string{filepath.Join(b.root, "bench/peers/node.mjs"), file, port}, func() error { return dials(addr) }); err != nil {
			return c, "", err
		}
		c.at[name] = t
	}
	return c, "node " + strings.TrimSpace(string(version)), nil
}

func listens(c *contender) error {
	var errs []error
	for _, t := range c.at {
		errs = append(errs, dials(t.addr))
	}
	return errors.Join(errs...)
}

func dials(addr string) error {
	c, err := net.Dial("tcp", addr)
	if err == nil {
		c.Close()
	}
	return err
}

func (r *comparison) broken() (out []string) {
	for _, row := range r.Rows {
		if row.Failed > 0 && row.Target == "bulkhead" {
			out = append(out, fmt.Sprintf("%s: %d requests failed", row.Workload, row.Failed))
		}
	}
	return out
}

// ratio is a's median, lowest and highest share of b, round by round.
func (a *compared) ratio(b *compared) (mid, low, high float64) {
	var all []float64
	for i := range min(len(a.PerSecond), len(b.PerSecond)) {
		if b.PerSecond[i] > 0 {
			all = append(all, a.PerSecond[i]/b.PerSecond[i])
		}
	}
	if len(all) == 0 {
		return 0, 0, 0
	}
	return median(all), slices.Min(all), slices.Max(all)
}

// grouped are the rows of one workload each.
func grouped(rows []*compared) [][]*compared {
	var out [][]*compared
	for _, row := range rows {
		if n := len(out); n > 0 && out[n-1][0].Workload == row.Workload {
			out[n-1] = append(out[n-1], row)
			continue
		}
		out = append(out, []*compared{row})
	}
	return out
}

func (r *comparison) print(w io.Writer) {
	fmt.Fprintf(w, "%s; peers: %s\n", r.Host, strings.Join(r.Peers, ", "))
	printCompared(w, r.Rows)
}

func printCompared(w io.Writer, rows []*compared) {
	tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "workload\ton\tconnections\trequests/s (min–max)\tp50 µs\tp99 µs\tfailed\tbulkhead is\tCPU µs a request")
	for _, g := range grouped(rows) {
		for _, row := range g {
			times := ""
			if row != g[0] {
				mid, low, high := g[0].ratio(row)
				times = fmt.Sprintf("%.2fx (%.2f–%.2f)", mid, low, high)
			}
			fmt.Fprintf(tw, "%s\t%s\t%d\t%s\t%.0f\t%.0f\t%d\t%s\t%s\n", row.Workload, row.Target, row.Connections, spread(row.PerSecond),
				median(row.P50Micros), median(row.P99Micros), row.Failed, times, row.CPUMicros)
		}
	}
	tw.Flush()
}
