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

// scene is where a promise is tried. Several are tried in it at once.
type scene struct {
	stand     *Stand
	profile   seccomp.Profile
	thorough  bool
	binaries  Binaries
	household household

	stock  sync.Once
	supply *supply // nil until a seat was wanted

	mu    sync.Mutex
	fatal map[int64]bool // guarded by mu; numbers that have ended a seat by SIGSYS
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
	var opening sync.WaitGroup
	scenes := make([][]*scene, 2)
	for i, mode := range []Mode{Root, Rootless} {
		opening.Go(func() { scenes[i] = r.open(ctx, mode) })
	}
	for _, p := range wanted {
		if p.Host {
			r.note(p, "any", "any", try(ctx, p, &scene{}))
		}
	}
	opening.Wait()
	r.work(ctx, slices.Concat(scenes...))
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

// open starts the launcher of a mode and returns its scenes, one a profile; none, with every promise noted
// as not shown, if that mode cannot be tried.
func (r *run) open(ctx context.Context, mode Mode) []*scene {
	refuse := func(why string) []*scene {
		for _, p := range r.wanted {
			for _, prof := range r.o.Profiles {
				if !p.Host {
					r.note(p, prof.String(), string(mode), notShown("%s", why))
				}
			}
		}
		return nil
	}
	if !slices.Contains(r.o.Modes, mode) {
		return refuse("this run was not to try it")
	}
	if !slices.ContainsFunc(r.wanted, func(p Promise) bool { return !p.Host }) {
		return nil
	}
	if why := unable(mode, r.o.Binaries); why != "" {
		return refuse(why)
	}
	stand, err := OpenStand(ctx, r.o.Binaries, mode, r.o.LauncherArgs...)
	if err != nil {
		return refuse(fmt.Sprintf("bulkhead does not start here in this mode: %v", err))
	}
	var out []*scene
	for _, prof := range r.o.Profiles {
		out = append(out, &scene{stand: stand, profile: prof, thorough: r.o.Thorough, binaries: r.o.Binaries})
	}
	return out
}

// work tries every promise in every scene and closes the scenes. There are two more at work than processors:
// who waits for a death or for its next seat leaves its own idle.
func (r *run) work(ctx context.Context, scenes []*scene) {
	type task struct {
		s        *scene
		promises []Promise
	}
	var tasks []task
	for _, promises := range inTurn(r.wanted) {
		for _, s := range scenes {
			tasks = append(tasks, task{s, promises})
		}
	}
	queue := make(chan task)
	var all sync.WaitGroup
	for range 2 + runtime.NumCPU() {
		all.Go(func() {
			for t := range queue {
				for _, p := range t.promises {
					if ctx.Err() == nil {
						r.note(p, t.s.profile.String(), string(t.s.stand.Mode), try(ctx, p, t.s))
					}
				}
			}
		})
	}
	for _, t := range tasks {
		queue <- t
	}
	close(queue)
	all.Wait()
	stands := map[*Stand]bool{}
	for _, s := range scenes {
		stands[s.stand] = true
		if s.supply != nil {
			s.supply.close()
		}
	}
	for stand := range stands {
		stand.Close()
	}
}

// inTurn groups promises into what is tried in one go: of the system calls each by itself, for they make
// hundreds of deaths, and of the other suites all that a suite has. The hosts with tenants come first, which
// keep the machine busy by themselves. Last comes the promise about calls that are not on the list: what was
// tried in the scene before need not be tried again, and it is work that can be shared to the end.
func inTurn(promises []Promise) [][]Promise {
	var first, others, last [][]Promise
	at := map[string]int{} // of a suite in others
	for _, p := range promises {
		switch i, begun := at[p.Suite]; {
		case p.Host:
		case p.Name == unlistedName:
			last = append(last, []Promise{p})
		case p.Suite == "tenants" && len(first) > 0:
			first[0] = append(first[0], p)
		case p.Suite == "tenants":
			first = append(first, []Promise{p})
		case p.Suite == "syscalls" || !begun:
			at[p.Suite] = len(others)
			others = append(others, []Promise{p})
		default:
			others[i] = append(others[i], p)
		}
	}
	return slices.Concat(first, others, last)
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
