package tenants

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"

	"bulkhead/supervisor/tenants/manifest"
)

// FuzzSourceMap: a hostile bundler's map and a hostile shard's stack name files of the tenant's folder
// or nothing, and cost no more than their own length.
func FuzzSourceMap(f *testing.F) {
	f.Add([]byte(`{"version":3,"sources":["src/index.ts"],"mappings":"AAAA,SAASA;AACA"}`), "Error\n    at fetch (worker.js:1:5)")
	f.Add([]byte(`{"sources":["../../etc/passwd","a\u001b[31m"],"mappings":"ACAA;ADAA,gggggggB"}`), "worker.js:2:1 worker.js:9999999:9999999")
	f.Add([]byte(`{"sources":[],"mappings":";;;;AAAA"}`), "/worker.js:5:1")
	f.Fuzz(func(t *testing.T, raw []byte, stack string) {
		m := newMapper()
		if len(raw) > 1<<20 || len(stack) > 64<<10 || !m.keep("/worker.js", raw) {
			return
		}
		v := &Version{maps: m, folder: "/nonexistent"}
		out := v.MapStack(stack)
		// At most 50 places are replaced, each by a name of bounded length.
		if len(out) > len(stack)+50*(3*maxModuleName+20) {
			t.Errorf("%d bytes became %d", len(stack), len(out))
		}
		d := v.MapDiagnostic(v.placed(Diagnostic{Message: "m"}, stack))
		if strings.HasPrefix(d.File, "/") && d.File != "/" && d.File != "//" && strings.HasPrefix(d.File, "/etc") || strings.HasPrefix(d.File, "../") {
			t.Errorf("file %q", d.File)
		}
		if strings.ContainsFunc(d.File, unicode.IsControl) {
			t.Errorf("file %q", d.File)
		}
		var sm sourceMap
		if json.Unmarshal(raw, &sm) == nil {
			if p, ok := sm.lookup(1, 1); ok && p.source == "" && len(sm.Sources) == 0 {
				t.Error("a place in no source")
			}
		}
	})
}

// FuzzPlain: what is served without a bundler names no other file.
func FuzzPlain(f *testing.F) {
	f.Add([]byte("export default { fetch() { return new Response('x') } }"))
	f.Add([]byte("export {a as default} from './b.js'"))
	f.Add([]byte("import x from 'y'; export default x"))
	f.Add([]byte("export default 1;export*from\u00a0'./a.js'"))
	m := &manifest.Manifest{Main: "worker.js"}
	f.Fuzz(func(t *testing.T, src []byte) {
		out, ok := plain(func(string) ([]byte, error) { return src, nil }, m)
		if !ok {
			return
		}
		for _, word := range []string{"import ", "import(", "import{", "import'", `import"`, "require("} {
			if i := strings.Index(string(src), word); i >= 0 && (i == 0 || !identifier(src[i-1])) {
				t.Errorf("%q went by the bundler", src)
			}
		}
		if _, err := EncodeBundle(out.Main, out.Modules); err != nil {
			t.Error(err)
		}
	})
}
