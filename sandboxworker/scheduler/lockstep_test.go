package scheduler

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// simulate has requests come, each of which runs for so long on one processor, and returns their CPU and what
// of it counts. next is the time from the last request's coming, and the last one's end, to the next.
func simulate(d time.Duration, run time.Duration, next func(came, ended time.Time) time.Time) (cpu, counted time.Duration) {
	var r row
	start := time.Unix(1e9, 0)
	came, ended := start, start
	var ends []time.Time
	for now := next(came, ended); now.Sub(start) < d; now = next(came, ended) {
		for len(ends) > 0 && !ends[0].After(now) {
			r.ends(ends[0])
			ends = ends[1:]
		}
		r.begins(now)
		came = now
		if ended.Before(now) {
			ended = now
		}
		ended = ended.Add(run)
		ends = append(ends, ended)
		cpu += run
		counted += r.counts(run)
	}
	return cpu, counted
}

// However many visitors there are, next to nothing of theirs counts, and who waits for each answer counts within
// seconds.
func TestVisitorsAreNotInLockstep(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for _, rate := range []float64{1, 5, 10, 20, 30, 50, 80, 120, 250, 500} {
		for _, run := range []time.Duration{500 * time.Microsecond, time.Millisecond, 3 * time.Millisecond, 10 * time.Millisecond} {
			if rate*run.Seconds() > 0.8 {
				continue
			}
			cpu, counted := simulate(40*time.Minute, run, func(came, _ time.Time) time.Time {
				return came.Add(time.Duration(-math.Log(1-rng.Float64()) / rate * float64(time.Second)))
			})
			// One row in some hundred thousand is mistaken, and hardly anything of all CPU counts.
			if counted > cpu/1000+300*time.Millisecond {
				t.Errorf("%v visitors a second, %v each: %v of %v count", rate, run, counted, cpu)
			}
		}
	}
	for _, c := range []struct {
		name   string
		pause  func() time.Duration
		d      time.Duration
		within time.Duration
	}{
		{"at once", func() time.Duration { return 0 }, time.Second, time.Second},
		{"12 to 40 ms", func() time.Duration { return time.Duration(12+rng.IntN(28)) * time.Millisecond }, 10 * time.Second, 6 * time.Second},
		{"with one in 50 at once with the next", nil, 10 * time.Second, 6 * time.Second},
	} {
		n := 0
		_, counted := simulate(c.within, 3*time.Millisecond, func(came, ended time.Time) time.Time {
			if n++; c.pause == nil {
				if n%50 == 0 {
					return came.Add(time.Millisecond)
				}
				return ended.Add(10 * time.Millisecond)
			}
			return ended.Add(c.pause())
		})
		if counted < 100*time.Millisecond {
			t.Errorf("who waits, %s: %v count after %v", c.name, counted, c.within)
		}
	}
	// A script that asks 40 things and rests.
	n := 0
	if _, counted := simulate(time.Hour, 3*time.Millisecond, func(_, ended time.Time) time.Time {
		if n++; n%40 == 0 {
			return ended.Add(time.Second)
		}
		return ended
	}); counted > 0 {
		t.Errorf("a short script: %v count", counted)
	}
}
