// Package engine runs tenants' JavaScript: the life of isolates, their turns, limits and outcomes.
// It is the only importer of v8go.
//
// Duty: an Engine is V8 in this process, set up once before the seal. An Isolate is one tenant's
// JavaScript: New makes it (pooled by the scheduler), Load gives it a tenant, each further method
// delivers one event and returns a Turn with all that the code did about it.
//
// Trust: the code in an isolate is hostile. What it can do is bounded here (memory, eval, Wasm,
// shared memory, clocks) or made stoppable from another thread (time); what it says comes back as
// Records and is checked again by whoever acts on it. V8 may die by any line of it; surviving that
// is the business of the processes outside.
//
// Invariants: one thread at a time runs an isolate, on a locked OS thread; only Terminate and
// Usage may be called from others. The clock of a turn does not move (frozen clock). An isolate
// whose turn ended OutOfMemory or Fatal is disposed of, never used again.
package engine

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"bulkhead/policy/seccomp"
	"bulkhead/sandboxworker/engine/native"
)

// Config is what the process decides once for all its isolates.
type Config struct {
	Profile seccomp.Profile
	Source  []byte   // JavaScript of the runtime, ASCII: see sandboxworker/runtime
	Data    []string // what the runtime may ask for by number; kept once for all isolates
	// HeapMaxBytes bounds the JavaScript heap of each isolate, whatever its tenant's limit: V8
	// wants to know when it makes one. At least 16 MiB.
	HeapMaxBytes uint64
	// What is left out, so that tests can show what it is there for. Nothing that serves tenants sets
	// these (lockdown.LeftOut).
	LeaveTraces, LetClockMove bool
}

// HeapOvershoot is how far past Config.HeapMaxBytes, in bytes, the heap of one isolate may grow: the
// turn that ran into the limit is stopped, but what it runs through on its way out still allocates.
// All isolates of a process share a cage of 4 GiB; who budgets it adds this for each that may be at
// its limit at once. Beyond it V8 aborts the process.
const HeapOvershoot = native.HeapOvershoot

// Engine is V8 in this process. There can be only one: V8's flags and platform are global.
type Engine struct{ cfg Config }

// inited guards V8's process-wide state, which cannot be set up twice.
var inited sync.Mutex

// Init sets V8 up and makes the code cache from a first isolate that has served a request.
// It must be called before the process is sealed (V8 makes its code range then) and only once.
func Init(cfg Config) (*Engine, error) {
	if !cfg.Profile.Valid() {
		return nil, fmt.Errorf("engine: %v is no profile", cfg.Profile)
	}
	if cfg.HeapMaxBytes < 16<<20 {
		return nil, fmt.Errorf("engine: a heap of %d bytes is too small for V8: give at least 16 MiB", cfg.HeapMaxBytes)
	}
	if !inited.TryLock() {
		return nil, errors.New("engine: BUG: Init called twice in one process")
	}
	if cfg.LeaveTraces {
		native.LeaveTraces()
	}
	if cfg.LetClockMove {
		native.LetClockMove()
	}
	native.Init(strings.Join(flags(cfg), " "), cfg.Profile == seccomp.JITWasm)
	if err := native.SetSource(cfg.Source); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	for n, b := range cfg.Data {
		native.SetData(n, b)
	}
	cfg.Source = nil // the data is not copied
	e := &Engine{cfg: cfg}
	if err := e.makeCodeCache(); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	return e, nil
}

// flags returns V8's flags for a profile.
func flags(cfg Config) []string {
	f := []string{
		// Background threads would burn CPU that is nobody's: 129 of 538 ms in a measurement.
		"--single-threaded",
		// A loop unrolled by Turboshaft can lose its interrupt check and ignore termination.
		"--no-turboshaft-loop-unrolling",
		// The constructor is then installed only where a callback asks for it. None does.
		"--enable-sharedarraybuffer-per-context",
		// Bytecode that no GC has seen in use is dropped and compiled again when called: the
		// default, kept because idle tenants outnumber busy ones and the source is shared.
		"--flush-bytecode",
		// Baseline code is compiled for batches of functions, by their size. The default, a quarter of
		// this, compiles one while a tenant loads: 90 KiB an idle tenant, for functions that run once.
		"--baseline-batch-compilation-threshold=16384",
		// No thread marks beside the executor: without this each heap keeps buffers for seven.
		"--concurrent-marking-max-worker-num=1",
		// The young generation of a busy tenant grows to three times this, MiB. V8's own choice for such
		// heaps, 4, held twice the memory over fifty busy tenants and served no faster, measured side by
		// side.
		"--max-semi-space-size=2",
		// asm.js would be compiled as Wasm, which needs executable pages the seal denies.
		"--no-validate-asm",
	}
	switch cfg.Profile {
	case seccomp.Jitless:
		f = append(f, "--jitless")
	case seccomp.JITWasm:
		// Without it V8 would compile on threads that do not exist.
		f = append(f, "--no-wasm-async-compilation",
			fmt.Sprintf("--wasm-max-mem-pages=%d", max(1, cfg.HeapMaxBytes>>16)))
	}
	return f
}

// makeCodeCache bootstraps an isolate without a cache, lets it serve one request so that the
// functions every tenant needs are compiled, and keeps the result for all others.
func (e *Engine) makeCodeCache() error {
	i, err := e.New()
	if err != nil {
		return err
	}
	defer i.Dispose()
	out, _ := i.Load(Bundle{
		Main:    "/warm.js",
		Modules: []Module{{Name: "/warm.js", Code: []byte(warmSource)}},
	}, nil, Limits{MemoryBytes: e.cfg.HeapMaxBytes, Timers: 16, Pending: 16}, 1)
	if out.Failure != nil {
		return fmt.Errorf("warm the runtime up: %s (%s:%d)\n%s", out.Failure.Message, out.Failure.File, out.Failure.Line, out.Failure.Stack)
	}
	t := i.Request(1, Request{Inv: 1, Method: "GET", URL: "http://warm.localhost/", Headers: []byte("accept\n*/*\n")})
	if t.Status != OK {
		return fmt.Errorf("warm the runtime up: its first request ended %v", t.Status)
	}
	return i.native.MakeCodeCache()
}

// warmSource touches what the first request of most tenants touches. Each class costs every isolate
// its bytecode (URL: 12 KiB), and saves the tenants that use it its compilation (URL: 0.8 ms).
const warmSource = `export default { async fetch(request, env, ctx) {
  new URL(request.url).pathname;
  return new Response("ok", { headers: { "content-type": "text/plain" } });
} }`

// New makes a bootstrapped isolate without a tenant. It takes milliseconds.
func (e *Engine) New() (*Isolate, error) {
	i := &Isolate{native: native.New(e.cfg.HeapMaxBytes)}
	if err := i.native.Bootstrap(e.cfg.HeapMaxBytes); err != nil {
		i.Dispose()
		return nil, fmt.Errorf("engine: bootstrap a new isolate: %w", err)
	}
	return i, nil
}

// WipeStack zeroes what turns have left on the calling thread's C stack. The thread must be locked.
func WipeStack() { native.WipeStack() }

// Trim gives pages of V8's own C++ heap that hold nothing back to the kernel: what the making of an
// isolate needs for a moment lies scattered among what stays. Milliseconds; other threads that
// allocate wait for it in part.
func (e *Engine) Trim() { native.TrimProcess() }
