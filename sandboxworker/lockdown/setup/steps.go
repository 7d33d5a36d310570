package setup

// Step is one step of the constructor, for the documentation. The names are those of lockdown.c,
// in its order; a test of package lockdown compares the two.
type Step struct {
	Name string
	Does string
}

// Steps lists what the constructor does, in order.
func Steps() []Step {
	return []Step{
		{"descriptors", "closes every descriptor that is not in the launcher's list"},
		{"cgroup-namespace", "makes the cgroup namespace, now that the process stands in its own cgroup"},
		{"root", "builds the root out of a tmpfs and the listed mounts, pivots into it, drops the old one, makes it read-only"},
		{"names", "sets the constant host and domain name, and the process name"},
		{"keyring", "joins a new, anonymous session keyring"},
		{"rlimits", "sets the resource limits, soft and hard"},
		{"speculation", "forces the CPU's speculation mitigations, with --force-mitigations"},
		{"bounding-set", "empties the capability bounding set"},
		{"securebits", "locks the bits by which uid 0 would regain capabilities"},
		{"capabilities", "empties all other capability sets"},
		{"no-new-privs", "sets no_new_privs"},
		{"mdwe", "jitless workers: no page that was writable becomes executable (PR_SET_MDWE)"},
		{"landlock", "allows the listed mounts and nothing else; no TCP, no signals, no abstract sockets (the gateway may dial)"},
		{"dumpable", "forbids core dumps and being traced by its own uid"},
		{"parent-death", "asks for SIGKILL at the launcher's death, and looks whether it is still alive"},
	}
}
