package gatewayside

import "bulkhead/policy/limits"

// ForceTenant pretends that a tenant was loaded, for peers that speak no RPC.
func (c *Conn) ForceTenant(handle uint32, l limits.Tenant) { c.ForceFetcher(handle, l, nil) }

// ForceBindings gives a tenant of ForceFetcher service bindings.
func (c *Conn) ForceBindings(handle uint32, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tenants[handle].bindings = n
}

// ForceFetcher is ForceTenant for one with a way out.
func (c *Conn) ForceFetcher(handle uint32, l limits.Tenant, fetch func(*Subrequest)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tenants[handle] = &tenant{limits: l, host: &tenantHost{c: c}, fetch: fetch}
}
