package placement

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bulkhead/ipc/gatewayside"
	"bulkhead/policy/suspicion"
	"bulkhead/supervisor/observe"
)

// usage is what shards of a plant claim of tenants, by name.
type usage struct {
	mu    sync.Mutex
	pool  *Pool
	spent map[string]counters // guarded by mu; µs
	lies  []gatewayside.TenantStats
}

func (u *usage) stats(s *fakeShard) (st gatewayside.Stats) {
	u.pool.mu.Lock()
	ids := map[uint32]string{}
	if sh := u.pool.shards[s.id]; sh != nil {
		for h, pl := range sh.hosted {
			ids[h] = pl.v.Tenant
		}
	}
	u.pool.mu.Unlock()
	u.mu.Lock()
	defer u.mu.Unlock()
	for h, id := range ids {
		c := u.spent[id]
		st.Tenants = append(st.Tenants, gatewayside.TenantStats{Tenant: h, CPUMicros: c.cpu, BracketedMicros: c.bracketed, RequestMicros: c.request, LockstepMicros: c.lockstep})
	}
	st.Tenants = append(st.Tenants, u.lies...)
	return st
}

func (u *usage) spend(tenant string, bracketed, request time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	c := u.spent[tenant]
	c.bracketed += uint64(bracketed.Microseconds())
	c.request += uint64(request.Microseconds())
	c.cpu += uint64((bracketed + request).Microseconds())
	u.spent[tenant] = c
}

func watched(t *testing.T, doc string) (*Pool, *plant, *usage) {
	p := &plant{}
	u := &usage{spent: map[string]counters{}}
	pool := newPool(t, p, func(o *Options) { o.Policy, o.MaxShards = parsed(t, doc), 20 })
	u.pool = pool
	p.mu.Lock()
	p.onStats = u.stats
	p.mu.Unlock()
	return pool, p, u
}

// A hundred milliseconds of bracketed CPU, however slowly and whatever else runs, and the tenant is alone
// within a second, while its one invocation goes on.
func TestWhoMeasuresIsAloneWhileItRuns(t *testing.T) {
	for _, c := range []struct {
		name  string
		every time.Duration
		slice time.Duration
		noise time.Duration // of other CPU beside it
	}{
		{"fast", 10 * time.Millisecond, 5 * time.Millisecond, 0},
		{"with noise", 10 * time.Millisecond, 2 * time.Millisecond, 100 * time.Millisecond},
		{"a slow drip", 10 * time.Second, time.Millisecond, time.Millisecond},
		{"a slower one", 5 * time.Minute, time.Millisecond, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pool, _, u := watched(t, "placement: {spread: 1}\nidleEvict: 24h")
				pol := pool.pol.Load()
				spy := take(t, pool, of(pol, "spy"))
				honest := take(t, pool, of(pol, "honest"))
				for i := range 10 {
					take(t, pool, of(pol, fmt.Sprintf("idle%d", i))).Release()
				}
				spent := time.Duration(0)
				for ; spent < 100*time.Millisecond; spent += c.slice {
					if pool.Standing("spy") != "" {
						t.Fatalf("isolated after %v: %s", spent, pool.Standing("spy"))
					}
					u.spend("spy", c.slice, c.noise)
					u.spend("honest", 0, 20*time.Millisecond)
					time.Sleep(c.every)
				}
				time.Sleep(time.Second)
				if st := pool.Standing("spy"); !strings.HasPrefix(st, "alone by suspicion") || !strings.Contains(st, "bracketedCpu (100 ms") {
					t.Fatalf("after %v: %q; %s", spent, st, pool.Suspicion("spy"))
				}
				if !spy.Alive() || !honest.Alive() {
					t.Error("a request was disturbed")
				}
				next := take(t, pool, honest.pl.v)
				if next.Shard() == spy.Shard() {
					t.Error("the honest tenant is still given to the spy's process")
				}
				next.Release()
				honest.Release()
				synctest.Wait()
				pool.mu.Lock()
				if n := len(spy.pl.shard.hosted); n != 1 {
					t.Errorf("%d tenants with the spy", n-1)
				}
				pool.mu.Unlock()
				spy.Release()
			})
		})
	}
}

func TestCalmTenantsAreReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, _, u := watched(t, "placement: {spread: 1}\nidleEvict: 24h")
		pol := pool.pol.Load()
		l := take(t, pool, of(pol, "spy"))
		u.spend("spy", 120*time.Millisecond, 0)
		time.Sleep(time.Second)
		if pool.Standing("spy") == "" {
			t.Fatal("not isolated")
		}
		time.Sleep(pol.Suspicion.HalfLife + pol.Suspicion.Calm)
		if pool.Standing("spy") == "" {
			t.Error("released before it was calm for long enough")
		}
		time.Sleep(2 * pol.Suspicion.HalfLife)
		if got := pool.Standing("spy"); got != "" {
			t.Errorf("still %q: %s", got, pool.Suspicion("spy"))
		}
		// By hand: neither calm nor a switched-off suspicion releases it.
		pool.Isolate("spy", "by hand", "uid 7")
		time.Sleep(24 * time.Hour)
		if got := pool.Standing("spy"); got != "alone by uid 7: by hand" {
			t.Errorf("an operator's measure ended by itself: %q", got)
		}
		if err := pool.Release("spy", "done", "uid 7"); err != nil {
			t.Fatal(err)
		}
		u.spend("spy", 120*time.Millisecond, 0)
		time.Sleep(time.Second)
		if pool.Standing("spy") == "" {
			t.Error("not isolated again when it goes on")
		}
		// An operator's release holds until it does something more.
		if err := pool.Release("spy", "known to be good", "uid 7"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got := pool.Standing("spy"); got != "" {
			t.Errorf("isolated again for what was forgiven: %q", got)
		}
		u.spend("spy", 120*time.Millisecond, 0)
		time.Sleep(time.Second)
		pool.SetPolicy(parsed(t, "placement: {spread: 1}\nidleEvict: 24h\nsuspicion: {enabled: false}"))
		time.Sleep(2 * time.Second)
		if got := pool.Standing("spy"); got != "" {
			t.Errorf("suspicion is off: %q", got)
		}
		l.Release()
	})
}

// Who waits for each answer before the next request is seen, and so is who starts others; what its code
// names weighs little.
func TestLockstepStartsAndTraitsAreWeighed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, _, u := watched(t, "placement: {spread: 1}\nidleEvict: 24h")
		pol := pool.pol.Load()
		v := of(pol, "asker")
		v.Bundle = []byte("WebAssembly performance.now")
		l := take(t, pool, v)
		pool.Apart([]string{"asker"}, "callee")
		pool.Apart([]string{"asker"}, "callee")
		take(t, pool, of(pol, "callee")).Release()
		time.Sleep(time.Second)
		got := map[string]float64{}
		for _, p := range pool.Suspicion("asker").Parts {
			got[p.Signal] = p.Amount
		}
		if got["starts"] < 0.9 || got["starts"] > 1 || got["traits"] < 1.9 {
			t.Errorf("seen: %v", got)
		}
		u.mu.Lock()
		u.spent["asker"] = counters{cpu: 2_000_000, request: 2_000_000, lockstep: 1_200_000}
		u.mu.Unlock()
		time.Sleep(time.Second)
		if st := pool.Standing("asker"); !strings.Contains(st, "lockstepCpu (1200 ms") {
			t.Errorf("%q: %s", st, pool.Suspicion("asker"))
		}
		l.Release()
	})
}

// What a shard says of tenants it does not host, or beyond all measure, isolates nobody else.
func TestShardsCannotFrameStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, _, u := watched(t, "placement: {spread: 4}")
		pol := pool.pol.Load()
		var held []Lease
		for i := range 8 {
			held = append(held, take(t, pool, of(pol, fmt.Sprintf("t%d", i))))
		}
		u.mu.Lock()
		for h := range uint32(200) {
			u.lies = append(u.lies, gatewayside.TenantStats{Tenant: 1000 + h, BracketedMicros: 1 << 63, CPUMicros: 1 << 63})
		}
		u.mu.Unlock()
		time.Sleep(5 * time.Second)
		for _, l := range held {
			if got := pool.Standing(l.pl.v.Tenant); got != "" {
				t.Errorf("%s: %s", l.pl.v.Tenant, got)
			}
			l.Release()
		}
	})
}

func TestStopFollowsWhatIsBeyondDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, _, _ := watched(t, "placement: {spread: 1}")
		pol := pool.pol.Load()
		l := take(t, pool, of(pol, "bad"))
		l.Release()
		pool.Observed("bad", suspicion.Violations, 11)
		time.Sleep(time.Second)
		var le *LoadError
		if _, err := pool.Acquire(t.Context(), l.pl.v); !errors.As(err, &le) {
			t.Errorf("a tenant beyond doubt runs: %v, %s", err, pool.Suspicion("bad"))
		}
		found := false
		for _, i := range pool.opt.Observer.Incidents.List() {
			found = found || i.Kind == observe.Stopped && strings.Contains(i.Detail, "violations (11")
		}
		if !found {
			t.Error("no event explains it")
		}
	})
}

func TestObservationsAreRecordedWherePolicySaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var got []suspicion.Observation
		p := &plant{}
		u := &usage{spent: map[string]counters{}}
		pool := newPool(t, p, func(o *Options) {
			o.Policy = parsed(t, "suspicion: {record: true}")
			o.OnObserved = func(x suspicion.Observation) { mu.Lock(); got = append(got, x); mu.Unlock() }
		})
		u.pool = pool
		p.mu.Lock()
		p.onStats = u.stats
		p.mu.Unlock()
		l := take(t, pool, of(pool.pol.Load(), "a"))
		for range 10 {
			u.spend("a", time.Millisecond, 2*time.Millisecond)
			time.Sleep(250 * time.Millisecond)
		}
		l.Release()
		mu.Lock()
		defer mu.Unlock()
		sum := 0.0
		for _, o := range got {
			sum += o.Seen["bracketedCpu"]
		}
		if sum < 9 || sum > 10 || len(got) < 9 {
			t.Errorf("%d observations with %v ms", len(got), sum)
		}
	})
}
