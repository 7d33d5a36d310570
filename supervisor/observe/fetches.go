package observe

import "github.com/prometheus/client_golang/prometheus"

// FetchResult says what came of a subrequest. The set is closed: metrics use it.
type FetchResult string

const (
	FetchDone     FetchResult = "done"     // there was a response, and the shard has all of it
	FetchFailed   FetchResult = "failed"   // the upstream's fault, or the network's
	FetchRefused  FetchResult = "refused"  // by an egress rule
	FetchShed     FetchResult = "shed"     // a limit on what is open at once
	FetchCanceled FetchResult = "canceled" // its invocation stopped waiting
)

// fetches are the counters of subrequests.
type fetches struct {
	results *prometheus.CounterVec
	refused *prometheus.CounterVec
}

func newFetches() fetches {
	return fetches{
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bulkhead_fetches_total", Help: "Subrequests by result: done, failed, refused, shed, canceled."}, []string{"result"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bulkhead_fetch_refused_total", Help: "Subrequests that an egress rule refused, by rule."}, []string{"rule"}),
	}
}

// Fetched counts a subrequest that is over.
func (m *Metrics) Fetched(r FetchResult) { m.fetches.results.WithLabelValues(string(r)).Inc() }

// FetchRefused counts a subrequest that a rule refused; rule is one of the closed set of policy/egress.
func (m *Metrics) FetchRefused(rule string) { m.fetches.refused.WithLabelValues(rule).Inc() }

var fetchBytesDesc = prometheus.NewDesc("bulkhead_fetch_bytes_total", "Bodies of subrequests, by tenant and direction, bytes.",
	[]string{"tenant", "direction"}, nil)

// fetchBytes accumulates the bodies of tenants without a label of their own.
type fetchBytes struct{ sent, received uint64 }

// collect emits t's counters, or adds them to the others'.
func (b *fetchBytes) collect(ch chan<- prometheus.Metric, t *Tenant) {
	sent, received := t.FetchSent.Load(), t.FetchReceived.Load()
	if !t.labelled {
		b.sent += sent
		b.received += received
		return
	}
	emitFetchBytes(ch, t.ID, sent, received)
}

func emitFetchBytes(ch chan<- prometheus.Metric, tenant string, sent, received uint64) {
	for _, d := range []struct {
		name string
		n    uint64
	}{{"sent", sent}, {"received", received}} {
		if d.n > 0 {
			ch <- prometheus.MustNewConstMetric(fetchBytesDesc, prometheus.CounterValue, float64(d.n), tenant, d.name)
		}
	}
}
