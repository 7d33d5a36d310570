package protocol

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"bulkhead/securitytests/hosttest"
)

// A dying shard's black box is a claim. Whatever is in it, the incident stands, and nobody is named
// who was not there.
func TestScribbledBlackBox(t *testing.T) {
	deeds := []string{"box-die", "box-noise", "box-clear", "box-strange", "box-truncate"}
	tenants := map[string]hosttest.Files{}
	for _, s := range deeds {
		tenants[s] = dull
	}
	a := newArena(t, "", tenants)
	for _, tenant := range deeds {
		t.Run(tenant, func(t *testing.T) {
			a.serves(t, tenant)
			got, err := a.Do("GET", tenant, "/"+tenant, nil)
			if err == nil && got.Status < 500 {
				t.Errorf("%d %q", got.Status, got.Body)
			}
			i := a.named(t, tenant, "shardDied")
			want := "SIGSEGV"
			if tenant == "box-truncate" {
				want = "SIGSYS"
			}
			if i.Signal != want {
				t.Errorf("the incident is %+v, want %s", i, want)
			}
			for _, name := range i.Tenants {
				if name != "victim" && !slices.Contains(deeds, name) {
					t.Errorf("%q is named", name)
				}
			}
			if strings.ContainsAny(i.Detail, "\x1b\r\n") || !utf8.ValidString(i.Detail) {
				t.Errorf("detail %q", i.Detail)
			}
			if tenant == "box-die" && (!slices.Contains(i.Tenants, tenant) || !strings.Contains(i.Detail, "the truth")) {
				t.Errorf("the truth is not told: %+v", i)
			}
			a.serves(t, tenant)
		})
	}
}

// Native code in a shard that writes a neighbour's name into the black box, each time it ends one: the
// framed are served on, their requests are answered, and the liar ends up alone with its lies.
func TestFramedNeighbours(t *testing.T) {
	tenants := map[string]hosttest.Files{"liar": dull}
	var others []string
	for n := range 16 {
		id := fmt.Sprintf("framed-%d", n)
		others = append(others, id)
		tenants[id] = dull
	}
	a := newArena(t, "limits:\n  wall: 3s\n  waitUntil: 1s\n", tenants) // who waits in another shard is told so after 3 s
	framed := 0
	for round := range 5 {
		for _, id := range others {
			a.serves(t, id)
		}
		a.serves(t, "liar")
		var held sync.WaitGroup
		for _, id := range others {
			held.Go(func() {
				// Answered when its shard dies, by the replay.
				got, err := a.Do("GET", id, "/hold", nil)
				if err != nil || got.Status != 200 && got.Outcome != "exceededWallTime" {
					t.Errorf("round %d: %s was told %d %s", round, id, got.Status, got.Outcome)
				}
			})
		}
		time.Sleep(200 * time.Millisecond) // until they are held
		alone := false
		for _, s := range a.Shards() {
			if slices.Contains(s.Tenants, "liar") {
				alone = len(s.Tenants) == 1
				t.Logf("round %d: the liar is with %v", round, s.Tenants)
			}
		}
		before := len(a.Incidents())
		if got, err := a.Do("GET", "liar", "/box-frame", nil); err != nil || got.Body != "well" && !alone {
			t.Errorf("the liar is not run again: %d %q, %v", got.Status, got.Body, err)
		}
		hosttest.Eventually(t, 20*time.Second, "an incident", func() bool { return len(a.Incidents()) > before })
		for _, i := range a.Incidents()[:len(a.Incidents())-before] {
			t.Logf("round %d: %v named; %s", round, i.Tenants, i.Detail)
			framed += len(i.Tenants)
			if slices.Contains(i.Tenants, "liar") {
				framed--
			}
		}
		held.Wait()
	}
	for _, id := range append(others, "victim") {
		a.serves(t, id)
	}
	if framed == 0 {
		t.Error("nobody was framed: the attack itself failed")
	}
	hosttest.Eventually(t, 20*time.Second, "the liar is alone", func() bool {
		a.serves(t, "liar")
		for _, s := range a.Shards() {
			if slices.Contains(s.Tenants, "liar") {
				return len(s.Tenants) == 1
			}
		}
		return false
	})
}
