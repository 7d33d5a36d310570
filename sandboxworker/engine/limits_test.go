package engine

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead/policy/seccomp"
)

// rss returns this process's resident set in bytes.
func rss(t testing.TB) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(string(bytes.Fields(b)[1]))
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

func TestTerminateAndReuse(t *testing.T) {
	for name, loop := range map[string]string{
		"loop":            `for (;;);`,
		"catches":         `for (;;) { try { for (;;); } catch {} }`,
		"finally":         `try { for (;;); } finally { for (;;); }`,
		"regexp":          `/(a+)+$/.test("a".repeat(60) + "b")`,
		"microtasks":      `(function f() { Promise.resolve().then(f); })(); await new Promise(() => {});`,
		"getter":          `for (;;) ({ get x() { for (;;); } }).x;`,
		"comparator":      `[2, 1, 3].sort(() => { for (;;); })`,
		"rejections":      `(async function f() { Promise.reject(1); await null; return f(); })(); await 0; for (;;);`,
		"generator":       `for (const x of (function* () { for (;;) yield 1; })());`,
		"unrolled":        `function f() { const a = new Array(100); for (let i = 0; i < 100; i++) a[i] = i; return a; } for (;;) { f() }`,
		"async generator": `for await (const x of (async function* () { for (;;) yield 1; })());`,
		"stack overflow":  `function f() { try { f(); } finally { f(); } } f();`,
	} {
		t.Run(name, func(t *testing.T) {
			locked(t)
			i := load(t, `export default { async fetch(r) { if (r.inv > 1) return "fine " + r.inv; `+loop+` } }`)
			for round := range 2 {
				stopped := make(chan time.Time, 1)
				timer := time.AfterFunc(60*time.Millisecond, func() {
					stopped <- time.Now()
					if !i.Terminate(ReasonCPU) {
						t.Error("no turn to stop")
					}
				})
				turn := get(i, 1)
				lag := time.Since(<-stopped)
				timer.Stop()
				if turn.Status != Terminated || turn.Reason != ReasonCPU {
					t.Fatalf("round %d: %v %v %v", round, turn.Status, turn.Reason, texts(&turn))
				}
				if turn.CPU <= 0 || lag > time.Second {
					t.Errorf("round %d: %v of CPU, %v late", round, turn.CPU, lag)
				}
				next := get(i, 2)
				if got := body(t, &next); got != "fine 2" {
					t.Errorf("after the stop: %q", got)
				}
			}
		})
	}
}

func TestTerminateBetweenTurnsIsForgotten(t *testing.T) {
	locked(t)
	i := load(t, `export default { fetch: () => "ok" }`)
	if i.Terminate(ReasonWall) {
		t.Error("it stopped a turn that was not running")
	}
	if got := ask(t, i); got != "ok" {
		t.Errorf("got %q", got)
	}
	gone := newIsolate(t)
	gone.Dispose()
	if gone.Terminate(ReasonCPU) || gone.Usage() != (Usage{}) {
		t.Error("a disposed isolate answered")
	}
}

func TestStartupLoopIsStopped(t *testing.T) {
	locked(t)
	i := newIsolate(t)
	timer := time.AfterFunc(50*time.Millisecond, func() { i.Terminate(ReasonCPU) })
	defer timer.Stop()
	out, turn := i.Load(one(`for (;;);`), nil, Limits{}, epoch)
	if turn.Status != Terminated || out.Failure != nil || out.Handlers != nil {
		t.Errorf("%v %+v", turn.Status, out)
	}
}

func TestBufferLimitIsRangeError(t *testing.T) {
	locked(t)
	i := load(t, `const kept = [];
		export default { fetch(r) {
			if (r.url.endsWith("free")) { kept.length = 0; return "freed"; }
			try { for (;;) kept.push(new Uint8Array(1 << 20).fill(1)); } catch (e) { return e.name + " " + (kept.length > 30 && kept.length < 65); }
		} }`)
	for range 3 {
		if got := ask(t, i); got != "RangeError true" {
			t.Errorf("got %q", got)
		}
		if u := i.Usage(); u.ExternalBytes > 64<<20 || u.ExternalBytes < 30<<20 {
			t.Errorf("usage %+v", u)
		}
		turn := i.Request(epoch, Request{Inv: 2, Method: "GET", URL: "http://t/free"})
		if got := body(t, &turn); got != "freed" {
			t.Errorf("got %q", got)
		}
	}
}

// Each of these must end the turn OutOfMemory, or be refused with an exception, with the process
// alive and its memory bounded.
func TestMemoryBombs(t *testing.T) {
	for name, tt := range map[string]struct{ code, answer string }{
		"objects":     {code: `const a = []; for (;;) a.push({ x: [1, 2, 3] });`},
		"strings":     {code: `const a = []; for (let i = 0;; i++) a.push("x".repeat(1000) + i + Array(100).join("y"));`},
		"closures":    {code: `let f = () => 0; for (;;) { const g = f; f = () => g; }`},
		"promises":    {code: `const a = []; for (;;) a.push(new Promise(() => {}));`},
		"microtasks":  {code: `for (;;) Promise.resolve().then(() => {});`},
		"map":         {code: `const m = new Map(); for (let i = 0;; i++) m.set(i, {});`},
		"resizable":   {code: `const a = []; for (;;) { const b = new ArrayBuffer(0, { maxByteLength: 16 << 20 }); b.resize(16 << 20); new Uint8Array(b).fill(1); a.push(b); }`},
		"transferred": {code: `const a = []; for (;;) a.push(new ArrayBuffer(4 << 20).transfer());`, answer: "RangeError"},
		"clones":      {code: `const a = []; const b = new ArrayBuffer(4 << 20); for (;;) a.push(raw.structuredClone(b));`, answer: "*"},
		"encoded":     {code: `const a = []; const s = "é".repeat(1 << 20); for (;;) a.push(raw.utf8Encode(s));`, answer: "RangeError"},
		"caught":      {code: `const a = []; for (;;) try { for (;;) a.push({ x: [1] }); } catch {}`},
	} {
		t.Run(name, func(t *testing.T) {
			locked(t)
			before := rss(t)
			i := load(t, `export default { fetch(r) { try { `+tt.code+` } catch (e) { return e.name; } } }`)
			stop := time.AfterFunc(20*time.Second, func() { i.Terminate(ReasonWall) })
			defer stop.Stop()
			turn := get(i, 1)
			switch {
			case tt.answer == "":
				if turn.Status != OutOfMemory {
					t.Errorf("ended %v %v %v", turn.Status, turn.Reason, texts(&turn))
					return
				}
				if again := get(i, 2); again.Status != Fatal {
					t.Errorf("the isolate went on after it: %v", again.Status)
				}
			case tt.answer == "*":
				if got := body(t, &turn); got == "" {
					t.Error("no answer")
				}
			default:
				if got := body(t, &turn); got != tt.answer {
					t.Errorf("got %q", got)
				}
			}
			if grown := rss(t) - before; grown > 256<<20 {
				t.Errorf("the process grew by %d MiB under a limit of 64", grown>>20)
			}
			i.Dispose()
			// The neighbours are well.
			if got := ask(t, load(t, `export default { fetch: () => "well" }`)); got != "well" {
				t.Errorf("a neighbour said %q", got)
			}
		})
	}
}

func TestOutputOfATurnIsBounded(t *testing.T) {
	locked(t)
	i := load(t, `export default { fetch(r) { let n = 0; const s = "x".repeat(50000); try { for (;;) { log(s); n++; } } catch (e) { return e.name + n; } } }`)
	turn := get(i, 1)
	if len(turn.out) > 33<<20 {
		t.Errorf("%d bytes", len(turn.out))
	}
	// The response still finds room.
	if got := body(t, &turn); !strings.HasPrefix(got, "RangeError6") {
		t.Errorf("got %q", got)
	}
}

func TestStackOverflowIsRangeError(t *testing.T) {
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			// A thread of its own, as executors are.
			locked(t)
			i := load(t, `
				const deep = (n) => { let o = {}; for (; n > 0; n--) o = { o }; return o; };
				function f() { return f() + 1; }
				const tries = [f, () => JSON.stringify(deep(1e6)), () => raw.structuredClone(deep(1e6)), () => JSON.parse("[".repeat(1e6)),
					() => new RegExp("(".repeat(1e6)), () => "a".replace(/a/, f), () => [1].map(f), () => new Proxy({}, { get: f }).x, () => Function.prototype.toString.call(f).replace(/./g, f),
					() => { let p = new Proxy({}, {}); for (let i = 0; i < 1e5; i++) p = new Proxy(p, {}); return p.x; }];
				export default { fetch() { return tries.map((t) => { try { t(); return "done"; } catch (e) { return e.name; } }).join(); } }`)
			got := ask(t, i)
			if n := strings.Count(got, "RangeError"); n < 6 || strings.Contains(got, "undefined") {
				t.Errorf("got %q", got)
			}
		})
	}
	wg.Wait()
}

func TestEvalGate(t *testing.T) {
	locked(t)
	const src = `export default { fetch() { return ["eval('1+1')", "new Function('return 2')()", "(async () => {}).constructor('return 1')", "setTimeout.constructor('1')"].map((s, n) => {
		try { return [() => eval("1+1"), () => new Function("return 2")(), () => (async () => {}).constructor("return 1"), () => (function* () {}).constructor("1")][n]() && "ran"; } catch (e) { return e.name; }
	}).join(); } }`
	if got := ask(t, load(t, src)); got != "EvalError,EvalError,EvalError,EvalError" {
		t.Errorf("off: %q", got)
	}
	if got := ask(t, loadBundle(t, one(src), Limits{EvalAllowed: true})); got != "ran,ran,ran,ran" {
		t.Errorf("on: %q", got)
	}
}

func TestSharedMemoryIsAbsent(t *testing.T) {
	locked(t)
	i := load(t, `export default { fetch() {
		let wait; try { Atomics.wait(new Int32Array(4), 0, 0, 1); wait = "waited"; } catch (e) { wait = e.name; }
		return [typeof SharedArrayBuffer, typeof Atomics.waitAsync, typeof WebAssembly, wait, Object.getOwnPropertyNames(globalThis).filter((n) => /shared/i.test(n)).length].join();
	} }`)
	if got := ask(t, i); got != "undefined,undefined,undefined,TypeError,0" {
		t.Errorf("got %q", got)
	}
}

func TestJitless(t *testing.T) {
	if inChild(t, seccomp.Jitless) {
		return
	}
	locked(t)
	i := load(t, `export default { async fetch() { let n = 0; for (let i = 0; i < 1e5; i++) n += i % 7; return [n, /a(b+)/.exec("xabb")[1], typeof WebAssembly].join(); } }`)
	if got := ask(t, i); got != "299995,bb,undefined" {
		t.Errorf("got %q", got)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		if perms := strings.Fields(line)[1]; strings.Contains(perms, "w") && strings.Contains(perms, "x") {
			t.Errorf("writable and executable: %s", line)
		}
	}
}

func TestCreateDisposeDoesNotGrow(t *testing.T) {
	locked(t)
	cycle := func(n int) {
		for range n {
			i := load(t, `globalThis.big = new Uint8Array(1 << 18).fill(1); setTimeout(() => 0, 1000); export default { fetch: () => "x".repeat(1000) }`)
			if got := ask(t, i); len(got) != 1000 {
				t.Fatal(got)
			}
			i.Dispose()
		}
	}
	cycle(60) // V8's own pools and glibc's arenas fill first
	before := rss(t)
	cycle(200)
	if grown := rss(t) - before; grown > 24<<20 {
		t.Errorf("200 cycles grew the process by %.1f MiB", float64(grown)/(1<<20))
	} else {
		t.Logf("200 cycles: %+.1f MiB", float64(grown)/(1<<20))
	}
}

func TestManyIsolatesOnManyThreads(t *testing.T) {
	const isolates, threads, rounds = 24, 4, 40
	list := make([]*Isolate, isolates)
	for n := range list {
		list[n] = load(t, `let n = 0; export default { async fetch(r) { await 0; const a = []; for (let i = 0; i < 2000; i++) a.push({ i }); return String(++n); } }`)
	}
	free := make(chan *Isolate, isolates)
	for _, i := range list {
		free <- i
	}
	var wg sync.WaitGroup
	for range threads {
		wg.Go(func() {
			locked(t)
			for range isolates * rounds / threads {
				i := <-free
				turn := get(i, 1)
				if turn.Status != OK {
					t.Errorf("%v", turn.Status)
				}
				free <- i
			}
		})
	}
	wg.Wait()
	served := 0
	for _, i := range list {
		n, err := strconv.Atoi(ask(t, i))
		if err != nil {
			t.Fatal(err)
		}
		served += n - 1
	}
	if served != isolates*rounds {
		t.Errorf("%d requests served, want %d", served, isolates*rounds)
	}
}

func TestLimitBelowTheEnginesOwn(t *testing.T) {
	locked(t)
	for name, code := range map[string]string{
		"heap":    `const a = []; for (;;) a.push({ x: [1] });`,
		"buffers": `const a = []; for (;;) a.push(new Uint8Array(100000).fill(1));`,
		"mixed":   `const a = [], b = []; for (;;) { a.push(new Array(1000).fill(1.5)); try { b.push(new Uint8Array(8000)); } catch {} }`,
	} {
		t.Run(name, func(t *testing.T) {
			i := loadBundle(t, one(`export default { fetch(r) { try { `+code+` } catch (e) { return e.name; } } }`), Limits{MemoryBytes: 24 << 20})
			before := rss(t)
			turn := get(i, 1)
			if turn.Status == OK {
				if got := body(t, &turn); got != "RangeError" {
					t.Errorf("got %q", got)
				}
			} else if turn.Status != OutOfMemory {
				t.Errorf("ended %v", turn.Status)
			}
			u := i.Usage()
			if sum := u.HeapBytes + u.ExternalBytes; sum > 40<<20 || u.LimitBytes != 24<<20 {
				t.Errorf("usage %+v", u)
			}
			if grown := rss(t) - before; grown > 100<<20 {
				t.Errorf("the process grew by %d MiB under a limit of 24", grown>>20)
			}
		})
	}
}

// A string of half a gigabyte costs nothing until someone reads it. The host must not be the one.
func TestHugeStringsAreRefusedUnread(t *testing.T) {
	locked(t)
	i := load(t, `const s = "é".repeat(2 ** 28);
		const tries = [() => log(s), () => raw.utf8Encode(s), () => raw.respond(1, 200, "", 1, s), () => raw.urlParse(s, undefined, new Uint32Array(9)), () => raw.finish(1, 2, s), () => raw.op(1, 1, 1, s), () => raw.utf8EncodeInto(s, new Uint8Array(4))];
		export default { fetch() { return tries.map((f) => { try { f(); return "done"; } catch (e) { return e.name; } }).join(); } }`)
	if got := ask(t, i); strings.Count(got, "RangeError") != 7 {
		t.Errorf("got %q", got)
	}
}

func TestMemoryOfAnIdleTenant(t *testing.T) {
	locked(t)
	const n = 60
	load(t, `export default { fetch: () => new Response("hello") }`)
	before := rss(t)
	for range n {
		i := load(t, `export default { fetch: () => new Response("hello") }`)
		if got := ask(t, i); got != "hello" {
			t.Fatal(got)
		}
	}
	each := (rss(t) - before) / n
	t.Logf("%.0f KiB a tenant", float64(each)/1024)
	if each > 2<<20 {
		t.Errorf("an idle tenant takes %d bytes", each)
	}
}
