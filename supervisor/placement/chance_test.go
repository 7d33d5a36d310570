package placement

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// An attacker starts 1,000 tenants, and somewhere among them its victim starts. Whatever it knows of the order of
// starts, and whatever it keeps busy, it cannot tell better than by chance which of its tenants share a process
// with the victim. Each strategy names 16 of the 1,000; chance is what naming them at random would come to.
func TestWhoSharesAProcessIsChance(t *testing.T) {
	const tenants, guesses, trials = 1000, 16, 24
	strategies := map[string]func(at, k int) int{ // the k-th guess, when the victim was started at so many
		"the next":     func(at, k int) int { return at + k },
		"those before": func(at, k int) int { return at - 1 - k },
		"both sides":   func(at, k int) int { return at - guesses/2 + k },
		"the first":    func(_, k int) int { return k },
		"the last":     func(_, k int) int { return tenants - 1 - k },
		"64 later":     func(at, k int) int { return at + 56 + k },
		"every 64th":   func(at, k int) int { return at%64 + 60*k },
	}
	hits, tries := map[string]int{}, map[string]int{}
	shared := 0.0
	for trial := range trials {
		synctest.Test(t, func(t *testing.T) {
			p := &plant{}
			pol := parsed(t, "idleEvict: 24h\nsuspicion: {enabled: false}")
			pool := newPool(t, p, func(o *Options) { o.Policy, o.MaxShards = pol, 64 })
			at := 100 + trial*33
			for i := range tenants {
				if i == at {
					take(t, pool, of(pol, "victim")).Release()
				}
				take(t, pool, of(pol, fmt.Sprintf("spy-%d", i))).Release()
			}
			time.Sleep(30 * time.Second) // until all are moved that are to be
			synctest.Wait()
			with := map[string]bool{}
			pool.mu.Lock()
			for _, s := range pool.shards {
				var ids []string
				for _, pl := range s.hosted {
					ids = append(ids, pl.v.Tenant)
				}
				if slices.Contains(ids, "victim") {
					for _, id := range ids {
						with[id] = true
					}
				}
			}
			pool.mu.Unlock()
			if !with["victim"] {
				t.Fatal("the victim is nowhere")
			}
			shared += float64(len(with)-1) / tenants
			for name, guess := range strategies {
				for k := range guesses {
					n := guess(at, k)
					if n < 0 || n >= tenants {
						continue
					}
					tries[name]++
					if with[fmt.Sprintf("spy-%d", n)] {
						hits[name]++
					}
				}
			}
		})
	}
	chance := shared / trials
	var found strings.Builder
	for name := range strategies {
		n := float64(tries[name])
		rate := float64(hits[name]) / n
		fmt.Fprintf(&found, "%s %.1f %%, ", name, 100*rate)
		// Guesses of one trial share a victim, whose process may be full or not: more than a binomial's spread.
		if most := chance + 4.5*math.Sqrt(chance*(1-chance)/n); rate > most {
			t.Errorf("%s: %.1f %% of %.0f guesses share the victim's process; chance is %.1f %%, up to %.1f %%", name, 100*rate, n, 100*chance, 100*most)
		}
	}
	t.Logf("chance %.1f %%; %s", 100*chance, found.String())
}
