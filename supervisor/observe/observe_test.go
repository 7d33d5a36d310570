package observe

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bulkhead/schema/gen"
)

func discard() *slog.Logger { return NewLogger(io.Discard, slog.LevelDebug) }

func TestIncidentsKeepTheNewestWithStableNames(t *testing.T) {
	var out bytes.Buffer
	o := New(NewLogger(&out, slog.LevelInfo), Options{Incidents: 3})
	for i := range 5 {
		o.Incidents.Add(Incident{Kind: ShardDied, Shard: uint32(i)})
	}
	got := o.Incidents.List()
	if len(got) != 3 || got[0].Shard != 4 || got[2].Shard != 2 {
		t.Fatalf("list = %+v, want shards 4, 3, 2", got)
	}
	seen := map[string]bool{}
	for _, i := range got {
		if seen[i.ID] {
			t.Errorf("id %q twice", i.ID)
		}
		seen[i.ID] = true
	}
	j, err := json.Marshal(got[0])
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(j, &fields); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"id", "time", "kind", "shard", "tenants", "outcome", "signal", "syscall", "detail", "scripts"} {
		if _, ok := fields[name]; !ok {
			t.Errorf("field %q missing in %s", name, j)
		}
	}
	if len(fields) != 10 {
		t.Errorf("fields = %v, want exactly ten", fields)
	}
	if n := strings.Count(out.String(), `"msg":"incident"`); n != 5 {
		t.Errorf("%d incidents logged, want 5", n)
	}
}

func TestLogsAreBoundedPerTenantAndInAll(t *testing.T) {
	l := newLogs(4<<10, 16<<10)
	for i := range 1000 {
		l.Append("loud", Line{Text: fmt.Sprint("line ", i)})
	}
	lines := l.Read("loud", 0)
	if len(lines) == 0 || len(lines) > 4<<10/lineCost {
		t.Fatalf("%d lines kept, want 1 to %d", len(lines), 4<<10/lineCost)
	}
	if last := lines[len(lines)-1]; last.Seq != 1000 || last.Text != "line 999" {
		t.Errorf("last line %+v, want the newest", last)
	}
	for i := 1; i < len(lines); i++ {
		if lines[i].Seq != lines[i-1].Seq+1 {
			t.Fatalf("sequence %d after %d", lines[i].Seq, lines[i-1].Seq)
		}
	}
	for i := range 100 {
		for range 40 {
			l.Append(fmt.Sprint("t", i), Line{Text: strings.Repeat("x", 100)})
		}
	}
	if l.bytes > 16<<10 {
		t.Errorf("%d bytes kept, limit %d", l.bytes, 16<<10)
	}
	if len(l.byName) > 10 {
		t.Errorf("%d tenants kept", len(l.byName))
	}
	if l.Read("loud", 0) != nil {
		t.Error("the quietest log outlived the others")
	}
	sum := 0
	for _, tl := range l.byName {
		n := 0
		for i := tl.head; i < len(tl.lines); i++ {
			n += tl.lines[i].cost()
		}
		if n != tl.bytes {
			t.Errorf("%s counts %d bytes, has %d", tl.tenant, tl.bytes, n)
		}
		sum += n
	}
	if sum != l.bytes {
		t.Errorf("total %d, sum %d", l.bytes, sum)
	}
}

func TestLogsFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogs(1<<20, 1<<20)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var got []string
		var wg sync.WaitGroup
		wg.Go(func() {
			var after uint64
			for {
				lines, err := l.Follow(ctx, "a", after)
				if err != nil {
					return
				}
				for _, line := range lines {
					got = append(got, line.Text)
					after = line.Seq
				}
			}
		})
		synctest.Wait()
		l.Append("a", Line{Text: "1"}, Line{Text: "2"})
		l.Append("b", Line{Text: "not mine"})
		synctest.Wait()
		l.Append("a", Line{Text: "3"})
		synctest.Wait()
		cancel()
		wg.Wait()
		if want := "[1 2 3]"; fmt.Sprint(got) != want {
			t.Errorf("followed %v, want %s", got, want)
		}
	})
}

func TestMetricsBoundTheTenantLabel(t *testing.T) {
	o := New(discard(), Options{TenantLabels: 2})
	for i := range 5 {
		c := o.Metrics.Tenant(fmt.Sprint("t", i))
		c.Count(gen.Outcome_ok)
		c.Count(gen.Outcome_exception)
	}
	if first, again := o.Metrics.Tenant("t4"), o.Metrics.Tenant("t4"); first != again {
		t.Error("two counters for one tenant")
	}
	requests, by := o.Metrics.Tenant("t4").Counts()
	if requests != 2 || by["ok"] != 1 || by["exception"] != 1 || len(by) != 2 {
		t.Errorf("counts = %d %v", requests, by)
	}
	o.Metrics.SetGauges(func() Gauges { return Gauges{Shards: 3, Spares: 1, TenantsKnown: 5, TenantsLoaded: 4} })
	w := httptest.NewRecorder()
	o.Metrics.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	text := w.Body.String()
	for _, want := range []string{
		`bulkhead_requests_total{outcome="ok",tenant="t0"} 1`,
		`bulkhead_requests_total{outcome="ok",tenant="_other"} 3`,
		`bulkhead_shards{use="spare"} 1`,
		`bulkhead_tenants{state="loaded"} 4`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in the metrics", want)
		}
	}
	if strings.Contains(text, `tenant="t3"`) {
		t.Error("a tenant beyond the limit has a label of its own")
	}
}

// Folders that come and go leave no counters behind, and later tenants get labels of their own.
func TestTenantsThatComeAndGo(t *testing.T) {
	m := newMetrics(5)
	for i := range 1000 {
		id := fmt.Sprint("t", i)
		if c := m.Tenant(id); !c.labelled {
			t.Fatalf("%s has no label", id)
		}
		m.Forget(id)
	}
	n := 0
	m.tenants.Range(func(any, any) bool { n++; return true })
	if n != 0 {
		t.Errorf("%d tenants are counted", n)
	}
	busy := m.Tenant("busy")
	busy.Running.Add(1)
	m.Forget("busy")
	if m.Tenant("busy") != busy {
		t.Error("a tenant with requests in flight was forgotten")
	}
	for i := range 20 {
		m.Tenant(fmt.Sprint("x", i))
	}
	if m.labelled.Load() != 5 {
		t.Errorf("%d labels", m.labelled.Load())
	}
}
