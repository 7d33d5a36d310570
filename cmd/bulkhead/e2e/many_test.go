package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"bulkhead/securitytests/hosttest"
)

// More tenants than are built at the start: each is built at its first request, those that are one
// plain file without a bundler, and people see no difference.
func TestManyTenants(t *testing.T) {
	files := map[string]hosttest.Files{
		"throws": hosttest.Worker("// one\nexport default {\n  fetch() {\n    throw new Error('at line four');\n  }\n};"),
		"syntax": hosttest.Worker("export default {\n  fetch() { return new Response('x' }\n};"),
		"starts": hosttest.Worker("const x = 1;\nundefinedFunction();\nexport default { fetch() {} };"),
		"typed":  {"worker.ts": "const s: string = 'typed'; export default { fetch(): Response { return new Response(s); } };"},
		"parts":  {"worker.js": `import s from "./s.js"; export default { fetch() { return new Response(s); } };`, "s.js": `export default "parts";`},
		"script": hosttest.Worker(`addEventListener("fetch", (e) => e.respondWith(new Response("script")));`),
		"vars":   {"worker.js": `export default { fetch(r, env) { return new Response(env.A + r.url); } };`, "bulkhead.yaml": "vars: {A: hej}\nroutes: ['vars.example/*']"},
	}
	for i := range 300 {
		files[fmt.Sprintf("t%d", i)] = hosttest.Worker(fmt.Sprintf("export default { fetch() { return new Response('hello from t%d'); } };", i))
	}
	h := hosttest.Start(t, hosttest.Options{Tenants: files, Quiet: true})
	for _, i := range []int{0, 7, 299, 150, 7} {
		if a := h.Get(fmt.Sprintf("t%d", i), "/"); a.Status != 200 || a.Body != fmt.Sprintf("hello from t%d", i) {
			t.Errorf("t%d: %d %q", i, a.Status, a.Body)
		}
	}
	for _, c := range []struct {
		tenant, body string
		status       int
	}{{"typed", "typed", 200}, {"parts", "parts", 200}, {"script", "script", 200}, {"vars", "hejhttp://vars.localhost/", 200}, {"throws", `"exception"`, 500}, {"syntax", `"notLoaded"`, 500}, {"starts", `"notLoaded"`, 500}} {
		if a := h.Get(c.tenant, "/"); a.Status != c.status || !strings.Contains(a.Body, c.body) {
			t.Errorf("%s: %d %q", c.tenant, a.Status, a.Body)
		}
	}
	for tenant, place := range map[string]string{"throws": "worker.js:4:11", "syntax": "worker.js:2:", "starts": "worker.js:2:1"} {
		var log string
		hosttest.Eventually(t, 5*time.Second, "the log of "+tenant+" names "+place, func() bool {
			if err := h.AdminGet("/v1/logs/"+tenant, &log); err != nil {
				t.Fatal(err)
			}
			return strings.Contains(log, place)
		})
	}
	// A change is served as elsewhere.
	h.Put("t7", hosttest.Worker("export default { fetch() { return new Response('changed'); } };"))
	hosttest.Eventually(t, 5*time.Second, "the change is served", func() bool { return h.Get("t7", "/").Body == "changed" })

	var text string
	if err := h.AdminGet("/v1/tenants", &text); err != nil {
		t.Fatal(err)
	}
	var list []struct{ Tenant, State string }
	if err := json.Unmarshal([]byte(text), &list); err != nil || len(list) != len(files) {
		t.Errorf("%d of %d tenants are listed (%v)", len(list), len(files), err)
	}
	var status struct{ Tenants int }
	if err := h.AdminGet("/v1/status", &status); err != nil || status.Tenants != len(files) {
		t.Errorf("status counts %d tenants, %v", status.Tenants, err)
	}
}
