package gateway

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bulkhead/policy/cron"
	"bulkhead/supervisor/observe"
)

// clockwork runs cron expressions of tenant "t" under a fake clock and notes their runs.
type clockwork struct {
	mu    sync.Mutex
	runs  []string
	takes time.Duration // of a run
	now   int           // runs under way
	most  int
}

func (w *clockwork) run(_ context.Context, tenant string, e cron.Expr, due time.Time) {
	w.mu.Lock()
	w.now++
	w.most = max(w.most, w.now)
	if late := time.Since(due); late < 0 || late > cronJitter+cronCatchUp {
		w.runs = append(w.runs, fmt.Sprintf("late by %v", late))
	}
	w.runs = append(w.runs, due.UTC().Format("2006-01-02T15:04"))
	w.mu.Unlock()
	time.Sleep(w.takes)
	w.mu.Lock()
	w.now--
	w.mu.Unlock()
}

func (w *clockwork) turn(t *testing.T, d time.Duration, delay func(), texts ...string) []string {
	var list []cron.Expr
	for _, text := range texts {
		e, err := cron.Parse(text, "")
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
	s := New(Options{Observer: observe.New(observe.NewLogger(io.Discard, slog.LevelError), observe.Options{})})
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() {
		defer close(over)
		s.runCrons(ctx, func(yield func(string, cron.Expr)) {
			if delay != nil {
				delay()
			}
			for _, e := range list {
				yield("t", e)
			}
		}, w.run)
	}()
	time.Sleep(d)
	cancel()
	<-over
	time.Sleep(w.takes + cronJitter)
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.runs)
}

// The fake clock begins at 2000-01-01T00:00:00Z.
func TestCronRuns(t *testing.T) {
	for _, c := range []struct {
		name  string
		d     time.Duration
		texts []string
		takes time.Duration
		want  string
	}{
		{"every minute", 3*time.Minute + 10*time.Second, []string{"* * * * *"}, 0, "2000-01-01T00:01 2000-01-01T00:02 2000-01-01T00:03"},
		{"two of them", 2*time.Minute + 10*time.Second, []string{"1 * * * *", "2 * * * *"}, 0, "2000-01-01T00:01 2000-01-01T00:02"},
		{"a slow handler is not started twice", 7*time.Minute + 10*time.Second, []string{"* * * * *"}, 150 * time.Second, "2000-01-01T00:01 2000-01-01T00:04 2000-01-01T00:07"},
		{"29 February", 70 * 24 * time.Hour, []string{"0 12 29 2 *"}, 0, "2000-02-29T12:00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &clockwork{takes: c.takes}
				if got := strings.Join(w.turn(t, c.d, nil, c.texts...), " "); got != c.want {
					t.Errorf("got  %s\nwant %s", got, c.want)
				}
				if c.takes > 0 && w.most != 1 {
					t.Errorf("%d at once", w.most)
				}
			})
		})
	}
}

// What a machine was late for is made up for once; what is longer ago than cronCatchUp is missed.
func TestMissedCronRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &clockwork{}
		first := true
		got := w.turn(t, 62*time.Minute, func() {
			if first {
				first = false
				time.Sleep(30*time.Minute + 30*time.Second) // from 00:01 on
			}
		}, "*/10 * * * *", "* * * * *")
		// Of */10: 00:10 and 00:20 are missed, 00:30 is run when 00:31 comes.
		tens := []string{}
		for _, r := range got {
			if strings.HasSuffix(r, "0") {
				tens = append(tens, r[11:])
			}
		}
		if s := strings.Join(tens, " "); !strings.HasPrefix(s, "00:30 00:40") || strings.Contains(s, "00:20") {
			t.Errorf("runs %s of %v", s, got)
		}
	})
}
