package placement

import (
	"fmt"
	"slices"
	"time"
)

// standing is what is held against a tenant. It is served all the same, but only in shards of its
// cohort: alone if it is held to have ended a shard, and with as few others as can be managed while
// it is one of many who may have. Being framed costs it nothing but the company.
type standing struct {
	cohort uint64    // of the shards that may host it; 0: any, it has been released
	deaths int       // of shards it is held to have ended, in a row
	until  time.Time // released then
	next   time.Time // no new shard for it before
	gone   time.Time // forgotten then

	measure uint8  // taken by suspicion or an operator: held until released
	why, by string // of the measure
}

const (
	// maxGroups bounds the shards that one death's suspects are spread over. More suspects than that
	// are tested in groups: the next death tells which one.
	maxGroups = 8
	// probation of a tenant that may have ended a shard.
	probation = time.Minute
	// Quarantine of a tenant that did, doubling with each further one up to maxQuarantine.
	quarantine    = 10 * time.Minute
	maxQuarantine = 24 * time.Hour
	// remembered is how long after its release a tenant's past counts.
	remembered = 24 * time.Hour
	// freeDeaths of a tenant cost it no waiting; each further one doubles the pause before the next
	// shard for it, from firstPause to lastPause: whoever lives on ending processes must not have
	// the machine busy with making them.
	freeDeaths = 3
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
)

// accuseLocked puts suspects of a death apart, from everybody else and as far as possible from each
// other. proven: the only one did it.
func (p *Pool) accuseLocked(suspects []string, proven bool) {
	now := time.Now()
	groups := min(len(suspects), maxGroups)
	// At random, so that who shares a group with whom cannot be arranged.
	p.shuffle(suspects)
	for g := range groups {
		p.cohorts++
		for i := g; i < len(suspects); i += groups {
			st := p.standings[suspects[i]]
			if st == nil {
				st = &standing{}
				p.standings[suspects[i]] = st
			}
			if st.measure == measureNone {
				st.cohort = p.cohorts
			} // else it is alone already, and stays in its own
			until := now.Add(probation)
			if len(suspects) > maxGroups {
				until = now.Add(quarantine)
			}
			if proven {
				st.deaths++
				until = now.Add(min(quarantine<<min(st.deaths-1, 12), maxQuarantine))
				if n := st.deaths - freeDeaths; n > 0 {
					st.next = now.Add(min(firstPause<<min(n-1, 12), lastPause))
				}
			}
			if until.After(st.until) {
				st.until = until
			}
			st.gone = st.until.Add(remembered)
			p.moveLocked(suspects[i], st.cohort, 0)
		}
	}
	slices.Sort(suspects)
}

// met counts the deaths at which a tenant was present while others were blamed, or nobody.
type met struct {
	deaths int
	last   time.Time
}

const (
	// metMost deaths, none longer than metFor after the one before, make a suspect of somebody who was
	// never blamed: native code in a shard can write another's name into the black box each time it
	// ends one, and would so see shard after shard.
	metMost = 3
	metFor  = 10 * time.Minute
)

// meetLocked notes who was at work when a shard of innocents ended, and returns those of whom that
// is true too often.
func (p *Pool) meetLocked(ids []string) (suspects []string) {
	now := time.Now()
	for _, id := range ids {
		m := p.met[id]
		if m == nil {
			m = &met{}
			p.met[id] = m
		}
		if now.Sub(m.last) > metFor {
			m.deaths = 0
		}
		m.deaths, m.last = m.deaths+1, now
		if m.deaths >= metMost {
			suspects = append(suspects, id)
		}
	}
	return suspects
}

// cohortLocked is the cohort of a tenant now, and when it may have a new shard.
func (p *Pool) cohortLocked(tenant string) (cohort uint64, next time.Time) {
	if st := p.standings[tenant]; st != nil {
		return st.cohort, st.next
	}
	return 0, time.Time{}
}

// moveLocked has a tenant's next requests go to a shard of its cohort. Where it is now its running
// requests end in peace; WebSockets are ended after grace.
func (p *Pool) moveLocked(tenant string, cohort uint64, grace time.Duration) {
	for v, pl := range p.places {
		if v.Tenant != tenant || !pl.loaded() || pl.shard.cohort == cohort {
			continue
		}
		p.leaveLocked(pl, grace)
	}
}

// releaseLocked lets those go whose time is over.
func (p *Pool) releaseLocked(now time.Time) {
	p.apart.forget(now)
	for id, m := range p.met {
		if now.Sub(m.last) > metFor {
			delete(p.met, id)
		}
	}
	for id, st := range p.standings {
		switch {
		case now.After(st.gone):
			delete(p.standings, id)
		case st.cohort != 0 && now.After(st.until):
			st.cohort, st.next = 0, time.Time{}
			p.moveLocked(id, 0, p.grace())
		}
	}
}

// Standing says in a few words what is held against a tenant, "" for nothing.
func (p *Pool) Standing(tenant string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.standings[tenant]
	switch {
	case st == nil || st.cohort == 0:
		return ""
	case st.measure == measureStop:
		return fmt.Sprintf("stopped by %s: %s", st.by, st.why)
	case st.measure == measureIsolate:
		return fmt.Sprintf("alone by %s: %s", st.by, st.why)
	case st.deaths > 0:
		return fmt.Sprintf("alone: ended %d processes, until %s", st.deaths, st.until.UTC().Format(time.RFC3339))
	}
	return "apart: may have ended a process, until " + st.until.UTC().Format(time.RFC3339)
}

func unique(ids []string) []string {
	slices.Sort(ids)
	return slices.Compact(ids)
}
