package gateway

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/schema/gen"
	"bulkhead/supervisor/observe"
)

// Tail consumers: tenants that the operator has named (the policy's `tails`) receive how others' invocations
// ended and what they logged, in events of their own. It is the operator's decision alone, since what a
// tenant logs leaves its shard by it.
//
// An invocation is told tailDelay after its end, when its log lines have come; what waits is bounded for each
// consumer, and more is dropped and counted. A consumer's events come one at a time; its own invocations are
// told to nobody, so that no two consumers feed each other.

const (
	tailDelay = 500 * time.Millisecond
	tailEvery = 500 * time.Millisecond
	maxTails  = 4096 // invocations that wait for one consumer
	// maxTailText bounds the log text told of one invocation, bytes.
	maxTailText = 8 << 10
	// maxTailBody is a frame's: an event is one message.
	maxTailBody = 60 << 10
)

// tailItem is what a consumer is told of an invocation; the names are Workers' own.
type tailItem struct {
	ScriptName     string    `json:"scriptName"`
	Outcome        string    `json:"outcome"`
	EventTimestamp int64     `json:"eventTimestamp"` // ms since 1970
	Event          tailEvent `json:"event"`
	Logs           []tailLog `json:"logs"`
	Truncated      bool      `json:"truncated,omitempty"`
	Dropped        int       `json:"dropped,omitempty"` // invocations before this one that were not told

	request string
	ended   time.Time
}

type tailEvent struct {
	Request   *tailRequest `json:"request,omitempty"`
	RPCMethod string       `json:"rpcMethod,omitempty"`
	Cron      string       `json:"cron,omitempty"`
}

type tailRequest struct {
	Method string `json:"method"`
	URL    string `json:"url"`
}

type tailLog struct {
	Timestamp int64    `json:"timestamp"` // ms since 1970
	Level     string   `json:"level"`
	Message   []string `json:"message"`
}

// tails is what waits for consumers.
type tails struct {
	mu    sync.Mutex
	queue map[string]*tailQueue // guarded by mu; by consumer
}

type tailQueue struct {
	items   []tailItem
	dropped int
	busy    bool
}

// tail notes the end of an invocation for those who are to be told.
func (c *call) tail(o gen.Outcome) {
	if c.s.opt.Policy == nil {
		return
	}
	consumers := c.s.opt.Policy().TailsOf(c.v.Tenant)
	if len(consumers) == 0 {
		return
	}
	item := tailItem{ScriptName: c.v.Tenant, Outcome: o.String(), EventTimestamp: c.start.UnixMilli(), request: c.id, ended: time.Now()}
	switch c.req.Event {
	case gen.Event_fetch:
		item.Event.Request = &tailRequest{c.req.Method, bounded(c.req.URL, 1<<10)}
	case gen.Event_call:
		item.Event.RPCMethod = c.req.Name
	case gen.Event_function:
		item.Event.RPCMethod = "(function)" // no method is called so
	case gen.Event_scheduled:
		item.Event.Cron = c.req.Name
	}
	t := &c.s.tails
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.queue == nil {
		t.queue = map[string]*tailQueue{}
	}
	for _, id := range consumers {
		q := t.queue[id]
		if q == nil {
			q = &tailQueue{}
			t.queue[id] = q
		}
		if len(q.items) >= maxTails {
			q.dropped++
			continue
		}
		item.Dropped, q.dropped = q.dropped, 0
		q.items = append(q.items, item)
	}
}

// RunTails gives consumers their events until ctx ends.
func (s *Server) RunTails(ctx context.Context) {
	tick := time.NewTicker(tailEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		s.tails.mu.Lock()
		for id, q := range s.tails.queue {
			n := 0
			for n < len(q.items) && time.Since(q.items[n].ended) >= tailDelay {
				n++
			}
			switch {
			case q.busy:
			case n > 0:
				q.busy = true
				items := slices.Clone(q.items[:n])
				q.items = slices.Delete(q.items, 0, n)
				go func() {
					s.tellTail(ctx, id, items)
					s.tails.mu.Lock()
					q.busy = false
					s.tails.mu.Unlock()
				}()
			case len(q.items) == 0 && q.dropped == 0:
				delete(s.tails.queue, id)
			}
		}
		s.tails.mu.Unlock()
	}
}

// tellTail makes events of items, as many as it takes.
func (s *Server) tellTail(ctx context.Context, consumer string, items []tailItem) {
	v, ok := s.opt.Get(ctx, consumer)
	if !ok || v.Err != nil {
		s.obs.LogOften(slog.LevelWarn, "tail "+consumer, "tail events dropped: the consumer cannot run", "tenant", consumer, "events", len(items))
		return
	}
	s.fillLogs(items)
	var producers []string
	for len(items) > 0 {
		producers = producers[:0]
		body := []byte{'['}
		n := 0
		for ; n < len(items); n++ {
			b, err := json.Marshal(&items[n])
			if err != nil || n > 0 && len(body)+len(b)+2 > maxTailBody {
				break
			}
			if n > 0 {
				body = append(body, ',')
			}
			body = append(body, b...)
			if !slices.Contains(producers, items[n].ScriptName) {
				producers = append(producers, items[n].ScriptName)
			}
		}
		body = append(body, ']')
		items = items[max(n, 1):]
		if n == 0 || len(body) > s.wire.ChunkBytes {
			continue // one that is too large by itself: its texts are bounded, so this does not happen
		}
		s.opt.Pool.Apart(producers, consumer) // who causes an event is not beside who gets it
		s.event(ctx, v, gatewayside.OpenRequest{Event: gen.Event_tail, Method: http.MethodPost, URL: "https://tail.invalid/",
			Headers: ipc.AppendHeader(nil, "content-type", "application/json"), Body: body, BodyMode: gen.BodyMode_whole})
	}
}

// fillLogs adds the lines that each invocation has logged.
func (s *Server) fillLogs(items []tailItem) {
	byTenant := map[string]map[string]*tailItem{}
	for i := range items {
		t := &items[i]
		t.Logs = []tailLog{}
		if byTenant[t.ScriptName] == nil {
			byTenant[t.ScriptName] = map[string]*tailItem{}
		}
		byTenant[t.ScriptName][t.request] = t
	}
	for tenant, requests := range byTenant {
		used := map[*tailItem]int{}
		for _, l := range s.obs.Logs.Read(tenant, 0) {
			t := requests[l.Request]
			if t == nil || l.Request == "" {
				continue
			}
			// In JSON a byte can take six.
			if used[t] += 6*len(l.Text) + 64; used[t] > 6*maxTailText {
				t.Truncated = true
				continue
			}
			t.Logs = append(t.Logs, logOf(&l))
		}
	}
}

func logOf(l *observe.Line) tailLog {
	return tailLog{Timestamp: l.Time.UnixMilli(), Level: l.Level, Message: []string{l.Text}}
}
