package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var fuzzer = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)

// Every fuzzer of the tree is in the table, every row of the table is a fuzzer, and each has inputs in
// the tree that plain `go test` runs: a decoder that is not fuzzed, or whose fuzzer begins from
// nothing, does not go unnoticed.
func TestEveryDecoderHasAFuzzerAndACorpus(t *testing.T) {
	const root = "../.."
	var inTree []string
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && (strings.HasPrefix(e.Name(), ".") && path != root || e.Name() == "node_modules" || e.Name() == "testdata") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		pkg, err := filepath.Rel(root, filepath.Dir(path))
		for _, m := range fuzzer.FindAllSubmatch(text, -1) {
			inTree = append(inTree, filepath.ToSlash(pkg)+"."+string(m[1]))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var inTable []string
	for _, d := range decoders() {
		name := d.pkg + "." + d.fuzz
		inTable = append(inTable, name)
		if d.reads == "" || d.from == "" {
			t.Errorf("%s: the table does not say what it reads, or whose", name)
		}
		inputs, err := os.ReadDir(filepath.Join(root, d.pkg, "testdata", "fuzz", d.fuzz))
		if errors.Is(err, fs.ErrNotExist) || err == nil && len(inputs) == 0 {
			t.Errorf("%s has no corpus in the tree: run `go run ./securitytests/fuzz -only '%s$' -keep 8` and commit testdata/fuzz", name, d.fuzz)
		} else if err != nil {
			t.Error(err)
		}
	}
	slices.Sort(inTree)
	slices.Sort(inTable)
	if len(slices.Compact(slices.Clone(inTable))) != len(inTable) {
		t.Error("a row is twice in the table")
	}
	for _, name := range inTree {
		if _, ok := slices.BinarySearch(inTable, name); !ok {
			t.Errorf("%s is not in the table of decoders", name)
		}
	}
	for _, name := range inTable {
		if _, ok := slices.BinarySearch(inTree, name); !ok {
			t.Errorf("%s is in the table of decoders and not in the tree", name)
		}
	}
}

// The table's parsers of the Go fuzzer's output know what it looks like.
func TestProgressIsRead(t *testing.T) {
	m := progress.FindStringSubmatch("fuzz: elapsed: 6s, execs: 325017 (108336/sec), new interesting: 11 (total: 202)\n")
	if len(m) != 4 || m[1] != "325017" || m[2] != "11" || m[3] != "202" {
		t.Errorf("%q", m)
	}
	if m := crash.FindStringSubmatch("    Failing input written to testdata/fuzz/FuzzX/582528ddfad69eb5\n"); len(m) != 2 || m[1] != "testdata/fuzz/FuzzX/582528ddfad69eb5" {
		t.Errorf("%q", m)
	}
}
