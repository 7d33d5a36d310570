package placement

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/policy/seccomp"
	"bulkhead/schema/gen"
	"bulkhead/supervisor/launcher/orders"
	"bulkhead/supervisor/observe"

	"golang.org/x/sys/unix"
)

// shard is one sealed worker process.
type shard struct {
	pool    *Pool
	proc    Process
	conn    Conn
	kind    kind
	profile seccomp.Profile // of kind
	born    time.Time
	luck    float64 // its share of the jitter of its age
	stderr  tail

	failure atomic.Pointer[error] // first reason of ours to kill it
	killed  sync.Once

	// Guarded by Pool.mu:
	hosted   map[uint32]*place   // by handle; loading ones too
	handles  uint32              // last handle given
	slots    int                 // taken, evictions under way included
	used     bool                // hosts or has hosted a tenant
	guest    string              // the tenant it was given last
	mixed    bool                // more than one tenant has been in it
	solo     bool                // kept for the one load it was given
	closed   bool                // takes no more tenants
	retiring bool                // ended by us: its end is no incident
	dead     bool                // out of Pool.shards
	cohort   uint64              // whose members alone it hosts; 0: those against whom nothing is held
	looked   int64               // ns since the pool's start, of the last look at what it uses
	told     map[uint32]counters // what it said then, by handle
	cordon   string              // of its tenants; "" until the first

	judged judgement     // why it ended
	box    []ipc.Running // what its black box said then; written before judged.done is closed
	there  []string      // as box; tenants with requests there, or loading, if none of them is blamed
}

// fail kills the shard for a reason.
func (s *shard) fail(err error) {
	s.failure.CompareAndSwap(nil, &err)
	s.kill()
}

// kill sends SIGKILL once. The exit report and the sockets' end follow.
func (s *shard) kill() {
	s.killed.Do(func() {
		if err := s.proc.Kill(); err != nil {
			s.pool.opt.log().Error("kill shard", "shard", s.proc.ID, "error", err.Error())
		}
	})
}

// stop ends a shard that is not needed: streams end killed, then the process.
func (s *shard) stop() {
	s.conn.Close()
	s.kill()
}

// spawnLocked starts an attempt unless one runs or it is too early. The result's done is nil if
// none runs now; err is then the last failure.
func (p *Pool) spawnLocked(k kind) *spawning {
	sp := p.spawns[k]
	if sp == nil {
		sp = &spawning{}
		p.spawns[k] = sp
	}
	if sp.done != nil || p.closed || time.Now().Before(sp.next) {
		return sp
	}
	sp.done = make(chan struct{})
	p.wg.Go(func() { p.spawn(k, sp) })
	return sp
}

// runningLocked counts the attempts under way.
func (p *Pool) runningLocked() (n int) {
	for _, sp := range p.spawns {
		if sp.done != nil {
			n++
		}
	}
	return n
}

// keepSpareLocked sees to it that shards of the kind are warm and empty: one is for the next
// tenant, and one, of the kind that most have, for the next suspect.
func (p *Pool) keepSpareLocked(k kind) {
	want, used := 1, 0
	spares := 0
	for _, s := range p.shards {
		switch {
		case s.kind != k || s.dead:
		case s.used:
			used++
		default:
			spares++
		}
	}
	if k == p.first() {
		want = max(p.opt.Spares, p.spread()-used)
	}
	want -= spares
	if want > 0 && len(p.shards)+p.runningLocked() < p.opt.MaxShards {
		p.spawnLocked(k)
	}
}

// spawn makes one shard and says so to those who wait.
func (p *Pool) spawn(k kind, sp *spawning) {
	began, profile := time.Now(), k.profile
	ctx, cancel := context.WithTimeout(p.ctx, spawnTimeout)
	defer cancel()
	s := &shard{pool: p, kind: k, profile: profile, luck: luck(), hosted: map[uint32]*place{}, judged: judgement{done: make(chan struct{})}}
	// The connection may fail before Spawn has returned: the reason waits in s.failure.
	var known atomic.Bool
	proc, conn, err := p.opt.Spawn(ctx, profile, k.shard.Memory, func(err error) {
		s.failure.CompareAndSwap(nil, &err)
		if known.Load() {
			s.kill()
		}
	})
	if err == nil {
		s.proc, s.conn, s.born = proc, conn, time.Now()
		known.Store(true)
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	close(sp.done)
	sp.done, sp.err = nil, err
	if err != nil {
		p.spawnFailedLocked(k, sp, err)
		return
	}
	sp.failures, sp.next = 0, time.Time{}
	p.opt.Observer.Metrics.Spawned(time.Since(began))
	p.opt.log().Info("shard", "shard", proc.ID, "pid", proc.PID, "profile", profile.String(), "spawnMs", time.Since(began).Milliseconds())
	if p.closed {
		s.retiring = true
		go s.stop()
	} else {
		p.shards[proc.ID] = s
		p.keepSpareLocked(k)
	}
	p.wg.Go(func() { p.watch(s) })
	if proc.Stderr != nil {
		p.wg.Go(func() { s.stderr.read(proc.Stderr) })
	}
}

// spawnFailedLocked sets the backoff and the background retry.
func (p *Pool) spawnFailedLocked(k kind, sp *spawning, err error) {
	if p.closed {
		return
	}
	wait := min(backoffFirst<<min(sp.failures, 10), backoffLast)
	sp.failures++
	sp.next = time.Now().Add(wait)
	p.opt.Observer.Metrics.Event("spawnFailed")
	detail := fmt.Sprintf("%v; attempt %d, next in %v", err, sp.failures, wait)
	// Once, and then rarely: a host that cannot make shards would fill its own incident list.
	if sp.failures == 1 || sp.failures%10 == 0 {
		p.opt.Observer.Incidents.Add(observe.Incident{Kind: observe.SpawnFailed, Outcome: gen.Outcome_internalError.String(), Detail: detail})
	} else {
		p.opt.log().Warn("spawn failed", "profile", k.profile.String(), "error", detail)
	}
	sp.timer = time.AfterFunc(wait, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.closed {
			p.keepSpareLocked(k)
		}
	})
}

// watch waits for a shard's end, cleans up after it and keeps what is to be known of it.
func (p *Pool) watch(s *shard) {
	var exit orders.Exit
	exited := false
	select {
	case <-s.conn.Closed():
	case exit = <-s.proc.Exited:
		exited = true
		// The sockets end with the process. Waiting for that lets streams end crashed, and lets
		// what the shard sent before its death still count.
		select {
		case <-s.conn.Closed():
		case <-time.After(time.Second):
		}
	}
	p.mu.Lock()
	retiring := s.retiring
	p.buryLocked(s)
	if !retiring {
		p.keepSpareLocked(s.kind)
	}
	p.mu.Unlock()

	why := s.reason()
	if !exited && !retiring && errors.Is(why, gatewayside.ErrPeerGone) {
		// The sockets of a process that dies close before it is reported dead. One that has closed
		// them and lives on is not what we started.
		select {
		case exit = <-s.proc.Exited:
			exited = true
		case <-time.After(hangUpTime):
			why = fmt.Errorf("%w: %w", errHungUp, why)
		}
	}
	judged := false
	var suspects []string
	if early(why) || retiring {
		// What is known cannot change any more: requests need not wait for the process to be gone.
		suspects, judged = p.judge(s, why, orders.Exit{Code: -1, Syscall: -1}), true
	}
	s.kill() // a shard without its sockets is of no use, whatever it still does
	if !exited {
		select {
		case exit = <-s.proc.Exited:
			exited = true
		case <-time.After(exitTimeout):
			exit = orders.Exit{Code: -1, Syscall: -1, Detail: "no exit was reported"}
		}
	}
	s.conn.Close()
	if !judged {
		suspects = p.judge(s, why, exit)
	}
	if !retiring {
		p.opt.Observer.Metrics.Event("respawned")
		if len(suspects) == 0 && !s.mixed && len(s.there) == 1 {
			// Nobody's code ran, says the box, which native code can clear: whose process it was is said, and
			// held against nobody.
			suspects = s.there
		}
		i := s.incident(exit, why, suspects)
		p.mu.Lock()
		p.recordLocked(i, s)
		p.mu.Unlock()
	}
	for _, f := range []*os.File{s.proc.Stderr, s.proc.BlackBox} {
		if f != nil {
			f.Close()
		}
	}
}

// buryLocked takes a shard and what it hosts out of service.
func (p *Pool) buryLocked(s *shard) {
	if s.dead {
		return
	}
	s.dead = true
	delete(p.shards, s.proc.ID)
	for _, pl := range s.hosted {
		if pl.loaded() { // one that is loading learns it from its call, and may go elsewhere
			pl.gone.Store(true)
			p.removeLocked(pl)
		}
	}
	p.freedLocked()
}

// reason is why we or the connection gave the shard up.
func (s *shard) reason() error {
	if f := s.failure.Load(); f != nil {
		return *f
	}
	return s.conn.Err()
}

// errHungUp: the shard closed a channel and did not die of it.
var errHungUp = errors.New("the shard hung up and lives on")

// hangUpTime is how long the end of a process may follow the end of its sockets, on a machine that
// has memory by the gigabyte to take back.
const hangUpTime = 3 * time.Second

// early says whether a reason settles who is to blame before the process is gone.
func early(why error) bool {
	return errors.As(why, new(*ipc.ViolationError)) || errors.As(why, new(*gatewayside.OverdueError)) || errors.Is(why, errHungUp)
}

// incident says how a shard ended that was not asked to.
func (s *shard) incident(exit orders.Exit, why error, suspects []string) observe.Incident {
	i := observe.Incident{Kind: observe.ShardDied, Shard: s.proc.ID, Outcome: gen.Outcome_crashed.String(), Tenants: suspects}
	switch {
	case errors.As(why, new(*ipc.ViolationError)), errors.Is(why, errHungUp):
		i.Kind, i.Outcome = observe.ShardViolation, gen.Outcome_protocolViolation.String()
	case errors.As(why, new(*gatewayside.OverdueError)):
		i.Kind, i.Outcome = observe.ShardOverdue, gen.Outcome_exceededCpu.String()
	case exit.Stopped:
		i.Kind = observe.ShardStopped
	case errors.Is(why, gatewayside.ErrUnresponsive), errors.Is(why, context.DeadlineExceeded):
		i.Kind = observe.ShardSilent
	}
	if exit.Signal != 0 {
		name := unix.SignalName(exit.Signal)
		i.Signal = &name
	}
	if exit.Syscall >= 0 && exit.Signal == unix.SIGSYS {
		nr := strconv.Itoa(int(exit.Syscall))
		i.Syscall = &nr
	}
	i.Detail = s.describe(exit, why)
	return i
}

// describe puts together what is known of an end.
func (s *shard) describe(exit orders.Exit, why error) string {
	text := "killed"
	switch {
	case exit.Signal != 0:
		text = "ended by " + unix.SignalName(exit.Signal)
	case exit.Code == ipc.ExitOverdue:
		text = "ended itself: a turn could not be stopped, and nobody killed the process for it"
	case exit.Code >= 0:
		text = fmt.Sprintf("exited with code %d", exit.Code)
	}
	for _, more := range []string{exit.Detail, exit.SyscallReason} {
		if more != "" {
			text += "; " + more
		}
	}
	if why != nil && !errors.Is(why, gatewayside.ErrClosed) {
		text += "; " + why.Error()
	}
	if len(s.there) > 0 {
		text += "; requests were there of " + strings.Join(s.there[:min(len(s.there), maxThere)], ", ")
		if n := len(s.there) - maxThere; n > 0 {
			text += fmt.Sprintf(" and %d more", n)
		}
	}
	if said := words(s.box); said != "" {
		text += "; V8 said: " + said
	}
	if last := s.stderr.last(); last != "" {
		text += "; last words: " + last
	}
	return text
}

// maxThere bounds the names in a detail.
const maxThere = 16

// tail keeps the beginning of the last lines that a shard wrote to its stderr: V8's and Go's last
// words. The text is hostile and is only ever quoted.
type tail struct {
	mu   sync.Mutex
	head []byte // guarded by mu
}

const tailBytes = 2 << 10

// read drains the pipe, so that a shard never blocks on it, and keeps what came first since the
// last pause: a Go traceback says what happened at its top and runs to 100 KB.
func (t *tail) read(f *os.File) {
	r := bufio.NewReaderSize(f, 32<<10)
	var buf [4 << 10]byte
	var last time.Time
	for {
		n, err := r.Read(buf[:])
		t.mu.Lock()
		if now := time.Now(); now.Sub(last) > time.Second {
			t.head, last = t.head[:0], now
		}
		t.head = append(t.head, buf[:min(n, tailBytes-len(t.head))]...)
		t.mu.Unlock()
		if err != nil {
			if err != io.EOF && !errors.Is(err, os.ErrClosed) {
				t.mu.Lock()
				t.head = append(t.head[:0], err.Error()...)
				t.mu.Unlock()
			}
			return
		}
	}
}

// last returns the kept text on one line.
func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]rune, 0, len(t.head))
	for _, r := range string(t.head) {
		switch {
		case r == '\n' || r == '\t':
			r = ' '
		case r == '\uFFFD' || !unicode.IsPrint(r): // U+009B alone begins an order to a terminal
			continue
		}
		out = append(out, r)
	}
	return string(out[:min(len(out), 500)])
}
