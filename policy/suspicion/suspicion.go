package suspicion

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Signals is how much of each was observed, in the units of Kinds.
type Signals [NumSignals]float64

// Account is what has been observed of one tenant so far, faded as of At. The zero value is a
// tenant of whom nothing is known.
type Account struct {
	Seen Signals
	At   time.Time
}

// Add returns the account with what was observed since. alive: an isolate of the tenant was there all
// the time, so that signals that keep are not faded. Amounts that are no numbers, or negative, are
// taken as none; so is time that runs backwards.
func (a Account) Add(c *Config, observed Signals, alive bool, now time.Time) Account {
	a = a.fade(c, alive, now)
	for s, k := range Kinds() {
		v := observed[s]
		switch {
		case !(v > 0) || math.IsInf(v, 0): // NaN is not above 0
		case k.Level:
			a.Seen[s] = min(max(a.Seen[s], v), maxAmount)
		default:
			a.Seen[s] = min(a.Seen[s]+v, maxAmount)
		}
	}
	return a
}

// maxAmount keeps sums far from where adding one changes nothing.
const maxAmount = 1e12

func (a Account) fade(c *Config, alive bool, now time.Time) Account {
	gone := now.Sub(a.At)
	if a.At.IsZero() || gone <= 0 {
		if a.At.Before(now) {
			a.At = now
		}
		return a
	}
	left := math.Exp2(-gone.Seconds() / max(c.HalfLife, time.Second).Seconds())
	for s, k := range Kinds() {
		if !k.Keeps || !alive {
			a.Seen[s] *= left
			if a.Seen[s] < 1e-9 {
				a.Seen[s] = 0
			}
		}
	}
	a.At = now
	return a
}

// Empty says whether nothing worth keeping is left.
func (a Account) Empty() bool {
	for _, v := range a.Seen {
		if v > 1e-3 {
			return false
		}
	}
	return true
}

// Verdict is what is to be done about a tenant.
type Verdict uint8

// The verdicts, in rising order.
const (
	None    Verdict = iota
	Watch           // listed, nothing else
	Isolate         // alone in its process: the neighbours leave
	Stop            // ended, and not started again until it is released
)

// String is the verdict's name in events and listings.
func (v Verdict) String() string {
	switch v {
	case None:
		return "none"
	case Watch:
		return "watch"
	case Isolate:
		return "isolate"
	case Stop:
		return "stop"
	}
	return "unknown"
}

// Part is what one signal contributed. The JSON names are a contract.
type Part struct {
	Signal string  `json:"signal"`
	Amount float64 `json:"amount"`
	Unit   string  `json:"unit"`
	Points float64 `json:"points"`
	Why    string  `json:"why"`
}

// Score is the sum of the parts, largest part first.
type Score struct {
	Points  float64 `json:"points"`
	Parts   []Part  `json:"parts"`
	Verdict Verdict `json:"-"`
}

// Judge scores an account as it is; see Add for how it fades.
func Judge(c *Config, a Account) Score {
	var sc Score
	for s, k := range Kinds() {
		points := a.Seen[s] * c.Weights[s]
		if k.Most > 0 {
			points = min(points, k.Most)
		}
		if points <= 0 {
			continue
		}
		sc.Points += points
		sc.Parts = append(sc.Parts, Part{Signal: k.Name, Amount: a.Seen[s], Unit: k.Unit, Points: points, Why: k.Why})
	}
	slices.SortStableFunc(sc.Parts, func(x, y Part) int {
		switch {
		case x.Points > y.Points:
			return -1
		case x.Points < y.Points:
			return 1
		}
		return 0
	})
	total := sc.Points + 1e-6 // a hundred tenths are ten
	switch {
	case !c.Enabled:
	case total >= float64(c.Stop):
		sc.Verdict = Stop
	case total >= float64(c.Isolate):
		sc.Verdict = Isolate
	case total >= float64(c.Watch):
		sc.Verdict = Watch
	}
	return sc
}

// String explains the score in one line: "104 points: 100 bracketedCpu (100 ms: code ran …), 4 cpu (…)".
func (s Score) String() string {
	if len(s.Parts) == 0 {
		return "0 points"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%.0f points: ", s.Points)
	for i, p := range s.Parts {
		if p.Points < 0.5 && i > 0 {
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		amount := fmt.Sprintf("%.4g", p.Amount)
		if p.Unit != "" {
			amount += " " + p.Unit
		}
		fmt.Fprintf(&b, "%.0f %s (%s: %s)", p.Points, p.Signal, amount, p.Why)
	}
	return b.String()
}

// Standing is an account together with the measure in force.
type Standing struct {
	Account  Account
	Measure  Verdict   // in force: None, Isolate or Stop
	LowSince time.Time // score below Watch since then; zero: it is not
}

// Step is one observation of a tenant: it returns the new standing and the score, whose Verdict is the
// measure that is to be in force now. A measure rises at once and falls only after Calm below Watch,
// so that nobody flickers between two places.
func Step(c *Config, st Standing, observed Signals, alive bool, now time.Time) (Standing, Score) {
	// Once a measure is in force the sum over the isolate's life has done its duty, and fades like the
	// rest: it would hold a tenant apart for ever.
	st.Account = st.Account.Add(c, observed, alive && st.Measure == None, now)
	sc := Judge(c, st.Account)
	switch {
	case !c.Enabled:
		st.Measure, st.LowSince = None, time.Time{}
	case sc.Verdict >= Isolate:
		st.Measure = max(st.Measure, sc.Verdict)
		st.LowSince = time.Time{}
	case st.Measure == None:
	case sc.Verdict == Watch:
		st.LowSince = time.Time{}
	case st.LowSince.IsZero():
		st.LowSince = now
	case now.Sub(st.LowSince) >= c.Calm:
		st.Measure, st.LowSince = None, time.Time{}
	}
	sc.Verdict = max(sc.Verdict, st.Measure)
	return st, sc
}
