package scheduler

import (
	"context"
	"fmt"
	"sync"
	"time"

	"bulkhead/sandboxworker/engine"
	"bulkhead/schema/gen"
)

const (
	// logDelay is how long lines gather before they are sent.
	logDelay = 10 * time.Millisecond
	// logPendingEntries and logPendingBytes bound what waits per tenant; the rest is dropped
	// and counted.
	logPendingEntries = 1000
	logPendingBytes   = 256 << 10
	// logTextBytes bounds one line.
	logTextBytes = 64 << 10
	// logSendTimeout bounds one call to the gateway.
	logSendTimeout = 10 * time.Second
)

// line is one log entry that waits to be sent.
type line struct {
	requestID string
	timeMs    float64
	level     gen.LogEntry_Level
	text      string
	truncated bool
	attempt   uint8
}

// tenantLog is what a tenant has said and the gateway does not have yet.
type tenantLog struct {
	host     gen.TenantHost // used by the logger's goroutine only
	released bool           // likewise
	lines    []line         // guarded by logger.mu
	bytes    int            // guarded by logger.mu
	dropped  int            // guarded by logger.mu
	closed   bool           // guarded by logger.mu; release host when sent
	gone     chan struct{}  // closed when host is released
}

// logger sends console lines to the gateway, in order for each tenant, from one goroutine, so
// that a gateway that is slow to take them costs lines, never turns.
type logger struct {
	wake  chan struct{} // capacity 1
	hurry chan struct{} // capacity 1: somebody waits for a tenant's last lines

	mu    sync.Mutex
	dirty map[*tenantLog]struct{} // guarded by mu
}

func newLogger() *logger {
	return &logger{wake: make(chan struct{}, 1), hurry: make(chan struct{}, 1), dirty: make(map[*tenantLog]struct{})}
}

// add takes a log record of t within the invocation's and the tenant's bounds. Called by t's
// executor.
func (l *logger) add(t *tenant, inv *invocation, r *engine.Record) {
	text := string(r.Text)
	e := line{timeMs: t.clock, level: gen.LogEntry_Level(r.Level)}
	if e.level > gen.LogEntry_Level_error {
		e.level = gen.LogEntry_Level_error
	}
	if len(text) > logTextBytes {
		text, e.truncated = text[:logTextBytes], true
	}
	account := &t.log
	if inv != nil {
		e.requestID, e.attempt = inv.requestID, inv.attempt
		account = &inv.log
	}
	n, ok := account.take(len(text), t.limits.logBytes)
	if !ok {
		return
	}
	if n < len(text) {
		text, e.truncated = text[:n], true
	}
	e.text = text
	l.put(t, e)
}

// dropped says how many lines of an invocation that is over went beyond its limit.
func (l *logger) dropped(t *tenant, inv *invocation) {
	if n := inv.log.dropped; n > 0 {
		inv.log.dropped = 0
		l.put(t, line{requestID: inv.requestID, attempt: inv.attempt, timeMs: t.clock, level: gen.LogEntry_Level_warn,
			text: fmt.Sprintf("%d log lines were dropped: this request's log exceeded its limit of %d bytes", n, t.limits.logBytes)})
	}
}

func (l *logger) put(t *tenant, e line) {
	l.mu.Lock()
	if g := t.logs; len(g.lines) >= logPendingEntries || g.bytes+len(e.text) > logPendingBytes {
		g.dropped++
	} else {
		g.lines = append(g.lines, e)
		g.bytes += len(e.text)
	}
	l.dirty[t.logs] = struct{}{}
	l.mu.Unlock()
	l.signal()
}

func (l *logger) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// close lets go of the tenant's host once what it has said is sent.
func (l *logger) close(t *tenant) {
	l.mu.Lock()
	t.logs.closed = true
	l.dirty[t.logs] = struct{}{}
	l.mu.Unlock()
	select {
	case l.hurry <- struct{}{}:
	default:
	}
	l.signal()
}

func (l *logger) run(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-l.wake:
		}
		select {
		case <-stop:
			return
		case <-time.After(logDelay):
		case <-l.hurry:
		}
		l.mu.Lock()
		dirty := l.dirty
		l.dirty = make(map[*tenantLog]struct{})
		l.mu.Unlock()
		for g := range dirty {
			l.send(g, stop)
		}
	}
}

// send passes on everything one tenant has said.
func (l *logger) send(g *tenantLog, stop <-chan struct{}) {
	l.mu.Lock()
	lines, dropped, closed := g.lines, g.dropped, g.closed
	g.lines, g.bytes, g.dropped = nil, 0, 0
	l.mu.Unlock()
	if dropped > 0 {
		lines = append(lines, line{level: gen.LogEntry_Level_warn, timeMs: lastTime(lines),
			text: fmt.Sprintf("%d log lines were dropped: more than could be passed on", dropped)})
	}
	if len(lines) > 0 && g.host.IsValid() {
		ctx, cancel := context.WithTimeout(context.Background(), logSendTimeout)
		defer cancel()
		// Errors mean that the gateway is gone or does not listen to this tenant any more.
		if err := g.host.Log(ctx, func(p gen.TenantHost_log_Params) error { return fillLines(p, lines) }); err == nil {
			_ = g.host.WaitStreaming()
		}
	}
	if closed {
		g.host.Release()
		g.host = gen.TenantHost{}
		if !g.released {
			g.released = true // a second close finds nothing to release
			close(g.gone)
		}
	}
}

func lastTime(lines []line) float64 {
	if len(lines) == 0 {
		return 0
	}
	return lines[len(lines)-1].timeMs
}

func fillLines(p gen.TenantHost_log_Params, lines []line) error {
	list, err := p.NewEntries(int32(len(lines)))
	if err != nil {
		return err
	}
	for i := range lines {
		e, v := &lines[i], list.At(i)
		v.SetTimeMs(e.timeMs)
		v.SetLevel(e.level)
		v.SetTruncated(e.truncated)
		v.SetAttempt(e.attempt)
		if err := v.SetRequestId(e.requestID); err != nil {
			return err
		}
		if err := v.SetText(e.text); err != nil {
			return err
		}
	}
	return nil
}
