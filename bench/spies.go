package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/coder/websocket"
)

// spies is how long attackers measured before they were alone.
type spies struct {
	Host hostInfo  `json:"host"`
	Rows []*spying `json:"rows"`
}

// spying is one attacker among neighbours, on a host of its own.
type spying struct {
	Name      string   `json:"name"`
	What      string   `json:"what"`
	Later     bool     `json:"afterFreeze"` // written after the thresholds were frozen
	Spies     []string `json:"spies"`       // tenants
	Measured  int64    `json:"measured"`    // brackets
	Alone     bool     `json:"alone"`       // each of them, within the time
	AloneMs   float64  `json:"aloneMs"`     // from the first measurement
	CPUMs     float64  `json:"cpuMs"`       // of the most by one of them, when all were alone or the time was over
	Bracketed float64  `json:"bracketedMs"` // of it, as the host counts
	Late      float64  `json:"lateMs"`      // from 100 ms of CPU by one of them to its being alone, the worst; 0: before that
	Broken    int64    `json:"broken"`      // sockets and requests of the attacker that failed while it was being isolated
	Ends      []string `json:"ends"`
	Moved     int64    `json:"moved"`   // sockets that ended with 1012, and were opened again
	Lost      int64    `json:"lost"`    // requests of neighbours
	Why       string   `json:"why"`     // the last event that isolated one
	Company   bool     `json:"company"` // each had neighbours at first

	up string
	t  *target
	mu sync.Mutex
}

const (
	spyNeighbours = 12
	// spyBar is how long after 100 ms of measuring a spy may still have neighbours.
	spyBar      = time.Second
	spyBarCPUMs = 100
)

// spy is one way to measure.
type spy struct {
	name, what string
	later      bool
	tenants    []string          // folders, spy.js or later.js each; empty for "spy"
	neighbours string            // before their names
	manifests  map[string]string // by folder
	watched    []string          // who has to be alone; empty for tenants
	drive      func(ctx context.Context, s *spying)
}

func (b *bench) spiesOf() (*spies, error) {
	up, err := startSource()
	if err != nil {
		return nil, err
	}
	defer up.Close()
	r := &spies{}
	for _, a := range slices.Concat(spyRows(), laterSpyRows()) {
		if len(b.rows) > 0 && !slices.Contains(b.rows, a.name) {
			continue
		}
		s, err := b.spyOn(a, "http://"+up.Addr)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.name, err)
		}
		r.Host, r.Rows = s.t.info, append(r.Rows, s)
		b.say("spies: %s: alone %v after %.0f ms, %.0f ms of CPU", a.name, s.Alone, s.AloneMs, s.CPUMs)
	}
	if len(r.Rows) == 0 {
		return nil, fmt.Errorf("no spy is named like -rows")
	}
	return r, b.ctx.Err()
}

// spyOn runs one attacker among honest neighbours until each of its tenants is alone, or the time is over.
func (b *bench) spyOn(a spy, up string) (*spying, error) {
	if len(a.tenants) == 0 {
		a.tenants = []string{"spy"}
	}
	if len(a.watched) == 0 {
		a.watched = a.tenants
	}
	var neighbours []string
	for i := range spyNeighbours {
		neighbours = append(neighbours, fmt.Sprintf("%shonest-%d", a.neighbours, i))
	}
	source := "spies/spy.js"
	if a.later {
		source = "spies/later.js"
	}
	t, err := b.startHost(hostOptions{scratch: b.scratch, policy: measurable, beside: measurableIs, tenants: func(dir string) error {
		for _, id := range a.tenants {
			if err := b.workload(dir, id, source, a.manifests[id]); err != nil {
				return err
			}
		}
		for _, id := range neighbours {
			if err := b.workload(dir, id, "honest/json.js", a.manifests["neighbours"]); err != nil {
				return err
			}
		}
		return nil
	}})
	if err != nil {
		return nil, err
	}
	defer t.stop()
	if err := t.built(b.ctx); err != nil {
		return nil, err
	}
	s := &spying{Name: a.name, What: a.what, Later: a.later, Spies: a.watched, up: up, t: t}
	for _, id := range append(slices.Clone(neighbours), a.tenants...) {
		if got, ok := t.public.get(id+".localhost", "/"); !ok {
			return nil, fmt.Errorf("%s does not answer: %s", id, got.String())
		}
	}
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	w := t.watch(b.ctx)
	var wg sync.WaitGroup
	for i, id := range neighbours { // they are at work, so that none is given up for idleness
		wg.Go(func() {
			for rest(ctx, time.Duration(i)*50*time.Millisecond); ctx.Err() == nil; rest(ctx, time.Second) {
				if _, ok := t.public.get(id+".localhost", "/x"); !ok {
					atomic.AddInt64(&s.Lost, 1)
				}
			}
		})
	}
	wg.Go(func() { a.drive(ctx, s) })
	s.follow(b.ctx, b.duration)
	rest(b.ctx, 500*time.Millisecond) // its sockets go on after it
	cancel()
	wg.Wait()
	for _, i := range w.incidents() {
		if i.Kind == "isolated" && len(i.Tenants) == 1 && slices.Contains(a.watched, i.Tenants[0]) {
			s.Why = i.Detail
		}
	}
	return s, nil
}

// follow looks where the spies are, and what they have used, until all are alone.
func (s *spying) follow(ctx context.Context, most time.Duration) {
	begin := time.Now()
	reached, alone := map[string]time.Time{}, map[string]time.Time{}
	base := map[string]float64{}
	s.Company = true
	for first := true; ctx.Err() == nil; first = false {
		var top []usageRow
		list, err := s.t.shards()
		if err == nil {
			err = s.t.admin.admin("GET", "/v1/top", &top)
		}
		now := time.Now()
		if err != nil {
			rest(ctx, 20*time.Millisecond)
			continue
		}
		for _, u := range top {
			if !slices.Contains(s.Spies, u.Tenant) {
				continue
			}
			if first {
				base[u.Tenant] = u.CPUMs
			}
			cpu := u.CPUMs - base[u.Tenant]
			if cpu >= spyBarCPUMs && reached[u.Tenant].IsZero() {
				reached[u.Tenant] = now
			}
			if alone[u.Tenant].IsZero() {
				s.CPUMs, s.Bracketed = max(s.CPUMs, cpu), max(s.Bracketed, u.BracketedMs)
			}
		}
		for _, id := range s.Spies {
			apart := true
			for _, sh := range list {
				if slices.Contains(sh.Tenants, id) && len(sh.Tenants) > 1 {
					apart = false
				}
			}
			s.Company = s.Company && !(first && apart)
			if apart && alone[id].IsZero() {
				alone[id] = now
			} else if !apart {
				delete(alone, id)
			}
		}
		if len(alone) == len(s.Spies) || now.Sub(begin) > most {
			break
		}
		rest(ctx, 10*time.Millisecond)
	}
	s.AloneMs, s.Alone = ms(time.Since(begin)), len(alone) == len(s.Spies)
	for _, id := range s.Spies {
		at := alone[id]
		if at.IsZero() {
			at = time.Now()
		}
		if from := reached[id]; !from.IsZero() {
			s.Late = max(s.Late, ms(at.Sub(from)))
		}
	}
}

func (s *spying) bracket() { atomic.AddInt64(&s.Measured, 1) }

func (s *spying) fail(err error) {
	atomic.AddInt64(&s.Broken, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.Ends) < 5 {
		s.Ends = append(s.Ends, err.Error())
	}
}

// converse has a WebSocket and times answers: each message goes out pause after the last answer. What pads
// it is sent along.
func (s *spying) converse(ctx context.Context, tenant, path string, pause time.Duration, message string, beside func(c *websocket.Conn)) {
	all := context.WithoutCancel(ctx)
	to := "ws://" + s.t.addr + strings.ReplaceAll(path, "UP", s.up)
	c, _, err := websocket.Dial(all, to, &websocket.DialOptions{Host: tenant + ".localhost"})
	if err != nil {
		s.fail(err)
		return
	}
	defer func() { c.CloseNow() }()
	for ctx.Err() == nil {
		c.SetReadLimit(1 << 20)
		if beside != nil {
			beside(c)
		}
		one, cancel := context.WithTimeout(all, 20*time.Second)
		err := c.Write(one, websocket.MessageText, []byte(message))
		if err == nil {
			_, _, err = c.Read(one)
		}
		cancel()
		if websocket.CloseStatus(err) == websocket.StatusServiceRestart && len(s.Spies) > 1 {
			// Of several attackers in one process, who is told last is a neighbour of the first and leaves as one.
			atomic.AddInt64(&s.Moved, 1)
			c.CloseNow()
			if c, _, err = websocket.Dial(all, to, &websocket.DialOptions{Host: tenant + ".localhost"}); err == nil {
				continue
			}
		}
		if err != nil {
			s.fail(err)
			return
		}
		s.bracket()
		rest(ctx, pause)
	}
}

// ask times whole requests, the next pause after the last answer.
func (s *spying) ask(ctx context.Context, tenant, path string, brackets int64, pause func() time.Duration) {
	for ctx.Err() == nil {
		a, ok := s.t.public.get(tenant+".localhost", strings.ReplaceAll(path, "UP", s.up))
		if !ok {
			s.fail(fmt.Errorf("%s %s", a.String(), a.message()))
		}
		atomic.AddInt64(&s.Measured, brackets)
		if pause != nil {
			rest(ctx, pause())
		}
	}
}

// stream sends a request's body piece by piece, each after a piece of the answer; 12 pieces, then the next one.
func (s *spying) stream(ctx context.Context, tenant string) {
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, s.t.addr)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: dial}}
	defer client.CloseIdleConnections()
	for ctx.Err() == nil {
		if err := s.pieces(client, tenant, 12); err != nil {
			s.fail(err)
		}
	}
}

func (s *spying) pieces(client *http.Client, tenant string, n int) error {
	pr, pw := io.Pipe()
	defer pw.Close()
	req, err := http.NewRequest("POST", "http://"+tenant+".localhost/stream", pr)
	if err != nil {
		return err
	}
	go pw.Write([]byte("tick"))
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var buf [64]byte
	for i := range n {
		if _, err := resp.Body.Read(buf[:]); err != nil {
			return fmt.Errorf("piece %d: %w", i, err)
		}
		s.bracket()
		if _, err := pw.Write([]byte("tick")); err != nil {
			return err
		}
	}
	pw.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// spyRows were there when the thresholds were frozen.
func spyRows() []spy {
	return []spy{
		{name: "socket", what: "a WebSocket, as fast as it answers", drive: func(ctx context.Context, s *spying) {
			s.converse(ctx, "spy", "/socket", 0, "tick", nil)
		}},
		{name: "drip", what: "a WebSocket, 10 measurements a second", drive: func(ctx context.Context, s *spying) {
			s.converse(ctx, "spy", "/socket", 100*time.Millisecond, "tick", nil)
		}},
		{name: "stream", what: "HTTP: pieces of a body, and of its answer's", drive: func(ctx context.Context, s *spying) { s.stream(ctx, "spy") }},
		{name: "subrequests", what: "subrequests to an upstream that tells the time", drive: func(ctx context.Context, s *spying) {
			s.ask(ctx, "spy", "/subrequests?up=UP", 12, nil)
		}},
		{name: "mix", what: "a WebSocket, with four other messages, subrequests and digests to each measurement", drive: func(ctx context.Context, s *spying) {
			s.converse(ctx, "spy", "/mix?up=UP", 0, "tick", func(c *websocket.Conn) {
				for range 4 {
					one, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
					if c.Write(one, websocket.MessageText, []byte("noise")) == nil {
						c.Read(one)
					}
					cancel()
				}
			})
		}},
		{name: "short", what: "HTTP: short requests, each right after the last", drive: func(ctx context.Context, s *spying) {
			s.ask(ctx, "spy", "/short", 1, nil)
		}},
	}
}

func (r *spies) broken() (out []string) {
	for _, s := range r.Rows {
		switch {
		case !s.Company:
			out = append(out, s.Name+" had no neighbours to begin with: run it again")
		case !s.Alone:
			out = append(out, fmt.Sprintf("%s was never alone, with %.0f ms of CPU", s.Name, s.CPUMs))
		case s.Late > ms(spyBar):
			out = append(out, fmt.Sprintf("%s was alone %.0f ms after its first 100 ms of CPU", s.Name, s.Late))
		}
		if s.Broken > 0 {
			out = append(out, fmt.Sprintf("%s: %d of its own sockets and requests broke: %s", s.Name, s.Broken, strings.Join(s.Ends, "; ")))
		}
		if s.Lost > 0 {
			out = append(out, fmt.Sprintf("%s: its neighbours lost %d requests", s.Name, s.Lost))
		}
	}
	return out
}

func (r *spies) print(w io.Writer) {
	fmt.Fprintf(w, "%s, %d neighbours\n", r.Host, spyNeighbours)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "attacker\talone after ms\tmeasurements\tits CPU then, ms\tcounted as bracketed, ms\tms after its 100 ms of CPU\tbroken\tclosed as a neighbour's\twritten\twhat\n")
	for _, s := range r.Rows {
		after, when := fmt.Sprintf("%.0f", s.AloneMs), "before the freeze"
		if !s.Alone {
			after = "never"
		}
		if s.Later {
			when = "after it"
		}
		fmt.Fprintf(tw, "%s\t%s\t%d\t%.0f\t%.0f\t%.0f\t%d\t%d\t%s\t%s\n", s.Name, after, s.Measured, s.CPUMs, s.Bracketed, s.Late, s.Broken, s.Moved, when, s.What)
	}
	tw.Flush()
	for _, s := range r.Rows {
		if s.Why != "" {
			fmt.Fprintf(w, "%s: %s\n", s.Name, s.Why)
		}
	}
}
