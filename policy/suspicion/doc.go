// Package suspicion says how suspicious a tenant is, and what is to be done about it.
//
// Duty: turn what was observed of a tenant into a score with parts, and the score into a verdict:
// nothing, watch, isolate or stop. Every part says what it counts and how much of it there was, so
// that whoever reads a verdict can see why it was given.
//
// Trust: most observations are the words of the shard that runs the tenant. They are believed as far
// as they go against the tenant: a shard that lies to protect one of its tenants has been taken over
// already, and then its process is all that holds it. They never clear anybody whom the gateway's own
// observations (deaths, breaches of the protocol, starts of others) speak against.
//
// Why not a ratio: a signal divided by another that the tenant controls can be diluted by it. The
// published attack on a host like this one hid behind I/O that inflated the divisor. Everything here
// is a sum of something absolute (milliseconds of CPU, occurrences), so whatever else a tenant does
// beside what is counted makes nothing smaller.
//
// Invariants: pure functions of their arguments, time included; no effects, no clock, no memory of
// their own. A score never falls because something more was observed.
package suspicion
