package gatewayside

import "bulkhead/policy/limits"

// ForceTenant pretends that a tenant was loaded, for peers that speak no RPC.
func (c *Conn) ForceTenant(handle uint32, l limits.Tenant) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tenants[handle] = &tenant{limits: l, host: &tenantHost{c: c}}
}
