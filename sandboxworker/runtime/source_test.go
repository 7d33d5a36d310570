package runtime_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bulkhead/sandboxworker/runtime"
)

func TestSourceIsASCII(t *testing.T) {
	for i, c := range runtime.Source() {
		if c >= 0x80 {
			src := string(runtime.Source())
			t.Fatalf("byte %#x at offset %d: %.60q", c, i, src[max(0, i-30):])
		}
	}
}

// Every file of js/ is part of the script, once, and none is too long to read.
func TestSourceHasEveryFile(t *testing.T) {
	src := string(runtime.Source())
	err := filepath.WalkDir("js", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name := strings.TrimPrefix(filepath.ToSlash(path), "js/")
		if n := strings.Count(src, "// ---- "+name+"\n"); n != 1 {
			t.Errorf("%s is %d times in the script", name, n)
		}
		data, err := os.ReadFile(path)
		if n := strings.Count(string(data), "\n"); n > 500 {
			t.Errorf("%s has %d lines, over 500", name, n)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
