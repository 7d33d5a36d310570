package main

import (
	"encoding/xml"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
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

// Whatever instruments ran, the page stands alone: well-formed, and asking nobody for anything.
func TestThePageStandsAlone(t *testing.T) {
	rows := func(name string, perSecond ...float64) row {
		return row{Target: name, Connections: 32, PerSecond: perSecond, P50Micros: []float64{900, 1000}, P99Micros: []float64{4000, 5000}, CPUMicros: cpuShares{"worker": 20}}
	}
	ours, theirs := rows("bulkhead", 2000, 2100), rows("workerd", 1000, 1100)
	hostile := "<script>alert(1)</script>"
	all := map[string]any{
		"machine":   hostile,
		"speed":     &speed{Peers: []string{hostile}, Rows: []*row{&ours, &theirs}},
		"workloads": &comparison{Rows: []*compared{{hostile, ours}, {hostile, theirs}, {"one", ours}, {"one", rows("node")}}},
		"curve":     &curve{Rows: []*curveRow{{Target: "bulkhead", Asked: 500, P50Micros: []float64{800}, P99Micros: []float64{0}}, {Target: "workerd", Asked: 500}}},
		"growth":    &growth{Tenants: []*growthRow{{N: 1, P50Micros: []float64{700}}, {N: 10_000, P50Micros: []float64{900}}}, Down: []*growthRow{{N: 1 << 20, P50Micros: []float64{9000}}}},
		"seal":      &sealCost{Rows: []*sealRow{{Workload: hostile, Without: "seccomp", Sealed: []float64{99}, Unsealed: []float64{100}}}},
		"memory":    &memory{Rows: []*memoryRow{{Tenants: 1000, PerTenant: 1 << 20}}},
		"attack":    &containment{Rows: []*ordeal{{Name: hostile, P99Ratio: 2, During: &tally{}}, {Name: "not applicable"}}},
	}
	dir := t.TempDir()
	for name, results := range map[string]map[string]any{"all": all, "none": {"machine": "one"}} {
		kept := filepath.Join(dir, name+".json")
		if err := writeJSON(kept, results); err != nil {
			t.Fatal(err)
		}
		page := filepath.Join(dir, name+".html")
		if err := pageOf(page, []string{kept}); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{"<script", "http://", "https://", "src=", "NaN", "Inf", "%!"} {
			if strings.Contains(string(text), bad) {
				t.Errorf("the page of %s holds %q", name, bad)
			}
		}
		if n := strings.Count(string(text), "<svg"); name == "all" && n < 8 {
			t.Errorf("the page has %d plots of 8", n)
		}
		for _, part := range strings.SplitAfter(string(text), "</svg>") {
			at := strings.Index(part, "<svg")
			if at < 0 {
				continue
			}
			for d := xml.NewDecoder(strings.NewReader(part[at:])); ; {
				if _, err := d.Token(); err == io.EOF {
					break
				} else if err != nil {
					t.Errorf("a plot is no XML: %v", err)
					break
				}
			}
		}
	}
	if _, err := readResults(filepath.Join(dir, "all.html")); err == nil || !strings.Contains(err.Error(), "no result of bench") {
		t.Errorf("a page was read as results: %v", err)
	}
}

// The k-th of Zipf's law is asked 1/k times as often as the first, and nobody outside of the crowd.
func TestFameFollowsZipf(t *testing.T) {
	c := &crowd{places: make([]place, 100)}
	pick, rng, counts := c.byFame(), rand.New(rand.NewPCG(1, 2)), make([]int, 100)
	for i := range 200_000 {
		counts[pick(rng, i)]++
	}
	for _, k := range []int{2, 10, 100} {
		if got := float64(counts[0]) / float64(counts[k-1]); math.Abs(got-float64(k)) > 0.2*float64(k) {
			t.Errorf("the first is asked %.1f times as often as number %d", got, k)
		}
	}
}
