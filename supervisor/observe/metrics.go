package observe

import (
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"bulkhead/schema/gen"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Outcomes is the size of the closed set of outcomes, its zero included.
const Outcomes = int(gen.Outcome_internalError) + 1

// otherTenants is the label of the tenants beyond Options.TenantLabels. It is no tenant id.
const otherTenants = "_other"

// Metrics counts. What requests touch are plain atomics, collected when somebody asks.
type Metrics struct {
	registry *prometheus.Registry
	latency  prometheus.Histogram
	cold     prometheus.Histogram
	spawn    prometheus.Histogram
	refused  *prometheus.CounterVec
	deaths   *prometheus.CounterVec
	events   *prometheus.CounterVec
	replays  prometheus.Counter
	broken   prometheus.Counter
	cut      *prometheus.CounterVec
	sockets  *prometheus.CounterVec
	fetches  fetches

	labels   int
	tenants  sync.Map     // id → *Tenant
	labelled atomic.Int64 // tenants with a label of their own

	gauges atomic.Pointer[func() Gauges]
}

// Gauges is the state that placement and the registry report when metrics are read.
type Gauges struct {
	Shards, Spares, TenantsKnown, TenantsLoaded int
}

// Tenant counts what one tenant's requests came to.
type Tenant struct {
	ID       string
	labelled bool
	outcomes [Outcomes]atomic.Uint64
	Running  atomic.Int64 // invocations admitted and not over, waitUntil included

	FetchSent, FetchReceived atomic.Uint64 // bodies of subrequests, bytes
	apis                     hostAPIs
	cache                    atomic.Pointer[CacheUse] // made at its first use
}

// Count adds one invocation that ended so.
func (t *Tenant) Count(o gen.Outcome) {
	if int(o) < Outcomes {
		t.outcomes[o].Add(1)
	}
}

// Counts returns the number of finished invocations and, by outcome, those that are not zero.
func (t *Tenant) Counts() (requests uint64, byOutcome map[string]uint64) {
	byOutcome = map[string]uint64{}
	for o := range t.outcomes {
		if n := t.outcomes[o].Load(); n > 0 {
			requests += n
			byOutcome[gen.Outcome(o).String()] = n
		}
	}
	return requests, byOutcome
}

func newMetrics(labels int) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		labels:   labels,
		fetches:  newFetches(),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "bulkhead_request_seconds", Help: "From the request's head to the end of the response.",
			Buckets: []float64{.0002, .0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30},
		}),
		cold: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "bulkhead_load_seconds", Help: "Loading a tenant's version into a shard.",
			Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5},
		}),
		spawn: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "bulkhead_spawn_seconds", Help: "From the order to a shard whose seal was verified twice.",
			Buckets: []float64{.01, .02, .05, .1, .2, .5, 1, 2, 5, 10},
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bulkhead_refused_total", Help: "Requests that no tenant got to see, by HTTP status."}, []string{"status"}),
		deaths: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bulkhead_incidents_total", Help: "Incidents by kind."}, []string{"kind"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bulkhead_placement_total", Help: "Placement events: spawned, spawnFailed, loaded, loadFailed, evicted, respawned."}, []string{"event"}),
		replays: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "bulkhead_replays_total", Help: "Requests tried again on another shard after a death."}),
		broken: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "bulkhead_broken_responses_total", Help: "Responses cut after their head was sent."}),
	}
	m.cut = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "bulkhead_interrupted_total", Help: "Requests that ended with their shard and could not be run again, by reason."}, []string{"reason"})
	m.sockets = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "bulkhead_websockets_ended_total", Help: "WebSockets that have ended, by the other end's side (client, upstream) and what ended them: peer, worker, gone, stalled, breach, replaced, shutdown, or the outcome of the invocation."},
		[]string{"side", "reason"})
	m.registry.MustRegister(m.sockets, m.cut, m.latency, m.cold, m.spawn, m.refused, m.deaths, m.events, m.replays, m.broken,
		m.fetches.results, m.fetches.refused,
		collectors.NewGoCollector(), tenantCollector{m})
	return m
}

// Tenant returns the counters of a tenant of the registry. The set grows with the registry, not
// with what clients ask for.
func (m *Metrics) Tenant(id string) *Tenant {
	if t, ok := m.tenants.Load(id); ok {
		return t.(*Tenant)
	}
	fresh := &Tenant{ID: id, labelled: m.labelled.Add(1) <= int64(m.labels)}
	t, loaded := m.tenants.LoadOrStore(id, fresh)
	if loaded || !fresh.labelled {
		m.labelled.Add(-1)
	}
	return t.(*Tenant)
}

// Forget drops the counters of a tenant whose folder is gone, so that folders that come and go
// take neither memory nor labels for ever. One with requests in flight is kept: it is asked for
// again with the next tenant of that name, or stays.
func (m *Metrics) Forget(id string) {
	x, ok := m.tenants.Load(id)
	if !ok || x.(*Tenant).Running.Load() > 0 {
		return
	}
	if m.tenants.CompareAndDelete(id, x) && x.(*Tenant).labelled {
		m.labelled.Add(-1)
	}
}

// Requests returns what Tenant.Counts does, without making counters for a tenant nobody asked for.
func (m *Metrics) Requests(id string) (requests uint64, byOutcome map[string]uint64) {
	if t, ok := m.tenants.Load(id); ok {
		return t.(*Tenant).Counts()
	}
	return 0, map[string]uint64{}
}

// Latency records how long a whole request took.
func (m *Metrics) Latency(d time.Duration) { m.latency.Observe(d.Seconds()) }

// Loaded records a load into a shard.
func (m *Metrics) Loaded(d time.Duration) {
	m.cold.Observe(d.Seconds())
	m.events.WithLabelValues("loaded").Inc()
}

// Spawned records a new verified shard.
func (m *Metrics) Spawned(d time.Duration) {
	m.spawn.Observe(d.Seconds())
	m.events.WithLabelValues("spawned").Inc()
}

// Event counts one placement event; name is one of a fixed few.
func (m *Metrics) Event(name string) { m.events.WithLabelValues(name).Inc() }

// Refused counts a request answered without a tenant; status is one of the few we use.
func (m *Metrics) Refused(status string) { m.refused.WithLabelValues(status).Inc() }

// Replayed counts a second attempt.
func (m *Metrics) Replayed() { m.replays.Inc() }

// Interrupted counts a request that ended with its shard and was not run again; reason is one of a
// fixed few.
func (m *Metrics) Interrupted(reason string) { m.cut.WithLabelValues(reason).Inc() }

// SocketEnded counts a WebSocket's end; side and reason are of a fixed few.
func (m *Metrics) SocketEnded(side, reason string) { m.sockets.WithLabelValues(side, reason).Inc() }

// Broken counts a response that was cut after its head was sent.
func (m *Metrics) Broken() { m.broken.Inc() }

func (m *Metrics) incident(k IncidentKind) { m.deaths.WithLabelValues(string(k)).Inc() }

// SetGauges says where current numbers come from.
func (m *Metrics) SetGauges(f func() Gauges) { m.gauges.Store(&f) }

// Handler serves the text format of Prometheus.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// tenantCollector turns the atomics into metrics at the moment of a scrape.
type tenantCollector struct{ m *Metrics }

var (
	requestsDesc = prometheus.NewDesc("bulkhead_requests_total", "Invocations by tenant and outcome.", []string{"tenant", "outcome"}, nil)
	runningDesc  = prometheus.NewDesc("bulkhead_running", "Invocations in flight.", nil, nil)
	shardsDesc   = prometheus.NewDesc("bulkhead_shards", "Sealed worker processes, by use.", []string{"use"}, nil)
	tenantsDesc  = prometheus.NewDesc("bulkhead_tenants", "Tenants, by state.", []string{"state"}, nil)
	coresDesc    = prometheus.NewDesc("bulkhead_gateway_cores", "GOMAXPROCS of the gateway.", nil, nil)
)

func (c tenantCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{requestsDesc, runningDesc, shardsDesc, tenantsDesc, coresDesc, fetchBytesDesc, hostAPIDesc, hostAPIBytesDesc, cacheDesc, cacheBytesDesc} {
		ch <- d
	}
}

func (c tenantCollector) Collect(ch chan<- prometheus.Metric) {
	var other [Outcomes]uint64
	var otherBytes fetchBytes
	apis := hostAPISums{}
	var caches cacheSums
	var running int64
	c.m.tenants.Range(func(_, v any) bool {
		t := v.(*Tenant)
		running += t.Running.Load()
		otherBytes.collect(ch, t)
		apis.collect(ch, t)
		caches.collect(ch, t)
		for o := range t.outcomes {
			n := t.outcomes[o].Load()
			switch {
			case n == 0:
			case t.labelled:
				ch <- prometheus.MustNewConstMetric(requestsDesc, prometheus.CounterValue, float64(n), t.ID, gen.Outcome(o).String())
			default:
				other[o] += n
			}
		}
		return true
	})
	apis.emit(ch)
	caches.emit(ch, otherTenants)
	emitFetchBytes(ch, otherTenants, otherBytes.sent, otherBytes.received)
	for o, n := range other {
		if n > 0 {
			ch <- prometheus.MustNewConstMetric(requestsDesc, prometheus.CounterValue, float64(n), otherTenants, gen.Outcome(o).String())
		}
	}
	ch <- prometheus.MustNewConstMetric(runningDesc, prometheus.GaugeValue, float64(running))
	ch <- prometheus.MustNewConstMetric(coresDesc, prometheus.GaugeValue, float64(runtime.GOMAXPROCS(0)))
	if f := c.m.gauges.Load(); f != nil {
		g := (*f)()
		ch <- prometheus.MustNewConstMetric(shardsDesc, prometheus.GaugeValue, float64(g.Shards), "serving")
		ch <- prometheus.MustNewConstMetric(shardsDesc, prometheus.GaugeValue, float64(g.Spares), "spare")
		ch <- prometheus.MustNewConstMetric(tenantsDesc, prometheus.GaugeValue, float64(g.TenantsKnown), "known")
		ch <- prometheus.MustNewConstMetric(tenantsDesc, prometheus.GaugeValue, float64(g.TenantsLoaded), "loaded")
	}
}
