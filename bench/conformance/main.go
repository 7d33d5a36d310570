// Command conformance runs Web Platform Tests from a checkout in real tenants: the real launcher,
// the real gateway, sealed workers. Each `.any.js` file that applies to a worker without a DOM becomes
// one tenant (one for each variant); what its subtests came to is held against the list of what we
// knowingly differ in (expectations.txt), and a result that the list does not foresee is a failure.
// Nothing of a checkout is kept in this repository: testharness.js and every test are read from it.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

//go:embed expectations.txt
var expectationsText string

// defaultDirs are the parts of a checkout that a worker without a DOM has to do with. A directory
// that the checkout lacks is left out; -only names others.
const defaultDirs = "FileAPI,WebCryptoAPI,compression,console,dom/abort,dom/events,encoding,fetch/api,fetch/data-urls,hr-time," +
	"html/webappapis,mimesniff,performance-timeline,streams,url,urlpattern,user-timing,wasm/jsapi,wasm/webapi,webidl/ecmascript-binding,webmessaging,websockets,xhr/formdata"

type options struct {
	dir, bin, scratch string
	only              []string
	jobs              int
	factor            float64
	expectations      string // text of the list
}

func main() {
	var o options
	var only, file, expect string
	flag.StringVar(&o.dir, "dir", "", "`DIR` of the checkout of web-platform-tests/wpt; required")
	flag.StringVar(&only, "only", "", "directories or files of it, with commas between; default: "+strings.ReplaceAll(defaultDirs, ",", ", "))
	flag.StringVar(&file, "json", "", "also write every result to this `FILE`; - for standard output, instead of the table")
	flag.StringVar(&expect, "expect", "", "`FILE` of what is expected to fail, instead of the one that is built in")
	flag.StringVar(&o.bin, "bin", "bin", "`DIR` of the binaries")
	flag.IntVar(&o.jobs, "jobs", runtime.NumCPU(), "`N` files at once")
	flag.Float64Var(&o.factor, "timeout-factor", 1, "multiply the 10 s a file has (60 s with timeout=long) by this")
	flag.Parse()
	os.Exit(command(o, only, file, expect, os.Stdout, os.Stderr))
}

// command is main with its exit code: 0 as expected, 1 not, 2 bad usage.
func command(o options, only, file, expect string, out, progress io.Writer) int {
	fail := func(code int, format string, args ...any) int {
		fmt.Fprintf(progress, "conformance: "+format+"\n", args...)
		return code
	}
	switch {
	case o.dir == "":
		return fail(2, "which checkout? make conformance DIR=/path/to/wpt (git clone --depth 1 of web-platform-tests/wpt)")
	case o.jobs < 1 || o.jobs > 256:
		return fail(2, "-jobs %d: 1 to 256", o.jobs)
	case !(o.factor > 0 && o.factor <= 100):
		return fail(2, "-timeout-factor %v: more than 0, at most 100", o.factor)
	}
	explicit := only != ""
	if !explicit {
		only = defaultDirs
	}
	o.only = strings.Split(only, ",")
	o.expectations = expectationsText
	if expect != "" {
		text, err := os.ReadFile(expect)
		if err != nil {
			return fail(2, "%v", err)
		}
		o.expectations = string(text)
	}
	var err error
	if o.dir, err = filepath.Abs(o.dir); err == nil {
		o.bin, err = filepath.Abs(o.bin)
	}
	if err != nil {
		return fail(2, "%v", err)
	}
	if _, err := os.Stat(filepath.Join(o.dir, harnessPath)); err != nil {
		return fail(2, "%v: %s is no checkout of web-platform-tests/wpt", err, o.dir)
	}
	if _, err := os.Stat(filepath.Join(o.bin, "bulkhead")); err != nil {
		return fail(2, "%v: run `make conformance DIR=…`, which builds what this needs", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := conformance(ctx, o, explicit, progress)
	if err != nil {
		return fail(1, "%v", err)
	}
	if file != "-" {
		r.print(out)
	}
	if file != "" {
		text, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return fail(1, "%v", err)
		}
		text = append(text, '\n')
		if file == "-" {
			_, err = out.Write(text)
		} else {
			err = os.WriteFile(file, text, 0o644)
		}
		if err != nil {
			return fail(1, "%v", err)
		}
	}
	if len(r.Unexpected) > 0 {
		return 1
	}
	return 0
}

// conformance finds the tests, runs them on a host of their own and judges what came of them.
func conformance(ctx context.Context, o options, explicit bool, progress io.Writer) (*report, error) {
	expected, err := parseExpectations(o.expectations)
	if err != nil {
		return nil, err
	}
	found, err := find(o.dir, o.only, explicit)
	if err != nil {
		return nil, err
	}
	if len(found.tests) == 0 {
		return nil, fmt.Errorf("no test in %s of %s runs here (%d skipped)", strings.Join(o.only, ", "), o.dir, found.skippedFiles())
	}
	h, err := startHost(o, found.tests)
	if err != nil {
		return nil, err
	}
	defer h.stop()
	start := time.Now()
	results, err := h.runAll(ctx, o, found.tests, progress)
	if err != nil {
		return nil, err
	}
	return judge(results, found.skipped, expected, o.only, h.policyHash, time.Since(start)), nil
}

// report is what a run came to; its JSON is for machines, and its names are stable.
type report struct {
	PolicyHash string         `json:"policyHash"`
	Seconds    float64        `json:"seconds"`
	Pass       int            `json:"pass"`  // subtests
	Total      int            `json:"total"` // subtests, and one for each file that did not end in order
	Dirs       []dirCount     `json:"dirs"`
	Areas      []dirCount     `json:"areas"` // the same, summed by what was asked for: the default list, or -only
	Files      []result       `json:"files"`
	Skipped    map[string]int `json:"skipped"` // files by reason
	Expected   map[string]int `json:"expected"`
	Unexpected []unexpected   `json:"unexpected"`
}

type dirCount struct {
	Dir   string `json:"dir"`
	Files int    `json:"files"`
	Pass  int    `json:"pass"`
	Total int    `json:"total"`
}

func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "%-44s %6s %14s %7s\n", "directory", "files", "pass/total", "")
	row := func(name string, files, pass, total int) {
		fmt.Fprintf(w, "%-44s %6d %14s %6.1f%%\n", name, files, fmt.Sprintf("%d/%d", pass, total), 100*float64(pass)/float64(max(total, 1)))
	}
	for _, d := range r.Dirs {
		row(d.Dir, d.Files, d.Pass, d.Total)
	}
	if len(r.Areas) > 1 {
		fmt.Fprintln(w)
		for _, d := range r.Areas {
			row(d.Dir, d.Files, d.Pass, d.Total)
		}
	}
	row("all", len(r.Files), r.Pass, r.Total)
	counts := func(title string, m map[string]int) {
		if len(m) == 0 {
			return
		}
		fmt.Fprintf(w, "\n%s:\n", title)
		names := make([]string, 0, len(m))
		for name := range m {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			fmt.Fprintf(w, "%6d  %s\n", m[name], name)
		}
	}
	counts("files skipped", r.Skipped)
	counts("failures foreseen in expectations.txt", r.Expected)
	fmt.Fprintf(w, "\npolicy %s; took %.0f s\n", r.PolicyHash, r.Seconds)
	if len(r.Unexpected) == 0 {
		fmt.Fprintln(w, "everything as expected")
		return
	}
	fmt.Fprintf(w, "\n%d results are not what expectations.txt says; a line is in its format:\n", len(r.Unexpected))
	for _, u := range r.Unexpected {
		fmt.Fprintf(w, "%s\n    # %s\n", u.Line, u.Why)
	}
}
