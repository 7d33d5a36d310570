package observe

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// CacheResult says what came of an operation of a Cache API. The set is closed: metrics use it.
type CacheResult int

const (
	CacheHit CacheResult = iota
	CacheMiss
	CacheStored
	CacheRefused // a put that kept nothing
	CacheEvicted // an entry that was dropped for want of room
	cacheResults
)

func (r CacheResult) String() string {
	return [cacheResults]string{"hit", "miss", "stored", "refused", "evicted"}[r]
}

// CacheUse meters one tenant's Cache API.
type CacheUse struct {
	results        [cacheResults]atomic.Uint64
	Entries, Bytes atomic.Int64 // kept now
}

// Count adds one result.
func (u *CacheUse) Count(r CacheResult) { u.results[r].Add(1) }

// CacheInfo is CacheUse as the admin API lists it. The names are a contract.
type CacheInfo struct {
	Entries int64             `json:"entries"`
	Bytes   int64             `json:"bytes"`
	Results map[string]uint64 `json:"results"`
}

// Cache returns the meter of the tenant's Cache API.
func (t *Tenant) Cache() *CacheUse {
	if u := t.cache.Load(); u != nil {
		return u
	}
	t.cache.CompareAndSwap(nil, &CacheUse{})
	return t.cache.Load()
}

// Cache describes a tenant's use of its Cache API, nil if there was none.
func (m *Metrics) Cache(id string) *CacheInfo {
	x, ok := m.tenants.Load(id)
	if !ok {
		return nil
	}
	u := x.(*Tenant).cache.Load()
	if u == nil {
		return nil
	}
	i := &CacheInfo{Entries: u.Entries.Load(), Bytes: u.Bytes.Load(), Results: map[string]uint64{}}
	for r := range cacheResults {
		if n := u.results[r].Load(); n > 0 {
			i.Results[r.String()] = n
		}
	}
	return i
}

var (
	cacheDesc      = prometheus.NewDesc("bulkhead_cache_total", "Operations of the Cache API by tenant and result: hit, miss, stored, refused, evicted.", []string{"tenant", "result"}, nil)
	cacheBytesDesc = prometheus.NewDesc("bulkhead_cache_bytes", "Responses kept for the Cache API, by tenant, bytes.", []string{"tenant"}, nil)
)

// cacheSums accumulates the use of tenants without a label of their own.
type cacheSums struct {
	results [cacheResults]uint64
	bytes   int64
}

func (s *cacheSums) collect(ch chan<- prometheus.Metric, t *Tenant) {
	u := t.cache.Load()
	if u == nil {
		return
	}
	var own cacheSums
	into := s
	if t.labelled {
		into = &own
	}
	for r := range cacheResults {
		into.results[r] += u.results[r].Load()
	}
	into.bytes += u.Bytes.Load()
	if t.labelled {
		own.emit(ch, t.ID)
	}
}

func (s *cacheSums) emit(ch chan<- prometheus.Metric, tenant string) {
	for r := range cacheResults {
		if n := s.results[r]; n > 0 {
			ch <- prometheus.MustNewConstMetric(cacheDesc, prometheus.CounterValue, float64(n), tenant, r.String())
		}
	}
	if s.bytes > 0 {
		ch <- prometheus.MustNewConstMetric(cacheBytesDesc, prometheus.GaugeValue, float64(s.bytes), tenant)
	}
}
