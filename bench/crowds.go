package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// crowds is what many tenants at once cost, beside workerd with all of them in one process: 200 asked in
// turn, and 1,000 as famous as Zipf's law has it.
type crowds struct {
	Host  hostInfo    `json:"host"`
	Peers []string    `json:"peers"`
	Rows  []*compared `json:"rows"`
}

// crowdCase is one way to ask many.
type crowdCase struct {
	name string
	n    int
	pick func(c *crowd) func(*rand.Rand, int) int
}

func crowdCases() []crowdCase {
	return []crowdCase{
		{"200 in rotation", 200, func(c *crowd) func(*rand.Rand, int) int { return c.inTurn }},
		{"1,000 by Zipf", 1000, (*crowd).byFame},
	}
}

func (b *bench) crowdsOf() (*crowds, error) {
	source, err := b.coldSource(0, 0)
	if err != nil {
		return nil, err
	}
	res := &crowds{}
	for _, c := range crowdCases() {
		if err := res.compare(b, c, source); err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return res, nil
}

func (r *crowds) compare(b *bench, c crowdCase, source string) error {
	names := tenantNames(c.n)
	ours, err := b.startHost(hostOptions{tenants: workers(source, names...), scratch: b.scratch})
	if err != nil {
		return err
	}
	defer ours.stop()
	theirs, err := b.startWorkerdMany(c.n, true, func(int) (string, error) { return source, nil })
	if err != nil {
		return err
	}
	defer theirs.stop()
	r.Host, r.Peers = ours.info, []string{theirs.version}
	sides := []*crowd{crowdOf(ours, names...), theirs.crowd()}
	var rows []*compared
	for _, s := range sides {
		if err := s.visit(b.ctx, b.say); err != nil {
			return err
		}
		rows = append(rows, &compared{c.name, row{Target: s.name, Connections: 32}})
	}
	r.Rows = append(r.Rows, rows...)
	for round := range b.rounds {
		order := []int{0, 1}
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, i := range order {
			b.say("%s: round %d of %d, %s", c.name, round+1, b.rounds, sides[i].name)
			if err := rows[i].note(sides[i].load(b.ctx, 32, b.sample, c.pick(sides[i]))); err != nil {
				return fmt.Errorf("%s: %w", sides[i].name, err)
			}
			if err := b.ctx.Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

// note adds one round. A target that answers nothing at all is no measurement.
func (r *row) note(m crowdLoad) error {
	if m.requests == 0 || m.failed == m.requests {
		return fmt.Errorf("all %d requests failed: %s", m.requests, m.why)
	}
	r.PerSecond = append(r.PerSecond, m.perSecond)
	r.P50Micros = append(r.P50Micros, m.p50)
	r.P99Micros = append(r.P99Micros, m.p99)
	r.Failed += m.failed
	r.CPUMicros.add(m.cpu, m.requests)
	return nil
}

func tenantNames(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("t%d", i))
	}
	return names
}

func (r *crowds) broken() []string { return (&comparison{Rows: r.Rows}).broken() }

func (r *crowds) print(w io.Writer) {
	fmt.Fprintf(w, "%s; peers: %s\n", r.Host, strings.Join(r.Peers, ", "))
	printCompared(w, r.Rows)
}

// curve is latency over load: hello asked at fixed rates, which no answer holds up.
type curve struct {
	Host  hostInfo    `json:"host"`
	Peers []string    `json:"peers"`
	Rows  []*curveRow `json:"rows"` // by rate, and within one by target, bulkhead first
}

type curveRow struct {
	Target    string    `json:"target"`
	Asked     float64   `json:"askedPerSecond"`
	Answered  []float64 `json:"answeredPerSecond"`
	P50Micros []float64 `json:"p50Micros"`
	P99Micros []float64 `json:"p99Micros"`
	Failed    int       `json:"failed"`
}

func (b *bench) curveOf() (*curve, error) {
	source, err := b.coldSource(0, 0)
	if err != nil {
		return nil, err
	}
	ours, err := b.startHost(hostOptions{tenants: workers(source, "t0")})
	if err != nil {
		return nil, err
	}
	defer ours.stop()
	theirs, err := b.startWorkerdMany(1, true, func(int) (string, error) { return source, nil })
	if err != nil {
		return nil, err
	}
	defer theirs.stop()
	res := &curve{Host: ours.info, Peers: []string{theirs.version}}
	sides := []*crowd{crowdOf(ours, "t0"), theirs.crowd()}
	rates := []float64{250, 500, 1000, 2000, 4000, 6000, 8000, 12000, 16000, 24000}
	for _, rate := range rates {
		for _, s := range sides {
			res.Rows = append(res.Rows, &curveRow{Target: s.name, Asked: rate})
		}
	}
	for _, s := range sides {
		if err := s.visit(b.ctx, b.say); err != nil {
			return nil, err
		}
	}
	for round := range b.rounds {
		for i, rate := range rates {
			for k := range sides {
				j := (k + round) % 2
				b.say("curve: round %d of %d, %.0f a second, %s", round+1, b.rounds, rate, sides[j].name)
				m := sides[j].paced(b.ctx, 64, b.sample, rate, sides[j].byChance)
				row := res.Rows[2*i+j]
				row.Answered = append(row.Answered, m.perSecond)
				row.P50Micros = append(row.P50Micros, m.p50)
				row.P99Micros = append(row.P99Micros, m.p99)
				row.Failed += m.failed
				if err := b.ctx.Err(); err != nil {
					return nil, err
				}
				time.Sleep(200 * time.Millisecond) // what was late comes to its end
			}
		}
	}
	return res, nil
}

func (c *curve) broken() (out []string) {
	for _, r := range c.Rows {
		if r.Failed > 0 && r.Target == "bulkhead" {
			out = append(out, fmt.Sprintf("%d requests failed at %.0f a second", r.Failed, r.Asked))
		}
	}
	return out
}

func (c *curve) print(w io.Writer) {
	fmt.Fprintf(w, "%s; peers: %s; latency from when a request was due, 64 connections\n", c.Host, strings.Join(c.Peers, ", "))
	tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "hello\tasked/s\tanswered/s\tp50 µs\tp99 µs\tfailed")
	for _, r := range c.Rows {
		fmt.Fprintf(tw, "%s\t%.0f\t%.0f\t%.0f\t%.0f\t%d\n", r.Target, r.Asked, median(r.Answered), median(r.P50Micros), median(r.P99Micros), r.Failed)
	}
	tw.Flush()
}
