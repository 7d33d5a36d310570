package bundle

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bulkhead/schema/gen"
	"bulkhead/supervisor/tenants"
)

type files map[string]string

// write makes a tenant's folder beside a secret that no bundle may ever hold.
func write(t *testing.T, fs files) string {
	t.Helper()
	base := t.TempDir()
	dir := filepath.Join(base, "tenant")
	all := files{"../outside/secret.js": `export default "TOP-SECRET";`, "../outside/package.json": `{"name":"outside","main":"secret.js"}`,
		"../node_modules/above/index.js": `export default "TOP-SECRET";`, "../tenant-b/worker.js": `export default "TOP-SECRET";`}
	for name, text := range fs {
		all[name] = text
	}
	for name, text := range all {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// run bundles and fails the test instead of hanging it.
func run(t *testing.T, dir string) tenants.BundleOutput {
	t.Helper()
	done := make(chan tenants.BundleOutput, 1)
	go func() { done <- Run(dir, DefaultLimits()) }()
	select {
	case out := <-done:
		for _, m := range out.Modules {
			if bytes.Contains(m.Code, []byte("TOP-SECRET")) {
				t.Errorf("module %s holds what is outside the folder", m.Name)
			}
		}
		return out
	case <-time.After(30 * time.Second):
		t.Fatal("bundling hangs")
	}
	panic("unreachable")
}

func TestRefusesWhatIsOutside(t *testing.T) {
	link := func(target, name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			p := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(target, p); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name  string
		files files
		make  func(*testing.T, string)
		want  string // part of the first error's text, place included
	}{
		{"dot dot", files{"worker.js": "\nimport x from '../outside/secret.js';\nexport default x;"}, nil, `worker.js:2:15: import "../outside/secret.js" is refused: it leads out of the tenant's folder`},
		{"dot dot in a subfolder", files{"worker.js": "import './lib/a.js'", "lib/a.js": "import '../../outside/secret.js'"}, nil, "lib/a.js:1:8: import"},
		{"a sibling whose name begins alike", files{"worker.js": "import '../tenant-b/worker.js'"}, nil, "leads out"},
		{"out and in again", files{"worker.js": "import '../../x/../tenant/../outside/secret.js'"}, nil, "leads out"},
		{"absolute", files{"worker.js": "import '/etc/passwd'"}, nil, "it is an absolute path"},
		{"absolute text", files{"worker.js": "import x from '/etc/hostname.txt'; export default x"}, nil, "absolute path"},
		{"file url", files{"worker.js": "import 'file:///etc/passwd'"}, nil, "it is a URL"},
		{"http url", files{"worker.js": "import 'https://example.com/x.js'"}, nil, "it is a URL"},
		{"data url", files{"worker.js": "import 'data:text/javascript,1'"}, nil, "it is a URL"},
		{"dynamic import", files{"worker.js": "export default () => import('../outside/secret.js')"}, nil, "leads out"},
		{"require", files{"worker.js": "module.exports = require('../outside/secret.js')"}, nil, "leads out"},
		{"require in try", files{"worker.js": "try { require('../outside/secret.js') } catch {}"}, nil, "leads out"},
		{"re-export", files{"worker.js": "export * from '../outside/secret.js'"}, nil, "leads out"},
		{"new URL", files{"worker.js": "import '..'"}, nil, "leads out"},
		{"node_modules above", files{"worker.js": "import x from 'above'; export default x"}, nil, "outside the tenant's folder"},
		{"package through dot dot", files{"worker.js": "import x from './node_modules/../../outside/secret.js'"}, nil, "leads out"},
		{"linked file", files{"worker.js": "import x from './link.js'; export default x"}, link("../outside/secret.js", "link.js"), "outside the tenant's folder"},
		{"linked directory", files{"worker.js": "import x from './lib/secret.js'; export default x"}, link("../outside", "lib"), "outside the tenant's folder"},
		{"linked package", files{"worker.js": "import x from 'p'; export default x"}, link("../../outside", "node_modules/p"), "outside the tenant's folder"},
		{"linked wasm", files{"worker.js": "import x from './x.wasm'; export default x", "../outside/x.wasm": "TOP-SECRET"}, link("../outside/x.wasm", "x.wasm"), "outside"},
		{"linked entry", files{}, link("../outside/secret.js", "worker.js"), "the entry worker.js is behind a symbolic link that leaves"},
		{"linked package.json", files{"worker.js": "import 'p'", "node_modules/p/a.js": ""}, link("../../../outside/package.json", "node_modules/p/package.json"), "leaves the folder"},
		{"linked tsconfig", files{"worker.ts": ""}, link("/etc/hostname", "tsconfig.json"), "tsconfig.json: is a symbolic link that leaves the folder"},
		{"tsconfig paths", files{"worker.ts": "import x from '@x'; export default x", "tsconfig.json": `{"compilerOptions":{"baseUrl":".","paths":{"@x":["../outside/secret.js"]}}}`}, nil, "outside the tenant's folder"},
		{"package.json browser map is not followed there", files{"worker.js": "import x from './a.js'; export default x", "a.js": "", "package.json": `{"browser":{"./a.js":"../outside/secret.js"}}`}, nil, "-"},
		{"package.json imports", files{"worker.js": "import x from '#x'; export default x", "package.json": `{"imports":{"#x":"./../outside/secret.js"}}`}, nil, ""},
		{"package main", files{"worker.js": "import x from 'p'; export default x", "node_modules/p/package.json": `{"main":"../../../outside/secret.js"}`}, nil, ""},
		{"css of text stays text", files{"worker.js": "import x from './a.css'; export default x", "a.css": "@import '../outside/secret.js';"}, nil, "-"},
		{"main in a subfolder through a link", files{"bulkhead.yaml": "main: lib/secret.js"}, link("../outside", "lib"), "the entry lib/secret.js is behind a symbolic link that leaves"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := write(t, c.files)
			if c.make != nil {
				c.make(t, dir)
			}
			out := run(t, dir)
			if c.want == "-" {
				if len(out.Errors) > 0 {
					t.Error(out.Errors)
				}
				return
			}
			if len(out.Errors) == 0 {
				t.Fatalf("it was bundled: %s", out.Modules[0].Code)
			}
			if got := out.Errors[0].String(); !strings.Contains(got, c.want) {
				t.Errorf("want %q, got %s", c.want, got)
			}
		})
	}
}

// Nothing that is not a plain file is waited for.
func TestSpecialFiles(t *testing.T) {
	for _, c := range []struct{ name, fifo, entry string }{
		{"imported", "a.js", "import './a.js'"},
		{"as package.json", "package.json", "import 'x'"},
		{"as a package's package.json", "node_modules/p/package.json", "import 'p'"},
		{"as tsconfig.json", "tsconfig.json", ""},
		{"as an extended tsconfig", "tsconfig.base.json", ""},
		{"as wasm", "a.wasm", "import './a.wasm'"},
		{"as text", "a.txt", "import './a.txt'"},
		{"as configuration", "wrangler.toml", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := write(t, files{"worker.js": c.entry})
			p := filepath.Join(dir, c.fifo)
			if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Mkfifo(p, 0o644); err != nil {
				t.Fatal(err)
			}
			out := run(t, dir)
			if len(out.Errors) == 0 || !strings.Contains(out.Errors[0].String(), "not a regular file") {
				t.Errorf("%v", out.Errors)
			}
		})
	}
}

func TestKinds(t *testing.T) {
	dir := write(t, files{
		"worker.tsx": `import text from "./a.txt"; import html from "./b.html"; import sql from "./c.sql"; import md from "./d.md";
			import data from "./e.bin"; import json from "./f.json"; import mod from "./g.wasm"; import again from "./sub/g.wasm?module";
			const later = () => import("./later");
			/** @jsx h */ const h = (n: string) => n;
			@sealed class K { using = 1 }
			function sealed(c: unknown) {}
			export default { fetch: () => [text, html, sql, md, data, json.a, mod, again, later, <b/>, K, process.env.NODE_ENV] };`,
		"a.txt": "TEXT", "b.html": "<p>HTML", "c.sql": "SELECT 1", "d.md": "# MD", "e.bin": "\x00\xffBIN", "f.json": `{"a": "JSON"}`,
		"g.wasm": "\x00asm1", "sub/g.wasm": "\x00asm2", "later.ts": "export const later: string = 'LATER';",
	})
	out := run(t, dir)
	if len(out.Errors)+len(out.Warnings) > 0 {
		t.Fatal(out.Errors, out.Warnings)
	}
	kinds := map[gen.Module_Kind]int{}
	for _, m := range out.Modules {
		kinds[m.Kind]++
	}
	if kinds[gen.Module_Kind_esm] != 1 || kinds[gen.Module_Kind_data] != 1 || kinds[gen.Module_Kind_wasm] != 2 {
		t.Errorf("modules: %v", kinds)
	}
	code := string(out.Modules[0].Code)
	for _, want := range []string{"TEXT", "<p>HTML", "SELECT 1", "# MD", "JSON", "LATER", `"production"`, "export {"} {
		if !strings.Contains(code, want) {
			t.Errorf("the bundle has no %s", want)
		}
	}
	for _, m := range out.Modules[1:] {
		if !strings.Contains(code, `from "`+m.Name+`"`) {
			t.Errorf("the bundle does not import %s", m.Name)
		}
	}
	for _, no := range []string{"@sealed", "import(\"./later", "process.env"} {
		if strings.Contains(code, no) {
			t.Errorf("the bundle still has %s", no)
		}
	}
}

func TestPackages(t *testing.T) {
	dir := write(t, files{
		"src/index.js":                         `import a from "conditions"; import b from "@scope/cjs/sub"; import c from "legacy"; import d from "linked"; export default [a, b, c, d];`,
		"node_modules/conditions/package.json": `{"exports": {".": {"node": "./node.js", "workerd": "./worker.js", "default": "./default.js"}}}`,
		"node_modules/conditions/node.js":      `export default "NODE"`,
		"node_modules/conditions/worker.js":    `export default "WORKERD"`,
		"node_modules/conditions/default.js":   `export default "DEFAULT"`,
		"node_modules/@scope/cjs/sub.js":       `let fs; try { fs = require("fs"); } catch {} module.exports = "CJS";`,
		"node_modules/legacy/package.json":     `{"main": "main.js", "module": "module.js"}`,
		"node_modules/legacy/main.js":          `module.exports = "MAIN"`,
		"node_modules/legacy/module.js":        `export default "MODULE"`,
		"node_modules/.store/linked/index.js":  `export default "LINKED"`,
	})
	if err := os.Symlink(".store/linked", filepath.Join(dir, "node_modules/linked")); err != nil {
		t.Fatal(err)
	}
	out := run(t, dir)
	if len(out.Errors) > 0 {
		t.Fatal(out.Errors)
	}
	for _, want := range []string{"WORKERD", "CJS", "MODULE", "LINKED"} {
		if !bytes.Contains(out.Modules[0].Code, []byte(want)) {
			t.Errorf("the bundle has no %s", want)
		}
	}
}

// The settings for JSX come from the tenant's own tsconfig.json.
func TestTsconfigHolds(t *testing.T) {
	dir := write(t, files{
		"src/index.ts":  `import { App } from "./app"; export default App;`,
		"src/app.tsx":   `export const App = <p/>;`,
		"tsconfig.json": `{"extends": "./base.json"}`, "base.json": `{"compilerOptions": {"jsx": "react-jsx", "jsxImportSource": "tiny"}}`,
		"node_modules/tiny/jsx-runtime.js": `export const jsx = () => "TINY";`,
	})
	out := run(t, dir)
	if len(out.Errors) > 0 || !bytes.Contains(out.Modules[0].Code, []byte("TINY")) {
		t.Errorf("%v", out.Errors)
	}
}

// What the runtime serves by itself stays an import, under one name, whoever wants it and how.
func TestServedModules(t *testing.T) {
	out := run(t, write(t, files{
		"worker.js":                     `import { AsyncLocalStorage as A } from "node:async_hooks"; import { B } from "async_hooks"; import c from "pkg"; export default [A, B, c, import("async_hooks")];`,
		"node_modules/pkg/package.json": `{"main": "m.cjs"}`, "node_modules/pkg/m.cjs": `const { AsyncResource } = require("async_hooks"); module.exports = AsyncResource;`,
	}))
	if len(out.Errors) > 0 {
		t.Fatal(out.Errors)
	}
	code := string(out.Modules[0].Code)
	if strings.Contains(code, `"async_hooks"`) || strings.Count(code, `"node:async_hooks"`) < 3 || strings.Contains(code, "Dynamic require") {
		t.Errorf("%s", code)
	}
}

func TestDiagnostics(t *testing.T) {
	for _, c := range []struct{ name, src, want, excerpt string }{
		{"syntax", "export default {\n  fetch() { return new Response('x' }\n};", "worker.js:2:37: Expected \")\" but found \"}\"", "  fetch() { return new Response('x' }"},
		{"columns are characters", "const ä = 'ÄÖ𝄞'; const = 1;", "worker.js:1:25: ", "const ä"},
		{"node module", "import fs from 'node:fs';", `worker.js:1:16: cannot import "node:fs": this Node.js module is not served; a worker has no files`, "import fs"},
		{"node module without prefix", "import { Worker } from 'worker_threads';", `cannot import "worker_threads": this Node.js module is not served; a worker is one thread`, ""},
		{"part of a node module", "import { createSign } from 'node:crypto'; export default createSign;", `cannot import "createSign" from "node:crypto": this part`, ""},
		{"part of a node module's name", "import x from 'node:chunk';", `cannot import "node:chunk": this Node.js module is not served`, ""},
		{"not quite a node module", "import x from 'node:stream/../crypto';", `cannot import "node:stream/../crypto"`, ""},
		{"cloudflare module", "import { connect } from 'cloudflare:sockets';", `modules of this name are not served yet`, ""},
		{"missing package", "import { Hono } from 'hono/tiny';", "run `npm install hono` in the tenant's folder", ""},
		{"missing scoped package", "import x from '@a/b/c';", "npm install @a/b`", ""},
		{"missing file", "import x from './nope';", `cannot find "./nope"`, ""},
		{"terminal escape", "import x from './\x1b[31m';", "", ""},
		{"minified line", strings.Repeat("a;", 5000) + "const = 1;" + strings.Repeat("b;", 5000), "worker.js:1:10007", "const = 1;"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := run(t, write(t, files{"worker.js": c.src}))
			if len(out.Errors) == 0 {
				t.Fatal("it was bundled")
			}
			var buf bytes.Buffer
			if err := Write(&buf, out); err != nil {
				t.Fatal(err)
			}
			back, err := tenants.DecodeResult(buf.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			d := back.Errors[0]
			if !strings.Contains(d.String(), c.want) || !strings.Contains(d.Excerpt, c.excerpt) || len([]rune(d.Excerpt)) > 200 {
				t.Errorf("want %q and %q, got %s", c.want, c.excerpt, d)
			}
			if strings.ContainsRune(d.String(), 0x1b) {
				t.Errorf("a control character reaches the terminal: %q", d)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	many := files{"worker.js": ""}
	for i := range 40 {
		many["worker.js"] += fmt.Sprintf("import './m%d.js';\n", i)
		many[fmt.Sprintf("m%d.js", i)] = "console.log(" + strings.Repeat("1+", 500) + "1)"
	}
	deep := filepath.Join(strings.Split(strings.Repeat("d ", 80), " ")...)
	for _, c := range []struct {
		name  string
		files files
		lim   func(*Limits)
		want  string
	}{
		{"one file", many, func(l *Limits) { l.FileBytes = 900 }, "limit for one file"},
		{"files", many, func(l *Limits) { l.Files = 20 }, "one file too many"},
		{"input", many, func(l *Limits) { l.InputBytes = 10_000 }, "all files together"},
		{"output", many, func(l *Limits) { l.OutputBytes = 1000 }, "a bundler's limit"},
		{"entries", many, func(l *Limits) { l.ScanEntries = 10 }, "more than 10 files"},
		{"depth", files{"worker.js": "", deep + "/x.js": ""}, func(*Limits) {}, "nested more than"},
		{"bin", files{"worker.js": "import './a.bin'", "a.bin": strings.Repeat("x", 2000)}, func(l *Limits) { l.FileBytes = 1000 }, "limit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			lim := DefaultLimits()
			c.lim(&lim)
			out := Run(write(t, c.files), lim)
			if len(out.Errors) == 0 || !strings.Contains(out.Errors[0].String(), c.want) {
				t.Errorf("%v", out.Errors)
			}
		})
	}
	t.Run("a large map is left out", func(t *testing.T) {
		lim := DefaultLimits()
		lim.MapBytes = 10
		out := Run(write(t, many), lim)
		if len(out.Errors) > 0 || len(out.Warnings) != 1 || len(out.Modules[0].SourceMap) > 0 {
			t.Errorf("%v %v", out.Errors, out.Warnings)
		}
	})
}

func TestOddNames(t *testing.T) {
	out := run(t, write(t, files{
		"worker.js":              `import a from "./a b'\"\\u0026.txt"; import w from "./wäsm \\u2603.wasm"; export default [a, w];`,
		"a b'\"&.txt":            "ODD",
		"wäsm ☃.wasm":            "\x00asm",
		"node_modules/.bin/$(x)": "",
	}))
	// The escapes above are JavaScript's only in part: what matters is a clear answer either way.
	for _, m := range out.Modules {
		for _, c := range []byte(m.Name) {
			if c <= ' ' || c >= 0x7f {
				t.Errorf("module name %q", m.Name)
			}
		}
	}
	if len(out.Errors) > 0 && out.Errors[0].File != "worker.js" {
		t.Error(out.Errors)
	}
}

func TestDeterministic(t *testing.T) {
	dir := write(t, files{"worker.js": `import a from "./a.wasm"; import b from "./b.bin"; import c from "./c.txt"; export default [a, b, c];`, "a.wasm": "1", "b.bin": "2", "c.txt": "3"})
	var first bytes.Buffer
	if err := Write(&first, run(t, dir)); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		var again bytes.Buffer
		if err := Write(&again, run(t, dir)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first.Bytes(), again.Bytes()) {
			t.Fatal("the same folder gave another result")
		}
	}
}
