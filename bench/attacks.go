package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

// attackRow is one way to harm a host, as the attacker or as somebody with a shell on it.
type attackRow struct {
	name string
	what string
	run  func(ctx context.Context, a *arena)
	// dies says that each blow is meant to end a process: there must be incidents.
	dies bool
	// outside says that nobody's code is to blame: incidents must name no tenant.
	outside bool
	// anyName says that a signal from outside looks like a fault of V8: who executes is a suspect.
	anyName bool
	wasm    bool // needs WebAssembly
	egress  bool // needs outbound fetch
}

// attackRows are the attacks of the bars, in their order.
func attackRows() []attackRow {
	return []attackRow{
		{name: "aborts", what: "process aborts in turn: fill, spread, split", run: aborts, dies: true},
		{name: "loop", what: "endless loop", run: keepAsking(4, "/loop")},
		{name: "unterminable", what: "loop that ignores termination", run: keepAsking(4, "/unterminable")},
		{name: "catch", what: "endless loop that catches everything", run: keepAsking(4, "/catch")},
		{name: "heap", what: "JS heap bomb", run: keepAsking(4, "/heap")},
		{name: "buffer", what: "ArrayBuffer bomb", run: keepAsking(4, "/buffer")},
		{name: "resizable", what: "resizable ArrayBuffer bomb", run: keepAsking(4, "/resizable")},
		{name: "wasm", what: "Wasm memory bomb", run: keepAsking(4, "/wasm"), wasm: true},
		{name: "promises", what: "promise bomb", run: keepAsking(4, "/promise-bomb", "/promises")},
		{name: "log", what: "log bomb", run: keepAsking(4, "/log")},
		{name: "timers", what: "timer bomb", run: keepAsking(4, "/timers")},
		{name: "subrequests", what: "subrequest flood, 2,000 at once", run: floodUpstream, egress: true},
		{name: "endless", what: "responses that never end", run: keepAsking(50, "/endless")},
		{name: "slowclient", what: "clients that read one byte a second", run: slowClients},
		{name: "json", what: "JSON.parse of 40 MB", run: keepAsking(1, "/json")},
		{name: "sort", what: "sort of 3 M numbers", run: keepAsking(1, "/sort")},
		{name: "replaceall", what: "replaceAll over 16 MB", run: keepAsking(1, "/replaceAll")},
		{name: "kill9", what: "kill -9 of a random shard every second", run: killShards(syscall.SIGKILL), dies: true, outside: true},
		{name: "stop", what: "kill -STOP of a random shard every second", run: killShards(syscall.SIGSTOP), dies: true, outside: true},
		{name: "segv", what: "kill -SEGV of a random shard every second, as if V8 had crashed", run: killShards(syscall.SIGSEGV), dies: true, outside: true, anyName: true},
		{name: "abrt", what: "kill -ABRT of a random shard every second, as if V8 had aborted", run: killShards(syscall.SIGABRT), dies: true, outside: true, anyName: true},
	}
}

// blowEvery bounds how often the attacker may crash a process.
const blowEvery = 100 * time.Millisecond

// closeTime is how long an incident may take to be on record after the attacker's answer.
const closeTime = 500 * time.Millisecond

// aborts strikes with one abort after the other, the next as soon as the last incident is closed
// and at most ten a second.
func aborts(ctx context.Context, a *arena) {
	for i := 0; ctx.Err() == nil; i++ {
		start, before := time.Now(), a.watch.count()
		r := a.strike(ctx, []string{"/fill", "/spread", "/split"}[i%3])
		if !a.watch.after(ctx, before, closeTime) && ctx.Err() == nil {
			a.note("no incident after: " + r.String())
		}
		rest(ctx, blowEvery-time.Since(start))
	}
}

// keepAsking has n clients ask the attacker for these paths in turn, each as soon as it has its
// last answer and at most ten times a second.
func keepAsking(n int, paths ...string) func(ctx context.Context, a *arena) {
	return func(ctx context.Context, a *arena) {
		var wg sync.WaitGroup
		for c := range n {
			wg.Go(func() {
				for i := c; ctx.Err() == nil; i++ {
					start := time.Now()
					a.strike(ctx, paths[i%len(paths)])
					rest(ctx, blowEvery-time.Since(start))
				}
			})
		}
		wg.Wait()
	}
}

func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// floodUpstream has the attacker send 2,000 subrequests in each of its invocations to an upstream
// that takes them.
func floodUpstream(ctx context.Context, a *arena) {
	up, err := startUpstream()
	if err != nil {
		a.note(err.Error())
		return
	}
	defer up.server.Close()
	keepAsking(4, "/subrequests?up="+up.url+"/")(ctx, a)
	a.noteN("subrequests seen by the upstream", up.total())
}

// slowClients asks for 64 MB over each of 50 connections and reads a byte a second.
func slowClients(ctx context.Context, a *arena) {
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			conn, err := net.Dial("tcp", a.t.addr)
			if err != nil {
				a.note(err.Error())
				return
			}
			defer conn.Close()
			// A small buffer of its own: the kernel's would hold what this client does not read.
			conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			fmt.Fprintf(conn, "GET /big HTTP/1.1\r\nHost: %s.localhost\r\n\r\n", attacker)
			var one [1]byte
			for ctx.Err() == nil {
				if _, err := io.ReadFull(conn, one[:]); err != nil {
					a.note("slow client cut off")
					return
				}
				rest(ctx, time.Second)
			}
			a.note("slow client still served at the end")
		})
	}
	wg.Wait()
}

// killShards sends a signal to a random shard every second, as an operator's shell or the kernel's
// OOM killer might. Every other time it is one that hosts tenants: spares are half of a small host.
func killShards(sig syscall.Signal) func(ctx context.Context, a *arena) {
	return func(ctx context.Context, a *arena) {
		rng := rand.New(rand.NewPCG(3, 4))
		for i := 0; ctx.Err() == nil; i++ {
			start := time.Now()
			list, err := a.t.shards()
			if i%2 == 0 {
				list = slices.DeleteFunc(list, func(s shard) bool { return len(s.Tenants) == 0 })
			}
			if err == nil && len(list) > 0 {
				s := list[rng.IntN(len(list))]
				// The listing may be a moment old: only what is a worker of this host still.
				if name(s.PID) == "worker" && syscall.Kill(s.PID, sig) == nil {
					what := "a shard with tenants"
					if len(s.Tenants) == 0 {
						what = "a spare"
					}
					a.note(sig.String() + " to " + what)
					a.struck()
				}
			}
			rest(ctx, time.Second-time.Since(start))
		}
	}
}
