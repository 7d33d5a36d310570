package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkhead/securitytests/hosttest"
)

// TestTree runs the small tree of testdata on a real host: each way in which a file can end, and how
// files see their surroundings.
func TestTree(t *testing.T) {
	var out, progress bytes.Buffer
	o := options{dir: "testdata/tree", bin: hosttest.Binaries(t), jobs: 2, factor: 0.3}
	if code := command(o, "part,other", "-", "testdata/expectations.txt", &out, &progress); code != 0 {
		t.Fatalf("exit code %d\n%s%s", code, &progress, &out)
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	outcomes := map[string]string{}
	for _, f := range r.Files {
		outcomes[f.Path] = f.Outcome
		if strings.HasSuffix(f.Path, "good.any.js") {
			if len(f.Subtests) != 7 || f.Subtests[2].Name != "the title" {
				t.Errorf("good.any.js has %d subtests, want 7, the third with its file's title: %v", len(f.Subtests), f.Subtests)
			}
			for _, s := range f.Subtests {
				if s.Status != "PASS" {
					t.Errorf("%s: %s %s", s.Name, s.Status, s.Message)
				}
			}
		}
		if strings.HasSuffix(f.Path, "hangs.any.js") && (len(f.Subtests) != 2 || f.Subtests[0].Status != "PASS") {
			t.Errorf("what had ended of hangs.any.js was not kept: %v", f.Subtests)
		}
		if strings.HasSuffix(f.Path, "throws.any.js") && (len(f.Subtests) != 1 || !strings.Contains(f.Message, "thrown at the top")) {
			t.Errorf("throws.any.js came to %+v", f)
		}
	}
	want := map[string]string{
		"other/dom.any.js": "ok",
		"part/bad.any.js":  "ok", "part/dies.any.js": "exceededMemory", "part/good.any.js": "ok", "part/hangs.any.js": "timeout", "part/strict.any.js": "ok",
		"part/syntax.any.js": "error", "part/throws.any.js": "error", "part/variants.any.js?1-1": "ok", "part/variants.any.js?2-last": "ok",
	}
	if d := cmp.Diff(want, outcomes); d != "" {
		t.Errorf("outcomes (-want +got):\n%s", d)
	}
	skipped := map[string]int{
		"for other globals than workers": 2, "needs WPT's own server": 1,
		"names a script outside the checkout": 1, "names a script that the checkout lacks": 1,
	}
	if d := cmp.Diff(skipped, r.Skipped); d != "" {
		t.Errorf("skipped (-want +got):\n%s", d)
	}
	if r.Pass == 0 || r.Total != r.Pass+8 {
		t.Errorf("%d of %d passed, want all but 8", r.Pass, r.Total)
	}
	if !strings.Contains(progress.String(), "10 of 10 files") {
		t.Errorf("no progress was shown:\n%s", &progress)
	}
}

// TestUnexpected holds both kinds of surprise against the list, and the table that names them.
func TestUnexpected(t *testing.T) {
	list, err := parseExpectations("# comment\n[a reason]\na/x.any.js | known *\na/x.any.js | fixed\na/gone.any.js | not run\na/y.any.js\n")
	if err != nil {
		t.Fatal(err)
	}
	results := []result{
		{Path: "a/x.any.js", Outcome: "ok", Subtests: []subtest{{"known 1", "FAIL", ""}, {"fixed", "PASS", ""}, {"new", "FAIL", "why\nit does"}}},
		{Path: "a/y.any.js", Outcome: "crashed"},
		{Path: "a/z.any.js", Outcome: "timeout", Message: "not done"},
	}
	r := judge(results, nil, list, []string{"a"}, "hash", time.Second)
	want := []unexpected{
		{"a/x.any.js | new", "FAIL why it does"},
		{"a/z.any.js", "timeout: not done"},
		{"a/x.any.js | fixed", "line 4 of expectations.txt: nothing fails so any more; take the line out"},
	}
	if d := cmp.Diff(want, r.Unexpected); d != "" {
		t.Errorf("unexpected (-want +got):\n%s", d)
	}
	if d := cmp.Diff(map[string]int{"a reason": 2}, r.Expected); d != "" {
		t.Errorf("expected (-want +got):\n%s", d)
	}
	if r.Pass != 1 || r.Total != 5 {
		t.Errorf("%d/%d, want 1/5: a file that does not end in order is one failure", r.Pass, r.Total)
	}
	var b bytes.Buffer
	r.print(&b)
	for _, s := range []string{"1/5", "3 results are not", "a/x.any.js | new\n"} {
		if !strings.Contains(b.String(), s) {
			t.Errorf("the table lacks %q:\n%s", s, &b)
		}
	}
}

func TestExpectationsThatAreWrong(t *testing.T) {
	for text, want := range map[string]string{
		"a.any.js":               "line 1",
		"[open\na.any.js":        "[reason]",
		"[r]\n\na.any.js | \"x":  "line 3",
		"[ ]\na.any.js | reason": "[reason]",
	} {
		if _, err := parseExpectations(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v does not say %q", text, err, want)
		}
	}
	for _, name := range []string{"plain", " space ", "quote \" inside", `"quoted"`, "line\nbreak", "a | b", "\x00", `back\slash`} {
		list, err := parseExpectations("[r]\n" + format("a/b.any.js?v", name))
		if err != nil || list[0].file != "a/b.any.js?v" || list[0].subtest != name {
			t.Errorf("%q was written as %q and read as %+v, %v", name, format("a/b.any.js?v", name), list, err)
		}
	}
	if _, err := parseExpectations(expectationsText); err != nil {
		t.Error(err)
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{{"a", "a", true}, {"a", "ab", false}, {"a*", "ab", true}, {"*b*", "abc", true}, {"a*a", "a", false}, {"a*b*c", "axbyc", true}, {"a*b*c", "acb", false}, {"*", "", true}} {
		if got := matches(c.pattern, c.s); got != c.want {
			t.Errorf("matches(%q, %q) is %v", c.pattern, c.s, got)
		}
	}
}

func TestBadUsage(t *testing.T) {
	for _, o := range []options{{jobs: 1, factor: 1}, {dir: "testdata", jobs: 1, factor: 1}, {dir: "testdata/tree", bin: "testdata", jobs: 1, factor: 1}, {dir: "testdata/tree", jobs: 0, factor: 1}} {
		var b bytes.Buffer
		if code := command(o, "", "", "", &b, &b); code != 2 || b.Len() == 0 {
			t.Errorf("%+v: exit code %d, said %q", o, code, &b)
		}
	}
	if _, err := find("testdata/tree", []string{"nowhere"}, true); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("a directory that is asked for and missing: %v", err)
	}
	if _, err := find("testdata/tree", []string{"../.."}, true); err == nil {
		t.Error("a path outside the checkout was taken")
	}
	if _, err := os.Stat("testdata/tree/" + harnessPath); err != nil {
		t.Error(err)
	}
}
