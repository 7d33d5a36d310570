package gateway

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"bulkhead/policy"
	"bulkhead/policy/seccomp"
	"bulkhead/supervisor/observe"
)

// document is a policy file that a test rewrites.
type document struct {
	*Policies
	text    string
	err     error
	applied int
	log     bytes.Buffer
}

func newDocument(t *testing.T, text string) *document {
	t.Helper()
	d := &document{text: text}
	first, err := policy.Parse("p.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	d.Policies = NewPolicies(PolicyOptions{Initial: first, Preset: "standard", Path: "p.yaml",
		Read:        func(context.Context) ([]byte, error) { return []byte(d.text), d.err },
		ShardMemory: 3 << 30, Profiles: []seccomp.Profile{seccomp.JIT},
		Tenants:  func() []string { return []string{"a", "b", "paid-1", "paid-2"} },
		Apply:    func(_, _ *policy.Policy) { d.applied++ },
		Observer: observe.New(observe.NewLogger(&d.log, slog.LevelInfo), observe.Options{}),
	}, []byte(text))
	return d
}

func TestReloadIsAllOrNothing(t *testing.T) {
	const base = "cordons: {paid: {}}\n"
	d := newDocument(t, base)
	first := d.Current()
	for _, c := range []struct{ name, text, want string }{
		{"wrong in its last line", base + "limits: {cpu: 20ms}\ntenants: {a: {cordon: payd}}", `did you mean "paid"`},
		{"no YAML", base + "limits: {", "p.yaml:"},
		{"more memory than the host may give", base + "shard: {memory: 4GiB}", "restart bulkhead"},
		{"a profile the launcher does not know", base + "tenants: {b: {profile: jitless}}", "restart bulkhead"},
		{"threads of a process", base + "shard: {pids: 100}", "restart bulkhead"},
		{"mitigations", base + "forceMitigations: true", "restart bulkhead"},
		{"a degradation", base + "accept: [cgroup]", "settled at the start"},
	} {
		d.text = c.text
		d.log.Reset()
		if _, err := d.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if d.Current() != first || d.applied != 0 {
			t.Fatalf("%s: something changed", c.name)
		}
		if n := strings.Count(d.log.String(), "\n"); n != 1 || !strings.Contains(d.log.String(), "what was in force stays in force") {
			t.Errorf("%s: logged %s", c.name, d.log.String())
		}
		d.Reload(t.Context()) // as the watcher does
		if n := strings.Count(d.log.String(), "\n"); n != 1 {
			t.Errorf("%s: logged again while nothing changed: %s", c.name, d.log.String())
		}
	}
	d.err = errors.New("gone")
	if _, err := d.Reload(t.Context()); err == nil || d.Current() != first {
		t.Errorf("a file that cannot be read: %v", err)
	}
	d.err, d.text = nil, base
	if e, err := d.Reload(t.Context()); err != nil || e.Changed || d.applied != 0 {
		t.Errorf("back to what is in force: %+v, %v", e, err)
	}
}

func TestReloadTellsTheEffect(t *testing.T) {
	d := newDocument(t, "cordons: {paid: {}}\n")
	for _, c := range []struct {
		text                      string
		moving, renewed, reaching int
		says                      string
	}{
		{"cordons: {paid: {}}\ntenants: {\"paid-*\": {cordon: paid}}", 2, 0, 0, "2 tenants will move to other processes"},
		{"cordons: {paid: {}}\nlimits: {cpu: 20ms}\ntenants: {\"paid-*\": {cordon: paid}}", 0, 4, 0, "4 tenants are loaded anew, limits.cpu: 50ms → 20ms"},
		{"cordons: {paid: {}}\nlimits: {cpu: 20ms}\ntenants: {\"paid-*\": {cordon: paid}, a: {egress: {public: false}}}", 0, 0, 1, "1 tenant may reach other upstreams"},
		{"cordons: {paid: {}}\nlimits: {cpu: 20ms}\nidleEvict: 1m\ntenants: {\"paid-*\": {cordon: paid}, a: {egress: {public: false}}}", 0, 0, 0, "no tenant moves, idleEvict: 10m → 1m"},
	} {
		d.text = c.text
		before := d.applied
		e, err := d.Reload(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !e.Changed || e.Moving != c.moving || e.Renewed != c.renewed || e.Reaching != c.reaching || e.String() != c.says {
			t.Errorf("%q: %+v %q", c.text, e, e)
		}
		if d.applied != before+1 || d.Current().Hash() != e.After || !strings.Contains(d.log.String(), e.After) {
			t.Errorf("%q: not in force, or not logged", c.text)
		}
	}
	d.text = "# a comment\n" + d.text
	if e, err := d.Reload(t.Context()); err != nil || e.Changed || d.applied != 4 {
		t.Errorf("a comment: %+v, %v", e, err)
	}
}
