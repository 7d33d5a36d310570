package launcher

import (
	"errors"
	"fmt"
	"time"

	"bulkhead/policy/namespaces"
	"bulkhead/supervisor/launcher/orders"

	"golang.org/x/sys/unix"
)

// Deadlines of the loop.
const (
	// startDeadline is how long a child may take from clone to the end of its seal. V8 and
	// the runtime's bootstrap take some 50 ms; a machine under load takes its time.
	startDeadline = 20 * time.Second
	// bundlerLife is how long a bundler may run in all.
	bundlerLife = 2 * time.Minute
	// longLife of a gateway makes its death a first one again.
	longLife = 30 * time.Second
	// maxBackoff bounds the pause before a crashing gateway is started again.
	maxBackoff = 10 * time.Second
	idleTick   = 30 * time.Second
)

// ready sources of one poll.
type readiness struct {
	wake, orders, admin bool
	ready, ended        []*child
}

// loop serves until the end. One thread, one poll: nothing below blocks.
func (l *launcher) loop() error {
	for !l.over() {
		ev, err := l.poll()
		if err != nil {
			return fmt.Errorf("launcher: poll: %w", err)
		}
		if ev.wake {
			l.onSignals()
		}
		for _, c := range ev.ready {
			l.onReady(c)
		}
		if ev.orders {
			l.onOrders()
		}
		for _, c := range ev.ended {
			l.onEnd(c)
		}
		if ev.admin {
			l.acceptAdmin()
		}
		l.onTime(time.Now())
	}
	return l.failure
}

// over: asked to stop and nobody left.
func (l *launcher) over() bool { return l.stop && len(l.children) == 0 }

func (l *launcher) poll() (readiness, error) {
	fds := []unix.PollFd{{Fd: int32(l.wake[0]), Events: unix.POLLIN}}
	add := func(fd int, what func(*readiness)) func(*readiness) {
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		return what
	}
	acts := []func(*readiness){func(r *readiness) { r.wake = true }}
	if l.orders >= 0 {
		acts = append(acts, add(l.orders, func(r *readiness) { r.orders = true }))
	}
	if l.admin != nil && l.phase != phaseDown {
		acts = append(acts, add(l.admin.fd, func(r *readiness) { r.admin = true }))
	}
	for _, c := range l.children {
		acts = append(acts, add(c.pidfd, func(r *readiness) { r.ended = append(r.ended, c) }))
		if c.ready >= 0 {
			acts = append(acts, add(c.ready, func(r *readiness) { r.ready = append(r.ready, c) }))
		}
	}
	_, err := unix.Poll(fds, int(l.untilNext(time.Now()).Milliseconds()))
	if err != nil && err != unix.EINTR {
		return readiness{}, err
	}
	var r readiness
	for i, f := range fds {
		if f.Revents != 0 {
			acts[i](&r)
		}
	}
	return r, nil
}

// untilNext is how long the poll may sleep: until the earliest thing that time alone brings.
func (l *launcher) untilNext(now time.Time) time.Duration {
	wait := idleTick
	sooner := func(t time.Time) {
		if !t.IsZero() {
			wait = min(wait, max(0, t.Sub(now)+time.Millisecond))
		}
	}
	for _, c := range l.children {
		switch c.state {
		case inConstructor, settingUp:
			sooner(c.born.Add(startDeadline))
		case verifying:
			sooner(c.next)
		case live:
			if c.role == namespaces.Bundler {
				sooner(c.born.Add(bundlerLife))
			}
		}
	}
	if l.gateway == nil && !l.stop {
		sooner(l.nextStart)
	}
	if !l.stop {
		sooner(l.drainBy)
	}
	return wait
}

// onTime does what is due.
func (l *launcher) onTime(now time.Time) {
	for _, c := range l.children {
		late := now.Sub(c.born)
		switch {
		case c.state == verifying && !now.Before(c.next):
			l.look(c)
		case (c.state == inConstructor || c.state == settingUp) && late >= startDeadline:
			l.refuse(c, "start", fmt.Errorf("not sealed after %v", startDeadline))
		case c.state == live && c.role == namespaces.Bundler && late >= bundlerLife:
			c.killFor("bundler ran for %v", bundlerLife)
		}
	}
	if !l.drainBy.IsZero() && !now.Before(l.drainBy) && !l.stop {
		l.logf("drain timeout of %v reached, ending what is left", l.opt.DrainTimeout)
		l.finish()
	}
	if l.gateway == nil && len(l.children) == 0 && !l.stop && !now.Before(l.nextStart) {
		if err := l.startGateway(); err != nil {
			l.logf("starting the gateway: %v", err)
			l.gatewayFailed(now)
		}
	}
}

// Bytes on the ready socket (lockdown.c, report).
const (
	readyInspect = 'i' // the constructor has taken its steps and waits
	readySealed  = 's' // the filter is on all threads, and the sealing thread waits
)

// onReady: the child stands still and wants to be looked at.
func (l *launcher) onReady(c *child) {
	var b [8]byte
	n, err := unix.Read(c.ready, b[:])
	switch {
	case err == unix.EINTR || err == unix.EAGAIN:
	case c.state == dying:
		c.closeReady()
	case n == 1 && b[0] == readyInspect && c.state == inConstructor && l.kernel.inspect:
		if err := l.inspect(c); err != nil {
			l.refuse(c, "inspection", err)
			return
		}
		c.state = settingUp
		if err := c.goOn(); err != nil {
			l.refuse(c, "inspection", err)
		}
	case n == 1 && b[0] == readySealed && (c.state == settingUp || c.state == inConstructor && !l.kernel.inspect):
		c.state = verifying
		l.look(c)
	case n == 0:
		c.closeReady() // it ended; its pidfd tells the rest
	default:
		l.refuse(c, "start", errors.New("bytes on the ready socket out of turn"))
	}
}

// look makes one pass of the verification.
func (l *launcher) look(c *child) {
	done, err := l.verify(c)
	switch {
	case err != nil:
		// It may simply have died: then its end says why, and better than a missing file in /proc.
		if ended, _ := c.reap(); ended {
			return
		}
		l.refuse(c, "verify", err)
	case !done:
		c.next = time.Now().Add(passGap)
		if c.passes.tries == 1 {
			l.look(c) // the second pass at once: most children stand still
		}
	case c == l.gateway && l.ordersWait():
		l.refuse(c, "verify", errors.New("an order came before the seal was verified"))
	default:
		c.state = live
		if err := c.goOn(); err != nil {
			l.refuse(c, "verify", err)
			return
		}
		c.closeReady()
		l.handOver(c)
	}
}

// ordersWait says whether an order can be read. A gateway that stands still to be looked at gives none.
func (l *launcher) ordersWait() bool {
	fds := []unix.PollFd{{Fd: int32(l.orders), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return l.orders >= 0 && err == nil && n == 1 && fds[0].Revents&unix.POLLIN != 0
}

// refuse kills a child that must not be used and tells who asked for it.
func (l *launcher) refuse(c *child, step string, err error) {
	l.logf("%v %d (pid %d) refused: step %s: %v", c.role, c.id, c.pid, step, err)
	c.killFor("refused: step %s: %v", step, err)
	if c.seq != 0 {
		l.report(orders.Report{Kind: orders.ReportRefused, Seq: c.seq, Step: step, Detail: err.Error(), Errno: errnoOf(err)})
		c.seq = 0
	}
}

func errnoOf(err error) unix.Errno {
	var errno unix.Errno
	errors.As(err, &errno)
	return errno
}

// onEnd reaps, says how the child ended, and gives back what it held.
func (l *launcher) onEnd(c *child) {
	ended, err := c.reap()
	if err != nil {
		l.logf("%v", err)
	}
	if !ended && err == nil {
		return
	}
	if c == l.gateway {
		l.onGatewayEnd()
		return
	}
	r := l.obituary(c)
	if c.seq != 0 { // died before it was handed over
		l.report(orders.Report{Kind: orders.ReportRefused, Seq: c.seq, Step: "start", Detail: r.Detail + " " + l.lastWords(c)})
	} else {
		l.report(r)
	}
	l.forget(c)
}

func (l *launcher) obituary(c *child) orders.Report {
	r := orders.Report{Kind: orders.ReportExited, Child: c.id, PID: int32(c.pid), Code: c.exitCode(), Signal: c.exitSignal(),
		Syscall: -1, Stopped: c.stopped, Detail: c.why}
	if r.Signal == unix.SIGSYS {
		r.Syscall, r.Step = l.kmsg.find(c.pid)
	}
	if r.Signal == unix.SIGKILL && c.group != nil && c.group.outOfMemory() {
		r.Detail = orders.DetailOutOfMemory
	}
	if r.Detail == "" && c.state != live {
		r.Detail = fmt.Sprintf("ended before it was sealed: exit code %d, signal %d", r.Code, r.Signal)
	}
	return r
}

// lastWords is what a child that failed early wrote to its stderr, one line of it. It is shown,
// never parsed; the bytes are the launcher's own constructor's, or hostile and then only text.
func (l *launcher) lastWords(c *child) string {
	if len(c.hand) == 0 {
		return ""
	}
	fd := c.hand[len(c.hand)-1]
	if unix.SetNonblock(fd, true) != nil {
		return ""
	}
	var b [160]byte
	n, err := unix.Read(fd, b[:])
	if err != nil || n <= 0 {
		return ""
	}
	text := []byte{}
	for _, ch := range b[:n] {
		if ch == '\n' {
			break
		}
		if ch >= ' ' && ch < 0x7f {
			text = append(text, ch)
		}
	}
	return string(text)
}

func (l *launcher) forget(c *child) {
	delete(l.children, c.id)
	c.closeAll()
	l.release(c)
}

// onSignals: SIGCHLD may mean a stop, which no pidfd shows.
func (l *launcher) onSignals() {
	var b [64]byte
	for {
		if n, err := unix.Read(l.wake[0], b[:]); n <= 0 && err != unix.EINTR {
			break
		}
	}
	for {
		select {
		case s := <-l.signals:
			if s == unix.SIGCHLD {
				l.findStopped()
			} else {
				l.drain()
			}
		default:
			l.findStopped() // signals merge, and the relay may have dropped some
			return
		}
	}
}

func (l *launcher) findStopped() {
	for _, c := range l.children {
		if !c.waited && c.isStopped() {
			c.stopped = true
			c.killFor("found stopped")
		}
	}
}
