package between

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"bulkhead/policy/seccomp"
	"bulkhead/securitytests/canary"
	"bulkhead/securitytests/hosttest"
)

func eachMode(t *testing.T, test func(t *testing.T, rootless bool)) {
	for name, rootless := range map[string]bool{"root": false, "rootless": true} {
		t.Run(name, func(t *testing.T) { test(t, rootless) })
	}
}

// planted has the tenant keep its secrets in every place, beside neighbours, and shows that each is found there.
func planted(t *testing.T, h *House, round int) (home hosttest.Shard, before canary.Count) {
	t.Helper()
	home = h.VisitShared()
	before = h.Held(home.PID)
	for _, place := range canary.Places() {
		if before[place] == 0 {
			t.Errorf("round %d: the instrument does not find %q in the tenant's own process", round, place)
		}
	}
	return home, before
}

// An evicted tenant's shard holds nothing of it, in any mapping.
func TestAnEvictedTenantLeavesNothingBehind(t *testing.T) {
	eachMode(t, func(t *testing.T, rootless bool) {
		for _, p := range seccomp.Profiles() {
			t.Run(p.String(), func(t *testing.T) {
				h := Open(t, p, rootless, "")
				for round := range 3 {
					home, before := planted(t, h, round)
					began := time.Now()
					if err := h.AdminPost("/v1/evict/a"); err != nil {
						t.Fatal(err)
					}
					took := time.Since(began)
					if _, still := h.ShardOf("a"); still {
						t.Fatal("the tenant was not evicted")
					}
					left := h.Scan(home.PID)
					t.Logf("round %d: before: %d parts of secrets; after eviction, which took %v: %d", round, sum(before), took.Round(100*time.Microsecond), len(left))
					if len(left) > 0 {
						t.Errorf("round %d: left behind:\n%s", round, Details(left))
					}
					h.ServeNeighbours()
				}
			})
		}
	})
}

// When a suspect's neighbours are reported gone, its process holds nothing of them, in any mapping, while the
// suspect runs on.
func TestTheNeighboursOfASuspectLeaveNothingWithIt(t *testing.T) {
	eachMode(t, func(t *testing.T, rootless bool) {
		for _, p := range seccomp.Profiles() {
			t.Run(p.String(), func(t *testing.T) {
				h := Open(t, p, rootless, "")
				for round := range 3 {
					home, before := planted(t, h, round)
					suspect := home.Tenants[slices.IndexFunc(home.Tenants, func(id string) bool { return id != "a" })]
					gone := h.gone()
					if err := h.AdminPost("/v1/isolate/" + suspect + "?reason=test"); err != nil {
						t.Fatal(err)
					}
					hosttest.Eventually(t, time.Minute, "the neighbours are gone", func() bool { return h.gone() > gone })
					left := h.Scan(home.PID)
					t.Logf("round %d: before: %d parts of secrets; with the suspect, once its %d neighbours were gone: %d", round, sum(before), len(home.Tenants)-1, len(left))
					if len(left) > 0 {
						t.Errorf("round %d: left behind:\n%s", round, Details(left))
					}
					if now, ok := h.ShardOf(suspect); !ok || now.PID != home.PID || len(now.Tenants) != 1 {
						t.Errorf("round %d: the suspect is in %+v, was in process %d", round, now, home.PID)
					}
					if err := h.AdminPost("/v1/release/" + suspect + "?reason=test"); err != nil {
						t.Fatal(err)
					}
					h.ServeNeighbours()
				}
			})
		}
	})
}

// gone counts the reports that a suspect's neighbours have left.
func (h *House) gone() (n int) {
	for _, i := range h.Incidents() {
		if i.Kind == "gone" {
			n++
		}
	}
	return n
}

// A tenant's secrets are in its own process and in the gateway, and nowhere else: neither in another
// process of the host nor in what others are answered, told or shown.
func TestATenantsSecretsAreNowhereElse(t *testing.T) {
	eachMode(t, func(t *testing.T, rootless bool) {
		h := Open(t, seccomp.JIT, rootless, "")
		for range 3 {
			home := h.VisitShared()
			if held := sum(h.Held(home.PID)); held == 0 {
				t.Fatal("the instrument finds nothing in the tenant's own process")
			}
			processes := h.processes()
			kinds := map[string]int{}
			for _, pid := range processes {
				comm := hosttest.Comm(pid)
				if h.own(pid) || comm == "bulkhead-gateway" {
					continue
				}
				hits, err := canary.Scan(pid, h.secrets)
				if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
					continue // it has ended
				}
				if err != nil {
					t.Fatal(err)
				}
				kinds[comm]++
				if len(hits) > 0 {
					t.Errorf("in %s, process %d:\n%s", comm, pid, Details(hits))
				}
			}
			t.Logf("nothing in %v", kinds)
			if kinds["bulkhead-worker"] < 3 || kinds["bulkhead-launcher"] != 1 {
				t.Errorf("the scan saw too few processes: %v", kinds)
			}
			h.lookAround()
		}
		if err := h.AdminPost("/v1/evict/a"); err != nil {
			t.Fatal(err)
		}
		h.lookAround()
	})
}

// own reports whether the tenant is in a process, as the host has it: its code cache is made in a second
// one, where it is alone.
func (h *House) own(pid int) bool {
	for _, s := range h.Shards() {
		if s.PID == pid {
			return slices.Contains(s.Tenants, "a")
		}
	}
	return false
}

// processes are the host's, all of them.
func (h *House) processes() []int {
	all := []int{h.PID}
	for i := 0; i < len(all); i++ {
		all = append(all, hosttest.Children(all[i])...)
	}
	return all
}

// lookAround looks for secrets in what an operator and the neighbours are shown.
func (h *House) lookAround() {
	h.t.Helper()
	paths := []string{"/v1/status", "/v1/tenants", "/v1/shards", "/v1/incidents", "/v1/policy"}
	for i := range neighbours {
		paths = append(paths, fmt.Sprintf("/v1/logs/b%d", i))
	}
	for _, path := range paths {
		var text string
		if err := h.AdminGet(path, &text); err != nil {
			h.t.Errorf("%s: %v", path, err)
		}
		if found := h.secrets.In(text); len(found) > 0 {
			h.t.Errorf("%s holds secrets: %v", path, found)
		}
	}
	if found := h.secrets.In(h.Log()); len(found) > 0 {
		h.t.Errorf("the host's own log holds secrets: %v", found)
	}
	h.ServeNeighbours()
}

func sum(c canary.Count) (n int) {
	for _, v := range c {
		n += v
	}
	return n
}
