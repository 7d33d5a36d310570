package launcher

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// unitDirectives reads the [Service] part of the unit that `make install` installs.
func unitDirectives(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../cmd/bulkhead-launcher/systemd/bulkhead.service.in")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(name, "#") {
			all[name] = strings.TrimSpace(all[name] + " " + value)
		}
	}
	return all
}

// Directives of systemd.exec(5) that take from the launcher, or through inherited filters from its
// children, a system call of the seal. Some of them raise the score of systemd-analyze and stop
// every start.
func TestTheUnitLeavesWhatTheSealNeeds(t *testing.T) {
	have := unitDirectives(t)
	for name, why := range map[string]string{
		"ProtectHostname":        "its filter refuses sethostname(2), also in a child's own uts namespace",
		"RestrictSUIDSGID":       "its filter refuses openat2(2), whose flags it cannot see",
		"DynamicUser":            "implies RestrictSUIDSGID, and the launcher needs root",
		"RestrictNamespaces":     "refuses clone(2) and unshare(2) with namespaces",
		"PrivateUsers":           "takes the range of uids for children away",
		"PrivateDevices":         "hides /dev/kmsg",
		"ProtectKernelLogs":      "hides /dev/kmsg",
		"ProtectControlGroups":   "cgroups could not be made",
		"ProcSubset":             "the seal is verified through /proc",
		"MemoryDenyWriteExecute": "its filter reaches the workers: V8 could not compile",
		"PrivateNetwork":         "nobody could connect",
		"RootDirectory":          "the binaries and the tenants would be elsewhere",
		"MountFlags":             "propagation is the launcher's children's own affair",
	} {
		if value, set := have[name]; set && value != "no" && value != "false" {
			t.Errorf("%s=%s: %s", name, value, why)
		}
	}
	// Filters of systemd reach every child. One that lists what is allowed would have to list what V8
	// and the seal need; one that lists what is not must leave the seal its groups.
	if filter := strings.Fields(have["SystemCallFilter"]); len(filter) > 0 {
		if !strings.HasPrefix(filter[0], "~") {
			t.Errorf("SystemCallFilter=%s is an allow list", have["SystemCallFilter"])
		}
		for _, group := range filter {
			switch group = strings.TrimPrefix(group, "~"); group {
			case "@mount", "@privileged", "@debug", "@sandbox", "@setuid", "@keyring", "@process", "@system-service", "@resources", "@file-system", "@chown", "@ipc":
				t.Errorf("SystemCallFilter takes %s from the seal", group)
			}
		}
	}
	// ProtectClock allows a device by name, and so forbids all that nobody names (systemd.exec(5)).
	if have["ProtectClock"] == "yes" && !slices.Contains(strings.Fields(have["DeviceAllow"]), "/dev/kmsg") {
		t.Error("ProtectClock without DeviceAllow=/dev/kmsg: incidents lose the number of the system call")
	}
}

// The launcher lives, and its children are sealed, with the capabilities, the umask and the
// no_new_privs of the unit.
func TestTheLauncherRunsWithTheUnitsCapabilities(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: capabilities can only be taken from those who have them")
	}
	have := unitDirectives(t)
	set := "-all"
	for _, name := range strings.Fields(have["CapabilityBoundingSet"]) {
		set += ",+" + strings.ToLower(strings.TrimPrefix(name, "CAP_"))
	}
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skipf("no setpriv(1) here: %v", err)
	}
	if have["NoNewPrivileges"] != "yes" || have["UMask"] != "0077" {
		t.Fatalf("NoNewPrivileges=%s UMask=%s: this test tries yes and 0077", have["NoNewPrivileges"], have["UMask"])
	}
	r := startAs(t, mode{}, built.child, func(cmd *exec.Cmd) {
		inner := append([]string{setpriv, "--no-new-privs", "--bounding-set", set, "--inh-caps", "-all", "--"}, cmd.Args...)
		cmd.Args = append([]string{"/bin/sh", "-c", `umask 0077; exec "$@"`, "sh"}, inner...)
		cmd.Path = "/bin/sh"
	})
	c := r.dial()
	_, pid := c.spawn("shard jit %d", gigabyte)
	checkSeal(t, pid)
	id, _ := c.spawn("bundler 0 hello")
	if got := c.ask("output %d", id); !strings.Contains(got, "index.js") {
		t.Errorf("the bundler saw %s", got)
	}
	if got := c.ask("write /data/x"); got != "<nil>" {
		t.Errorf("the gateway's state: %s", got)
	}
	id, _ = c.spawn("shard jit %d", gigabyte)
	c.ask("kill %d", id)
	if got := c.ask("exit %d", id); !strings.Contains(got, "signal=9") {
		t.Errorf("a killed shard: %s", got)
	}
}
