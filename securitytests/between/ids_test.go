package between

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"bulkhead/securitytests/hosttest"
)

// prober says all numbers and names that a tenant is given and has not made: those that are its own
// isolate's affair must not depend on what others do, and those that are drawn must not repeat.
const prober = `
const first = setTimeout(() => {}, 1e6);
const names = Object.getOwnPropertyNames(globalThis).sort().join();
export default { async fetch(request) {
	const { port1 } = new MessageChannel();
	port1.close();
	const own = {
		timers: [first, setTimeout(() => {}, 1e6), setInterval(() => {}, 1e6)],
		names, registry: Symbol.keyFor(Symbol.for("bulkhead-noise")) + String(Symbol.for("bulkhead-noise").description),
		stack: new Error("x").stack, lastMatch: RegExp.lastMatch + RegExp.$1,
		ends: [String(new Blob([])), new File([], "x").name, String(crypto.subtle), performance.timeOrigin % 1],
		global: String(globalThis.noise),
	};
	const drawn = [Math.random(), Math.random(), crypto.randomUUID(), [...crypto.getRandomValues(new Uint8Array(16))].join(),
		await crypto.subtle.generateKey({ name: "HMAC", hash: "SHA-256" }, true, ["sign"]).then((k) => crypto.subtle.exportKey("raw", k)).then((b) => new Uint8Array(b).join())];
	return Response.json({ own, drawn, headers: [...request.headers] });
} };`

// noise leaves a trace wherever one could be common to isolates of a process.
const noise = `
for (let i = 0; i < 300; i++) setTimeout(() => {}, 1e6);
globalThis.noise = "noise";
Symbol.for("bulkhead-noise");
Object.prototype.noise = Array.prototype.noise = "noise";
"a noise b".match(/(noise)/);
export default { async fetch(request) {
	for (let i = 0; i < 50; i++) { Math.random(); crypto.randomUUID(); new MessageChannel(); await crypto.subtle.digest("SHA-1", new Uint8Array(1)); }
	return new Response("well");
} };`

// What a tenant is given tells it nothing of the others: its timers are numbered for it alone, the draws
// of two isolates of one process are not the same, and no two requests have ids that one could have
// been told from the other.
func TestIdsTellNothingOfOthers(t *testing.T) {
	const probers = 9
	all := map[string]hosttest.Files{}
	for i := range probers {
		all[fmt.Sprintf("p%d", i)] = hosttest.Worker(prober)
	}
	for i := range 8 {
		all[fmt.Sprintf("n%d", i)] = hosttest.Worker(noise)
	}
	h := hosttest.Start(t, hosttest.Options{Tenants: all, Quiet: true})
	type probe struct {
		Own     json.RawMessage
		Drawn   []any
		Headers [][2]string
	}
	ask := func(tenant string) (p probe, id string) {
		a := h.Get(tenant, "/")
		if err := json.Unmarshal([]byte(a.Body), &p); a.Status != 200 || err != nil {
			t.Fatalf("%s: %d %.300s, %v", tenant, a.Status, a.Body, err)
		}
		return p, a.Header.Get("bulkhead-request-id")
	}
	lawful := regexp.MustCompile(`^[0-9a-f]{24}$`)
	seen := map[string]string{} // drawn → whose
	var ids []string
	note := func(tenant string, p probe, id string) {
		for _, d := range p.Drawn {
			v := fmt.Sprint(d)
			if other, twice := seen[v]; twice {
				t.Errorf("%s drew %s, as %s had", tenant, v, other)
			}
			seen[v] = tenant
		}
		if !lawful.MatchString(id) {
			t.Errorf("the request id is %q", id)
		}
		ids = append(ids, id)
		for _, field := range p.Headers {
			if strings.Contains(strings.ToLower(field[0]), "tenant") || strings.Contains(field[1], "p1.localhost") && tenant != "p1" {
				t.Errorf("%s is told %v", tenant, field)
			}
		}
	}
	quiet, id := ask("p0") // alone on the host
	note("p0", quiet, id)
	if strings.Contains(string(quiet.Own), `"noise"`) {
		t.Fatalf("%s", quiet.Own)
	}
	for i := range 8 {
		if a := h.Get(fmt.Sprintf("n%d", i), "/"); a.Status != 200 {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
	}
	beside := 0
	for i := 1; i < probers; i++ {
		tenant := fmt.Sprintf("p%d", i)
		p, id := ask(tenant)
		note(tenant, p, id)
		if string(p.Own) != string(quiet.Own) {
			t.Errorf("alone a tenant is given\n%s\nand among others\n%s", quiet.Own, p.Own)
		}
		for _, s := range h.Shards() {
			if slices.Contains(s.Tenants, tenant) && slices.ContainsFunc(s.Tenants, func(n string) bool { return n[0] == 'n' }) {
				beside++
			}
		}
	}
	if beside == 0 {
		t.Error("no tenant shared a process with the noise: nothing is shown")
	}
	// Neither a counter nor the time: ids that come one after the other have nothing in common at any place.
	for at := range 24 {
		same := 0
		for i := 1; i < len(ids); i++ {
			if ids[i][at] == ids[i-1][at] {
				same++
			}
		}
		if same == len(ids)-1 {
			t.Errorf("digit %d of all request ids is %c", at, ids[0][at])
		}
	}
}
