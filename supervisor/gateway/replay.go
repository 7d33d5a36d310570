package gateway

import (
	"bulkhead/ipc/gatewayside"
	"bulkhead/schema/gen"
)

// Effect-aware replay (DESIGN section 6). All that a tenant can do to the world passes through this
// process, so it knows whether a request had an effect. One that had none is run again when its
// shard dies, whatever its method: it was asked for once and will have happened once.

const (
	// maxAttempts bounds how often a request is begun whose shards others ended. One that was alone
	// in its shard, and perhaps the cause, is begun three times at most.
	maxAttempts = 6
	// maxTries bounds how often a request meets shards that die before it is sent to them.
	maxTries = 6
)

// Why a request that died with its shard was not run again; labels of bulkhead_interrupted_total.
const (
	interruptedResponse  = "response"  // part of its response had gone out
	interruptedEffect    = "effect"    // it had changed something elsewhere
	interruptedBody      = "body"      // its body was too large to keep
	interruptedWaitUntil = "waitUntil" // its response was complete, only waitUntil was cut off
	interruptedAttempts  = "attempts"  // it met too many deaths
)

// died says whether an outcome is that of a shard's death. No shard can claim these.
func died(o gen.Outcome) bool {
	return o == gen.Outcome_crashed || o == gen.Outcome_protocolViolation
}

// again decides what becomes of a request whose shard died before its response began: true, it is
// begun anew, where placement's verdict sends its tenant. The lease is released.
func (c *call) again(stream *gatewayside.Stream) bool {
	if stream.Evacuated() {
		// Its process lives; the tenant was told to leave it before anything came of the request.
		c.drop()
		c.req.Attempt++
		c.s.obs.Metrics.Replayed()
		return true
	}
	v := c.lease.Verdict(c.r.Context(), stream)
	if v.Alone {
		c.alone++
	}
	why := ""
	switch {
	case v.Again || c.alone > 2:
		// Its own doing: another shard would only be the next.
		return false
	case stream.Effects() != 0:
		why = interruptedEffect
	case c.pump != nil && !c.pump.whole():
		why = interruptedBody
	case c.req.Attempt >= maxAttempts:
		why = interruptedAttempts
	}
	if why != "" {
		c.s.obs.Metrics.Interrupted(why)
		return false
	}
	c.drop()
	c.req.Attempt++
	c.s.obs.Metrics.Replayed()
	return true
}
