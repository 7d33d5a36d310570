package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// honest is one workload of the corpus: a worker, bench/workloads/honest/NAME.js, and whoever uses it.
type honest struct {
	name, what string
	drive      func(r *honestRun) // until r.ctx is done
	with       []string           // other workers that it needs
	manifests  map[string]string  // what bulkhead.yaml says of each
}

// honestWorkloads are the corpus. Clients think between requests, as people do, unless it says otherwise.
func honestWorkloads() []honest {
	crons := map[string]string{"cron": "triggers: {crons: [\"* * * * *\"]}\n"}
	calls := map[string]string{"rpc": "services: [{binding: BACK, service: rpc-back}]\n", "rpc-back": "callers: [rpc]\n"}
	return []honest{
		{name: "chat", what: "a room of 4, what one says all get", drive: talk(4, 0.5, others, line)},
		{name: "echo-socket", what: "WebSocket echo, 5 messages a second", drive: talk(1, 5, own, line)},
		{name: "presence", what: "heartbeats of 10 WebSockets", drive: talk(10, 1, own, func(r *rand.Rand, c int) string { return fmt.Sprintf(`{"name":"user %d"}`, c) })},
		{name: "game", what: "10 ticks a second for 4 players", drive: talk(4, 4, others, func(r *rand.Rand, _ int) string {
			return fmt.Sprintf(`{"dx":%d,"dy":%d}`, r.IntN(9)-4, r.IntN(9)-4)
		})},
		{name: "draw", what: "3 people draw, 10 strokes a second each", drive: talk(3, 10, others, func(r *rand.Rand, _ int) string { return fmt.Sprintf("%d,%d", r.IntN(800), r.IntN(600)) })},
		{name: "signaling", what: "2 peers of a call exchange offers", drive: talk(2, 2, others, line)},
		{name: "sse", what: "server-sent events to 3, twice a second", drive: clients(3, get(0, "/"))},
		{name: "ticker", what: "server-sent events made of an upstream's answers", drive: clients(2, get(0, "/?up=UP"))},
		{name: "longpoll", what: "3 wait for news, one tells some", drive: both(clients(3, get(0, "/")), post(0.5, "/", 16))},
		{name: "ssr", what: "pages of components", drive: clients(4, get(1, "/?n=40", "/?n=80", "/?n=160"))},
		{name: "bigpage", what: "a table of 3,000 rows", drive: clients(2, get(1, "/"))},
		{name: "proxy", what: "passes requests on", drive: clients(5, get(2, "/?up=UP"))},
		{name: "rewrite", what: "HTMLRewriter over an upstream's page", drive: clients(3, get(1, "/?up=UP"))},
		{name: "json", what: "an API over a map", drive: both(clients(4, get(2, "/1", "/2", "/3")), clients(2, sends(2, "/1", func(*rand.Rand) []byte { return []byte(`{"name":"x","price":4}`) })))},
		{name: "fanout", what: "10 subrequests at once for each request", drive: clients(2, get(1, "/?up=UP"))},
		{name: "rpc", what: "3 calls to another worker for each request", drive: clients(3, get(1, "/")), with: []string{"rpc-back"}, manifests: calls},
		{name: "hash", what: "SHA-256 of 64 KiB", drive: clients(3, post(1, "/", 64<<10))},
		{name: "password", what: "PBKDF2 of 10,000 rounds", drive: clients(2, get(0.5, "/?password=secret"))},
		{name: "token", what: "tokens are signed and verified", drive: tokens(3, 3)},
		{name: "image", what: "Wasm over 256 KiB of pixels", drive: clients(2, post(1, "/", 256<<10))},
		{name: "cron", what: "a job each minute, and a page about it", drive: clients(1, get(0.3, "/")), manifests: crons},
		{name: "download", what: "256 MiB piped from an upstream, as fast as it goes", drive: clients(1, get(0.05, "/?up=UP&n=268435456"))},
		{name: "file", what: "8 MiB made while they are sent", drive: clients(1, get(0.2, "/"))},
		{name: "upload", what: "8 MiB taken piece by piece", drive: clients(1, post(0.2, "/", 8<<20))},
		{name: "gzip", what: "200 KB compressed", drive: clients(2, get(0.5, "/"))},
		{name: "csv", what: "CSV into JSON lines, streaming", drive: clients(2, sends(0.5, "/", func(r *rand.Rand) []byte {
			return bytes.Repeat(fmt.Appendf(nil, "%d,name,some more,17.5\n", r.IntN(1000)), 10_000)
		}))},
		{name: "translate", what: "words of an upstream's text replaced, streaming", drive: clients(2, get(0.5, "/?up=UP"))},
		{name: "search", what: "search over 3,000 documents", drive: clients(4, get(1, "/?q=alpha", "/?q=zeta", "/?q=kappa"))},
		{name: "markdown", what: "Markdown rendered", drive: clients(2, sends(1, "/", func(r *rand.Rand) []byte {
			return []byte("# Title\n\n" + strings.Repeat("Some **bold** text and `code`, and more of it.\n\n", 20+r.IntN(100)))
		}))},
		{name: "session", what: "sessions by cookie", drive: clients(4, get(2, "/"))},
		{name: "batch", what: "a script asks 40 things, each after the last", drive: batches(40)},
		{name: "webhook", what: "a signature, and a subrequest after the answer", drive: clients(2, sends(1, "/?up=UP", func(*rand.Rand) []byte { return []byte(`{"event":"paid","amount":5}`) }))},
		{name: "dashboard", what: "10 pages ask every two seconds", drive: clients(10, get(0.5, "/"))},
		{name: "graph", what: "nested asynchronous resolvers", drive: clients(3, get(1, "/"))},
		{name: "feed", what: "5 subrequests, one after the other", drive: clients(2, get(1, "/?up=UP"))},
	}
}

// seeded gives each of n clients a randomness of its own.
func (r *honestRun) seeded(n int) []*rand.Rand {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*rand.Rand, n)
	for i := range out {
		out[i] = rand.New(rand.NewPCG(r.rng.Uint64(), uint64(i)))
	}
	return out
}

func (r *honestRun) note(sent int, lost string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Sent += sent
	if lost != "" {
		r.Lost++
		if r.Ends[lost] == 0 && len(r.Ends) >= maxEnds {
			lost = "more"
		}
		r.Ends[lost]++
	}
}

// maxEnds bounds the words of a run about what it lost: each has the path, and what was answered.
const maxEnds = 50

// think waits as long as users do who ask so often a second on average: anything up to twice that.
func (r *honestRun) think(rng *rand.Rand, rate float64) {
	if rate > 0 {
		rest(r.ctx, time.Duration(rng.Float64()*2/rate*float64(time.Second)))
	}
}

// ask sends one request and judges the answer. What is under way at the end of the run is waited for.
func (r *honestRun) ask(method, path string, body []byte) reply {
	path = strings.ReplaceAll(path, "UP", r.up)
	a := r.t.public.do(request{method: method, host: r.Name + ".localhost", path: path, body: body, discard: r.Name == "download"})
	lost := ""
	if a.err != nil || a.status != http.StatusOK || a.outcome != "" {
		lost = fmt.Sprintf("%s to %.200s: %.200q, request %s", a.String(), path, a.body, a.id)
	}
	r.note(1, lost)
	return a
}

// one does what one client does between two thoughts.
type one func(r *honestRun, rng *rand.Rand)

// get asks for one of the paths.
func get(rate float64, paths ...string) one {
	return func(r *honestRun, rng *rand.Rand) {
		r.ask(http.MethodGet, paths[rng.IntN(len(paths))], nil)
		r.think(rng, rate)
	}
}

// post sends so many random bytes.
func post(rate float64, path string, size int) one {
	return sends(rate, path, func(rng *rand.Rand) []byte {
		p := make([]byte, size)
		for i := 0; i < len(p); i += 64 {
			p[i] = byte(rng.Uint32())
		}
		return p
	})
}

func sends(rate float64, path string, body func(rng *rand.Rand) []byte) one {
	return func(r *honestRun, rng *rand.Rand) {
		r.ask(http.MethodPost, path, body(rng))
		r.think(rng, rate)
	}
}

// clients has n of them.
func clients(n int, do one) func(r *honestRun) {
	return func(r *honestRun) {
		var wg sync.WaitGroup
		for _, rng := range r.seeded(n) {
			wg.Go(func() {
				rest(r.ctx, time.Duration(rng.Float64()*float64(2*time.Second)))
				for r.ctx.Err() == nil {
					do(r, rng)
				}
			})
		}
		wg.Wait()
	}
}

func both(a, b any) func(r *honestRun) {
	as := func(x any) func(*honestRun) {
		if do, ok := x.(one); ok {
			return clients(1, do)
		}
		return x.(func(*honestRun))
	}
	return func(r *honestRun) {
		var wg sync.WaitGroup
		wg.Go(func() { as(a)(r) })
		as(b)(r)
		wg.Wait()
	}
}

// tokens gets a token and has it verified ten times.
func tokens(n int, rate float64) func(r *honestRun) {
	return clients(n, func(r *honestRun, rng *rand.Rand) {
		a := r.ask(http.MethodGet, "/", nil)
		if strings.Count(string(a.body), ".") != 2 {
			r.note(0, fmt.Sprintf("no token: %s %.200q, request %s", a.String(), a.body, a.id))
			return
		}
		for i := 0; i < 10 && r.ctx.Err() == nil; i++ {
			r.think(rng, rate)
			r.ask(http.MethodGet, "/?token="+string(a.body), nil)
		}
	})
}

// batches has a script ask n things in a row without a pause, and then rest for some seconds.
func batches(n int) func(r *honestRun) {
	return clients(1, func(r *honestRun, rng *rand.Rand) {
		for range n {
			r.ask(http.MethodGet, fmt.Sprintf("/?n=%d", 1_000_000+rng.IntN(1_000_000)), nil)
		}
		r.think(rng, 0.15)
	})
}

func line(r *rand.Rand, c int) string {
	return fmt.Sprintf(`{"name":"user %d","text":"%s"}`, c, strings.Repeat("so I said ", 1+r.IntN(12)))
}

// hearing is what a client of a WebSocket reads: own, one answer to each of its messages, for which it waits;
// others, whatever comes at any time.
type hearing bool

const (
	own    hearing = false
	others hearing = true
)

// talk has n clients with a WebSocket each, who say so much a second.
func talk(n int, rate float64, h hearing, say func(r *rand.Rand, client int) string) func(r *honestRun) {
	return func(r *honestRun) {
		var wg sync.WaitGroup
		for i, rng := range r.seeded(n) {
			wg.Go(func() { r.converse(rng, i, rate, h, say) })
		}
		wg.Wait()
	}
}

func (r *honestRun) converse(rng *rand.Rand, client int, rate float64, h hearing, say func(*rand.Rand, int) string) {
	// Not the run's: its end would cut messages in two.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), time.Hour)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "ws://"+r.t.addr+"/", &websocket.DialOptions{Host: r.Name + ".localhost"})
	if err != nil {
		r.note(1, "does not open: "+err.Error())
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(1 << 20)
	if h == others { // what others say comes at any time
		go func() {
			for {
				if _, _, err := c.Read(ctx); err != nil {
					if r.ctx.Err() == nil {
						r.note(0, "socket: "+err.Error())
					}
					return
				}
			}
		}()
	}
	for r.think(rng, rate); r.ctx.Err() == nil; r.think(rng, rate) {
		err := c.Write(ctx, websocket.MessageText, []byte(say(rng, client)))
		if err == nil && h == own {
			one, cancel := context.WithTimeout(ctx, 20*time.Second)
			_, _, err = c.Read(one)
			cancel()
		}
		if err != nil {
			r.note(1, "message: "+err.Error())
			return
		}
		r.note(1, "")
	}
}
