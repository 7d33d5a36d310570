package launcher

import (
	"errors"
	"fmt"
	"time"

	"bulkhead/policy/namespaces"
	"bulkhead/sandboxworker/lockdown/setup"
	"bulkhead/supervisor/launcher/orders"

	"golang.org/x/sys/unix"
)

// startGateway begins a generation. Listeners are the same for all of them, so connections that
// come in between wait in the backlog.
func (l *launcher) startGateway() error {
	if err := l.mendListeners(); err != nil {
		l.failure = fmt.Errorf("launcher: %w", err)
		l.finish()
		return failed("listeners", err)
	}
	l.generation++
	b, err := newBirth(namespaces.Gateway)
	if err != nil {
		return failed("descriptors", err)
	}
	b.shard.PIDs = namespaces.GatewayPIDs
	var ours int
	theirs, err := b.socketPair(unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK, &ours)
	if err != nil {
		b.abandon()
		return failed("descriptors", err)
	}
	b.own(setup.FDControl, theirs)
	boot, err := l.bootFile()
	if err != nil {
		b.abandon()
		unix.Close(ours)
		return failed("boot", err)
	}
	b.own(setup.FDData, boot)
	b.put(1, 2)
	b.put(2, 2)
	for i, s := range l.listen {
		b.put(setup.FDListen+i, s.fd)
	}
	c, err := l.bear(b)
	if err != nil {
		unix.Close(ours)
		return err
	}
	l.gateway, l.orders, l.phase, l.given = c, ours, phaseStarting, map[orders.Kind]bool{}
	l.logf("gateway generation %d started (pid %d)", l.generation, c.pid)
	return nil
}

// endGeneration kills the gateway and all its children; the next gateway starts when the last
// of them is reaped.
func (l *launcher) endGeneration(reason string) {
	l.logf("ending generation %d: %s", l.generation, reason)
	l.phase = phaseDown
	if l.orders >= 0 {
		unix.Close(l.orders)
		l.orders = -1
	}
	for _, c := range l.children {
		c.seq = 0
		c.kill()
	}
}

func (l *launcher) onGatewayEnd() {
	c := l.gateway
	orderly := l.phase == phaseDraining && c.exitCode() == 0
	reason := fmt.Sprintf("the gateway ended (exit code %d, signal %d)", c.exitCode(), int(c.exitSignal()))
	if c.exitSignal() == unix.SIGSYS {
		if nr, why := l.kmsg.find(c.pid); nr >= 0 {
			reason += fmt.Sprintf(", system call %d is not in its filter", nr)
		} else {
			reason += ": " + why
		}
	}
	if c.why != "" {
		reason += ": " + c.why
	}
	lived := time.Since(c.born)
	l.gateway = nil
	l.forget(c)
	l.endGeneration(reason)
	switch {
	case !l.drainBy.IsZero():
		if !orderly && l.failure == nil && !l.stop {
			l.failure = errors.New("launcher: the gateway did not drain: " + reason)
		}
		l.finish()
	case lived >= longLife:
		l.crashes = 0
		l.nextStart = time.Now()
	default:
		l.gatewayFailed(time.Now())
	}
}

// gatewayFailed waits longer each time. A first generation that never served is a failed start:
// whoever typed the command should see it end, not loop.
func (l *launcher) gatewayFailed(now time.Time) {
	if !l.everServed {
		l.failure = errors.New("launcher: the first gateway ended before it was ready")
		l.finish()
		return
	}
	pause := min(maxBackoff, 50*time.Millisecond<<min(l.crashes, 8))
	l.crashes++
	l.nextStart = now.Add(pause)
	l.logf("starting the next gateway in %v", pause)
}

// drain: SIGTERM or SIGINT. A second one does not wait any longer.
func (l *launcher) drain() {
	if !l.drainBy.IsZero() || l.phase == phaseDown {
		l.finish()
		return
	}
	l.notify("STOPPING=1")
	l.logf("draining, at most %v", l.opt.DrainTimeout)
	l.drainBy = time.Now().Add(l.opt.DrainTimeout)
	l.phase = phaseDraining
	l.report(orders.Report{Kind: orders.ReportDrain})
}

// finish kills whoever is left; the loop ends when the last one is reaped.
func (l *launcher) finish() {
	l.stop = true
	l.phase = phaseDown
	for _, c := range l.children {
		c.kill()
	}
}
