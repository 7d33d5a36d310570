package launcher

import (
	"fmt"
	"strings"

	"bulkhead/policy/namespaces"
	"bulkhead/policy/seccomp"
	"bulkhead/sandboxworker/lockdown/setup"
)

// Document is docs/launcher.md: every list in it is printed from the table that runs, so the page
// cannot drift. A test compares the file.
func Document() string {
	d := &document{}
	d.line("# What the launcher does, step by step")
	d.line("")
	d.line("Printed from the tables in `supervisor/launcher`, `sandboxworker/lockdown` and `policy/`.")
	d.line("To renew it: `make generate`.")
	d.section("Start of the launcher")
	for i, s := range startSteps() {
		d.line("%d. **%s** %s", i+1, s.name, s.does)
	}
	d.section("Birth of a child")
	d.line("1. **clone** all namespaces of its role but the cgroup's; uid and gid 0 inside map to the child's own outside;")
	d.line("   it is born in its cgroup; the parent-death signal is set before exec; the binary is executed by descriptor")
	d.line("2. **constructor**, before the Go runtime starts, in the only thread:")
	for i, s := range setup.Steps() {
		d.line("   %d. **%s** %s", i+1, s.Name, s.Does)
	}
	d.line("3. **inspection** the launcher asks the kernel, with that thread as its mouth, what /proc does not show:")
	for _, q := range questions() {
		d.line("   - **%s** %s", q.name, q.sees)
	}
	d.line("4. **set-up** the Go runtime and, in a worker, V8 start")
	d.line("5. **seccomp** the filter is put on all threads, and the child waits")
	d.line("6. **verification** through /proc, on every thread where threads can differ, until two passes have seen the same threads:")
	for _, k := range checks() {
		d.line("   - **%s** %s", k.name, k.sees)
	}
	d.line("7. **hand-over** the gateway gets the descriptors; the child may go on")
	d.section("Orders of the gateway")
	d.line("Anything else, out of phase, a second time where once is lawful, or beyond the launcher's argv ends the generation.")
	d.line("")
	d.line("| order | phases | once |")
	d.line("|---|---|---|")
	for _, o := range orderTable() {
		d.line("| %v | %v | %v |", o.kind, o.phases, o.once)
	}
	for _, role := range []namespaces.Role{namespaces.Worker, namespaces.Gateway, namespaces.Bundler} {
		d.room(role)
	}
	d.section("System calls")
	d.line("| filter | calls allowed | of them with listed arguments only |")
	d.line("|---|---|---|")
	for _, p := range seccomp.Profiles() {
		d.calls("worker, "+p.String(), seccomp.Worker(p))
	}
	d.calls("gateway", seccomp.Gateway())
	d.calls("bundler", seccomp.Bundler())
	d.section("Degradations an operator may accept")
	for _, g := range degradations() {
		d.line("- `--accept %s`: %s", g.name, g.lost)
	}
	return d.String()
}

type document struct{ strings.Builder }

func (d *document) line(format string, args ...any) {
	fmt.Fprintf(d, format+"\n", args...)
}

func (d *document) section(title string) { d.line("\n## %s\n", title) }

func (d *document) room(role namespaces.Role) {
	d.section("The room of a " + role.String())
	d.line("Argument vector `%s`, environment `%s`.", strings.Join(role.Argv(), " "), strings.Join(role.Env(), " "))
	d.line("")
	for _, ns := range namespaces.Of(role) {
		d.line("- own %s namespace: %s", ns.Name, ns.Why)
	}
	for _, m := range namespaces.Mounts(role) {
		how := "read-only"
		if m.Writable {
			how = "writable"
		}
		d.line("- `%s`, %s: %s", m.Target, how, m.Why)
	}
	if len(namespaces.Mounts(role)) == 0 {
		d.line("- an empty root")
	}
}

func (d *document) calls(name string, rules []seccomp.Rule) {
	allowed, filtered := seccomp.Calls(rules)
	d.line("| %s | %d | %d |", name, allowed, filtered)
}

// String lists the phases of a mask.
func (p phase) String() string {
	var names []string
	for _, one := range []struct {
		p    phase
		name string
	}{{phaseStarting, "starting"}, {phaseServing, "serving"}, {phaseDraining, "draining"}} {
		if p&one.p != 0 {
			names = append(names, one.name)
		}
	}
	if names == nil {
		return "down"
	}
	return strings.Join(names, ", ")
}
