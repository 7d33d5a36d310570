package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// sealCost is what the seal takes from a host's speed: the same commit with a layer of the worker's seal left
// out, and with all of them, against the build that leaves out nothing. Builds that can leave something
// out are made for it (tag bulkhead_sabotage) and never serve anybody else.
type sealCost struct {
	Host hostInfo   `json:"host"`
	Rows []*sealRow `json:"rows"`
}

// sealRow is one workload with one part of the seal off.
type sealRow struct {
	Workload string    `json:"workload"`
	Without  string    `json:"without"` // "nothing": the second of two sealed hosts, which shows the noise
	Sealed   []float64 `json:"sealedPerSecond"`
	Unsealed []float64 `json:"unsealedPerSecond"`
	SealedC  cpuShares `json:"sealedCpuMicrosPerRequest"`
	WithoutC cpuShares `json:"unsealedCpuMicrosPerRequest"`
	Failed   int       `json:"failed"`
}

// part is what is left out: steps of the worker, and lines of the launcher.
type part struct {
	name             string
	worker, launcher []string
}

func parts() []part {
	checks := []string{"checks"}
	all := part{"all of it", []string{"cgroup-namespace", "root", "names", "keyring", "rlimits", "speculation", "bounding-set", "securebits",
		"capabilities", "no-new-privs", "mdwe", "landlock", "dumpable", "seccomp"},
		[]string{"checks", "cgroup", "namespace user", "namespace pid", "namespace net", "namespace ipc", "namespace mount", "namespace uts"}}
	return []part{
		{"nothing", nil, nil},
		{"seccomp", []string{"seccomp"}, checks},
		{"Landlock", []string{"landlock"}, checks},
		{"cgroups", nil, []string{"checks", "cgroup"}},
		{"MDWE and speculation controls", []string{"mdwe", "speculation"}, checks},
		all,
	}
}

// buildLeaky builds the launcher and the worker that can leave something out, beside the other binaries.
func (b *bench) buildLeaky() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "bhseal"); err != nil {
		return "", err
	}
	os.Chmod(dir, 0o755)
	for _, name := range []string{"bulkhead-launcher", "bulkhead-worker"} {
		b.say("seal: building %s", name)
		c := exec.CommandContext(b.ctx, "go", "build", "-tags", "bulkhead_sabotage", "-o", filepath.Join(dir, name), "./cmd/"+name)
		c.Dir = b.root
		if out, err := c.CombinedOutput(); err != nil {
			return dir, fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	for _, name := range []string{"bulkhead", "bulkhead-gateway"} {
		text, err := os.ReadFile(filepath.Join(b.bin, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0o755)
		}
		if err != nil {
			return dir, err
		}
	}
	return dir, nil
}

func (b *bench) sealCostOf() (*sealCost, error) {
	dir, err := b.buildLeaky()
	if dir != "" {
		defer os.RemoveAll(dir)
	}
	if err != nil {
		return nil, err
	}
	var loads []workload
	for _, w := range workloads() {
		if slices.Contains([]string{"hello", "JSON 1 KB", "Preact SSR", "HMAC", "1 MiB down"}, w.name) {
			loads = append(loads, w)
		}
	}
	sources := map[string]string{}
	for _, w := range loads {
		if sources[w.worker], err = b.bundleWorkload(w.worker); err != nil {
			return nil, err
		}
	}
	tenants := func(dir string) error {
		for name, source := range sources {
			if err := writeWorker(dir, name, source); err != nil {
				return err
			}
		}
		return nil
	}
	res := &sealCost{}
	for _, p := range parts() {
		for name, lines := range map[string][]string{"bulkhead-worker": p.worker, "bulkhead-launcher": p.launcher} {
			if err := os.WriteFile(filepath.Join(dir, name+".skip"), []byte(strings.Join(lines, "\n")), 0o644); err != nil {
				return nil, err
			}
		}
		if err := res.compare(b, p.name, dir, loads, tenants); err != nil {
			return nil, fmt.Errorf("without %s: %w", p.name, err)
		}
	}
	return res, nil
}

// compare runs the two hosts side by side and asks them in turn.
func (s *sealCost) compare(b *bench, without, dir string, loads []workload, tenants func(string) error) error {
	sealed, err := b.startHost(hostOptions{tenants: tenants})
	if err != nil {
		return err
	}
	defer sealed.stop()
	leaky, err := b.startHost(hostOptions{tenants: tenants, bin: dir})
	if err != nil {
		return err
	}
	defer leaky.stop()
	s.Host = sealed.info
	both := []*target{sealed, leaky}
	for _, t := range both {
		if err := t.built(b.ctx); err != nil {
			return err
		}
	}
	scratch, err := os.MkdirTemp("", "bhseal")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	for _, w := range loads {
		r := &sealRow{Workload: w.name, Without: without}
		s.Rows = append(s.Rows, r)
		ask, err := w.shot(scratch)
		if err != nil {
			return err
		}
		for round := range b.rounds {
			for k := range both {
				i := (k + round) % 2
				t := *both[i]
				t.host = w.worker + ".localhost"
				if round == 0 {
					if err := w.check(&t); err != nil {
						return fmt.Errorf("%s: %w", w.name, err)
					}
					if _, err := loadWith(&t, ask, w.connections, time.Second); err != nil { // code gets warm
						return err
					}
				}
				b.say("seal: without %s: %s, round %d of %d", without, w.name, round+1, b.rounds)
				before := t.cpu()
				m, err := loadWith(&t, ask, w.connections, b.sample)
				if err != nil {
					return err
				}
				spent := t.cpu().since(before)
				if r.Failed += m.failed; i == 0 {
					r.Sealed = append(r.Sealed, m.perSecond)
					r.SealedC.add(spent, m.requests)
				} else {
					r.Unsealed = append(r.Unsealed, m.perSecond)
					r.WithoutC.add(spent, m.requests)
				}
				if err := b.ctx.Err(); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// cost is the share of requests a second that the part takes, in percent, over the pairs of rounds.
func (r *sealRow) cost() (mid, low, high float64) {
	mid, low, high = (&compared{row: row{PerSecond: r.Sealed}}).ratio(&compared{row: row{PerSecond: r.Unsealed}})
	return 100 * (1 - mid), 100 * (1 - high), 100 * (1 - low)
}

func (s *sealCost) broken() (out []string) {
	for _, r := range s.Rows {
		if r.Failed > 0 {
			out = append(out, fmt.Sprintf("%s without %s: %d requests failed", r.Workload, r.Without, r.Failed))
		}
	}
	return out
}

func (s *sealCost) print(w io.Writer) {
	fmt.Fprintf(w, "%s; sealed against the same commit without a part of the worker's seal\n", s.Host)
	tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "without\tworkload\tit takes % of requests/s (range)\tsealed/s\twithout/s\tCPU µs sealed\twithout")
	for _, r := range s.Rows {
		mid, low, high := r.cost()
		fmt.Fprintf(tw, "%s\t%s\t%.1f (%.1f to %.1f)\t%s\t%s\t%.1f\t%.1f\n", r.Without, r.Workload, mid, low, high, spread(r.Sealed), spread(r.Unsealed), r.SealedC.total(), r.WithoutC.total())
	}
	tw.Flush()
}
