package scheduler

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"bulkhead/sandboxworker/engine"
)

// pool keeps isolates bootstrapped ahead of the tenants that will need them.
type pool struct {
	eng    *engine.Engine
	target int
	want   chan struct{} // capacity 1

	mu    sync.Mutex
	ready []*engine.Isolate
}

// newPool makes the first isolates.
func newPool(eng *engine.Engine, target int) (*pool, error) {
	p := &pool{eng: eng, target: target, want: make(chan struct{}, 1)}
	for range target {
		iso, err := eng.New()
		if err != nil {
			return nil, err
		}
		p.ready = append(p.ready, iso)
	}
	return p, nil
}

// get takes a ready isolate, or makes one when none is left.
func (p *pool) get() (*engine.Isolate, error) {
	p.mu.Lock()
	n := len(p.ready)
	if n == 0 {
		p.mu.Unlock()
		return p.eng.New()
	}
	iso := p.ready[n-1]
	p.ready[n-1] = nil
	p.ready = p.ready[:n-1]
	p.mu.Unlock()
	select {
	case p.want <- struct{}{}:
	default:
	}
	return iso, nil
}

func (p *pool) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.ready)
}

// run refills the pool, one isolate at a time, on a thread of its own.
func (p *pool) run(stop <-chan struct{}) {
	runtime.LockOSThread()
	for {
		select {
		case <-stop:
			return
		case <-p.want:
		}
		for p.count() < p.target {
			iso, err := p.eng.New()
			if err != nil {
				// The next tenant tries again on its own account and gets the error.
				fmt.Fprintf(os.Stderr, "scheduler: no isolate in reserve: %v\n", err)
				break
			}
			p.mu.Lock()
			p.ready = append(p.ready, iso)
			p.mu.Unlock()
			// Cold starts come in bursts; let the requests that wait for a core go first.
			time.Sleep(time.Millisecond)
		}
	}
}

// close disposes of what is left. Called when nobody takes any more.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, iso := range p.ready {
		iso.Dispose()
	}
	p.ready = nil
}
