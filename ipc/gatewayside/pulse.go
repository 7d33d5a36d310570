package gatewayside

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"bulkhead/ipc"
	"bulkhead/schema/gen"
)

const (
	// waitPing is how often a shard is asked whose requests wait for something.
	waitPing = 250 * time.Millisecond
	// restPing is how often a shard without requests is asked. Nobody waits for it; a stopped process
	// is the launcher's to see.
	restPing = time.Second
	// restTimeout is how long such a shard may take to answer.
	restTimeout = 5 * time.Second
	// atWork is how long after the last frame to it a shard counts as at work: what makes a shard
	// hang is something it was asked to do, or a timer, which its next request finds out about.
	atWork = 300 * time.Millisecond
	// lateFactor is how much longer than it is late itself the gateway waits for a shard: on a
	// machine whose processors are all taken, who sleeps is not dead (cf. RFC 6298, RTO).
	lateFactor = 8
	// most a machine's lateness can lengthen the wait.
	mostPatience = 3 * time.Second
)

// pulse tells a shard that lives from one that does not. A shard at work that has been silent for
// PingEvery is sent a ping, which its poller answers and no isolate. Without an answer within
// PingTimeout, and as much as the machine is late besides, the kernel is asked what the process is
// doing: one that runs, or that waits for nothing a processor could give it, hangs, and the
// connection ends; one that has not been given a processor is given time (examine).
//
// Written by the connection's heartbeat goroutine but for what readers and callers touch, which is
// atomic. Times are monotonic ns since start.
type pulse struct {
	start          time.Time
	every, timeout time.Duration
	lastHeard      atomic.Int64  // something came from the shard
	lastAsked      atomic.Int64  // something that makes it work was sent
	seq            atomic.Uint64 // of the last ping; from a random start, so that an answer to an unread ping cannot be guessed
	waiting        atomic.Bool   // for the pong to seq
	lastPong       atomic.Uint64 // seq of the last ping that was answered
	urged          atomic.Bool   // the next ping goes out without a silence before it
	wake           chan struct{} // capacity 1: work after a rest, or an urgent ping

	sent     time.Time     // heartbeat's; of the outstanding ping
	rtt, dev time.Duration // heartbeat's; smoothed round trip and its deviation
	answered atomic.Int64  // when the pong came
	lateness time.Duration // heartbeat's; how late its own ticks have been, decaying
	looked   time.Time     // heartbeat's; of activity, zero: not since the ping
	activity Activity      // heartbeat's
	cpu      time.Duration // heartbeat's; of activity, at the first look since the ping
	resting  atomic.Bool
}

func (p *pulse) begin(o *Options) {
	p.start, p.every, p.timeout = time.Now(), o.PingEvery, o.PingTimeout
	p.seq.Store(rand.Uint64())
	p.lastPong.Store(p.seq.Load())
	p.wake = make(chan struct{}, 1)
}

func (p *pulse) now() int64 { return int64(time.Since(p.start)) }

// heard notes that the shard said something.
func (p *pulse) heard() { p.lastHeard.Store(p.now()) }

// asked notes that the shard was given work.
func (p *pulse) asked() {
	p.lastAsked.Store(p.now())
	if p.resting.Load() && p.resting.CompareAndSwap(true, false) {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// urge has the shard asked now, for the sake of whoever reads there: it wakes up.
func (p *pulse) urge() {
	p.urged.Store(true)
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// working says whether the shard has something to do, as far as is known here.
func (p *pulse) working() bool {
	at := p.lastAsked.Load()
	return at != 0 && p.now()-at < int64(atWork)
}

// pong takes a pong frame.
func (p *pulse) pong(f gen.Frame) error {
	if f.Stream() != 0 || f.Pong() != p.seq.Load() || !p.waiting.Load() {
		return ipc.Violation(ipc.KindPong, f.Stream(), "pong without its ping")
	}
	p.answered.Store(p.now())
	p.lastPong.Store(f.Pong())
	p.waiting.Store(false)
	return nil
}

// beat is one look at the shard: whether to send a ping, whether it has been silent for suspiciously
// long, and when to look again.
// late is how much later than asked for this look takes place, busy whether requests are in the shard.
func (p *pulse) beat(late time.Duration, busy bool) (ping, suspect bool, next time.Duration) {
	p.lateness = max(late, p.lateness*7/8)
	now := p.now()
	working := p.working()
	if !p.sent.IsZero() {
		if p.waiting.Load() {
			waited := time.Since(p.sent)
			limit := p.patience()
			if !working && !busy {
				limit = max(limit, restTimeout)
			}
			if waited > limit {
				return false, true, 0
			}
			return false, false, min(max(limit-waited, time.Millisecond), p.every)
		}
		p.measure(time.Duration(p.answered.Load()) - p.sent.Sub(p.start))
		p.sent, p.looked, p.activity = time.Time{}, time.Time{}, Activity{}
	}
	silent := time.Duration(now - p.lastHeard.Load())
	wait := restPing
	switch {
	case working:
		wait = p.every
	case busy:
		wait = max(p.every, waitPing)
	}
	if p.urged.Swap(false) {
		wait = 0
	}
	if silent < wait {
		return false, false, wait - silent
	}
	p.sent = time.Now()
	p.seq.Add(1)
	p.waiting.Store(true)
	return true, false, p.every
}

// measure takes a round trip into account, as RFC 6298 section 2 does.
func (p *pulse) measure(d time.Duration) {
	if p.rtt == 0 {
		p.rtt, p.dev = d, d/2
		return
	}
	p.dev = (3*p.dev + (p.rtt - d).Abs()) / 4
	p.rtt = (7*p.rtt + d) / 8
}

// patience is how long an answer may take now.
func (p *pulse) patience() time.Duration {
	return min(max(p.timeout, p.rtt+4*p.dev)+lateFactor*p.lateness, max(p.timeout, mostPatience))
}
