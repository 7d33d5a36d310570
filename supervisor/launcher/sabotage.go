//go:build bulkhead_sabotage

package launcher

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"bulkhead/policy/seccomp"
)

// SabotageMarker stands in every build with the tag bulkhead_sabotage, so that a test can show that
// no other has it.
const SabotageMarker = "bulkhead sabotage build: for tests only"

// leftOut reports whether the file beside the binary, NAME.skip, has this line. The mutation tests
// leave layers out one by one, to show that each is needed and that something notices:
//
//	checks             the whole inspection and verification
//	check NAME         one of them
//	namespace NAME     one kind
//	row CALL           the argument filter of a call
//	drop CALL          all rows of a call: it ends the process
//	cgroup             cgroups
//	cgroup enter       being born in one's own
//	cgroup limits      its limits
//	parent-death       the launcher's half of the signal
func leftOut(what string) bool { return slices.Contains(skipLines("/proc/self/exe"), what) }

func skipLines(exe string) []string {
	if target, err := os.Readlink(exe); err == nil {
		exe = target
	}
	text, err := os.ReadFile(exe + ".skip")
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

// weakened replaces the rows of a call by one that allows it whatever its arguments.
func weakened(rules []seccomp.Rule) []seccomp.Rule {
	var out []seccomp.Rule
	done := map[string]bool{}
	for _, r := range rules {
		switch {
		case leftOut("drop " + r.Call):
		case !leftOut("row " + r.Call):
			out = append(out, r)
		case !done[r.Call]:
			done[r.Call] = true
			out = append(out, seccomp.Rule{Call: r.Call, Action: seccomp.Allow, Why: SabotageMarker})
		}
	}
	return out
}

// sabotageIsSafe refuses the one combination that would pivot the host's own root.
func sabotageIsSafe(o Options) error {
	fmt.Fprintln(os.Stderr, SabotageMarker)
	if leftOut("namespace mount") && !slices.Contains(skipLines(o.Worker), "root") {
		return errors.New("without a mount namespace the worker must leave out the step root")
	}
	return nil
}
