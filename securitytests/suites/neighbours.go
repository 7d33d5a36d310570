package suites

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bulkhead/policy/namespaces"
	"bulkhead/policy/seccomp"
)

func neighbourPromises() []Promise {
	const repair = "namespaces, uids or Landlock do not separate here what the launcher verified: report it; until then one tenant a host"
	return []Promise{
		{Name: "cannot see a neighbour", Suite: "neighbours", try: seeNeighbours, Gain: "the names of other processes: the first step to every other attack on them", Repair: repair},
		{Name: "cannot signal another process", Suite: "neighbours", try: signalOthers, Gain: "the end of every worker, and of the gateway", Repair: repair},
		{Name: "cannot read or write a neighbour's memory", Suite: "neighbours", try: readOthers, Gain: "the code, secrets and requests of every other tenant", Repair: repair},
		{Name: "cannot take a descriptor of the launcher or the gateway", Suite: "neighbours", try: takeDescriptors,
			Gain: "orders to the launcher in the gateway's name, clients' connections, the listeners", Repair: repair},
		{Name: "cannot share memory or a queue with a neighbour", Suite: "neighbours", try: shareMemory, Gain: "a channel to an accomplice that nobody sees", Repair: repair},
		{Name: "cannot use a key of the host", Suite: "neighbours", try: useKeys, Gain: "keys of file systems and of network services, and a part of the kernel with many holes", Repair: repair},
		{Name: "cannot leave its cgroup", Suite: "neighbours", try: leaveCgroup, Gain: "the memory and the processors of all others", Repair: repair},
	}
}

// neighbour is another seat of the same kind.
func (s *scene) neighbour(ctx context.Context) (*Seat, error) { return s.seat(ctx) }

func seeNeighbours(ctx context.Context, s *scene) finding {
	a, err := s.seat(ctx)
	if err != nil {
		return failedTry(err)
	}
	defer a.Leave()
	b, err := s.neighbour(ctx)
	if err != nil {
		return failedTry(err)
	}
	defer b.Leave()
	if r, err := a.Call(ctx, unix.SYS_GETPID); err != nil {
		return failedTry(err)
	} else if r.Ret != 1 {
		return broken("it is process %d of a namespace, not the first of its own", r.Ret)
	}
	var shared, unseen []string
	for _, ns := range namespaces.Of(namespaces.Worker) {
		own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", a.PID, ns.Proc))
		if err != nil {
			unseen = append(unseen, ns.Name)
			continue
		}
		for who, pid := range map[string]int{"the neighbour": b.PID, "the launcher": s.stand.PID, "the host": os.Getpid()} {
			if link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, ns.Proc)); err == nil && link == own {
				shared = append(shared, fmt.Sprintf("its %s namespace is also that of %s", ns.Name, who))
			}
		}
	}
	switch {
	case len(shared) > 0:
		slices.Sort(shared)
		return broken("%s", strings.Join(shared, "; "))
	case len(unseen) > 0:
		return notShown("this user may not look at the worker's namespaces: %s", strings.Join(unseen, ", "))
	}
	return held("it is the first process of its namespace, and shares none of seven kinds with a neighbour, the launcher or the host")
}

func signalOthers(ctx context.Context, s *scene) finding {
	return s.withVictim(ctx, func(victim *Seat) []attempt {
		return []attempt{
			dies("signal a neighbour", "kill", victim.PID, 9),
			dies("signal everybody", "kill", -1, 9),
			dies("signal the launcher", "kill", s.stand.PID, 9),
			dies("signal a thread", "tkill", victim.PID, 9),
			{what: "signal a neighbour's thread", nr: unix.SYS_TGKILL, args: []any{victim.PID, victim.PID, 9}, want: seccomp.Dies},
			{what: "signal a thread of its own name", nr: unix.SYS_TGKILL, args: []any{1, victim.PID, 9}, want: seccomp.Lives},
			dies("queue a signal", "rt_sigqueueinfo", victim.PID, 9, 0),
			dies("queue a signal", "rt_tgsigqueueinfo", victim.PID, victim.PID, 9, 0),
			dies("by descriptor", "pidfd_open", victim.PID, 0),
			dies("by descriptor", "pidfd_send_signal", 3, 9, 0, 0),
			{what: "by ownership of a descriptor", nr: unix.SYS_FCNTL, args: []any{3, unix.F_SETOWN, victim.PID}, want: seccomp.Dies},
		}
	})
}

func readOthers(ctx context.Context, s *scene) finding {
	return s.withVictim(ctx, func(victim *Seat) []attempt {
		return []attempt{
			dies("trace a neighbour", "ptrace", unix.PTRACE_ATTACH, victim.PID, 0, 0),
			dies("seize a neighbour", "ptrace", unix.PTRACE_SEIZE, victim.PID, 0, 0),
			dies("be traced", "ptrace", unix.PTRACE_TRACEME, 0, 0, 0),
			dies("read", "process_vm_readv", victim.PID, 0, 0, 0, 0, 0),
			dies("write", "process_vm_writev", victim.PID, 0, 0, 0, 0, 0),
			dies("advise", "process_madvise", 3, 0, 0, unix.MADV_COLD, 0),
			dies("compare", "kcmp", victim.PID, 1, 0, 0, 0),
			dies("its memory as a file", "open", In(fmt.Sprintf("/proc/%d/mem", victim.PID)), unix.O_RDWR),
			dies("faults in its own hands", "userfaultfd", 0),
		}
	})
}

// withVictim makes attempts against a neighbour that holds a secret and must not notice.
func (s *scene) withVictim(ctx context.Context, aim func(*Seat) []attempt) finding {
	victim, err := s.neighbour(ctx)
	if err != nil {
		return failedTry(err)
	}
	defer victim.Leave()
	secret := "cafe" + strconv.FormatInt(int64(victim.PID), 16) + "00"
	if len(secret)%2 != 0 {
		secret += "0"
	}
	box, err := victim.Step(ctx, "box")
	var addr, size uint64
	if _, serr := fmt.Sscanf(box.Text, "%d %d", &addr, &size); err != nil || serr != nil {
		return failedTry(errors.Join(err, serr))
	}
	if _, err := victim.Step(ctx, "poke %d %s", addr, secret); err != nil {
		return failedTry(err)
	}
	f := s.all(ctx, aim(victim))
	if f.status != Held {
		return f
	}
	back, err := victim.Step(ctx, "peek %d %d", addr, len(secret)/2)
	if err != nil || back.End != nil {
		return broken("the neighbour did not live through it: %v %v", err, back.End)
	}
	if back.Text != secret {
		return broken("the neighbour's memory changed from %s to %s", secret, back.Text)
	}
	return f
}

// inodes lists what a process has open, by device and inode.
func inodes(pid int) (map[[2]uint64]string, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	out := map[[2]uint64]string{}
	for _, e := range list {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, e.Name()), &st); err == nil {
			link, _ := os.Readlink(filepath.Join(dir, e.Name()))
			out[[2]uint64{st.Dev, st.Ino}] = link
		}
	}
	return out, nil
}

// shared is one of a worker's own descriptors that another process holds too. /dev/null and the
// anonymous inodes (eventpoll, eventfd, pidfd) are one inode for everybody.
func shared(own, theirs map[[2]uint64]string) string {
	for id, link := range theirs {
		if name, both := own[id]; both && link != "/dev/null" && !strings.HasPrefix(link, "anon_inode:") {
			return name
		}
	}
	return ""
}

func takeDescriptors(ctx context.Context, s *scene) finding {
	f := s.all(ctx, []attempt{
		dies("take one", "pidfd_getfd", 3, 3, 0),
		dies("take delivery of one", "recvmsg", 4, Out(56), 0),
		dies("take delivery of some", "recvmmsg", 4, Out(64), 1, 0, 0),
		dies("pass one on", "sendmsg", 4, Out(56), 0),
		dies("copy one", "dup", 3),
		dies("copy one", "dup3", 3, 40, 0),
		dies("accept a client", "accept4", 8, 0, 0, 0),
	})
	if f.status != Held {
		return f
	}
	seat, err := s.seat(ctx)
	if err != nil {
		return failedTry(err)
	}
	defer seat.Leave()
	// A descriptor sent along with bytes on the data channel must not arrive: it is read(2), not recvmsg(2).
	open := func() (n int, err error) {
		for fd := range 64 {
			a, err := seat.Call(ctx, unix.SYS_READ, fd, 0, 0)
			if err != nil || a.End != nil {
				return 0, fmt.Errorf("read: %w %v", err, a.End)
			}
			if a.Errno != unix.EBADF {
				n++
			}
		}
		return n, nil
	}
	before, err := open()
	if err != nil {
		return failedTry(err)
	}
	if err := unix.Sendmsg(int(seat.Data.Fd()), []byte("gift"), unix.UnixRights(0), nil, 0); err != nil {
		return failedTry(err)
	}
	got, err := seat.Call(ctx, unix.SYS_READ, 4, Out(16), 16)
	if err != nil || got.Ret != 4 {
		return failedTry(fmt.Errorf("read: %w %+v", err, got))
	}
	if after, err := open(); err != nil {
		return failedTry(err)
	} else if after != before {
		return broken("it had %d descriptors and has %d: one came through the data channel", before, after)
	}
	own, err := inodes(seat.PID)
	if err != nil {
		return notShown("this user may not look at the worker's descriptors: %v", err)
	}
	// The launcher closes what it has handed over right after that, which may be a moment from now.
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		theirs, err := inodes(s.stand.PID)
		if err != nil {
			return notShown("this user may not look at the launcher's descriptors: %v", err)
		}
		name := shared(own, theirs)
		if name == "" {
			break
		}
		if time.Now().After(end) {
			return broken("descriptor %s is open in the launcher too", name)
		}
	}
	return held("%s; a descriptor sent to it did not arrive; none of the launcher's is open in it", f.detail)
}

func shareMemory(ctx context.Context, s *scene) finding {
	return s.all(ctx, []attempt{
		dies("System V memory", "shmget", 0x62756c6b, 4096, 0o666),
		dies("System V memory", "shmat", 0, 0, 0),
		dies("System V semaphores", "semget", 0x62756c6b, 1, 0o666),
		dies("System V queues", "msgget", 0x62756c6b, 0o666),
		dies("POSIX queues", "mq_open", In("q"), unix.O_RDWR, 0, 0),
		dies("memory files", "memfd_create", In("m"), 0),
		dies("secret memory files", "memfd_secret", 0),
		{what: "shared anonymous memory", nr: unix.SYS_MMAP, args: []any{0, 4096, unix.PROT_READ, unix.MAP_SHARED | unix.MAP_ANONYMOUS, -1, 0}, want: seccomp.Dies},
		{what: "another view of the black box", nr: unix.SYS_MMAP, args: []any{0, 4096, unix.PROT_READ, unix.MAP_SHARED, 5, 0}, want: seccomp.Dies},
		{what: "pages merged with a neighbour's", nr: unix.SYS_MADVISE, args: []any{0, 4096, unix.MADV_MERGEABLE}, want: seccomp.Dies},
	})
}

func useKeys(ctx context.Context, s *scene) finding {
	return s.all(ctx, []attempt{
		dies("read the session keyring", "keyctl", unix.KEYCTL_READ, -3, Out(64), 64),
		dies("join a keyring", "keyctl", unix.KEYCTL_JOIN_SESSION_KEYRING, 0),
		dies("add a key", "add_key", In("user"), In("x"), In("y"), 1, -3),
		dies("ask for a key", "request_key", In("user"), In("x"), 0, -3),
	})
}
