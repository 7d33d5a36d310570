package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// memory is what a live tenant costs, by how many there are.
type memory struct {
	Host    hostInfo     `json:"host"`
	Rows    []*memoryRow `json:"rows"`
	Workerd *peerMemory  `json:"workerd"`
}

// memoryRow is one number of live tenants. PSS is proportional set size, shared pages divided among
// their users (proc_pid_smaps(5)).
type memoryRow struct {
	Tenants         int     `json:"tenants"`
	Shards          int     `json:"shards"`
	AllBytes        uint64  `json:"allPssBytes"` // launcher, gateway, shards and spares
	PerTenant       float64 `json:"pssBytesPerTenant"`
	LauncherGateway uint64  `json:"launcherGatewayPssBytes"`
	ShardBase       float64 `json:"shardBaseBytes"`      // PSS of a shard without tenants, of the fit over all shards
	TenantSlope     float64 `json:"shardBytesPerTenant"` // PSS that one more tenant adds to its shard
	PageTables      uint64  `json:"pageTableBytes"`
	KernelBytes     uint64  `json:"cgroupKernelBytes"` // of the shards' cgroups; 0 where the kernel does not say
	Load            latency `json:"load"`              // the first answer of each, build included
	Answers         latency `json:"answers"`           // of all of them once more
	Failed          int     `json:"failed"`
	FirstFailed     string  `json:"firstFailed,omitempty"`
	Live            int     `json:"live"` // tenants in a shard when memory was read
}

// peerMemory is workerd with the same worker, each in an isolate of its own, unsandboxed.
type peerMemory struct {
	Version   string  `json:"version"`
	Workers   int     `json:"workers"`
	AllBytes  uint64  `json:"allPssBytes"`
	PerWorker float64 `json:"pssBytesPerWorker"`
}

func (b *bench) memory() (*memory, error) {
	source, err := b.coldSource(0, 0)
	if err != nil {
		return nil, err
	}
	res := &memory{}
	for _, n := range b.live {
		var names []string
		for i := range n {
			names = append(names, fmt.Sprintf("t%d", i))
		}
		t, err := b.startHost(hostOptions{tenants: workers(source, names...), scratch: b.scratch})
		if err != nil {
			return nil, err
		}
		res.Host = t.info
		row := &memoryRow{Tenants: n}
		err = row.measure(b, t, names)
		t.stop()
		if err != nil {
			return nil, fmt.Errorf("%d tenants: %w", n, err)
		}
		res.Rows = append(res.Rows, row)
	}
	b.say("memory: workerd with %d workers", b.peerWorkers)
	res.Workerd, err = b.peerMemory(source)
	return res, err
}

// askAll asks each tenant once, a few at a time.
func (r *memoryRow) askAll(b *bench, c *client, names []string, what string) latency {
	var mu sync.Mutex
	var h histogram
	next := make(chan string)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for name := range next {
				a, ok := c.get(name+".localhost", "/")
				mu.Lock()
				if ok {
					h.add(a.took)
				} else if r.Failed++; r.FirstFailed == "" {
					r.FirstFailed = fmt.Sprintf("%s (%s): %s %s", name, what, a.String(), a.message())
				}
				mu.Unlock()
			}
		})
	}
	for i, name := range names {
		if b.ctx.Err() != nil {
			break
		}
		if i%500 == 0 {
			b.say("memory: %s: %d of %d tenants", what, i, len(names))
		}
		next <- name
	}
	close(next)
	wg.Wait()
	return h.latency()
}

// settle waits until pools are refilled and who is idle has been made smaller, as on a host whose
// tenants are not all asked at once.
func (r *memoryRow) settle(b *bench) {
	b.say("memory: %d tenants rest", r.Tenants)
	time.Sleep(8 * time.Second)
}

func (r *memoryRow) measure(b *bench, t *target, names []string) error {
	r.Load = r.askAll(b, t.public, names, "load")
	// Once more uncounted: while thousands are built the first ones may be idle for too long.
	r.askAll(b, t.public, names, "come back")
	r.settle(b)
	r.Answers = r.askAll(b, t.public, names, "answer")
	r.settle(b)
	if err := b.ctx.Err(); err != nil {
		return err
	}
	shards, err := t.shards()
	if err != nil {
		return err
	}
	r.AllBytes, r.PageTables = pss(t)
	r.PerTenant = float64(r.AllBytes) / float64(r.Tenants)
	r.LauncherGateway = r.AllBytes
	var xs, ys []float64
	for _, s := range shards {
		bytes := pssOf(s.PID)
		r.LauncherGateway -= min(bytes, r.LauncherGateway)
		r.KernelBytes += cgroupKernel(s.PID)
		r.Live += len(s.Tenants)
		if len(s.Tenants) > 0 {
			r.Shards++
		}
		xs, ys = append(xs, float64(len(s.Tenants))), append(ys, float64(bytes))
	}
	r.ShardBase, r.TenantSlope = fit(xs, ys)
	return nil
}

// fit is the line of least squares through points.
func fit(xs, ys []float64) (base, slope float64) {
	n := float64(len(xs))
	var sx, sy, sxx, sxy float64
	for i := range xs {
		sx, sy, sxx, sxy = sx+xs[i], sy+ys[i], sxx+xs[i]*xs[i], sxy+xs[i]*ys[i]
	}
	if d := n*sxx - sx*sx; d > 0 {
		slope = (n*sxy - sx*sy) / d
	}
	if n > 0 {
		base = (sy - slope*sx) / n
	}
	return base, slope
}

// cgroupKernel is the kernel memory charged to a process's cgroup, in bytes.
func cgroupKernel(pid int) uint64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		if f[1] == "" { // v2
			stat, _ := os.ReadFile(filepath.Join("/sys/fs/cgroup", f[2], "memory.stat"))
			for line := range strings.Lines(string(stat)) {
				if v, ok := strings.CutPrefix(line, "kernel "); ok {
					n, _ := strconv.ParseUint(strings.TrimSpace(v), 10, 64)
					return n
				}
			}
		}
		if f[1] == "memory" { // v1
			v, _ := os.ReadFile(filepath.Join("/sys/fs/cgroup/memory", f[2], "memory.kmem.usage_in_bytes"))
			n, _ := strconv.ParseUint(strings.TrimSpace(string(v)), 10, 64)
			return n
		}
	}
	return 0
}

func (b *bench) peerMemory(source string) (*peerMemory, error) {
	m, err := b.startWorkerdMany(b.peerWorkers, false, func(int) (string, error) { return source, nil })
	if err != nil {
		return nil, err
	}
	defer m.stop()
	for _, c := range m.clients {
		err := answers(c)
		c.close()
		if err != nil {
			return nil, fmt.Errorf("workerd: %w", err)
		}
	}
	time.Sleep(2 * time.Second)
	p := &peerMemory{Version: m.version, Workers: b.peerWorkers}
	p.AllBytes, _ = pss(m.target)
	p.PerWorker = float64(p.AllBytes) / float64(p.Workers)
	return p, nil
}

func (m *memory) broken() (out []string) {
	for _, r := range m.Rows {
		if r.Failed > 0 {
			out = append(out, fmt.Sprintf("%d requests of %d live tenants failed, the first %s", r.Failed, r.Tenants, r.FirstFailed))
		}
		if r.Live < r.Tenants {
			out = append(out, fmt.Sprintf("of %d tenants only %d are live: the memory figure would flatter", r.Tenants, r.Live))
		}
	}
	return out
}

func (m *memory) print(w io.Writer) {
	fmt.Fprintln(w, m.Host)
	tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "live tenants\tshards\tMB a tenant (bar 1.2)\tall MB\tlauncher, gateway MB\ta shard MB\tand a tenant MB\tpage tables MB\tcgroup kernel MB\tfailed\tload ms: p50\tp99\tanswer ms: p50\tp99")
	for _, r := range m.Rows {
		fmt.Fprintf(tw, "%d of %d\t%d\t%.3f\t%.0f\t%.0f\t%.1f\t%.3f\t%.1f\t%.1f\t%d\t%.1f\t%.1f\t%.1f\t%.1f\n", r.Live, r.Tenants, r.Shards, r.PerTenant/(1<<20), mb(r.AllBytes), mb(r.LauncherGateway),
			r.ShardBase/(1<<20), r.TenantSlope/(1<<20), mb(r.PageTables), mb(r.KernelBytes), r.Failed, r.Load.P50Micros/1e3, r.Load.P99Micros/1e3, r.Answers.P50Micros/1e3, r.Answers.P99Micros/1e3)
	}
	tw.Flush()
	fmt.Fprintf(w, "%s, unsandboxed, %d workers: %.3f MB a worker\n", m.Workerd.Version, m.Workerd.Workers, m.Workerd.PerWorker/(1<<20))
}
