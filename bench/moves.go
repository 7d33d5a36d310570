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

// moves is what isolations cost: how soon the neighbours of a suspect are gone, and what requests feel of it.
type moves struct {
	Host hostInfo `json:"host"`

	Idle     latency `json:"idleGone"` // from the verdict to the last of so many idle neighbours gone
	IdleMost int     `json:"idleNeighbours"`
	Busy     latency `json:"busyGone"` // of neighbours at work: a response that has begun is waited for

	Wanted   int    `json:"wanted"` // idle verdicts
	Verdicts int    `json:"verdicts"`
	Moves    int    `json:"moves"` // of neighbours under load
	Begun    int    `json:"begunAgain"`
	Load     *tally `json:"load"`
	Never    int    `json:"never"` // verdicts whose neighbours were never reported gone

	Sockets int      `json:"suspectsSockets"`
	Echoes  int64    `json:"suspectsEchoes"`
	Broken  []string `json:"suspectsBroken"` // sockets of the suspect that ended
}

const (
	// goneBar is how long after a verdict the last idle neighbour may still be there, at the 99th per cent.
	goneBar = 50 * time.Millisecond
	// goneWithin is when a verdict's neighbours are given up: bodies that have begun end sooner.
	goneWithin = 30 * time.Second
	// suspectSockets are open at the suspect all the time.
	suspectSockets = 4
)

// evacuation is the host's answer to an isolation.
type evacuation struct {
	Shards []uint32
	Left   int
	Busy   int
	Begun  int
}

// movesOf isolates a tenant among 63 others and releases it again, over and over: the others idle first, then
// under load.
func (b *bench) movesOf() (*moves, error) {
	victim, err := os.ReadFile(filepath.Join(b.root, "bench/workloads/victim/worker.js"))
	if err != nil {
		return nil, err
	}
	t, err := b.startHost(hostOptions{scratch: b.scratch, policy: "placement: {spread: 1}\nsuspicion: {isolate: 5000, watch: 4000, stop: 10000}\n",
		beside: "all in one process, nobody isolated but by hand", tenants: func(dir string) error {
			if err := workers(string(victim), victimNames()...)(dir); err != nil {
				return err
			}
			return writeWorker(dir, "suspect", echoes)
		}})
	if err != nil {
		return nil, err
	}
	defer t.stop()
	if err := t.built(b.ctx); err != nil {
		return nil, err
	}
	r := &moves{Host: t.info, Wanted: b.verdicts}
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	w := t.watch(ctx)
	var idle, busy histogram
	for n := range b.verdicts {
		if err := t.gather(b.ctx); err != nil {
			return nil, err
		}
		ev, took, err := r.verdict(b.ctx, t, w)
		if err != nil {
			return nil, err
		}
		if ev.Left >= victims/2 { // the first ones' places are a matter of chance
			idle.add(took)
			r.IdleMost = max(r.IdleMost, ev.Left+ev.Busy)
		}
		if n%20 == 0 {
			b.say("moves: %d of %d verdicts over idle neighbours, the last: %d gone after %.1f ms", n, b.verdicts, ev.Left+ev.Busy, ms(took))
		}
	}
	r.Idle = idle.latency()
	if err := t.gather(b.ctx); err != nil {
		return nil, err
	}
	g := &generator{client: t.public, tenants: victimNames(), rate: b.rate}
	loaded, stop := context.WithCancel(b.ctx)
	var wg sync.WaitGroup
	wg.Go(func() { r.Load = g.run(loaded, time.Hour) })
	err = func() error {
		defer wg.Wait()
		defer stop()
		for r.Moves < b.moves && b.ctx.Err() == nil {
			// Its sockets are opened where the others are, and held over the verdict.
			socks, err := r.talk(ctx, t)
			if err != nil {
				return err
			}
			ev, took, err := r.verdict(b.ctx, t, w)
			if err != nil {
				return err
			}
			if n := ev.Left + ev.Busy; n > 0 {
				busy.add(took)
				r.Moves, r.Begun = r.Moves+n, r.Begun+ev.Begun
			}
			for _, s := range socks {
				s.end(r)
			}
			if r.Verdicts%20 == 0 {
				b.say("moves: %d of %d, %d begun again; gone after %.1f ms", r.Moves, b.moves, r.Begun, ms(took))
			}
		}
		return nil
	}()
	r.Busy = busy.latency()
	if err != nil {
		return nil, err
	}
	return r, b.ctx.Err()
}

// gather has everybody in one process. The suspect's code answers nothing but WebSockets.
func (t *target) gather(ctx context.Context) error {
	if err := t.ask(ctx, victimNames()); err != nil {
		return err
	}
	t.public.get("suspect.localhost", "/")
	return ctx.Err()
}

// verdict isolates the suspect, waits until its neighbours are gone, and releases it.
func (r *moves) verdict(ctx context.Context, t *target, w *watcher) (ev evacuation, took time.Duration, err error) {
	r.Verdicts++
	seen := w.gone()
	if err := t.admin.admin("POST", "/v1/isolate/suspect?reason=bench", &ev); err != nil {
		return ev, 0, err
	}
	for end := time.Now().Add(goneWithin); len(ev.Shards) > 0; time.Sleep(watchEvery / 5) {
		if list := w.gone(); len(list) >= len(seen)+len(ev.Shards) {
			for _, i := range list[len(seen):] {
				took = max(took, time.Duration(i.TookMs*float64(time.Millisecond)))
			}
			break
		}
		if time.Now().After(end) || ctx.Err() != nil {
			r.Never++
			break
		}
	}
	return ev, took, t.admin.admin("POST", "/v1/release/suspect?reason=bench", nil)
}

// gone lists the reports that a suspect's neighbours are gone.
func (w *watcher) gone() []incident {
	return slices.DeleteFunc(w.incidents(), func(i incident) bool { return i.Kind != "gone" })
}

// suspectSocket is a WebSocket of the suspect over a verdict.
type suspectSocket struct {
	c    *websocket.Conn
	stop context.CancelFunc
	done chan struct{}
	n    int64
	err  error
}

func (r *moves) talk(ctx context.Context, t *target) (out []*suspectSocket, err error) {
	for range suspectSockets {
		c, _, err := websocket.Dial(ctx, "ws://"+t.addr+"/", &websocket.DialOptions{Host: "suspect.localhost"})
		if err != nil {
			return out, fmt.Errorf("the suspect's WebSocket: %w", err)
		}
		until, stop := context.WithCancel(ctx)
		s := &suspectSocket{c: c, stop: stop, done: make(chan struct{})}
		out = append(out, s)
		r.Sockets++
		go func() {
			defer close(s.done)
			for until.Err() == nil && s.err == nil {
				one, cancel := context.WithTimeout(ctx, 20*time.Second)
				if s.err = c.Write(one, websocket.MessageText, []byte("tick")); s.err == nil {
					_, _, s.err = c.Read(one)
				}
				cancel()
				s.n++
				rest(until, 5*time.Millisecond)
			}
		}()
	}
	rest(ctx, 20*time.Millisecond)
	return out, nil
}

// end closes it; what ended before is noted.
func (s *suspectSocket) end(r *moves) {
	s.stop()
	<-s.done
	s.c.CloseNow()
	r.Echoes += s.n
	if s.err != nil && len(r.Broken) < 10 {
		r.Broken = append(r.Broken, s.err.Error())
	}
}

func (r *moves) broken() (out []string) {
	if r.Idle.P99Micros > float64(goneBar.Microseconds()) {
		out = append(out, fmt.Sprintf("the last of up to %d idle neighbours was gone after %.0f ms at the 99th per cent, not %v", r.IdleMost, r.Idle.P99Micros/1e3, goneBar))
	}
	if r.Idle.Requests < r.Wanted/2 || r.IdleMost < victims {
		out = append(out, fmt.Sprintf("%d verdicts found the suspect among others, %d at most", r.Idle.Requests, r.IdleMost))
	}
	if r.Load.Failed+r.Load.Interrupted > 0 {
		out = append(out, fmt.Sprintf("%d of %d requests failed, %d were cut: %s", r.Load.Failed, r.Load.Sent, r.Load.Interrupted, counts(r.Load.Ends)))
	}
	if r.Never > 0 {
		out = append(out, fmt.Sprintf("%d verdicts whose neighbours were not gone in %v", r.Never, goneWithin))
	}
	if len(r.Broken) > 0 {
		out = append(out, fmt.Sprintf("sockets of the suspect broke: %v", r.Broken))
	}
	return out
}

func (r *moves) print(w io.Writer) {
	fmt.Fprintf(w, "%s\nfrom the verdict to the last of %d idle neighbours gone: p50 %.1f ms, p99 %.1f ms, most %.1f ms (%d verdicts; bar: p99 %v)\n",
		r.Host, r.IdleMost, r.Idle.P50Micros/1e3, r.Idle.P99Micros/1e3, r.Idle.MaxMicros/1e3, r.Idle.Requests, goneBar)
	fmt.Fprintf(w, "of neighbours under load: p50 %.1f ms, p99 %.1f ms (%d verdicts; bodies that had begun are waited for)\n",
		r.Busy.P50Micros/1e3, r.Busy.P99Micros/1e3, r.Busy.Requests)
	fmt.Fprintf(w, "%d neighbours moved under load, %d of their requests begun again; %d requests, %d failed, %d cut; p50 %.1f ms, p99 %.1f ms\n",
		r.Moves, r.Begun, r.Load.Sent, r.Load.Failed, r.Load.Interrupted, r.Load.Latency.P50Micros/1e3, r.Load.Latency.P99Micros/1e3)
	fmt.Fprintf(w, "the suspect's own %d WebSockets: %d echoes, %d broke\n", r.Sockets, r.Echoes, len(r.Broken))
	for _, f := range r.Load.Failures {
		fmt.Fprintln(w, f)
	}
}
