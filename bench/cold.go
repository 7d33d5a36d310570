package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"
)

// coldStarts is what a request pays that meets a tenant which is not loaded.
type coldStarts struct {
	Host    hostInfo    `json:"host"`
	Rows    []*coldRow  `json:"rows"`
	Workerd []*peerCold `json:"workerd"`
	Version string      `json:"workerdVersion"`
}

// coldRow is one size of worker: time to the first byte of a request to a tenant that is not
// loaded, minus the least of its warm requests. Its bundle was built before: that is deployment.
type coldRow struct {
	Worker  string  `json:"worker"`
	Bytes   int     `json:"bytes"`
	Fresh   latency `json:"fresh"`   // never loaded before
	Evicted latency `json:"evicted"` // loaded, asked, and evicted before
	Cached  latency `json:"cached"`  // evicted before, with a code cache that was made meanwhile
	Caches  int     `json:"caches"`  // that were made; the workers without one are among Cached
	Warm    latency `json:"warm"`
}

// peerCold is workerd with the same workers. It loads what its configuration names before it
// serves; its experimental worker loader makes one when it is asked for.
type peerCold struct {
	Worker  string  `json:"worker"`
	Workers int     `json:"workers"`
	StartMs float64 `json:"startMsPerWorker"` // of the process, beyond its start with one worker
	First   latency `json:"first"`            // request to each configured worker, minus warm
	Loader  latency `json:"loader"`           // request to each dynamically loaded worker, minus warm
	NoteErr string  `json:"error,omitempty"`
}

type coldSize struct {
	name string
	size int
}

// coldSizes are the workers of the bars, or the one that was asked for; 0 is hello.
func (b *bench) coldSizes() []coldSize {
	all := []coldSize{{"hello", 0}, {"20 KB", 20 << 10}, {"1 MB", 1 << 20}}
	return slices.DeleteFunc(all, func(s coldSize) bool { return b.coldWorker != "" && s.name != b.coldWorker })
}

const (
	coldLoads   = 3                // after which a small worker is worth a code cache
	coldCaches  = 3 * time.Minute  // for the making of all of them
	coldStalled = 20 * time.Second // without another
)

// coldSource is worker n of a size.
func (b *bench) coldSource(size int, n int) (string, error) {
	if size > 0 {
		return generateWorker(size, uint64(n)), nil
	}
	text, err := os.ReadFile(filepath.Join(b.root, "bench/workloads/hello/worker.js"))
	return string(text), err
}

func (b *bench) cold() (*coldStarts, error) {
	res := &coldStarts{}
	for _, s := range b.coldSizes() {
		row := &coldRow{Worker: s.name}
		var names []string
		t, err := b.startHost(hostOptions{tenants: func(dir string) error {
			for i := range b.coldTenants {
				source, err := b.coldSource(s.size, i)
				if err != nil {
					return err
				}
				row.Bytes = len(source)
				names = append(names, fmt.Sprintf("t%d", i))
				if err := writeWorker(dir, names[i], source); err != nil {
					return err
				}
			}
			return nil
		}})
		if err != nil {
			return nil, err
		}
		res.Host = t.info
		err = row.measure(b, t, names)
		t.stop()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		res.Rows = append(res.Rows, row)
	}
	for _, s := range b.coldSizes() {
		p, err := b.peerCold(s.name, s.size)
		if err != nil {
			return nil, err
		}
		res.Workerd = append(res.Workerd, p)
	}
	_, version, err := b.workerdBinary()
	res.Version = version
	return res, err
}

func (r *coldRow) measure(b *bench, t *target, names []string) error {
	b.say("cold: %s: building %d tenants", r.Worker, len(names))
	if err := t.built(b.ctx); err != nil {
		return err
	}
	// The building of so many bundles leaves the host with garbage and its helpers with their ends.
	b.say("cold: %s: the host comes to rest", r.Worker)
	time.Sleep(5 * time.Second)
	var fresh, evicted, cached, warm histogram
	pass := func(h *histogram) error {
		for i, name := range names {
			if err := b.ctx.Err(); err != nil {
				return err
			}
			if i%50 == 0 {
				b.say("cold: %s: %d of %d tenants", r.Worker, i, len(names))
			}
			extra, w, err := coldAndWarm(t.public, name+".localhost")
			if err != nil {
				return err
			}
			h.add(extra)
			warm.add(w)
		}
		for _, name := range names {
			if err := t.admin.admin("POST", "/v1/evict/"+name, nil); err != nil {
				return err
			}
		}
		return nil
	}
	for _, h := range []*histogram{&fresh, &evicted} {
		if err := pass(h); err != nil {
			return err
		}
	}
	if r.Bytes >= coldLeast {
		var unmeasured histogram
		for range coldLoads - 2 {
			if err := pass(&unmeasured); err != nil {
				return err
			}
		}
		if err := r.caches(b, t, len(names)); err != nil {
			return err
		}
		if err := pass(&cached); err != nil {
			return err
		}
	}
	r.Fresh, r.Evicted, r.Cached, r.Warm = fresh.latency(), evicted.latency(), cached.latency(), warm.latency()
	return nil
}

// coldLeast is the least a worker with a code cache has of code, bytes.
const coldLeast = 4 << 10

// caches waits until the host has made the code caches of n workers, or makes no more.
func (r *coldRow) caches(b *bench, t *target, n int) error {
	b.say("cold: %s: the host makes %d code caches", r.Worker, n)
	end, last := time.Now().Add(coldCaches), time.Now()
	for r.Caches < n && time.Now().Before(end) && time.Since(last) < coldStalled {
		select {
		case <-time.After(500 * time.Millisecond):
		case <-b.ctx.Done():
			return b.ctx.Err()
		}
		m, err := t.metrics("bulkhead_placement_total")
		if err != nil {
			return err
		}
		if made := int(m[`event="codeCacheMade"`]); made > r.Caches {
			r.Caches, last = made, time.Now()
		}
	}
	return nil
}

// coldAndWarm asks once, then five times more.
func coldAndWarm(c *client, host string) (extra, warm time.Duration, err error) {
	cold, ok := c.get(host, "/")
	if !ok {
		return 0, 0, fmt.Errorf("the first request of %s: %s %s (%v)", host, cold.String(), cold.message(), cold.err)
	}
	warm = time.Hour
	for range 5 {
		a, ok := c.get(host, "/")
		if !ok {
			return 0, 0, fmt.Errorf("a warm request of %s: %s %s (%v)", host, a.String(), a.message(), a.err)
		}
		warm = min(warm, a.first)
	}
	return max(cold.first-warm, 0), warm, nil
}

// peerCold measures workerd with as many workers of a size as there were tenants.
func (b *bench) peerCold(name string, size int) (*peerCold, error) {
	n := b.coldTenants
	p := &peerCold{Worker: name, Workers: n}
	source := func(i int) (string, error) { return b.coldSource(size, i) }
	b.say("cold: workerd, %s", name)
	one, err := b.startWorkerdMany(1, false, source)
	if err != nil {
		return nil, err
	}
	one.stop()
	many, err := b.startWorkerdMany(n, false, source)
	if err != nil {
		return nil, err
	}
	p.StartMs = ms(many.took-one.took) / float64(max(n-1, 1))
	var first histogram
	for _, c := range many.clients {
		extra, _, err := coldAndWarm(c, "hello.localhost")
		c.close()
		if err != nil {
			many.stop()
			return nil, fmt.Errorf("workerd: %w", err)
		}
		first.add(extra)
	}
	many.stop()
	p.First = first.latency()
	loader, err := b.startWorkerdLoader(source)
	if err != nil {
		p.NoteErr = err.Error() // experimental: a version without it is no reason to fail
		return p, nil
	}
	defer loader.stop()
	var lazy histogram
	for i := range n {
		extra, _, err := coldAndWarm(loader.public, fmt.Sprintf("t%d.localhost", i))
		if err != nil {
			p.NoteErr = err.Error()
			return p, nil
		}
		lazy.add(extra)
	}
	p.Loader = lazy.latency()
	return p, nil
}

func (c *coldStarts) broken() []string { return nil }

func (c *coldStarts) print(w io.Writer) {
	fmt.Fprintln(w, c.Host)
	tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "worker\tbytes\ttenants\tfresh, ms: p50 (bar 2)\tp99 (bar 10)\tafter eviction, ms: p50\tp99\twith a code cache, ms: p50\tp99\tof them cached\twarm, ms: p50")
	for _, r := range c.Rows {
		fmt.Fprintf(tw, "%s\t%d\t%d\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%d\t%.2f\n", r.Worker, r.Bytes, r.Fresh.Requests, r.Fresh.P50Micros/1e3, r.Fresh.P99Micros/1e3, r.Evicted.P50Micros/1e3, r.Evicted.P99Micros/1e3,
			r.Cached.P50Micros/1e3, r.Cached.P99Micros/1e3, r.Caches, r.Warm.P50Micros/1e3)
	}
	tw.Flush()
	fmt.Fprintf(w, "%s, unsandboxed:\n", c.Version)
	fmt.Fprintln(tw, "worker\tworkers\tstart a worker, ms\tits first request, ms: p50\tp99\tworker loader, ms: p50\tp99\t")
	for _, p := range c.Workerd {
		fmt.Fprintf(tw, "%s\t%d\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%s\n", p.Worker, p.Workers, p.StartMs, p.First.P50Micros/1e3, p.First.P99Micros/1e3, p.Loader.P50Micros/1e3, p.Loader.P99Micros/1e3, p.NoteErr)
	}
	tw.Flush()
}
