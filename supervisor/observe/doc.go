// Package observe is what operators see: structured logs, each tenant's own log, incidents and
// metrics.
//
// Duty: keep what happened where people and programs can read it, in memory and within fixed
// bounds, and never be the reason why a request waits.
//
// Trust: log text and messages come from shards, so from tenants. They are kept as data, written
// as JSON strings, and bounded before they get here. Tenant ids come from the registry alone.
//
// Invariants: memory is bounded by Options whatever tenants do: bytes of log per tenant and in
// all, incidents in the ring, values of the metric label `tenant`. Nothing here blocks on a
// reader. Counting a request takes no lock.
package observe

import (
	"io"
	"log/slog"
)

// NewLogger writes one JSON object a line to w: what systemd's journal and log shippers read.
func NewLogger(w io.Writer, level slog.Leveler) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
}

// Options bounds what is kept. Zero fields take the default.
type Options struct {
	LogBytesPerTenant int      // log text and request ids kept for one tenant, bytes; 256 KiB
	LogBytes          int      // the same over all tenants, bytes; 64 MiB
	Incidents         int      // incidents kept; 1024
	Events            *Events  // the event log; may be nil
	Scripts           *Scripts // keeps the code of tenants that incidents name; may be nil
	TenantLabels      int      // distinct values of the metric label `tenant`; 200, the others are summed as "_other"
}

func (o Options) withDefaults() Options {
	if o.LogBytesPerTenant <= 0 {
		o.LogBytesPerTenant = 256 << 10
	}
	if o.LogBytes <= 0 {
		o.LogBytes = 64 << 20
	}
	if o.Incidents <= 0 {
		o.Incidents = 1024
	}
	if o.TenantLabels <= 0 {
		o.TenantLabels = 200
	}
	return o
}

// Observer holds everything the gateway observes. Its parts are safe for concurrent use.
type Observer struct {
	Log       *slog.Logger
	Logs      *Logs
	Incidents *Incidents
	Metrics   *Metrics
	Events    *Events  // nil: there is no event log
	Scripts   *Scripts // nil: none are kept
	often     often
}

// New makes an observer that logs to log.
func New(log *slog.Logger, o Options) *Observer {
	o = o.withDefaults()
	ob := &Observer{
		Log:       log,
		Logs:      newLogs(o.LogBytesPerTenant, o.LogBytes),
		Incidents: newIncidents(o.Incidents, log),
		Metrics:   newMetrics(o.TenantLabels),
	}
	ob.Events, ob.Scripts = o.Events, o.Scripts
	ob.Incidents.counted = ob.Metrics.incident
	ob.Incidents.record = func(i Incident) { ob.Events.Add("incident", incidentEvent(i)) }
	return ob
}
