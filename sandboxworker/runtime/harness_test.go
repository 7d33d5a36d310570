package runtime_test

import (
	"fmt"
	"os"
	"os/exec"
	goruntime "runtime"
	"strings"
	"testing"

	"bulkhead/policy/limits"
	"bulkhead/policy/seccomp"
	"bulkhead/sandboxworker/engine"
	"bulkhead/sandboxworker/runtime"
	"bulkhead/schema/gen"
)

// shared is V8 with the runtime, once in this test process.
var shared *engine.Engine

// profileEnv names the profile of a child test process: V8's flags are global.
const profileEnv = "RUNTIME_TEST_PROFILE"

func TestMain(m *testing.M) {
	profile := seccomp.JIT
	if name := os.Getenv(profileEnv); name != "" {
		var err error
		if profile, err = seccomp.ParseProfile(name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
	}
	e, err := engine.Init(engine.Config{Profile: profile, Source: runtime.Source(), Data: runtime.Data(), HeapMaxBytes: 128 << 20})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	shared = e
	os.Exit(m.Run())
}

// The other profiles run the same script: no JIT, and WebAssembly present.
func TestOtherProfiles(t *testing.T) {
	if os.Getenv(profileEnv) != "" {
		return // this is the child
	}
	for _, p := range []seccomp.Profile{seccomp.Jitless, seccomp.JITWasm} {
		t.Run(p.String(), func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^(TestHandlerShapes|TestStreams|TestWebPlatform|TestShapes|TestMinimumCommonShapes|TestWasmStreaming|TestMessages|TestURLPattern|TestLegacyEncodings|TestCrypto|TestCompressionStreams|TestAsyncLocalStorage|TestConsole|TestRequestBody|TestTimers|TestPollutedPrototypes)$", "-test.v")
			cmd.Env = append(os.Environ(), profileEnv+"="+p.String())
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "--- PASS: TestWebPlatform") {
				t.Fatalf("%v\n%s", err, out)
			}
		})
	}
}

// epoch is the JS clock at which tests start.
const epoch = 1_700_000_000_000.0

// worker is one loaded tenant and what a scheduler would know of it. Turns run on the test's goroutine.
type worker struct {
	t       testing.TB
	iso     *engine.Isolate
	now     float64
	timer   float64
	ops     []op
	logs    []string
	host    runtime.Host
	answers map[uint32]*answer
	inv     uint32 // of the last request that serve did
	turns   int    // that serve took
}

type op struct {
	id, code uint32
	meta     string
	data     []byte
}

// answer is what came of one invocation.
type answer struct {
	head     bool
	status   int
	headers  string
	mode     gen.BodyMode
	body     strings.Builder
	chunks   []int // sizes
	ended    bool
	aborted  string
	credit   uint64
	refused  bool
	finished int
	outcome  gen.Outcome
	message  string
}

func (a *answer) header(name string) string {
	parts := strings.Split(a.headers, "\n")
	for i := 0; i+1 < len(parts); i += 2 {
		if parts[i] == name {
			return parts[i+1]
		}
	}
	return ""
}

var testLimits = engine.Limits{MemoryBytes: 128 << 20, Timers: 400, Pending: 8192, WasmAllowed: true}

// tryLoad loads a worker's main module; the outcome says whether it started.
func tryLoad(t testing.TB, src string, env ...engine.EnvVar) (*worker, engine.LoadOutcome) {
	t.Helper()
	goruntime.LockOSThread()
	t.Cleanup(goruntime.UnlockOSThread)
	iso, err := shared.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(iso.Dispose)
	w := &worker{t: t, iso: iso, now: epoch, timer: -1, answers: map[uint32]*answer{}}
	t.Cleanup(w.host.Close)
	out, turn := iso.Load(engine.Bundle{Main: "/worker.js", Modules: []engine.Module{{Name: "/worker.js", Code: []byte(src)}}},
		env, testLimits, w.now)
	w.take(turn)
	return w, out
}

func load(t testing.TB, src string, env ...engine.EnvVar) *worker {
	t.Helper()
	w, out := tryLoad(t, src, env...)
	if out.Failure != nil || out.Handlers == nil {
		t.Fatalf("load: %+v, logs %q", out.Failure, w.logs)
	}
	return w
}

func (w *worker) answer(inv uint32) *answer {
	a := w.answers[inv]
	if a == nil {
		a = &answer{}
		w.answers[inv] = a
	}
	return a
}

// take collects a turn's records and checks what must hold of every stream.
func (w *worker) take(turn engine.Turn) {
	w.t.Helper()
	if turn.Status != engine.OK {
		w.t.Fatalf("turn: %v %v, logs %q", turn.Status, turn.Reason, w.logs)
	}
	for r := range turn.Records() {
		a := w.answer(r.Inv)
		if r.Inv != 0 && a.finished > 0 && r.Kind != engine.RecordLog {
			w.t.Errorf("record %d after finish of %d", r.Kind, r.Inv)
		}
		switch r.Kind {
		case engine.RecordHead:
			if a.head {
				w.t.Errorf("two heads for %d", r.Inv)
			}
			a.head, a.status, a.mode, a.headers = true, r.Status, r.BodyMode, string(r.Headers)
			a.body.Write(r.Data)
			if len(r.Data) > limits.DefaultWire().ChunkBytes {
				w.t.Errorf("a head with %d body bytes", len(r.Data))
			}
		case engine.RecordChunk:
			if len(r.Data) > limits.DefaultWire().ChunkBytes || len(r.Data) == 0 {
				w.t.Errorf("a chunk of %d bytes", len(r.Data))
			}
			a.body.Write(r.Data)
			a.chunks = append(a.chunks, len(r.Data))
		case engine.RecordEnd:
			a.ended = true
		case engine.RecordAbort:
			a.aborted = string(r.Text)
		case engine.RecordCredit:
			a.credit += uint64(r.N)
		case engine.RecordRefuse:
			a.refused = true
		case engine.RecordFinished:
			a.finished++
			a.outcome, a.message = r.Outcome, string(r.Text)
		case engine.RecordLog:
			w.logs = append(w.logs, fmt.Sprintf("%d %v %s", r.Inv, r.Level, r.Text))
		case engine.RecordOp:
			w.ops = append(w.ops, op{r.ID, r.Code, string(r.Text), append([]byte(nil), r.Data...)})
		}
	}
	w.timer = turn.NextTimerMs
}

// settle does what the scheduler does between events: operations, then timers, until nothing is due.
func (w *worker) settle() {
	w.t.Helper()
	for range 10_000 {
		if len(w.ops) > 0 {
			o := w.ops[0]
			w.ops = w.ops[1:]
			ok, meta, data := w.host.Do(o.code, o.meta, o.data)
			w.take(w.iso.OpResult(w.now, o.id, ok, meta, data))
			continue
		}
		if w.timer < 0 {
			return
		}
		w.now = max(w.now, w.timer)
		w.take(w.iso.Timer(w.now))
	}
	w.t.Fatal("it never settles")
}

// send delivers a request without running timers or operations.
func (w *worker) send(inv uint32, r engine.Request) *answer {
	w.t.Helper()
	r.Inv = inv
	if r.Method == "" {
		r.Method = "GET"
	}
	if r.URL == "" {
		r.URL = "http://t.localhost/"
	}
	w.take(w.iso.Request(w.now, r))
	return w.answer(inv)
}

// do sends a request and settles it.
func (w *worker) do(r engine.Request) *answer {
	w.t.Helper()
	inv := uint32(len(w.answers) + 100)
	w.send(inv, r)
	w.settle()
	return w.answer(inv)
}

// get is do for a plain GET that must succeed; it returns the body.
func (w *worker) get() string {
	w.t.Helper()
	a := w.do(engine.Request{})
	if a.finished != 1 || a.outcome != gen.Outcome_ok {
		w.t.Fatalf("finished %d times, outcome %v: %s\nlogs %s", a.finished, a.outcome, a.message, strings.Join(w.logs, "\n"))
	}
	return a.body.String()
}

// script runs the body of an async function in a worker of its own. `eq(got, want, what)` compares by
// JSON, `throws(f, Error, what)` wants an exception; each failure is a test error.
func script(t *testing.T, body string) *worker {
	t.Helper()
	w := load(t, scriptPrelude+"export default { async fetch(request, env, ctx) {\n"+body+"\n;return new Response(failures.join('\\n')); } }")
	if got := w.get(); got != "" {
		t.Error(got)
	}
	for _, l := range w.logs { // none of the runtime's own promises may be left unhandled
		t.Error("log: ", l)
	}
	return w
}

const scriptPrelude = `
const failures = [];
const show = (v) => { try { return JSON.stringify(v) ?? String(v); } catch { return String(v); } };
const fail = (what) => { failures.push(what); };
const ok = (v, what) => { if (!v) fail(what); };
const eq = (got, want, what) => { if (!Object.is(got, want) && show(got) !== show(want)) fail(what + ": got " + show(got) + ", want " + show(want)); };
const check = (e, type, what) => {
  if (typeof type === "string") { if (!(e instanceof DOMException) || e.name !== type) fail(what + ": threw " + e + ", want " + type); }
  else if (!(e instanceof type)) fail(what + ": threw " + e + " instead of " + type.name);
};
const throws = (f, type, what) => { try { f(); } catch (e) { check(e, type, what); return e; } fail(what + ": did not throw"); };
const rejects = async (p, type, what) => { try { await p; } catch (e) { check(e, type, what); return e; } fail(what + ": did not reject"); };
`
