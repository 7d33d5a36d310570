// Command bench measures a sealed host under the shipped preset `standard`: its speed against its
// peers, and the bars of its containment: what neighbours feel of an attacker, replay, CPU
// overshoot, cold starts, memory and scale. Each instrument prints a table, `-json FILE` takes all
// of them, and the command fails when a hard bar is broken (a failed request, a wrong name in an
// incident). Times are printed, not judged: the absolute ones are this machine's today. See
// docs/BENCHMARKS.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// bench is what the instruments share.
type bench struct {
	ctx  context.Context
	root string // of the repository
	bin  string // directory of the binaries
	out  io.Writer
	say  func(format string, args ...any) // progress

	rounds int
	sample time.Duration

	duration time.Duration // of each attack
	calm     time.Duration // of the load before and after each
	rows     []string      // of an experiment, to run; empty for all
	rate     float64       // requests a second of each victim

	kills       int
	coldTenants int
	coldWorker  string
	live        []int
	peerWorkers int
	registered  int
	hitFor      time.Duration
	budget      uint64 // bytes
	cycles      int
	calls       int
	moves       int
	verdicts    int
	reshuffled  int
	seeds       int
	scratch     string
	maxShards   int
}

// finding is what an instrument found.
type finding interface {
	print(w io.Writer)
	broken() []string // hard bars that do not hold
}

// instrument is one command of this program.
type instrument struct {
	name, what string
	run        func(b *bench) (finding, error)
}

func instruments() []instrument {
	return []instrument{
		{"speed", "requests a second and latency, interleaved with workerd", found((*bench).speed)},
		{"workloads", "the same workers on bulkhead, workerd and Node: JSON, routes, SSR, crypto, 1 MiB down and up", found((*bench).comparison)},
		{"crowd", "200 workers asked in turn, 1,000 by Zipf's law, beside workerd with as many", found((*bench).crowdsOf)},
		{"curve", "latency of hello over load, at fixed rates, beside workerd", found((*bench).curveOf)},
		{"growth", "what a request costs with 1 to 10,000 tenants, 4 to 200 shards, bodies of 1 KB to 100 MB", found((*bench).growthOf)},
		{"seal", "what each layer of the worker's seal costs: the same commit with it and without", found((*bench).sealCostOf)},
		{"attack", "64 tenants, one of them hostile: failed and interrupted requests of the others, their p99", found((*bench).attack)},
		{"replay", "which requests are replayed after a death, shown by an upstream that counts", found((*bench).replay)},
		{"overshoot", "CPU beyond the limit when the hostile shapes are stopped", found((*bench).overshoot)},
		{"cold", "first byte of a tenant that is not loaded, minus its warm time, beside workerd's start", found((*bench).cold)},
		{"memory", "bytes a live tenant, all processes together, beside workerd's", found((*bench).memory)},
		{"registered", "many registered tenants hit at random under eviction", found((*bench).registeredTenants)},
		{"cycles", "memory of a shard whose tenants come and go", found((*bench).cyclesOf)},
		{"sockets", "5,000 WebSockets over 100 tenants while others crash, are deployed and move", found((*bench).sockets)},
		{"calls", "calls that start their callee: never one process for caller and callee", found((*bench).callsOf)},
		{"moves", "isolations among 64 tenants: how soon the neighbours are gone, and that no request is lost", found((*bench).movesOf)},
		{"reshuffle", "everybody's processes change under load: failed requests, p99, WebSockets", found((*bench).reshuffleOf)},
		{"corpus", "35 honest workloads: which of them suspicion isolates, and why", found((*bench).corpusOf)},
		{"spies", "attackers that measure: how long until they are alone in their process", found((*bench).spiesOf)},
		{"download", "1 GiB piped through a tenant to a slow client: memory stays flat", found((*bench).download)},
	}
}

// found keeps a nil finding nil.
func found[F finding](f func(*bench) (F, error)) func(*bench) (finding, error) {
	return func(b *bench) (finding, error) {
		x, err := f(b)
		if err != nil {
			return nil, err
		}
		return x, nil
	}
}

func main() {
	b := &bench{out: os.Stdout, say: progress(os.Stderr)}
	var only, rows, live, file, page, from string
	flag.StringVar(&only, "only", "", "run these `NAMES` only, with commas between")
	flag.StringVar(&file, "json", "", "also write the result to this `FILE`")
	flag.StringVar(&page, "html", "", "also write a page with plots to this `FILE`")
	flag.StringVar(&from, "from", "", "run nothing, and make the page of these `FILES` of -json, with commas between; of an instrument in several the last counts")
	flag.StringVar(&b.bin, "bin", "bin", "`DIR` of the binaries")
	flag.IntVar(&b.maxShards, "max-shards", 0, "`N` worker processes at most; 0: the host's own ceiling")
	flag.IntVar(&b.rounds, "rounds", 5, "speed: rounds; each runs every target at every number of connections")
	flag.DurationVar(&b.sample, "sample", 4*time.Second, "speed: length of one measurement")
	flag.DurationVar(&b.duration, "duration", time.Minute, "sockets: how long they echo; corpus: length of each run; spies: how long each may take to be alone; attack: length of each attack; the calm before and after are a quarter of it, at most 15 s each")
	flag.StringVar(&rows, "rows", "", "attack, corpus, spies, workloads: run these `ROWS` only, with commas between; -only attack -rows list lists them")
	flag.Float64Var(&b.rate, "rate", 4, "attack: requests a second of each of the 63 victims")
	flag.IntVar(&b.kills, "kills", 1000, "overshoot: kills over the three shapes of the bar; each other shape gets a tenth")
	flag.StringVar(&b.coldWorker, "cold-worker", "", `cold: only this size, such as "20 KB"; all`)
	flag.IntVar(&b.coldTenants, "cold-tenants", 200, "cold: tenants of each size, at most 250")
	flag.StringVar(&live, "live", "1000,10000", "memory: numbers of live tenants")
	flag.IntVar(&b.peerWorkers, "peer-workers", 500, "memory: workers in workerd")
	flag.IntVar(&b.registered, "registered", 100_000, "registered: tenants")
	flag.DurationVar(&b.hitFor, "hit", 2*time.Minute, "registered: how long they are hit")
	flag.Uint64Var(&b.budget, "budget", 2<<30, "registered: `BYTES` that all shards together may hold (serve --memory); less than the machine has, so that evictions come soon")
	flag.IntVar(&b.cycles, "cycles", 10_000, "cycles: loads and evictions")
	flag.IntVar(&b.calls, "calls", 10_000, "calls: how many")
	flag.IntVar(&b.moves, "moves", 5_000, "moves: neighbours that leave a suspect under load, at least")
	flag.IntVar(&b.verdicts, "verdicts", 100, "moves: verdicts over idle neighbours")
	flag.IntVar(&b.reshuffled, "reshuffle-tenants", 1_000, "reshuffle: tenants")
	flag.IntVar(&b.seeds, "seeds", 10, "corpus: runs of each workload, one after the other, all workloads at once")
	flag.StringVar(&b.scratch, "scratch", "", "`DIR` for the folders of many tenants; default: /dev/shm, or the temporary directory")
	flag.Usage = usage
	flag.Parse()
	var err error
	if from != "" {
		err = pageOf(page, strings.Split(from, ","))
	} else if err = b.prepare(only, rows, live); err == nil {
		err = b.run(file, page, strings.Split(only, ","))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func usage() {
	w := flag.CommandLine.Output()
	fmt.Fprintf(w, "usage: go run ./bench [flags]   (`make bench` builds what this needs)\n\ninstruments, for -only:\n")
	for _, i := range instruments() {
		fmt.Fprintf(w, "  %-11s %s\n", i.name, i.what)
	}
	fmt.Fprintf(w, "\nflags:\n")
	flag.PrintDefaults()
}

// prepare turns flags into values and looks for what is needed.
func (b *bench) prepare(only, rows, live string) (err error) {
	if b.root, err = os.Getwd(); err != nil {
		return err
	}
	for _, name := range strings.Split(only, ",") {
		if name != "" && !slices.ContainsFunc(instruments(), func(i instrument) bool { return i.name == name }) {
			return fmt.Errorf("no instrument %q; -h lists them", name)
		}
	}
	b.calm = min(b.duration/4, 15*time.Second)
	if rows != "" {
		b.rows = strings.Split(rows, ",")
	}
	for _, s := range strings.Split(live, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return fmt.Errorf("-live %q: numbers with commas between", live)
		}
		b.live = append(b.live, n)
	}
	if b.rounds < 1 {
		return fmt.Errorf("-rounds %d: at least one", b.rounds)
	}
	if b.cycles < 1 {
		return fmt.Errorf("-cycles %d: at least one", b.cycles)
	}
	if b.coldTenants < 1 || b.coldTenants > 250 {
		return fmt.Errorf("-cold-tenants %d: 1 to 250, as many as the host builds before they are asked for", b.coldTenants)
	}
	if len(b.coldSizes()) == 0 {
		return fmt.Errorf("-cold-worker %q: there are hello, 20 KB and 1 MB", b.coldWorker)
	}
	if b.scratch == "" {
		if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
			b.scratch = "/dev/shm"
		}
	}
	if b.bin, err = filepath.Abs(b.bin); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(b.bin, "bulkhead")); err != nil {
		return fmt.Errorf("%w: run `make bench`, which builds and installs what this needs", err)
	}
	return nil
}

// run runs the chosen instruments one after the other; one that fails does not stop the others.
func (b *bench) run(file, page string, only []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b.ctx = ctx
	all := map[string]any{"machine": fmt.Sprintf("%d × %s", runtime.NumCPU(), cpuModel())}
	fmt.Fprintf(b.out, "machine: %s\n", all["machine"])
	var bad []string
	for _, i := range instruments() {
		if only[0] != "" && !slices.Contains(only, i.name) || ctx.Err() != nil {
			continue
		}
		fmt.Fprintf(b.out, "\n== %s: %s\n", i.name, i.what)
		start := time.Now()
		f, err := i.run(b)
		b.say("")
		if err != nil {
			bad = append(bad, fmt.Sprintf("%s: %v", i.name, err))
			fmt.Fprintf(b.out, "could not be measured: %v\n", err)
			continue
		}
		f.print(b.out)
		fmt.Fprintf(b.out, "took %v\n", time.Since(start).Round(time.Second))
		for _, s := range f.broken() {
			bad = append(bad, i.name+": "+s)
		}
		all[i.name] = f
		if err := writeJSON(file, all); err != nil {
			return err
		}
		if page != "" {
			if err := writePage(page, all); err != nil {
				return err
			}
		}
	}
	if ctx.Err() != nil {
		bad = append(bad, "interrupted")
	}
	if len(bad) > 0 {
		return fmt.Errorf("%d bars do not hold:\n  %s", len(bad), strings.Join(bad, "\n  "))
	}
	return nil
}

// pageOf makes the page of results kept before.
func pageOf(page string, files []string) error {
	if page == "" {
		return errors.New("-from makes a page: say with -html where to write it")
	}
	all, err := readResults(files...)
	if err != nil {
		return err
	}
	return writePage(page, all)
}

func writeJSON(file string, v any) error {
	if file == "" {
		return nil
	}
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

// progress writes a line that the next one replaces on a terminal; elsewhere each has its own.
func progress(f *os.File) func(string, ...any) {
	st, err := f.Stat()
	terminal := err == nil && st.Mode()&os.ModeCharDevice != 0
	start := time.Now()
	return func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		switch {
		case terminal:
			fmt.Fprint(f, "\r\x1b[K", text)
		case text != "":
			fmt.Fprintf(f, "%6.1fs %s\n", time.Since(start).Seconds(), text)
		}
	}
}
