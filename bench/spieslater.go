package main

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// laterSpyRows were written after the thresholds were frozen (see docs/POLICY.md).
func laterSpyRows() []spy {
	rows := []spy{
		{name: "timer", what: "a WebSocket; what measures is a timer's callback", drive: func(ctx context.Context, s *spying) {
			s.converse(ctx, "spy", "/timer", 0, "tick", nil)
		}},
		{name: "wasm", what: "a WebSocket; what measures is WebAssembly", tenants: []string{"wasm-spy"}, neighbours: "wasm-", drive: func(ctx context.Context, s *spying) {
			s.converse(ctx, "wasm-spy", "/wasm", 0, "tick", nil)
		}},
		{name: "victim", what: "a WebSocket; calls start its victim and keep it busy", manifests: map[string]string{
			"spy": "services: [{binding: VICTIM, service: honest-0}]\n", "neighbours": "callers: [spy]\n",
		}, drive: func(ctx context.Context, s *spying) { s.converse(ctx, "spy", "/victim", 0, "tick", nil) }},
		{name: "concert", what: "three tenants share the measuring, a WebSocket each", tenants: []string{"spy-a", "spy-b", "spy-c"}, drive: concert},
		{name: "relay", what: "one tenant has the WebSocket and calls another, which measures", tenants: []string{"spy", "spy-back"}, watched: []string{"spy-back"}, manifests: map[string]string{
			"spy": "services: [{binding: BACK, service: spy-back}]\n", "spy-back": "callers: [spy]\n",
		}, drive: func(ctx context.Context, s *spying) { s.converse(ctx, "spy", "/relay", 0, "tick", nil) }},
		{name: "padded", what: "a WebSocket; 60 KiB go along each way, to be taken for a transfer", drive: func(ctx context.Context, s *spying) {
			s.converse(ctx, "spy", "/padded", 0, strings.Repeat("tick", 15<<10), nil)
		}},
		{name: "jitter", what: "HTTP: short requests, 12 to 40 ms after the last answer", drive: func(ctx context.Context, s *spying) {
			rng := rand.New(rand.NewPCG(5, 6))
			s.ask(ctx, "spy", "/short", 1, func() time.Duration { return time.Duration(12+rng.IntN(28)) * time.Millisecond })
		}},
		{name: "tiny", what: "a WebSocket; measurements of 0.1 to 0.2 ms", drive: func(ctx context.Context, s *spying) {
			s.converse(ctx, "spy", "/socket?n=5", 0, "tick", nil)
		}},
	}
	for i := range rows {
		rows[i].later = true
	}
	return rows
}

// concert has them measure side by side, so that each needs to do less.
func concert(ctx context.Context, s *spying) {
	var wg sync.WaitGroup
	for _, id := range s.Spies {
		wg.Go(func() { s.converse(ctx, id, "/socket", 5*time.Millisecond, "tick", nil) })
	}
	wg.Wait()
}
