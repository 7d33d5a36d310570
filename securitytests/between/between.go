// Package between holds what the tests of one tenant against another share: a host with a tenant that
// holds secrets among neighbours. The tests are about secrets that are left behind or carried elsewhere,
// and about time.
package between

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"bulkhead/policy/seccomp"
	"bulkhead/securitytests/canary"
	"bulkhead/securitytests/hosttest"
)

// neighbours are enough for each of the shards over which tenants are spread to have several.
const neighbours = 11

const neighbour = `let n = 0;
export default { async fetch(request) {
	console.log("request", ++n);
	if (new URL(request.url).pathname === "/throw") throw new Error("on purpose");
	return new Response((await request.text()).length + " " + n);
} };`

// House is a host with the tenant that holds the secrets, and its neighbours.
type House struct {
	*hosttest.Host
	t       *testing.T
	secrets *canary.Secrets
	up      string
}

// Open starts a host with them. It needs root, to read the memory of workers.
func Open(t *testing.T, p seccomp.Profile, rootless bool, workerDir string) *House {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root may read the memory of a worker")
	}
	h := &House{t: t, secrets: canary.NewSecrets()}
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: h.secrets.Upstream()}}
	s.Start()
	t.Cleanup(s.Close)
	h.up = s.URL
	all := map[string]hosttest.Files{"a": h.secrets.Files()}
	for i := range neighbours {
		all[fmt.Sprintf("b%d", i)] = hosttest.Worker(neighbour)
	}
	h.Host = hosttest.Start(t, hosttest.Options{Tenants: all, Rootless: rootless, Quiet: true, WorkerDir: workerDir,
		Policy: fmt.Sprintf("profile: %v\nlimits: {wasm: %t, cpu: 5s, startupCpu: 5s, memory: 128MiB}\negress: {allow: [127.0.0.2], internal: [127.0.0.2]}\n", p, p == seccomp.JITWasm)})
	return h
}

// visit has the tenant hold its secrets, beside neighbours that are at work too.
func (h *House) visit() {
	h.t.Helper()
	h.ServeNeighbours()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := h.secrets.Visit(ctx, "a", h.up, func(r *http.Request) (int, string, error) {
		a, err := h.Send(r)
		return a.Status, a.Body, err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.ServeNeighbours()
}

// VisitShared is visit, in a process that is shared.
func (h *House) VisitShared() hosttest.Shard {
	h.t.Helper()
	h.ServeNeighbours()
	for range 40 {
		h.Get("a", "/answer")
		if home, ok := h.ShardOf("a"); ok && len(home.Tenants) > 1 {
			h.visit()
			return home
		}
		if err := h.AdminPost("/v1/evict/a"); err != nil { // that process is not used again
			h.t.Fatal(err)
		}
	}
	h.t.Fatalf("the tenant shares no process: %+v", h.Shards())
	return hosttest.Shard{}
}

// ServeNeighbours has each neighbour answer, and looks for the secrets in what it says.
func (h *House) ServeNeighbours() {
	h.t.Helper()
	for i := range neighbours {
		id := fmt.Sprintf("b%d", i)
		for _, path := range []string{"/", "/throw"} {
			a, err := h.Do("POST", id, path, strings.NewReader(strings.Repeat("body", 1000)))
			if err != nil {
				h.t.Fatal(err)
			}
			if found := h.secrets.In(fmt.Sprintf("%v %s", a.Header, a.Body)); len(found) > 0 {
				h.t.Errorf("an answer of %s holds secrets: %v", id, found)
			}
		}
	}
}

// ShardOf is the process that hosts a tenant.
func (h *House) ShardOf(tenant string) (hosttest.Shard, bool) {
	h.t.Helper()
	for _, s := range h.Shards() {
		if slices.Contains(s.Tenants, tenant) {
			return s, true
		}
	}
	return hosttest.Shard{}, false
}

// Held is what a process holds. Looked at three times: the collector moves things about meanwhile.
func (h *House) Held(pid int) canary.Count {
	h.t.Helper()
	most := canary.Count{}
	for range 3 {
		for p, n := range canary.CountOf(h.Scan(pid)) {
			most[p] = max(most[p], n)
		}
	}
	return most
}

// Scan looks through a process.
func (h *House) Scan(pid int) []canary.Hit {
	h.t.Helper()
	hits, err := canary.Scan(pid, h.secrets)
	if err != nil {
		h.t.Fatal(err)
	}
	return hits
}

// Details says where hits are, by mapping.
func Details(hits []canary.Hit) string {
	by := map[string][]canary.Hit{}
	for _, h := range hits {
		by[h.Mapping] = append(by[h.Mapping], h)
	}
	var b strings.Builder
	for _, m := range slices.Sorted(maps.Keys(by)) {
		fmt.Fprintf(&b, "%s\n    %v\n", m, canary.CountOf(by[m]))
		for _, h := range by[m][:min(len(by[m]), 5)] {
			fmt.Fprintf(&b, "    %x: %s\n", h.Address, h.Around)
		}
	}
	return b.String()
}
