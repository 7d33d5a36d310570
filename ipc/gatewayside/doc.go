// Package gatewayside is the gateway's end of the two channels to one shard.
//
// Duty: open streams, move their bodies both ways under back-pressure, load and evict
// tenants, notice that the shard died or hangs, and give every stream exactly one result.
//
// Trust: none in the shard. Each frame is decoded within policy/limits.Wire and then judged
// against the state of that very stream: an id the gateway never gave, a chunk beyond the
// window, a second head, an outcome only the gateway may decide, an RPC answer to a question
// never asked are violations. A violation ends the connection, is reported once to
// Options.OnViolation, and every open stream ends protocolViolation.
//
// Invariants:
//   - The reader never blocks on a stream: what a stream buffers is bounded by the window it
//     granted, and data nobody wants any more is dropped, not kept.
//   - One writer goroutine writes; frames that gather while it writes leave in one write(2).
//   - Nothing is awaited without a deadline: a stream that outlives its tenant's limits, a
//     ping without an answer and a control call each have one.
//   - A stream id is never used twice, and nothing is believed of a stream after its done.
package gatewayside
