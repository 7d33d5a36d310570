package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// reshuffled is what a reshuffle of everybody costs those who are served meanwhile.
type reshuffled struct {
	Host    hostInfo `json:"host"`
	Tenants int      `json:"tenants"`
	Rate    float64  `json:"requestsPerSecond"`
	Shards  int      `json:"shards"` // that were left
	Moved   int      `json:"moved"`  // tenants
	TookMs  float64  `json:"tookMs"` // until the last of them was gone
	Stuck   int      `json:"stuck"`  // that never went
	Before  *tally   `json:"before"`
	During  *tally   `json:"during"`
	After   *tally   `json:"after"`
	Ratio   float64  `json:"p99Ratio"` // during, to before and after together

	Sockets  int            `json:"sockets"`
	Closed   map[string]int `json:"closed"` // how they ended
	Early    int            `json:"closedBeforeGrace"`
	Suspects int            `json:"suspectsSockets"`
	Broken   map[string]int `json:"suspectsBroken"`
}

const (
	reshuffleRate    = 200.0 // requests a second, over all tenants
	reshuffleGrace   = 5 * time.Second
	reshuffleWithin  = 10 * time.Minute
	reshuffleSockets = 20
	// reshuffleBar is how much longer requests may take meanwhile, at the 99th per cent.
	reshuffleBar = 2.0
)

func (b *bench) reshuffleOf() (*reshuffled, error) {
	victim, err := os.ReadFile(filepath.Join(b.root, "bench/workloads/victim/worker.js"))
	if err != nil {
		return nil, err
	}
	var names, talkers []string
	for i := range b.reshuffled {
		names = append(names, fmt.Sprintf("tenant-%d", i))
	}
	for i := range reshuffleSockets {
		talkers = append(talkers, fmt.Sprintf("talker-%d", i))
	}
	t, err := b.startHost(hostOptions{scratch: b.scratch,
		policy: fmt.Sprintf("reshuffle: {grace: %v}\nsuspicion: {isolate: 5000, watch: 4000, stop: 10000}\n", reshuffleGrace),
		beside: fmt.Sprintf("a grace of %v, nobody isolated but by hand", reshuffleGrace), tenants: func(dir string) error {
			if err := workers(string(victim), names...)(dir); err != nil {
				return err
			}
			return workers(echoes, append(talkers, "suspect")...)(dir)
		}})
	if err != nil {
		return nil, err
	}
	defer t.stop()
	if err := t.built(b.ctx); err != nil {
		return nil, err
	}
	r := &reshuffled{Host: t.info, Tenants: len(names), Rate: reshuffleRate, Sockets: len(talkers), Suspects: suspectSockets, Closed: map[string]int{}, Broken: map[string]int{}}
	b.say("reshuffle: starting %d tenants", len(names))
	if err := t.ask(b.ctx, names); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	var began time.Time // of the reshuffle; set before any socket may end
	var mu sync.Mutex
	var wg sync.WaitGroup
	socket := func(name string, ended func(err error)) error {
		c, _, err := websocket.Dial(ctx, "ws://"+t.addr+"/", &websocket.DialOptions{Host: name + ".localhost"})
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		wg.Go(func() {
			defer c.CloseNow()
			for ctx.Err() == nil {
				one, done := context.WithTimeout(context.WithoutCancel(ctx), 60*time.Second)
				err := c.Write(one, websocket.MessageText, []byte("tick"))
				if err == nil {
					_, _, err = c.Read(one)
				}
				done()
				if err != nil {
					mu.Lock()
					defer mu.Unlock()
					ended(err)
					return
				}
				rest(ctx, 200*time.Millisecond)
			}
		})
		return nil
	}
	for _, name := range talkers {
		if err := socket(name, func(err error) {
			how := fmt.Sprint(websocket.CloseStatus(err))
			r.Closed[how]++
			if time.Since(began) < reshuffleGrace {
				r.Early++
			}
		}); err != nil {
			return nil, err
		}
	}
	for range suspectSockets {
		if err := socket("suspect", func(err error) { r.Broken[err.Error()]++ }); err != nil {
			return nil, err
		}
	}
	if err := t.admin.admin("POST", "/v1/isolate/suspect?reason=bench", nil); err != nil {
		return nil, err
	}
	g := &generator{client: t.public, tenants: names, rate: reshuffleRate / float64(len(names))}
	calm := max(b.duration/2, 5*time.Second)
	b.say("reshuffle: the calm before, %v", calm)
	g.run(b.ctx, 2*time.Second)
	r.Before = g.run(b.ctx, calm)
	old, err := t.shards()
	if err != nil {
		return nil, err
	}
	loaded, stop := context.WithCancel(b.ctx)
	done := make(chan struct{})
	go func() { defer close(done); r.During = g.run(loaded, time.Hour) }()
	mu.Lock()
	began = time.Now()
	mu.Unlock()
	var answer struct{ Shards, Tenants int }
	err = t.admin.admin("POST", "/v1/reshuffle", &answer)
	r.Shards, r.Moved = answer.Shards, answer.Tenants
	for err == nil {
		var now []shard
		if now, err = t.shards(); err != nil {
			break
		}
		r.Stuck = 0
		for _, s := range old {
			if s.Spare || slices.Contains(s.Tenants, "suspect") {
				continue
			}
			if slices.ContainsFunc(now, func(n shard) bool { return n.ID == s.ID }) {
				r.Stuck++
			}
		}
		r.TookMs = ms(time.Since(began))
		if r.Stuck == 0 || time.Since(began) > reshuffleWithin || b.ctx.Err() != nil {
			break
		}
		b.say("reshuffle: %d of %d processes are left", r.Stuck, r.Shards)
		rest(b.ctx, time.Second)
	}
	stop()
	<-done
	if err != nil {
		return nil, err
	}
	rest(b.ctx, 3*time.Second) // looks at sockets come once a second
	b.say("reshuffle: the calm after, %v", calm)
	r.After = g.run(b.ctx, calm)
	cancel()
	wg.Wait()
	calmly := &histogram{}
	calmly.merge(&r.Before.hist)
	calmly.merge(&r.After.hist)
	if calmly.n > 0 {
		r.Ratio = float64(r.During.hist.quantile(.99)) / float64(max(calmly.quantile(.99), time.Microsecond))
	}
	return r, b.ctx.Err()
}

// ask has each of many tenants answer once.
func (t *target) ask(ctx context.Context, names []string) error {
	next := make(chan string)
	errs := make(chan error, len(names))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for name := range next {
				if a, ok := t.public.get(name+".localhost", "/hello"); !ok {
					errs <- fmt.Errorf("%s does not answer: %s %s", name, a.String(), a.message())
				}
			}
		})
	}
	for _, name := range names {
		if ctx.Err() == nil {
			next <- name
		}
	}
	close(next)
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return ctx.Err()
	}
}

func (r *reshuffled) broken() (out []string) {
	for when, l := range map[string]*tally{"before": r.Before, "during": r.During, "after": r.After} {
		if l.Failed+l.Interrupted > 0 {
			out = append(out, fmt.Sprintf("%d of %d requests failed %s, %d were cut: %s", l.Failed, l.Sent, when, l.Interrupted, counts(l.Ends)))
		}
	}
	if r.Ratio > reshuffleBar {
		out = append(out, fmt.Sprintf("p99 was %.1f times that of the calm", r.Ratio))
	}
	if r.Stuck > 0 || r.Moved < r.Tenants {
		out = append(out, fmt.Sprintf("of %d tenants %d were told to leave, and %d processes did not end", r.Tenants, r.Moved, r.Stuck))
	}
	if want := fmt.Sprint(websocket.StatusServiceRestart); r.Closed[want] != r.Sockets || r.Early > 0 {
		out = append(out, fmt.Sprintf("%d WebSockets were to close with 1012 after the grace: %s; %d closed before it", r.Sockets, counts(r.Closed), r.Early))
	}
	if len(r.Broken) > 0 {
		out = append(out, fmt.Sprintf("sockets of the suspect broke: %s", counts(r.Broken)))
	}
	return out
}

func (r *reshuffled) print(w io.Writer) {
	fmt.Fprintf(w, "%s\n%d tenants at %.0f requests a second in all: %d left %d processes in %.1f s\n", r.Host, r.Tenants, r.Rate, r.Moved, r.Shards, r.TookMs/1e3)
	for _, l := range []struct {
		when string
		*tally
	}{{"before", r.Before}, {"during", r.During}, {"after", r.After}} {
		fmt.Fprintf(w, "%s: %d requests, %d failed, %d cut, p50 %.1f ms, p99 %.1f ms, most %.1f ms\n", l.when, l.Sent, l.Failed, l.Interrupted, l.Latency.P50Micros/1e3, l.Latency.P99Micros/1e3, l.Latency.MaxMicros/1e3)
	}
	fmt.Fprintf(w, "p99 during, to the calm: %.2f (bar: %.0f)\n", r.Ratio, reshuffleBar)
	fmt.Fprintf(w, "%d WebSockets: closed with %s; %d before the grace of %v; %d of a suspect: %d broke\n", r.Sockets, counts(r.Closed), r.Early, reshuffleGrace, r.Suspects, len(r.Broken))
	for _, f := range r.During.Failures {
		fmt.Fprintln(w, f)
	}
}
