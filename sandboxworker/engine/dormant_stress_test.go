package engine

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"bulkhead/policy/seccomp"
	"bulkhead/sandboxworker/engine/native"
)

// wasmPeer is (module (table (export "t") 1 funcref) (func (export "f") (result i32) i32.const 42)).
const wasmPeer = `new Uint8Array([0,97,115,109,1,0,0,0, 1,5,1,96,0,1,127, 3,2,1,0, 4,4,1,112,0,1, 7,9,2,1,116,1,0,1,102,0,0, 10,6,1,4,0,65,42,11])`

// Tables that all isolates share, segments that one gave back and another got, blocks that malloc hands
// on: nobody but who holds an isolate may touch what it gave back, and no two may think it theirs. What
// is given back cannot be accessed in this test, so that a single look at it ends the process.
func TestNobodyTouchesWhatADormantIsolateGaveBack(t *testing.T) { dormantStress(t, seccomp.JIT) }
func TestNobodyTouchesWhatADormantIsolateGaveBackJITless(t *testing.T) {
	dormantStress(t, seccomp.Jitless)
}
func TestNobodyTouchesWhatADormantIsolateGaveBackWithWasm(t *testing.T) {
	dormantStress(t, seccomp.JITWasm)
}

func dormantStress(t *testing.T, p seccomp.Profile) {
	if underASan {
		t.Skip("AddressSanitizer has its own operator new and mprotect: nothing is given back")
	}
	if withRuntime(t) {
		return
	}
	if os.Getenv(profileEnv) == "" && inChild(t, p) {
		return
	}
	native.DormantGuard()
	work := []string{
		`return new Response("hello")`,
		// Entries of the tables by the thousand, garbage by the next collection.
		`globalThis.kept = []; for (let i = 0; i < 3000; i++) kept.push(new Function("return " + i)); kept.length = 100; return new Response("f" + kept[99]())`,
		`globalThis.bufs = []; for (let i = 0; i < 3000; i++) bufs.push(new ArrayBuffer(8)); bufs.length = n++ % 2 ? 0 : 2000; return new Response("b")`,
		`return new Response("a-b-c".replace(new RegExp("(\\w)-(\\w)", n++ % 2 ? "g" : "gu"), "$2+$1"))`,
		`function hot(a) { let s = 0; for (let i = 0; i < 3e4; i++) s += a[i % 3]; return s } return new Response(String(hot([1, 2, 3])))`,
		`try { (function f() { f(); })(); } catch (e) { return new Response(e.constructor.name); }`,
	}
	if p == seccomp.JITWasm {
		work = append(work,
			`const i = new WebAssembly.Instance(new WebAssembly.Module(`+wasmPeer+`)); return new Response("w" + i.exports.f())`,
			`globalThis.inst ??= []; for (let k = 0; k < 20; k++) { const i = new WebAssembly.Instance(new WebAssembly.Module(`+wasmPeer+`)); i.exports.t.set(0, i.exports.f); i.exports.t.grow(3, i.exports.f); inst.push(i); }
			 if (inst.length > 100) inst = []; return new Response("t" + (inst[0]?.exports.t.get(3)() ?? 42))`,
		)
	}
	const most, threads = 160, 4
	const steps = 500
	type resident struct {
		i    *Isolate
		want string
	}
	make1 := func() *resident {
		i, err := shared.New()
		if err != nil {
			t.Error(err)
			return nil
		}
		code := fmt.Sprintf("let n = 0; export default { fetch() { %s; } }", work[rand.IntN(len(work))])
		lim := Limits{MemoryBytes: 64 << 20, Timers: 100, Pending: 100, EvalAllowed: true, WasmAllowed: true}
		if out, _ := i.Load(one(code), nil, lim, epoch); out.Failure != nil {
			t.Error(out.Failure)
		}
		return &resident{i: i, want: ask(t, i)}
	}
	rest := make(chan *resident, most+threads)
	var alive, left atomic.Int64
	left.Store(steps)
	var wg sync.WaitGroup
	for range threads {
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			for left.Add(-1) >= 0 && !t.Failed() {
				var r *resident
				if alive.Load() < most && rand.IntN(3) == 0 {
					alive.Add(1)
					if r = make1(); r == nil {
						return
					}
				} else {
					select {
					case r = <-rest:
					default:
						continue
					}
				}
				switch k := rand.IntN(10); {
				case k == 0:
					r.i.Dispose()
					alive.Add(-1)
					continue
				case k < 4:
					if got := ask(t, r.i); got != r.want {
						t.Errorf("answered %q, %q before", got, r.want)
					}
				case k < 6:
					if _, wrong := r.i.native.DormantCheck(); wrong != 0 {
						t.Errorf("%d ranges of an isolate's memory are not what they were", wrong)
					}
				}
				if rand.IntN(4) > 0 {
					r.i.Trim()
				}
				rest <- r
			}
		})
	}
	wg.Wait()
	close(rest)
	for r := range rest {
		if got := ask(t, r.i); got != r.want {
			t.Errorf("answered %q, %q before", got, r.want)
		}
		r.i.Dispose()
	}
}

// What is given back once is given back again: to write it anew is not to forget it.
func TestADormantIsolateSleepsAsWellTheNextTime(t *testing.T) {
	if underASan {
		t.Skip("AddressSanitizer has its own operator new and mprotect: nothing is given back")
	}
	locked(t)
	i := load(t, `export default { fetch() { return { body: "x" }; } }`)
	i.Trim()
	first, _ := i.native.DormantCheck()
	for range 3 {
		if again, _ := i.native.DormantCheck(); again != first {
			t.Fatalf("gives back %d KiB, %d KiB the first time", again>>10, first>>10)
		}
	}
}
