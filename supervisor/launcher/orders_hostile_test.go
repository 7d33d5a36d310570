package launcher

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bulkhead/policy/seccomp"
	"bulkhead/supervisor/launcher/orders"
)

// What a hostile gateway says to the launcher, out of phase, out of range, or without end. Single bad
// orders are in TestHostileOrdersEndTheGeneration.

func hexOrder(t *testing.T, o orders.Order) string {
	t.Helper()
	b, err := o.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", b[:])
}

// A gateway that speaks before it is sealed is a process in an unknown state.
func TestAnOrderBeforeTheSealEndsTheGeneration(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		r := start(t, m, built.child, "--gateway-arg", "too-early")
		eventually(t, "it is refused", func() bool {
			return strings.Contains(r.text(), "order from a gateway that is not sealed yet") || strings.Contains(r.text(), "an order came before the seal was verified")
		})
		if strings.Contains(r.text(), "is sealed\n") {
			t.Errorf("it was taken for sealed:\n%s", r.text())
		}
	})
}

// Lawful orders at the wrong moment, again, or about others' children change nothing.
func TestOrdersAboutTheDeadAreNothing(t *testing.T) {
	m := modes()[0]
	r := start(t, m, built.child)
	c := r.dial()
	id, pid := c.spawn("shard jit %d", gigabyte)
	other, otherPID := c.spawn("shard jit %d", gigabyte)
	kill := hexOrder(t, orders.Order{Kind: orders.KindKill, Child: uint32(id)})
	for range 3 { // of one that lives, dies and is gone
		c.ask("raw %s", kill)
	}
	eventually(t, "it is dead", func() bool { return !alive(pid) })
	c.ask("raw %s", kill)
	c.ask("raw %s", hexOrder(t, orders.Order{Kind: orders.KindLook, Child: uint32(id), Seq: 7}))
	if !alive(otherPID) || c.ask("say %d echo well", other) != "well" || c.ask("pid") != "1" {
		t.Errorf("the other shard, or the generation, is gone:\n%s", r.text())
	}
	// Numbers of an earlier generation's children name nobody of this one's.
	c.try("raw %s", hexOrder(t, orders.Order{Kind: 77}))
	eventually(t, "the next generation serves", func() bool { return strings.Contains(r.text(), "generation 2 started") })
	c = r.dial()
	id2, pid2 := c.spawn("shard jit %d", gigabyte)
	if id2 <= other {
		t.Fatalf("child %d comes after %d", id2, other)
	}
	c.ask("raw %s", hexOrder(t, orders.Order{Kind: orders.KindKill, Child: uint32(other)}))
	if c.ask("pid") != "2" || !alive(pid2) || c.ask("say %d echo well", id2) != "well" {
		t.Errorf("an old number killed somebody:\n%s", r.text())
	}
}

// Whoever floods the launcher costs himself, at most his generation, and the launcher neither grows nor
// stands still.
func TestFloodsOfOrders(t *testing.T) {
	m := modes()[0]
	r := start(t, m, built.child, "--max-shards", "2")
	c := r.dial()
	id, pid := c.spawn("shard jit %d", gigabyte)
	before := launcherRSS(t, r)
	for name, o := range map[string]orders.Order{
		"looks":     {Kind: orders.KindLook, Child: uint32(id), Seq: 1},
		"heartbeat": {Kind: orders.KindHeartbeat},
		"spawns":    {Kind: orders.KindSpawnShard, Profile: seccomp.JIT, Seq: 1 << 40, Memory: gigabyte},
		"bundlers":  {Kind: orders.KindSpawnBundler, Seq: 1 << 41, Tenant: "nobody"},
		"kills":     {Kind: orders.KindKill, Child: uint32(id)},
	} {
		answer, err := c.try("flood 20000 %s", hexOrder(t, o))
		t.Logf("%s: %q, %v", name, answer, err)
		if err != nil { // its generation ended, for not taking its reports
			c = r.dial()
		}
		if name == "kills" {
			eventually(t, "it is dead", func() bool { return !alive(pid) })
		}
	}
	if got := launcherRSS(t, r); got > before+32<<20 {
		t.Errorf("the launcher grew from %d to %d MiB", before>>20, got>>20)
	}
	fresh := r.dial()
	eventually(t, "shards can be had", func() bool {
		answer, err := fresh.try("shard jit %d", gigabyte)
		return err == nil && strings.HasPrefix(answer, "child ")
	})
	if n := len(descendants(r.cmd.Process.Pid)); n > 8 {
		t.Errorf("%d processes are left", n)
	}
}

func launcherRSS(t *testing.T, r *running) uint64 {
	t.Helper()
	n, ok := residentBytes(r.cmd.Process.Pid)
	if !ok {
		t.Fatal("the launcher is gone")
	}
	return n
}

// Descriptors that ride along with an order go nowhere: the launcher has no room for them.
func TestAttachedDescriptorsAreDropped(t *testing.T) {
	m := modes()[0]
	r := start(t, m, built.child)
	c := r.dial()
	fds := func() (links []string) {
		dir := filepath.Join("/proc", fmt.Sprint(r.cmd.Process.Pid), "fd")
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			link, _ := os.Readlink(filepath.Join(dir, e.Name()))
			links = append(links, link)
		}
		return links
	}
	c.ask("pid") // the gateway is there
	before := fds()
	for range 20 {
		if answer, err := c.try("pass %s", hexOrder(t, orders.Order{Kind: orders.KindHeartbeat})); err != nil {
			t.Fatalf("the attack itself failed: %s %v", answer, err)
		}
	}
	c.ask("pid")
	if n := fds(); len(n) > len(before) {
		t.Errorf("the launcher holds %q, before %q", n, before)
	}
}

// Random orders: whatever comes, the launcher lives, obeys its ceilings, and the next gateway serves.
func TestRandomOrders(t *testing.T) {
	m := modes()[0]
	const shards = 2
	r := start(t, m, built.child, "--max-shards", fmt.Sprint(shards), "--max-bundlers", "1")
	rnd := rand.New(rand.NewPCG(4, 4))
	for range 5 {
		c := r.dial()
		for range 40 {
			o := orders.Order{Kind: orders.Kind(2 + rnd.IntN(5)), Seq: rnd.Uint64N(3), Child: rnd.Uint32N(12)}
			switch o.Kind {
			case orders.KindSpawnShard:
				o.Profile, o.Memory = seccomp.Profile(rnd.IntN(3)), uint64(rnd.IntN(2))*gigabyte
			case orders.KindSpawnBundler:
				o.Root, o.Tenant = rnd.Uint32N(2), []string{"hello", "", "nobody"}[rnd.IntN(3)]
			}
			if _, err := c.try("raw %s", hexOrder(t, o)); err != nil {
				break // the generation ended
			}
		}
		c.Close()
		time.Sleep(100 * time.Millisecond)
		if n := len(descendants(r.cmd.Process.Pid)); n > 1+shards+1 {
			t.Errorf("%d children, allowed are a gateway, %d shards and a bundler", n, shards)
		}
	}
	eventually(t, "a gateway serves", func() bool { _, err := r.dial().try("pid"); return err == nil })
}
