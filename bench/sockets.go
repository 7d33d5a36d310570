package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// sockets is thousands of WebSockets over many tenants, while others crash, are deployed and are moved.
type sockets struct {
	Host        hostInfo       `json:"host"`
	Sockets     int            `json:"sockets"`
	Tenants     int            `json:"tenants"`
	ForMs       float64        `json:"forMs"`
	Echoes      int64          `json:"echoes"`
	Wrong       int64          `json:"wrong"` // echoes that were not what was sent
	Lost        int64          `json:"lost"`
	Ends        map[string]int `json:"ends"`
	Latency     latency        `json:"latency"`
	GatewayEach float64        `json:"gatewayBytesEach"` // PSS of an idle connection
	ShardsEach  float64        `json:"shardsBytesEach"`
	Crashes     int            `json:"crashes"`
	Deployments int            `json:"deployments"`
	Moves       int            `json:"moves"`
	Failures    []string       `json:"failures"`  // of the disturbances themselves
	Incidents   map[string]int `json:"incidents"` // by kind and tenants
	HostEnds    map[string]int `json:"hostEnds"`  // what ended sockets, as the host counted it
}

const (
	socketTenants = 100
	socketsEach   = 50
	// socketPause is between an echo and the next message of the same connection.
	socketPause = 2 * time.Second
)

const echoes = `export default { fetch(request) {
	const [client, server] = Object.values(new WebSocketPair());
	server.accept();
	server.addEventListener("message", (e) => server.send(e.data));
	return new Response(null, { status: 101, webSocket: client });
} };
`

// The disturbed stand in a cordon of their own: a process that dies takes its sockets along, and no
// neighbour's socket survives that anywhere.
const socketPolicy = "cordons: {quiet: {}, loud: {}}\ncordon: quiet\ntenants:\n  \"loud-*\": {cordon: loud}\n"

func (b *bench) sockets() (*sockets, error) {
	attacker, err := os.ReadFile(filepath.Join(b.root, "bench/workloads/attacker/worker.js"))
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range socketTenants {
		names = append(names, fmt.Sprintf("echo-%d", i))
	}
	var folder string
	t, err := b.startHost(hostOptions{scratch: b.scratch, policy: socketPolicy, beside: "a cordon of their own for those who crash and move", tenants: func(dir string) error {
		folder = dir
		return errors.Join(workers(echoes, names...)(dir), workers(string(attacker), "loud-crasher")(dir),
			workers(echoes, "loud-moved", "loud-stays")(dir), workers(deployed(0), "deployed-0", "deployed-1")(dir))
	}})
	if err != nil {
		return nil, err
	}
	defer t.stop()
	if err := t.built(b.ctx); err != nil {
		return nil, err
	}
	r := &sockets{Host: t.info, Tenants: socketTenants, Ends: map[string]int{}}
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	// Each tenant has one connection before memory is looked at: what a tenant itself takes is another figure.
	conns, err := r.dial(ctx, t, names, 0, 1)
	if err != nil {
		return nil, err
	}
	rest(b.ctx, cyclesRest)
	gateway, shards := socketMemory(t)
	more, err := r.dial(ctx, t, names, 1, socketsEach)
	if err != nil {
		return nil, err
	}
	conns = append(conns, more...)
	r.Sockets = len(conns)
	rest(b.ctx, cyclesRest)
	g, s := socketMemory(t)
	r.GatewayEach, r.ShardsEach = (float64(g)-float64(gateway))/float64(len(more)), (float64(s)-float64(shards))/float64(len(more))

	b.say("sockets: %d open, echoing for %v", r.Sockets, b.duration)
	begin := time.Now()
	until, stop := context.WithTimeout(ctx, b.duration)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { r.disturb(until, t, folder) })
	var mu sync.Mutex
	var all histogram
	for i, c := range conns {
		wg.Go(func() {
			var h histogram
			if err := r.echo(until, c, time.Duration(i)*socketPause/time.Duration(len(conns)), &h); err != nil {
				mu.Lock()
				r.Lost++
				r.Ends[err.Error()]++
				mu.Unlock()
			}
			mu.Lock()
			all.merge(&h)
			mu.Unlock()
		})
	}
	wg.Wait()
	r.ForMs, r.Latency = ms(time.Since(begin)), all.latency()
	if r.Incidents, err = t.incidents("loud-crasher"); err != nil {
		return nil, err
	}
	ends, err := t.metrics("bulkhead_websockets_ended_total")
	if err != nil {
		return nil, err
	}
	r.HostEnds = map[string]int{}
	for labels, n := range ends {
		r.HostEnds[labels] = int(n)
	}
	var closers sync.WaitGroup
	for _, c := range conns {
		closers.Go(func() { c.CloseNow() })
	}
	closers.Wait()
	return r, b.ctx.Err()
}

// incidents counts what became of shards, with the details unless it was of the tenant expected.
func (t *target) incidents(expected string) (map[string]int, error) {
	var list []struct {
		Kind    string   `json:"kind"`
		Tenants []string `json:"tenants"`
		Detail  string   `json:"detail"`
	}
	if err := t.admin.admin("GET", "/v1/incidents", &list); err != nil {
		return nil, err
	}
	out := map[string]int{}
	for _, i := range list {
		what := i.Kind + " of " + strings.Join(i.Tenants, ", ")
		if !slices.Equal(i.Tenants, []string{expected}) {
			what += ": " + i.Detail[:min(len(i.Detail), 300)]
		}
		out[what]++
	}
	return out, nil
}

func deployed(n int) string {
	return fmt.Sprintf("export default { fetch: () => new Response(\"version %d\") };\n", n)
}

// socketMemory is the PSS of the gateway, and of the shards.
func socketMemory(t *target) (gateway, shards uint64) {
	for _, pid := range descendants(t.cmd.Process.Pid) {
		switch name(pid) {
		case "gateway":
			gateway += pssOf(pid)
		case "worker":
			shards += pssOf(pid)
		}
	}
	return gateway, shards
}

// dial opens the connections from..to of each tenant, a few at a time.
func (r *sockets) dial(ctx context.Context, t *target, names []string, from, to int) ([]*websocket.Conn, error) {
	type open struct {
		c   *websocket.Conn
		err error
	}
	jobs, done := make(chan string), make(chan open)
	for range 16 {
		go func() {
			for name := range jobs {
				one, cancel := context.WithTimeout(ctx, 30*time.Second)
				c, _, err := websocket.Dial(one, "ws://"+t.addr+"/", &websocket.DialOptions{Host: name + ".localhost"})
				cancel()
				done <- open{c, err}
			}
		}()
	}
	go func() {
		defer close(jobs)
		for range to - from {
			for _, name := range names {
				jobs <- name
			}
		}
	}()
	var conns []*websocket.Conn
	var errs error
	for range (to - from) * len(names) {
		o := <-done
		if o.err != nil {
			errs = o.err
			continue
		}
		conns = append(conns, o.c)
	}
	if errs != nil {
		return nil, fmt.Errorf("%d of %d sockets do not open: %w", (to-from)*len(names)-len(conns), (to-from)*len(names), errs)
	}
	return conns, nil
}

// echo sends and waits for the same back until ctx is done. An error is the connection's end.
func (r *sockets) echo(ctx context.Context, c *websocket.Conn, offset time.Duration, h *histogram) error {
	rest(ctx, offset)
	for n := 0; ctx.Err() == nil; n++ {
		text := fmt.Sprintf("message %d", n)
		// Not ctx: whose end would close the connection in the middle of an echo.
		one, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		start := time.Now()
		err := c.Write(one, websocket.MessageText, []byte(text))
		var got []byte
		if err == nil {
			_, got, err = c.Read(one)
		}
		cancel()
		if err != nil {
			return err
		}
		h.add(time.Since(start))
		atomic.AddInt64(&r.Echoes, 1)
		if string(got) != text {
			atomic.AddInt64(&r.Wrong, 1)
		}
		rest(ctx, socketPause)
	}
	return nil
}

// disturb crashes, deploys and moves others, once a second in turn.
func (r *sockets) disturb(ctx context.Context, t *target, folder string) {
	fail := func(format string, args ...any) {
		if len(r.Failures) < 10 {
			r.Failures = append(r.Failures, fmt.Sprintf(format, args...))
		}
	}
	for n := 1; ctx.Err() == nil; n++ {
		switch n % 3 {
		case 0:
			a := t.public.do(request{method: "GET", host: "loud-crasher.localhost", path: "/fill"})
			if a.good() {
				fail("the crasher was answered")
			}
			r.Crashes++
		case 1:
			name, source := fmt.Sprintf("deployed-%d", n%2), deployed(n)
			if err := os.WriteFile(filepath.Join(folder, name, "worker.js"), []byte(source), 0o644); err != nil {
				fail("%v", err)
				continue
			}
			want := fmt.Sprintf("version %d", n)
			for deadline := time.Now().Add(20 * time.Second); ; rest(ctx, 50*time.Millisecond) {
				if a, ok := t.public.get(name+".localhost", "/"); ok && string(a.body) == want {
					r.Deployments++
					break
				}
				if ctx.Err() != nil {
					break
				}
				if time.Now().After(deadline) {
					fail("%s is not served", want)
					break
				}
			}
		case 2:
			for _, name := range []string{"loud-moved", "loud-stays"} {
				t.public.get(name+".localhost", "/") // loads it, whatever it makes of a request without an upgrade
			}
			for _, order := range []string{"isolate", "release"} {
				if err := t.admin.admin("POST", "/v1/"+order+"/loud-moved?reason=bench", nil); err != nil {
					fail("%v", err)
				}
			}
			r.Moves++
		}
		rest(ctx, time.Second)
	}
}

func (r *sockets) broken() (out []string) {
	if r.Lost > 0 || r.Wrong > 0 {
		out = append(out, fmt.Sprintf("%d of %d sockets were lost (%s; the host counted %s), %d echoes were wrong", r.Lost, r.Sockets, counts(r.Ends), counts(r.HostEnds), r.Wrong))
	}
	if len(r.Failures) > 0 {
		out = append(out, "the disturbances failed: "+strings.Join(r.Failures, "; "))
	}
	if r.Crashes == 0 || r.Deployments == 0 || r.Moves == 0 {
		out = append(out, fmt.Sprintf("%d crashes, %d deployments, %d moves: some never came", r.Crashes, r.Deployments, r.Moves))
	}
	return out
}

func (r *sockets) print(w io.Writer) {
	fmt.Fprintf(w, "%s\n%d WebSockets over %d tenants, %d echoes in %.0f s: p50 %.1f ms, p99 %.1f ms; %d lost, %d wrong\n",
		r.Host, r.Sockets, r.Tenants, r.Echoes, r.ForMs/1e3, r.Latency.P50Micros/1e3, r.Latency.P99Micros/1e3, r.Lost, r.Wrong)
	fmt.Fprintf(w, "an idle connection: %.1f KB in the gateway, %.1f KB in the shards\n", r.GatewayEach/1024, r.ShardsEach/1024)
	fmt.Fprintf(w, "meanwhile of others: %d crashes, %d deployments, %d moves; incidents: %s; ended, as the host counted: %s\n", r.Crashes, r.Deployments, r.Moves, counts(r.Incidents), counts(r.HostEnds))
}
