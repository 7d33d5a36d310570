package tenants

import (
	"context"
	"fmt"
	"strings"
	"time"

	"bulkhead/policy/cron"
	"bulkhead/policy/doctree"
	"bulkhead/policy/limits"
	"bulkhead/policy/seccomp"
	"bulkhead/schema/gen"
)

// Version is one state of a tenant's folder, ready to be loaded into a shard, or the reason why
// it cannot be. It is never changed after it was published.
type Version struct {
	Tenant  string // id
	Hash    string // of all the shard is given: code, env, limits, profile; "" when Err is set
	Bundle  []byte // see Code; nil in versions of a Registry, which keeps only so many in memory
	Env     []EnvVar
	Routes  []string // patterns, for people; conflicts included
	Crons   []cron.Expr
	Callers []string // tenants that may bind to this one; "*" for all
	Limits  limits.Tenant
	Profile seccomp.Profile
	Dev     bool        // errors may be shown to whoever asks
	Err     *StartError // nil, or why this version cannot run
	Made    time.Time

	machinery bool // Err is not the folder's fault

	code   *code // nil when Err is set
	again  func(context.Context, *Version) ([]byte, error)
	maps   *mapper // nil if there is nothing to map
	folder string
}

// EnvVar is one variable of the worker's `env`.
type EnvVar struct {
	Name  string
	JSON  bool // Value is JSON text; otherwise it is the string itself
	Value string
	// Service is the tenant that a service binding leads to, Entrypoint its export ("" the default one); Value is
	// then its props, JSON that its calls bring along, or "".
	Service    string
	Entrypoint string
	// HostAPI is the operator's API that a binding leads to.
	HostAPI string
}

// Bound says whether the variable is a binding, which the gateway answers for, and not a value.
func (e *EnvVar) Bound() bool { return e.Service != "" || e.HostAPI != "" }

// Calls says whether v has a service binding to the tenant.
func (v *Version) Calls(tenant string) bool {
	for i := range v.Env {
		if v.Env[i].Service == tenant {
			return true
		}
	}
	return false
}

// Binding is the nth binding, to a service or a host API, from 1 in the order of Env; nil if there are fewer.
func (v *Version) Binding(n int) *EnvVar {
	for i := range v.Env {
		if !v.Env[i].Bound() {
			continue
		}
		if n--; n == 0 {
			return &v.Env[i]
		}
	}
	return nil
}

// Welcomes says whether v's own folder lets the tenant bind to it.
func (v *Version) Welcomes(tenant string) bool {
	for _, c := range v.Callers {
		if c == "*" || c == tenant {
			return true
		}
	}
	return false
}

// Diagnostic says what is wrong in which place of a tenant's folder.
type Diagnostic struct {
	File    string // relative to the folder; "" when it has no place
	Line    int    // from 1; 0 when unknown
	Column  int    // from 1; 0 when unknown
	Excerpt string // the offending line, at most 200 characters
	Message string
}

// String is the place, the message and the line, as compilers print them.
func (d Diagnostic) String() string {
	var b strings.Builder
	if d.File != "" {
		b.WriteString(d.File)
		if d.Line > 0 {
			fmt.Fprintf(&b, ":%d", d.Line)
			if d.Column > 0 {
				fmt.Fprintf(&b, ":%d", d.Column)
			}
		}
		b.WriteString(": ")
	}
	b.WriteString(d.Message)
	if d.Excerpt != "" {
		fmt.Fprintf(&b, "\n  | %s", d.Excerpt)
	}
	return b.String()
}

// The steps at which a version can fail.
const (
	StepConfig = "configuration"
	StepBundle = "bundle"
	StepStart  = "start"
)

// StartError is why a version cannot run.
type StartError struct {
	Tenant      string
	Step        string      // one of the Step constants
	Outcome     gen.Outcome // notLoaded, or what ended the start: exception, exceededCpu, exceededMemory
	Diagnostics []Diagnostic
	Stack       string // of a start-up exception, places mapped to the source; may be empty
}

// Error lists the diagnostics, one under the other.
func (e *StartError) Error() string {
	var b strings.Builder
	for i, d := range e.Diagnostics {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(d.String())
	}
	if e.Stack != "" {
		b.WriteByte('\n')
		b.WriteString(e.Stack)
	}
	return b.String()
}

func fromDoc(e *doctree.Error) Diagnostic {
	return Diagnostic{File: e.File, Line: e.Pos.Line, Column: e.Pos.Column, Excerpt: e.Excerpt, Message: e.Message}
}

// fromError flattens joined errors into diagnostics.
func fromError(err error) []Diagnostic {
	switch e := err.(type) {
	case *doctree.Error:
		return []Diagnostic{fromDoc(e)}
	case interface{ Unwrap() []error }:
		var out []Diagnostic
		for _, part := range e.Unwrap() {
			out = append(out, fromError(part)...)
		}
		return out
	}
	return []Diagnostic{{Message: doctree.Printable(err.Error())}}
}
