package scheduler

import (
	"fmt"

	"bulkhead/schema/gen"
)

// bodyWithin counts n more bytes of a response's body. Beyond the limit the invocation ends, and what
// was sent of the response stays without an end.
func (x *executor) bodyWithin(t *tenant, inv *invocation, n int) bool {
	inv.body += uint64(n)
	if inv.body <= t.limits.responseBytes {
		return true
	}
	x.refuse(t, inv, fmt.Sprintf("the response body exceeded its limit of %d bytes: %d were written", t.limits.responseBytes, inv.body))
	return false
}

// refuse ends an invocation whose response cannot be sent, and tells its log: nothing was thrown that
// would stand there.
func (x *executor) refuse(t *tenant, inv *invocation, why string) {
	x.s.logs.put(t, line{requestID: inv.requestID, attempt: inv.attempt, timeMs: t.clock, level: gen.LogEntry_Level_error, text: why})
	x.finish(inv, gen.Outcome_exception, why)
	x.tell(t, inv)
}

// memoryLimitMessage says that t passed its memory limit. What V8 counted last may be less: it then
// asked for more than was left.
func memoryLimitMessage(t *tenant) string {
	const mib = 1 << 20
	var used uint64
	if t.iso != nil {
		u := t.iso.Usage()
		used = u.HeapBytes + u.ExternalBytes
	}
	if used <= t.limits.memory {
		return fmt.Sprintf("exceeded its memory limit of %d MiB: used %d MiB and asked for more than was left", t.limits.memory/mib, used/mib)
	}
	return fmt.Sprintf("exceeded its memory limit of %d MiB: used %.1f MiB", t.limits.memory/mib, float64(used)/mib)
}

// logAccount bounds the text that one invocation logs, or code that belongs to none between two
// requests.
type logAccount struct {
	bytes   int
	dropped int // lines
}

// take returns how much of a line of n bytes may be passed on: none of it if it is to be dropped.
func (a *logAccount) take(n, limit int) (allowed int, ok bool) {
	left := limit - a.bytes
	if left <= 0 {
		a.dropped++
		return 0, false
	}
	n = min(n, left)
	a.bytes += n + 1
	return n, true
}
