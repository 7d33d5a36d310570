package observe

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"bulkhead/schema/gen"
)

// IncidentKind says what happened to a shard or to a start. The set is closed: metrics use it.
type IncidentKind string

const (
	ShardDied      IncidentKind = "shardDied"      // the process ended without being asked to
	ShardViolation IncidentKind = "shardViolation" // it broke the protocol and was killed
	ShardStopped   IncidentKind = "shardStopped"   // it was stopped (SIGSTOP) and was killed
	ShardSilent    IncidentKind = "shardSilent"    // it did not answer within a deadline and was killed
	ShardOverdue   IncidentKind = "shardOverdue"   // a tenant's code used up its CPU where it cannot be interrupted
	SpawnFailed    IncidentKind = "spawnFailed"    // no verified shard could be had

	// Measures against a tenant, see detail for who took them and why.
	Isolated IncidentKind = "isolated" // its neighbours leave its process
	Gone     IncidentKind = "gone"     // the last of them has left, and what it left was wiped
	Released IncidentKind = "released" // it may share a process again
	Stopped  IncidentKind = "stopped"  // it was ended and does not run
)

// Incident is one line of `bulkhead incidents`. The JSON names are a contract.
type Incident struct {
	ID      string       `json:"id"`
	Time    time.Time    `json:"time"`
	Kind    IncidentKind `json:"kind"`
	Shard   uint32       `json:"shard"`
	Tenants []string     `json:"tenants"` // whose code may have done it; all hosted ones after a violation, none if it was killed from outside
	Outcome string       `json:"outcome"` // how their requests ended
	Signal  *string      `json:"signal"`  // "SIGSEGV"; null when none ended the process
	Syscall *string      `json:"syscall"` // "openat" or its number; null when unknown, see detail
	Detail  string       `json:"detail"`
	TookMs  float64      `json:"tookMs,omitempty"` // of "gone", from the verdict on
	// Scripts are the files in the data directory's scripts/ that hold the code of the tenants as it ran,
	// TENANT.HASH.json; [] where none is kept.
	Scripts []string `json:"scripts"`
}

// Incidents is a ring of the latest incidents.
type Incidents struct {
	log     *slog.Logger
	counted func(IncidentKind)
	record  func(Incident)

	mu   sync.Mutex
	ring []Incident // guarded by mu; oldest first once full, from next on
	next int        // guarded by mu
	seq  uint64     // guarded by mu
}

func newIncidents(n int, log *slog.Logger) *Incidents {
	return &Incidents{log: log, ring: make([]Incident, 0, n), counted: func(IncidentKind) {}, record: func(Incident) {}}
}

// Add gives the incident its id and, if it has none, its time, keeps it and logs it.
func (x *Incidents) Add(i Incident) Incident {
	if i.Time.IsZero() {
		i.Time = time.Now().UTC()
	}
	if i.Tenants == nil {
		i.Tenants = []string{} // [] in JSON, not null
	}
	if i.Scripts == nil {
		i.Scripts = []string{}
	}
	if i.Outcome == "" {
		i.Outcome = gen.Outcome_crashed.String()
	}
	x.mu.Lock()
	x.seq++
	// The time keeps ids apart over restarts, the number within one.
	i.ID = fmt.Sprintf("%s-%d", i.Time.UTC().Format("20060102T150405"), x.seq)
	if len(x.ring) < cap(x.ring) {
		x.ring = append(x.ring, i)
	} else {
		x.ring[x.next] = i
		x.next = (x.next + 1) % len(x.ring)
	}
	x.mu.Unlock()

	x.counted(i.Kind)
	x.record(i)
	x.log.Warn("incident", "id", i.ID, "kind", i.Kind, "shard", i.Shard, "tenants", i.Tenants,
		"outcome", i.Outcome, "signal", deref(i.Signal), "syscall", deref(i.Syscall), "detail", i.Detail)
	return i
}

// incidentEvent is an incident as the event log has it, which has a kind and a time of its own.
func incidentEvent(i Incident) any {
	return struct {
		ID       string       `json:"id"`
		Incident IncidentKind `json:"incident"`
		Shard    uint32       `json:"shard"`
		Tenants  []string     `json:"tenants"`
		Outcome  string       `json:"outcome"`
		Signal   *string      `json:"signal"`
		Syscall  *string      `json:"syscall"`
		Detail   string       `json:"detail"`
		TookMs   float64      `json:"tookMs,omitempty"`
		Scripts  []string     `json:"scripts"`
	}{i.ID, i.Kind, i.Shard, i.Tenants, i.Outcome, i.Signal, i.Syscall, i.Detail, i.TookMs, i.Scripts}
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// List returns the kept incidents, newest first.
func (x *Incidents) List() []Incident {
	x.mu.Lock()
	defer x.mu.Unlock()
	out := make([]Incident, 0, len(x.ring))
	out = append(append(out, x.ring[x.next:]...), x.ring[:x.next]...)
	slices.Reverse(out)
	return out
}
