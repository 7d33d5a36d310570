package gatewayside

import (
	"context"
	"os"
	"runtime"
	"sync"

	"bulkhead/ipc"
)

const (
	// highWater is the number of pending bytes above which requests and bodies wait.
	highWater = 1 << 20
	// keepBuffer is the largest batch buffer kept between bursts.
	keepBuffer = 256 << 10
)

// writer gathers frames and writes them in batches from one goroutine.
type writer struct {
	f    *os.File
	wake chan struct{} // capacity 1

	mu      sync.Mutex
	pending *ipc.Batch    // guarded by mu
	drained chan struct{} // guarded by mu; closed when pending was taken, nil when nobody waits
	closed  bool          // guarded by mu
}

// begin locks the batch for appending; end must follow.
func (w *writer) begin() *ipc.Batch {
	w.mu.Lock()
	return w.pending
}

// end unlocks the batch and sees to it that it is written.
func (w *writer) end() {
	if w.closed {
		w.pending.Reset(0)
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// room blocks while the batch is above the high-water mark: a shard that does not read stops
// the senders, not the gateway's memory.
func (w *writer) room(ctx context.Context, closed <-chan struct{}) error {
	for {
		w.mu.Lock()
		if w.closed || w.pending.Len() < highWater {
			w.mu.Unlock()
			return nil
		}
		if w.drained == nil {
			w.drained = make(chan struct{})
		}
		wait := w.drained
		w.mu.Unlock()
		select {
		case <-wait:
		case <-closed:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// run writes until the file fails or closed is closed. It returns the write's error.
func (w *writer) run(closed <-chan struct{}) error {
	out := new(ipc.Batch)
	for {
		select {
		case <-w.wake:
		case <-closed:
			return nil
		}
		// Let the goroutines that are ready to run add their frames first: under load this
		// makes one system call of many, and alone it costs well under a microsecond.
		runtime.Gosched()
		w.mu.Lock()
		out, w.pending = w.pending, out
		if w.drained != nil {
			close(w.drained)
			w.drained = nil
		}
		w.mu.Unlock()
		if out.Len() == 0 {
			continue
		}
		if _, err := w.f.Write(out.Bytes()); err != nil {
			return err
		}
		out.Reset(keepBuffer)
	}
}

// stop drops what is pending and everything that comes later.
func (w *writer) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.pending.Reset(0)
	if w.drained != nil {
		close(w.drained)
		w.drained = nil
	}
}
