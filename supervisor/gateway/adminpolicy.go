package gateway

import (
	"net/http"
	"strconv"

	"bulkhead/policy"
	"bulkhead/policy/suspicion"
)

// Explanation is the answer of GET /v1/explain/TENANT. The names are a contract.
type Explanation struct {
	Tenant   string         `json:"tenant"`
	Values   []policy.Value `json:"values"`
	Profile  string         `json:"profile"`
	Shard    *uint32        `json:"shard"` // null while it is in none
	PID      int            `json:"pid"`
	Beside   []string       `json:"beside"`   // tenants in the same process
	Standing string         `json:"standing"` // what is held against it, "" for nothing

	Suspicion suspicion.Score `json:"suspicion"`
}

func (a *Admin) explain(w http.ResponseWriter, r *http.Request) {
	tenant := r.PathValue("tenant")
	if !a.opt.Server.opt.Known(tenant) {
		adminError(w, http.StatusNotFound, "no tenant "+strconv.Quote(tenant))
		return
	}
	p, pool := a.opt.Policy(), a.opt.Server.opt.Pool
	t := p.For(tenant)
	e := Explanation{Tenant: tenant, Values: p.Explain(tenant), Profile: p.ClassOf(t).Profile.String(), Beside: []string{}, Standing: pool.Standing(tenant),
		Suspicion: pool.Suspicion(tenant)}
	for _, at := range pool.Tenants()[tenant] {
		if at.State != "loaded" {
			continue
		}
		id := at.Shard
		e.Shard = &id
		for _, s := range pool.Shards(r.Context()) {
			if s.ID != id {
				continue
			}
			e.PID = s.PID
			for _, other := range s.Tenants {
				if other != tenant {
					e.Beside = append(e.Beside, other)
				}
			}
		}
	}
	adminJSON(w, e)
}

// reloadPolicy reads the policy document now, instead of at the next look at it.
func (a *Admin) reloadPolicy(w http.ResponseWriter, r *http.Request) {
	if a.opt.Reload == nil {
		adminError(w, http.StatusNotImplemented, "this host's policy cannot be changed")
		return
	}
	e, err := a.opt.Reload(r.Context())
	if err != nil {
		adminError(w, http.StatusUnprocessableEntity, err.Error())
		return
	}
	a.opt.Server.obs.Log.Info("policy read on demand", "changed", e.Changed, operator(r))
	adminJSON(w, struct {
		Effect
		Text string `json:"text"`
	}{e, e.String()})
}
