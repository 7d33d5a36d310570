// Package policy is what the operator decides: how much a tenant may use, how tenants are packed
// into processes, which parts of V8 they get, and which missing protections are accepted.
//
// Duty: turn a preset or a document into one effective Policy, with an error that names file,
// line, column and remedy for everything that is not right, and a hash by which two runs can be
// seen to have had the same rules.
//
// Trust: the document is the operator's, but it is parsed in the gateway and read by tools, so
// it is bounded like any other (policy/doctree).
//
// Invariants: data and decisions only, no effects. A Policy that Parse or Preset returned is
// complete: every value is effective, none is zero by omission. Policies are not changed after
// that; who needs another one makes a copy.
package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"bulkhead/policy/egress"
	"bulkhead/policy/limits"
	"bulkhead/policy/seccomp"
	"bulkhead/policy/suspicion"
)

// Degradations an operator can accept by name. A missing kernel feature that is not accepted
// stops the start. The launcher, which imports no policy language, has the same list with what
// each one costs.
func Degradations() []string {
	return []string{"cgroup", "landlock", "landlock-scopes", "mdwe", "idmap", "inspect"}
}

// Policy is the effective policy.
type Policy struct {
	Preset    string
	Tenant    limits.Tenant // of every tenant that no rule says otherwise of
	Shard     limits.Shard
	Profile   seccomp.Profile // of every tenant that no rule says otherwise of
	IdleEvict time.Duration   // a tenant without a request for this long is unloaded
	// ForceMitigations: the processor's speculation mitigations are forced in every process, whatever the
	// kernel would do by itself.
	ForceMitigations bool
	Accept           []string     // degradations the operator has named, sorted
	Egress           egress.Rules // of every tenant that no rule says otherwise of

	Placement Placement
	Suspicion suspicion.Config
	Reshuffle Reshuffle

	Classes map[string]Class  // by name; DefaultName is not among them, see ClassOf
	Cordons map[string]Cordon // by name; DefaultName may be among them
	Labels  map[string][]string
	Class   string // of every tenant that neither a rule nor its cordon says otherwise of
	Cordon  string // of every tenant that no rule says otherwise of
	Rules   []Rule // of the document's tenants section, in its order

	// HostAPIs are the operator's own, by name. Who may use which is for rules to say: without one, nobody.
	HostAPIs map[string]HostAPI `json:",omitempty"`

	Calls     []CallRule // who may bind to whom, beside what tenants' own folders say
	Tails     []CallRule // whose log and outcome events (From) go to whom (To)
	Cache     uint64     // responses kept for all tenants' Cache APIs together, in the gateway's memory, bytes
	CallDepth int        // invocations that one request may lead to in a row, its own included

	source *source   // where values came from; nil for a preset and for a policy from elsewhere
	rules  *compiled // of Rules; nil until compile
}

// TenantPolicy is what one tenant gets, egress apart. Comparable: two that are equal need no new
// version of the tenant.
type TenantPolicy struct {
	Limits  limits.Tenant
	Profile seccomp.Profile
	Class   string // of its shards
	Cordon  string // never shares a process with another
}

// Accepts says whether the operator has named this degradation.
func (p *Policy) Accepts(degradation string) bool { return slices.Contains(p.Accept, degradation) }

// Presets lists the presets, from the loosest to the tightest.
func Presets() []string { return []string{"dev", "standard", "strict", "paranoid"} }

// Preset returns one of the shipped policies.
//
// "dev" forgives slow code and serves Wasm. "standard" is what every published figure is
// measured under. "strict" gives up the compiler, the widest part of V8 that has been broken,
// and packs fewer tenants together. "paranoid" gives every tenant a process of its own and lets none
// reach what the operator has not listed.
func Preset(name string) (*Policy, error) {
	p := &Policy{
		Preset:    name,
		Tenant:    limits.DefaultTenant(),
		Shard:     limits.DefaultShard(),
		Profile:   seccomp.JIT,
		IdleEvict: 10 * time.Minute,
		Egress:    egress.Default(),
		Placement: Placement{Spread: 4},
		Suspicion: suspicion.Default(),
		Reshuffle: Reshuffle{MaxAge: 24 * time.Hour, Jitter: 25, Grace: 30 * time.Second},
		Classes:   map[string]Class{},
		Cordons:   map[string]Cordon{},
		Labels:    map[string][]string{},
		Class:     DefaultName,
		Cordon:    DefaultName,
		CallDepth: 8,
		Cache:     256 << 20,
	}
	switch name {
	case "standard":
	case "dev":
		p.Profile = seccomp.JITWasm
		p.Tenant.Wasm = true
		p.Tenant.CPU = time.Second
		p.Tenant.StartupCPU = 5 * time.Second
		p.Tenant.LogBytes = 4 << 20
		p.Tenant.Subrequests = 10_000
		p.IdleEvict = time.Hour
		p.Suspicion.Enabled = false // whoever develops a worker trusts it
		p.Calls = []CallRule{{From: []string{"*"}, To: []string{"*"}}}
		// Whoever develops a worker on a laptop trusts its code; the seal is there, but what an
		// unprivileged user cannot have does not stop the start.
		p.Accept = []string{"cgroup", "idmap", "landlock", "landlock-scopes", "mdwe"}
	case "strict":
		p.Profile = seccomp.Jitless
		p.Shard.MaxTenants = 16
		p.Tenant.Memory = 64 << 20
		p.Tenant.Concurrent = 256
		p.Egress.Ports = []egress.Ports{{Low: 80, High: 80}, {Low: 443, High: 443}}
		p.Tenant.RequestBody = 128 << 20
		p.Tenant.ResponseBody = 1 << 30
		p.Tenant.HeaderBytes = 32 << 10
		p.Tenant.Timers = 1000
		p.Tenant.Pending = 1024
		p.Tenant.Subrequests = 200
		p.IdleEvict = 5 * time.Minute
		p.Suspicion.Isolate, p.Suspicion.Watch = 60, 30
		p.Reshuffle.MaxAge = 6 * time.Hour
	case "paranoid":
		p.Profile = seccomp.Jitless
		p.Shard.MaxTenants = 1
		p.ForceMitigations = true
		p.Shard.Memory = 512 << 20
		p.Tenant.Memory = 64 << 20
		p.Tenant.Concurrent = 128
		p.Egress.Public = false // only what the operator lists
		p.Tenant.RequestBody = 64 << 20
		p.Tenant.ResponseBody = 512 << 20
		p.Tenant.HeaderBytes = 32 << 10
		p.Tenant.Timers = 1000
		p.Tenant.Pending = 512
		p.Tenant.Subrequests = 50
		p.IdleEvict = time.Minute
		p.Suspicion.Isolate, p.Suspicion.Watch = 50, 25
		p.Reshuffle.MaxAge = time.Hour
	default:
		return nil, fmt.Errorf("no preset %q: one of dev, standard, strict, paranoid", name)
	}
	return p, nil
}

// Hash names the effective policy: the same values give the same hash, whatever text they came
// from. Sixteen hexadecimal digits of SHA-256 over the canonical form.
func (p *Policy) Hash() string {
	sum := sha256.Sum256(p.canonical())
	return hex.EncodeToString(sum[:8])
}

// canonical is stable by construction: encoding/json writes struct fields in their order and
// map keys sorted. Rules that change nothing are left out.
func (p *Policy) canonical() []byte {
	c := *p
	c.Preset = "" // a document that spells out a preset is that preset
	c.Accept = slices.Sorted(slices.Values(p.Accept))
	c.source, c.rules = nil, nil
	c.Rules = p.canonicalRules()
	b, err := json.Marshal(c)
	if err != nil {
		panic("BUG: policy cannot be encoded: " + err.Error()) // numbers, strings and booleans only
	}
	return b
}
