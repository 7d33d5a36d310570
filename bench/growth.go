package main

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"text/tabwriter"
	"time"
)

// growth is what a request costs as there are more tenants, more shards, larger bodies. A host without a
// knee pays for what it does, not for what it has.
type growth struct {
	Host    hostInfo     `json:"host"`
	Tenants []*growthRow `json:"tenants"` // 1 to 10,000 tenants, all live, asked by chance
	Shards  []*growthRow `json:"shards"`  // 200 tenants in 1 to 200 shards
	Down    []*growthRow `json:"down"`    // bodies of 1 KB to 100 MB
	Up      []*growthRow `json:"up"`
}

type growthRow struct {
	N         int       `json:"n"`      // tenants, shards or bytes
	Shards    int       `json:"shards"` // with tenants, as the host says
	PerSecond []float64 `json:"requestsPerSecond"`
	P50Micros []float64 `json:"p50Micros"`
	P99Micros []float64 `json:"p99Micros"`
	Failed    int       `json:"failed"`
	CPUMicros cpuShares `json:"cpuMicrosPerRequest"`
	IdleCPU   float64   `json:"idleCpu"` // processors that the host takes while nobody asks
}

func (r *growthRow) note(m crowdLoad) error {
	x := row{PerSecond: r.PerSecond, P50Micros: r.P50Micros, P99Micros: r.P99Micros, Failed: r.Failed, CPUMicros: r.CPUMicros}
	err := x.note(m)
	r.PerSecond, r.P50Micros, r.P99Micros, r.Failed, r.CPUMicros = x.PerSecond, x.P50Micros, x.P99Micros, x.Failed, x.CPUMicros
	return err
}

// total is the CPU time of a request in all processes, µs.
func (c cpuShares) total() (sum float64) {
	for _, v := range c {
		sum += v
	}
	return sum
}

func (b *bench) growthOf() (*growth, error) {
	res := &growth{}
	source, err := b.coldSource(0, 0)
	if err != nil {
		return nil, err
	}
	for _, n := range []int{1, 10, 100, 1000, 10_000} {
		row, err := b.grown(res, source, n, hostOptions{})
		if err != nil {
			return nil, fmt.Errorf("%d tenants: %w", n, err)
		}
		row.N = n
		res.Tenants = append(res.Tenants, row)
	}
	const tenants = 200
	for _, shards := range []int{4, 12, 50, 200} {
		each := (tenants + shards - 1) / shards
		policy := fmt.Sprintf("preset: standard\nshard: {maxTenants: %d}\n", min(each, 64))
		row, err := b.grown(res, source, tenants, hostOptions{policy: policy, beside: "another maxTenants"})
		if err != nil {
			return nil, fmt.Errorf("%d shards: %w", shards, err)
		}
		row.N = row.Shards
		res.Shards = append(res.Shards, row)
	}
	return res, res.bodies(b)
}

// grown loads n tenants and asks them by chance.
func (b *bench) grown(g *growth, source string, n int, o hostOptions) (*growthRow, error) {
	names := tenantNames(n)
	o.tenants, o.scratch = workers(source, names...), b.scratch
	b.say("growth: %d tenants: starting a host", n)
	t, err := b.startHost(o)
	if err != nil {
		return nil, err
	}
	defer t.stop()
	if o.policy == "" {
		g.Host = t.info
	}
	c, r := crowdOf(t, names...), &growthRow{}
	if err := c.visit(b.ctx, b.say); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, t.log())
	}
	shards, err := t.shards()
	if err != nil {
		return nil, err
	}
	for _, s := range shards {
		if len(s.Tenants) > 0 {
			r.Shards++
		}
	}
	r.IdleCPU = b.settle(t)
	for i := range b.rounds {
		b.say("growth: %d tenants in %d shards: round %d of %d", n, r.Shards, i+1, b.rounds)
		if err := r.note(c.load(b.ctx, 32, b.sample, c.byChance)); err != nil {
			return nil, err
		}
	}
	return r, b.ctx.Err()
}

// settle waits, a minute at most, until a host that nobody asks has come to rest (pools are filled, who is
// idle has been made smaller), and says how many processors it takes then.
func (b *bench) settle(t *target) (processors float64) {
	for range 30 {
		before := t.cpu()
		rest(b.ctx, 2*time.Second)
		processors = t.cpu().since(before).total() / 2e6
		if b.say("growth: the host comes to rest: %.2f processors", processors); processors < 0.05 || b.ctx.Err() != nil {
			break
		}
	}
	return processors
}

func (g *growth) bodies(b *bench) error {
	text, err := os.ReadFile(filepath.Join(b.root, "bench/workloads/sizes/worker.js"))
	if err != nil {
		return err
	}
	t, err := b.startHost(hostOptions{tenants: workers(string(text), "sizes")})
	if err != nil {
		return err
	}
	defer t.stop()
	for _, size := range []int{1e3, 1e4, 1e5, 1e6, 1e7, 1e8} {
		host := "sizes.localhost"
		post := fmt.Appendf(nil, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", host, size)
		down := &crowd{t, []place{{t.addr, plainGet(host, "/?n="+strconv.Itoa(size))}}}
		up := &crowd{t, []place{{t.addr, append(post, bytes.Repeat([]byte("a"), size)...)}}}
		for _, way := range []struct {
			name string
			c    *crowd
			to   *[]*growthRow
		}{{"down", down, &g.Down}, {"up", up, &g.Up}} {
			r := &growthRow{N: size, Shards: 1}
			*way.to = append(*way.to, r)
			for i := range b.rounds {
				b.say("growth: %d bytes %s: round %d of %d", size, way.name, i+1, b.rounds)
				if err := r.note(way.c.load(b.ctx, 4, b.sample, way.c.byChance)); err != nil {
					return fmt.Errorf("%d bytes %s: %w", size, way.name, err)
				}
			}
		}
	}
	return b.ctx.Err()
}

// curves are the rows with the titles that tables and plots have.
func (g *growth) curves() []growthCurve {
	return []growthCurve{
		{"tenants, all live, asked by chance", "tenants", g.Tenants, 0}, {"200 tenants in", "shards", g.Shards, 0},
		{"one tenant, bodies down of", "bytes", g.Down, 1 << 20}, {"one tenant, bodies up of", "bytes", g.Up, 1 << 20},
	}
}

type growthCurve struct {
	title, unit string
	rows        []*growthRow
	per         float64 // bytes that a second cost is printed for; 0 for none
}

func (g *growth) broken() (out []string) {
	for _, c := range g.curves() {
		for _, r := range c.rows {
			if r.Failed > 0 {
				out = append(out, fmt.Sprintf("%d %s: %d requests failed", r.N, c.unit, r.Failed))
			}
		}
	}
	return out
}

func (g *growth) print(w io.Writer) {
	fmt.Fprintln(w, g.Host)
	for _, c := range g.curves() {
		tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
		fmt.Fprintf(tw, "%s\tshards\trequests/s\tp50 µs\tp99 µs\tfailed\tCPU µs a request\tCPU ms a MiB\tprocessors at rest\n", c.title+" "+c.unit)
		for _, r := range c.rows {
			mib, idle := "", fmt.Sprintf("%.3f", r.IdleCPU)
			if c.per > 0 {
				idle = ""
				mib = fmt.Sprintf("%.2f", r.CPUMicros.total()/1e3/math.Max(float64(r.N)/c.per, 1e-9))
			}
			fmt.Fprintf(tw, "%d\t%d\t%s\t%.0f\t%.0f\t%d\t%s\t%s\t%s\n", r.N, r.Shards, spread(r.PerSecond), median(r.P50Micros), median(r.P99Micros), r.Failed, r.CPUMicros, mib, idle)
		}
		tw.Flush()
	}
}
