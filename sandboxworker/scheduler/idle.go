package scheduler

import (
	"math"
	"time"
)

// size is how small an idle tenant's isolate has been made since it last ran.
type size uint8

const (
	untrimmed size = iota
	trimmed        // what it does not need is given back; garbage may be left
	collected      // there is no more to be had
)

// restBefore is how long a tenant rests before its isolate is made smaller. Garbage is collected late: it costs
// milliseconds, which of many tenants that are asked twice a minute come to more than all their requests.
func (s *Scheduler) restBefore(now size) time.Duration {
	switch now {
	case untrimmed:
		return s.opt.TrimAfter
	case trimmed:
		return 20 * s.opt.TrimAfter
	}
	return math.MaxInt64
}

// stale is a tenant whose isolate is to be made smaller because it has been idle for long: the one
// that has been for longest, or nil. Caller holds mu.
func (s *Scheduler) stale(now time.Time) *tenant {
	var v *tenant
	for _, t := range s.tenants {
		if t.idle() && now.Sub(t.lastRun) >= s.restBefore(t.size) && (v == nil || t.lastRun.Before(v.lastRun)) {
			v = t
		}
	}
	return v
}

// askToTrim is called now and then; it leaves the work to an executor that has none. Caller holds mu.
func (s *Scheduler) askToTrim(now time.Time) {
	if !s.trimming && s.stale(now) != nil {
		s.trimDue = true
		s.call()
	}
}

// resting reports, once, that nobody has run or gone for long and that every tenant has been trimmed. Caller
// holds mu.
func (s *Scheduler) resting(now time.Time) bool {
	if s.rested || s.trimming || now.Sub(s.lastRun) < s.opt.TrimAfter || s.stale(now) != nil {
		return false
	}
	s.rested = true
	return true
}

// takeStale claims a stale tenant for an executor that has nothing else to do, one in the process at
// a time. Caller holds mu.
func (s *Scheduler) takeStale() *tenant {
	if !s.trimDue || s.trimming {
		return nil
	}
	s.trimDue = false
	t := s.stale(time.Now())
	if t != nil {
		s.claim(t)
		t.lightly = t.size == untrimmed
		s.trimming = true
	}
	return t
}
