package scheduler

import "time"

// Requests in lockstep: each begins when the one before has ended, over and over. Somebody waits for each answer
// before asking the next, as who measures with short requests does, with pauses of whatever length up to
// lockstepGap or without. Visitors come independently of each other: of so many that they leave no longer gap,
// some ask while another is being answered. How many would, follows from how often they come and how long an
// answer takes; that none do although a dozen should have happens to visitors once in some hundred thousand rows,
// and to who waits always.
const (
	lockstepGap = 100 * time.Millisecond
	// lockstepRun is the least length of a row: scripts that ask a few dozen things are let be.
	lockstepRun = 64
	// lockstepMissed is how many requests should have come while another was being answered, and did not. With
	// one that does come, three that did not are forgotten: who waits cannot hide among a few that do not.
	lockstepMissed  = 12
	lockstepForgets = 3
)

// row is a row of requests, each of which waited for the one before. The zero value is one that has not begun.
type row struct {
	n       int           // requests so far
	missed  float64       // that should have come while another was being answered, and did not
	pending time.Duration // CPU of theirs that does not count yet

	first, began, ended time.Time
	resting             bool // the last thing that happened was a request's end
}

// begins notes that a request comes.
func (r *row) begins(now time.Time) {
	switch {
	case r.n > 0 && !r.resting:
		if r.missed -= lockstepForgets; r.missed < 0 {
			*r = row{first: now}
		}
	case !r.resting || now.Sub(r.ended) >= lockstepGap:
		*r = row{first: now}
	default:
		rate := float64(r.n) / max(now.Sub(r.first).Seconds(), 1e-3)
		r.missed += rate * r.ended.Sub(r.began).Seconds()
	}
	r.n++
	r.began, r.resting = now, false
}

// ends notes that one is over.
func (r *row) ends(now time.Time) { r.ended, r.resting = now, true }

// counts is what CPU of requests counts as lockstep: none at first, and what was pending once that is sure.
func (r *row) counts(cpu time.Duration) time.Duration {
	r.pending += cpu
	if r.n < lockstepRun || r.missed < lockstepMissed {
		return 0
	}
	cpu, r.pending = r.pending, 0
	return cpu
}
