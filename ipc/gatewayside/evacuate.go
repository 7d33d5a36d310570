package gatewayside

import (
	"time"

	"bulkhead/schema/gen"
)

// Evacuate ends those invocations of a tenant that can be begun again elsewhere without anybody knowing:
// no part of a response has come, nothing was done to the world, and the request's body was sent whole.
// Their streams end crashed, and Evacuated says why; whoever waits for them begins them anew. The others
// go on. It returns how many it ended.
func (c *Conn) Evacuate(tenant uint32) (ended int) {
	c.mu.Lock()
	var mine []*Stream
	for _, s := range c.streams {
		if s.tenant == tenant {
			mine = append(mine, s)
		}
	}
	c.mu.Unlock()
	now := time.Now()
	for _, s := range mine {
		if s.evacuate(now) {
			ended++
		}
	}
	return ended
}

// evacuate ends the stream if it had no effect. Under mu no effect can begin, see Affect.
func (s *Stream) evacuate(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || s.head != nil || s.request != bodyClosed || s.streamed || s.effects.Load() != 0 {
		return false
	}
	s.evacuated.Store(true)
	s.expired = true // asked to end; a shard that does not comply is found by the sweep
	s.deadline.Store(now.Add(s.grace).UnixNano())
	s.drop()
	s.conclude(Result{Outcome: gen.Outcome_crashed, Message: "moved to another process"})
	s.c.w.begin().Abort(s.id, gen.Abort_Reason_deadline, "")
	s.c.w.end()
	return true
}

// Evacuated says whether the stream was ended so that its invocation is begun again elsewhere.
func (s *Stream) Evacuated() bool { return s.evacuated.Load() }
