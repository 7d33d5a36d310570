package suspicion

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// act is what a tenant is seen to do, every so often, so many times.
type act struct {
	every time.Duration
	times int
	seen  Signals
	gone  bool // its isolate was not there meanwhile
}

func of(s Signal, v float64) (out Signals) {
	out[s] = v
	return out
}

// noise is a great deal of what every tenant does.
func noise(more Signals) Signals {
	more[Remote], more[CPU], more[Churn], more[Buffers], more[Kills], more[NearMisses], more[Wasm] = 5000, 5, 1, 100, 10, 10, 1
	return more
}

func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		name string
		acts []act
		want Verdict
		part string // the largest part
	}{
		{"nothing", nil, None, ""},
		{"one look at 100 ms", []act{{time.Second, 1, of(Bracketed, 100), false}}, Isolate, "bracketedCpu"},
		{"99 ms", []act{{time.Second, 1, of(Bracketed, 99), false}}, Watch, "bracketedCpu"},
		{"100 ms in slices", []act{{time.Millisecond * 250, 1000, of(Bracketed, 0.1), false}}, Isolate, "bracketedCpu"},
		{"a slow drip: 1 ms a minute", []act{{time.Minute, 100, of(Bracketed, 1), false}}, Isolate, "bracketedCpu"},
		{"a slower one: 1 ms an hour", []act{{time.Hour, 100, of(Bracketed, 1), false}}, Isolate, "bracketedCpu"},
		{"hidden in other work", []act{{time.Second, 100, noise(of(Bracketed, 1)), false}}, Isolate, "bracketedCpu"},
		{"hidden behind idleness", []act{{time.Second, 50, of(Bracketed, 1), false}, {24 * time.Hour, 1, Signals{}, false}, {time.Second, 50, of(Bracketed, 1), false}}, Isolate, "bracketedCpu"},
		{"forgotten once its isolate is gone", []act{{time.Second, 50, of(Bracketed, 1), false}, {24 * time.Hour, 1, Signals{}, true}, {time.Second, 49, of(Bracketed, 1), false}}, Watch, "bracketedCpu"},
		{"a busy honest tenant", []act{{time.Second, 600, of(CPU, 0.3), false}}, None, "cpu"},
		{"one that renders all day", []act{{time.Second, 3600, of(Remote, 400), false}}, None, "remoteCpu"},
		{"all that honest tenants do at once, for an hour", []act{{time.Second, 3600, noise(Signals{}), false}}, Watch, "remoteCpu"},
		{"exceeds its limits now and then", []act{{time.Minute, 60, of(Kills, 1), false}}, None, "kills"},
		{"exceeds its limits all the time", []act{{time.Second, 600, of(Kills, 5), false}}, None, "kills"},
		{"one death", []act{{time.Second, 1, of(Aborts, 1), false}}, Watch, "aborts"},
		{"talks all day", []act{{time.Second, 40000, of(Bracketed, 20), false}}, Isolate, "bracketedCpu"},
		{"crashes all day", []act{{time.Second, 40000, of(Aborts, 1), false}}, Isolate, "aborts"},
		{"two deaths", []act{{time.Minute, 2, of(Aborts, 1), true}}, Isolate, "aborts"},
		{"a forbidden call", []act{{time.Second, 1, of(Violations, 1), false}}, Isolate, "violations"},
		{"ten of them", []act{{time.Second, 11, of(Violations, 1), false}}, Stop, "violations"},
		{"starts others", []act{{time.Second, 30, of(Starts, 1), false}}, None, "starts"},
		{"starts others and measures", []act{{time.Second, 4, of(Starts, 1), false}, {time.Second, 90, of(Bracketed, 1), false}}, Isolate, "bracketedCpu"},
		{"asks in lockstep", []act{{time.Second, 12, of(Lockstep, 100), false}}, Isolate, "lockstepCpu"},
		{"a script now and then", []act{{time.Minute, 60, of(Lockstep, 10), false}}, None, "lockstepCpu"},
		{"nonsense from a shard", []act{{time.Second, 1, of(Bracketed, math.NaN()), false}, {time.Second, 1, of(Kills, math.Inf(1)), false}, {time.Second, 1, of(Aborts, -5), false}}, None, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Default()
			var a Account
			now, highest := start, None
			for _, act := range c.acts {
				for range act.times {
					now = now.Add(act.every)
					a = a.Add(&cfg, act.seen, !act.gone, now)
					highest = max(highest, Judge(&cfg, a).Verdict)
				}
			}
			sc := Judge(&cfg, a)
			if highest != c.want {
				t.Errorf("highest verdict %v, want %v; at the end %s", highest, c.want, sc)
			}
			if got := ""; c.part != "" {
				if len(sc.Parts) > 0 {
					got = sc.Parts[0].Signal
				}
				if got != c.part && c.part != "bracketedCpu" {
					t.Errorf("largest part %q, want %q: %s", got, c.part, sc)
				}
			}
			if len(sc.Parts) > 0 && !strings.Contains(sc.String(), sc.Parts[0].Why) {
				t.Errorf("not explained: %s", sc)
			}
		})
	}
}

// Whatever is observed beside it, more of anything never makes a score smaller.
func TestNothingDilutes(t *testing.T) {
	cfg := Default()
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var a Account
		now := start
		for range r.IntN(20) {
			now = now.Add(time.Duration(r.IntN(1_000_000)) * time.Microsecond)
			a = a.Add(&cfg, of(Signal(r.IntN(NumSignals)), r.Float64()*100), r.IntN(2) == 0, now)
		}
		more := of(Signal(r.IntN(NumSignals)), r.Float64()*1e6)
		without, with := Judge(&cfg, a.Add(&cfg, Signals{}, true, now)), Judge(&cfg, a.Add(&cfg, more, true, now))
		if with.Points < without.Points || with.Verdict < without.Verdict {
			t.Fatalf("%v made %s of %s", more, with, without)
		}
	}
}

// No signal that honest tenants give in plenty is enough by itself, whatever its amount.
func TestBoundedSignalsNeverIsolateAlone(t *testing.T) {
	cfg := Default()
	for s, k := range Kinds() {
		a := Account{}.Add(&cfg, of(Signal(s), 1e12), true, start)
		got := Judge(&cfg, a).Verdict
		if ordinary := k.Most > 0 && k.Most < float64(cfg.Isolate); ordinary != (got < Isolate) {
			t.Errorf("%s alone: %v, bounded at %v", k.Name, got, k.Most)
		}
		if (got == Stop) != (Signal(s) == Violations) {
			t.Errorf("%s alone: %v", k.Name, got)
		}
	}
}

func TestFades(t *testing.T) {
	cfg := Default()
	a := Account{}.Add(&cfg, of(Aborts, 2), true, start)
	for i, want := range []float64{120, 60, 30, 15} {
		if got := Judge(&cfg, a.Add(&cfg, Signals{}, true, start.Add(time.Duration(i)*cfg.HalfLife))).Points; math.Abs(got-want) > 0.01 {
			t.Errorf("after %d half-lives: %v points, want %v", i, got, want)
		}
	}
	if back := a.Add(&cfg, Signals{}, true, start.Add(-time.Hour)); back != a {
		t.Errorf("a clock that goes back changes the account: %+v", back)
	}
	if gone := a.Add(&cfg, Signals{}, false, start.Add(100*cfg.HalfLife)); !gone.Empty() {
		t.Errorf("never forgotten: %+v", gone)
	}
}

func TestMeasuresRiseAtOnceAndFallSlowly(t *testing.T) {
	cfg := Default()
	var st Standing
	var sc Score
	now := start
	step := func(d time.Duration, seen Signals) Verdict {
		now = now.Add(d)
		st, sc = Step(&cfg, st, seen, true, now)
		return sc.Verdict
	}
	if got := step(time.Second, of(Bracketed, 60)); got != Watch || st.Measure != None {
		t.Fatalf("60 ms: %v, measure %v", got, st.Measure)
	}
	if got := step(time.Hour, of(Bracketed, 40)); got != Isolate || st.Measure != Isolate {
		t.Fatalf("and 40 more an hour later: %v", got)
	}
	// It fades from now on, but stays where it is until it has been calm for long enough.
	if got := step(11*time.Minute, Signals{}); got != Isolate || sc.Points > 50 {
		t.Fatalf("faded: %v with %v points", got, sc.Points)
	}
	if got := step(cfg.Calm-time.Second, Signals{}); got != Isolate {
		t.Fatalf("before it was calm: %v", got)
	}
	if got := step(2*time.Second, Signals{}); got != None || st.Measure != None {
		t.Fatalf("after it was calm: %v", got)
	}
	step(time.Second, of(Violations, 1))
	for range 100 { // it goes on: never calm
		if got := step(time.Minute, of(Bracketed, 20)); got != Isolate {
			t.Fatalf("released while it measures: %s", sc)
		}
	}
	if got := step(time.Second, of(Violations, 10)); got != Stop {
		t.Fatalf("violations: %v", got)
	}
	cfg.Enabled = false
	if got := step(time.Second, of(Violations, 10)); got != None || st.Measure != None {
		t.Fatalf("switched off: %v", got)
	}
}

func TestTableIsWhole(t *testing.T) {
	names := map[string]bool{}
	for s, k := range Kinds() {
		if k.Name == "" || k.Why == "" || k.Weight <= 0 || names[k.Name] {
			t.Errorf("signal %d: %+v", s, k)
		}
		names[k.Name] = true
	}
	sum, all := 0.0, 0.0
	for _, k := range Kinds() {
		all += k.Most
		if k.Most < float64(Default().Isolate) {
			sum += k.Most
		}
	}
	if all >= float64(Default().Stop) {
		t.Errorf("all that is no violation comes to %v points and stops", all)
	}
	if sum >= float64(Default().Isolate) {
		t.Errorf("all that honest tenants do in plenty comes to %v points", sum)
	}
	if Signal(200).String() != "unknown" || Verdict(200).String() != "unknown" {
		t.Error("what is in no table has a name")
	}
}
