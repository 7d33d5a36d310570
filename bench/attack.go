package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// attacker is the hostile tenant's id; the others are victim-0 to victim-62, so that all of them
// fit one shard.
const (
	attacker = "attacker"
	victims  = 63
)

func victimNames() (names []string) {
	for i := range victims {
		names = append(names, fmt.Sprintf("victim-%d", i))
	}
	return names
}

// containment is what neighbours felt of each attack.
type containment struct {
	Host hostInfo  `json:"host"`
	Rate float64   `json:"requestsPerSecondPerVictim"`
	Rows []*ordeal `json:"rows"`
}

// ordeal is one attack: the same load before, during and after.
type ordeal struct {
	Name          string   `json:"name"`
	What          string   `json:"what"`
	NotApplicable string   `json:"notApplicable,omitempty"` // why the attack cannot be made here
	Host          hostInfo `json:"host"`

	Before *tally `json:"before"`
	During *tally `json:"during"`
	After  *tally `json:"after"`

	Blows     int            `json:"blows"`
	Attacker  map[string]int `json:"attackerEnds"` // what became of the attacker's requests, and notes
	Incidents int            `json:"incidents"`
	Kinds     map[string]int `json:"incidentKinds"`
	Wrong     map[string]int `json:"wrongNames"`             // incidents that name not the attacker alone, or anybody after a kill from outside
	Why       []string       `json:"wrongDetails,omitempty"` // what the host said of these, at most 10

	Interrupted map[string]float64 `json:"interruptedByReason"` // the host's own metric
	Replays     float64            `json:"replays"`

	P99Ratio      float64 `json:"p99Ratio"`      // during, to before and after together
	WorstKind     string  `json:"worstKind"`     // of request, by its p99 ratio
	WorstKindP99  float64 `json:"worstKindP99"`  // its ratio
	Alone         bool    `json:"attackerAlone"` // in its shard, at the end
	Served        int     `json:"attackerServedOf20"`
	ServedAfterMs float64 `json:"attackerServedAfterMs"` // from the attack's end to its first good answer

	dies, outside, anyName bool
	log                    string
}

// arena is a host under attack.
type arena struct {
	t     *target
	watch *watcher
	g     *generator

	mu    sync.Mutex
	ends  map[string]int // guarded by mu
	blows int            // guarded by mu
}

// strike has the attacker do one thing and notes what it got. The client leaves when ctx ends.
func (a *arena) strike(ctx context.Context, path string) reply {
	a.struck()
	r := a.t.public.do(request{method: "GET", host: attacker + ".localhost", path: path, ctx: ctx})
	if r.err != nil && ctx.Err() != nil {
		a.note("under way at the end")
	} else {
		a.note(r.String())
	}
	return r
}

func (a *arena) struck() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.blows++
}

func (a *arena) note(end string) { a.noteN(end, 1) }

func (a *arena) noteN(end string, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ends[end] += n
}

// attack runs each row against a fresh host: what it has learnt of the attacker in one must not
// help it in the next.
func (b *bench) attack() (*containment, error) {
	rows := attackRows()
	known := func(name string) bool {
		return slices.ContainsFunc(rows, func(r attackRow) bool { return r.name == name })
	}
	for _, name := range b.rows {
		if !known(name) {
			var all []string
			for _, r := range rows {
				all = append(all, r.name)
			}
			return nil, fmt.Errorf("no row %q: %s", name, strings.Join(all, ", "))
		}
	}
	c := &containment{Rate: b.rate}
	for _, r := range rows {
		if len(b.rows) > 0 && !slices.Contains(b.rows, r.name) {
			continue
		}
		o, err := b.ordeal(r)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.name, err)
		}
		if c.Host.PolicyHash == "" || !r.egress {
			c.Host = o.Host
		}
		c.Rows = append(c.Rows, o)
	}
	return c, nil
}

// ordeal runs one row.
func (b *bench) ordeal(r attackRow) (*ordeal, error) {
	victim, err := os.ReadFile(filepath.Join(b.root, "bench/workloads/victim/worker.js"))
	if err != nil {
		return nil, err
	}
	hostile, err := os.ReadFile(filepath.Join(b.root, "bench/workloads/attacker/worker.js"))
	if err != nil {
		return nil, err
	}
	opt := hostOptions{tenants: func(dir string) error {
		if err := workers(string(victim), victimNames()...)(dir); err != nil {
			return err
		}
		return writeWorker(dir, attacker, string(hostile))
	}}
	if r.egress {
		b.allowUpstream(&opt)
	}
	b.say("%s: starting a host", r.name)
	t, err := b.startHost(opt)
	if err != nil {
		return nil, err
	}
	defer t.stop()
	o := &ordeal{Name: r.name, What: r.what, Host: t.info, dies: r.dies, outside: r.outside, anyName: r.anyName}
	if err := t.built(b.ctx); err != nil {
		return nil, err
	}
	for _, name := range append(victimNames(), attacker) {
		if a, ok := t.public.get(name+".localhost", "/harmless"); !ok {
			return nil, fmt.Errorf("%s does not answer before the attack: %s %s", name, a.String(), a.message())
		}
	}
	if r.wasm {
		if a, _ := t.public.get(attacker+".localhost", "/wasm-here"); string(a.body) != "true" {
			o.NotApplicable = "profile " + t.info.Profile + " has no WebAssembly"
			return o, nil
		}
	}
	g := &generator{client: t.public, tenants: victimNames(), rate: b.rate}
	b.say("%s: the calm before, %v", r.name, b.calm)
	g.run(b.ctx, min(b.calm, time.Second)) // warms connections and code
	o.Before = g.run(b.ctx, b.calm)
	b.assault(r, o, t, g)
	b.say("%s: the calm after, %v", r.name, b.calm)
	o.After = g.run(b.ctx, b.calm)
	o.compare()
	if err := b.ctx.Err(); err != nil {
		return nil, err
	}
	if len(o.broken()) > 0 {
		o.log = t.log()
	}
	return o, nil
}

// assault runs the attack beside the load and looks at what is left.
func (b *bench) assault(r attackRow, o *ordeal, t *target, g *generator) {
	before, _ := t.metrics("bulkhead_interrupted_total")
	replays, _ := t.metrics("bulkhead_replays_total")
	watching, stopWatching := context.WithCancel(b.ctx)
	defer stopWatching()
	a := &arena{t: t, g: g, watch: t.watch(watching), ends: map[string]int{}}
	ctx, cancel := context.WithTimeout(b.ctx, b.duration)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { r.run(ctx, a) })
	wg.Go(func() {
		for start := time.Now(); ctx.Err() == nil; rest(ctx, time.Second) {
			b.say("%s: under attack, %d of %d s, %d incidents", r.name, int(time.Since(start).Seconds()), int(b.duration.Seconds()), a.watch.count())
		}
	})
	o.During = g.run(b.ctx, b.duration)
	cancel()
	wg.Wait()
	b.say("%s: the attack is over", r.name)
	o.aftermath(a, time.Now())

	incidents := a.watch.incidents()
	o.judge(incidents)
	var deaths []time.Time
	for _, i := range incidents {
		deaths = append(deaths, i.Time)
	}
	o.During.since(deaths)
	after, _ := t.metrics("bulkhead_interrupted_total")
	o.Interrupted = map[string]float64{}
	for reason, n := range after {
		if n -= before[reason]; n > 0 {
			o.Interrupted[reason] = n
		}
	}
	if m, err := t.metrics("bulkhead_replays_total"); err == nil {
		o.Replays = m[""] - replays[""]
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	o.Attacker, o.Blows = maps.Clone(a.ends), a.blows
}

// servedWithin is how long the attacker may wait for its first good answer after its attack: what it
// has left behind runs into limits first, wall time the longest of them.
const servedWithin = 40 * time.Second

// aftermath sees whether the attacker is served on, and where.
func (o *ordeal) aftermath(a *arena, end time.Time) {
	for time.Since(end) < servedWithin {
		if _, ok := a.t.public.get(attacker+".localhost", "/harmless"); ok {
			o.ServedAfterMs = float64(time.Since(end).Microseconds()) / 1e3
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	for range 20 {
		r, ok := a.t.public.get(attacker+".localhost", "/harmless")
		if ok {
			o.Served++
			continue
		}
		a.note("harmless request after the attack: " + r.String())
	}
	list, err := a.t.shards()
	if err != nil {
		a.note(err.Error())
	}
	for _, s := range list {
		if slices.Contains(s.Tenants, attacker) {
			o.Alone = len(s.Tenants) == 1
		}
	}
}

// judge reads the incidents.
func (o *ordeal) judge(list []incident) {
	o.Incidents, o.Kinds, o.Wrong = len(list), map[string]int{}, map[string]int{}
	for _, i := range list {
		kind := i.Kind
		if i.Signal != nil {
			kind += " " + *i.Signal
		}
		o.Kinds[kind]++
		if o.anyName || o.outside && len(i.Tenants) == 0 {
			continue // killed from outside: nobody's doing
		}
		if o.outside || !i.names(attacker) {
			named := "nobody"
			switch {
			case o.outside:
				named = fmt.Sprintf("%d who had no part in it", len(i.Tenants))
			case slices.Contains(i.Tenants, attacker):
				named = fmt.Sprintf("the attacker among %d", len(i.Tenants))
			case len(i.Tenants) > 0:
				named = "only others: " + strings.Join(i.Tenants[:min(3, len(i.Tenants))], ", ")
			}
			o.Wrong[named]++
			if len(o.Why) < 10 {
				o.Why = append(o.Why, fmt.Sprintf("%s of shard %d: %s", i.Kind, i.Shard, i.Detail))
			}
		}
	}
}

// compare computes the ratios to the calm.
func (o *ordeal) compare() {
	ratio := func(during, before, after *histogram) float64 {
		calm := &histogram{}
		calm.merge(before)
		calm.merge(after)
		if calm.n == 0 || during.n == 0 {
			return 0
		}
		return float64(during.quantile(.99)) / float64(max(calm.quantile(.99), time.Microsecond))
	}
	o.P99Ratio = ratio(&o.During.hist, &o.Before.hist, &o.After.hist)
	for i, k := range o.During.Kinds {
		if r := ratio(&k.hist, &o.Before.Kinds[i].hist, &o.After.Kinds[i].hist); r > o.WorstKindP99 {
			o.WorstKind, o.WorstKindP99 = k.Kind, r
		}
	}
}

func (o *ordeal) broken() (out []string) {
	if o.NotApplicable != "" {
		return nil
	}
	bad := func(format string, args ...any) { out = append(out, o.Name+": "+fmt.Sprintf(format, args...)) }
	for when, t := range map[string]*tally{"before": o.Before, "during": o.During, "after": o.After} {
		if t.Failed > 0 {
			bad("%d replayable requests of the victims failed %s the attack", t.Failed, when)
		}
	}
	if n := o.Before.Interrupted + o.After.Interrupted; n > 0 {
		bad("%d responses were interrupted without an attack", n)
	}
	counted := 0.0
	for _, n := range o.Interrupted {
		counted += n
	}
	if float64(o.During.Interrupted) > counted {
		bad("clients saw %d responses interrupted, the host counted %.0f", o.During.Interrupted, counted)
	}
	if len(o.Wrong) > 0 {
		bad("incidents name the wrong tenants: %s", counts(o.Wrong))
	}
	if o.dies && o.Incidents == 0 && o.Blows > 0 {
		bad("%d blows and no incident", o.Blows)
	}
	if o.Incidents > 0 && !o.outside && !o.Alone {
		bad("the attacker is not alone in its shard at the end")
	}
	if o.Served < 20 {
		bad("the attacker's harmless path was served %d of 20 times after the attack", o.Served)
	}
	return out
}

func (c *containment) broken() (out []string) {
	for _, o := range c.Rows {
		out = append(out, o.broken()...)
	}
	return out
}

func (c *containment) print(w io.Writer) {
	fmt.Fprintf(w, "%s; %d victims, %.3g requests/s each\n", c.Host, victims, c.Rate)
	tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "attack\tsent\tfailed\tinterrupted\tp99 ms calm/during\tratio (bar 3)\tworst kind\tblows\tincidents\twrong names\talone\tserved")
	for _, o := range c.Rows {
		if o.NotApplicable != "" {
			fmt.Fprintf(tw, "%s\tnot applicable: %s\n", o.Name, o.NotApplicable)
			continue
		}
		calm := &histogram{}
		calm.merge(&o.Before.hist)
		calm.merge(&o.After.hist)
		wrong := 0
		for _, n := range o.Wrong {
			wrong += n
		}
		fmt.Fprintf(tw, "%s\t%d\t%d\t%d\t%.1f/%.1f\t%.2f\t%s %.2f\t%d\t%d\t%d\t%v\t%d/20\n", o.Name, o.During.Sent, o.Before.Failed+o.During.Failed+o.After.Failed,
			o.During.Interrupted, ms(calm.quantile(.99)), ms(o.During.hist.quantile(.99)), o.P99Ratio, o.WorstKind, o.WorstKindP99, o.Blows, o.Incidents, wrong, o.Alone, o.Served)
	}
	tw.Flush()
	for _, o := range c.Rows {
		o.details(w)
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// details is what does not fit the table.
func (o *ordeal) details(w io.Writer) {
	if o.NotApplicable != "" {
		return
	}
	fmt.Fprintf(w, "\n%s: %s", o.Name, o.What)
	if o.Host.Beside != "" {
		fmt.Fprintf(w, " (%s)", o.Host)
	}
	fmt.Fprintf(w, "\n  the attacker saw: %s; served again %.0f ms after the end\n", counts(o.Attacker), o.ServedAfterMs)
	fmt.Fprintf(w, "  incidents: %s; replays: %.0f\n", counts(o.Kinds), o.Replays)
	if len(o.Wrong) > 0 {
		fmt.Fprintf(w, "  wrong names: %s\n", counts(o.Wrong))
		for _, why := range o.Why {
			fmt.Fprintf(w, "    %s\n", why)
		}
	}
	if len(o.Interrupted) > 0 || o.During.Interrupted > 0 {
		fmt.Fprintf(w, "  interrupted: %d seen by clients; the host counted %v\n", o.During.Interrupted, o.Interrupted)
	}
	if len(o.During.Ends) > 0 {
		fmt.Fprintf(w, "  not ok: %s\n", counts(o.During.Ends))
	}
	tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	for i, k := range o.During.Kinds {
		fmt.Fprintf(tw, "  %s\tsent %d\tp50 ms %.1f/%.1f\tp99 ms %.1f/%.1f\n", k.Kind, k.Sent, o.Before.Kinds[i].Latency.P50Micros/1e3, k.Latency.P50Micros/1e3, o.Before.Kinds[i].Latency.P99Micros/1e3, k.Latency.P99Micros/1e3)
	}
	fmt.Fprintf(tw, "  worst victim\t\t\tp99 ms %.1f/%.1f\n  generator late by\t\t\tp99 ms %.1f/%.1f\n", o.Before.WorstTenantP99Micros/1e3, o.During.WorstTenantP99Micros/1e3, o.Before.LagP99Micros/1e3, o.During.LagP99Micros/1e3)
	tw.Flush()
	for i, f := range o.During.Failures {
		if i == 20 {
			fmt.Fprintf(w, "  … and %d more failed\n", o.During.Failed-i)
			break
		}
		fmt.Fprintf(w, "  failed: %s\n", f)
	}
}
