package engine

import (
	"os"
	"strings"
	"testing"
	"time"

	"bulkhead/policy/seccomp"
)

// Every kind of memory a tenant can hold is counted and limited, with the process alive.
func TestEveryKindOfMemoryIsCounted(t *testing.T) {
	kinds := map[string]string{
		"array buffers":      `const a = []; for (;;) { a.push(new Uint8Array(1 << 20).fill(1)); mib++; }`,
		"one grown buffer":   `const b = new ArrayBuffer(0, { maxByteLength: 1 << 30 }); for (;;) { b.resize(b.byteLength + (1 << 20)); new Uint8Array(b, b.byteLength - (1 << 20)).fill(1); mib++; }`,
		"many grown buffers": `const a = []; for (;;) { const b = new ArrayBuffer(1, { maxByteLength: 1 << 20 }); b.resize(1 << 20); new Uint8Array(b).fill(1); a.push(b); mib++; }`,
		"flat strings":       `const a = []; for (;;) { const s = "x".repeat(1 << 20); raw.utf8EncodeInto(s, new Uint8Array(1)); a.push(s); mib++; }`,
		"decoded strings":    `const a = [], u = new Uint8Array(1 << 20).fill(65); for (;;) { a.push(raw.utf8Decode(u, false, false)); mib++; }`,
		"clones":             `const a = [], b = new ArrayBuffer(1 << 20); for (;;) { a.push(raw.structuredClone(b)); mib++; }`,
		"typed arrays":       `const a = []; for (;;) { a.push(new Float64Array(1 << 17)); mib++; }`,
	}
	if os.Getenv(profileEnv) == seccomp.JITWasm.String() {
		kinds = map[string]string{
			"wasm memories":   `const a = []; for (;;) { const m = new WebAssembly.Memory({ initial: 16 }); new Uint8Array(m.buffer).fill(1); a.push(m); mib++; }`,
			"one grown wasm":  `const m = new WebAssembly.Memory({ initial: 1 }); for (;;) { m.grow(16); new Uint8Array(m.buffer, m.buffer.byteLength - (1 << 20)).fill(1); mib++; }`,
			"many grown wasm": `const a = []; for (;;) { const m = new WebAssembly.Memory({ initial: 0 }); m.grow(16); new Uint8Array(m.buffer).fill(1); a.push(m); mib++; }`,
		}
	}
	for name, code := range kinds {
		t.Run(name, func(t *testing.T) {
			locked(t)
			const limit = 48 << 20
			before := rss(t)
			i := loadBundle(t, one(`let mib = 0; export default { fetch(r) { if (r.inv === 2) return String(mib); try { `+code+` } catch (e) { return e.name; } } }`),
				Limits{MemoryBytes: limit, Timers: 9, WasmAllowed: true})
			stop := time.AfterFunc(20*time.Second, func() { i.Terminate(ReasonWall) })
			defer stop.Stop()
			turn := get(i, 1)
			if grown := rss(t) - before; grown > 2*limit {
				t.Errorf("the process grew by %d MiB under a limit of %d", grown>>20, limit>>20)
			}
			switch turn.Status {
			case OutOfMemory:
			case OK: // a RangeError the code caught; what it holds must be below the limit
				if got := body(t, &turn); got != "RangeError" && got != "DataCloneError" && got != "Error" {
					t.Errorf("it answered %q", got)
				}
				if u := i.Usage(); u.HeapBytes+u.ExternalBytes > limit {
					t.Errorf("it lives on with %+v", u)
				}
				if got := ask(t, i); !strings.Contains(got, "Error") {
					t.Errorf("it lives on and said %q", got)
				}
			default:
				t.Errorf("ended %v %v", turn.Status, turn.Reason)
			}
			t.Logf("%v %+v, process %+d MiB", turn.Status, i.Usage(), (rss(t)-before)>>20)
			i.Dispose()
		})
	}
}

func TestEveryKindOfWasmMemoryIsCounted(t *testing.T) {
	if os.Getenv(profileEnv) != seccomp.JITWasm.String() {
		child(t, profileEnv+"="+seccomp.JITWasm.String(), "with Wasm")
		return
	}
	TestEveryKindOfMemoryIsCounted(t)
}

// Strings of 2^28 characters and more that reach the host by other ways than its functions.
func TestHugeStringsThrownAndImported(t *testing.T) {
	locked(t)
	const huge = `const huge = "x".repeat(2 ** 28);`
	for name, code := range map[string]string{
		"import":    `try { await import(huge); } catch (e) { return e.name; }`,
		"attribute": `try { await import("/worker.js", { with: { type: huge } }); } catch (e) { return e.name; }`,
		"clone":     `try { raw.structuredClone(huge); } catch (e) { return "DataCloneError Error".includes(e.name) ? "Error" : e.name; }`,
		"rejection": `Promise.reject(new Error(huge)); return "Error";`,
		"message":   `queueMicrotask(() => { throw new Error(huge); }); return "Error";`,
	} {
		t.Run(name, func(t *testing.T) {
			i := load(t, huge+`globalThis.queueMicrotask = (f) => Promise.resolve().then(f); export default { async fetch() { `+code+` } }`)
			if got := ask(t, i); !strings.Contains(got, "Error") {
				t.Errorf("got %q", got)
			}
		})
	}
	t.Run("start", func(t *testing.T) {
		if f := fails(t, one(huge+`throw new Error(huge);`)); f.Message == "" || len(f.Message) > 8<<10 {
			t.Errorf("%+v", f)
		}
	})
}

// What the native layer itself holds for a tenant counts, while it holds it.
func TestOwnMemoryIsCounted(t *testing.T) {
	locked(t)
	i := load(t, `export default { fetch(r) { const s = "x".repeat(60000); for (let n = 0; n < 100; n++) log(s); return "ok"; } }`)
	before := i.Usage().ExternalBytes
	turn := get(i, 1)
	if grown := i.Usage().ExternalBytes - before; grown < 6_000_000 || turn.Status != OK {
		t.Errorf("%v: 6 MB of output count as %d bytes", turn.Status, grown)
	}
	i.Done(&turn)

	lim := Limits{MemoryBytes: 24 << 20, Timers: 1}
	big := Bundle{Main: "/worker.js", Modules: []Module{{Name: "/worker.js", Code: []byte(`export default { fetch: () => "ok" }`)},
		{Name: "/unused.js", Code: make([]byte, 30<<20)}}}
	if _, turn := newIsolate(t).Load(big, nil, lim, epoch); turn.Status != OutOfMemory {
		t.Errorf("a bundle of 30 MiB under a limit of 24: %v", turn.Status)
	}
}

// A trim that finds an isolate over its limit stops nobody: V8 would keep the order and end the next
// turn with it, which may be the one that gives the memory back.
func TestATrimStopsNoTurn(t *testing.T) {
	locked(t)
	const limit = 24 << 20
	i := loadBundle(t, one(`const kept = []; export default { fetch(r) {
		if (r.inv === 1) for (let k = 0; k < 8; k++) kept.push(new Array(1 << 13).fill(1.5));
		else kept.length = 0;
		return "kept " + kept.length;
	} }`), Limits{MemoryBytes: limit, Timers: 9})
	defer i.Dispose()
	for u := i.Usage(); u.HeapBytes+u.ExternalBytes <= limit; u = i.Usage() {
		if turn := get(i, 1); turn.Status != OK {
			t.Fatalf("it ended before a trim had found it over its limit: %v, %+v", turn.Status, i.Usage())
		}
		i.Trim()
	}
	turn := get(i, 2)
	if turn.Status != OK || body(t, &turn) != "kept 0" {
		t.Errorf("the turn that gives everything back: %v %v %v", turn.Status, turn.Reason, texts(&turn))
	}
}

// What light trims leave uncollected does not add up, and is there for the next whole one.
func TestLightTrimsLeaveLittle(t *testing.T) {
	locked(t)
	i := loadBundle(t, one(`let kept; export default { fetch(r) {
		if (r.inv === 1000) kept = Array.from({ length: 1 << 16 }, () => ({}));
		else if (r.inv === 1001) kept = null;
		let n = 0;
		for (let k = 0; k < (r.inv % 7) * 100; k++) n += [k, {}].length;
		return "" + n;
	} }`), Limits{MemoryBytes: 24 << 20, Timers: 9})
	defer i.Dispose()
	used := func() uint64 { u := i.Usage(); return u.HeapBytes + u.ExternalBytes }
	get(i, 1)
	if !i.TrimLightly() {
		t.Error("what was never collected is left at that")
	}
	first, collections := used(), 0
	for inv := uint32(2); inv < 200; inv++ {
		if turn := get(i, inv); turn.Status != OK {
			t.Fatal(turn.Status)
		}
		if i.TrimLightly() {
			collections++
		}
		// Twice the bound: what a collection keeps (feedback, bytecode) is the base of the next.
		if n := used(); n > first+128<<10 {
			t.Fatalf("after %d trims %d bytes are left, of at first %d", inv, n, first)
		}
	}
	if collections == 0 || collections > 100 {
		t.Errorf("%d of 198 light trims collected", collections)
	}
	get(i, 1000)
	i.TrimLightly()
	big := used()
	get(i, 1001)
	i.TrimLightly()
	if i.Trim(); used() > big-1<<20 {
		t.Errorf("garbage of megabytes is left: %d bytes, it was %d", used(), big)
	}
}
