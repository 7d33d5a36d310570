package gateway

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"bulkhead/policy"
	"bulkhead/policy/seccomp"
	"bulkhead/supervisor/observe"
)

// PolicyOptions say where a policy comes from and whom it concerns. All but Read are required.
type PolicyOptions struct {
	Initial *policy.Policy
	Preset  string // for what the document does not say
	Path    string // of the document, for people
	// Read returns the document as it is now; nil: there is none, and nothing can change.
	Read func(context.Context) ([]byte, error)
	// Ceilings that the launcher was started with.
	ShardMemory uint64
	Profiles    []seccomp.Profile
	SocketDirs  []string        // of host APIs
	Tenants     func() []string // ids of those there are
	// Apply puts a policy in force. It cannot fail: what can, was checked before.
	Apply    func(before, after *policy.Policy)
	Observer *observe.Observer
}

// Policies holds the policy in force and replaces it as a whole when the document changes: a document
// that is wrong in one place, or asks for what the host was not started with, changes nothing.
type Policies struct {
	opt PolicyOptions
	now atomic.Pointer[policy.Policy]

	mu   sync.Mutex
	last []byte // guarded by mu; what Read returned last, good or not
	bad  string // guarded by mu; what was wrong with it, "" for nothing
}

// NewPolicies starts with the initial policy, which came from src.
func NewPolicies(opt PolicyOptions, src []byte) *Policies {
	p := &Policies{opt: opt, last: src}
	p.now.Store(opt.Initial)
	return p
}

// Current is the policy in force.
func (p *Policies) Current() *policy.Policy { return p.now.Load() }

// Watch looks at the document every so often until ctx ends.
func (p *Policies) Watch(ctx context.Context, every time.Duration) {
	if p.opt.Read == nil {
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.Reload(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// Effect is what a changed policy does. The JSON names are a contract.
type Effect struct {
	Changed  bool            `json:"changed"`
	Before   string          `json:"before"` // hashes
	After    string          `json:"after"`
	Host     []policy.Change `json:"host"`    // values of all tenants, and of the host
	Moving   int             `json:"moving"`  // tenants that go to another process
	Renewed  int             `json:"renewed"` // tenants whose limits change: they are loaded anew
	Reaching int             `json:"reaching"`
}

// String says it in a line: "12 tenants will move, 3 are loaded anew".
func (e Effect) String() string {
	if !e.Changed {
		return "nothing changes"
	}
	var parts []string
	for _, x := range []struct {
		n         int
		one, many string
	}{
		{e.Moving, "1 tenant will move to another process", "%d tenants will move to other processes"},
		{e.Renewed, "1 tenant is loaded anew", "%d tenants are loaded anew"},
		{e.Reaching, "1 tenant may reach other upstreams", "%d tenants may reach other upstreams"},
	} {
		switch x.n {
		case 0:
		case 1:
			parts = append(parts, x.one)
		default:
			parts = append(parts, fmt.Sprintf(x.many, x.n))
		}
	}
	if len(parts) == 0 {
		parts = append(parts, "no tenant moves")
	}
	for _, c := range e.Host[:min(len(e.Host), 8)] {
		parts = append(parts, fmt.Sprintf("%s: %s → %s", c.Key, or(c.Before), or(c.After)))
	}
	if n := len(e.Host) - 8; n > 0 {
		parts = append(parts, fmt.Sprintf("and %d more values", n))
	}
	return strings.Join(parts, ", ")
}

func or(s string) string {
	if s == "" {
		return "(not set)"
	}
	return s
}

// EffectOf says what it does to these tenants if b replaces a.
func EffectOf(a, b *policy.Policy, ids []string) Effect {
	e := Effect{Before: a.Hash(), After: b.Hash(), Host: a.DiffHost(b)}
	e.Changed = e.Before != e.After
	for _, id := range ids {
		d := a.Diff(b, id)
		reaches := slices.ContainsFunc(d.Changes, func(c policy.Change) bool { return strings.HasPrefix(c.Key, "egress.") || c.Key == "hostApis" })
		switch {
		case d.Moves:
			e.Moving++
		case d.Renewed:
			e.Renewed++
		}
		if reaches {
			e.Reaching++
		}
	}
	return e
}

// Reload reads the document and puts it in force if it is good and different.
func (p *Policies) Reload(ctx context.Context) (Effect, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now.Load()
	same := Effect{Before: now.Hash(), After: now.Hash()}
	if p.opt.Read == nil {
		return same, fmt.Errorf("the host was started without a policy document (--config FILE): nothing to read")
	}
	src, err := p.opt.Read(ctx)
	if err != nil {
		p.complain(fmt.Sprintf("policy %s: %v", p.opt.Path, err))
		return same, fmt.Errorf("policy %s: %w", p.opt.Path, err)
	}
	if bytes.Equal(src, p.last) && p.bad == "" {
		return same, nil
	}
	next, err := p.check(src)
	p.last = src
	if err != nil {
		p.complain(err.Error())
		return same, err
	}
	p.bad = ""
	e := EffectOf(now, next, p.opt.Tenants())
	if !e.Changed {
		p.now.Store(next) // places and comments may differ
		return e, nil
	}
	p.now.Store(next)
	p.opt.Apply(now, next)
	p.opt.Observer.Events.Add("policy", struct {
		Effect
		Text string `json:"text"`
	}{e, e.String()})
	p.opt.Observer.Log.Info("policy changed", "before", e.Before, "after", e.After, "effect", e.String(), "moving", e.Moving, "renewed", e.Renewed)
	return e, nil
}

// complain says once what is wrong with the document; the policy in force stays.
func (p *Policies) complain(what string) {
	if what == p.bad {
		return
	}
	p.bad = what
	p.opt.Observer.Log.Error("the policy document is not taken; what was in force stays in force", "error", what)
}

// check parses a document and holds it against what this host was started with.
func (p *Policies) check(src []byte) (*policy.Policy, error) {
	next, err := policy.ParseOver(p.opt.Preset, p.opt.Path, src)
	if err != nil {
		return nil, err
	}
	const restart = "the launcher was started with another ceiling; restart bulkhead to have this, or take it back"
	if m := next.ShardMemory(); m > p.opt.ShardMemory {
		return nil, fmt.Errorf("%s: a shard of %s is more than the %s this host may make: %s", p.opt.Path, policy.FormatBytes(m), policy.FormatBytes(p.opt.ShardMemory), restart)
	}
	for _, profile := range next.Profiles() {
		if !slices.Contains(p.opt.Profiles, profile) {
			return nil, fmt.Errorf("%s: no tenant had the profile %s so far: %s", p.opt.Path, profile, restart)
		}
	}
	for _, dir := range next.SocketDirs() {
		if !slices.Contains(p.opt.SocketDirs, dir) {
			return nil, fmt.Errorf("%s: hostApis: no host API had its socket in %s when this host was started; restart bulkhead to have it, or take it back", p.opt.Path, dir)
		}
	}
	now := p.now.Load()
	for _, x := range []struct {
		key          string
		before, next any
	}{
		{"shard.pids", now.Shard.PIDs, next.Shard.PIDs}, {"shard.cpuWeight", now.Shard.CPUWeight, next.Shard.CPUWeight},
		{"shard.files", now.Shard.Files, next.Shard.Files}, {"forceMitigations", now.ForceMitigations, next.ForceMitigations},
	} {
		if x.before != x.next {
			return nil, fmt.Errorf("%s: %s changes from %v to %v: %s", p.opt.Path, x.key, x.before, x.next, restart)
		}
	}
	if !slices.Equal(now.Accept, next.Accept) {
		return nil, fmt.Errorf("%s: accept changes from [%s] to [%s]: what is accepted is settled at the start; restart bulkhead",
			p.opt.Path, strings.Join(now.Accept, ", "), strings.Join(next.Accept, ", "))
	}
	return next, nil
}
