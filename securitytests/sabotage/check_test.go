package sabotage

import (
	"context"
	"strings"
	"testing"
	"time"

	"bulkhead/policy/seccomp"
	"bulkhead/securitytests/suites"
)

// The seal check is a layer too. With it, a worker without one of the others is refused, by the check
// that is there for it; without that one check, the worker is accepted: nothing else would have noticed.
func TestTheSealCheckAloneRefuses(t *testing.T) {
	cases := []struct {
		name string
		gone sabotage
		by   []string // checks, all of which would notice
		mode suites.Mode
		args []string // of the launcher
	}{
		{name: "seccomp", gone: child("seccomp"), by: []string{"seccomp"}},
		{name: "seccomp on one thread", gone: child("seccomp-all-threads"), by: []string{"seccomp", "no-new-privs"}},
		{name: "user namespace", gone: namespace("user"), by: []string{"ids", "namespaces"}, mode: suites.Root},
		{name: "pid namespace", gone: namespace("pid"), by: []string{"namespaces"}},
		{name: "net namespace", gone: namespace("net"), by: []string{"namespaces"}},
		{name: "ipc namespace", gone: namespace("ipc"), by: []string{"namespaces"}},
		{name: "cgroup namespace", gone: child("cgroup-namespace"), by: []string{"namespaces"}},
		// What else would notice, or would not go on, is left out: a mount namespace has the empty root built
		// in it, and the name is set in that of uts.
		{name: "mount namespace", gone: namespace("mount").and(child("root")), by: []string{"namespaces", "root", "mounts"}, mode: suites.Root},
		{name: "uts namespace", gone: namespace("uts").and(child("names")).and(inLauncher("check names")), by: []string{"namespaces"}},
		{name: "empty root", gone: child("root"), by: []string{"root", "mounts"}},
		{name: "names", gone: child("names"), by: []string{"names"}},
		{name: "keyring", gone: child("keyring"), by: []string{"keyring"}},
		{name: "rlimits", gone: child("rlimits"), by: []string{"limits"}},
		{name: "bounding set", gone: child("bounding-set"), by: []string{"capabilities"}},
		{name: "securebits", gone: child("securebits"), by: []string{"securebits"}},
		{name: "capabilities", gone: child("capabilities"), by: []string{"capabilities"}},
		// Neither Landlock nor a filter is to be had without it.
		{name: "no_new_privs", gone: child("no-new-privs", "landlock", "seccomp").and(inLauncher("check landlock", "check seccomp")), by: []string{"no-new-privs"}},
		{name: "speculation", gone: child("speculation"), by: []string{"speculation"}, args: []string{"--force-mitigations"}},
		{name: "MDWE", gone: child("mdwe"), by: []string{"mdwe"}},
		{name: "Landlock", gone: child("landlock"), by: []string{"landlock"}},
		{name: "cgroup: membership", gone: inLauncher("cgroup enter"), by: []string{"cgroup"}, mode: suites.Root},
		{name: "cgroup: limits", gone: inLauncher("cgroup limits"), by: []string{"cgroup-limits"}, mode: suites.Root},
		{name: "parent-death signal", gone: child("parent-death").and(inLauncher("parent-death")), by: []string{"parent-death"}},
		{name: "not dumpable", gone: child("dumpable"), by: []string{"dumpable"}},
	}
	eachMode(t, func(t *testing.T, mode suites.Mode) {
		for _, tc := range cases {
			if tc.mode != "" && tc.mode != mode {
				continue
			}
			t.Run(tc.name, func(t *testing.T) {
				if err := sits(t, mode, tc.gone, tc.args...); err == nil || !strings.Contains(err.Error(), "check "+tc.by[0]) {
					t.Errorf("with all checks: %v; want a refusal by check %s", err, tc.by[0])
				}
				without := tc.gone
				for _, c := range tc.by {
					without = without.and(inLauncher("check " + c))
				}
				if err := sits(t, mode, without, tc.args...); err != nil {
					t.Errorf("without %q: %v; want it accepted, or the check is not what refuses", tc.by, err)
				}
			})
		}
	})
}

// sits asks for a jitless worker of a launcher sabotaged like this.
func sits(t *testing.T, mode suites.Mode, s sabotage, args ...string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	stand, err := suites.OpenStand(ctx, sabotaged(t, s), mode, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer stand.Close()
	seat, err := stand.Sit(ctx, seccomp.Jitless, 0)
	if err == nil {
		seat.Leave()
	}
	return err
}
