package suites

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"syscall"

	"bulkhead/policy/seccomp"
	"bulkhead/securitytests/canary"
	"bulkhead/securitytests/clock"
)

func tenantPromises() []Promise {
	return []Promise{
		{Name: "an evicted tenant leaves nothing behind", Suite: "tenants", try: leavesNothing,
			Gain:   "what the tenants who were here before held: code, variables, requests",
			Repair: "report it with the detail; until then keep tenants apart (shard: {maxTenants: 1})"},
		{Name: "a neighbour's secret is in no other process", Suite: "tenants", try: isNowhereElse,
			Gain:   "secrets of tenants that were never in this process",
			Repair: "report it with the detail: the host handed a tenant's bytes to a process that does not host it"},
		{Name: "JavaScript cannot tell time between I/O", Suite: "tenants", try: cannotTellTime,
			Gain:   "the clock that side channels are read with",
			Repair: "report it with the detail; until then use profile jitless, which makes any clock coarser"},
	}
}

// household is what was found out about tenants of one host, once for all promises of a scene.
type household struct {
	once                  sync.Once
	left, elsewhere, told finding
}

const (
	secretTenant    = "a"
	clockTenant     = "t"
	manyTenants     = 12 // so many neighbours that the tenant shares a process however they are spread
	mostTranscripts = 6
)

const plainWorker = `export default { async fetch(request) { return new Response("well " + (await request.text()).length); } };`

func leavesNothing(ctx context.Context, s *scene) finding {
	s.lookAtTenants(ctx)
	return s.household.left
}

func isNowhereElse(ctx context.Context, s *scene) finding {
	s.lookAtTenants(ctx)
	return s.household.elsewhere
}

func cannotTellTime(ctx context.Context, s *scene) finding {
	s.lookAtTenants(ctx)
	return s.household.told
}

func (s *scene) lookAtTenants(ctx context.Context) {
	s.household.once.Do(func() {
		all := &s.household
		f := failedTry(errors.New("it was not reached"))
		all.left, all.elsewhere, all.told = f, f, f
		if err := s.visitTenants(ctx); err != nil {
			// What was found before stands.
			for _, f := range []*finding{&all.left, &all.elsewhere, &all.told} {
				if f.status == NotShown {
					*f = failedTry(err)
				}
			}
		}
	})
}

func (s *scene) visitTenants(ctx context.Context) error {
	secrets := canary.NewSecrets()
	// 127.0.0.2, because the policy can allow it without allowing the host's own address.
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		return err
	}
	up := &http.Server{Handler: secrets.Upstream()}
	go func() { _ = up.Serve(l) }() // ends with Close
	defer up.Close()
	tenants := map[string]map[string]string{secretTenant: secrets.Files(), clockTenant: {"worker.js": clock.Worker}}
	for i := range manyTenants {
		tenants[fmt.Sprintf("b%d", i)] = map[string]string{"worker.js": plainWorker}
	}
	policy := fmt.Sprintf("profile: %v\nlimits: {wasm: %t, cpu: 30s, startupCpu: 10s, wall: 1m, memory: 128MiB}\negress: {allow: [127.0.0.2], internal: [127.0.0.2]}\n",
		s.profile, s.profile == seccomp.JITWasm)
	h, err := openHouse(ctx, s.binaries.Bulkhead, s.stand.Mode, policy, tenants)
	if err != nil {
		return err
	}
	defer h.close()

	var v clock.Verdict
	for range mostTranscripts {
		text, err := h.get(ctx, clockTenant, "/")
		if err == nil {
			err = v.Add(text)
		}
		if err != nil {
			return err
		}
	}
	if s.household.told = held("%v", &v); !v.Stood() {
		s.household.told = broken("%v", &v)
	}

	if os.Getuid() != 0 {
		return errors.New("only root may read the memory of workers")
	}
	home, err := h.shareAProcess(ctx)
	if err != nil {
		return err
	}
	if err := secrets.Visit(ctx, secretTenant, "http://"+l.Addr().String(), h.send); err != nil {
		return err
	}
	before, err := canary.Scan(home, secrets)
	if err != nil {
		return err
	}
	if len(before) == 0 {
		return errors.New("the tenant's secrets are not found in its own process")
	}
	if s.household.elsewhere, err = h.elsewhere(ctx, secrets); err != nil {
		return err
	}
	if _, err := h.ask(ctx, "POST", "/v1/evict/"+secretTenant); err != nil {
		return err
	}
	shards, err := h.shards(ctx)
	if err != nil {
		return err
	}
	if slices.Contains(shards[home], secretTenant) || len(shards[home]) == 0 {
		return fmt.Errorf("the tenant was not evicted from process %d, or the process is gone: %v", home, shards)
	}
	after, err := canary.Scan(home, secrets)
	if err != nil {
		return err
	}
	if s.household.left = held("of %d parts of its secrets none is left in its former process", len(before)); len(after) > 0 {
		s.household.left = broken("of %d parts of its secrets %d are left: %v; the first: %v", len(before), len(after), canary.CountOf(after), after[0])
	}
	return nil
}

// shareAProcess places the tenants until the one with secrets is not alone, and says where it is.
func (h *house) shareAProcess(ctx context.Context) (int, error) {
	for i := range manyTenants {
		if _, err := h.get(ctx, fmt.Sprintf("b%d", i), "/"); err != nil {
			return 0, err
		}
	}
	for range 40 {
		if _, err := h.get(ctx, secretTenant, "/answer"); err != nil {
			return 0, err
		}
		shards, err := h.shards(ctx)
		if err != nil {
			return 0, err
		}
		for pid, tenants := range shards {
			if slices.Contains(tenants, secretTenant) && len(tenants) > 1 {
				return pid, nil
			}
		}
		if _, err := h.ask(ctx, "POST", "/v1/evict/"+secretTenant); err != nil {
			return 0, err
		}
	}
	return 0, errors.New("the tenant was never placed beside another")
}

// elsewhere looks for secrets in every process of the host but the gateway and those that host the
// tenant, and in what the operator is shown of others.
func (h *house) elsewhere(ctx context.Context, secrets *canary.Secrets) (finding, error) {
	shards, err := h.shards(ctx)
	if err != nil {
		return finding{}, err
	}
	looked := 0
	for _, pid := range family(h.pid) {
		if isGateway(pid) || slices.Contains(shards[pid], secretTenant) {
			continue
		}
		hits, err := canary.Scan(pid, secrets)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has ended
		}
		if err != nil {
			return finding{}, err
		}
		looked++
		if len(hits) > 0 {
			return broken("process %d, which hosts %v, holds %v; the first: %v", pid, shards[pid], canary.CountOf(hits), hits[0]), nil
		}
	}
	paths := []string{"/v1/status", "/v1/tenants", "/v1/shards", "/v1/incidents", "/v1/policy", "/v1/logs/b0"}
	for _, path := range paths {
		text, err := h.ask(ctx, "GET", path)
		if err != nil {
			return finding{}, err
		}
		if found := secrets.In(text); len(found) > 0 {
			return broken("the operator's %s shows %v", path, found), nil
		}
	}
	if found := secrets.In(h.text()); len(found) > 0 {
		return broken("the host's log shows %v", found), nil
	}
	return held("in %d other processes, in the host's log and in %d answers to the operator there is none", looked, len(paths)), nil
}
