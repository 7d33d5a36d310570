// Package launcher is the privileged half of the supervisor: it forks, seals, checks, kills and
// reaps, and does nothing else.
//
// Duty: start the gateway and, on its orders, workers and bundlers; give each child its room
// (package policy/namespaces) and its filter (policy/seccomp); verify every seal from outside
// before the gateway gets the child's descriptors; tell the gateway how children end; take the
// whole generation down when the gateway dies, and leave nothing behind when it ends itself.
//
// Trust: it believes its argv, the kernel, and the files its binaries are. It reads bytes from
// the gateway only: orders of fixed size (package orders), each checked against a table of kind,
// phase and handler; whatever does not fit ends the gateway's generation. It parses nothing else
// from anybody, links no V8, no net/http and no Cap'n Proto.
//
// Invariants: one locked OS thread does everything and never exits while the process lives,
// because a parent-death signal follows the thread that forked; a child is named by its pidfd;
// nothing here waits for a child without a deadline.
package launcher

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"bulkhead/policy/seccomp"
	"bulkhead/supervisor/launcher/orders"

	"golang.org/x/sys/unix"
)

// launcher is the state of the one loop; only its locked thread touches it.
type launcher struct {
	opt      Options
	root     bool // runs with the power to give each child a uid of its own
	uid, gid int
	degraded []string // accepted degradations in effect, "name: reason"

	kernel   kernel
	binaries map[string]int            // path by role, opened once
	filters  map[filterKey][]byte      // compiled programs
	roots    []source                  // --tenants directories
	sockets  []source                  // --socket-dir directories
	config   *source                   // directory of --config
	data     *source                   // gateway's state
	host     []hostMount               // files of the host that the gateway sees
	cgroups  cgroupHost                // nil: accepted degradation
	listen   []listener                //
	admin    *listener                 // nil without --admin
	kmsg     *kernelLog                //
	wake     [2]int                    // pipe that signals write to
	signals  chan os.Signal            //
	uids     uidPool                   //
	hostNS   map[string]uint64         // inode of each of the launcher's own namespaces
	children map[uint32]*child         // by id, the gateway included
	byProof  map[string]map[uint64]int // what each child has for itself alone: kind of namespace, inode, pid; "core", cookie, pid

	gateway    *child
	orders     int // launcher's end of the order socket, -1 without a gateway
	phase      phase
	given      map[orders.Kind]bool // once-only orders of this generation
	everServed bool
	generation int
	nextChild  uint32
	nextStart  time.Time // when the gateway may be started again
	crashes    int       // gateway deaths in a row without a long life
	drainBy    time.Time // zero: not draining
	lastBeat   time.Time // when a heartbeat was last passed on
	stop       bool
	failure    error
}

// phase of a generation; the order table names the phases in which an order is lawful.
type phase uint8

const (
	phaseDown     phase = 0 // no gateway
	phaseStarting phase = 1 // gateway forked, its seal not yet verified or not ready
	phaseServing  phase = 2 // after its ready order
	phaseDraining phase = 4
)

type filterKey struct {
	role    uint8
	profile seccomp.Profile
}

// Run starts everything and returns when it is over: nil after an orderly stop, else the reason.
func Run(o Options) error {
	done := make(chan error)
	go func() { done <- runOnOwnThread(o) }()
	return <-done
}

// runOnOwnThread holds the calling goroutine's thread for ever. It must not be the process's
// first thread: cgroup v1 moves the memory accounting of the whole process with that one.
func runOnOwnThread(o Options) error {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		done := make(chan error)
		go func() { done <- runOnOwnThread(o) }()
		return <-done
	}
	l := &launcher{
		opt:      o,
		binaries: map[string]int{},
		filters:  map[filterKey][]byte{},
		children: map[uint32]*child{},
		hostNS:   map[string]uint64{},
		orders:   -1,
		wake:     [2]int{-1, -1},
	}
	defer l.cleanUp()
	if err := sabotageIsSafe(o); err != nil {
		return err
	}
	for _, s := range startSteps() {
		if err := s.run(l); err != nil {
			return fmt.Errorf("launcher: step %s: %w", s.name, err)
		}
	}
	return l.loop()
}

func (l *launcher) logf(format string, args ...any) {
	if l.opt.Log != nil {
		fmt.Fprintf(l.opt.Log, "bulkhead-launcher: "+format+"\n", args...)
	}
}

// maxSecretsKey bounds the key file, bytes. It is passed on, not read.
const maxSecretsKey = 64 << 10

// bootFile is boot as the gateway gets it, with the key to secrets, of which the launcher keeps no copy.
func (l *launcher) bootFile() (int, error) {
	b := l.boot()
	if l.opt.SecretsKey != "" {
		var err error
		if b.SecretsKey, err = readKey(l.opt.SecretsKey); err != nil {
			return -1, fmt.Errorf("--secrets-key: %w", err)
		}
	}
	text := b.Encode()
	defer clear(text)
	defer clear(b.SecretsKey)
	return memfd("boot", text, int64(len(text)), sealAll)
}

func readKey(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular() || st.Size() > maxSecretsKey:
		return nil, fmt.Errorf("%s: not a file of at most %d bytes", path, maxSecretsKey)
	case st.Mode()&0o077 != 0:
		return nil, fmt.Errorf("%s can be read by others than its owner; chmod 600 %s", path, path)
	}
	key := make([]byte, st.Size())
	if _, err := io.ReadFull(f, key); err != nil {
		return nil, err
	}
	return key, nil
}

// boot is what the next gateway is told.
func (l *launcher) boot() orders.Boot {
	b := orders.Boot{
		Args: l.opt.GatewayArgs, Rootless: !l.root,
		MaxShards: l.opt.MaxShards, MaxBundlers: l.opt.MaxBundlers, ShardMemory: l.opt.ShardMemory, Memory: l.opt.Memory,
		Profiles: l.opt.Profiles, Degraded: l.degraded, LauncherPID: os.Getpid(), Generation: l.generation,
	}
	for _, s := range l.listen {
		b.Listeners = append(b.Listeners, orders.Listener{Name: s.name, Addr: s.addr})
	}
	for _, r := range l.roots {
		b.TenantRoots = append(b.TenantRoots, r.path)
	}
	b.SocketDirs = l.opt.SocketDirs
	if l.config != nil {
		b.ConfigFile, b.ConfigPath = l.config.file, l.opt.Config
	}
	if l.data != nil {
		b.DataPath = l.data.path
	}
	return b
}

// cleanUp leaves nothing behind: children, cgroups, the admin socket. It runs on every way out
// of Run; the way out that it cannot cover, the launcher's own SIGKILL, is covered by the
// parent-death signal and by the next start, which removes cgroups of dead launchers.
func (l *launcher) cleanUp() {
	for _, c := range l.children {
		c.kill()
	}
	deadline := time.Now().Add(5 * time.Second)
	for len(l.children) > 0 && time.Now().Before(deadline) {
		for _, c := range l.children {
			if ended, err := c.reap(); ended || err != nil {
				l.forget(c)
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
	if l.cgroups != nil {
		if err := l.cgroups.close(); err != nil {
			l.logf("removing cgroups: %v", err)
		}
	}
	if l.admin != nil {
		if err := os.Remove(l.admin.addr); err != nil && !errors.Is(err, os.ErrNotExist) {
			l.logf("removing the admin socket: %v", err)
		}
	}
	for _, s := range l.listen {
		s.remove()
	}
}
