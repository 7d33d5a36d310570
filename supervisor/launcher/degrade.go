package launcher

import (
	"fmt"
	"slices"
	"strings"
)

// A Missing is a feature of the host that the seal wants and does not find. It stops the start
// unless the operator accepted the degradation by name.
type Missing struct {
	Feature string // name for --accept, "" if it cannot be done without
	What    string // the layer that does not hold
	Reason  string // what this host said
	Remedy  string // what the operator can do
}

func (m *Missing) Error() string {
	s := fmt.Sprintf("%s is missing: %s. Remedy: %s.", m.What, m.Reason, m.Remedy)
	if m.Feature != "" {
		s += fmt.Sprintf(" Or accept the degradation: --accept %s.", m.Feature)
	}
	return s
}

// degradation is one thing an operator may decide to do without.
type degradation struct{ name, lost string }

// degradations lists every acceptable one. What is not here is never done without.
func degradations() []degradation {
	return []degradation{
		{"cgroup", "no cgroup bounds memory, threads and CPU share of a shard; RLIMIT_DATA is all that is left"},
		{"landlock", "no second lock on files, network and signals behind namespaces and seccomp"},
		{"landlock-scopes", "Landlock does not cover abstract sockets and signals (kernel before 6.12)"},
		{"mdwe", "jitless shards are kept from executable pages by the filter alone (kernel before 6.3)"},
		{"idmap", "tenant folders must be readable by everybody: the gateway cannot be mapped to their owner"},
		{sharedCores, "where a core runs two threads, shards run beside each other on it: no core-scheduling cookies are made"},
		{"inspect", "what /proc does not show (Landlock, dumpable, parent-death signal, MDWE) is not checked from outside"},
	}
}

func degradationNames() []string {
	var names []string
	for _, d := range degradations() {
		names = append(names, d.name)
	}
	return names
}

// lacking records a missing feature: nil if it was accepted, else the error that stops the start.
func (l *launcher) lacking(m *Missing) error {
	if m.Feature == "" || !slices.Contains(l.opt.Accept, m.Feature) {
		return m
	}
	line := m.Feature + ": " + m.Reason
	if !slices.Contains(l.degraded, line) {
		l.degraded = append(l.degraded, line)
		l.logf("degraded: %s is missing, as accepted: %s", m.What, strings.TrimSpace(m.Reason))
	}
	return nil
}
