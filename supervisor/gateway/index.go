package gateway

import (
	"cmp"
	_ "embed"
	"html/template"
	"net"
	"net/http"
	"slices"
	"strings"

	"bulkhead/schema/gen"
	"bulkhead/supervisor/tenants"
)

// localHost says whether a Host names this machine itself.
func localHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// localPeer says whether a client is on this machine: which workers there are is nobody else's
// business, and anybody can send "Host: localhost".
func localPeer(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return true // a unix socket
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// forwarded says whether another server passed the request on: then its peer's address says nothing
// about who asks.
func forwarded(h http.Header) bool {
	for _, name := range []string{"Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip"} {
		if _, ok := h[name]; ok {
			return true
		}
	}
	return false
}

// indexRow is one tenant on the index page.
type indexRow struct {
	ID, URL, State, Label, Detail string
	Routes                        []string
	Requests                      uint64
	Shard                         uint32
}

type indexData struct {
	Host    string
	Address string // of any worker, with NAME for its id
	Rows    []indexRow
	Shards  int
	Spares  int
	Loaded  int
	Failing int
	Known   int // Rows may be fewer
}

// maxRows is how many workers the page lists: nobody reads a hundred thousand.
const maxRows = 500

//go:embed index.html
var indexSource string

var indexPage = template.Must(template.New("index").Parse(indexSource))

func (s *Server) serveIndex(c *call, path string) {
	switch {
	case path != "/":
		c.refuse(0, gen.Outcome_scriptNotFound, "", "no worker answers for this host name; the list of workers is at /", 0)
		return
	case c.r.Method != http.MethodGet && c.r.Method != http.MethodHead:
		c.w.Header()["Allow"] = []string{"GET, HEAD"}
		c.refuse(http.StatusMethodNotAllowed, gen.Outcome_scriptNotFound, "", "the list of workers can only be read", 0)
		return
	}
	c.hasten()
	h := c.w.Header()
	h[headerRequestID] = []string{c.id}
	h["Content-Type"] = []string{"text/html; charset=utf-8"}
	h["Content-Security-Policy"] = []string{pageCSP}
	h["Cache-Control"] = []string{"no-store"}
	h["X-Content-Type-Options"] = []string{"nosniff"}
	if c.r.Method == http.MethodHead {
		return
	}
	indexPage.Execute(c.w, s.indexData(c.r.Host))
}

// indexData is what the page shows. State is what a person wants to know: does it answer?
func (s *Server) indexData(host string) indexData {
	_, port, _ := net.SplitHostPort(host)
	suffix := ".localhost"
	if port != "" {
		suffix += ":" + port
	}
	g := s.opt.Pool.Gauges()
	d := indexData{Host: host, Address: s.opt.Scheme + "://NAME" + suffix, Shards: g.Shards, Spares: g.Spares, Loaded: g.TenantsLoaded}
	where := s.opt.Pool.Tenants()
	for _, t := range s.opt.Tenants() {
		row := indexRow{ID: t.ID, URL: s.opt.Scheme + "://" + t.ID + suffix + "/", Routes: t.Routes, State: "idle", Label: "starts at its first request"}
		row.Requests, _ = s.obs.Metrics.Requests(t.ID)
		if ws := where[t.ID]; len(ws) > 0 {
			switch w := ws[len(ws)-1]; w.State {
			case "loaded":
				row.State, row.Label, row.Shard = "live", "live", w.Shard
			case "failed":
				row.State, row.Label = "failed", "does not start"
			default:
				row.State, row.Label = "busy", w.State
			}
		}
		switch t.State {
		case "failed":
			row.State, row.Label = "failed", "cannot run"
		case "stale":
			row.State, row.Label = "stale", "an older version serves"
		case "pending":
			row.State, row.Label = "busy", "being built"
		}
		if t.Err != nil {
			row.Detail = firstDiagnostic(t.Err)
		}
		if row.State == "failed" {
			d.Failing++
		}
		d.Rows = append(d.Rows, row)
	}
	d.Known = len(d.Rows)
	if d.Known > maxRows { // the idle ones are the least interesting
		slices.SortStableFunc(d.Rows, func(a, b indexRow) int {
			return cmp.Compare(strings.Count(a.State, "idle"), strings.Count(b.State, "idle"))
		})
		d.Rows = d.Rows[:maxRows]
	}
	slices.SortFunc(d.Rows, func(a, b indexRow) int { return strings.Compare(a.ID, b.ID) })
	return d
}

// firstDiagnostic is the place and message of the first error, without the source line: the page
// may be seen by others than the tenant's author.
func firstDiagnostic(e *tenants.StartError) string {
	if len(e.Diagnostics) == 0 {
		return e.Step
	}
	d := e.Diagnostics[0]
	d.Excerpt = ""
	return bounded(d.String(), 300)
}
