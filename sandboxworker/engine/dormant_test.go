package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What an idle isolate gave back is there again, to the byte, when it is entered; whatever it has done
// before, and however many others there are.
func TestADormantIsolateWakesUpAsItWas(t *testing.T) {
	if underASan {
		t.Skip("AddressSanitizer has its own operator new and mprotect: nothing is given back")
	}
	if withRuntime(t) {
		return
	}
	locked(t)
	work := []string{
		`return new Response("hello")`,
		`const m = new Map(); for (let i = 0; i < 2e4; i++) m.set("k" + i, { i }); return new Response(String(m.size))`,
		`globalThis.kept ??= []; for (let i = 0; i < 300; i++) kept.push(new Uint8Array(100), () => i); return new Response(String(kept.length))`,
		`const f = []; for (let i = 0; i < 200; i++) f.push(new Function("return " + i)); return new Response(String(f.reduce((a, g) => a + g(), 0)))`,
		`return new Response("a-b-c".replace(/(\\w)-(\\w)/g, "$2+$1") + structuredClone({ a: [1, 2n] }).a[1] + new URL("http://x/?q").search)`,
		`try { (function f() { f(); })(); } catch (e) { return new Response(e.constructor.name); }`,
	}
	var list []*Isolate
	for k := range 4 * len(work) {
		i := newIsolate(t)
		code := fmt.Sprintf("export default { fetch() { %s; } }", work[k%len(work)])
		if out, _ := i.Load(one(code), nil, Limits{MemoryBytes: 64 << 20, Timers: 100, Pending: 100, EvalAllowed: true}, epoch); out.Failure != nil {
			t.Fatal(out.Failure)
		}
		list = append(list, i)
	}
	answers := make([]string, len(list))
	for round := range 6 {
		for k, i := range list {
			got := ask(t, i)
			if round == 0 {
				answers[k] = got
			} else if got != answers[k] && k%len(work) != 2 {
				t.Errorf("isolate %d, round %d: answered %q, %q before", k, round, got, answers[k])
			}
			if (k+round)%3 != 0 {
				continue
			}
			given, wrong := i.native.DormantCheck()
			if wrong != 0 {
				t.Errorf("isolate %d, round %d: %d ranges of its memory are not what they were", k, round, wrong)
			}
			if round == 0 && given < 200<<10 {
				t.Errorf("isolate %d gives back %d KiB only", k, given>>10)
			}
			i.Trim()
			if i.Trim(); round%2 == 1 {
				i.Dispose() // asleep
				list[k] = newIsolate(t)
				if out, _ := list[k].Load(one(`export default { fetch() { return new Response("anew"); } }`), nil, Limits{MemoryBytes: 64 << 20, Timers: 100, Pending: 100}, epoch); out.Failure != nil {
					t.Fatal(out.Failure)
				}
				answers[k] = ask(t, list[k])
			}
		}
	}
}

// There is one way into an isolate, and it wakes it up.
func TestNobodyEntersADormantIsolate(t *testing.T) {
	files, err := filepath.Glob("native/*.cc")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "v8::Locker") {
			t.Errorf("%s takes a v8::Locker: bulkhead::Held is the way in, which restores the isolate's memory first", name)
		}
	}
}
