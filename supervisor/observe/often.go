package observe

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Bounds of lines that clients or tenants can cause at will.
const (
	oftenWindow = 10 * time.Second
	oftenPerKey = 5 // lines of one kind about one subject in a window
	oftenInAll  = 1000
	oftenKeys   = 1024
)

// often counts lines so that a flood of failures is not a flood of log.
type often struct {
	mu      sync.Mutex
	since   time.Time      // guarded by mu; begin of the window
	keys    map[string]int // guarded by mu; lines asked for in the window
	lines   int            // guarded by mu; lines written in the window
	dropped int            // guarded by mu; not yet told of
}

// take says whether to write, and how many lines were left out since the last one written.
func (o *often) take(now time.Time, key string) (ok bool, dropped int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now.Sub(o.since) >= oftenWindow || o.keys == nil {
		o.since, o.lines, o.keys = now, 0, map[string]int{}
	}
	if len(o.keys) < oftenKeys {
		o.keys[key]++
	}
	if n := o.keys[key]; n == 0 || n > oftenPerKey || o.lines >= oftenInAll {
		o.dropped++
		return false, 0
	}
	o.lines++
	dropped, o.dropped = o.dropped, 0
	return true, dropped
}

// LogOften logs what clients or tenants can cause at will. The first few lines of one key, which
// names the kind of event and whom it is about, are written; of what follows within ten seconds only the number is told,
// as `suppressed` in the next line. Metrics count them all. It reports whether this was one of the first few,
// which are events as well where they are any.
func (o *Observer) LogOften(level slog.Level, key, message string, attrs ...any) bool {
	ok, dropped := o.often.take(time.Now(), key)
	if !ok {
		return false
	}
	if dropped > 0 {
		attrs = append(attrs, "suppressed", dropped)
	}
	o.Log.Log(context.Background(), level, message, attrs...)
	return true
}
