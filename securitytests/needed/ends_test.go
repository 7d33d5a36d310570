package needed

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bulkhead/policy/seccomp"
	"bulkhead/securitytests/hosttest"
	"bulkhead/securitytests/suites"
)

// ends are the rows of calls that a worker makes at its very beginning or at its end, where a tracer that
// attaches to a sealed worker sees little. TestTheEndsNeedTheirRows leaves each out and sees a worker
// die of it.
var ends = map[string]string{
	"exit_group":   "exit_group",
	"exit":         "exit",
	"close":        "close",
	"rt_sigaction": "rt_sigaction",
	"rt_sigreturn": "rt_sigreturn",
	// No signal comes before the end: Go is told not to pre-empt by them (policy/namespaces).
	"tgkill arg0==0x1": "tgkill",
}

// How a worker is brought to make a call.
func hangUp(s *suites.Seat) error    { return s.Data.Close() }
func terminate(s *suites.Seat) error { return syscall.Kill(s.PID, syscall.SIGTERM) }
func interrupt(s *suites.Seat) error { return syscall.Kill(s.PID, syscall.SIGURG) }
func nothing(*suites.Seat) error     { return nil }

func TestTheEndsNeedTheirRows(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: the rootless launcher's workers are covered by the same filter")
	}
	provoke := map[string]func(*suites.Seat) error{"exit_group": hangUp, "rt_sigaction": terminate, "exit": hangUp, "close": nothing, "rt_sigreturn": interrupt, "tgkill": terminate}
	for row, call := range ends {
		t.Run(call, func(t *testing.T) {
			with, without := end(t, "", provoke[call]), end(t, "drop "+call, provoke[call])
			if with.Signal == syscall.SIGSYS || without.Signal != syscall.SIGSYS {
				t.Errorf("row %q: with it the worker ends by %q, without it by %q; want SIGSYS without it alone", row, with, without)
			}
		})
	}
}

// end starts a real worker under a launcher that leaves something out, provokes it and says how it ended.
func end(t *testing.T, leaveOut string, provoke func(*suites.Seat) error) suites.End {
	t.Helper()
	dir, err := os.MkdirTemp("", "bhends")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	launcher := filepath.Join(dir, "launcher")
	hosttest.Build(t, "./cmd/bulkhead-launcher", launcher, "-tags", "bulkhead_sabotage")
	if err := os.WriteFile(launcher+".skip", []byte(leaveOut), 0o644); err != nil {
		t.Fatal(err)
	}
	bin := hosttest.Binaries(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	stand, err := suites.OpenStand(ctx, suites.Binaries{Launcher: launcher, Bulkhead: filepath.Join(bin, "bulkhead"), Seat: filepath.Join(bin, "bulkhead-worker")}, suites.Root)
	if err != nil {
		t.Fatal(err)
	}
	defer stand.Close()
	seat, err := stand.Sit(ctx, seccomp.JIT, 0)
	if err != nil {
		if strings.Contains(err.Error(), "signal 31") || strings.Contains(err.Error(), "SIGSYS") {
			return suites.End{Code: -1, Signal: syscall.SIGSYS}
		}
		t.Fatal(err)
	}
	defer seat.Leave()
	time.Sleep(100 * time.Millisecond) // it serves, and waits
	if err := provoke(seat); err != nil {
		return suites.End{Detail: err.Error()}
	}
	time.Sleep(200 * time.Millisecond)
	seat.Leave()
	e, err := seat.End(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return e
}
