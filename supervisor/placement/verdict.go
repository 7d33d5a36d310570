package placement

import (
	"context"
	"errors"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/policy/suspicion"
	"bulkhead/supervisor/launcher/orders"

	"golang.org/x/sys/unix"
)

// Verdict is what a shard's death means for one request that was in it. Placement has then already
// taken measures: acquiring the tenant again leads to where it may run now.
type Verdict struct {
	// Alone: the request's code was running, as far as is known, and nobody else's has ever been in
	// the shard.
	Alone bool
	// Again: and it was there because it had been a suspect before, and the shard did not merely
	// fall silent, which may have been the machine's fault. Running it once more would end the next
	// shard.
	Again bool
}

// judgement of a shard's end, made once; requests wait for it.
type judgement struct {
	done    chan struct{} // closed when finding is set
	finding finding       // written before done is closed
	mixed   bool          // as finding; more than one tenant has been in the shard
	soft    bool          // as finding; it was silent
}

// Verdict waits, not for long, until it is known why the shard of this lease died. To be asked
// before Release, for a stream that ended with its shard.
func (l Lease) Verdict(ctx context.Context, s *gatewayside.Stream) Verdict {
	j := &l.shard.judged
	timer := time.NewTimer(judgeTimeout)
	defer timer.Stop()
	select {
	case <-j.done:
	case <-timer.C:
		return Verdict{} // waiting longer helps nobody; the attempts are bounded anyway
	case <-ctx.Done():
		return Verdict{}
	}
	f := &j.finding
	v := Verdict{Alone: !j.mixed && f.executing[s.ID()] && suspected(f, l.handle)}
	v.Again = v.Alone && l.shard.cohort != 0 && !j.soft
	return v
}

// judgeTimeout is how long a request waits for the reason of its shard's death: for the kernel to
// take a large process apart, and for the launcher's report.
const judgeTimeout = 2 * time.Second

func suspected(f *finding, handle uint32) bool {
	for _, t := range f.suspects {
		if t == handle {
			return true
		}
	}
	return false
}

// judge finds who is to blame for a shard's end, takes measures, and lets those know who wait. It
// returns the ids of the suspects.
func (p *Pool) judge(s *shard, why error, exit orders.Exit) []string {
	e := evidence{why: why, exit: exit, ours: s.failure.Load() != nil || errors.Is(why, gatewayside.ErrUnresponsive), flight: s.conn.InFlight()}
	e.box, e.boxed = readBox(s.proc.BlackBox)
	if silent := (*gatewayside.SilentError)(nil); errors.As(why, &silent) {
		e.silent = silent.Running
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	ids := make(map[uint32]string, len(s.hosted))
	for h, pl := range s.hosted {
		ids[h] = pl.v.Tenant
		e.hosted = append(e.hosted, h)
		if !pl.loaded() {
			e.loads = append(e.loads, h)
		}
	}
	e.mixed = s.mixed
	f := find(&e)
	s.box = e.box
	s.judged.finding, s.judged.mixed, s.judged.soft = f, s.mixed, errors.Is(why, gatewayside.ErrUnresponsive)
	var suspects []string
	for _, h := range f.suspects {
		if id := ids[h]; id != "" {
			suspects = append(suspects, id)
		}
	}
	suspects = unique(suspects)
	if len(suspects) == 0 && !f.outside {
		for h := range f.present {
			s.there = append(s.there, ids[h])
		}
		s.there = unique(s.there)
	}
	if !s.retiring {
		p.accuseLocked(suspects, f.proven)
		if f.proven && len(suspects) == 1 {
			sig := suspicion.Aborts
			if errors.As(why, new(*ipc.ViolationError)) || errors.Is(why, errHungUp) || exit.Signal == unix.SIGSYS {
				sig = suspicion.Violations
			}
			p.Observed(suspects[0], sig, 1)
		}
		if s.cohort == 0 && !f.outside {
			// Who was there, as the gateway knows it: the box may have been written by who did it.
			var others []string
			for h := range f.present {
				if !suspected(&f, h) {
					others = append(others, ids[h])
				}
			}
			p.accuseLocked(p.meetLocked(unique(others)), false)
		}
	}
	close(s.judged.done)
	return suspects
}

// blamed says, for a load that ended with its shard, whether its own tenant may have done it.
func (s *shard) blamed(ctx context.Context, pl *place) bool {
	timer := time.NewTimer(judgeTimeout)
	defer timer.Stop()
	select {
	case <-s.judged.done:
		return suspected(&s.judged.finding, pl.handle)
	case <-timer.C:
	case <-ctx.Done():
	}
	return true
}

// words is what the black box says of faults, for people.
func words(box []ipc.Running) string {
	for _, r := range box {
		if r.Fault != 0 && r.Detail != "" {
			return r.Detail
		}
	}
	return ""
}
