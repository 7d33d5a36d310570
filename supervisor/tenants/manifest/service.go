package manifest

import (
	"slices"

	"bulkhead/policy"
	"bulkhead/policy/doctree"
)

// Bounds on what a manifest says of other tenants.
const (
	MaxServices = 64
	maxHostAPIs = 64
	maxCallers  = 1000
	// maxEntrypoint is ipc.MaxNameBytes.
	maxEntrypoint = 128
	// maxProps is ipc.MaxPropsBytes.
	maxProps = 4 << 10
)

// services reads service bindings: a list of {binding, service, entrypoint, props}, as wrangler has it.
func (r *reader) services(n *doctree.Node) {
	if n.Kind == doctree.Null {
		return
	}
	if n.Kind != doctree.List {
		r.fail(n.Pos, "services must be a list of {binding, service}, not %s", n.Kind)
		return
	}
	if len(n.Items) > MaxServices {
		r.fail(n.Pos, "more than %d services", MaxServices)
		return
	}
	for _, item := range n.Items {
		r.service(item)
	}
}

func (r *reader) service(n *doctree.Node) {
	if n.Kind != doctree.Map {
		r.fail(n.Pos, "a service must be a mapping with binding and service, not %s", n.Kind)
		return
	}
	v := Var{}
	for _, f := range n.Fields {
		dst := map[string]*string{"binding": &v.Name, "service": &v.Service, "entrypoint": &v.Entrypoint}[f.Key]
		switch {
		case f.Key == "props":
			if f.Value.Kind != doctree.Map {
				r.fail(f.Value.Pos, "props of a service must be a mapping, which its calls bring along as ctx.props, not %s", f.Value.Kind)
				return
			}
			if v.Value = string(appendJSON(nil, f.Value)); len(v.Value) > maxProps {
				r.fail(f.Value.Pos, "props of a service have %d bytes as JSON, and may have %d", len(v.Value), maxProps)
				return
			}
		case dst == nil && r.wrangler:
			if !empty(f.Value) {
				r.warn(f.Pos, "services: %q is not served by this version and changes nothing", doctree.Printable(f.Key))
			}
		case dst == nil:
			r.fail(f.Pos, "a service has no key %q; it takes binding, service, entrypoint, props", doctree.Printable(f.Key))
		case f.Value.Kind != doctree.String:
			r.fail(f.Value.Pos, "%s of a service must be text, not %s", f.Key, f.Value.Kind)
		default:
			*dst = f.Value.Text
		}
	}
	switch {
	case v.Name == "" || len(v.Name) > maxName:
		r.fail(n.Pos, "a service needs a binding: the name under which it stands in env, 1 to %d bytes", maxName)
	case !policy.ValidTenantID(v.Service):
		r.fail(n.Pos, "service %q cannot be a worker: it is the name of a tenant's folder, of lower-case letters, digits and -", doctree.Printable(v.Service))
	case v.Entrypoint == "default":
		v.Entrypoint = ""
		fallthrough
	case v.Entrypoint == "" || identifier(v.Entrypoint):
		if slices.ContainsFunc(r.m.Env, func(o Var) bool { return o.Name == v.Name }) {
			r.fail(n.Pos, "env has two things named %q; rename the binding or the var", doctree.Printable(v.Name))
			return
		}
		r.m.Env = append(r.m.Env, v)
	default:
		r.fail(n.Pos, "entrypoint %q is not the name of an export: letters, digits, _ and $, at most %d", doctree.Printable(v.Entrypoint), maxEntrypoint)
	}
}

// hostAPIs reads which of the operator's APIs the worker wants: a list of {binding, api}. Asking permits
// nothing: the policy does.
func (r *reader) hostAPIs(n *doctree.Node) {
	if n.Kind == doctree.Null {
		return
	}
	if n.Kind != doctree.List || len(n.Items) > maxHostAPIs {
		r.fail(n.Pos, "hostApis must be a list of at most %d {binding, api}", maxHostAPIs)
		return
	}
	for _, item := range n.Items {
		if item.Kind != doctree.Map {
			r.fail(item.Pos, "a host API must be a mapping with binding and api, not %s", item.Kind)
			continue
		}
		v, good := Var{}, true
		for _, f := range item.Fields {
			dst := map[string]*string{"binding": &v.Name, "api": &v.HostAPI}[f.Key]
			switch {
			case dst == nil:
				r.fail(f.Pos, "a host API has no key %q; it takes binding, api. Its address is the operator's, in the policy", doctree.Printable(f.Key))
				good = false
			case f.Value.Kind != doctree.String:
				r.fail(f.Value.Pos, "%s of a host API must be text, not %s", f.Key, f.Value.Kind)
				good = false
			default:
				*dst = f.Value.Text
			}
		}
		switch {
		case !good:
		case v.Name == "" || len(v.Name) > maxName:
			r.fail(item.Pos, "a host API needs a binding: the name under which it stands in env, 1 to %d bytes", maxName)
		case !policy.ValidTenantID(v.HostAPI):
			r.fail(item.Pos, "%q cannot be a host API: it is a name from the operator's policy, of lower-case letters, digits and -", doctree.Printable(v.HostAPI))
		case slices.ContainsFunc(r.m.Env, func(o Var) bool { return o.Name == v.Name }):
			r.fail(item.Pos, "env has two things named %q; rename the binding or the var", doctree.Printable(v.Name))
		default:
			r.m.Env = append(r.m.Env, v)
		}
	}
}

// identifier is ipc.Identifier.
func identifier(s string) bool {
	for i, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_', c == '$', c >= '0' && c <= '9' && i > 0:
		default:
			return false
		}
	}
	return s != "" && len(s) <= maxEntrypoint
}

// callers reads who may bind to this tenant.
func (r *reader) callers(n *doctree.Node) {
	if n.Kind == doctree.Null {
		return
	}
	if n.Kind != doctree.List || len(n.Items) > maxCallers {
		r.fail(n.Pos, "callers must be a list of at most %d tenants, or of \"*\" for all", maxCallers)
		return
	}
	for _, item := range n.Items {
		if item.Kind != doctree.String || item.Text != "*" && !policy.ValidTenantID(item.Text) {
			r.fail(item.Pos, "callers must be names of tenants' folders, or \"*\"")
			continue
		}
		r.m.Callers = append(r.m.Callers, item.Text)
	}
}
