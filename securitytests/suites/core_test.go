package suites

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bulkhead/policy/seccomp"
)

const corePattern = "/proc/sys/kernel/core_pattern"

// takeCores has the kernel hand the core of every process that dies to a program of the test's, for as
// long as the test lasts, and returns the folder where that leaves a file named after each pid.
func takeCores(t *testing.T) string {
	t.Helper()
	// One test at a time, whatever the folder it runs in: the setting is the machine's.
	lock, err := os.OpenFile("/tmp/bulkhead-core-pattern.lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() })
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(corePattern)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "bhcore") // short: core_pattern has 127 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	script := filepath.Join(dir, "take")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nhead -c 1000000 > "+dir+"/$1.part\nmv "+dir+"/$1.part "+dir+"/$1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(corePattern, []byte("|"+script+" %P"), 0o644); err != nil {
		t.Skipf("this user or container may not set %s: %v", corePattern, err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(corePattern, before, 0o644); err != nil {
			t.Errorf("%s stays as the test set it: %v", corePattern, err)
		}
	})
	return dir
}

func awaitFile(path string, d time.Duration) bool {
	for end := time.Now().Add(d); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// A pipe in core_pattern takes what a limit of core files does not stop: the program behind it runs as
// root, outside every namespace, with the dying process's memory on its standard input. No death of a
// worker starts it. Each dies beside an ordinary process that is started after it and whose core is
// taken: what would come of the worker has come by then.
func TestNoPipeTakesAWorkersCore(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may set " + corePattern)
	}
	bin := binaries(t)
	dir := takeCores(t)
	ordinary := func() bool {
		cmd := exec.Command("/bin/sh", "-c", "ulimit -c 0; kill -SEGV $$")
		err := cmd.Run()
		if cmd.Process == nil {
			t.Fatal(err)
		}
		return awaitFile(filepath.Join(dir, strconv.Itoa(cmd.Process.Pid)), 20*time.Second)
	}
	if !ordinary() {
		t.Skip("the kernel starts no program of this file system for a core: the test runs in a container")
	}
	for _, mode := range modes() {
		t.Run(string(mode), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
			defer cancel()
			stand, err := OpenStand(ctx, bin, mode)
			if err != nil {
				t.Fatal(err)
			}
			defer stand.Close()
			for _, p := range seccomp.Profiles() {
				for name, die := range map[string]func(*Seat) (Answer, error){
					"a call that is not allowed": func(s *Seat) (Answer, error) { return s.Call(ctx, unix.SYS_GETPPID) },
					"a wild write":               func(s *Seat) (Answer, error) { return s.Step(ctx, "poke 8 00") },
					"a signal of its own": func(s *Seat) (Answer, error) {
						return s.Call(ctx, unix.SYS_TGKILL, 1, 1, int(syscall.SIGABRT))
					},
					"a signal from outside": func(s *Seat) (Answer, error) {
						if err := syscall.Kill(s.PID, syscall.SIGSEGV); err != nil {
							return Answer{}, err
						}
						end, err := s.End(ctx)
						return Answer{End: &end}, err
					},
				} {
					t.Run(fmt.Sprintf("%v, %s", p, name), func(t *testing.T) {
						seat, err := stand.Sit(ctx, p, 0)
						if err != nil {
							t.Fatal(err)
						}
						defer seat.Leave()
						a, err := die(seat)
						if err == nil && a.End == nil {
							var end End
							end, err = seat.End(ctx)
							a.End = &end
						}
						if err != nil || a.End == nil {
							t.Fatalf("it did not die: %v", err)
						}
						if !ordinary() {
							t.Fatal("the instrument does not see an ordinary core any more")
						}
						if left, err := filepath.Glob(filepath.Join(dir, strconv.Itoa(seat.PID)+"*")); err != nil || len(left) > 0 {
							t.Errorf("it died (%v) and its core was taken: %v", a.End, left)
						}
					})
				}
			}
		})
	}
	if text, err := os.ReadFile(corePattern); err != nil || !strings.HasPrefix(string(text), "|"+dir) {
		t.Errorf("core_pattern was changed meanwhile: %q %v", text, err)
	}
}
