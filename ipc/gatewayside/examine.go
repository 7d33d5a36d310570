package gatewayside

import (
	"context"
	"fmt"
	"slices"
	"time"

	"bulkhead/ipc"
)

// Activity is what a process was doing, summed over its threads.
type Activity struct {
	CPU      time.Duration // processor time had since its start
	Delay    time.Duration // time spent waiting for a processor since its start
	Runnable int           // threads that run or wait for a processor now
	// Running is what its black box claims to run now: the kernel knows threads, not tenants.
	Running []ipc.Running
}

// SilentError ends a connection whose shard is at work and does not answer. It is an ErrUnresponsive.
type SilentError struct {
	Waited time.Duration // for the answer to a ping
	// Running is what the black box claimed while the shard was silent: the turns that were there at
	// both looks if there were any, else those of the last look. What was running when the process
	// had been killed may be somebody else's, and what made it silent may have ended by then.
	Running []ipc.Running
	how     string
}

func (e *SilentError) Error() string {
	return fmt.Sprintf("ping unanswered for %v%s: %v", e.Waited, e.how, ErrUnresponsive)
}

func (e *SilentError) Unwrap() error { return ErrUnresponsive }

const (
	// examineFor is the least time between the two looks that are compared.
	examineFor = 25 * time.Millisecond
	// lookTimeout bounds one look, and mostLookTimeout one where this process is late itself: under a load of
	// 90 on two processors a launcher that has an answer takes 200 ms to give it. One that does not answer decides
	// nothing: where it gets no processor, the shard may get none either.
	lookTimeout     = 100 * time.Millisecond
	mostLookTimeout = time.Second
	// blindPatience is how long a shard may be silent of which no look tells anything.
	blindPatience = 10 * time.Second
	// starvedPatience is how long a shard may be silent of which the kernel says, again and again, that
	// it lacks a processor, and that it has had less than starvedShare of one since it fell silent.
	starvedPatience = 30 * time.Second
	starvedShare    = 5 // a fifth
)

// examine decides about a shard at work that has not answered for long: nil, it is given time; an
// error, it hangs.
func (c *Conn) examine() error {
	p := &c.pulse
	waited := time.Since(p.sent).Round(time.Millisecond)
	blind := p.looked.IsZero() || time.Since(p.looked) > mostPatience
	if c.opt.Look == nil || waited > blindPatience && blind || waited > starvedPatience {
		return &SilentError{Waited: waited, Running: p.activity.Running}
	}
	if !p.looked.IsZero() && time.Since(p.looked) < examineFor {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), min(max(lookTimeout, lateFactor*p.lateness), mostLookTimeout))
	a, err := c.opt.Look(ctx)
	cancel()
	if err != nil {
		return nil
	}
	before, since := p.activity, time.Since(p.looked)
	first := p.looked.IsZero()
	p.activity, p.looked = a, time.Now()
	if first {
		p.cpu = a.CPU
	}
	if first || !p.waiting.Load() {
		return nil
	}
	if starved(a.CPU-before.CPU, a.Delay-before.Delay, a.Runnable, since) &&
		(waited <= mostPatience || a.CPU-p.cpu < waited/starvedShare) {
		return nil
	}
	return &SilentError{Waited: waited, Running: lasting(before.Running, a.Running),
		how: fmt.Sprintf(", with %v of CPU and %v of waiting for it in the last %v, %d threads runnable, %s",
			a.CPU-before.CPU, a.Delay-before.Delay, since.Round(time.Millisecond), a.Runnable, turns(a.Running))}
}

// turns says how many turns a black box claims, for people.
func turns(running []ipc.Running) string {
	switch len(running) {
	case 0:
		return "no turn"
	case 1:
		return "one turn"
	}
	return fmt.Sprint(len(running), " turns")
}

// lasting is what has been running since the first of two looks, and all that runs at the second if
// nothing has.
func lasting(before, now []ipc.Running) []ipc.Running {
	var same []ipc.Running
	for _, r := range now {
		if slices.ContainsFunc(before, func(b ipc.Running) bool { return b.Slot == r.Slot && b.Turns == r.Turns }) {
			same = append(same, r)
		}
	}
	if len(same) == 0 {
		return now
	}
	return same
}

// starved says whether a process got less of the processors than it could have used: within a span
// it waited for one for much of the time, or wants one now and has hardly had any.
func starved(cpu, delay time.Duration, runnable int, span time.Duration) bool {
	return delay > span*2/5 || runnable > 0 && cpu < span/2
}
