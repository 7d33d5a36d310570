package tenants

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"bulkhead/schema/gen"
	"bulkhead/supervisor/tenants/manifest"
)

// Files that a bundler would hand back as they are need none. Whatever could be an import, CommonJS,
// JSX, a decorator or something the bundler defines goes to it, even in a string or a comment.
func TestPlain(t *testing.T) {
	for src, want := range map[string]bool{
		`export default { fetch() { return new Response("hello from t1"); } };`:              true,
		`const important = Array.from("abc"), processing = 1; export default { important };`: true,
		`function f() {} export { f as default };`:                                           true,
		"#!/usr/bin/env x\nexport default {}":                                                true,
		"export default {} // naïve — ünïcode":                                               true,
		``: false,
		`addEventListener("fetch", (e) => e.respondWith(new Response("x")));`: false, // a script
		`module.exports = { fetch() {} };`:                                    false,
		`import x from "./x.js"; export default x;`:                           false,
		`export default { f: () => import("./x.js") };`:                       false,
		"import\u00a0x from './x.js'; export default x":                       false,
		`export * from"./x.js"; export default 1;`:                            false,
		`export { default } from /* c */ "./x.js"; export default 1;`:         false,
		"export * from\u2003'./x.js'; export default 1":                       false,
		"export * from\n\t'./x.js'; export default 1":                         false,
		`export default require("./x")`:                                       false,
		`export default { f() { return <b>x</b>; } }`:                         false,
		`export default { f() { return <br/>; } }`:                            false,
		`@dec class A {} export default A`:                                    false,
		`class A { accessor x = 1 } export default A`:                         false,
		`export default process.env.NODE_ENV`:                                 false,
		"export default 1 // \xff":                                            false, // not UTF-8
		`export default 1 //# sourceMappingURL=x`:                             false,
		`// it may import things
export default 1`: false,
	} {
		m := &manifest.Manifest{Main: "src/worker.mjs"}
		out, got := plain(func(string) ([]byte, error) { return []byte(src), nil }, m)
		if got != want {
			t.Errorf("%q: %v", src, got)
		}
		if got && (out.Main != "/src/worker.mjs" || len(out.Modules) != 1 || string(out.Modules[0].Code) != src || out.Modules[0].Kind != gen.Module_Kind_esm) {
			t.Errorf("%q: %+v", src, out)
		}
	}
	ok := func(string) ([]byte, error) { return []byte("export default 1"), nil }
	for _, main := range []string{"worker.ts", "worker.jsx", "worker.cjs", "a b.js", "a%20.js", "worker.js.txt"} {
		if _, got := plain(ok, &manifest.Manifest{Main: main}); got {
			t.Errorf("%s is served as it is", main)
		}
	}
	if _, got := plain(func(string) ([]byte, error) { return nil, errors.New("too large") }, &manifest.Manifest{Main: "worker.js"}); got {
		t.Error("a file that cannot be read is served")
	}
}

// Where there are many tenants, a plain file costs no bundler; what is wrong with it is said in
// places of the file; and a host of few tenants, or dev, has the bundler look at everything.
func TestPlainOnlyWhereThereAreMany(t *testing.T) {
	files := map[string]string{"other": `import "./x"; export default {}`, "syntax": "export default {\n  x(\n}"}
	for i := range 5 {
		files[fmt.Sprint("t", i)] = "export default { n: 1 }"
	}
	h := start(t, Config{Eager: 2}, files)
	v, _ := h.Lookup("t1.localhost", "/")
	if v.Err != nil || h.builds.Load() != 0 || !strings.Contains(h.code(v), "n: 1") {
		t.Errorf("%v after %d builds", v.Err, h.builds.Load())
	}
	if h.get("other.localhost", "/"); h.builds.Load() != 1 {
		t.Error("an import was not bundled")
	}
	v, _ = h.Lookup("syntax.localhost", "/")
	now := h.Reject(v, gen.Outcome_exception, Diagnostic{File: "worker.js", Line: 3, Column: 1, Message: "SyntaxError: Unexpected token '}'"}, "")
	if now.Err == nil || now.Err.Diagnostics[0] != (Diagnostic{File: "worker.js", Line: 3, Column: 1, Excerpt: "}", Message: "SyntaxError: Unexpected token '}'"}) {
		t.Errorf("%+v", now.Err)
	}
	h.put("t1", "export default { n: 2 }")
	h.eventually("a change is seen", func() bool { return strings.Contains(h.get("t1.localhost", "/"), "n: 2") })
	for name, cfg := range map[string]Config{"few": {}, "dev": {Dev: true, Eager: 2}} {
		other := start(t, cfg, files)
		if other.get("t1.localhost", "/"); other.builds.Load() == 0 {
			t.Errorf("%s: the bundler was left out", name)
		}
	}
}
