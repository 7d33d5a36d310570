package suites

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func speculationPromises() []Promise {
	return []Promise{
		{Name: "speculation is switched off inside it", Suite: "speculation", try: processSpeculation,
			Gain:   "memory of the same worker (other tenants in it) through the processor's guesses",
			Repair: "bulkhead-launcher --force-mitigations, or fewer tenants in a process"},
		{Name: "the kernel mitigates the processor's weaknesses", Suite: "speculation", Host: true, try: kernelMitigations,
			Gain: "memory of other processes and of the kernel through the processor's guesses", Repair: "update microcode and kernel; remove mitigations=off from the kernel's command line"},
		{Name: "no other tenant runs on the same core at the same time", Suite: "speculation", try: coreSharing,
			Gain: "what a thread on the same core does, through what they share", Repair: "a kernel with CONFIG_SCHED_CORE, and no --accept shared-cores; or switch SMT off: nosmt on the kernel's command line, or echo off > /sys/devices/system/cpu/smt/control"},
		{Name: "no page is merged with another process's", Suite: "speculation", Host: true, try: pageMerging,
			Gain: "whether another process holds a page of known content, by the time a write takes", Repair: "echo 2 > /sys/kernel/mm/ksm/run"},
		{Name: "no secret is swapped to a disk", Suite: "speculation", Host: true, try: swapping,
			Gain: "secrets of tenants on a disk, long after their death", Repair: "swapoff -a, or swap on an encrypted device or zram"},
	}
}

// settled are the states in which a thread's control leaves nothing to gain.
func settled(state string) bool {
	for _, s := range []string{"not vulnerable", "force mitigated", "globally mitigated", "always disabled", "conditional force disabled", "mitigated"} {
		if strings.Contains(state, s) {
			return true
		}
	}
	return false
}

// The kernel's own words for PR_GET_SPECULATION_CTRL stand in /proc/PID/status for each thread.
func processSpeculation(ctx context.Context, s *scene) finding {
	seat, err := s.seat(ctx)
	if err != nil {
		return failedTry(err)
	}
	defer seat.Leave()
	st := statusOf(fmt.Sprintf("/proc/%d/task/%d/status", seat.PID, seat.PID))
	var open, all []string
	for _, field := range []string{"Speculation_Store_Bypass", "SpeculationIndirectBranch"} {
		state, known := st[field]
		if !known {
			continue
		}
		all = append(all, field+": "+state)
		if !settled(state) && state != "unknown" {
			open = append(open, field+": "+state)
		}
	}
	if len(all) == 0 {
		return notShown("the kernel does not say")
	}
	if cookie, err := CoreCookie(seat.PID); err == nil {
		all = append(all, fmt.Sprintf("core-scheduling cookie: %#x", cookie))
	}
	if len(open) > 0 {
		return notShown("not promised unless forced: %s", strings.Join(open, "; "))
	}
	return held("%s", strings.Join(all, "; "))
}

// Weakness is one line of /sys/devices/system/cpu/vulnerabilities.
type Weakness struct {
	Name, State string
	Open        bool // nothing is done about it
	Partly      bool // something is, and a part stays open
}

// Weaknesses are the processor's, as the kernel tells them.
func Weaknesses() []Weakness {
	files, _ := filepath.Glob("/sys/devices/system/cpu/vulnerabilities/*")
	var out []Weakness
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		state := strings.TrimSpace(string(b))
		open := strings.HasPrefix(state, "Vulnerable")
		out = append(out, Weakness{filepath.Base(f), state, open, !open && strings.Contains(state, "ulnerable")})
	}
	return out
}

func kernelMitigations(context.Context, *scene) finding {
	var open, partly []string
	list := Weaknesses()
	for _, w := range list {
		switch {
		case w.Open:
			open = append(open, w.Name+": "+w.State)
		case w.Partly:
			partly = append(partly, w.Name+": "+w.State)
		}
	}
	switch {
	case len(list) == 0:
		return notShown("the kernel does not say")
	case len(open) > 0:
		return broken("%s", strings.Join(open, "; "))
	case len(partly) > 0:
		return notShown("mitigated but for a part: %s", strings.Join(partly, "; "))
	}
	return held("all %d that the kernel knows", len(list))
}

func word(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// CoreCookie is the core-scheduling cookie of a process (prctl(2), PR_SCHED_CORE_GET), 0 for none.
func CoreCookie(pid int) (uint64, error) {
	const prSchedCore, get = 62, 0
	var cookie uint64
	_, _, errno := unix.Syscall6(unix.SYS_PRCTL, prSchedCore, get, uintptr(pid), 0, uintptr(pointerTo(&cookie)), 0)
	if errno != 0 {
		return 0, errno
	}
	return cookie, nil
}

func coreSharing(ctx context.Context, s *scene) finding {
	switch active := word("/sys/devices/system/cpu/smt/active"); active {
	case "0":
		return held("SMT is %s: one thread a core", word("/sys/devices/system/cpu/smt/control"))
	case "1":
	default:
		return notShown("the kernel does not say whether SMT is on")
	}
	// Two threads a core: two shards must have a cookie each.
	var cookies [2]uint64
	for i := range cookies {
		seat, err := s.seat(ctx)
		if err != nil {
			return failedTry(err)
		}
		defer seat.Leave()
		if cookies[i], err = CoreCookie(seat.PID); err != nil {
			return notShown("SMT is on and this kernel has no core scheduling: %v", err)
		}
	}
	if cookies[0] == 0 || cookies[0] == cookies[1] {
		return broken("SMT is on, and two shards have the core-scheduling cookies %#x and %#x", cookies[0], cookies[1])
	}
	return held("SMT is on, and two shards have the core-scheduling cookies %#x and %#x", cookies[0], cookies[1])
}

func pageMerging(context.Context, *scene) finding {
	switch run := word("/sys/kernel/mm/ksm/run"); run {
	case "", "0", "2":
		return held("KSM is off")
	default:
		// Only memory whose process asked for it is merged, and neither way to ask is a worker's.
		return held("KSM runs, but a worker can ask for it neither by madvise(2) nor by prctl(2), and nobody asks for it")
	}
}

func swapping(context.Context, *scene) finding {
	lines := strings.Split(word("/proc/swaps"), "\n")
	if len(lines) <= 1 {
		return held("there is no swap")
	}
	var disks []string
	for _, l := range lines[1:] {
		if f := strings.Fields(l); len(f) > 0 && !strings.HasPrefix(f[0], "/dev/zram") {
			disks = append(disks, f[0])
		}
	}
	if len(disks) == 0 {
		return held("swap is compressed memory")
	}
	return notShown("swap on %s; whether it is encrypted cannot be told from here", strings.Join(disks, ", "))
}
