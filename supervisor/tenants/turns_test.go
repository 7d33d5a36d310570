package tenants

import (
	"context"
	"fmt"
	"testing"
)

// Of a hundred tenants that wait for the one bundler at a start, the one that is asked for comes next.
func TestWhoIsAskedForIsBuiltFirst(t *testing.T) {
	h := &host{t: t, roots: []string{t.TempDir()}, hold: make(chan struct{})}
	for i := range 100 {
		h.put(fmt.Sprintf("t%d", i), "x")
	}
	h.open(Config{Roots: h.roots, Concurrency: 1})
	h.eventually("all wait but one", func() bool { h.turns.mu.Lock(); defer h.turns.mu.Unlock(); return len(h.turns.queue) == 99 })
	h.turns.mu.Lock()
	last := h.turns.queue[98].entry
	h.turns.mu.Unlock()
	answered := make(chan string, 1)
	go func() { answered <- h.get(last.id+".localhost", "/") }()
	h.eventually("somebody asks", func() bool { return last.wanted.Load() == 1 })
	h.hold <- struct{}{} // the one under way
	h.hold <- struct{}{}
	if got := <-answered; got != "x" {
		t.Errorf("it answers %q", got)
	}
	if n := h.builds.Load(); n > 3 {
		t.Errorf("%d builds were begun before the one that was asked for had ended", n)
	}
	close(h.hold)
	h.eventually("the others are built too", func() bool { return h.builds.Load() == 100 })
	h.eventually("nobody is waited for", func() bool { return last.wanted.Load() == 0 })
}

// Who leaves the queue takes no bundler along, whenever it leaves.
func TestALeaverTakesNoTurn(t *testing.T) {
	turns, e := &turns{free: 1}, &entry{}
	for i := range 2000 {
		if err := turns.take(context.Background(), e); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		left := make(chan error)
		go func() { left <- turns.take(ctx, e) }()
		go cancel()
		if i%2 == 0 {
			for queued := false; !queued && ctx.Err() == nil; {
				turns.mu.Lock()
				queued = len(turns.queue) > 0
				turns.mu.Unlock()
			}
		}
		turns.done()
		if err := <-left; err == nil {
			turns.done()
		}
		if turns.free != 1 || len(turns.queue) != 0 {
			t.Fatalf("round %d: %d free, %d wait", i, turns.free, len(turns.queue))
		}
	}
}
