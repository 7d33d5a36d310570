package main

import (
	"context"
	"slices"
	"sync"
	"time"
)

// incident is a row of the operators' listing.
type incident struct {
	ID      string    `json:"id"`
	Time    time.Time `json:"time"`
	Kind    string    `json:"kind"`
	Shard   uint32    `json:"shard"`
	Tenants []string  `json:"tenants"`
	Outcome string    `json:"outcome"`
	Signal  *string   `json:"signal"`
	Detail  string    `json:"detail"`
	TookMs  float64   `json:"tookMs"` // of "gone"
}

// names says that the incident names this tenant and nobody else.
func (i *incident) names(tenant string) bool { return slices.Equal(i.Tenants, []string{tenant}) }

// watcher follows a host's incidents: the host keeps the latest only.
type watcher struct {
	mu   sync.Mutex
	seen map[string]bool // guarded by mu
	list []incident      // guarded by mu; oldest first
	err  error           // guarded by mu; of the last poll
}

// watchEvery is how often the host is asked. The count in its status is cheap; the list is fetched
// when that has changed, or the ring may be full.
const watchEvery = 15 * time.Millisecond

// watch follows until ctx ends.
func (t *target) watch(ctx context.Context) *watcher {
	w := &watcher{seen: map[string]bool{}}
	go func() {
		for last := -1; ; {
			var st struct {
				Incidents int `json:"incidents"`
			}
			err := t.admin.admin("GET", "/v1/status", &st)
			if err == nil && (st.Incidents != last || st.Incidents >= 1000) {
				var list []incident
				if err = t.admin.admin("GET", "/v1/incidents", &list); err == nil {
					last = st.Incidents
					w.note(list)
				}
			}
			w.mu.Lock()
			w.err = err
			w.mu.Unlock()
			select {
			case <-ctx.Done():
				return
			case <-time.After(watchEvery):
			}
		}
	}()
	return w
}

// note takes a listing, newest first.
func (w *watcher) note(list []incident) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, i := range slices.Backward(list) {
		if !w.seen[i.ID] {
			w.seen[i.ID] = true
			w.list = append(w.list, i)
		}
	}
}

// incidents lists what has happened so far, oldest first.
func (w *watcher) incidents() []incident {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.list)
}

func (w *watcher) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.list)
}

// after waits until more than n incidents have been seen; false if they do not come within d.
func (w *watcher) after(ctx context.Context, n int, d time.Duration) bool {
	for end := time.Now().Add(d); w.count() <= n; {
		if time.Now().After(end) || ctx.Err() != nil {
			return false
		}
		time.Sleep(watchEvery / 3)
	}
	return true
}
