package suites

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"bulkhead/policy/seccomp"
)

// supply keeps a few fresh seats ready, for most of them die of the first thing they try.
type supply struct {
	ready  chan delivery
	cancel context.CancelFunc
	makers sync.WaitGroup
}

type delivery struct {
	seat *Seat
	err  error
}

// seatMakers is how many seats of a scene are made at once. As many wait for who wants one, and more would
// only take memory from each other.
const seatMakers = 2

func newSupply(ctx context.Context, stand *Stand, p seccomp.Profile) *supply {
	ctx, cancel := context.WithCancel(ctx)
	s := &supply{ready: make(chan delivery), cancel: cancel}
	for range seatMakers {
		s.makers.Go(func() {
			for {
				seat, err := stand.Sit(ctx, p, 0)
				select {
				case s.ready <- delivery{seat, err}:
				case <-ctx.Done():
					if seat != nil {
						seat.Leave()
					}
					return
				}
			}
		})
	}
	return s
}

func (s *supply) close() {
	s.cancel()
	s.makers.Wait()
}

// seat takes a fresh one. The run's context is not that of a promise, whose end does not end the supply.
func (s *scene) seat(ctx context.Context) (*Seat, error) {
	s.stock.Do(func() { s.supply = newSupply(context.WithoutCancel(ctx), s.stand, s.profile) })
	select {
	case d := <-s.supply.ready:
		return d.seat, d.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// attempt is one hostile call and what a sealed worker must make of it.
type attempt struct {
	what  string
	nr    int64
	args  []any
	want  seccomp.Verdict
	errno uint16 // seccomp.Refused only
	i386  bool   // through int 0x80
}

// attempts makes them all, in as few seats as the deaths allow, and returns what went otherwise.
func (s *scene) attempts(ctx context.Context, list []attempt) (wrong []string, err error) {
	var seat *Seat
	defer func() {
		if seat != nil {
			seat.Leave()
		}
	}()
	for _, at := range list {
		if seat == nil {
			if seat, err = s.seat(ctx); err != nil {
				return wrong, err
			}
		}
		got, detail, err := at.make(ctx, seat)
		if err != nil {
			return wrong, fmt.Errorf("%s: %w", at.what, err)
		}
		if got != at.want {
			wrong = append(wrong, fmt.Sprintf("%s: %v (%s), must be: %v", at.what, got, detail, at.want))
		}
		if got == seccomp.Dies && !at.i386 {
			s.died(at.nr)
		}
		if got != seccomp.Lives && got != seccomp.Refused {
			seat.Leave()
			seat = nil
		}
	}
	return wrong, nil
}

// died notes that a number has ended a seat in this scene.
func (s *scene) died(nr int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fatal == nil {
		s.fatal = map[int64]bool{}
	}
	s.fatal[nr] = true
}

// hasEnded reports whether it has.
func (s *scene) hasEnded(nr int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fatal[nr]
}

// shared is attempts by several at once.
func (s *scene) shared(ctx context.Context, list []attempt) (wrong []string, err error) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for part := range slices.Chunk(list, max(1, (len(list)+seatMakers-1)/seatMakers)) {
		all.Go(func() {
			w, e := s.attempts(ctx, part)
			mu.Lock()
			defer mu.Unlock()
			wrong, err = append(wrong, w...), errors.Join(err, e)
		})
	}
	all.Wait()
	return wrong, err
}

// goFault is how a Go program ends of a fault it did not expect.
const goFault = 2

// make makes the call and says what came of it.
func (at attempt) make(ctx context.Context, seat *Seat) (seccomp.Verdict, string, error) {
	var a Answer
	var err error
	if at.i386 {
		a, err = seat.Step(ctx, "int80 %d", at.nr)
	} else {
		a, err = seat.Call(ctx, at.nr, at.args...)
	}
	switch {
	case err != nil:
		return 0, "", err
	case a.End != nil && a.End.Signal == syscall.SIGSYS:
		return seccomp.Dies, a.End.String(), nil
	case a.End != nil && (slices.Contains([]syscall.Signal{syscall.SIGSEGV, syscall.SIGILL, syscall.SIGBUS}, a.End.Signal) || a.End.Signal == 0 && a.End.Code == goFault):
		return seccomp.Faults, a.End.String(), nil
	case a.End != nil && a.End.Signal == 0:
		return seccomp.Exits, a.End.String(), nil
	case a.End != nil:
		return 0, a.End.String(), nil
	case a.Text == "silent":
		return seccomp.Silent, a.Text, nil
	case at.want == seccomp.Refused && a.Errno == syscall.Errno(at.errno):
		return seccomp.Refused, a.Errno.Error(), nil
	case a.Errno != 0:
		return seccomp.Lives, a.Errno.Error(), nil
	}
	return seccomp.Lives, fmt.Sprintf("returned %d", a.Ret), nil
}

// dies is an attempt at a call that no worker has.
func dies(what, call string, args ...any) attempt {
	nr, ok := seccomp.CallNumber(call)
	if !ok {
		nr = -1
	}
	return attempt{what: what + " (" + call + ")", nr: nr, args: args, want: seccomp.Dies}
}

// all makes the attempts and turns them into a finding. Calls that this architecture lacks are left out.
func (s *scene) all(ctx context.Context, list []attempt) finding {
	var has []attempt
	for _, at := range list {
		if at.nr >= 0 {
			has = append(has, at)
		}
	}
	wrong, err := s.attempts(ctx, has)
	switch {
	case len(wrong) > 0:
		return broken("%s", strings.Join(wrong, "; "))
	case err != nil:
		return failedTry(err)
	}
	return held("%d attempts, each ended as it must", len(has))
}

// unable says why a mode cannot be tried by whoever runs this, "" if it can.
func unable(mode Mode, bin Binaries) string {
	if mode == Root && os.Getuid() != 0 {
		return "only root can start bulkhead as root"
	}
	if mode == Rootless && os.Getuid() == 0 {
		// The launcher will run as somebody else, who must reach the binaries.
		for _, p := range []string{bin.Launcher, bin.Bulkhead, bin.Seat} {
			for ; p != "/"; p = filepath.Dir(p) {
				if st, err := os.Stat(p); err != nil || st.Mode()&0o001 == 0 {
					return fmt.Sprintf("an ordinary user cannot reach %s; run the suites as that user, or chmod o+x", p)
				}
			}
		}
	}
	return ""
}
