package engine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"bulkhead/sandboxworker/engine/native"
	"bulkhead/schema/gen"
)

func TestStreaming(t *testing.T) {
	locked(t)
	i := load(t, `export default { fetch(r) {
		raw.respond(r.inv, 200, "", 2, raw.utf8Encode("first"));
		r.onchunk = (u8) => raw.chunk(r.inv, u8.map((c) => c + 1));
		r.onend = () => { raw.end(r.inv); raw.finish(r.inv, 1, "done"); };
		r.onabort = (reason, message) => { raw.abort(r.inv, "why: " + message); raw.refuse(r.inv); };
		r.onwindow = (n) => log("window " + n);
		return "later";
	} }`)
	render := func(turn Turn) string {
		var b strings.Builder
		for r := range turn.Records() {
			fmt.Fprintf(&b, "%d:%d:%s:%s:%d ", r.Kind, r.Inv, r.Text, r.Data, r.N)
		}
		return b.String()
	}
	// The records of a turn live until the next: each is read before going on.
	for _, tt := range []struct {
		do   func() Turn
		want string
	}{
		{func() Turn {
			return i.Request(epoch, Request{Inv: 9, Method: "POST", URL: "http://t/", BodyMode: gen.BodyMode_streamed})
		}, "1:9::first:0 "},
		{func() Turn { return i.Chunk(epoch, 9, []byte("abc")) }, "5:9:::3 2:9::bcd:0 "},
		{func() Turn { return i.Chunk(epoch, 9, nil) }, "5:9:::0 2:9:::0 "},
		{func() Turn { return i.Window(epoch, 9, 77) }, "7:0:window 77::0 "},
		{func() Turn { return i.End(epoch, 9) }, "3:9:::0 6:9:done::0 "},
		{func() Turn { return i.Abort(epoch, 9, 1, "gone") }, "4:9:why: gone::0 9:9:::0 "},
	} {
		turn := tt.do()
		if got := render(turn); turn.Status != OK || got != tt.want {
			t.Errorf("%v, got %q, want %q", turn.Status, got, tt.want)
		}
	}
	j := load(t, `export default { fetch: (r) => ({ chunks: ["a", "b"], headers: "k\nv\n" }) }`)
	turn := get(j, 2)
	if got, want := render(turn), "1:2:::0 2:2::a:0 2:2::b:0 3:2:::0 6:2:::0 "; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestFrozenClock(t *testing.T) {
	locked(t)
	i := load(t, `
		const f = new Intl.DateTimeFormat("en", { dateStyle: "short", timeStyle: "medium", fractionalSecondDigits: undefined });
		const read = () => [Date.now(), +new Date(), new Date().getTime(), raw.now(), f.format(), f.format(undefined), Date().length > 10].join();
		export default { async fetch() {
			const first = read();
			const zone = [new Date().getTimezoneOffset(), Intl.DateTimeFormat().resolvedOptions().timeZone, Intl.DateTimeFormat().resolvedOptions().locale];
			for (let n = 0; n < 300; n++) { const until = 2e4; for (let k = 0; k < until; k++); await null; if (read() !== first) return "it moved"; }
			return [first, ...zone].join("|");
		} }`)
	ask := func(ms float64) string {
		turn := i.Request(ms, Request{Inv: 1, Method: "GET", URL: "http://t/"})
		return body(t, &turn)
	}
	want := "1700000000000,1700000000000,1700000000000,1700000000000,11/14/23, 10:13:20 PM,11/14/23, 10:13:20 PM,true|0|UTC|en-US"
	if got := ask(epoch); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := ask(epoch + 61_000); !strings.HasPrefix(got, "1700000061000,") || !strings.Contains(got, "10:14:21") {
		t.Errorf("a minute later: %q", got)
	}
	if got := ask(epoch); !strings.HasPrefix(got, "1700000061000,") {
		t.Errorf("the clock went back: %q", got)
	}
}

func TestTimersRunInOrderAtTheirNominalTime(t *testing.T) {
	locked(t)
	i := load(t, `const seen = [];
		export default { async fetch(r) {
			for (const ms of [30, 10, 20, 0]) setTimeout(() => { seen.push(ms + "@" + (Date.now() - 1700000000000)); Promise.resolve().then(() => seen.push("m")); }, ms);
			if (r.inv === 1) return "armed";
			return seen.join(" ");
		} }`)
	turn := get(i, 1)
	if turn.NextTimerMs != epoch+1 {
		t.Fatalf("next timer %v", turn.NextTimerMs-epoch)
	}
	turn = i.Timer(epoch + 1)
	if turn.NextTimerMs != epoch+10 {
		t.Errorf("then %v", turn.NextTimerMs-epoch)
	}
	turn = i.Timer(epoch + 25) // late: two are due
	if turn.NextTimerMs != epoch+30 {
		t.Errorf("then %v", turn.NextTimerMs-epoch)
	}
	turn = i.Timer(epoch + 30)
	if turn.NextTimerMs >= 0 {
		t.Errorf("none is left, but %v", turn.NextTimerMs)
	}
	turn = get(i, 2)
	if got, want := body(t, &turn), "0@1 m 10@25 m 20@25 m 30@30 m"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOperations(t *testing.T) {
	locked(t)
	i := load(t, `export default { async fetch(r) {
		const a = await op(7, "mëta", raw.utf8Encode("data"));
		const b = await op(8, "", undefined).catch((e) => e.message);
		return a.meta + raw.utf8Decode(a.data) + b;
	} }`)
	find := func(turn *Turn) Record {
		for r := range turn.Records() {
			if r.Kind == RecordOp {
				return r
			}
		}
		t.Fatal("no operation")
		return Record{}
	}
	turn := get(i, 1)
	r := find(&turn)
	if r.Code != 7 || string(r.Text) != "mëta" || string(r.Data) != "data" {
		t.Errorf("%+v", r)
	}
	turn = i.OpResult(epoch, r.ID, true, "ök", []byte("bytes"))
	r = find(&turn)
	turn = i.OpResult(epoch, r.ID, false, " failed", nil)
	if got := body(t, &turn); got != "ökbytes failed" {
		t.Errorf("got %q", got)
	}
}

func TestRejections(t *testing.T) {
	locked(t)
	i := load(t, `let later;
		export default { async fetch(r) {
			if (r.inv === 2) { later.catch(() => {}); return "handled"; }
			Promise.reject("soon").catch(() => {});
			const p = Promise.reject("same turn"); Promise.resolve().then(() => p.catch(() => {}));
			later = Promise.reject("later");
			Promise.reject({ toString() { throw new Error("hostile"); } });
			return "rejected";
		} }`)
	turn := get(i, 1)
	logs := strings.Join(texts(&turn), "\n")
	if !strings.Contains(logs, "rejection 0 later") || strings.Contains(logs, "soon") || strings.Contains(logs, "same turn") || !strings.Contains(logs, "hostile") {
		t.Errorf("logs: %s", logs)
	}
	turn = get(i, 2)
	if logs := strings.Join(texts(&turn), "\n"); !strings.Contains(logs, "rejection 1") {
		t.Errorf("logs: %s", logs)
	}
}

func TestHandlerErrorsEndTheInvocation(t *testing.T) {
	locked(t)
	i := load(t, `const respond = raw.respond; export default { fetch(r) { r.respond = 0; raw.respond(r.inv, 1, "", 1, "x"); } }`)
	turn := get(i, 4)
	var outcomes []string
	for r := range turn.Records() {
		if r.Kind == RecordFinished {
			outcomes = append(outcomes, fmt.Sprintf("%d %v", r.Inv, r.Outcome))
		}
	}
	if turn.Status != OK || len(outcomes) != 1 || outcomes[0] != "4 exception" {
		t.Errorf("%v %v", turn.Status, outcomes)
	}
	// An unknown invocation makes the test runtime's own handler throw: a log line, no more.
	turn = i.Chunk(epoch, 999, []byte("x"))
	if logs := texts(&turn); turn.Status != OK || len(logs) == 0 || !strings.Contains(logs[0], "handler chunk threw") {
		t.Errorf("%v %v", turn.Status, logs)
	}
}

func TestFinalizationWaitsForIO(t *testing.T) {
	locked(t)
	i := load(t, `let done = 0; const reg = new FinalizationRegistry(() => done++);
		const churn = () => { const keep = []; for (let n = 0; n < 300; n++) keep.push(new Array(20000).fill(n)); };
		export default { async fetch(r) {
			if (r.url.endsWith("make")) {
				(() => { for (let n = 0; n < 100; n++) reg.register({ n }, n); })();
				churn(); await null; churn(); await null;
				return String(done);
			}
			churn();
			return String(done);
		} }`)
	turn := i.Request(epoch, Request{Inv: 1, Method: "GET", URL: "http://t/make"})
	if got := body(t, &turn); got != "0" {
		t.Errorf("%s callbacks ran within the turn that dropped the objects", got)
	}
	for range 20 {
		turn = i.Request(epoch, Request{Inv: 2, Method: "GET", URL: "http://t/"})
		if body(t, &turn) != "0" {
			return
		}
	}
	t.Error("no callback ran after twenty I/O events")
}

func TestUncaughtErrorsOfTasksAreLogged(t *testing.T) {
	locked(t)
	i := load(t, `const reg = new FinalizationRegistry(() => { throw new RangeError("nobody catches this"); });
		export default { async fetch(r) {
			(() => { for (let n = 0; n < 100; n++) reg.register({ n }, n); })();
			const keep = []; for (let n = 0; n < 300; n++) keep.push(new Array(20000).fill(n));
			return "x";
		} }`)
	for range 20 {
		turn := get(i, 1)
		if logs := strings.Join(texts(&turn), "\n"); strings.Contains(logs, "RangeError: nobody catches this") && strings.Contains(logs, "worker.js:1") {
			return
		}
	}
	t.Error("an uncaught error left no line in the log")
}

func TestCodeCacheServesEveryIsolate(t *testing.T) {
	locked(t)
	if n := native.CodeCacheSize(); n < 1000 {
		t.Fatalf("a code cache of %d bytes", n)
	}
	start := time.Now()
	for range 10 {
		newIsolate(t) // fails when V8 rejects the cache
	}
	t.Logf("a bootstrapped isolate: %v", time.Since(start)/10)
}
