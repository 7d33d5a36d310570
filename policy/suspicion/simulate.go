package suspicion

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Observation is what was seen of one tenant since the time before, as it is recorded. The JSON names
// are a contract.
type Observation struct {
	Time   time.Time          `json:"time"`
	Tenant string             `json:"tenant"`
	Gone   bool               `json:"gone,omitempty"` // no isolate of the tenant was there meanwhile
	Seen   map[string]float64 `json:"seen"`           // by signal name, in its unit
}

// Record is Observe's inverse.
func Record(tenant string, s Signals, alive bool, now time.Time) Observation {
	o := Observation{Time: now.UTC(), Tenant: tenant, Gone: !alive, Seen: map[string]float64{}}
	for i, k := range Kinds() {
		if s[i] > 0 {
			o.Seen[k.Name] = s[i]
		}
	}
	return o
}

// Observe turns a recorded observation into signals.
func (o Observation) Observe() (s Signals, err error) {
	for name, v := range o.Seen {
		i, ok := byName(name)
		if !ok {
			return s, fmt.Errorf("no signal %q: one of %s", name, strings.Join(Names(), ", "))
		}
		s[i] = v
	}
	return s, nil
}

// Names lists the signals' names.
func Names() []string {
	var out []string
	for _, k := range Kinds() {
		out = append(out, k.Name)
	}
	return out
}

func byName(name string) (Signal, bool) {
	i := slices.Index(Names(), name)
	return Signal(i), i >= 0
}

// Course is what became of one tenant in a simulation.
type Course struct {
	Tenant   string    `json:"tenant"`
	Verdict  string    `json:"verdict"` // the highest
	Highest  float64   `json:"highest"` // points
	Why      string    `json:"why"`     // the score in words, when it was highest
	Watched  time.Time `json:"watched,omitzero"`
	Isolated time.Time `json:"isolated,omitzero"`
	Stopped  time.Time `json:"stopped,omitzero"`
	Released time.Time `json:"released,omitzero"` // first time
	After    float64   `json:"isolatedAfterSeconds"`

	highest Verdict
	first   time.Time
}

// maxEvents and maxLine bound a recording, in lines and in bytes a line.
const (
	maxEvents = 50_000_000
	maxLine   = 1 << 20
)

// Simulate replays recorded observations, JSON lines in the order of time, under a configuration: what
// would have become of whom, and when. Lines of other kinds of events (those with a "kind" other than
// "observed") are passed over.
func Simulate(c *Config, name string, events io.Reader) ([]Course, error) {
	standings := map[string]*Standing{}
	courses := map[string]*Course{}
	in := bufio.NewScanner(events)
	in.Buffer(nil, maxLine)
	n := 0
	for in.Scan() {
		if n++; n > maxEvents {
			return nil, fmt.Errorf("%s: more than %d lines", name, maxEvents)
		}
		line := in.Bytes()
		if len(strings.TrimSpace(string(line))) == 0 {
			continue
		}
		var o struct {
			Kind string
			Observation
		}
		if err := json.Unmarshal(line, &o); err != nil {
			return nil, fmt.Errorf("%s:%d: not a recorded event: %w", name, n, err)
		}
		if o.Kind != "" && o.Kind != "observed" {
			continue
		}
		if o.Tenant == "" || o.Time.IsZero() {
			return nil, fmt.Errorf(`%s:%d: an observation needs "time" and "tenant"`, name, n)
		}
		seen, err := o.Observe()
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		st, co := standings[o.Tenant], courses[o.Tenant]
		if st == nil {
			st, co = &Standing{}, &Course{Tenant: o.Tenant, first: o.Time}
			standings[o.Tenant], courses[o.Tenant] = st, co
		}
		before := st.Measure
		next, score := Step(c, *st, seen, !o.Gone, o.Time)
		*st = next
		co.note(score, before, next.Measure, o.Time)
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("%s:%d: %w", name, n+1, err)
	}
	var out []Course
	for _, co := range courses {
		co.Verdict = co.highest.String()
		out = append(out, *co)
	}
	slices.SortFunc(out, func(a, b Course) int {
		switch {
		case a.Highest > b.Highest:
			return -1
		case a.Highest < b.Highest:
			return 1
		}
		return strings.Compare(a.Tenant, b.Tenant)
	})
	return out, nil
}

func (co *Course) note(sc Score, before, after Verdict, now time.Time) {
	if sc.Points > co.Highest || co.Why == "" {
		co.Highest, co.Why = sc.Points, sc.String()
	}
	first := func(at *time.Time, is bool) {
		if is && at.IsZero() {
			*at = now
		}
	}
	co.highest = max(co.highest, sc.Verdict)
	first(&co.Watched, sc.Verdict >= Watch)
	first(&co.Isolated, sc.Verdict >= Isolate)
	first(&co.Stopped, sc.Verdict >= Stop)
	first(&co.Released, before != None && after == None)
	if !co.Isolated.IsZero() {
		co.After = co.Isolated.Sub(co.first).Seconds()
	}
}
