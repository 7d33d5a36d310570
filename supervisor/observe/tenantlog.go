package observe

import (
	"container/list"
	"context"
	"strconv"
	"sync"
	"time"
)

// Line is one entry of a tenant's log. The JSON names are a contract.
type Line struct {
	Seq       uint64    `json:"seq"`       // increasing within the tenant; a gap means lines were dropped
	Time      time.Time `json:"time"`      // JS time of the entry, as the tenant saw it
	Level     string    `json:"level"`     // debug, log, info, warn, error
	Request   string    `json:"request"`   // bulkhead-request-id; empty for start-up code
	Attempt   uint8     `json:"attempt"`   // 1, or 2 for a replay
	Text      string    `json:"text"`      //
	Truncated bool      `json:"truncated"` // text was longer than the limit
	Shard     uint32    `json:"shard"`     // which shard said so
	Version   string    `json:"version"`   // hash of the tenant's version
}

// lineCost is what a line takes beside its strings, roughly.
const lineCost = 128

func (l *Line) cost() int { return lineCost + len(l.Text) + len(l.Request) }

// Logs keeps the latest lines of each tenant. When all tenants together have more than the
// limit, the log that has been quiet longest goes first: a tenant that floods its own log
// shortens its own, not its neighbours', because its own share is bounded as well.
type Logs struct {
	perTenant, total int

	mu     sync.Mutex
	byName map[string]*tenantLog // guarded by mu
	recent *list.List            // guarded by mu; of *tenantLog, most recently written first
	bytes  int                   // guarded by mu
}

type tenantLog struct {
	tenant  string
	lines   []Line // oldest first, from head on
	head    int
	bytes   int
	seq     uint64
	changed chan struct{} // closed at the next append, if anyone waits
	place   *list.Element
	notes   map[string]*noted // kind → how often in this window; nil if never
}

// noted counts the notes of one kind about one tenant.
type noted struct {
	since   time.Time // begin of the window
	written int       // in the window
	left    int       // left out since the last one written
}

// Bounds of what clients can have written into a tenant's log: it is kept short for the tenant's
// own lines.
const (
	noteWindow = 10 * time.Second
	notePerKey = 5
)

func newLogs(perTenant, total int) *Logs {
	return &Logs{perTenant: perTenant, total: total, byName: map[string]*tenantLog{}, recent: list.New()}
}

// Note appends a line of the gateway's own about one of the tenant's requests. Of one kind, which
// is one of a fixed few, the first in ten seconds are written; how many were left out stands in
// the next one. It says whether line was written.
func (l *Logs) Note(tenant, kind string, line Line) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.get(tenant)
	n := t.notes[kind]
	if n == nil {
		n = &noted{}
		if t.notes == nil {
			t.notes = map[string]*noted{}
		}
		t.notes[kind] = n
	}
	if now := time.Now(); now.Sub(n.since) >= noteWindow {
		n.since, n.written = now, 0
	}
	if n.written >= notePerKey {
		n.left++
		return false
	}
	n.written++
	if n.left > 0 {
		line.Text += " (" + strconv.Itoa(n.left) + " more such lines were left out before it)"
		n.left = 0
	}
	l.append(t, line)
	return true
}

// Append adds lines of one tenant, giving each its Seq. It keeps the strings.
func (l *Logs) Append(tenant string, lines ...Line) {
	if len(lines) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.append(l.get(tenant), lines...)
}

// append is Append for whoever holds l.mu.
func (l *Logs) append(t *tenantLog, lines ...Line) {
	l.recent.MoveToFront(t.place)
	for _, line := range lines {
		t.seq++
		line.Seq = t.seq
		t.lines = append(t.lines, line)
		t.bytes += line.cost()
		l.bytes += line.cost()
	}
	for t.bytes > l.perTenant && t.head < len(t.lines)-1 {
		c := t.lines[t.head].cost()
		t.lines[t.head] = Line{} // lets the strings go
		t.bytes -= c
		l.bytes -= c
		t.head++
	}
	if t.head > len(t.lines)/2 {
		n := copy(t.lines, t.lines[t.head:])
		clear(t.lines[n:])
		t.lines, t.head = t.lines[:n], 0
	}
	for range l.recent.Len() - 1 {
		if l.bytes <= l.total {
			break
		}
		quiet := l.recent.Back().Value.(*tenantLog)
		l.bytes -= quiet.bytes
		quiet.lines, quiet.head, quiet.bytes = nil, 0, 0
		if quiet.changed != nil { // a reader follows it: keep its numbering
			l.recent.MoveToFront(quiet.place)
			continue
		}
		l.recent.Remove(quiet.place)
		delete(l.byName, quiet.tenant)
	}
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
}

// get returns the tenant's log; l.mu is held.
func (l *Logs) get(tenant string) *tenantLog {
	t := l.byName[tenant]
	if t == nil {
		t = &tenantLog{tenant: tenant}
		t.place = l.recent.PushFront(t)
		l.byName[tenant] = t
	}
	return t
}

// Read returns the kept lines after seq, oldest first; 0 means all.
func (l *Logs) Read(tenant string, after uint64) []Line {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.byName[tenant]
	if t == nil {
		return nil
	}
	return t.after(after)
}

func (t *tenantLog) after(seq uint64) []Line {
	for i := t.head; i < len(t.lines); i++ {
		if t.lines[i].Seq > seq {
			return append([]Line(nil), t.lines[i:]...)
		}
	}
	return nil
}

// Follow returns the lines after seq, waiting for the first until ctx ends.
func (l *Logs) Follow(ctx context.Context, tenant string, after uint64) ([]Line, error) {
	for {
		l.mu.Lock()
		t := l.get(tenant)
		if t.seq < after { // the log was dropped and began again
			after = 0
		}
		lines := t.after(after)
		if lines != nil {
			l.mu.Unlock()
			return lines, nil
		}
		if t.changed == nil {
			t.changed = make(chan struct{})
		}
		changed := t.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
