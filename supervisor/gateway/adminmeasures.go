package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"bulkhead/supervisor/placement"
)

// maxReason bounds the reason of a measure, bytes.
const maxReason = 500

// measure reads what the measures have in common: a tenant that is known, and a reason.
func (a *Admin) measure(w http.ResponseWriter, r *http.Request) (tenant, reason, by string, ok bool) {
	tenant, reason = r.PathValue("tenant"), strings.TrimSpace(r.URL.Query().Get("reason"))
	switch {
	case !a.opt.Server.opt.Known(tenant):
		adminError(w, http.StatusNotFound, "no tenant "+strconv.Quote(tenant))
	case reason == "":
		adminError(w, http.StatusBadRequest, "a reason is wanted: it is kept with the event")
	case len(reason) > maxReason:
		adminError(w, http.StatusBadRequest, fmt.Sprintf("the reason has %d bytes, it may have %d", len(reason), maxReason))
	default:
		uid, _ := r.Context().Value(uidKey{}).(uint32)
		return tenant, reason, fmt.Sprintf("uid %d", uid), true
	}
	return "", "", "", false
}

func (a *Admin) isolate(w http.ResponseWriter, r *http.Request) {
	if tenant, reason, by, ok := a.measure(w, r); ok {
		adminJSON(w, struct {
			Tenant string `json:"tenant"`
			placement.Evacuation
		}{tenant, a.opt.Server.opt.Pool.Isolate(tenant, reason, by)})
	}
}

func (a *Admin) release(w http.ResponseWriter, r *http.Request) {
	tenant, reason, by, ok := a.measure(w, r)
	if !ok {
		return
	}
	switch err := a.opt.Server.opt.Pool.Release(tenant, reason, by); {
	case errors.Is(err, placement.ErrNoMeasure):
		adminError(w, http.StatusConflict, err.Error())
	case err != nil:
		adminError(w, http.StatusInternalServerError, err.Error())
	default:
		adminJSON(w, struct {
			Tenant string `json:"tenant"`
		}{tenant})
	}
}

func (a *Admin) stop(w http.ResponseWriter, r *http.Request) {
	if tenant, reason, by, ok := a.measure(w, r); ok {
		a.opt.Server.opt.Pool.Stop(tenant, reason, by)
		adminJSON(w, struct {
			Tenant string `json:"tenant"`
		}{tenant})
	}
}

func (a *Admin) reshuffle(w http.ResponseWriter, r *http.Request) {
	var ids []uint32
	for _, text := range r.URL.Query()["shard"] {
		id, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			adminError(w, http.StatusBadRequest, "shard must be the id of a shard")
			return
		}
		ids = append(ids, uint32(id))
	}
	shards, tenants, err := a.opt.Server.opt.Pool.Reshuffle(ids...)
	if err != nil {
		adminError(w, http.StatusNotFound, err.Error())
		return
	}
	a.opt.Server.obs.Log.Info("reshuffle asked for", "shards", shards, "tenants", tenants, operator(r))
	adminJSON(w, struct {
		Shards  int `json:"shards"`
		Tenants int `json:"tenants"`
	}{shards, tenants})
}

func (a *Admin) top(w http.ResponseWriter, r *http.Request) {
	list := a.opt.Server.opt.Pool.Usage(r.Context())
	if list == nil {
		list = []placement.Usage{}
	}
	adminJSON(w, list)
}
