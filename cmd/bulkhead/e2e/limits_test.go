package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead/securitytests/hosttest"
)

// limitsPolicy gives each tenant of TestEveryLimit one limit that its worker is sure to reach.
const limitsPolicy = `
tenants:
  cpu: {limits: {cpu: 30ms}}
  startup: {limits: {startupCpu: 50ms}}
  wall: {limits: {cpu: 30ms, wall: 300ms}}
  waituntil: {limits: {waitUntil: 200ms}}
  memory: {limits: {memory: 16MiB, cpu: 5s}}
  concurrent: {limits: {concurrent: 2}}
  upload: {limits: {requestBody: 64KiB}}
  response: {limits: {responseBody: 64KiB}}
  heads: {limits: {headers: 1KiB}}
  logs: {limits: {logBytes: 1KiB}}
  timers: {limits: {timers: 3}}
  pending: {limits: {pending: 3}}
  subrequests: {limits: {subrequests: 2}}
  script: {limits: {scriptSize: 1KiB}}
`

// Each limit of the policy, reached once by a real worker in a real host: the client gets the
// outcome, the status and a message that says limit and use, and the tenant's log says it too.
func TestEveryLimit(t *testing.T) {
	// A byte goes out at once, so the host has the head before the body is over.
	chunked := func(n int) io.Reader {
		return io.MultiReader(strings.NewReader("x"), strings.NewReader(strings.Repeat("x", n-1)))
	}
	answers := `export default { async fetch(r) { return new Response(String((await r.text()).length)); } };`
	h := hosttest.Start(t, hosttest.Options{Policy: limitsPolicy, Quiet: true, Tenants: map[string]hosttest.Files{
		"cpu":        hosttest.Worker(`export default { fetch() { for (;;); } };`),
		"startup":    hosttest.Worker(`for (;;); export default { fetch() {} };`),
		"wall":       hosttest.Worker(`export default { async fetch() { await new Promise((r) => setTimeout(r, 60000)); return new Response("late"); } };`),
		"waituntil":  hosttest.Worker(`export default { fetch(r, env, ctx) { ctx.waitUntil(new Promise((r) => setTimeout(r, 60000))); return new Response("answered"); } };`),
		"memory":     hosttest.Worker(`export default { fetch() { const all = []; for (;;) all.push(new Array(10000).fill(all.length)); } };`),
		"concurrent": hosttest.Worker(`export default { async fetch() { await new Promise((r) => setTimeout(r, 800)); return new Response("slow"); } };`),
		"upload":     hosttest.Worker(answers),
		"response": hosttest.Worker(`export default { fetch(r) {
			if (new URL(r.url).pathname === "/whole") return new Response("x".repeat(65537));
			let n = 0;
			return new Response(new ReadableStream({ pull(c) { c.enqueue(new Uint8Array(1000)); if (++n > 200) c.close(); } }));
		} };`),
		"heads":  hosttest.Worker(`export default { fetch() { return new Response("x", { headers: { "x-large": "y".repeat(2000) } }); } };`),
		"logs":   hosttest.Worker(`export default { fetch() { for (let i = 0; i < 100; i++) console.log("line " + i + " " + "z".repeat(50)); return new Response("logged"); } };`),
		"timers": hosttest.Worker(`export default { fetch() { for (let i = 0; i < 4; i++) setTimeout(() => {}, 50); return new Response("never"); } };`),
		"pending": hosttest.Worker(`export default { fetch(r, env, ctx) {
			for (let i = 0; i < 5; i++) ctx.waitUntil(new Promise((done) => setTimeout(done, 20)));
			return new Response("never");
		} };`),
		"subrequests": hosttest.Worker(`export default { async fetch() {
			const said = [];
			for (let i = 0; i < 3; i++) await fetch("http://127.0.0.1:1/").catch((e) => said.push(e.message));
			return new Response(said.join("|"));
		} };`),
		"script": hosttest.Worker(`export default { fetch() { return new Response("` + strings.Repeat("s", 2000) + `"); } };`),
	}})
	for _, c := range []struct {
		name, method, tenant, path string
		body                       io.Reader
		header                     int
		status                     int // 0: the response is cut
		outcome, message           string
		log                        string // "": as message
	}{
		{"cpu", "GET", "cpu", "/", nil, 0, 503, "exceededCpu", `CPU limit of 30 ms: used \d+\.\d ms`, ""},
		{"start-up cpu", "GET", "startup", "/", nil, 0, 500, "notLoaded", `could not be started`, `CPU limit of 50 ms`},
		{"wall", "GET", "wall", "/", nil, 0, 504, "exceededWallTime", `wall-clock limit of 300 ms: not done after 3\d\d ms`, ""},
		{"waitUntil", "GET", "waituntil", "/", nil, 0, 200, "", `^answered$`, `waitUntil exceeded its limit of 200 ms`},
		{"memory", "GET", "memory", "/", nil, 0, 503, "exceededMemory", `memory limit of 16 MiB`, ""},
		{"announced upload", "POST", "upload", "/", strings.NewReader(strings.Repeat("x", 65537)), 0, 413, "loadShed", `\(requestBody\): it has 65537, allowed are 64KiB`, ""},
		{"chunked upload", "POST", "upload", "/", chunked(200_000), 0, 413, "canceled", `\(requestBody\): it has at least \S+, allowed are 64KiB`, ""},
		{"upload to the byte", "POST", "upload", "/", strings.NewReader(strings.Repeat("x", 65536)), 0, 200, "", `^65536$`, "-"},
		{"whole response", "GET", "response", "/whole", nil, 0, 500, "exception", `responseBody|limit`, ""},
		{"streamed response", "GET", "response", "/", nil, 0, 0, "", "", `body exceeded its limit of 65536 bytes: \d+ were written`},
		{"request head", "GET", "heads", "/", nil, 1100, 431, "loadShed", `\(headers\): it has \S+, allowed are 1KiB`, ""},
		{"response head", "GET", "heads", "/", nil, 0, 500, "exception", `\(headers\): it has \S+, allowed are 1KiB`, ""},
		{"logs", "GET", "logs", "/", nil, 0, 200, "", `^logged$`, `line 9 `},
		{"timers", "GET", "timers", "/", nil, 0, 500, "exception", `exception`, `Too many timers: the limit is 3`},
		{"pending", "GET", "pending", "/", nil, 0, 500, "exception", `exception`, `the limit is 3 operations`},
		{"subrequests", "GET", "subrequests", "/", nil, 0, 200, "", `too many subrequests: one request may make 2`, "-"},
		{"script", "GET", "script", "/", nil, 0, 500, "notLoaded", `could not be built`, `the bundle has \S+, the limit \(scriptSize\) is 1KiB`},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequest(c.method, "http://"+c.tenant+".localhost"+c.path, c.body)
			if err != nil {
				t.Fatal(err)
			}
			if c.header > 0 {
				req.Header.Set("X-Large", strings.Repeat("y", c.header))
			}
			a, err := h.Send(req)
			switch {
			case c.status == 0 && err == nil:
				t.Errorf("the client believes that it has everything: %d, %d bytes", a.Status, len(a.Body))
			case c.status == 0:
			case err != nil:
				t.Fatal(err)
			default:
				message := a.Body
				var e struct{ Message string }
				if c.outcome != "" && json.Unmarshal([]byte(a.Body), &e) == nil {
					message = e.Message
				}
				if a.Status != c.status || a.Outcome != c.outcome || !regexp.MustCompile(c.message).MatchString(message) {
					t.Errorf("got %d, outcome %q, %.200q; want %d, %q, %s", a.Status, a.Outcome, message, c.status, c.outcome, c.message)
				}
			}
			if c.log == "-" {
				return
			}
			if c.log == "" {
				c.log = c.message
			}
			said := ""
			hosttest.Eventually(t, 5*time.Second, "the tenant's log says "+c.log, func() bool {
				if err := h.AdminGet("/v1/logs/"+c.tenant, &said); err != nil {
					t.Fatal(err)
				}
				return regexp.MustCompile(strings.TrimPrefix(c.log, "^")).MatchString(said)
			})
			if c.name == "logs" && strings.Contains(said, "line 50") {
				t.Errorf("the log holds more than its limit: %d bytes", len(said))
			}
		})
	}
	t.Run("concurrent", func(t *testing.T) {
		shed := make(chan hosttest.Answer, 3)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if a, err := h.Do("GET", "concurrent", "/", nil); err == nil && a.Status == 429 {
					shed <- a
				}
			})
		}
		wg.Wait()
		if len(shed) != 1 {
			t.Fatalf("%d of three were shed", len(shed))
		}
		if a := <-shed; a.Outcome != "loadShed" || !strings.Contains(a.Body, "(concurrent): 3, allowed are 2") || a.Header.Get("Retry-After") == "" {
			t.Errorf("%+v", a)
		}
	})
}
