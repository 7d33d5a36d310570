// Package gateway is the front of bulkhead: HTTP from clients in, requests to sealed shards, the
// tenants' answers out; and the operators' admin API.
//
// Duty: find the tenant of a request, hand the request to a shard of its own through placement
// and ipc/gatewayside, copy bodies both ways under back-pressure, and give every request exactly
// one answer, its tenant's or ours, with an id and, if it is ours, with an outcome.
//
// Trust: none in clients. A connection's bytes pass a strict reader (strict.go) before net/http
// sees them: whatever two HTTP parsers could read differently is refused, not repaired. None in
// shards either: ipc/gatewayside has checked every frame against its stream; what is left to do
// here is header hygiene, so that a tenant can forge neither framing nor `bulkhead-*` fields.
//
// Invariants: memory per request is bounded (heads by limits.Wire, bodies by stream windows and
// pooled buffers). A response whose head is out either ends as announced or the connection is
// cut where the client can see it. Nothing here waits without a deadline. The path of a request
// takes no lock shared between requests, parses no JSON and uses no reflection.
package gateway
