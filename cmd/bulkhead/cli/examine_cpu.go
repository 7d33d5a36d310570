package cli

import (
	"fmt"
	"os"
	"strings"

	"bulkhead/securitytests/suites"
)

// examineUIDs says whether shards are apart by uid too, a second wall behind the namespaces.
func examineUIDs() finding {
	f := finding{Name: "uids", State: stateOK, For: "each worker has a uid of its own, so that nothing that goes by uid joins two of them"}
	if os.Getuid() == 0 {
		f.Found = "root: every worker gets one of its own"
		return f
	}
	f.State, f.Exposure = stateDegraded, 0.5
	f.Found = "rootless: all workers share the uid of this user outside their namespaces"
	f.Remedy = "run it as root (or as a service of systemd), which gives each worker its own"
	return f
}

// examineInspection says whether the launcher can look where /proc does not show.
func examineInspection() finding {
	f := finding{Name: "inspection", State: stateOK, For: "Landlock, dumpability, keyring and the parent-death signal of each worker are checked from outside"}
	switch scope := read("/proc/sys/kernel/yama/ptrace_scope"); scope {
	case "3":
		f.State, f.Accept, f.Found, f.Remedy = stateDegraded, "inspect", "kernel.yama.ptrace_scope is 3: nobody may look", "sysctl kernel.yama.ptrace_scope=2, or lower"
	case "":
		f.Found = "ptrace(2) of own children is allowed"
	default:
		f.Found = "ptrace(2) of own children is allowed (kernel.yama.ptrace_scope " + scope + ")"
	}
	return f
}

// examineSpeculation lists the weaknesses of the processor that nothing is done about.
func examineSpeculation() finding {
	f := finding{Name: "speculation", State: stateOK, For: "what one process can learn of another through the CPU"}
	list := suites.Weaknesses()
	if len(list) == 0 {
		f.Found = "this kernel does not say"
		return f
	}
	var open, partly []string
	for _, w := range list {
		switch {
		case w.Open:
			open = append(open, w.Name)
		case w.Partly:
			partly = append(partly, w.Name+" ("+w.State+")")
		}
	}
	f.Found = fmt.Sprintf("%d of %d known weaknesses of CPUs are mitigated or absent", len(list)-len(open), len(list))
	if len(partly) > 0 {
		f.Found += "; but for a part: " + strings.Join(partly, ", ")
		f.Exposure = 0.2
	}
	if len(open) > 0 {
		f.Found += "; open: " + strings.Join(open, ", ")
		f.State, f.Exposure, f.Remedy = stateDegraded, 1, "update microcode and kernel; remove mitigations=off from the kernel's command line"
	}
	return f
}

// examineSMT: two threads of one core see much of each other.
func examineSMT() finding {
	f := finding{Name: "smt", State: stateOK, For: "no two tenants run on one core at the same time"}
	switch read("/sys/devices/system/cpu/smt/active") {
	case "0":
		f.Found = "off (" + read("/sys/devices/system/cpu/smt/control") + "): one thread a core"
	case "1":
		if _, err := suites.CoreCookie(os.Getpid()); err == nil {
			f.Found = "on; each shard has a core-scheduling cookie of its own, unless --accept shared-cores is given"
			return f
		}
		f.State, f.Found = stateDegraded, "on, and this kernel has no core scheduling (CONFIG_SCHED_CORE)"
		f.Remedy = "nosmt on the kernel's command line, or: echo off > /sys/devices/system/cpu/smt/control"
	default:
		f.Found = "this kernel does not say"
	}
	return f
}

func examineMerging() finding {
	f := finding{Name: "page merging", State: stateOK, For: "no page of a worker is merged with an equal one elsewhere, which a write would tell by its time"}
	if read("/sys/kernel/mm/ksm/run") == "1" {
		f.Found = "KSM runs; workers can neither ask for it nor be given it"
		return f
	}
	f.Found = "KSM is off"
	return f
}

func examineSwap() finding {
	f := finding{Name: "swap", State: stateOK, For: "secrets of tenants do not outlive them on a disk"}
	lines := strings.Split(read("/proc/swaps"), "\n")
	var disks []string
	for _, l := range lines[1:] {
		if w := strings.Fields(l); len(w) > 0 && !strings.HasPrefix(w[0], "/dev/zram") {
			disks = append(disks, w[0])
		}
	}
	if len(disks) == 0 {
		f.Found = "none on a disk"
		return f
	}
	f.State, f.Found = stateDegraded, "on "+strings.Join(disks, ", ")+"; whether it is encrypted cannot be told"
	f.Remedy = "swapoff -a, or swap on an encrypted device or zram"
	return f
}

func examineCoreDumps() finding {
	f := finding{Name: "core dumps", State: stateOK, For: "the memory of a worker that dies goes nowhere"}
	pattern := read("/proc/sys/kernel/core_pattern")
	f.Found = "workers are not dumpable"
	if strings.HasPrefix(pattern, "|") {
		f.Found += "; a program takes those of other processes: " + pattern
	}
	return f
}
