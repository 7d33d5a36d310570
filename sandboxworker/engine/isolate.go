package engine

import (
	"strings"
	"sync"
	"time"

	"bulkhead/sandboxworker/engine/native"
	"bulkhead/schema/gen"
)

// Reason says why a turn was stopped.
type Reason uint8

// The reasons of Terminate. ReasonMemory is also given by the engine itself.
const (
	ReasonNone   Reason = 0
	ReasonCPU    Reason = 1
	ReasonWall   Reason = 2
	ReasonMemory Reason = native.ReasonMemory
	ReasonEvict  Reason = 4
)

// String names the reason for logs.
func (r Reason) String() string {
	switch r {
	case ReasonNone:
		return "none"
	case ReasonCPU:
		return "cpu"
	case ReasonWall:
		return "wall"
	case ReasonMemory:
		return "memory"
	case ReasonEvict:
		return "evict"
	}
	return "unknown"
}

// Bundle is a tenant's code. Names are absolute within it ("/worker.js").
type Bundle struct {
	Main    string
	Modules []Module
	// CodeCache is what CodeCache returned for this very bundle, may be nil. One that does not fit the
	// bundle or this V8 is ignored. V8 trusts its bytes: it must come from a process in which nobody
	// but this tenant has been, unchanged, or the tenant of that process rules this one.
	CodeCache []byte
}

// Module is one module of a bundle. Code is copied by Load.
type Module struct {
	Name string
	Kind gen.Module_Kind
	Code []byte
}

// EnvVar is one entry of the env a handler gets: a string, or a value parsed from JSON.
type EnvVar struct {
	Name  string
	JSON  bool
	Value string
}

// Limits are what the engine itself enforces for a tenant. Time is the scheduler's.
type Limits struct {
	MemoryBytes uint64 // all that Usage counts; 0: only the heap has a limit, the engine's own
	Timers      uint32 // pending at once
	Pending     uint32 // operations and waitUntil promises pending at once
	EvalAllowed bool   // eval and new Function
	WasmAllowed bool   // WebAssembly, where the profile has it
}

// LoadOutcome says whether a tenant's code runs. Exactly one of the two is set when the turn's
// Status is OK; otherwise neither need be.
type LoadOutcome struct {
	Handlers []string // events the code answers: "fetch", ...
	Failure  *Failure
}

// Failure is why a tenant's code cannot run, for its developer.
type Failure struct {
	File    string // name within the bundle, without the leading slash; may be empty
	Line    uint32 // from 1, 0 when unknown
	Column  uint32 // from 1, 0 when unknown
	Excerpt string // the source line, at most 200 bytes around the place
	Message string
	Stack   string
}

// Request is the head of an invocation and the beginning of its body.
type Request struct {
	Inv         uint32 // the caller's name for the invocation, not 0
	Method, URL string
	Headers     []byte // "name\nvalue\n" repeated
	Body        []byte
	BodyMode    gen.BodyMode
	RequestID   string
	Attempt     uint8
}

// Usage is what an isolate holds, as of its last collection or turn.
type Usage struct {
	HeapBytes     uint64
	ExternalBytes uint64 // ArrayBuffers, resizable ones, Wasm memories, unread output, the bundle while it loads
	LimitBytes    uint64 // of their sum
}

// Isolate is one JavaScript world. See the package comment for who may call what when.
type Isolate struct {
	native native.Isolate

	// mu keeps Terminate and Usage of other threads off an isolate that is being disposed of.
	mu   sync.Mutex
	gone bool // guarded by mu

	// outputs counts what the native buffer has held, so that a Turn knows when its records are gone.
	// Used only by the thread that runs the isolate.
	outputs uint64
}

// Load gives the isolate its tenant, compiles and evaluates its code. Once.
func (i *Isolate) Load(b Bundle, env []EnvVar, lim Limits, nowMs float64) (LoadOutcome, Turn) {
	i.native.SetLimits(lim.MemoryBytes, lim.EvalAllowed, lim.WasmAllowed, lim.Timers, lim.Pending)
	for _, m := range b.Modules {
		i.native.AddModule(m.Name, uint8(m.Kind), m.Code)
	}
	i.native.AddCodeCache(b.CodeCache)
	for _, v := range env {
		i.native.AddEnv(v.Name, v.JSON, v.Value)
	}
	t := i.turn(i.native.Load(nowMs, b.Main))
	var out LoadOutcome
	for r := range t.all() {
		switch uint8(r.Kind) {
		case native.Loaded:
			out.Handlers = strings.FieldsFunc(string(r.Text), func(c rune) bool { return c == '\n' })
		case native.Diagnostic:
			out.Failure = &Failure{File: string(r.Text), Message: string(r.Data), Line: r.N, Column: r.ID}
		case native.Excerpt:
			if out.Failure != nil {
				out.Failure.Excerpt, out.Failure.Stack = string(r.Text), string(r.Data)
			}
		}
	}
	return out, t
}

// CodeCache returns what V8 has compiled of the bundle's ES modules so far, for the next Load of the
// same bundle: call it between turns, after the first requests, so that their functions are in it. It
// is nil when there is nothing to keep, or more than 4 MiB. See Bundle.CodeCache for who may use it.
func (i *Isolate) CodeCache() []byte { return i.native.CodeCache() }

// Request starts an invocation.
func (i *Isolate) Request(nowMs float64, r Request) Turn {
	return i.turn(i.native.Request(nowMs, r.Inv, r.Method, r.URL, r.Headers, uint8(r.BodyMode), r.Body, r.RequestID, r.Attempt))
}

// Chunk delivers bytes of a request body.
func (i *Isolate) Chunk(nowMs float64, inv uint32, data []byte) Turn {
	return i.turn(i.native.Chunk(nowMs, inv, data))
}

// End says that a request body is complete.
func (i *Isolate) End(nowMs float64, inv uint32) Turn { return i.turn(i.native.End(nowMs, inv)) }

// Abort tells an invocation that its client left, or that its body failed or is not wanted.
// reason is a gen.Abort_Reason.
func (i *Isolate) Abort(nowMs float64, inv uint32, reason uint8, msg string) Turn {
	return i.turn(i.native.Abort(nowMs, inv, reason, msg))
}

// Window grants n more bytes of a response body.
func (i *Isolate) Window(nowMs float64, inv uint32, n uint32) Turn {
	return i.turn(i.native.Window(nowMs, inv, n))
}

// Timer runs the timers due at or before nominalMs, which becomes the clock, as far as they belong
// to the invocation of the first; for the others the turn asks to be called again.
func (i *Isolate) Timer(nominalMs float64) Turn { return i.turn(i.native.Timer(nominalMs)) }

// OpResult answers the operation of an Op record.
func (i *Isolate) OpResult(nowMs float64, op uint32, ok bool, meta string, data []byte) Turn {
	return i.turn(i.native.OpResult(nowMs, op, ok, meta, data))
}

// Done says that t, the last turn, has been read: its records are gone. A large output is given
// back now, because a tenant's next turn may be hours away and this memory counts against nobody.
func (i *Isolate) Done(t *Turn) {
	if len(t.out) > keepOutput {
		i.native.DropOutput()
		i.outputs++
	}
	t.out = nil
}

// Terminate stops the turn that is running and reports whether there was one: nothing is
// remembered for the next. It may be called from any thread, also after Dispose. V8 drops the
// microtasks that were waiting, so other invocations of the isolate may be left without one.
func (i *Isolate) Terminate(r Reason) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return !i.gone && i.native.Terminate(uint8(r))
}

// Usage may be called from any thread, also after Dispose (when all is zero).
func (i *Isolate) Usage() Usage {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.gone {
		return Usage{}
	}
	var u Usage
	u.HeapBytes, u.ExternalBytes, u.LimitBytes = i.native.Usage()
	return u
}

// Trim makes the isolate of an idle tenant small: garbage is collected, spare memory goes back to
// the kernel. It is for the thread that would otherwise run a turn, takes 1 to 2 ms of CPU with a
// small heap, and forbids no turn: the next one is some 0.1 ms slower. The tenant cannot observe
// it (its FinalizationRegistry callbacks wait for I/O). The output of the last turn is gone.
func (i *Isolate) Trim() {
	i.native.Trim(true)
	i.outputs++
}

// TrimLightly is Trim for a tenant that may soon be asked again: it collects only if the isolate has grown by
// more than 64 KiB since it was last collected, and takes a third of the time if not. What a tenant has
// dropped and not replaced stays until Trim. It reports whether it collected.
func (i *Isolate) TrimLightly() bool {
	i.outputs++
	return i.native.Trim(false)
}

// Dispose gives everything back. No turn may be running; one that follows ends Fatal, whatever it
// brings: an answer that came too late, a timer.
func (i *Isolate) Dispose() {
	i.mu.Lock()
	if i.gone {
		i.mu.Unlock()
		return
	}
	i.gone = true
	gone := i.native
	i.native = native.Isolate{}
	i.mu.Unlock()
	i.outputs++
	gone.Dispose()
}

func (i *Isolate) turn(n native.Turn) Turn {
	i.outputs++
	return Turn{
		of: i, output: i.outputs,

		Status:      TurnStatus(n.Status),
		Reason:      Reason(n.Reason),
		CPU:         time.Duration(n.CPUNanos),
		NextTimerMs: n.NextTimerMs, NextTimerInv: n.NextTimerInv,
		out: n.Out,
	}
}
