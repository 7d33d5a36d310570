package observe

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// HostAPIUse meters one tenant's use of one of the operator's APIs.
type HostAPIUse struct {
	API            string
	results        [5]atomic.Uint64 // in the order of fetchResults
	Sent, Received atomic.Uint64    // bodies, bytes
}

// HostAPIInfo is HostAPIUse as the admin API lists it. The names are a contract.
type HostAPIInfo struct {
	API           string                 `json:"api"`
	Requests      uint64                 `json:"requests"`
	Results       map[FetchResult]uint64 `json:"results"`
	SentBytes     uint64                 `json:"sentBytes"` // by the tenant
	ReceivedBytes uint64                 `json:"receivedBytes"`
}

func fetchResults() [5]FetchResult {
	return [5]FetchResult{FetchDone, FetchFailed, FetchRefused, FetchShed, FetchCanceled}
}

// Count adds a request that is over.
func (u *HostAPIUse) Count(r FetchResult) {
	for i, known := range fetchResults() {
		if known == r {
			u.results[i].Add(1)
		}
	}
}

func (u *HostAPIUse) info() HostAPIInfo {
	i := HostAPIInfo{API: u.API, Results: map[FetchResult]uint64{}, SentBytes: u.Sent.Load(), ReceivedBytes: u.Received.Load()}
	for n, r := range fetchResults() {
		if c := u.results[n].Load(); c > 0 {
			i.Requests += c
			i.Results[r] = c
		}
	}
	return i
}

// maxHostAPIs is how many APIs of one tenant are metered apart. A policy declares a hundred at most, and
// names come from policies alone; those of many policies after each other are metered as one.
const maxHostAPIs = 128

// hostAPIs is a tenant's use of APIs, empty until it uses one.
type hostAPIs struct {
	mu   sync.Mutex
	uses map[string]*HostAPIUse // guarded by mu
}

// HostAPI returns the meter of an API that the policy permits the tenant.
func (t *Tenant) HostAPI(api string) *HostAPIUse {
	t.apis.mu.Lock()
	defer t.apis.mu.Unlock()
	if u := t.apis.uses[api]; u != nil {
		return u
	}
	if len(t.apis.uses) >= maxHostAPIs {
		api = otherTenants
		if u := t.apis.uses[api]; u != nil {
			return u
		}
	}
	if t.apis.uses == nil {
		t.apis.uses = map[string]*HostAPIUse{}
	}
	u := &HostAPIUse{API: api}
	t.apis.uses[api] = u
	return u
}

// HostAPIs lists a tenant's use of the operator's APIs, by name.
func (m *Metrics) HostAPIs(id string) []HostAPIInfo {
	x, ok := m.tenants.Load(id)
	if !ok {
		return nil
	}
	return x.(*Tenant).hostAPIs()
}

func (t *Tenant) hostAPIs() (list []HostAPIInfo) {
	t.apis.mu.Lock()
	defer t.apis.mu.Unlock()
	for _, u := range t.apis.uses {
		list = append(list, u.info())
	}
	slices.SortFunc(list, func(a, b HostAPIInfo) int { return cmp.Compare(a.API, b.API) })
	return list
}

var (
	hostAPIDesc = prometheus.NewDesc("bulkhead_host_api_requests_total", "Requests of workers to the operator's APIs, by tenant, API and result.",
		[]string{"tenant", "api", "result"}, nil)
	hostAPIBytesDesc = prometheus.NewDesc("bulkhead_host_api_bytes_total", "Bodies of requests to the operator's APIs, by tenant, API and direction, bytes.",
		[]string{"tenant", "api", "direction"}, nil)
)

// hostAPISums accumulates the use of tenants without a label of their own, by API.
type hostAPISums map[string]*HostAPIUse

func (s hostAPISums) collect(ch chan<- prometheus.Metric, t *Tenant) {
	for _, i := range t.hostAPIs() {
		if t.labelled {
			emitHostAPI(ch, t.ID, i)
			continue
		}
		u := s[i.API]
		if u == nil {
			u = &HostAPIUse{API: i.API}
			s[i.API] = u
		}
		for n, r := range fetchResults() {
			u.results[n].Add(i.Results[r])
		}
		u.Sent.Add(i.SentBytes)
		u.Received.Add(i.ReceivedBytes)
	}
}

func (s hostAPISums) emit(ch chan<- prometheus.Metric) {
	for _, u := range s {
		emitHostAPI(ch, otherTenants, u.info())
	}
}

func emitHostAPI(ch chan<- prometheus.Metric, tenant string, i HostAPIInfo) {
	for r, n := range i.Results {
		ch <- prometheus.MustNewConstMetric(hostAPIDesc, prometheus.CounterValue, float64(n), tenant, i.API, string(r))
	}
	for d, n := range map[string]uint64{"sent": i.SentBytes, "received": i.ReceivedBytes} {
		if n > 0 {
			ch <- prometheus.MustNewConstMetric(hostAPIBytesDesc, prometheus.CounterValue, float64(n), tenant, i.API, d)
		}
	}
}
