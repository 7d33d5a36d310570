package bundle

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bulkhead/supervisor/tenants/bundle/nodejs"
)

// Every module that is served is found under both of its names, imported and required, and what require
// gives is what CommonJS packages take it for: a constructor, a function.
func TestNodeModules(t *testing.T) {
	sources, err := filepath.Glob("nodejs/src/*.js")
	if err != nil || len(sources) < 15 {
		t.Fatal(sources, err)
	}
	for _, s := range sources {
		name := strings.ReplaceAll(strings.TrimSuffix(filepath.Base(s), ".js"), ".", "/")
		if name == "inject" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			out := run(t, write(t, files{
				"worker.js": `import a from "` + name + `"; import * as b from "node:` + name + `"; import c from "./c.cjs"; export default [a, b, c, import("` + name + `")];`,
				"c.cjs":     `module.exports = require("` + name + `");`,
			}))
			for _, d := range append(out.Errors, out.Warnings...) {
				t.Error(d)
			}
			if t.Failed() {
				return
			}
			if code := string(out.Modules[0].Code); !strings.Contains(code, "bulkhead-node:node:"+name) || strings.Contains(code, "Dynamic require") {
				t.Errorf("%.2000s", code)
			}
		})
	}
}

// A worker that imports no module of Node.js gets nothing of one, whatever globals it asks for; one that
// does gets the globals it names.
func TestNodeGlobals(t *testing.T) {
	code := func(src string) string {
		out := run(t, write(t, files{"worker.js": src}))
		if len(out.Errors)+len(out.Warnings) > 0 {
			t.Fatal(out.Errors, out.Warnings)
		}
		return string(out.Modules[0].Code)
	}
	if got := code(`export default typeof Buffer === "undefined" ? typeof process : Buffer.from("a");`); len(got) > 300 || strings.Contains(got, "bulkhead-node") {
		t.Errorf("%s", got)
	}
	if got := code(`import path from "node:path/posix"; export default [path.sep, Buffer.from("a")];`); !strings.Contains(got, "bulkhead-node:node:buffer") {
		t.Errorf("%.2000s", got)
	}
	if got := code(`import { AsyncLocalStorage } from "node:async_hooks"; export default [AsyncLocalStorage, typeof Buffer];`); strings.Contains(got, "bulkhead-node") {
		t.Errorf("%.2000s", got)
	}
}

// What a tenant has installed under a name comes before what Node.js has.
func TestInstalledBeforeNode(t *testing.T) {
	out := run(t, write(t, files{
		"worker.js":                        `import e from "events"; export default e;`,
		"node_modules/events/package.json": `{"main": "e.js"}`, "node_modules/events/e.js": `export default "installed events";`,
	}))
	if len(out.Errors) > 0 {
		t.Fatal(out.Errors)
	}
	if code := string(out.Modules[0].Code); !strings.Contains(code, "installed events") || strings.Contains(code, "bulkhead-node") {
		t.Errorf("%.2000s", code)
	}
}

func TestNodeNames(t *testing.T) {
	for _, spec := range []string{"", "node:", "node:node:buffer", "dist", "..", "node:../nodejs.go", "buffer.js", "node:stream.web", "./buffer", "/buffer", "stream/", `stream\web`, "chunk-A", "inject", "path/win32", "fs", "node:fs/promises", "\x00"} {
		if name, ok := nodejs.Module(spec); ok {
			t.Errorf("%q is served as %q", spec, name)
		}
	}
	if _, err := os.Stat("nodejs/dist/inject.js"); err == nil {
		t.Error("a module named inject is served")
	}
}
