package engine

import (
	"os"
	"strings"
	"testing"

	"bulkhead/sandboxworker/runtime"
	"bulkhead/schema/gen"
)

// runtimeEnv makes a child test process run the shipped runtime instead of the small one.
const runtimeEnv = "ENGINE_TEST_RUNTIME"

// withRuntime runs the calling test again in a process with the shipped runtime.
func withRuntime(t *testing.T) bool {
	t.Helper()
	if os.Getenv(runtimeEnv) != "" {
		return false
	}
	child(t, runtimeEnv+"=shipped", "with the shipped runtime")
	return true
}

func source() []byte {
	if os.Getenv(runtimeEnv) != "" {
		return runtime.Source()
	}
	return testRuntime
}

func TestShippedRuntime(t *testing.T) {
	if withRuntime(t) {
		return
	}
	locked(t)
	i := newIsolate(t)
	out, turn := i.Load(one(`
		let seen = 0;
		export default { async fetch(request, env, ctx) {
			const url = new URL(request.url);
			if (url.pathname === "/throw") throw new TypeError("mine");
			if (url.pathname === "/hang") await new Promise(() => {});
			if (url.pathname === "/sleep") await new Promise((r) => setTimeout(r, 25));
			if (url.pathname === "/sum") return Response.json([...new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode("x")))].length);
			console.log("seen", { n: ++seen }, [1, "2"]);
			const text = await request.text();
			return new Response(text.toUpperCase() + env.GREETING + url.searchParams.get("q"), { status: 202, headers: { "X-Kind": "t" } });
		} };`), []EnvVar{{Name: "GREETING", Value: "!"}}, Limits{MemoryBytes: 64 << 20, Timers: 100, Pending: 100}, epoch)
	if out.Failure != nil || turn.Status != OK || strings.Join(out.Handlers, ",") != "fetch" {
		t.Fatalf("load: %v %+v %v", turn.Status, out, texts(&turn))
	}
	request := func(inv uint32, path string) Turn {
		return i.Request(epoch, Request{Inv: inv, Method: "POST", URL: "http://t.localhost" + path, Headers: []byte("content-type\ntext/plain\n"),
			Body: []byte("body"), BodyMode: gen.BodyMode_whole, RequestID: "r", Attempt: 1})
	}
	summary := func(turn *Turn) (status int, data string, outcome gen.Outcome, log string) {
		for r := range turn.Records() {
			switch r.Kind {
			case RecordHead:
				status = r.Status
				data += string(r.Data)
			case RecordChunk:
				data += string(r.Data)
			case RecordFinished:
				outcome = r.Outcome
			case RecordLog:
				log += string(r.Text)
			}
		}
		return
	}
	turn = request(1, "/?q=a%20b")
	if s, d, o, l := summary(&turn); turn.Status != OK || s != 202 || d != "BODY!a b" || o != gen.Outcome_ok || !strings.Contains(l, "n: 1") {
		t.Errorf("plain: %v %d %q %v %q", turn.Status, s, d, o, l)
	}
	turn = request(2, "/throw")
	if _, _, o, l := summary(&turn); o != gen.Outcome_exception {
		t.Errorf("throw: %v %q", o, l)
	}
	turn = request(3, "/hang")
	if _, _, o, _ := summary(&turn); o != gen.Outcome_exception {
		t.Errorf("hang: %v", o)
	}
	turn = request(4, "/sleep")
	if turn.NextTimerMs != epoch+25 {
		t.Fatalf("sleep: next timer %v", turn.NextTimerMs)
	}
	turn = i.Timer(turn.NextTimerMs)
	if s, d, o, _ := summary(&turn); s != 202 || d != "BODY!null" || o != gen.Outcome_ok {
		t.Errorf("sleep: %d %q %v", s, d, o)
	}
	turn = request(5, "/sum")
	var op Record
	for r := range turn.Records() {
		if r.Kind == RecordOp {
			op = r
		}
	}
	ok, meta, res := new(runtime.Host).Do(op.Code, string(op.Text), op.Data)
	turn = i.OpResult(epoch, op.ID, ok, meta, res)
	if s, d, o, _ := summary(&turn); s != 200 || d != "32" || o != gen.Outcome_ok {
		t.Errorf("digest: %d %q %v", s, d, o)
	}
}

func BenchmarkHello(b *testing.B) {
	locked(b)
	i := load(b, `export default { async fetch(r) { return new Response("hello"); } }`)
	b.ReportAllocs()
	for b.Loop() {
		turn := get(i, 1)
		if turn.Status != OK {
			b.Fatal(turn.Status)
		}
		for range turn.Records() {
		}
	}
}

func BenchmarkNewIsolate(b *testing.B) {
	locked(b)
	for b.Loop() {
		i, err := shared.New()
		if err != nil {
			b.Fatal(err)
		}
		i.Dispose()
	}
}
