// Package suites is the security regression suites as a library: `bulkhead securitytest` runs them on
// the host where bulkhead will really run, `go test ./securitytests/suites` on the developer's.
//
// Duty: answer one question: if V8 fell, what could the attacker reach from here? Native code execution
// inside a worker is where the suites begin, not where they end: a real launcher starts real workers
// that differ from bulkhead-worker in one thing only, that behind the seal they do what the suite says
// (securitytests/seat). What the suites find is grouped by promise.
//
// Trust: what a seat answers is a test's evidence, not an attacker's word; where the kernel can be asked
// from outside (/proc, exit status), it is.
//
// Invariants: a promise that could not be tried is not shown, never held. Nothing outside the suite's own
// processes and folders is harmed by a promise that turns out broken: attacks that would hurt are aimed
// at the suite's own neighbour, at files it made, or at nothing (a null argument).
package suites

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"bulkhead/policy/seccomp"
)

// Status is what became of a promise.
type Status string

// The statuses. Their text is a contract.
const (
	Held     Status = "held"
	Broken   Status = "broken"
	NotShown Status = "not shown"
)

// Promise is one thing that must not be possible from an attacker's seat.
type Promise struct {
	Name   string // "cannot open a file"
	Suite  string
	Gain   string // what an attacker has if it is broken
	Repair string // what the operator can do about it
	// Host: it is about the machine, not about one profile in one mode, and is tried once.
	Host bool
	try  func(context.Context, *scene) finding
}

// Result is the verdict on a promise. The JSON names are a contract.
type Result struct {
	Promise string `json:"promise"`
	Profile string `json:"profile"` // "any" for a promise about the machine
	Mode    string `json:"mode"`    // "any" likewise
	Status  Status `json:"status"`
	Detail  string `json:"detail"`
}

// finding is a Result before it has a name.
type finding struct {
	status Status
	detail string
}

func held(format string, args ...any) finding { return finding{Held, fmt.Sprintf(format, args...)} }
func broken(format string, args ...any) finding {
	return finding{Broken, fmt.Sprintf(format, args...)}
}
func notShown(format string, args ...any) finding {
	return finding{NotShown, fmt.Sprintf(format, args...)}
}

// scene is where a promise is tried.
type scene struct {
	stand     *Stand
	profile   seccomp.Profile
	thorough  bool
	supply    *supply
	binaries  Binaries
	household household
}

// Options of a run.
type Options struct {
	Binaries Binaries
	Suite    string // only this one; "" is all
	// Thorough tries every number and socket family under every profile in every mode. Otherwise those
	// that must die whatever their arguments are dealt out, so that every profile and every mode sees
	// every one of them, but not every pair of the two; and of the doors of other architectures each
	// profile sees a third.
	Thorough bool
	Modes    []Mode
	Profiles []seccomp.Profile
	// Progress is told each result as it is there, from several goroutines but one at a time.
	Progress func(Promise, Result)
	// LauncherArgs are further flags of the launcher.
	LauncherArgs []string
}

// Promises lists every promise in the order of the report.
func Promises() []Promise {
	return slices.Concat(syscallPromises(), filePromises(), neighbourPromises(), networkPromises(), kernelPromises(), limitPromises(), speculationPromises(), tenantPromises())
}

// Suites lists the suites' names in the order of the report.
func Suites() []string {
	var out []string
	for _, p := range Promises() {
		if !slices.Contains(out, p.Suite) {
			out = append(out, p.Suite)
		}
	}
	return out
}

// Run tries the promises and returns the results in the order of Promises, then modes, then profiles.
// An error means that the run itself failed, not that a promise is broken.
func Run(ctx context.Context, o Options) ([]Result, error) {
	if len(o.Profiles) == 0 {
		o.Profiles = seccomp.Profiles()
	}
	var wanted []Promise
	for _, p := range Promises() {
		if o.Suite == "" || p.Suite == o.Suite {
			wanted = append(wanted, p)
		}
	}
	if len(wanted) == 0 {
		return nil, fmt.Errorf("no suite %q", o.Suite)
	}
	r := &run{o: o, wanted: wanted}
	var all sync.WaitGroup
	// One more than processors: a scene that waits for a death or for its next seat leaves its own idle.
	slots := make(chan struct{}, 1+runtime.NumCPU())
	for _, mode := range []Mode{Root, Rootless} {
		all.Add(1)
		go func() {
			defer all.Done()
			r.mode(ctx, mode, slots)
		}()
	}
	for _, p := range wanted {
		if p.Host {
			r.note(p, "any", "any", try(ctx, p, &scene{}))
		}
	}
	all.Wait()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("security suites: %w", context.Cause(ctx))
	}
	r.sort()
	return r.results, nil
}

// run collects results.
type run struct {
	o      Options
	wanted []Promise

	mu      sync.Mutex
	results []Result // guarded by mu
}

func (r *run) note(p Promise, profile, mode string, f finding) {
	res := Result{Promise: p.Name, Profile: profile, Mode: mode, Status: f.status, Detail: f.detail}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results = append(r.results, res)
	if r.o.Progress != nil {
		r.o.Progress(p, res)
	}
}

// mode runs everything in one mode: one launcher, its profiles as slots come free.
func (r *run) mode(ctx context.Context, mode Mode, slots chan struct{}) {
	refuse := func(why string) {
		for _, p := range r.wanted {
			for _, prof := range r.o.Profiles {
				if !p.Host {
					r.note(p, prof.String(), string(mode), notShown("%s", why))
				}
			}
		}
	}
	if !slices.Contains(r.o.Modes, mode) {
		refuse("this run was not to try it")
		return
	}
	if !slices.ContainsFunc(r.wanted, func(p Promise) bool { return !p.Host }) {
		return
	}
	if why := unable(mode, r.o.Binaries); why != "" {
		refuse(why)
		return
	}
	stand, err := OpenStand(ctx, r.o.Binaries, mode, r.o.LauncherArgs...)
	if err != nil {
		refuse(fmt.Sprintf("bulkhead does not start here in this mode: %v", err))
		return
	}
	defer stand.Close()
	var all sync.WaitGroup
	for _, prof := range r.o.Profiles {
		all.Add(1)
		go func() {
			defer all.Done()
			slots <- struct{}{}
			defer func() { <-slots }()
			s := &scene{stand: stand, profile: prof, thorough: r.o.Thorough, supply: newSupply(ctx, stand, prof), binaries: r.o.Binaries}
			defer s.supply.close()
			for _, p := range r.wanted {
				if !p.Host && ctx.Err() == nil {
					r.note(p, prof.String(), string(mode), try(ctx, p, s))
				}
			}
		}()
	}
	all.Wait()
}

// errInstrument marks that a try itself failed: nothing is shown by that.
var errInstrument = errors.New("the attempt failed")

// try bounds one promise, and takes a panic of the instrument for what it is.
func try(ctx context.Context, p Promise, s *scene) (f finding) {
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Minute, errors.New("not done in ten minutes"))
	defer cancel()
	f = p.try(ctx, s)
	if f.status == Held && ctx.Err() != nil {
		return notShown("interrupted: %v", context.Cause(ctx))
	}
	return f
}

// failedTry is the finding when the instrument failed.
func failedTry(err error) finding { return notShown("%v: %v", errInstrument, err) }

func (r *run) sort() {
	order := map[string]int{}
	for i, p := range r.wanted {
		order[p.Name] = i
	}
	rank := func(x Result) [3]int {
		var prof int
		if p, err := seccomp.ParseProfile(x.Profile); err == nil {
			prof = int(p)
		}
		mode := 0
		if x.Mode == string(Rootless) {
			mode = 1
		}
		return [3]int{order[x.Promise], mode, prof}
	}
	slices.SortStableFunc(r.results, func(a, b Result) int {
		ra, rb := rank(a), rank(b)
		return slices.Compare(ra[:], rb[:])
	})
}
