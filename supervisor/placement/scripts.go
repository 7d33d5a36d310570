package placement

import (
	"log/slog"
	"time"
	"unicode/utf8"

	"bulkhead/supervisor/observe"
	"bulkhead/supervisor/tenants"
)

// maxScripts bounds the tenants of one incident whose code is kept: more than so many suspects say little of each.
const maxScripts = 8

// recordLocked adds an incident, and keeps the code of the tenants that it names as it runs: where the incident
// is about a shard, what ran there. The files are written apart from this.
func (p *Pool) recordLocked(i observe.Incident, s *shard) {
	list := p.evidenceLocked(i.Tenants, s)
	if store := p.opt.Observer.Scripts; store != nil {
		for _, v := range list {
			i.Scripts = append(i.Scripts, store.File(v.Tenant, v.Hash))
		}
		kind, policy := i.Kind, ""
		if pol := p.pol.Load(); pol != nil {
			policy = pol.Hash()
		}
		if len(list) > 0 && !p.closed {
			p.wg.Go(func() {
				for _, v := range list {
					p.keepScript(store, v, kind, policy)
				}
			})
		}
	}
	p.opt.Observer.Incidents.Add(i)
}

// evidenceLocked lists the versions of tenants that run, or ran in a shard.
func (p *Pool) evidenceLocked(ids []string, s *shard) (list []*tenants.Version) {
	if len(ids) > maxScripts {
		return nil
	}
	for _, id := range ids {
		seen := map[*tenants.Version]bool{}
		note := func(v *tenants.Version) {
			if v != nil && v.Tenant == id && v.Hash != "" && !seen[v] {
				seen[v] = true
				list = append(list, v)
			}
		}
		if s != nil {
			for _, pl := range s.hosted {
				note(pl.v)
			}
		}
		if len(seen) == 0 {
			for _, pl := range p.tenantLocked(id) {
				note(pl.v)
			}
		}
		if len(seen) == 0 {
			note(p.current[id])
		}
	}
	return list
}

// keepScript writes the code of a version, if it is not there yet.
func (p *Pool) keepScript(store *observe.Scripts, v *tenants.Version, kind observe.IncidentKind, policy string) {
	if store.Has(v.Tenant, v.Hash) {
		return
	}
	sc := &observe.Script{Tenant: v.Tenant, Version: v.Hash, Policy: policy, Incident: string(kind), Time: time.Now().UTC(), Env: []string{}}
	code, err := v.Code(p.ctx)
	if err == nil {
		sc.Main, sc.Modules, err = modulesOf(code)
	}
	if err == nil {
		for _, e := range v.Env {
			sc.Env = append(sc.Env, e.Name)
		}
		err = store.Keep(sc)
	}
	if err != nil && p.ctx.Err() == nil {
		p.opt.Observer.LogOften(slog.LevelWarn, "script "+v.Tenant, "the code of a tenant that an incident names could not be kept",
			"tenant", v.Tenant, "version", v.Hash, "error", err.Error())
	}
}

// modulesOf reads a bundle, which this host has made.
func modulesOf(code []byte) (main string, out []observe.Module, err error) {
	main, mods, err := tenants.DecodeBundle(code)
	if err != nil {
		return "", nil, err
	}
	for _, m := range mods {
		mod := observe.Module{Name: m.Name, Kind: m.Kind.String()}
		if utf8.Valid(m.Code) {
			mod.Text = string(m.Code)
		} else {
			mod.Bytes = m.Code
		}
		out = append(out, mod)
	}
	return main, out, nil
}
