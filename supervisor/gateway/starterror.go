package gateway

import (
	"html/template"
	"net/http"
	"strconv"
	"strings"

	"bulkhead/schema/gen"
	"bulkhead/supervisor/placement"
	"bulkhead/supervisor/tenants"
)

// loadError answers for a version that its shard could not start.
func (c *call) loadError(e *placement.LoadError) {
	f := e.Failure
	c.startError(&tenants.StartError{Tenant: e.Tenant, Step: tenants.StepStart, Outcome: e.Outcome, Stack: f.Stack,
		Diagnostics: []tenants.Diagnostic{{File: f.File, Line: int(f.Line), Column: int(f.Column), Excerpt: f.Excerpt, Message: f.Message}}})
}

// startError answers for a version that cannot run. In dev the place and the line are the answer,
// for a browser as a page; elsewhere they are the tenant's business and stand in its log.
func (c *call) startError(e *tenants.StartError) {
	if !c.v.Dev {
		message := plainMessage(gen.Outcome_notLoaded)
		if e.Step != tenants.StepStart {
			message = "the worker could not be built; see `bulkhead tenants`"
		}
		c.answer(gen.Outcome_notLoaded, message, 0)
		return
	}
	c.hasten()
	h := c.w.Header()
	h[headerOutcome] = []string{gen.Outcome_notLoaded.String()}
	h[headerRequestID] = []string{c.id}
	h["Cache-Control"] = []string{"no-store"}
	if !strings.Contains(c.r.Header.Get("Accept"), "text/html") {
		text := "bulkhead: " + e.Tenant + " cannot run (" + e.Step + ")\n\n" + e.Error() + "\n"
		h["Content-Type"] = []string{"text/plain; charset=utf-8"}
		h["Content-Length"] = []string{strconv.Itoa(len(text))}
		c.w.WriteHeader(statusOf(gen.Outcome_notLoaded))
		if c.r.Method != http.MethodHead {
			c.w.Write([]byte(text))
		}
		return
	}
	h["Content-Type"] = []string{"text/html; charset=utf-8"}
	h["Content-Security-Policy"] = []string{pageCSP}
	c.w.WriteHeader(statusOf(gen.Outcome_notLoaded))
	if c.r.Method != http.MethodHead {
		startErrorPage.Execute(c.w, e)
	}
}

// pageCSP is for pages of ours: their own style, nothing else. Tenant text in them is escaped.
const pageCSP = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

var startErrorPage = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{.Tenant}} cannot run</title>
<style>
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:60rem;padding:3rem 1.5rem}
h1{font-size:1.5rem;margin:0 0 .25rem}p{margin:.25rem 0 1.5rem;opacity:.75}
article{border:1px solid color-mix(in srgb,currentColor 20%,transparent);border-left:4px solid #d33;border-radius:6px;padding:1rem 1.25rem;margin:0 0 1rem}
code,pre{font:14px/1.5 ui-monospace,monospace}pre{overflow:auto;white-space:pre-wrap;margin:.75rem 0 0}
.place{opacity:.75}
</style>
<h1>{{.Tenant}} cannot run</h1><p>Step: {{.Step}}. Save a change and reload.</p>
{{range .Diagnostics}}<article><div>{{.Message}}</div>
{{if .File}}<code class="place">{{.File}}{{if .Line}}:{{.Line}}{{if .Column}}:{{.Column}}{{end}}{{end}}</code>{{end}}
{{if .Excerpt}}<pre>{{.Excerpt}}</pre>{{end}}</article>{{end}}
{{if .Stack}}<pre>{{.Stack}}</pre>{{end}}
`))
