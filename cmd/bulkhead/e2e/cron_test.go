package e2e

import (
	"strings"
	"testing"
	"time"

	"bulkhead/securitytests/hosttest"
)

// A scheduled handler runs at the next minute, in a worker that no request has started.
func TestScheduledHandler(t *testing.T) {
	h := hosttest.Start(t, hosttest.Options{Quiet: true, Tenants: map[string]hosttest.Files{
		"ticks": {"wrangler.toml": "main = \"worker.js\"\n[triggers]\ncrons = [\"* * * * *\"]\n",
			"worker.js": `export default { async scheduled(event, env, ctx) { console.log("tick", event.cron, event.scheduledTime % 60000); } };`},
		"fails": {"bulkhead.yaml": "main: worker.js\ntriggers: {crons: [{cron: '* * * * *', zone: Europe/Berlin}]}\n",
			"worker.js": `export default { scheduled() { throw new Error("boom"); } };`},
	}})
	for tenant, want := range map[string]string{"ticks": "tick * * * * * 0", "fails": "boom"} {
		hosttest.Eventually(t, 90*time.Second, tenant+" has run", func() bool {
			var log string
			return h.AdminGet("/v1/logs/"+tenant, &log) == nil && strings.Contains(log, want)
		})
	}
	var list []struct {
		Tenant   string         `json:"tenant"`
		Outcomes map[string]int `json:"outcomes"`
	}
	hosttest.Eventually(t, 20*time.Second, "both are counted", func() bool {
		list = nil
		if err := h.AdminGet("/v1/tenants", &list); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, e := range list {
			if e.Tenant == "ticks" && e.Outcomes["ok"] > 0 || e.Tenant == "fails" && e.Outcomes["exception"] > 0 {
				n++
			}
		}
		return n == 2
	})
}
