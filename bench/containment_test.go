//go:build containment

package main

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"bulkhead/securitytests/hosttest"
)

// The neighbours of a tenant that crashes its process, of one that loops, and of a shard that is
// killed or stopped from outside lose no request that could be replayed; incidents name who did it.
// `go run ./bench -only attack` is the same at full length, with figures.
func TestNeighboursLoseNothing(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	bin := hosttest.Binaries(t)
	lengths := map[string]time.Duration{"aborts": 8 * time.Second, "loop": 3 * time.Second, "kill9": 3 * time.Second, "stop": 3 * time.Second}
	for _, r := range attackRows() {
		d, ok := lengths[r.name]
		if !ok {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			b := &bench{ctx: context.Background(), root: root, bin: bin, say: func(string, ...any) {}, rate: 8, duration: d, calm: 500 * time.Millisecond}
			o, err := b.ordeal(r)
			if err != nil {
				t.Fatal(err)
			}
			for when, l := range map[string]*tally{"before": o.Before, "during": o.During, "after": o.After} {
				for _, f := range l.Failures {
					t.Errorf("%s the attack: %s", when, f)
				}
				if l.Sent != l.OK+l.Interrupted+l.Failed {
					t.Errorf("%s the attack: of %d requests %d ended ok, %d interrupted, %d failed", when, l.Sent, l.OK, l.Interrupted, l.Failed)
				}
			}
			for _, s := range o.broken() {
				t.Error(s)
			}
			t.Logf("%d requests during the attack, %d interrupted, p99 %.1f times the calm; %d blows, incidents: %s, replays: %.0f; the attacker saw %s",
				o.During.Sent, o.During.Interrupted, o.P99Ratio, o.Blows, counts(o.Kinds), o.Replays, counts(o.Attacker))
			if t.Failed() {
				t.Logf("the host's log:\n%s", o.log)
			}
		})
	}
}
