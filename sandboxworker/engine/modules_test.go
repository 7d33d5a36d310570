package engine

import (
	"strings"
	"testing"

	"bulkhead/policy/seccomp"
	"bulkhead/schema/gen"
)

func js(name, src string) Module { return Module{Name: name, Code: []byte(src)} }

func TestModuleKinds(t *testing.T) {
	locked(t)
	i := loadBundle(t, Bundle{Main: "/src/worker.js", Modules: []Module{
		js("/src/worker.js", `
			import text from "./a/note.txt";
			import data from "../blob.bin";
			import json from "/conf.json" with { type: "json" };
			import plain from "../conf.json";
			import { x } from "./a/./b/../dep.js";
			import bare from "bare";
			export default { fetch() {
				return [text, Object.prototype.toString.call(data), new Uint8Array(data).join(), json.k, plain === json, x, bare, import.meta.url].join("|");
			} }`),
		js("/src/a/dep.js", `import { y } from "../worker2.js"; export const x = "dep+" + y;`),
		js("/src/worker2.js", `export const y = import.meta.url;`),
		js("/bare", `export default "bare";`),
		{Name: "/src/a/note.txt", Kind: gen.Module_Kind_text, Code: []byte("nöte")},
		{Name: "/blob.bin", Kind: gen.Module_Kind_data, Code: []byte{0, 255, 7}},
		{Name: "/conf.json", Kind: gen.Module_Kind_json, Code: []byte(`{"k": "vä"}`)},
	}}, Limits{MemoryBytes: 64 << 20})
	want := "nöte|[object ArrayBuffer]|0,255,7|vä|true|dep+file:///src/worker2.js|bare|file:///src/worker.js"
	if got := ask(t, i); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestDynamicImport(t *testing.T) {
	locked(t)
	i := loadBundle(t, Bundle{Main: "/worker.js", Modules: []Module{
		js("/worker.js", `
			const self = import("./worker.js"); // while this very module is being evaluated
			export const mark = "m";
			export default { async fetch() {
				const out = [];
				const a = await import("./lazy.js");
				out.push(a.n, a === await import("/lazy.js"), (await self).mark);
				for (const s of ["./none.js", "https://example.com/x.js", "./bad.js", "./throws.js", "", "node:fs"]) {
					await import(s).catch((e) => out.push(e.name + ":" + e.message.split("\n")[0]));
				}
				await import("./lazy.js", { with: { type: "json" } }).catch((e) => out.push(e.name));
				await import({ toString() { throw 5; } }).catch((e) => out.push(e));
				return out.join("|");
			} }`),
		js("/lazy.js", `export let n = await Promise.resolve(1); n++;`),
		js("/bad.js", `export let = ;`),
		js("/throws.js", `throw new RangeError("top");`),
	}}, Limits{MemoryBytes: 64 << 20})
	got := ask(t, i)
	want := `2|true|m|Error:Cannot find module "./none.js" imported from "worker.js" in this worker's bundle|` +
		`Error:Cannot find module "https://example.com/x.js" imported from "worker.js" in this worker's bundle|` +
		`SyntaxError:Unexpected token '='|RangeError:top|` +
		`Error:Cannot find module "" imported from "worker.js" in this worker's bundle|` +
		`Error:Cannot find module "node:fs" imported from "worker.js" in this worker's bundle|TypeError|5`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestServiceWorkerSyntaxAndEnv(t *testing.T) {
	locked(t)
	i := newIsolate(t)
	out, _ := i.Load(one(`addEventListener("fetch", (r) => env.A + env.B.c[1]);`),
		[]EnvVar{{Name: "A", Value: "ä"}, {Name: "B", JSON: true, Value: `{"c":[1,2]}`}}, Limits{}, epoch)
	if out.Failure != nil {
		t.Fatalf("%+v", out.Failure)
	}
	if got := ask(t, i); got != "ä2" {
		t.Errorf("got %q", got)
	}
}

func TestTopLevelAwait(t *testing.T) {
	locked(t)
	i := load(t, `const v = await (async () => { await null; await 0; return 5; })(); export default { fetch: () => v }`)
	if got := ask(t, i); got != "5" {
		t.Errorf("got %q", got)
	}
}

func TestStartupFailures(t *testing.T) {
	long := `const s = "` + strings.Repeat("x", 500) + `"; const s = 2; // ` + strings.Repeat("y", 500)
	for _, tt := range []struct {
		name    string
		b       Bundle
		want    Failure // Excerpt and Stack: a part of them
		noLines bool
	}{
		{"syntax", one("export default {\n  fetch() { return 1 +; }\n}"),
			Failure{File: "worker.js", Line: 2, Column: 23, Excerpt: "  fetch() { return 1 +; }", Message: "SyntaxError: Unexpected token ';'"}, false},
		{"syntax in a dependency", Bundle{Main: "/w.js", Modules: []Module{js("/w.js", `import "./lib/d.js"`), js("/lib/d.js", "\n\nlet a b")}},
			Failure{File: "lib/d.js", Line: 3, Column: 7, Excerpt: "let a b", Message: "SyntaxError: Unexpected identifier 'b'"}, false},
		{"throws", one("const a = 1;\n\nthrow new TypeError('no good');"),
			Failure{File: "worker.js", Line: 3, Column: 7, Excerpt: "throw new TypeError", Message: "TypeError: no good", Stack: "at worker.js:3:7"}, false},
		{"throws a primitive", one("\nthrow 7;"), Failure{File: "worker.js", Message: "Uncaught 7"}, true},
		{"throws after await", one("await null;\nundefined.x;"), Failure{File: "worker.js", Line: 2, Column: 11, Message: "TypeError: Cannot read properties of undefined"}, false},
		{"missing import", one("import x from 'here';\nimport y from \"./gone.js\";"),
			Failure{File: "worker.js", Line: 1, Column: 15, Message: `Cannot find module "here" in this worker's bundle`}, false},
		{"missing export", Bundle{Main: "/w.js", Modules: []Module{js("/w.js", "\nimport { nope } from './d.js'"), js("/d.js", "")}},
			Failure{File: "w.js", Line: 2, Column: 10, Message: "does not provide an export named 'nope'"}, false},
		{"bad JSON", Bundle{Main: "/w.js", Modules: []Module{js("/w.js", "import './c.json'"), {Name: "/c.json", Kind: gen.Module_Kind_json, Code: []byte("{")}}},
			Failure{File: "c.json", Message: "SyntaxError: Expected property name"}, true},
		{"never settles", one("\nawait new Promise(() => {});"), Failure{File: "worker.js", Line: 2, Message: "Top-level await never settles"}, false},
		{"wrong attribute", Bundle{Main: "/w.js", Modules: []Module{js("/w.js", "import './d.js' with {type: 'json'}"), js("/d.js", "")}},
			Failure{File: "w.js", Message: "does not fit this module"}, true},
		{"no main", Bundle{Main: "/none.js"}, Failure{File: "none.js", Message: "no JavaScript module of this name"}, false},
		{"wasm where there is none", Bundle{Main: "/w.js", Modules: []Module{js("/w.js", "import './m.wasm'"), {Name: "/m.wasm", Kind: gen.Module_Kind_wasm, Code: []byte("\x00asm\x01\x00\x00\x00")}}},
			Failure{File: "m.wasm", Message: "WebAssembly is off"}, true},
		{"no handler", one("export const x = 1"), Failure{File: "worker.js", Message: "no default export"}, true},
		{"long line", one(long), Failure{File: "worker.js", Line: 1, Excerpt: `xxx"; const s = 2; // yyy`, Message: "SyntaxError: Identifier 's'"}, false},
		{"hostile error", one("const e = new Error('a'); Object.defineProperty(e, 'stack', { get() { throw e } }); throw e"), Failure{File: "worker.js", Message: "Error: a"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			locked(t)
			f := fails(t, tt.b)
			if f.File != tt.want.File || !strings.Contains(f.Message, tt.want.Message) ||
				!strings.Contains(f.Excerpt, tt.want.Excerpt) || !strings.Contains(f.Stack, tt.want.Stack) || len(f.Excerpt) > 200 {
				t.Errorf("got  %+v\nwant %+v", *f, tt.want)
			}
			if !tt.noLines && (f.Line != tt.want.Line || (tt.want.Column != 0 && f.Column != tt.want.Column)) {
				t.Errorf("place %d:%d, want %d:%d", f.Line, f.Column, tt.want.Line, tt.want.Column)
			}
		})
	}
}

// A module with one exported function that adds, one memory of a page and its export.
const addWasm = "\x00asm\x01\x00\x00\x00" +
	"\x01\x07\x01\x60\x02\x7f\x7f\x01\x7f" + // type (i32 i32) -> i32
	"\x03\x02\x01\x00" +
	"\x05\x03\x01\x00\x01" + // memory, one page, may grow
	"\x07\x0d\x02\x03add\x00\x00\x03mem\x02\x00" +
	"\x0a\x09\x01\x07\x00\x20\x00\x20\x01\x6a\x0b"

func TestWasmModules(t *testing.T) {
	if inChild(t, seccomp.JITWasm) {
		return
	}
	locked(t)
	b := Bundle{Main: "/w.js", Modules: []Module{
		js("/w.js", `import mod from "./m.wasm";
			export default { async fetch() {
				const a = new WebAssembly.Instance(mod).exports;
				const b = (await WebAssembly.instantiate(mod)).exports;
				return [a.add(2, 3), b.add(3, 4), a.mem.buffer.byteLength, a.mem.grow(1), a.mem.buffer.byteLength].join();
			} }`),
		{Name: "/m.wasm", Kind: gen.Module_Kind_wasm, Code: []byte(addWasm)}}}
	if got := ask(t, loadBundle(t, b, Limits{MemoryBytes: 64 << 20, WasmAllowed: true})); got != "5,7,65536,1,131072" {
		t.Errorf("got %q", got)
	}
	if f := fails(t, b); !strings.Contains(f.Message, "WebAssembly is off") {
		t.Errorf("a tenant without Wasm: %+v", f)
	}
	i := load(t, `export default { fetch() { try { new WebAssembly.Module(new Uint8Array([0,97,115,109,1,0,0,0])); return "made"; } catch (e) { return e.name; } } }`)
	if got := ask(t, i); got != "CompileError" {
		t.Errorf("compiling without leave: %q", got)
	}
}

func TestWasmMemoryIsLimited(t *testing.T) {
	if inChild(t, seccomp.JITWasm) {
		return
	}
	locked(t)
	i := loadBundle(t, one(`const kept = [];
		export default { fetch(r) {
			if (r.url.endsWith("big")) { try { new WebAssembly.Memory({ initial: 10000 }); return "made"; } catch (e) { return e.name; } }
			for (;;) { const m = new WebAssembly.Memory({ initial: 160 }); new Uint8Array(m.buffer).fill(1); kept.push(m); }
		} }`), Limits{MemoryBytes: 64 << 20, WasmAllowed: true})
	turn := i.Request(epoch, Request{Inv: 1, Method: "GET", URL: "http://t/big"})
	if got := body(t, &turn); got != "RangeError" {
		t.Errorf("625 MiB at once: %q", got)
	}
	before := rss(t)
	if turn := get(i, 2); turn.Status != OutOfMemory {
		t.Errorf("hoarding Wasm memories ended %v %v", turn.Status, texts(&turn))
	}
	if grown := rss(t) - before; grown > 300<<20 {
		t.Errorf("the process grew by %d MiB under a limit of 64", grown>>20)
	}
}

func TestWasmSharedMemoryIsImpossible(t *testing.T) {
	if inChild(t, seccomp.JITWasm) {
		return
	}
	locked(t)
	i := loadBundle(t, one(`
		const shared = new Uint8Array([0,97,115,109,1,0,0,0, 5,4,1,3,1,2, 7,7,1,3,109,101,109,2,0]);
		const imported = new Uint8Array([0,97,115,109,1,0,0,0, 2,10,1,1,97,3,109,101,109,2,3,1,2]);
		export default { async fetch() {
			const out = [];
			const t = (f) => { try { f(); out.push("made"); } catch (e) { out.push(e.name); } };
			t(() => new WebAssembly.Memory({ initial: 1, maximum: 2, shared: true }));
			t(() => { let n = 0; const m = new WebAssembly.Memory({ initial: 1, maximum: 2, get shared() { return n++ > 0; } }); if (m.buffer instanceof ArrayBuffer && m.buffer.constructor === ArrayBuffer) throw new TypeError(); });
			t(() => new WebAssembly.Module(shared));
			t(() => new WebAssembly.Module(imported));
			for (const f of [WebAssembly.compile, WebAssembly.instantiate]) await f(shared).then(() => out.push("made"), (e) => out.push(e.name));
			out.push(WebAssembly.validate(shared), typeof SharedArrayBuffer);
			return out.join();
		} }`), Limits{MemoryBytes: 64 << 20, WasmAllowed: true})
	if got := ask(t, i); strings.Contains(got, "made") || !strings.HasSuffix(got, "false,undefined") {
		t.Errorf("got %q", got)
	}
}

// A module of the runtime's own is there for who names it, once, unless the bundle has one of that name.
func TestModulesOfTheRuntime(t *testing.T) {
	locked(t)
	i := newIsolate(t)
	out, _ := i.Load(one(`import d, { answer } from "node:answers"; import * as all from "node:answers";
		export default { async fetch() { const again = await import("node:answers"); const missing = await import("node:nothing").catch((e) => e.message);
			return new Response([answer, d.answer, again === all, Object.keys(all).join("+"), missing].join()); } }`), nil, Limits{}, epoch)
	if out.Failure != nil {
		t.Fatalf("%+v", out.Failure)
	}
	if got := ask(t, i); got != `42,42,true,answer+default,Cannot find module "node:nothing" imported from "worker.js" in this worker's bundle` {
		t.Error(got)
	}
	i = newIsolate(t)
	b := one(`import { answer } from "node:answers"; export default { fetch() { return new Response(answer); } }`)
	b.Modules = append(b.Modules, Module{Name: "node:answers", Code: []byte(`export const answer = "mine";`)})
	if out, _ := i.Load(b, nil, Limits{}, epoch); out.Failure != nil || ask(t, i) != "mine" {
		t.Errorf("%+v", out.Failure)
	}
}
