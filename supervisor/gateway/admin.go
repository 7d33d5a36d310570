package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"bulkhead/policy"
	"bulkhead/supervisor/launcher/orders"
	"bulkhead/supervisor/observe"
	"bulkhead/supervisor/secrets"
)

// AdminOptions of the operators' API. All but Drain are required.
type AdminOptions struct {
	Server *Server
	Policy func() *policy.Policy                 // in force now
	Drain  func()                                // begins an orderly stop; may be nil
	Reload func(context.Context) (Effect, error) // reads the policy document now; may be nil
	Boot   orders.Boot

	Secrets *secrets.Store      // nil without a key
	Renew   func(tenant string) // after a change of its secrets; may be nil
}

// Admin is the operators' API: HTTP with JSON over connections that the launcher accepted, on a
// socket only root and bulkhead's own user may open. Everything it answers is for operators'
// eyes; tenants cannot reach it.
type Admin struct {
	opt   AdminOptions
	http  *http.Server
	conns *connQueue
	start time.Time
}

// NewAdmin makes the API; Serve starts it.
func NewAdmin(opt AdminOptions) *Admin {
	a := &Admin{opt: opt, conns: newConnQueue(), start: time.Now()}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", a.status)
	mux.HandleFunc("GET /v1/tenants", a.tenants)
	mux.HandleFunc("GET /v1/shards", a.shards)
	mux.HandleFunc("GET /v1/incidents", a.incidents)
	mux.HandleFunc("GET /v1/scripts/{hash}", a.script)
	mux.HandleFunc("GET /v1/logs/{tenant}", a.logs)
	mux.HandleFunc("GET /v1/policy", a.policy)
	mux.HandleFunc("POST /v1/policy/reload", a.reloadPolicy)
	mux.HandleFunc("GET /v1/explain/{tenant}", a.explain)
	mux.HandleFunc("GET /v1/secretskey", a.secretsKey)
	mux.HandleFunc("GET /v1/secrets/{tenant}", a.secretList)
	mux.HandleFunc("PUT /v1/secrets/{tenant}/{name}", a.secretSet)
	mux.HandleFunc("DELETE /v1/secrets/{tenant}/{name}", a.secretRemove)
	mux.Handle("GET /v1/metrics", opt.Server.obs.Metrics.Handler())
	mux.HandleFunc("GET /v1/top", a.top)
	mux.HandleFunc("POST /v1/evict/{tenant}", a.evict)
	mux.HandleFunc("POST /v1/isolate/{tenant}", a.isolate)
	mux.HandleFunc("POST /v1/release/{tenant}", a.release)
	mux.HandleFunc("POST /v1/stop/{tenant}", a.stop)
	mux.HandleFunc("POST /v1/reshuffle", a.reshuffle)
	mux.HandleFunc("POST /v1/drain", a.drain)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		adminError(w, http.StatusNotFound, "no such resource: "+r.Method+" "+r.URL.Path)
	})
	a.http = &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(opt.Server.obs.Log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if ac, ok := c.(adminConn); ok {
				return context.WithValue(ctx, uidKey{}, ac.uid)
			}
			return ctx
		},
	}
	return a
}

type uidKey struct{}

// operator is who asks, for the log.
func operator(r *http.Request) slog.Attr {
	uid, _ := r.Context().Value(uidKey{}).(uint32)
	return slog.Uint64("operatorUid", uint64(uid))
}

// Serve answers connections of the launcher's until Close.
func (a *Admin) Serve(conns <-chan orders.AdminConn) {
	go func() {
		for ac := range conns {
			c, err := net.FileConn(ac.Conn)
			ac.Conn.Close()
			if err != nil {
				a.opt.Server.obs.Log.Error("admin connection", "error", err.Error())
				continue
			}
			a.conns.put(adminConn{c, ac.UID})
		}
	}()
	a.http.Serve(a.conns)
}

// Close cuts the API off.
func (a *Admin) Close() { a.http.Close() }

// Status is the answer of GET /v1/status. The names are a contract.
type Status struct {
	Preset        string   `json:"preset"`
	PolicyHash    string   `json:"policyHash"`
	UptimeSeconds float64  `json:"uptimeSeconds"`
	Draining      bool     `json:"draining"`
	Rootless      bool     `json:"rootless"`
	Degraded      []string `json:"degraded"`
	LauncherPID   int      `json:"launcherPid"`
	Generation    int      `json:"generation"`
	Listen        []string `json:"listen"`
	TenantRoots   []string `json:"tenantRoots"`
	Running       int64    `json:"running"` // invocations in flight
	Connections   int64    `json:"connections"`
	Tenants       int      `json:"tenants"`
	Loaded        int      `json:"loaded"`
	Shards        int      `json:"shards"`
	Spares        int      `json:"spares"`
	Incidents     int      `json:"incidents"` // kept
}

func (a *Admin) status(w http.ResponseWriter, _ *http.Request) {
	s, p, b := a.opt.Server, a.opt.Policy(), a.opt.Boot
	g := s.opt.Pool.Gauges()
	st := Status{Preset: p.Preset, PolicyHash: p.Hash(), UptimeSeconds: time.Since(a.start).Seconds(), Draining: s.draining.Load(),
		Rootless: b.Rootless, Degraded: append([]string{}, b.Degraded...), LauncherPID: b.LauncherPID, Generation: b.Generation,
		Listen: []string{}, TenantRoots: append([]string{}, b.TenantRoots...), Running: s.running.Load(), Connections: s.conns.Load(),
		Tenants: s.opt.Len(), Loaded: g.TenantsLoaded, Shards: g.Shards, Spares: g.Spares, Incidents: len(s.obs.Incidents.List())}
	for _, l := range b.Listeners {
		st.Listen = append(st.Listen, l.Addr)
	}
	adminJSON(w, st)
}

// TenantInfo is one line of `bulkhead tenants`. The names are a contract.
type TenantInfo struct {
	Tenant   string                `json:"tenant"`
	Version  string                `json:"version"` // hash of what serves, "" if nothing does
	Cordon   string                `json:"cordon"`
	Shard    *uint32               `json:"shard"` // null while it is in none
	State    string                `json:"state"` // idle, pending, loading, loaded, stale, failed
	Requests uint64                `json:"requests"`
	Outcomes map[string]uint64     `json:"outcomes"`
	Running  int64                 `json:"running"`
	Routes   []string              `json:"routes"`
	HostAPIs []observe.HostAPIInfo `json:"hostApis,omitempty"` // the operator's, as it used them
	Cache    *observe.CacheInfo    `json:"cache,omitempty"`    // once it used one
	Error    string                `json:"error"`              // of failed and stale: what, where and the line
}

func (a *Admin) tenants(w http.ResponseWriter, _ *http.Request) {
	s := a.opt.Server
	where := s.opt.Pool.Tenants()
	// One after the other: of a hundred thousand, the whole text would take more memory than all
	// that is kept of them.
	w.Header().Set("Content-Type", "application/json")
	buf := bufio.NewWriter(w)
	defer buf.Flush()
	buf.WriteByte('[')
	defer buf.WriteString("]\n") // what cannot be written is seen by nobody
	enc := json.NewEncoder(buf)
	for n, t := range s.opt.Tenants() {
		if n > 0 {
			buf.WriteByte(',')
		}
		i := TenantInfo{Tenant: t.ID, Version: t.Version, Cordon: a.opt.Policy().For(t.ID).Cordon, State: t.State, Routes: append([]string{}, t.Routes...)}
		i.Requests, i.Outcomes = s.obs.Metrics.Requests(t.ID)
		if i.State == "ready" {
			i.State = "idle" // built, in no shard
		}
		for _, p := range where[t.ID] {
			i.Running += p.Running
			if p.State == "failed" || p.State == "retiring" {
				continue
			}
			if i.State == "idle" {
				i.State = p.State
			}
			if p.State == "loaded" {
				shard := p.Shard
				i.Shard = &shard
			}
		}
		i.HostAPIs = s.obs.Metrics.HostAPIs(t.ID)
		i.Cache = s.obs.Metrics.Cache(t.ID)
		if t.Err != nil {
			i.Error = t.Err.Error()
		}
		if enc.Encode(&i) != nil {
			return
		}
	}
}

func (a *Admin) shards(w http.ResponseWriter, r *http.Request) {
	adminJSON(w, a.opt.Server.opt.Pool.Shards(r.Context()))
}

func (a *Admin) incidents(w http.ResponseWriter, _ *http.Request) {
	adminJSON(w, a.opt.Server.obs.Incidents.List())
}

// script answers with the code of a tenant that an incident names.
func (a *Admin) script(w http.ResponseWriter, r *http.Request) {
	store := a.opt.Server.obs.Scripts
	if store == nil {
		adminError(w, http.StatusNotFound, "no scripts are kept: this host has no data directory")
		return
	}
	text, err := store.Read(r.PathValue("hash"))
	switch {
	case errors.Is(err, observe.ErrNoScript):
		adminError(w, http.StatusNotFound, err.Error())
	case err != nil:
		adminError(w, http.StatusBadRequest, err.Error())
	default:
		w.Header().Set("Content-Type", "application/json")
		w.Write(text)
	}
}

func (a *Admin) policy(w http.ResponseWriter, _ *http.Request) {
	p := a.opt.Policy()
	adminJSON(w, struct {
		Hash   string         `json:"hash"`
		Preset string         `json:"preset"`
		Policy *policy.Policy `json:"policy"`
	}{p.Hash(), p.Preset, p})
}

// logs answers with one JSON object a line. ?after=SEQ leaves out what was seen, ?follow=1 goes on
// until the operator leaves.
func (a *Admin) logs(w http.ResponseWriter, r *http.Request) {
	tenant := r.PathValue("tenant")
	if !a.opt.Server.opt.Known(tenant) {
		adminError(w, http.StatusNotFound, "no tenant "+strconv.Quote(tenant))
		return
	}
	after, err := uint64(0), error(nil)
	if q := r.URL.Query().Get("after"); q != "" {
		if after, err = strconv.ParseUint(q, 10, 64); err != nil {
			adminError(w, http.StatusBadRequest, "after must be the seq of a line")
			return
		}
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	logs := a.opt.Server.obs.Logs
	if !writeLines(w, logs.Read(tenant, after), &after) || r.URL.Query().Get("follow") != "1" {
		return
	}
	rc := http.NewResponseController(w)
	for rc.Flush() == nil {
		lines, err := logs.Follow(r.Context(), tenant, after)
		if err != nil || !writeLines(w, lines, &after) {
			return
		}
	}
}

func writeLines(w http.ResponseWriter, lines []observe.Line, after *uint64) bool {
	buf := bufio.NewWriter(w)
	enc := json.NewEncoder(buf)
	for i := range lines {
		*after = lines[i].Seq
		if enc.Encode(&lines[i]) != nil {
			return false
		}
	}
	return buf.Flush() == nil
}

func (a *Admin) evict(w http.ResponseWriter, r *http.Request) {
	tenant := r.PathValue("tenant")
	evicted, busy := a.opt.Server.opt.Pool.Evict(tenant)
	a.opt.Server.obs.Log.Info("evict", "tenant", tenant, "evicted", evicted, "busy", busy, operator(r))
	adminJSON(w, struct {
		Tenant  string `json:"tenant"`
		Evicted int    `json:"evicted"` // versions unloaded
		Busy    int    `json:"busy"`    // versions that stayed: requests are in flight
	}{tenant, evicted, busy})
}

func (a *Admin) drain(w http.ResponseWriter, r *http.Request) {
	if a.opt.Drain == nil {
		adminError(w, http.StatusNotImplemented, "this host cannot be drained from here")
		return
	}
	a.opt.Server.obs.Log.Info("drain asked for", operator(r))
	a.opt.Drain()
	adminJSON(w, struct {
		Draining bool `json:"draining"`
	}{true})
}

func adminJSON(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		adminError(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(b, '\n'))
}

func adminError(w http.ResponseWriter, status int, message string) {
	b, err := json.Marshal(map[string]string{"error": message})
	if err != nil {
		b = []byte(`{"error":"unknown"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(b, '\n'))
}

// adminConn remembers who is at the other end, as the kernel told the launcher.
type adminConn struct {
	net.Conn
	uid uint32
}

// connQueue is a listener of connections that somebody else accepted.
type connQueue struct {
	ch   chan net.Conn
	done chan struct{}
	once sync.Once
}

func newConnQueue() *connQueue {
	return &connQueue{ch: make(chan net.Conn, 16), done: make(chan struct{})}
}

func (q *connQueue) put(c net.Conn) {
	select {
	case q.ch <- c:
	case <-q.done:
		c.Close()
	}
}

// Accept implements net.Listener.
func (q *connQueue) Accept() (net.Conn, error) {
	select {
	case c := <-q.ch:
		return c, nil
	case <-q.done:
		return nil, errors.New("admin listener closed")
	}
}

// Close implements net.Listener.
func (q *connQueue) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

// Addr implements net.Listener.
func (q *connQueue) Addr() net.Addr { return &net.UnixAddr{Name: "admin", Net: "unix"} }
