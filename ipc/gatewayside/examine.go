package gatewayside

import (
	"context"
	"fmt"
	"time"
)

// Activity is what a process was doing, summed over its threads.
type Activity struct {
	CPU      time.Duration // processor time had since its start
	Delay    time.Duration // time spent waiting for a processor since its start
	Runnable int           // threads that run or wait for a processor now
}

const (
	// examineFor is the least time between the two looks that are compared.
	examineFor = 25 * time.Millisecond
	// lookTimeout bounds one look: a launcher that does not answer decides nothing.
	lookTimeout = 100 * time.Millisecond
)

// examine decides about a shard at work that has not answered for long: nil, it is given time; an
// error, it hangs.
func (c *Conn) examine() error {
	p := &c.pulse
	waited := time.Since(p.sent).Round(time.Millisecond)
	hangs := func(how string) error {
		return fmt.Errorf("ping unanswered for %v%s: %w", waited, how, ErrUnresponsive)
	}
	if c.opt.Look == nil || waited > mostPatience {
		return hangs("")
	}
	if !p.looked.IsZero() && time.Since(p.looked) < examineFor {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	a, err := c.opt.Look(ctx)
	cancel()
	if err != nil {
		return hangs("")
	}
	before, since := p.activity, time.Since(p.looked)
	first := p.looked.IsZero()
	p.activity, p.looked = a, time.Now()
	if first || !p.waiting.Load() {
		return nil
	}
	if starved(a.CPU-before.CPU, a.Delay-before.Delay, a.Runnable, since) {
		return nil
	}
	return hangs(fmt.Sprintf(", with %v of CPU in the last %v", a.CPU-before.CPU, since.Round(time.Millisecond)))
}

// starved says whether a process got less of the processors than it could have used: within a span
// it waited for one for much of the time, or wants one now and has hardly had any.
func starved(cpu, delay time.Duration, runnable int, span time.Duration) bool {
	return delay > span*2/5 || runnable > 0 && cpu < span/2
}
