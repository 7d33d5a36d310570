package doctree

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2"
)

// plain turns a tree into what encoding/json makes of a document.
func plain(n *Node) any {
	switch n.Kind {
	case Bool:
		return n.Bool
	case Int:
		return float64(n.Int)
	case Float:
		return n.Float
	case String:
		return n.Text
	case List:
		out := []any{}
		for _, i := range n.Items {
			out = append(out, plain(i))
		}
		return out
	case Map:
		out := map[string]any{}
		for _, f := range n.Fields {
			out[f.Key] = plain(f.Value)
		}
		return out
	}
	return nil
}

// One document in three notations is one tree.
func TestNotationsAgree(t *testing.T) {
	want := map[string]any{
		"main": "src/index.ts", "n": 5.0, "f": 1.5, "yes": true, "text": "a\n\"b\"",
		"vars":   map[string]any{"A": "1", "deep": map[string]any{"list": []any{1.0, "two", false}}},
		"routes": []any{map[string]any{"pattern": "a.com/*"}, map[string]any{"pattern": "b.com"}},
	}
	docs := map[string]struct {
		read func(string, []byte) (*Doc, error)
		text string
	}{
		"yaml": {YAML, "# c\nmain: src/index.ts\nn: 5\nf: 1.5\nyes: true\ntext: \"a\\n\\\"b\\\"\"\nvars:\n  A: \"1\"\n  deep: {list: [1, two, false]}\nroutes:\n  - pattern: a.com/*\n  - {pattern: b.com}\n"},
		"json": {JSONC, `{ // c
			"main": "src/index.ts", "n": 5, "f": 1.5, "yes": true, "text": "a\n\"b\"", /* c */
			"vars": {"A": "1", "deep": {"list": [1, "two", false,]}},
			"routes": [{"pattern": "a.com/*"}, {"pattern": "b.com"}],
		}`},
		"toml": {TOML, "# c\nmain = 'src/index.ts'\nn = 5\nf = 1.5\nyes = true\ntext = \"a\\n\\\"b\\\"\"\n[vars]\nA = \"1\"\ndeep.list = [1, \"two\", false] # c\n[[routes]]\npattern = \"a.com/*\"\n[[routes]]\npattern = \"b.com\"\n"},
	}
	for name, d := range docs {
		t.Run(name, func(t *testing.T) {
			doc, err := d.read("f", []byte(d.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, plain(doc.Root)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPlaces(t *testing.T) {
	for name, c := range map[string]struct {
		read func(string, []byte) (*Doc, error)
		text string
	}{
		"yaml": {YAML, "a:\n  b: 1\n  c: [x, y]\n"},
		"json": {JSONC, "{\"a\": {\n  \"b\": 1,\n  \"c\": [\"x\", \"y\"]\n}}"},
		"toml": {TOML, "[a]\nb = 1\nc = ['x', 'y']\n"},
	} {
		doc, err := c.read("f", []byte(c.text))
		if err != nil {
			t.Fatal(err)
		}
		a := doc.Root.Get("a")
		lines := strings.Split(c.text, "\n")
		for _, f := range a.Fields {
			if rest := lines[f.Pos.Line-1][f.Pos.Column-1:]; !strings.HasPrefix(strings.Trim(rest, `"`), f.Key) {
				t.Errorf("%s: key %s is said to be at %v, where %q stands", name, f.Key, f.Pos, rest)
			}
		}
		for _, i := range a.Get("c").Items {
			if rest := lines[i.Pos.Line-1][i.Pos.Column-1:]; !strings.HasPrefix(strings.Trim(rest, `"'`), i.Text) {
				t.Errorf("%s: %s is said to be at %v, where %q stands", name, i.Text, i.Pos, rest)
			}
		}
	}
}

func TestBadDocuments(t *testing.T) {
	for _, c := range []struct {
		name          string
		read          func(string, []byte) (*Doc, error)
		text, message string
		line          int
	}{
		{"json twice", JSONC, "{\"a\": 1,\n\"a\": 2}", "set twice", 2},
		{"json garbage", JSONC, "{\n  nonsense\n}", "", 2},
		{"json open", JSONC, "{\"a\": [1, 2", "", 1},
		{"json two values", JSONC, "{}\n{}", "", 2},
		{"json deep", JSONC, strings.Repeat("[", 30) + strings.Repeat("]", 30), "deep", 1},
		{"json huge number", JSONC, "[1e999]", "too large", 1},
		{"toml twice", TOML, "a = 1\na = 2", "set twice", 2},
		{"toml table twice", TOML, "[a]\nb = 1\n[a]\nc = 1", "opened twice", 3},
		{"toml scalar as table", TOML, "a = 1\n[a.b]\nc = 1", "not a table", 2},
		{"toml table as array", TOML, "[a]\nb = 1\n[[a]]\nc = 1", "not an array of tables", 3},
		{"toml inline extended", TOML, "a = {b = 1}\n[a.c]\nd = 1", "cannot be added to", 2},
		{"toml array extended", TOML, "a = [1]\n[[a]]\nd = 1", "not an array of tables", 2},
		{"toml garbage", TOML, "a = 1\nb == 2", "", 2},
		{"toml not a number", TOML, "a = nan", "number", 1},
		{"toml deep", TOML, strings.Repeat("a.", 40) + "b = 1", "deep", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.read("f", []byte(c.text))
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v", err)
			}
			if !strings.Contains(e.Message, c.message) || e.Pos.Line != c.line {
				t.Errorf("line %d: %v", e.Pos.Line, e)
			}
		})
	}
}

func TestExcerpt(t *testing.T) {
	long := strings.Repeat("a", 500) + "HERE" + strings.Repeat("b", 500)
	text, caret := Excerpt([]byte("one\n"+long+"\nthree"), Pos{2, 501})
	if len(text) > 200 || text[caret:caret+4] != "HERE" {
		t.Errorf("%d characters, caret %d: %q", len(text), caret, text)
	}
	if text, caret := Excerpt([]byte("x\x1b[0m\u202ey"), Pos{1, 2}); strings.ContainsAny(text, "\x1b\u202e") || caret != 1 {
		t.Errorf("%q, %d", text, caret)
	}
	for _, p := range []Pos{{0, 0}, {9, 1}, {1, 99}, {2, -4}} {
		Excerpt([]byte("a\nb"), p) // places that do not exist do no harm
	}
}

func TestSuggest(t *testing.T) {
	known := []string{"memory", "main", "routes", "compatibility_date"}
	for word, want := range map[string]string{"memry": "memory", "rotues": "routes", "Main": "main", "compatability_date": "compatibility_date", "x": "", "banana": ""} {
		got := Suggest(word, known)
		if want == "" && got != "" || want != "" && !strings.Contains(got, `"`+want+`"`) {
			t.Errorf("%s: %q", word, got)
		}
	}
}

// FuzzJSON: every JSON document that encoding/json reads, and that is within the bounds, is read
// the same.
func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"a": [1, 2.5, "x\u00e4", null, true], "b": {}}`))
	f.Add([]byte("[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["))
	f.Fuzz(func(t *testing.T, src []byte) {
		doc, err := JSONC("f", src)
		var want any
		if json.Unmarshal(src, &want) != nil || err != nil {
			return
		}
		if d := cmp.Diff(want, plain(doc.Root)); d != "" {
			t.Errorf("%s", d)
		}
	})
}

// FuzzTOML: what we read, go-toml's own decoder reads the same. (It also refuses things that we
// take; a tenant gains nothing by those.)
func FuzzTOML(f *testing.F) {
	f.Add([]byte("a = 1\n[b.c]\nd = 'x'\n[[e]]\nf = [1, {g = true}]\n"))
	f.Add([]byte("a.b = 1\na.c = \"\"\"\nx\"\"\"\n[[a.d]]\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		doc, err := TOML("f", src)
		var want map[string]any
		if err != nil || toml.Unmarshal(src, &want) != nil {
			return
		}
		a, err1 := json.Marshal(want)
		var viaJSON any
		if err1 != nil || json.Unmarshal(a, &viaJSON) != nil || strings.ContainsAny(string(src), ":") {
			return // not a number, or a date, which has a type of its own there
		}
		if d := cmp.Diff(viaJSON, plain(doc.Root)); d != "" {
			t.Errorf("%s", d)
		}
	})
}

func FuzzYAML(f *testing.F) {
	f.Add([]byte("a: 1\nb:\n  - c\n  - {d: e}\n"))
	f.Add([]byte("a: |\n  text\n? b\n: c\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		doc, err := YAML("f", src)
		if err != nil {
			_ = err.Error()
			return
		}
		if doc.Root == nil {
			t.Error("no root")
		}
	})
}
