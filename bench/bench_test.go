package main

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestHistogramQuantiles(t *testing.T) {
	var h histogram
	if h.quantile(.99) != 0 {
		t.Error("an empty histogram has a quantile")
	}
	for i := 1; i <= 100_000; i++ {
		h.add(time.Duration(i) * time.Microsecond)
	}
	for _, q := range []float64{.01, .5, .99, 1} {
		want := q * 100_000
		if got := float64(h.quantile(q).Microseconds()); math.Abs(got-want) > want*0.04 {
			t.Errorf("quantile %v is %v µs, want about %v", q, got, want)
		}
	}
	for _, d := range []time.Duration{0, 31 * time.Microsecond, 32 * time.Microsecond, 63 * time.Microsecond, 64 * time.Microsecond, time.Second, time.Hour} {
		i := bucketOf(d)
		if top := bucketTop(i); top < d || i > 0 && bucketTop(i-1) >= d {
			t.Errorf("%v is in bucket %d, from %v to %v", d, i, bucketTop(i-1), top)
		}
	}
}

func TestFitFindsBaseAndSlope(t *testing.T) {
	base, slope := fit([]float64{0, 10, 64}, []float64{17, 27, 81})
	if math.Abs(base-17) > 1e-9 || math.Abs(slope-1) > 1e-9 {
		t.Errorf("17 + 1x was fitted as %v + %vx", base, slope)
	}
}

func TestGeneratedWorkersHaveTheirSizeAndDiffer(t *testing.T) {
	for _, size := range []int{20 << 10, 1 << 20} {
		a, b := generateWorker(size, 1), generateWorker(size, 2)
		if math.Abs(float64(len(a)-size)) > 4096 {
			t.Errorf("asked for %d bytes, got %d", size, len(a))
		}
		if a == b || !strings.Contains(a, "export default") {
			t.Error("two seeds give the same worker, or none")
		}
	}
}
