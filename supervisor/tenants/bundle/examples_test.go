package bundle

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"bulkhead/schema/gen"
	"bulkhead/supervisor/tenants"
)

// The shipped examples bundle without an error, and survive the trip through the message that
// carries them out of the sealed child.
func TestExamplesBundle(t *testing.T) {
	root := filepath.Join("..", "..", "..", "examples")
	list, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, d := range list {
		if !d.IsDir() {
			continue
		}
		count++
		t.Run(d.Name(), func(t *testing.T) {
			dir := filepath.Join(root, d.Name())
			if _, err := os.Stat(filepath.Join(dir, "package-lock.json")); err == nil {
				if _, err := os.Stat(filepath.Join(dir, "node_modules")); err != nil {
					t.Fatalf("its packages are not installed: run `npm ci --prefix examples/%s` (make does)", d.Name())
				}
			}
			out := Run(dir, DefaultLimits())
			for _, d := range append(out.Errors, out.Warnings...) {
				t.Error(d)
			}
			var buf bytes.Buffer
			if err := Write(&buf, out); err != nil {
				t.Fatal(err)
			}
			back, err := tenants.DecodeResult(buf.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			if len(back.Modules) != len(out.Modules) || back.Main != out.Main {
				t.Fatalf("came back as %d modules, main %q; sent %d, %q", len(back.Modules), back.Main, len(out.Modules), out.Main)
			}
			for i, m := range back.Modules {
				if !bytes.Equal(m.Code, out.Modules[i].Code) || m.Name != out.Modules[i].Name || m.Kind != out.Modules[i].Kind {
					t.Errorf("module %s changed on the way", m.Name)
				}
			}
			if back.Modules[0].Kind != gen.Module_Kind_esm || len(back.Modules[0].SourceMap) == 0 {
				t.Errorf("the entry is of kind %v with %d bytes of source map", back.Modules[0].Kind, len(back.Modules[0].SourceMap))
			}
		})
	}
	if count < 6 {
		t.Errorf("%d examples, expected at least 6", count)
	}
}
