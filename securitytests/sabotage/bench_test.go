// Package sabotage shows that each layer of the seal is needed and watched: builds that leave layers out
// (tag bulkhead_sabotage, impossible in production) must be caught by the seal check, and with the check
// off too, by a probe that only the missing layer stops.
package sabotage

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bulkhead/policy/seccomp"
	"bulkhead/securitytests/hosttest"
	"bulkhead/securitytests/suites"
)

// sabotage is what is left out, line by line: steps of the worker, and of the launcher.
type sabotage struct{ child, launcher []string }

func child(steps ...string) sabotage      { return sabotage{child: steps} }
func inLauncher(lines ...string) sabotage { return sabotage{launcher: lines} }
func namespace(name string) sabotage      { return inLauncher("namespace " + name) }
func (s sabotage) and(o sabotage) sabotage {
	return sabotage{slices.Concat(s.child, o.child), slices.Concat(s.launcher, o.launcher)}
}

// builds are made once: the launcher and the seat that can be sabotaged.
var builds = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "bhsab") })

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := builds(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

var buildOnce sync.Once

func binaries(t *testing.T) (dir string) {
	t.Helper()
	dir, err := builds()
	if err != nil {
		t.Fatal(err)
	}
	buildOnce.Do(func() {
		if err := os.Chmod(dir, 0o755); err != nil { // the rootless launcher is another user
			t.Fatal(err)
		}
		hosttest.Build(t, "./cmd/bulkhead-launcher", filepath.Join(dir, "launcher"), "-tags", "bulkhead_sabotage")
		hosttest.Build(t, "./securitytests/seat", filepath.Join(dir, "seat"), "-tags", "bulkhead_sabotage")
	})
	return dir
}

// sabotaged returns binaries with their lists of what they leave out beside them.
func sabotaged(t *testing.T, s sabotage) suites.Binaries {
	t.Helper()
	from := binaries(t)
	dir, err := os.MkdirTemp(from, "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, lines := range map[string][]string{"launcher": s.launcher, "seat": s.child} {
		path := filepath.Join(dir, name)
		if err := os.Link(filepath.Join(from, name), path); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+".skip", []byte(strings.Join(lines, "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return suites.Binaries{Launcher: filepath.Join(dir, "launcher"), Bulkhead: filepath.Join(hosttest.Binaries(t), "bulkhead"), Seat: filepath.Join(dir, "seat")}
}

func eachMode(t *testing.T, test func(*testing.T, suites.Mode)) {
	t.Helper()
	modes := []suites.Mode{suites.Root, suites.Rootless}
	if os.Getuid() != 0 {
		modes = modes[1:]
	}
	for _, m := range modes {
		t.Run(string(m), func(t *testing.T) { test(t, m) })
	}
}

// bench is a seat of a sabotaged launcher, and what of the host it may try to reach.
type bench struct {
	t        *testing.T
	ctx      context.Context
	stand    *suites.Stand
	seat     *suites.Seat
	seatPath string
	profile  seccomp.Profile
}

// seatMemory is a seat's limit, bytes.
const seatMemory = 256 << 20

// keyName is a key in the session keyring under which the launcher runs.
const keyName = "bulkhead-sabotage"

func newBench(t *testing.T, mode suites.Mode, s sabotage, p seccomp.Profile, args ...string) *bench {
	t.Helper()
	if p == 0 {
		p = seccomp.JIT
	}
	bin := sabotaged(t, s)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	// The session keyring belongs to the thread; the launcher inherits this one's.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, err := unix.KeyctlJoinSessionKeyring("bulkhead-test"); err == nil {
		if _, err := unix.AddKey("user", keyName, []byte("secret"), unix.KEY_SPEC_SESSION_KEYRING); err != nil {
			t.Fatal(err)
		}
	}
	stand, err := suites.OpenStand(ctx, bin, mode, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stand.Close()
		if t.Failed() {
			t.Logf("left out %+v; the launcher's log:\n%s", s, stand.Log())
		}
	})
	seat, err := stand.Sit(ctx, p, seatMemory)
	if err != nil {
		t.Fatalf("left out %+v: %v", s, err)
	}
	t.Cleanup(seat.Leave)
	return &bench{t: t, ctx: ctx, stand: stand, seat: seat, seatPath: bin.Seat, profile: p}
}

// victim is a neighbour.
func (b *bench) victim() *suites.Seat {
	b.t.Helper()
	seat, err := b.stand.Sit(b.ctx, b.profile, seatMemory)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(seat.Leave)
	return seat
}

// canary is a file of the host that everybody may read.
func (b *bench) canary() string {
	path := filepath.Join(b.stand.Dir, "canary")
	if err := os.WriteFile(path, []byte("secret"), 0o644); err != nil {
		b.t.Fatal(err)
	}
	return path
}

func (b *bench) listen(network, addr string) net.Listener {
	l, err := net.Listen(network, addr)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { l.Close() })
	return l
}

// abstract is the name of a socket of the host, without its zero.
func (b *bench) abstract() string {
	name := "bulkhead-" + filepath.Base(b.stand.Dir)
	b.listen("unix", "@"+name)
	return name
}

func (b *bench) port() int { return b.listen("tcp", "127.0.0.1:0").Addr().(*net.TCPAddr).Port }

// sharedMemory is the key of a System V segment of the host that everybody may use.
func (b *bench) sharedMemory() int {
	key := 0x62000000 | os.Getpid()
	id, err := unix.SysvShmGet(key, 4096, unix.IPC_CREAT|0o666)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		// Both seats of a layer's test look for the one segment: the second finds it removed.
		if _, err := unix.SysvShmCtl(id, unix.IPC_RMID, nil); err != nil && err != unix.EINVAL {
			b.t.Error(err)
		}
	})
	return key
}

// privateMount is a mount of the host below which new ones do not spread to copies of its namespace.
// It must be there before the seat: this bench is made anew around it.
func (b *bench) privateMount() string {
	dir := filepath.Join(b.stand.Dir, "mount")
	if err := os.Mkdir(dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		for unix.Unmount(dir, unix.MNT_DETACH) == nil {
		}
	})
	if err := unix.Mount("", dir, "", unix.MS_PRIVATE, ""); err != nil {
		b.t.Fatal(err)
	}
	seat, err := b.stand.Sit(b.ctx, b.profile, seatMemory)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(seat.Leave)
	b.seat = seat
	return dir
}

// No build but the sabotaged one contains any of this.
func TestProductionBuildsCannotBeSabotaged(t *testing.T) {
	const marker = "bulkhead sabotage build: for tests only"
	contains := func(path string) bool {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Contains(text, []byte(marker))
	}
	for _, name := range []string{"bulkhead", "bulkhead-launcher", "bulkhead-gateway", "bulkhead-worker"} {
		path := filepath.Join(hosttest.Binaries(t), name)
		if contains(path) {
			t.Errorf("%s can be sabotaged", name)
		}
		// A symbol of the attacker's seat.
		if text, err := os.ReadFile(path); err != nil || bytes.Contains(text, []byte("seat_int80")) {
			t.Errorf("%s contains the attacker's seat (%v)", name, err)
		}
	}
	if text, err := os.ReadFile(filepath.Join(binaries(t), "seat")); err != nil || !bytes.Contains(text, []byte("seat_int80")) {
		t.Errorf("the seat's symbol is not found in the seat (%v)", err)
	}
	if !contains(filepath.Join(binaries(t), "launcher")) || !contains(filepath.Join(binaries(t), "seat")) {
		t.Error("the marker is not found where it must be: this test shows nothing")
	}
}
