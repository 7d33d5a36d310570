package placement

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"bulkhead/ipc/gatewayside"
	"bulkhead/schema/gen"
	"bulkhead/supervisor/observe"
	"bulkhead/supervisor/tenants"
)

// ShardInfo is one line of `bulkhead shards`. The JSON names are a contract.
type ShardInfo struct {
	ID         uint32   `json:"id"`
	PID        int      `json:"pid"` // as the host sees it
	Class      string   `json:"class"`
	Profile    string   `json:"profile"`
	Cordon     string   `json:"cordon"`
	Sealed     bool     `json:"sealed"` // always: the launcher hands over nothing else
	Tenants    []string `json:"tenants"`
	Isolates   int      `json:"isolates"`  // as the shard claims, ready ones included; -1 if it did not say
	RSSBytes   *uint64  `json:"rssBytes"`  // as the kernel told the launcher a few seconds ago; null before that
	HeapBytes  uint64   `json:"heapBytes"` // JS heaps and buffers of all its tenants, as the shard claims
	AgeSeconds float64  `json:"ageSeconds"`
	Spare      bool     `json:"spare"`
}

// Where says where a version of a tenant is.
type Where struct {
	Shard   uint32
	State   string // "loading", "loaded", "retiring", "failed"
	Running int64
	Version *tenants.Version
}

// Shards lists the live shards by id. Each is asked for its numbers, and may fail to answer.
func (p *Pool) Shards(ctx context.Context) []ShardInfo {
	p.mu.Lock()
	list := make([]ShardInfo, 0, len(p.shards))
	conns := make([]Conn, 0, len(p.shards))
	for _, s := range p.shards {
		i := ShardInfo{ID: s.proc.ID, PID: s.proc.PID, Class: s.kind.class, Profile: s.profile.String(), Cordon: s.cordon, Sealed: true,
			Tenants: []string{}, Isolates: -1, AgeSeconds: time.Since(s.born).Seconds(), Spare: !s.used}
		if rss := s.proc.RSS(); rss > 0 {
			i.RSSBytes = &rss
		}
		for _, pl := range s.hosted {
			i.Tenants = append(i.Tenants, pl.v.Tenant)
		}
		slices.Sort(i.Tenants)
		i.Tenants = slices.Compact(i.Tenants)
		list, conns = append(list, i), append(conns, s.conn)
	}
	p.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, statsTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for n := range list {
		wg.Go(func() {
			st, err := conns[n].Stats(ctx)
			if err != nil {
				return
			}
			list[n].Isolates = len(st.Tenants) + int(min(st.IsolatesReady, 1<<16))
			for _, t := range st.Tenants {
				list[n].HeapBytes += t.HeapBytes + t.ExternalBytes
			}
		})
	}
	wg.Wait()
	slices.SortFunc(list, func(a, b ShardInfo) int { return int(a.ID) - int(b.ID) })
	return list
}

// Tenants says where each tenant is that is loaded, loading or failed; the newest version last.
func (p *Pool) Tenants() map[string][]Where {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make(map[string][]Where, len(p.places))
	for v, pl := range p.places {
		w := Where{Version: v, State: "loading", Running: pl.refs.Load()}
		select {
		case <-pl.ready:
			switch {
			case pl.err != nil:
				w.State = "failed"
			case pl.retired.Load():
				w.State = "retiring"
			default:
				w.State = "loaded"
			}
			if pl.err == nil {
				w.Shard = pl.shard.proc.ID
			}
		default:
		}
		out[v.Tenant] = append(out[v.Tenant], w)
	}
	for _, ws := range out {
		slices.SortFunc(ws, func(a, b Where) int { return a.Version.Made.Compare(b.Version.Made) })
	}
	return out
}

// Gauges counts for metrics. TenantsKnown is the registry's to fill.
func (p *Pool) Gauges() observe.Gauges {
	p.mu.Lock()
	defer p.mu.Unlock()
	var g observe.Gauges
	for _, s := range p.shards {
		if s.used {
			g.Shards++
		} else {
			g.Spares++
		}
	}
	for _, pl := range p.places {
		if pl.loaded() {
			g.TenantsLoaded++
		}
	}
	return g
}

// withSecrets is an env with the tenant's secrets: each in the place of a var of its name, or at the end. A
// binding of that name stays, and so do the numbers of bindings.
func (p *Pool) withSecrets(tenant string, env []gatewayside.EnvVar) ([]gatewayside.EnvVar, error) {
	if p.opt.Secrets == nil {
		return env, nil
	}
	list, err := p.opt.Secrets(tenant)
	if err != nil {
		return env, err
	}
	for _, s := range list {
		i := slices.IndexFunc(env, func(e gatewayside.EnvVar) bool { return e.Name == s.Name })
		switch {
		case i < 0:
			env = append(env, s)
		case env[i].Service:
			clear(s.Secret)
		default:
			env[i] = s
		}
	}
	return env, nil
}

// loadRequest is what a shard is told of a version, whose code this is.
func (p *Pool) loadRequest(s *shard, pl *place, code []byte) gatewayside.LoadRequest {
	v := pl.v
	env := make([]gatewayside.EnvVar, len(v.Env))
	for i, e := range v.Env {
		env[i] = gatewayside.EnvVar{Name: e.Name, Value: e.Value, JSON: e.JSON, Service: e.Bound()}
		if e.Bound() {
			env[i].Value = "" // its props are told to whom it leads
		}
	}
	var maps budget
	room := logRoom{bytes: logBurst}
	return gatewayside.LoadRequest{Tenant: pl.handle, Bundle: code, Env: env, Limits: v.Limits, Fetch: p.fetcher(v),
		Logs: func(entries []gatewayside.LogEntry) {
			lines := make([]observe.Line, 0, len(entries))
			for _, e := range entries {
				if !room.take(time.Now(), len(e.Text)) {
					continue
				}
				if e.Level == gen.LogEntry_Level_error && strings.Contains(e.Text, "\n    at ") && maps.take(time.Now()) {
					e.Text = v.MapStack(e.Text) // places of the bundle become those of the tenant's files
				}
				lines = append(lines, observe.Line{Time: msTime(e.TimeMs), Level: e.Level.String(), Request: e.RequestID, Attempt: e.Attempt,
					Text: e.Text, Truncated: e.Truncated, Shard: s.proc.ID, Version: v.Hash})
			}
			if len(lines) == 0 {
				return
			}
			if n := room.told(); n > 0 {
				lines = append(lines, observe.Line{Time: lines[len(lines)-1].Time, Level: gen.LogEntry_Level_warn.String(), Shard: s.proc.ID, Version: v.Hash,
					Text: strconv.Itoa(n) + " log lines were dropped: this worker logs more than is kept"})
			}
			if p.opt.OnLog != nil {
				for _, line := range lines {
					p.opt.OnLog(v.Tenant, line)
				}
			}
			p.opt.Observer.Logs.Append(v.Tenant, lines...)
		}}
}

// fetcher performs subrequests in a tenant's name: the shard that asks says no name.
func (p *Pool) fetcher(v *tenants.Version) func(*gatewayside.Subrequest) {
	if p.opt.Fetch == nil {
		return nil
	}
	return func(r *gatewayside.Subrequest) { p.opt.Fetch(v, r) }
}

// budget bounds how often a tenant's log may cost the gateway the reading of a source map: one
// that logs a million stacks gets most of them as the shard wrote them. Logs of a tenant come one
// call at a time, so it needs no lock.
type budget struct {
	second int64
	used   int
}

const mapsPerSecond = 20

func (b *budget) take(now time.Time) bool {
	if s := now.Unix(); s != b.second {
		b.second, b.used = s, 0
	}
	b.used++
	return b.used <= mapsPerSecond
}

// What a tenant may log, by what its shard sends. The worker has its own bounds for each
// invocation; these hold when the worker is not honest. Lines beyond are dropped rather than made
// to wait: a shard's logs come one after the other, and its other tenants' would wait as well.
const (
	logBurst = 4 << 20 // bytes
	logRate  = 1 << 20 // bytes a second
	logCost  = 256     // bytes a line costs beside its text
)

// logRoom is a token bucket. Like budget it needs no lock.
type logRoom struct {
	bytes   int
	last    time.Time
	dropped int
}

func (r *logRoom) take(now time.Time, text int) bool {
	if d := now.Sub(r.last); d > time.Millisecond {
		r.bytes = int(min(logBurst, int64(r.bytes)+int64(min(d, time.Minute).Seconds()*logRate)))
		r.last = now
	}
	if text += logCost; text > r.bytes {
		r.dropped++
		return false
	}
	r.bytes -= text
	return true
}

// told returns the number of lines dropped since it was asked last.
func (r *logRoom) told() (n int) {
	n, r.dropped = r.dropped, 0
	return n
}

// msTime turns a shard's ms since 1970 into a time that JSON can say (RFC 3339: years 0 to 9999).
func msTime(ms float64) time.Time {
	const last = 253402300799999 // 9999-12-31T23:59:59.999Z
	if !(ms >= 0 && ms <= last) {
		return time.UnixMilli(0).UTC()
	}
	return time.UnixMilli(int64(ms)).UTC()
}
