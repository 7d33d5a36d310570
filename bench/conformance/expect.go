package main

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// expectation is a line of the list: what fails, knowingly.
type expectation struct {
	file    string // path with its variant; * stands for any text
	subtest string // name; * stands for any text; "" for the file itself: it crashes, times out or throws
	reason  string // of its section
	line    int
	seen    bool // its file was run
	hit     bool // and something failed as it says
}

// parseExpectations reads the list:
//
//	[why they fail, for the lines below]
//	path/of/file.any.js?variant            the file itself does not end in order
//	path/of/file.any.js?variant | subtest  one subtest; a name in quotes is a Go string literal
//
// `*` stands for any text, in both; # begins a comment line.
func parseExpectations(text string) (list []*expectation, err error) {
	reason := ""
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if r, ok := strings.CutPrefix(line, "["); ok {
			if reason, ok = strings.CutSuffix(r, "]"); !ok || strings.TrimSpace(reason) == "" {
				return nil, fmt.Errorf("expectations, line %d: a section is [reason]", i+1)
			}
			continue
		}
		if reason == "" {
			return nil, fmt.Errorf("expectations, line %d: it stands in no section; say why in a line [reason] above", i+1)
		}
		file, name, _ := strings.Cut(line, " | ")
		e := &expectation{file: strings.TrimSpace(file), subtest: strings.TrimSpace(name), reason: reason, line: i + 1}
		if strings.HasPrefix(e.subtest, `"`) {
			if e.subtest, err = strconv.Unquote(e.subtest); err != nil {
				return nil, fmt.Errorf("expectations, line %d: %s is no string literal", i+1, name)
			}
		}
		list = append(list, e)
	}
	return list, nil
}

// format writes a line as parseExpectations reads it.
func format(file, name string) string {
	if name == "" {
		return file
	}
	if q := strconv.Quote(name); q != `"`+name+`"` || strings.TrimSpace(name) != name || strings.HasPrefix(name, `"`) {
		name = q
	}
	return file + " | " + name
}

// matches is a glob whose only sign is *.
func matches(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == s
	}
	s, ok := strings.CutPrefix(s, parts[0])
	if !ok {
		return false
	}
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(s, p)
		if i < 0 {
			return false
		}
		s = s[i+len(p):]
	}
	return strings.HasSuffix(s, parts[len(parts)-1])
}

// unexpected is a result that the list does not foresee, or a line of the list that foresaw nothing.
type unexpected struct {
	Line string `json:"line"`
	Why  string `json:"why"`
}

// judge counts the results and holds them against the list.
func judge(results []result, skipped map[string]int, expected []*expectation, areas []string, hash string, took time.Duration) *report {
	r := &report{PolicyHash: hash, Seconds: took.Seconds(), Files: results, Skipped: skipped, Expected: map[string]int{}, Dirs: []dirCount{}, Areas: []dirCount{}, Unexpected: []unexpected{}}
	failed := func(file, name, why string) {
		reason := ""
		for _, e := range expected {
			if matches(e.file, file) && (e.subtest == "") == (name == "") && matches(e.subtest, name) {
				e.hit = true
				if reason == "" {
					reason = e.reason
				}
			}
		}
		if reason != "" {
			r.Expected[reason]++
			return
		}
		r.Unexpected = append(r.Unexpected, unexpected{format(file, name), why})
	}
	dirs := map[string]*dirCount{}
	for _, f := range results {
		for _, e := range expected {
			e.seen = e.seen || matches(e.file, f.Path)
		}
		p, _, _ := strings.Cut(f.Path, ".any.js")
		name := path.Dir(p)
		d := dirs[name]
		if d == nil {
			d = &dirCount{Dir: name}
			dirs[name] = d
		}
		d.Files++
		for _, s := range f.Subtests {
			d.Total++
			if s.Status == "PASS" {
				d.Pass++
				continue
			}
			failed(f.Path, s.Name, strings.TrimSpace(s.Status+" "+oneLine(s.Message)))
		}
		if f.Outcome != "ok" {
			d.Total++
			failed(f.Path, "", strings.TrimSpace(f.Outcome+": "+oneLine(f.Message)))
		}
	}
	for _, d := range dirs {
		r.Dirs = append(r.Dirs, *d)
		r.Pass += d.Pass
		r.Total += d.Total
	}
	for _, area := range areas {
		sum := dirCount{Dir: path.Clean(area)}
		for _, d := range r.Dirs {
			if d.Dir == sum.Dir || strings.HasPrefix(d.Dir, sum.Dir+"/") {
				sum.Files, sum.Pass, sum.Total = sum.Files+d.Files, sum.Pass+d.Pass, sum.Total+d.Total
			}
		}
		if sum.Files > 0 {
			r.Areas = append(r.Areas, sum)
		}
	}
	slices.SortFunc(r.Dirs, func(a, b dirCount) int { return strings.Compare(a.Dir, b.Dir) })
	for _, e := range expected {
		if e.seen && !e.hit {
			r.Unexpected = append(r.Unexpected, unexpected{format(e.file, e.subtest), fmt.Sprintf("line %d of expectations.txt: nothing fails so any more; take the line out", e.line)})
		}
	}
	return r
}

// oneLine keeps a message readable in a list.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > 300 {
		s = string(r[:300]) + "…"
	}
	return s
}
