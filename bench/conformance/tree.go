package main

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// harnessPath is where a checkout has its harness.
const harnessPath = "resources/testharness.js"

// test is one file of a checkout to be run once: a file with variants is several.
type test struct {
	path    string   // slash path below the checkout
	variant string   // "?…", "#…" or ""
	title   string   // META: title
	long    bool     // META: timeout=long
	scripts []string // META: script, slash paths below the checkout, in order
}

// name is how results and expectations call it.
func (t test) name() string { return t.path + t.variant }

// found is what a search of a checkout came to.
type found struct {
	tests   []test
	skipped map[string]int // files by reason
}

func (f found) skippedFiles() (n int) {
	for _, k := range f.skipped {
		n += k
	}
	return n
}

// find looks for `.any.js` files below the named directories (or the named files) of the checkout. A
// name of the default list may be missing from a checkout; one that was asked for may not.
func find(dir string, only []string, explicit bool) (found, error) {
	f := found{skipped: map[string]int{}}
	root := os.DirFS(dir)
	seen := map[string]bool{}
	for _, name := range only {
		name = path.Clean(filepath.ToSlash(name))
		if !fs.ValidPath(name) {
			return f, fmt.Errorf("%q is not a path below the checkout", name)
		}
		if _, err := fs.Stat(root, name); err != nil {
			if explicit {
				return f, fmt.Errorf("%s has no %s", dir, name)
			}
			continue
		}
		err := fs.WalkDir(root, name, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() || !strings.HasSuffix(p, ".any.js") || seen[p] {
				return nil
			}
			seen[p] = true
			text, err := fs.ReadFile(root, p)
			if err != nil {
				return err
			}
			tests, skip := examine(root, p, string(text))
			if skip != "" {
				f.skipped[skip]++
				return nil
			}
			f.tests = append(f.tests, tests...)
			return nil
		})
		if err != nil {
			return f, err
		}
	}
	slices.SortFunc(f.tests, func(a, b test) int { return strings.Compare(a.name(), b.name()) })
	return f, nil
}

var metaLine = regexp.MustCompile(`^//\s*META:\s*([A-Za-z-]+)\s*=\s*(.*?)\s*$`)

// What a test must have that no worker here has. What merely fails is not skipped: it is for the
// expectations. A file that runs in workers may name the DOM all the same, behind a look at whether there
// is one: structured-clone.any.js does, and has a hundred tests that need none.
var needs = []struct {
	what   string
	reason string
	re     *regexp.Regexp
}{
	{"path", "needs WPT's own server", regexp.MustCompile(`\.(h2|sub)\.|\.sub$`)},
	{"text", "needs WPT's own server", regexp.MustCompile(`get-host-info|\.py\b|\{\{|\.asis\b|inspect-headers|wptserve`)},
	{"text", "needs testdriver", regexp.MustCompile(`\btest_driver\b`)},
}

// examine reads the META lines at the head of a file. A reason means that it is not run.
func examine(root fs.FS, p, text string) (tests []test, skip string) {
	t := test{path: p}
	globals := "window,dedicatedworker" // what a file without the line runs in
	variants := []string{}
	for line := range strings.Lines(text) {
		m := metaLine.FindStringSubmatch(strings.TrimRight(line, "\r\n"))
		if m == nil {
			break
		}
		switch key, value := m[1], m[2]; key {
		case "global":
			globals = value
		case "title":
			t.title = value
		case "timeout":
			t.long = value == "long"
		case "variant":
			variants = append(variants, value)
		case "script":
			s := value
			if s, ok := strings.CutPrefix(s, "/"); ok {
				t.scripts = append(t.scripts, path.Clean(s))
			} else {
				t.scripts = append(t.scripts, path.Join(path.Dir(p), s))
			}
		}
	}
	if !inWorkers(globals) {
		return nil, "for other globals than workers"
	}
	texts := text
	for _, s := range t.scripts {
		for _, n := range needs {
			if n.what == "path" && n.re.MatchString(s) {
				return nil, n.reason
			}
		}
		if strings.HasPrefix(s, "resources/testdriver") {
			return nil, "needs testdriver"
		}
		if s == "common/get-host-info.sub.js" {
			return nil, "needs WPT's own server"
		}
		if !fs.ValidPath(s) {
			return nil, "names a script outside the checkout"
		}
		b, err := fs.ReadFile(root, s)
		if err != nil {
			return nil, "names a script that the checkout lacks"
		}
		// Shared helpers such as the IDL harness name much that a test never calls.
		if !strings.HasPrefix(s, "resources/") && !strings.HasPrefix(s, "common/") {
			texts += "\n" + string(b)
		}
	}
	for _, n := range needs {
		if n.what == "path" && n.re.MatchString(p) || n.what == "text" && n.re.MatchString(texts) {
			return nil, n.reason
		}
	}
	if len(variants) == 0 {
		variants = []string{""}
	}
	for _, v := range variants {
		t := t
		t.variant = v
		tests = append(tests, t)
	}
	return tests, ""
}

// inWorkers says whether a list of META: global names a scope that is like ours: any kind of worker,
// or a shell.
func inWorkers(list string) bool {
	in := map[string]bool{}
	for _, g := range strings.Split(list, ",") {
		g = strings.TrimSpace(g)
		off := strings.HasPrefix(g, "!")
		g = strings.TrimPrefix(g, "!")
		switch g {
		case "worker":
			in["dedicatedworker"], in["sharedworker"], in["serviceworker"] = !off, !off, !off
		case "dedicatedworker", "sharedworker", "serviceworker", "jsshell":
			in[g] = !off
		}
	}
	for _, on := range in {
		if on {
			return true
		}
	}
	return false
}

var strictDirective = regexp.MustCompile(`^(?:\s|//[^\n]*\n|/\*(?s:.*?)\*/)*(?:"use strict"|'use strict')`)

// source is the text of a test: the harness, the scripts it names, and itself, in one function's body,
// so that they share one scope as a page's scripts do, and are as sloppy as those are. A file's own
// "use strict" rules the file alone.
func (t test) source(root fs.FS) (string, error) {
	var b strings.Builder
	for _, p := range append([]string{harnessPath}, t.scripts...) {
		text, err := fs.ReadFile(root, p)
		if err != nil {
			return "", err
		}
		b.Write(text)
		b.WriteString("\n;\n")
		if p == harnessPath {
			b.WriteString("self.__conformance_ready();\n")
		}
	}
	text, err := fs.ReadFile(root, t.path)
	if err != nil {
		return "", err
	}
	if strictDirective.Match(text) {
		fmt.Fprintf(&b, "(function () {%s\n}).call(self);\n", text)
	} else {
		b.Write(text)
	}
	return b.String(), nil
}
