package engine

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"bulkhead/policy/seccomp"
	"bulkhead/schema/gen"
)

//go:embed testdata/runtime.js
var testRuntime []byte

// shared is V8 in this test process. V8's flags are global, so other profiles run in children.
var shared *Engine

// profileEnv names the profile a child test process is for.
const profileEnv = "ENGINE_TEST_PROFILE"

func TestMain(m *testing.M) {
	profile := seccomp.JIT
	if name := os.Getenv(profileEnv); name != "" {
		var err error
		if profile, err = seccomp.ParseProfile(name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
	}
	e, err := Init(Config{Profile: profile, Source: source(), HeapMaxBytes: 64 << 20})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	shared = e
	os.Exit(m.Run())
}

// inChild runs the calling test again in a process of another profile, and reports whether this
// is the parent (whose work is then done).
func inChild(t *testing.T, p seccomp.Profile) bool {
	t.Helper()
	if os.Getenv(profileEnv) == p.String() {
		return false
	}
	child(t, profileEnv+"="+p.String(), "in a "+p.String()+" process")
	return true
}

// child runs the calling test in a process of its own, with one more environment variable.
func child(t *testing.T, env, what string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v")
	cmd.Env = append(os.Environ(), env)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "PASS: "+t.Name()) {
		t.Fatalf("%s: %v\n%s", what, err, out)
	}
}

const epoch = 1_700_000_000_000.0

func newIsolate(t testing.TB) *Isolate {
	t.Helper()
	i, err := shared.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Dispose)
	return i
}

// load gives a fresh isolate one module and fails the test when it does not start.
func load(t testing.TB, src string) *Isolate {
	t.Helper()
	return loadBundle(t, Bundle{Main: "/worker.js", Modules: []Module{{Name: "/worker.js", Code: []byte(src)}}}, Limits{MemoryBytes: 64 << 20, Timers: 100, Pending: 100})
}

func loadBundle(t testing.TB, b Bundle, lim Limits) *Isolate {
	t.Helper()
	i := newIsolate(t)
	out, turn := i.Load(b, nil, lim, epoch)
	if out.Failure != nil || turn.Status != OK || out.Handlers == nil {
		t.Fatalf("load: %v %v %+v %v", turn.Status, turn.Reason, out.Failure, texts(&turn))
	}
	return i
}

// fails loads a bundle that must not start.
func fails(t testing.TB, b Bundle) *Failure {
	t.Helper()
	out, turn := newIsolate(t).Load(b, nil, Limits{MemoryBytes: 64 << 20, Timers: 100, Pending: 100}, epoch)
	if out.Failure == nil || out.Handlers != nil {
		t.Fatalf("it started (%v, handlers %v)", turn.Status, out.Handlers)
	}
	return out.Failure
}

func one(src string) Bundle {
	return Bundle{Main: "/worker.js", Modules: []Module{{Name: "/worker.js", Code: []byte(src)}}}
}

func get(i *Isolate, inv uint32) Turn {
	return i.Request(epoch, Request{Inv: inv, Method: "GET", URL: "http://t.localhost/"})
}

// ask sends a GET and returns the body of the response.
func ask(t testing.TB, i *Isolate) string {
	t.Helper()
	turn := get(i, 7)
	return body(t, &turn)
}

func body(t testing.TB, turn *Turn) string {
	t.Helper()
	var b strings.Builder
	heads := 0
	for r := range turn.Records() {
		switch r.Kind {
		case RecordHead:
			heads++
			b.Write(r.Data)
		case RecordChunk:
			b.Write(r.Data)
		}
	}
	if turn.Status != OK || heads != 1 {
		t.Fatalf("turn %v %v, %d heads: %v", turn.Status, turn.Reason, heads, texts(turn))
	}
	return b.String()
}

func texts(turn *Turn) []string {
	var out []string
	for r := range turn.Records() {
		if len(r.Text) > 0 {
			out = append(out, string(r.Text))
		}
	}
	return out
}

func locked(t testing.TB) {
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
}

func TestRequestRespond(t *testing.T) {
	locked(t)
	i := load(t, `export default { async fetch(r, env) {
		await null;
		return { status: 201, headers: "x-a\n1\n", body: [r.method, r.url, r.headers, r.requestId, r.attempt, r.mode, raw.utf8Decode(r.body, true, false)].join("|") };
	} }`)
	turn := i.Request(epoch, Request{Inv: 3, Method: "POST", URL: "http://t.localhost/ü?q", Headers: []byte("a\nb\xff\n"),
		Body: []byte("böd"), BodyMode: gen.BodyMode_whole, RequestID: "id-1", Attempt: 2})
	if turn.Status != OK || turn.NextTimerMs >= 0 || turn.CPU <= 0 {
		t.Errorf("turn: %+v", turn)
	}
	var kinds []RecordKind
	for r := range turn.Records() {
		kinds = append(kinds, r.Kind)
		if r.Inv != 3 {
			t.Errorf("a record of invocation %d", r.Inv)
		}
		if r.Kind == RecordHead {
			if r.Status != 201 || string(r.Headers) != "x-a\n1\n" || r.BodyMode != gen.BodyMode_whole {
				t.Errorf("head: %+v", r)
			}
			if got, want := string(r.Data), "POST|http://t.localhost/ü?q|a\nb\u00ff\n|id-1|2|1|böd"; got != want {
				t.Errorf("body %q, want %q", got, want)
			}
		}
		if r.Kind == RecordFinished && r.Outcome != gen.Outcome_ok {
			t.Errorf("outcome %v %s", r.Outcome, r.Text)
		}
	}
	if len(kinds) != 2 || kinds[0] != RecordHead || kinds[1] != RecordFinished {
		t.Errorf("records %v", kinds)
	}
}
