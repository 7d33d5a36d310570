package placement

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"bulkhead/policy"
	"bulkhead/policy/seccomp"
	"bulkhead/supervisor/tenants"
)

func parsed(t *testing.T, doc string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse("p.yaml", []byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// of is a version as the registry makes it under a policy.
func of(pol *policy.Policy, id string) *tenants.Version {
	v := version(id)
	v.Profile = pol.For(id).Profile
	return v
}

// checkKinds compares every shard with what policy wants for each tenant in it.
func checkKinds(t *testing.T, pool *Pool) {
	t.Helper()
	pool.mu.Lock()
	defer pool.mu.Unlock()
	for id, s := range pool.shards {
		for _, pl := range s.hosted {
			if pl.gone.Load() {
				continue // on its way out
			}
			if w := pool.wants(pl.v); s.kind != w.kind || s.cordon != w.cordon {
				t.Fatalf("shard %d is %+v of %q and hosts %s, which belongs into %+v of %q", id, s.kind, s.cordon, pl.v.Tenant, w.kind, w.cordon)
			}
		}
		if len(s.hosted) > s.kind.shard.MaxTenants {
			t.Fatalf("shard %d of class %s hosts %d tenants", id, s.kind.class, len(s.hosted))
		}
	}
}

const threeCordons = `
placement: {spread: 2}
shard: {maxTenants: 6}
classes:
  small: {profile: jitless, maxTenants: 2, memory: 1GiB}
cordons:
  free: {class: small}
  paid: {spread: 3}
tenants:
  "f*": {cordon: free}
  "p*": {cordon: paid}
  "w*": {profile: jit+wasm}
`

// Tenants of different cordons, classes or profiles never share a process, whatever comes and goes.
func TestCordonsAndClassesNeverShareAShard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		pol := parsed(t, threeCordons)
		pool := newPool(t, p, func(o *Options) { o.Policy, o.MaxShards = pol, 40 })
		r := rand.New(rand.NewPCG(3, 4))
		held := map[string]Lease{}
		for range 3000 {
			id := fmt.Sprintf("%c%d", "fpwd"[r.IntN(4)], r.IntN(12))
			if l, ok := held[id]; ok {
				l.Release()
				delete(held, id)
				if r.IntN(3) == 0 {
					pool.Evict(id)
				}
				continue
			}
			l, err := pool.Acquire(t.Context(), of(pol, id))
			if err != nil {
				t.Fatalf("%s: %v", id, err)
			}
			held[id] = l
			checkKinds(t, pool)
		}
		cordons := map[string]map[uint32]bool{}
		for id, l := range held {
			c := pol.For(id).Cordon
			if cordons[c] == nil {
				cordons[c] = map[uint32]bool{}
			}
			cordons[c][l.Shard()] = true
			l.Release()
		}
		if len(cordons["paid"]) < 3 || len(cordons["default"]) < 2 {
			t.Errorf("spread over too few shards: %v", cordons)
		}
	})
}

// A host that is full of one kind makes room for another.
func TestFullHostMakesRoomForAnotherKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		pol := parsed(t, "shard: {maxTenants: 1}\ncordons: {paid: {}}\ntenants: {\"p*\": {cordon: paid}, \"w*\": {profile: jit+wasm}}")
		pool := newPool(t, p, func(o *Options) { o.Policy, o.MaxShards = pol, 8 })
		for i := range 20 {
			take(t, pool, of(pol, fmt.Sprintf("d%d", i))).Release()
			synctest.Wait()
		}
		for _, id := range []string{"p1", "w1", "p2", "w2", "d1"} {
			take(t, pool, of(pol, id)).Release()
			checkKinds(t, pool)
		}
		var busy []Lease
		for i := range 7 {
			l, err := pool.Acquire(t.Context(), of(pol, fmt.Sprintf("d%d", i)))
			if err != nil {
				t.Fatal(err)
			}
			busy = append(busy, l)
		}
		if _, err := pool.Acquire(t.Context(), of(pol, "p3")); !errors.Is(err, ErrFull) {
			t.Errorf("a host full of busy tenants: %v", err)
		}
		for _, l := range busy {
			l.Release()
		}
		take(t, pool, of(pol, "p3")).Release()
	})
}

// A changed policy moves whom it concerns and nobody else; what runs ends where it is.
func TestSetPolicyMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		before := parsed(t, "shard: {maxTenants: 4}\ncordons: {paid: {}}")
		pool := newPool(t, p, func(o *Options) { o.Policy, o.MaxShards = before, 40 })
		versions := map[string]*tenants.Version{}
		for i := range 20 {
			id := fmt.Sprintf("%c%d", "pd"[i%2], i)
			versions[id] = of(before, id)
			take(t, pool, versions[id]).Release()
		}
		time.Sleep(time.Second) // shards that were opened for the last have had others mixed in
		running := take(t, pool, versions["p0"])
		stays := take(t, pool, versions["d1"])
		was := running.Shard()
		after := parsed(t, "shard: {maxTenants: 4}\ncordons: {paid: {}}\ntenants: {\"p*\": {cordon: paid}}")
		if n := pool.SetPolicy(after); n != 10 {
			t.Errorf("%d tenants moved, want 10", n)
		}
		synctest.Wait()
		checkKinds(t, pool)
		if !running.Alive() {
			t.Error("the running request's shard is gone")
		}
		again := take(t, pool, versions["p0"])
		if again.Shard() == was {
			t.Error("its next request came to the old shard")
		}
		if l := take(t, pool, versions["d1"]); l.Shard() != stays.Shard() {
			t.Error("a tenant moved whom the change did not concern")
		} else {
			l.Release()
		}
		running.Release()
		again.Release()
		stays.Release()
		time.Sleep(time.Second)
		checkSlots(t, pool, p)
	})
}

// Whoever starts many tenants learns no better than chance which of them is beside a given victim.
func TestPlacementCannotBeAimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plant{}
		pol := parsed(t, "placement: {spread: 8}\nshard: {maxTenants: 64}")
		pool := newPool(t, p, func(o *Options) { o.Policy, o.MaxShards = pol, 40 })
		// The attacker guesses that what was loaded next to the victim in time is next to it in place;
		// each guess is made anew, with everybody gone in between.
		hits, tries, shards := 0, 1000, 0
		for i := range tries {
			var others []Lease
			for n := range 24 { // fills eight shards to three
				others = append(others, take(t, pool, of(pol, fmt.Sprintf("o%d-%d", i, n))))
			}
			victim := take(t, pool, of(pol, fmt.Sprintf("v%d", i)))
			attacker := take(t, pool, of(pol, fmt.Sprintf("a%d", i)))
			if victim.Shard() == attacker.Shard() {
				hits++
			}
			used := map[uint32]bool{}
			for _, l := range append(others, victim, attacker) {
				used[l.Shard()] = true
				l.Release()
			}
			shards += len(used)
			for _, l := range append(others, victim, attacker) {
				pool.Evict(l.pl.v.Tenant)
			}
			synctest.Wait()
		}
		mean := float64(shards) / float64(tries)
		want := float64(tries) / mean
		if mean < 8 {
			t.Errorf("%.1f shards in use, want at least 8", mean)
		}
		// Four standard deviations of a binomial distribution: once in 16,000 runs by chance.
		if d := float64(hits) - want; d*d > 16*want {
			t.Errorf("%d hits of %d, chance gives %.0f", hits, tries, want)
		}
	})
}

func TestWithoutPolicyOptionsSayAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := newPool(t, &plant{}, nil)
		l := take(t, pool, version("a"))
		if s := l.pl.shard; s.kind != (kind{policy.DefaultName, seccomp.JIT, pool.opt.Shard}) || s.cordon != policy.DefaultName {
			t.Errorf("%+v of %q", s.kind, s.cordon)
		}
		l.Release()
	})
}
