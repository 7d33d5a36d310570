package scheduler

import (
	"strconv"
	"time"

	"bulkhead/ipc"
	"bulkhead/sandboxworker/engine"
	"bulkhead/sandboxworker/runtime"
	"bulkhead/schema/gen"
)

// serviceVar is a service binding as the script takes it.
func serviceVar(name string, binding uint16) engine.EnvVar {
	return engine.EnvVar{Name: name, JSON: true, Value: runtime.ServiceValue(binding)}
}

// eventMethod is what the script is given as method; see runtime.EventMethod.
func eventMethod(o *ipc.Open) string {
	if o.Event == gen.Event_fetch && o.Entrypoint == "" && o.Props == "" {
		return o.Method
	}
	m := runtime.EventMethod(o.Method, o.Event.String(), o.Entrypoint, o.Name)
	if o.Props != "" {
		m += "\n" + o.Props
	}
	return m
}

// function names, for the script, a function that a subrequest of the tenant's brought to its callee, and makes
// inv part of the invocation that made it. If that is over, the script is told of a subrequest that there is not.
func (x *executor) function(t *tenant, inv *invocation, o *ipc.Open) {
	x.s.mu.Lock()
	sub := x.s.fetches[o.Carrier]
	x.s.mu.Unlock()
	var id uint32
	if sub != nil && sub.inv.t == t && !sub.over && !sub.inv.over {
		id, inv.payer = sub.id, sub.inv
	}
	o.Entrypoint, o.Name = strconv.FormatUint(uint64(id), 10), strconv.Itoa(int(o.Function))
}

// use charges CPU to an invocation and to those it is part of.
func (inv *invocation) use(cpu time.Duration) {
	for ; inv != nil; inv = inv.payer {
		inv.cpu += cpu
	}
}

// move counts body bytes of an invocation, which are those of the ones it is part of, too.
func (inv *invocation) move(n int) {
	for ; inv != nil; inv = inv.payer {
		inv.moved += n
	}
}

// poorest is which of an invocation and those that it is part of has the least CPU left.
func (inv *invocation) poorest() *invocation {
	least := inv
	for p := inv.payer; p != nil; p = p.payer {
		if p.left() < least.left() {
			least = p
		}
	}
	return least
}

func (inv *invocation) left() time.Duration { return inv.limit() - inv.cpu }
