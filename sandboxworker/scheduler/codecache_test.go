package scheduler

import (
	"fmt"
	"strings"
	"testing"

	"bulkhead/ipc/gatewayside"
	"bulkhead/ipc/ipctest"
	"bulkhead/policy/limits"
)

// What one start compiled makes the next one cheaper; a tenant that is not here has no cache.
func TestCodeCacheOfATenant(t *testing.T) {
	h := startShard(t, Options{})
	var src strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&src, "function f%d(a, b) { const c = a * %d + b; return c > 7 ? [c, a] : { c, b }; }\n", i, i)
	}
	src.WriteString(`export default { fetch() { return new Response(JSON.stringify(f77(1, 2))); } }`)
	first := h.load(src.String())
	h.wantOK(h.get(first, "/"), `[79,1]`)
	cache, err := h.CodeCache(t.Context(), first)
	if err != nil || len(cache) == 0 {
		t.Fatalf("%d bytes, %v", len(cache), err)
	}
	if none, err := h.CodeCache(t.Context(), 4711); err != nil || len(none) != 0 {
		t.Errorf("of nobody: %d bytes, %v", len(none), err)
	}
	start := func(n uint32, cache []byte) uint64 {
		res, err := h.Load(t.Context(), gatewayside.LoadRequest{
			Tenant: n, Bundle: ipctest.Bundle(t, src.String()), Limits: limits.DefaultTenant(), Logs: func([]gatewayside.LogEntry) {}, CodeCache: cache,
		})
		if err != nil || res.Failed != nil {
			t.Fatalf("%+v, %v", res.Failed, err)
		}
		h.wantOK(h.get(n, "/"), `[79,1]`)
		return res.CPUMicros
	}
	without, with := start(100, nil), start(101, cache)
	t.Logf("a cache of %d KiB: start-up takes %d us with it, %d us without", len(cache)>>10, with, without)
	start(102, []byte("no cache at all, but the tenant starts"))
}
