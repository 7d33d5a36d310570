// Package doctree reads configuration documents into a small tree in which every key and
// value knows the line and column it came from.
//
// Duty: one place that turns YAML, TOML and JSON with comments into the same shape, so that
// whoever checks the content (the policy language, the tenants' manifests) can point at the
// place that is wrong and need not know which notation the author chose.
//
// Trust: the bytes may be written by a tenant, so they are hostile. Size, depth and number of
// nodes are bounded before and while parsing; anchors, aliases, tags and merge keys of YAML are
// refused (they make a small document large, and make "which line set this" ambiguous);
// duplicate keys are refused; a panic of a parser is an error of the document.
//
// Invariants: no effects, no files: bytes in, tree or *Error out.
package doctree

import (
	"bytes"
	"fmt"
	"sort"
	"strings"
	"unicode/utf8"
)

// Bounds on one document.
const (
	MaxBytes = 256 << 10 // bytes of source
	MaxDepth = 24        // containers within containers
	MaxNodes = 20_000    // values, all levels together
)

// maxExcerpt bounds the source line shown with an error, in characters.
const maxExcerpt = 200

// Pos is a place in a document, both counted from 1. Columns count bytes.
type Pos struct{ Line, Column int }

// Kind is the shape of a node.
type Kind uint8

// The shapes. The zero value is null, as in `key:` without a value.
const (
	Null Kind = iota
	Bool
	Int
	Float
	String
	List
	Map
)

// String names the kind as an author would.
func (k Kind) String() string {
	switch k {
	case Null:
		return "nothing"
	case Bool:
		return "true or false"
	case Int:
		return "a whole number"
	case Float:
		return "a number"
	case String:
		return "text"
	case List:
		return "a list"
	case Map:
		return "a mapping"
	}
	return fmt.Sprintf("BUG: kind %d", uint8(k))
}

// Node is one value. Only the field that belongs to Kind is set.
type Node struct {
	Kind   Kind
	Pos    Pos
	Bool   bool
	Int    int64
	Float  float64
	Text   string  // the value of String
	Items  []*Node // of List
	Fields []Field // of Map, in the order of the document
}

// Field is one entry of a map.
type Field struct {
	Key   string
	Pos   Pos // of the key
	Value *Node
}

// Get returns the value of a key of a map, or nil.
func (n *Node) Get(key string) *Node {
	if n == nil {
		return nil
	}
	for i := range n.Fields {
		if n.Fields[i].Key == key {
			return n.Fields[i].Value
		}
	}
	return nil
}

// Doc is a parsed document: its root and what is needed to show a place in it.
type Doc struct {
	File string
	Root *Node // never nil; Kind Null for an empty document
	src  []byte
}

// Error says what is wrong where.
type Error struct {
	File    string
	Pos     Pos    // zero when the whole file is meant
	Excerpt string // the offending line, at most 200 characters around the place
	caret   int    // column within Excerpt, in characters from 0
	Message string
}

// Error is one line for the place and the message, and two more that show the place.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Pos.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Pos.Line, e.Pos.Column)
	}
	b.WriteString(": ")
	b.WriteString(e.Message)
	if e.Excerpt != "" {
		fmt.Fprintf(&b, "\n  | %s\n  | %s^", e.Excerpt, strings.Repeat(" ", e.caret))
	}
	return b.String()
}

// Errorf makes an error at a place of the document.
func (d *Doc) Errorf(p Pos, format string, args ...any) *Error {
	return newError(d.File, d.src, p, fmt.Sprintf(format, args...))
}

func newError(file string, src []byte, p Pos, message string) *Error {
	e := &Error{File: file, Pos: p, Message: message}
	e.Excerpt, e.caret = Excerpt(src, p)
	return e
}

// Excerpt returns the line of src that holds p, at most 200 characters around it, without
// control characters, and the character within it that p points at.
func Excerpt(src []byte, p Pos) (line string, caret int) {
	if p.Line < 1 {
		return "", 0
	}
	rest := src
	for n := 1; n < p.Line; n++ {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			return "", 0
		}
		rest = rest[i+1:]
	}
	if i := bytes.IndexByte(rest, '\n'); i >= 0 {
		rest = rest[:i]
	}
	return Window(string(rest), p.Column-1)
}

// Window cuts at most 200 characters around byte offset at out of one line, and replaces what
// would disturb a terminal. The second result is the place of `at` in characters.
func Window(line string, at int) (string, int) {
	at = max(0, min(at, len(line)))
	before := []rune(strings.ToValidUTF8(line[:at], "\uFFFD"))
	after := []rune(strings.ToValidUTF8(line[at:], "\uFFFD"))
	if len(before)+len(after) > maxExcerpt {
		keep := max(maxExcerpt/2, maxExcerpt-len(after))
		before = before[max(0, len(before)-keep):]
		after = after[:min(len(after), maxExcerpt-len(before))]
	}
	return Printable(string(before)) + Printable(string(after)), len(before)
}

// Printable replaces control characters (a hostile file must not drive the operator's terminal)
// by spaces and U+FFFD, one for one.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\r' || r == '\n':
			return ' '
		case r < 0x20 || r == 0x7f || (r >= 0x80 && r < 0xa0):
			return utf8.RuneError
		case r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069:
			return utf8.RuneError // bidirectional overrides make a line read as another
		}
		return r
	}, s)
}

// Suggest returns "; did you mean NAME?" for the nearest of known, or "" when none is near.
func Suggest(word string, known []string) string {
	best, dist := "", 1+len(word)/3
	for _, k := range known {
		if d := distance(strings.ToLower(word), strings.ToLower(k), dist); d < dist || (d == dist && best == "") {
			best, dist = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance is the edit distance (insert, delete, replace, swap of neighbours) of a and b, or
// something above limit as soon as it is known to be above.
func distance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit || len(a) > 64 || len(b) > 64 {
		return limit + 1
	}
	var rows [3][66]int
	for j := range len(b) + 1 {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		row, prev, prev2 := &rows[i%3], &rows[(i+2)%3], &rows[(i+1)%3]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], prev2[j-2]+1)
			}
		}
	}
	return rows[len(a)%3][len(b)]
}

// guard refuses what is too large or too deep before any parser sees it. Depth is taken from
// brackets and from YAML's "- - - " and "? ? " prefixes, without regard to quoting: a document
// that has 24 unbalanced brackets within its strings on one line is refused too, which costs nobody anything.
func guard(file string, src []byte) *Error {
	if len(src) > MaxBytes {
		return &Error{File: file, Message: fmt.Sprintf("the file has %d bytes, the limit is %d; move data out of the configuration", len(src), MaxBytes)}
	}
	if !utf8.Valid(src) {
		return newError(file, src, posOf(src, invalidAt(src)), "not UTF-8; save the file as UTF-8")
	}
	if i := bytes.IndexByte(src, 0); i >= 0 {
		return newError(file, src, posOf(src, i), "a NUL byte; this is not a text file")
	}
	depth, inline := 0, 0
	for i, c := range src {
		switch c {
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(0, depth-1)
		case '\n':
			inline = 0
		case '-', '?':
			if i+1 < len(src) && src[i+1] == ' ' {
				inline++
			}
		}
		if depth > MaxDepth*4 || inline > MaxDepth*4 {
			return newError(file, src, posOf(src, i), "nested too deeply")
		}
	}
	return nil
}

func invalidAt(src []byte) int {
	for i := 0; i < len(src); {
		r, n := utf8.DecodeRune(src[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(src)
}

// posOf turns a byte offset into a place.
func posOf(src []byte, off int) Pos {
	before := src[:max(0, min(off, len(src)))]
	return Pos{
		Line:   1 + bytes.Count(before, []byte{'\n'}),
		Column: len(before) - bytes.LastIndexByte(before, '\n'),
	}
}

// builder bounds and collects a tree while a parser's own is walked.
type builder struct {
	file  string
	src   []byte
	lines []int // offsets at which lines begin
	nodes int
}

// at turns a byte offset into a place, without counting lines anew for each of many nodes.
func (b *builder) at(off int) Pos {
	if b.lines == nil {
		b.lines = append(b.lines, 0)
		for i, c := range b.src {
			if c == '\n' {
				b.lines = append(b.lines, i+1)
			}
		}
	}
	line := sort.SearchInts(b.lines, off+1)
	return Pos{Line: line, Column: off - b.lines[line-1] + 1}
}

func (b *builder) fail(p Pos, format string, args ...any) *Error {
	return newError(b.file, b.src, p, fmt.Sprintf(format, args...))
}

// enter counts a node at a depth.
func (b *builder) enter(p Pos, depth int) *Error {
	if b.nodes++; b.nodes > MaxNodes {
		return b.fail(p, "more than %d values in one file", MaxNodes)
	}
	if depth > MaxDepth {
		return b.fail(p, "nested more than %d deep", MaxDepth)
	}
	return nil
}

// add appends a field and refuses a key that is there already.
func (b *builder) add(n *Node, f Field) *Error {
	// Linear search: maps of configuration are small, and MaxNodes bounds the square at a
	// fraction of a second even for a hostile file.
	for i := range n.Fields {
		if n.Fields[i].Key == f.Key {
			return b.fail(f.Pos, "%q is set twice, first in line %d", f.Key, n.Fields[i].Pos.Line)
		}
	}
	n.Fields = append(n.Fields, f)
	return nil
}

// parse runs one notation's reader under the bounds.
func parse(file string, src []byte, read func(*builder) (*Node, *Error)) (d *Doc, err error) {
	if e := guard(file, src); e != nil {
		return nil, e
	}
	defer func() {
		// The notations' parsers are libraries that were not written for hostile input.
		if p := recover(); p != nil {
			d, err = nil, &Error{File: file, Message: fmt.Sprintf("the file cannot be parsed (%v)", p)}
		}
	}()
	b := &builder{file: file, src: src}
	root, e := read(b)
	if e != nil {
		return nil, e
	}
	return &Doc{File: file, Root: root, src: src}, nil
}
