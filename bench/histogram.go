package main

import (
	"math/bits"
	"time"
)

// histogram counts durations in buckets of about 3 % width, from 1 µs to some hours. The zero value
// is empty. It is not safe for concurrent use.
type histogram struct {
	counts [1024]uint32
	n      int
	max    time.Duration
}

// bucketOf: 32 buckets to each power of two, exact below 32 µs.
func bucketOf(d time.Duration) int {
	us := uint64(max(d.Microseconds(), 0))
	if us < 32 {
		return int(us)
	}
	e := bits.Len64(us) - 6
	return min((e+1)*32+int(us>>e)-32, 1023)
}

// bucketTop is the longest duration of a bucket.
func bucketTop(i int) time.Duration {
	if i < 32 {
		return time.Duration(i) * time.Microsecond
	}
	e := i/32 - 1
	return time.Duration(uint64(i%32+33)<<e-1) * time.Microsecond
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucketOf(d)]++
	h.n++
	h.max = max(h.max, d)
}

func (h *histogram) merge(o *histogram) {
	for i, c := range o.counts {
		h.counts[i] += c
	}
	h.n += o.n
	h.max = max(h.max, o.max)
}

// quantile is the duration that a share q of all stayed within, 0 if there are none.
func (h *histogram) quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	left := int(q*float64(h.n) + 0.5)
	for i, c := range h.counts {
		if left -= int(c); left <= 0 && c > 0 {
			return min(bucketTop(i), h.max)
		}
	}
	return h.max
}

// latency is a histogram's summary, as tables and JSON show it.
type latency struct {
	Requests  int     `json:"requests"`
	P50Micros float64 `json:"p50Micros"`
	P99Micros float64 `json:"p99Micros"`
	MaxMicros float64 `json:"maxMicros"`
}

func (h *histogram) latency() latency {
	us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
	return latency{h.n, us(h.quantile(.50)), us(h.quantile(.99)), us(h.max)}
}
