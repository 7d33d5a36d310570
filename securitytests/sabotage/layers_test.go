package sabotage

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bulkhead/policy/seccomp"
	"bulkhead/securitytests/suites"
)

// layer is one layer of the seal, and a probe that it alone stops once the layers over it are off.
type layer struct {
	name    string
	mode    suites.Mode // "": both
	profile seccomp.Profile
	args    []string // of the launcher, always
	off     sabotage // the layers that would stop the probe too
	remove  sabotage // the layer itself
	probe   func(*bench) (stopped bool, detail string, err error)
}

// layers lists them all. The canary scrub and the clock are no layers of the seal: see between_test.go.
func layers() []layer {
	caps := []string{"capabilities", "bounding-set", "securebits"}
	// Executing something needs a root to find it in, and no filter.
	exec := func(also ...string) sabotage { return child(append(also, "seccomp", "landlock", "root")...) }
	all := []layer{
		{name: "seccomp", remove: child("seccomp"), probe: makesASocket},
		{name: "user namespace", mode: suites.Root, off: child(append(caps, "seccomp")...), remove: namespace("user"), probe: comesFirst},
		{name: "pid namespace", off: child("seccomp", "landlock"), remove: namespace("pid"), probe: namesANeighbour},
		{name: "net namespace", off: child("seccomp", "landlock"), remove: namespace("net"), probe: reachesAnAbstractSocket},
		{name: "mount namespace", mode: suites.Root, off: child(append(caps, "seccomp", "landlock", "root")...).and(namespace("user")),
			remove: namespace("mount"), probe: mountsForAll},
		{name: "ipc namespace", off: child("seccomp"), remove: namespace("ipc"), probe: findsSharedMemory},
		{name: "uts namespace", mode: suites.Root, off: child(append(caps, "seccomp", "names")...).and(namespace("user")), remove: namespace("uts"), probe: renamesTheDomain},
		{name: "names", off: child("seccomp"), remove: child("names"), probe: knowsTheHostsName},
		{name: "cgroup namespace", mode: suites.Root, off: exec(), remove: child("cgroup-namespace"), probe: seesItsCgroupsPath},
		{name: "empty root", off: child("seccomp", "landlock"), remove: child("root"), probe: opensTheCanary},
		{name: "capabilities", off: child("seccomp"), remove: child("capabilities"), probe: renamesItself},
		{name: "bounding set", off: exec("securebits", "no-new-privs"), remove: child("bounding-set"), probe: gainsCapabilities},
		{name: "securebits", off: exec("bounding-set", "no-new-privs"), remove: child("securebits"), probe: gainsCapabilities},
		{name: "no_new_privs", off: exec("bounding-set", "securebits"), remove: child("no-new-privs"), probe: gainsCapabilities},
		{name: "rlimits: threads", off: inLauncher("cgroup"), remove: child("rlimits"), probe: makesManyThreads},
		{name: "rlimits: files", off: child("seccomp"), remove: child("rlimits"), probe: opensManyFiles},
		{name: "rlimits: memory", off: inLauncher("cgroup"), remove: child("rlimits"), probe: takesMuchMemory},
		{name: "cgroup: membership", mode: suites.Root, off: child("rlimits"), remove: inLauncher("cgroup enter"), probe: makesManyThreads},
		{name: "cgroup: threads", mode: suites.Root, off: child("rlimits"), remove: inLauncher("cgroup limits"), probe: makesManyThreads},
		{name: "cgroup: memory", mode: suites.Root, off: child("rlimits"), remove: inLauncher("cgroup limits"), probe: takesMuchMemory},
		// It is set twice: before the program starts, and by it once its credentials are what they will be.
		{name: "parent-death signal of the launcher", off: child("parent-death"), remove: inLauncher("parent-death"), probe: outlivesTheLauncher},
		{name: "parent-death signal of the worker", off: inLauncher("parent-death"), remove: child("parent-death"), probe: outlivesTheLauncher},
		{name: "Landlock: files", off: child("seccomp", "root"), remove: child("landlock"), probe: opensTheCanary},
		{name: "Landlock: TCP", off: child("seccomp").and(namespace("net")), remove: child("landlock"), probe: reachesAPort},
		{name: "Landlock: abstract sockets", off: child("seccomp").and(namespace("net")), remove: child("landlock"), probe: reachesAnAbstractSocket},
		{name: "Landlock: signals", mode: suites.Rootless, off: child("seccomp").and(namespace("pid")), remove: child("landlock"), probe: signalsANeighbour},
		{name: "MDWE", profile: seccomp.Jitless, off: inLauncher("row mprotect"), remove: child("mdwe"), probe: makesAPageExecutable},
		{name: "not dumpable", off: child("seccomp"), remove: child("dumpable"), probe: readsItsChild},
		{name: "keyring", off: child("seccomp"), remove: child("keyring"), probe: findsTheHostsKey},
		{name: "speculation", args: []string{"--force-mitigations"}, remove: child("speculation"), probe: speculates},
	}
	for _, call := range filteredCalls(seccomp.JIT) {
		all = append(all, layer{name: "filter of " + call, remove: inLauncher("row " + call), probe: misuses(call)})
	}
	return all
}

// filteredCalls are those that the policy allows with listed arguments only.
func filteredCalls(p seccomp.Profile) (out []string) {
	for _, r := range seccomp.Worker(p) {
		if r.Action == seccomp.Allow && len(r.Args) > 0 && !slices.Contains(out, r.Call) {
			out = append(out, r.Call)
		}
	}
	return out
}

// Every layer of the seal is there for something: with the layers over it off, it alone stops its probe,
// and without it nothing does.
func TestEachLayerAloneStopsItsProbe(t *testing.T) {
	eachMode(t, func(t *testing.T, mode suites.Mode) {
		for _, l := range layers() {
			if l.mode != "" && l.mode != mode {
				continue
			}
			t.Run(l.name, func(t *testing.T) {
				if stopped, detail := sit(t, mode, l, l.off); !stopped {
					t.Errorf("the layer is there and its probe went through: %s", detail)
				}
				if stopped, detail := sit(t, mode, l, l.off.and(l.remove)); stopped {
					t.Errorf("the layer is gone and its probe was stopped all the same: %s", detail)
				}
			})
		}
	})
}

// sit runs the layer's probe in a seat of a launcher sabotaged like this, all checks off.
func sit(t *testing.T, mode suites.Mode, l layer, s sabotage) (stopped bool, detail string) {
	t.Helper()
	b := newBench(t, mode, s.and(inLauncher("checks")), l.profile, l.args...)
	stopped, detail, err := l.probe(b)
	if err != nil {
		t.Fatalf("left out %+v: the probe itself failed: %v", s, err)
	}
	return stopped, detail
}

func (b *bench) result(a suites.Answer, err error) (bool, string, error) {
	switch {
	case err != nil:
		return false, "", err
	case a.End != nil:
		return true, a.End.String(), nil
	case a.Errno != 0:
		return true, a.Errno.Error(), nil
	}
	return false, fmt.Sprintf("returned %d", a.Ret), nil
}

func (b *bench) call(call string, args ...any) (bool, string, error) {
	nr, ok := seccomp.CallNumber(call)
	if !ok {
		return false, "", fmt.Errorf("no call %s", call)
	}
	return b.result(b.seat.Call(b.ctx, nr, args...))
}

func makesASocket(b *bench) (bool, string, error) {
	return b.call("socket", unix.AF_UNIX, unix.SOCK_STREAM, 0)
}

// CAP_SYS_NICE in the first user namespace, and in no other, puts a process before others (setpriority(2)).
func comesFirst(b *bench) (bool, string, error) {
	return b.call("setpriority", unix.PRIO_PROCESS, 0, -1)
}

func namesANeighbour(b *bench) (bool, string, error) {
	a, err := b.seat.Call(b.ctx, unix.SYS_KILL, b.victim().PID, 0)
	return a.Errno == syscall.ESRCH, a.Errno.Error(), err
}

func signalsANeighbour(b *bench) (bool, string, error) { return b.call("kill", b.victim().PID, 0) }

// connects makes a socket in the seat and connects it.
func (b *bench) connects(family int, addr []byte) (bool, string, error) {
	a, err := b.seat.Call(b.ctx, unix.SYS_SOCKET, family, unix.SOCK_STREAM, 0)
	if err != nil || a.Errno != 0 || a.End != nil {
		return false, "", fmt.Errorf("socket: %w %v %v", err, a.Errno, a.End)
	}
	return b.call("connect", a.Ret, suites.In(addr), len(addr))
}

func reachesAnAbstractSocket(b *bench) (bool, string, error) {
	return b.connects(unix.AF_UNIX, append([]byte{unix.AF_UNIX, 0, 0}, b.abstract()...))
}

func reachesAPort(b *bench) (bool, string, error) {
	if stopped, detail, err := b.call("getpid"); err != nil || stopped {
		return stopped, detail, err
	}
	addr := make([]byte, 16) // struct sockaddr_in
	addr[0] = unix.AF_INET
	binary.BigEndian.PutUint16(addr[2:], uint16(b.port()))
	copy(addr[4:], []byte{127, 0, 0, 1})
	return b.connects(unix.AF_INET, addr)
}

// mountsForAll mounts at a place of the host, and the host looks.
func mountsForAll(b *bench) (bool, string, error) {
	dir := b.privateMount()
	if stopped, detail, err := b.call("mount", suites.In("none"), suites.In(dir), suites.In("tmpfs"), 0, 0); stopped || err != nil {
		return stopped, detail, errors.Join(err, fmt.Errorf("the seat could not mount: %s", detail))
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	n := strings.Count(string(mounts), " "+dir+" ")
	return n == 1, fmt.Sprintf("the host has %d mounts there", n), err
}

func findsSharedMemory(b *bench) (bool, string, error) {
	return b.call("shmget", b.sharedMemory(), 0, 0)
}

func renamesTheDomain(b *bench) (bool, string, error) {
	before, err := os.ReadFile("/proc/sys/kernel/domainname")
	if err != nil {
		return false, "", err
	}
	b.t.Cleanup(func() {
		if err := unix.Setdomainname([]byte(strings.TrimSpace(string(before)))); err != nil {
			b.t.Error(err)
		}
	})
	if stopped, detail, err := b.call("setdomainname", suites.In("bulkhead-probe"), 14); stopped || err != nil {
		return false, "", errors.Join(err, fmt.Errorf("the seat could not set it: %s", detail))
	}
	after, err := os.ReadFile("/proc/sys/kernel/domainname")
	return string(after) == string(before), fmt.Sprintf("the host's is %q", after), err
}

func renamesItself(b *bench) (bool, string, error) { return b.call("sethostname", suites.In("x"), 1) }

func knowsTheHostsName(b *bench) (bool, string, error) {
	a, err := b.seat.Call(b.ctx, unix.SYS_UNAME, suites.Out(390))
	if err != nil || len(a.Out) != 1 {
		return false, "", fmt.Errorf("uname: %w %v", err, a.End)
	}
	name, err := os.Hostname()
	got := unix.ByteSliceToString(a.Out[0][65:130])
	return got != name, got, err
}

// reads opens and reads a file in the seat.
func (b *bench) reads(path string) (text string, errno syscall.Errno, err error) {
	a, err := b.seat.Call(b.ctx, unix.SYS_OPENAT, unix.AT_FDCWD, suites.In(path), unix.O_RDONLY)
	if err != nil || a.End != nil {
		return "", 0, fmt.Errorf("openat: %w %v", err, a.End)
	}
	if a.Errno != 0 {
		return "", a.Errno, nil
	}
	r, err := b.seat.Call(b.ctx, unix.SYS_READ, a.Ret, suites.Out(4096), 4096)
	if err != nil || r.End != nil || len(r.Out) != 1 {
		return "", 0, fmt.Errorf("read: %w %v", err, r.End)
	}
	return unix.ByteSliceToString(r.Out[0]), r.Errno, nil
}

func opensTheCanary(b *bench) (bool, string, error) {
	text, errno, err := b.reads(b.canary())
	return errno != 0, text + errno.Error(), err
}

func seesItsCgroupsPath(b *bench) (bool, string, error) {
	// Landlock and the root are off; /proc is the host's.
	text, errno, err := b.reads("/proc/self/cgroup")
	if errno != 0 {
		err = errors.Join(err, errno)
	}
	return !strings.Contains(text, "bulkhead-"), text, err
}

func gainsCapabilities(b *bench) (bool, string, error) {
	a, err := b.seat.Step(b.ctx, "run %s capabilities", hex.EncodeToString([]byte(b.seatPath)))
	if err != nil || a.End != nil {
		return false, "", fmt.Errorf("run: %w %v", err, a.End)
	}
	printed, ok := strings.CutPrefix(a.Text, "printed ")
	text, err := hex.DecodeString(printed)
	if !ok || err != nil || len(text) != 16 {
		return false, "", fmt.Errorf("the seat executed itself to no avail: %s %q", a.Text, text)
	}
	return string(text) == strings.Repeat("0", 16), string(text), nil
}

// outlivesTheLauncher kills the launcher. What the seat holds open beside is the test's.
func outlivesTheLauncher(b *bench) (bool, string, error) {
	if err := syscall.Kill(b.stand.PID, syscall.SIGKILL); err != nil {
		return false, "", err
	}
	// Once it is reaped, whoever was to have a signal has it.
	for end := time.Now().Add(20 * time.Second); syscall.Kill(b.stand.PID, 0) == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return false, "", errors.New("the launcher does not die")
		}
	}
	for range 3 {
		time.Sleep(100 * time.Millisecond)
		if a, err := b.seat.Call(b.ctx, unix.SYS_GETPID); err != nil || a.End != nil || a.Ret != 1 {
			if _, serr := os.Stat(fmt.Sprintf("/proc/%d/stat", b.seat.PID)); serr == nil && !zombie(b.seat.PID) {
				return false, "", fmt.Errorf("it neither answers nor is it dead: %w", err)
			}
			return true, "it died too", nil
		}
	}
	return false, "it serves on", nil
}

// zombie reports whether a process has ended and was not reaped.
func zombie(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	return len(f) == 0 || f[0] == "Z" || f[0] == "X"
}

func makesManyThreads(b *bench) (bool, string, error) {
	const many = 200
	a, err := b.seat.Step(b.ctx, "threads %d", many)
	if err != nil || a.End != nil {
		return true, fmt.Sprint(a.End), err
	}
	return a.Text != fmt.Sprint(many), a.Text, nil
}

func opensManyFiles(b *bench) (bool, string, error) {
	for range 100 {
		if stopped, detail, err := b.call("dup", 3); stopped || err != nil {
			return stopped, detail, err
		}
	}
	return false, "100 more", nil
}

func takesMuchMemory(b *bench) (bool, string, error) {
	const much = 1536 // MiB; the bench's seats have 256
	a, err := b.seat.Step(b.ctx, "eat %d", much)
	if err != nil || a.End != nil {
		return true, fmt.Sprint(a.End), err
	}
	return a.Text != fmt.Sprint(much), a.Text + " MiB", nil
}

func makesAPageExecutable(b *bench) (bool, string, error) {
	a, err := b.seat.Call(b.ctx, unix.SYS_MMAP, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, -1, 0)
	if err != nil || a.End != nil {
		return false, "", fmt.Errorf("mmap: %w %v", err, a.End)
	}
	return b.call("mprotect", a.Ret, 4096, unix.PROT_READ|unix.PROT_EXEC)
}

func readsItsChild(b *bench) (bool, string, error) {
	a, err := b.seat.Step(b.ctx, "readchild")
	if err == nil && a.Text == "fork failed" {
		err = errors.New(a.Text)
	}
	return a.Text != "read", a.Text, err
}

func findsTheHostsKey(b *bench) (bool, string, error) {
	return b.call("keyctl", unix.KEYCTL_SEARCH, -3, suites.In("user"), suites.In(keyName), 0)
}

func speculates(b *bench) (bool, string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.seat.PID))
	if err != nil {
		return false, "", err
	}
	for line := range strings.Lines(string(text)) {
		if state, ok := strings.CutPrefix(line, "Speculation_Store_Bypass:"); ok {
			return strings.Contains(state, "mitigated") || strings.Contains(state, "not vulnerable"), strings.TrimSpace(state), nil
		}
	}
	return false, "", errors.New("the kernel does not say")
}

// misuses makes all calls that the filter of one call ends the process for: one where it is there, and
// where it is not, all but those that would make a process.
func misuses(call string) func(*bench) (bool, string, error) {
	return func(b *bench) (bool, string, error) {
		for _, tr := range seccomp.Trials(b.profile) {
			if tr.Call != call || tr.Want != seccomp.Dies || call == "clone" && len(tr.Args) == 1 {
				continue
			}
			args := make([]any, len(tr.Args))
			for i, a := range tr.Args {
				args[i] = a
			}
			nr, _ := seccomp.CallNumber(call)
			a, err := b.seat.Call(b.ctx, nr, args...)
			if err != nil {
				return false, "", err
			}
			if a.End != nil {
				return true, fmt.Sprintf("%v: %v", tr, a.End), nil
			}
		}
		return false, "all live", nil
	}
}
