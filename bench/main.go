// Command bench measures bulkhead against its peers: the same worker, the same load generator, the
// same machine, the two in turn, so that a drift of the machine meets both alike. It prints
// ratios; the absolute figures beside them are this machine's today. See docs/BENCHMARKS.md.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"
)

type options struct {
	rounds   int
	duration time.Duration
	tenants  int
	json     string
	root     string
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "rounds; each runs every target at every number of connections")
	flag.DurationVar(&o.duration, "duration", 4*time.Second, "length of one measurement")
	flag.IntVar(&o.tenants, "tenants", 100, "tenants for the memory and cold start figures")
	flag.StringVar(&o.json, "json", "", "also write the result to this file")
	flag.Parse()
	root, err := os.Getwd()
	if err == nil {
		o.root = root
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

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

type result struct {
	Machine    string     `json:"machine"`
	PolicyHash string     `json:"policyHash"`
	Peers      []string   `json:"peers"`
	Rows       []*row     `json:"rows"`
	Memory     memory     `json:"memory"`
	ColdStart  coldStarts `json:"coldStart"`
}

func run(o options) error {
	for _, need := range []string{"bin/bulkhead", "bench/peers/node_modules"} {
		if _, err := os.Stat(filepath.Join(o.root, need)); err != nil {
			return fmt.Errorf("%w: run `make bench`, which builds and installs what this needs", err)
		}
	}
	bulkhead, err := startBulkhead(o)
	if err != nil {
		return err
	}
	defer bulkhead.stop()
	workerd, err := startWorkerd(o)
	if err != nil {
		return err
	}
	defer workerd.stop()

	res := &result{Machine: fmt.Sprintf("%d × %s", runtime.NumCPU(), cpuModel()), PolicyHash: bulkhead.policyHash, Peers: []string{workerd.version}}
	fmt.Printf("machine: %s · policy %s · peers: %v\n", res.Machine, res.PolicyHash, res.Peers)

	connections := []int{1, 32, 128}
	targets := []*target{bulkhead, workerd}
	for _, c := range connections {
		for _, t := range targets {
			res.Rows = append(res.Rows, &row{Target: t.name, Connections: c})
		}
	}
	total, done := o.rounds*len(res.Rows), 0
	for round := range o.rounds {
		for i, c := range connections {
			// Every other round starts with the other target: neither always runs on a warm machine.
			order := []int{0, 1}
			if round%2 == 1 {
				slices.Reverse(order)
			}
			for _, j := range order {
				done++
				fmt.Fprintf(os.Stderr, "\r\x1b[K[%d/%d] %s, %d connections", done, total, targets[j].name, c)
				before := targets[j].cpu()
				m, err := load(targets[j], c, o.duration)
				if err != nil {
					return err
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
	fmt.Fprint(os.Stderr, "\r\x1b[K")
	base, _ := pss(bulkhead)
	if res.ColdStart, err = measureColdStarts(bulkhead, o); err != nil {
		return err
	}
	if res.Memory, err = measureMemory(bulkhead, base, o); err != nil {
		return err
	}
	res.print(os.Stdout)
	if o.json != "" {
		b, err := json.MarshalIndent(res, "", "  ")
		if err != nil {
			return err
		}
		return os.WriteFile(o.json, append(b, '\n'), 0o644)
	}
	return nil
}
