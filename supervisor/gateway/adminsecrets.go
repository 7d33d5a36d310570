package gateway

import (
	"errors"
	"io"
	"net/http"
	"strconv"

	"bulkhead/supervisor/secrets"
)

// Secrets come encrypted to the host's key and are never given out: there is nothing here that answers
// with a value.

func secretError(w http.ResponseWriter, err error) {
	status := http.StatusBadRequest
	switch {
	case errors.Is(err, secrets.ErrNoKey):
		status = http.StatusNotImplemented
	case errors.Is(err, secrets.ErrMissing):
		status = http.StatusNotFound
	}
	adminError(w, status, err.Error())
}

// secretsKey answers with the public key that secrets are to be encrypted to.
func (a *Admin) secretsKey(w http.ResponseWriter, _ *http.Request) {
	to, err := a.opt.Secrets.Recipient()
	if err != nil {
		secretError(w, err)
		return
	}
	adminJSON(w, struct {
		Recipient string `json:"recipient"`
	}{to})
}

func (a *Admin) secretList(w http.ResponseWriter, r *http.Request) {
	list, err := a.opt.Secrets.List(r.PathValue("tenant"))
	if err != nil {
		secretError(w, err)
		return
	}
	adminJSON(w, list)
}

func (a *Admin) secretSet(w http.ResponseWriter, r *http.Request) {
	cipher, err := io.ReadAll(io.LimitReader(r.Body, secrets.MaxCipher+1))
	if err != nil {
		adminError(w, http.StatusBadRequest, "the secret did not come whole")
		return
	}
	a.secretChanged(w, r, "secret set", a.opt.Secrets.Put(r.PathValue("tenant"), r.PathValue("name"), cipher))
}

func (a *Admin) secretRemove(w http.ResponseWriter, r *http.Request) {
	a.secretChanged(w, r, "secret removed", a.opt.Secrets.Remove(r.PathValue("tenant"), r.PathValue("name")))
}

func (a *Admin) secretChanged(w http.ResponseWriter, r *http.Request, what string, err error) {
	if err != nil {
		secretError(w, err)
		return
	}
	tenant, name := r.PathValue("tenant"), r.PathValue("name")
	a.opt.Server.obs.Log.Info(what, "tenant", tenant, "name", strconv.Quote(name), operator(r))
	if a.opt.Renew != nil {
		a.opt.Renew(tenant)
	}
	adminJSON(w, struct {
		Tenant string `json:"tenant"`
		Name   string `json:"name"`
	}{tenant, name})
}
