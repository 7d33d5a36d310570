package scheduler

import (
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
	if o.Event == gen.Event_fetch && o.Entrypoint == "" {
		return o.Method
	}
	return runtime.EventMethod(o.Method, o.Event.String(), o.Entrypoint, o.Name)
}
