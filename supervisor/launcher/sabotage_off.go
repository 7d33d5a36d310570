//go:build !bulkhead_sabotage

package launcher

import "bulkhead/policy/seccomp"

// Builds that serve tenants leave nothing out: see sabotage.go for the builds that do.

func leftOut(string) bool { return false }

func weakened(rules []seccomp.Rule) []seccomp.Rule { return rules }

func sabotageIsSafe(Options) error { return nil }
