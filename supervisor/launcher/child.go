package launcher

import (
	"fmt"
	"syscall"
	"time"

	"bulkhead/policy/namespaces"
	"bulkhead/policy/seccomp"
	"bulkhead/supervisor/launcher/orders"

	"golang.org/x/sys/unix"
)

// progress of a child on its way to being used.
type progress uint8

const (
	inConstructor progress = 1 // steps of the lockdown run; the inspection is awaited
	settingUp     progress = 2 // inspected; the program starts, V8 comes up
	verifying     progress = 3 // sealed as it says; passes of the verification run
	live          progress = 4 // verified; the gateway has its descriptors
	dying         progress = 5 // SIGKILL sent
)

// child is one process of the launcher's making.
type child struct {
	id      uint32
	role    namespaces.Role
	profile seccomp.Profile
	seq     uint64 // of the order that asked for it
	pid     int
	pidfd   int
	ready   int   // launcher's end of the ready socket, -1 when done with
	hand    []int // descriptors for the gateway, until they are handed over
	uid     uint32
	group   group // nil: accepted degradation
	state   progress
	born    time.Time
	told    time.Time // when its usage was last reported
	looked  time.Time // when it was last looked at
	look    orders.Report
	want    expectation
	passes  verification
	next    time.Time // verifying: when to look again
	stopped bool      // found stopped
	why     string    // why it was killed, for the report
	waited  bool
	status  unix.WaitStatus
}

// kill sends SIGKILL by pidfd. A child that is gone already is no error.
func (c *child) kill() {
	if c.state != dying {
		c.state = dying
	}
	if c.pidfd >= 0 {
		_ = unix.PidfdSendSignal(c.pidfd, unix.SIGKILL, nil, 0)
	}
}

func (c *child) killFor(format string, args ...any) {
	if c.why == "" {
		c.why = fmt.Sprintf(format, args...)
	}
	c.kill()
}

// siginfoChild is what waitid(2) fills in for SIGCHLD on 64-bit Linux.
type siginfoChild struct {
	_      [2]int32 // si_signo, si_errno
	code   int32
	_      int32
	pid    int32
	_      uint32 // si_uid
	status int32
	_      [100]byte
}

// Codes of siginfo for SIGCHLD (sigaction(2)).
const (
	cldExited  = 1
	cldKilled  = 2
	cldDumped  = 3
	cldTrapped = 4
	cldStopped = 5
)

// wait looks through the pidfd without blocking. ok is false while nothing happened.
func (c *child) wait(options int) (info siginfoChild, ok bool, err error) {
	var si siginfoChild
	for {
		err = unix.Waitid(unix.P_PIDFD, c.pidfd, (*unix.Siginfo)(pointer(&si)), options|unix.WNOHANG, nil)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return si, false, fmt.Errorf("waitid of child %d: %w", c.id, err)
	}
	return si, si.pid != 0, nil
}

// reap takes the exit status once the child is dead.
func (c *child) reap() (bool, error) {
	if c.waited {
		return true, nil
	}
	info, ok, err := c.wait(unix.WEXITED)
	if err != nil || !ok {
		return false, err
	}
	c.waited = true
	if info.code == cldExited {
		c.status = unix.WaitStatus(info.status << 8)
	} else {
		c.status = unix.WaitStatus(info.status)
	}
	return true, nil
}

// isStopped notices a job-control stop (SIGSTOP from outside): such a child would hold its
// requests for ever without ever being seen dead.
func (c *child) isStopped() bool {
	info, ok, err := c.wait(unix.WSTOPPED)
	return err == nil && ok && info.code == cldStopped
}

func (c *child) exitCode() int32 {
	if c.status.Exited() {
		return int32(c.status.ExitStatus())
	}
	return -1
}

func (c *child) exitSignal() syscall.Signal {
	if c.status.Exited() {
		return 0
	}
	return syscall.Signal(c.status & 0x7f)
}

// goOn answers the child that waits on its ready socket.
func (c *child) goOn() error {
	if _, err := unix.Write(c.ready, []byte{'g'}); err != nil {
		return fmt.Errorf("ready socket: %w", err)
	}
	return nil
}

func (c *child) closeReady() {
	if c.ready >= 0 {
		unix.Close(c.ready)
		c.ready = -1
	}
}

// closeAll lets go of every descriptor of the child that the launcher still has.
func (c *child) closeAll() {
	for _, fd := range c.hand {
		unix.Close(fd)
	}
	c.hand = nil
	c.closeReady()
	if c.pidfd >= 0 {
		unix.Close(c.pidfd)
		c.pidfd = -1
	}
}

// uidPool gives each living child a host uid of its own. Numbers are handed out round robin, so
// that a uid rests before it comes back. The base itself is the gateway's.
type uidPool struct {
	base, size, last uint32
	used             map[uint32]bool
}

func (p *uidPool) take() (uint32, bool) {
	for range p.size {
		p.last = p.last%p.size + 1
		if uid := p.base + p.last; !p.used[uid] {
			p.used[uid] = true
			return uid, true
		}
	}
	return 0, false
}

func (p *uidPool) give(uid uint32) { delete(p.used, uid) }
