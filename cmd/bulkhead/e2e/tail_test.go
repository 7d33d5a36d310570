package e2e

import (
	"strings"
	"testing"
	"time"

	"bulkhead/securitytests/hosttest"
)

// A tenant that the operator has named is told what others logged and how they ended, and is not beside them.
func TestTailConsumer(t *testing.T) {
	h := hosttest.Start(t, hosttest.Options{Quiet: true, Policy: "tails: [{from: ['*'], to: [collector]}]\n", Tenants: map[string]hosttest.Files{
		"collector": hosttest.Worker(`export default { async tail(events) {
			for (const e of events) console.log("told:", e.scriptName, e.outcome, e.event.request.method, new URL(e.event.request.url).pathname, e.logs.map((l) => l.level + " " + l.message.join()).join("|"));
		} };`),
		"good": hosttest.Worker(`export default { fetch() { console.log("a line"); console.warn("another"); return new Response("x"); } };`),
		"bad":  hosttest.Worker(`export default { fetch() { throw new Error("boom"); } };`),
	}})
	h.Get("good", "/path?secret=1")
	h.Get("bad", "/")
	log := ""
	hosttest.Eventually(t, 30*time.Second, "the collector is told", func() bool {
		return h.AdminGet("/v1/logs/collector", &log) == nil && strings.Contains(log, "told: good") && strings.Contains(log, "told: bad")
	})
	for _, want := range []string{"told: good ok GET /path log a line|warn another", "told: bad exception GET / error Uncaught Error: boom"} {
		if !strings.Contains(log, want) {
			t.Errorf("not told %q: %s", want, log)
		}
	}
	if strings.Contains(log, "told: collector") {
		t.Error("it is told of itself")
	}
	hosttest.Eventually(t, 10*time.Second, "the collector is beside nobody who caused its events", func() bool {
		return len(together(t, h, "good", "collector"))+len(together(t, h, "bad", "collector")) == 0
	})
}
