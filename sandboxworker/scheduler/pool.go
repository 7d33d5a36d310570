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
	ready []*engine.Isolate // guarded by mu
	room  int               // guarded by mu; tenants that may still come
	begun bool              // guarded by mu; one has come
	taken time.Time         // guarded by mu; when one was last asked for
}

const (
	// poolQuiet is how long nobody may have started before an isolate is made for the next: it takes
	// some 2 ms of a core, and whoever has just started needs both, the gateway one and its isolate the
	// other. poolLate is how long that can put it off.
	poolQuiet = 4 * time.Millisecond
	poolLate  = 40 * time.Millisecond
	// poolSpare is how many isolates a shard has ready before its first tenant comes: it may wait for
	// that for days, and there are always several such shards.
	poolSpare = 2
)

// newPool makes the first isolates.
func newPool(eng *engine.Engine, target int) (*pool, error) {
	p := &pool{eng: eng, target: target, room: 8 * target, want: make(chan struct{}, 1)}
	for range min(target, poolSpare) {
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
	p.taken, p.begun = time.Now(), true
	p.mu.Unlock()
	iso := p.spare()
	if iso == nil {
		return p.eng.New()
	}
	p.wake()
	return iso, nil
}

func (p *pool) wake() {
	select {
	case p.want <- struct{}{}:
	default:
	}
}

// expect says how many tenants may still come: a full shard keeps no isolates for more.
func (p *pool) expect(tenants int) {
	p.mu.Lock()
	p.room = tenants
	p.mu.Unlock()
	p.wake()
}

// missing is how many isolates should be made, below 0: how many are too many.
func (p *pool) missing() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	target := p.target
	if !p.begun {
		target = min(target, poolSpare)
	}
	// The fuller the shard, the rarer it is chosen: one for each eight that may come.
	return max(min(target, (p.room+7)/8), 0) - len(p.ready)
}

// spare takes an isolate that is not needed, nil if none is left.
func (p *pool) spare() *engine.Isolate {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.ready)
	if n == 0 {
		return nil
	}
	iso := p.ready[n-1]
	p.ready[n-1] = nil
	p.ready = p.ready[:n-1]
	return iso
}

func (p *pool) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.ready)
}

// run keeps the pool filled, one isolate at a time, on a thread of its own. Not a niced one: Go stops the
// world now and then, and waits for that thread as for any other, while the watchdog waits with it.
func (p *pool) run(stop <-chan struct{}) {
	runtime.LockOSThread()
	for {
		select {
		case <-stop:
			return
		case <-p.want:
		}
		for p.missing() < 0 {
			if iso := p.spare(); iso != nil {
				iso.Dispose()
			}
		}
		for p.missing() > 0 && p.await(stop) {
			iso, err := p.eng.New()
			if err != nil {
				// The next tenant tries again on its own account and gets the error.
				fmt.Fprintf(os.Stderr, "scheduler: no isolate in reserve: %v\n", err)
				break
			}
			p.mu.Lock()
			p.ready = append(p.ready, iso)
			p.mu.Unlock()
		}
	}
}

// await waits for a moment in which no tenant is being started, or long enough. It reports false when
// the shard ends.
func (p *pool) await(stop <-chan struct{}) bool {
	for late := time.Now().Add(poolLate); ; {
		p.mu.Lock()
		wait := min(time.Until(p.taken.Add(poolQuiet)), time.Until(late))
		p.mu.Unlock()
		if wait <= 0 {
			return true
		}
		select {
		case <-stop:
			return false
		case <-time.After(wait):
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
