package suites

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"bulkhead/policy/seccomp"
)

const unlistedName = "cannot make a system call that is not on the list"

func syscallPromises() []Promise {
	const repair = "the filter of this kernel and libseccomp does not do what the policy says: update both, and report it with the text above"
	return []Promise{
		{Name: unlistedName, Suite: "syscalls", try: unlisted,
			Gain:   "kernel code that the seal keeps out of reach, and whatever hole is in it: the way from one worker to the whole machine",
			Repair: repair},
		{Name: "cannot misuse a system call that is on the list", Suite: "syscalls", try: misused,
			Gain:   "a fork, an executable page, a signal to others or a copy of a descriptor, through a call that was meant for something else",
			Repair: repair},
		{Name: "is under the filter that the policy names, condition by condition", Suite: "syscalls", try: filtered,
			Gain:   "an argument that nobody tried, of a call that is on the list",
			Repair: repair},
		{Name: "cannot enter the kernel by another architecture's door", Suite: "syscalls", try: foreign,
			Gain:   "every call under another number, past the whole list",
			Repair: repair},
	}
}

// lastKnown is a little beyond the last number that any kernel of today has; what lies above must die
// too, or a kernel of tomorrow opens a door.
const lastKnown = 520

// turn says whether one of many equal things is this scene's to try; see Options.Thorough.
func (s *scene) turn(n int64) bool {
	if s.thorough {
		return true
	}
	// Two modes, three profiles: n is tried under every profile, in root mode or rootless by turns.
	return ((n+int64(s.profile))%2 == 0) == (s.stand.Mode == Root)
}

// door is turn for what depends on neither the profile nor the mode, but on the first instructions of
// the filter alone: every profile and every mode sees a third of them, and either mode sees all.
func (s *scene) door(n int64) bool {
	return s.thorough || (n+int64(s.profile))%int64(len(seccomp.Profiles())) == 0
}

// unlisted tries every number that no trial names.
func unlisted(ctx context.Context, s *scene) finding {
	listed := map[string]bool{}
	for _, t := range seccomp.Trials(s.profile) {
		listed[t.Call] = true
	}
	absent := seccomp.Absent()
	numbers := slices.Clone(seccomp.CallNumbers())
	for nr := int64(0); nr <= lastKnown; nr++ {
		if seccomp.CallName(nr) == "" {
			numbers = append(numbers, nr)
		}
	}
	numbers = append(numbers, 600, 1023, 1024, 9999, 0x7fff_ffff)
	var list []attempt
	before := 0
	for _, nr := range numbers {
		name := seccomp.CallName(nr)
		if !s.thorough && s.hasEnded(nr) && !listed[name] {
			before++ // with arguments that mean something, which is more than zeroes
			continue
		}
		if listed[name] || seccomp.Unfiltered()[nr] != "" || !s.turn(nr) {
			continue
		}
		what := fmt.Sprintf("%s, number %d", name, nr)
		if name == "" {
			what = fmt.Sprintf("number %d, which has no name", nr)
		}
		if why := absent[name]; why != "" {
			what += " (" + why + ")"
		}
		list = append(list, attempt{what: what, nr: nr, args: []any{0, 0, 0, 0, 0, 0}, want: seccomp.Dies})
	}
	wrong, err := s.shared(ctx, list)
	switch {
	case len(wrong) > 0:
		return broken("%s", strings.Join(wrong, "; "))
	case err != nil:
		return failedTry(err)
	}
	for nr, why := range seccomp.Unfiltered() {
		if f := s.unfiltered(ctx, nr, why); f.status != Held {
			return f
		}
	}
	allowed, filtered := seccomp.Calls(seccomp.Worker(s.profile))
	return held("%d calls are allowed, %d of them only with listed arguments; %d others were made and ended the process, %d of them in the course of other promises", allowed, filtered, len(list)+before, before)
}

// unfiltered makes a call that newer kernels let past every filter. It must be good for nothing.
func (s *scene) unfiltered(ctx context.Context, nr int64, why string) finding {
	seat, err := s.seat(ctx)
	if err != nil {
		return failedTry(err)
	}
	defer seat.Leave()
	at := attempt{what: why, nr: nr, args: []any{0, 0, 0, 0, 0, 0}, want: seccomp.Dies}
	got, detail, err := at.make(ctx, seat)
	switch {
	case err != nil:
		return failedTry(err)
	case got == seccomp.Lives && detail != syscall.ENXIO.Error():
		return broken("number %d (%s): %s", nr, why, detail)
	}
	return held("%s", detail)
}

// misused makes the calls of the trials' table.
func misused(ctx context.Context, s *scene) finding {
	var list []attempt
	for _, t := range seccomp.Trials(s.profile) {
		nr, ok := seccomp.CallNumber(t.Call)
		if !ok {
			continue
		}
		at := attempt{what: t.String() + ": " + t.Why, nr: nr, want: t.Want, errno: t.Errno}
		for _, a := range t.Args {
			at.args = append(at.args, a)
		}
		list = append(list, at)
	}
	return s.all(ctx, list)
}

// x32Bit marks a call of the x32 ABI (x86-64 kernels).
const x32Bit = 0x4000_0000

// foreign tries the doors of x32 and i386, with the numbers that are allowed at the front door first.
func foreign(ctx context.Context, s *scene) finding {
	if _, x86 := seccomp.CallNumber("arch_prctl"); !x86 {
		return notShown("this architecture's other doors are not known to the suite")
	}
	var list []attempt
	listed := map[string]bool{}
	for _, t := range seccomp.Trials(s.profile) {
		listed[t.Call] = true
	}
	for nr := int64(0); nr < 548; nr++ { // x32 has numbers of its own from 512 to 547
		if name := seccomp.CallName(nr); s.thorough || (listed[name] || nr >= 512) && s.door(nr) {
			list = append(list, attempt{what: fmt.Sprintf("x32 entry, number %d", nr), nr: x32Bit | nr, want: seccomp.Dies})
		}
	}
	// i386: exit, fork, read, write, open, getpid, ptrace, socketcall, clone, mmap2, io_uring_setup.
	for i, nr := range []int64{1, 2, 3, 4, 5, 20, 26, 102, 120, 192, 425, 9999} {
		if !s.door(int64(i)) {
			continue
		}
		list = append(list, attempt{what: fmt.Sprintf("i386 entry (int 0x80), number %d", nr), nr: nr, want: seccomp.Dies, i386: true})
	}
	// A kernel without i386 emulation answers int 0x80 with a fault: that door is not there.
	if noI386, err := s.faults(ctx, attempt{nr: 20, i386: true}); err != nil {
		return failedTry(err)
	} else if noI386 {
		list = slices.DeleteFunc(list, func(at attempt) bool { return at.i386 })
	}
	return s.all(ctx, list)
}

// faults reports whether an attempt ends in a fault of the processor.
func (s *scene) faults(ctx context.Context, at attempt) (bool, error) {
	seat, err := s.seat(ctx)
	if err != nil {
		return false, err
	}
	defer seat.Leave()
	got, _, err := at.make(ctx, seat)
	return got == seccomp.Faults, err
}
