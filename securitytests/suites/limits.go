package suites

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bulkhead/policy/limits"
	"bulkhead/policy/seccomp"
)

func limitPromises() []Promise {
	const repair = "give bulkhead a cgroup of its own (see `bulkhead doctor`): Delegate=yes in its unit, or run it as root"
	return []Promise{
		{Name: "is alone in a cgroup, with limits", Suite: "limits", try: ownCgroup, Gain: "the memory, the processors and the process numbers of all others", Repair: repair},
		{Name: "cannot take the machine's memory", Suite: "limits", try: eatMemory, Gain: "the kernel would kill somebody else for want of memory", Repair: repair},
		{Name: "cannot take all the machine's threads", Suite: "limits", try: eatThreads, Gain: "no process of the host could start another", Repair: repair},
		{Name: "cannot open descriptors without end", Suite: "limits", try: eatDescriptors, Gain: "the host's table of open files would be full", Repair: repair},
		{Name: "cannot fill the host's memory through its channels", Suite: "limits", try: eatBuffers, Gain: "buffers that belong to nobody's limit", Repair: repair},
	}
}

// besides has one seat attack while a neighbour and the host must serve on.
func (s *scene) besides(ctx context.Context, memory uint64, attack func(*Seat) finding) finding {
	victim, err := s.neighbour(ctx)
	if err != nil {
		return failedTry(err)
	}
	defer victim.Leave()
	seat, err := s.stand.Sit(ctx, s.profile, memory)
	if err != nil {
		return failedTry(err)
	}
	defer seat.Leave()
	f := attack(seat)
	begin := time.Now()
	if a, err := victim.Call(ctx, unix.SYS_GETPID); err != nil || a.Ret != 1 {
		return broken("the neighbour does not serve on: %v %v", err, a.End)
	}
	if err := s.stand.Alive(ctx); err != nil {
		return broken("%v", err)
	}
	f.detail += fmt.Sprintf("; neighbour and host served on (%d ms)", time.Since(begin).Milliseconds())
	return f
}

func eatMemory(ctx context.Context, s *scene) finding {
	// Enough for V8 to start, and little enough that the host is not in danger if it does not hold.
	const memory, want = 256, 1536 // MiB
	return s.besides(ctx, memory<<20, func(seat *Seat) finding {
		a, err := seat.Step(ctx, "eat %d", want)
		switch {
		case err != nil:
			return failedTry(err)
		case a.End != nil && a.End.Signal == syscall.SIGKILL:
			return held("the kernel ended it at its limit of %d MiB (%s)", memory, a.End.Detail)
		case a.End != nil:
			return held("it ended at its limit: %v", a.End)
		}
		got, err := strconv.Atoi(a.Text)
		switch {
		case err != nil:
			return failedTry(errors.New(a.Text))
		case got >= want:
			return broken("with a limit of %d MiB it took %d MiB and lives", memory, got)
		}
		// RLIMIT_DATA alone: the limit and the stacks it counts.
		return held("it was refused more after %d MiB", got)
	})
}

func eatThreads(ctx context.Context, s *scene) finding {
	most := limits.DefaultShard().PIDs
	return s.besides(ctx, 0, func(seat *Seat) finding {
		a, err := seat.Step(ctx, "threads %d", 20*most)
		switch {
		case err != nil:
			return failedTry(err)
		case a.End != nil:
			return held("it died of it: %v", a.End)
		}
		list, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", seat.PID))
		if err != nil {
			return failedTry(err)
		}
		if len(list) > most {
			return broken("it has %d threads, at most %d are its limit", len(list), most)
		}
		return held("it got %s of %d and has %d threads, of %d", a.Text, 20*most, len(list), most)
	})
}

func eatDescriptors(ctx context.Context, s *scene) finding {
	f := s.all(ctx, []attempt{
		dies("a pipe", "pipe2", Out(8), 0),
		dies("an event", "eventfd2", 0, 0),
		dies("a poller", "epoll_create1", 0),
		dies("a timer", "timerfd_create", 1, 0),
		dies("a watch", "inotify_init1", 0),
		dies("a signal", "signalfd4", -1, Out(8), 8, 0),
		{what: "a copy", nr: unix.SYS_FCNTL, args: []any{3, unix.F_DUPFD_CLOEXEC, 10}, want: seccomp.Dies},
	})
	if f.status != Held {
		return f
	}
	seat, err := s.seat(ctx)
	if err != nil {
		return failedTry(err)
	}
	defer seat.Leave()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", seat.PID))
	if err != nil {
		return notShown("this user may not look at the worker's limits: %v", err)
	}
	want := strconv.FormatUint(limits.DefaultShard().Files, 10)
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			if w := strings.Fields(rest); len(w) < 2 || w[1] != want {
				return broken("its limit of descriptors is %s, want %s", strings.TrimSpace(rest), want)
			}
		}
	}
	return held("%s; and the limit is %s", f.detail, want)
}

func eatBuffers(ctx context.Context, s *scene) finding {
	return s.besides(ctx, 0, func(seat *Seat) finding {
		// Nobody reads the data channel: a write must come to stand before long.
		piece := In(make([]byte, 16<<10))
		const most = 8 << 20
		for sent := 0; sent < most; {
			a, err := seat.Call(ctx, unix.SYS_WRITE, 4, piece, len(piece))
			switch {
			case err != nil:
				return failedTry(err)
			case a.Text == "silent":
				return held("its writes come to stand after %d KiB", sent>>10)
			case a.End != nil || a.Ret <= 0:
				return held("its write ends after %d KiB: %v %v", sent>>10, a.Errno, a.End)
			}
			sent += int(a.Ret)
		}
		return broken("it wrote %d MiB that nobody had read", most>>20)
	})
}
