package doctree

import (
	"errors"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// TOML reads a TOML 1.0 document. Dates become text.
func TOML(file string, src []byte) (*Doc, error) {
	return parse(file, src, func(b *builder) (*Node, *Error) {
		t := &tomlReader{builder: b, closed: map[*Node]bool{}, header: map[*Node]bool{}}
		return t.read()
	})
}

type tomlReader struct {
	*builder
	p      unstable.Parser
	closed map[*Node]bool // inline tables and plain arrays: complete, not to be extended
	header map[*Node]bool // tables opened by a [header] of their own: not to be opened twice
}

func (t *tomlReader) read() (*Node, *Error) {
	root := &Node{Kind: Map, Pos: Pos{1, 1}}
	t.p.Reset(t.src)
	at := root
	for t.p.NextExpression() {
		e := t.p.Expression()
		var err *Error
		switch e.Kind {
		case unstable.KeyValue:
			err = t.keyValue(at, e, 1)
		case unstable.Table, unstable.ArrayTable:
			at, err = t.open(root, e)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := t.p.Error(); err != nil {
		var pe *unstable.ParserError
		if errors.As(err, &pe) {
			p := Pos{}
			if len(pe.Highlight) > 0 {
				p = t.at(int(t.p.Range(pe.Highlight).Offset))
			}
			return nil, t.fail(p, "%s", Printable(pe.Message))
		}
		return nil, t.fail(Pos{}, "%s", Printable(err.Error()))
	}
	return root, nil
}

func (t *tomlReader) pos(n *unstable.Node) Pos {
	if n.Raw.Length == 0 {
		return Pos{}
	}
	return t.at(int(n.Raw.Offset))
}

type tomlKey struct {
	name string
	pos  Pos
}

func (t *tomlReader) keys(n *unstable.Node) []tomlKey {
	var out []tomlKey
	for it := n.Key(); it.Next(); {
		k := it.Node()
		out = append(out, tomlKey{string(k.Data), t.pos(k)})
	}
	return out
}

// step goes into (or makes) the table named by one part of a dotted key.
func (t *tomlReader) step(at *Node, k tomlKey, depth int) (*Node, *Error) {
	next := at.Get(k.name)
	if next == nil {
		if err := t.enter(k.pos, depth); err != nil {
			return nil, err
		}
		next = &Node{Kind: Map, Pos: k.pos}
		return next, t.add(at, Field{Key: k.name, Pos: k.pos, Value: next})
	}
	if t.closed[next] {
		return nil, t.fail(k.pos, "%q is complete already and cannot be added to", k.name)
	}
	if next.Kind == List { // an array of tables: the last one is meant
		next = next.Items[len(next.Items)-1]
	}
	if next.Kind != Map {
		return nil, t.fail(k.pos, "%q is set already and is not a table", k.name)
	}
	return next, nil
}

// open handles [a.b] and [[a.b]].
func (t *tomlReader) open(root *Node, e *unstable.Node) (*Node, *Error) {
	keys, at := t.keys(e), root
	if len(keys) == 0 {
		return nil, t.fail(Pos{}, "a table without a name")
	}
	for i, k := range keys[:len(keys)-1] {
		next, err := t.step(at, k, i+1)
		if err != nil {
			return nil, err
		}
		at = next
	}
	last := keys[len(keys)-1]
	if e.Kind == unstable.Table {
		next, err := t.step(at, last, len(keys))
		if err != nil {
			return nil, err
		}
		if t.header[next] {
			return nil, t.fail(last.pos, "the table %q is opened twice", last.name)
		}
		t.header[next] = true
		return next, nil
	}
	if err := t.enter(last.pos, len(keys)+1); err != nil {
		return nil, err
	}
	item := &Node{Kind: Map, Pos: last.pos}
	list := at.Get(last.name)
	if list == nil {
		list = &Node{Kind: List, Pos: last.pos}
		if err := t.add(at, Field{Key: last.name, Pos: last.pos, Value: list}); err != nil {
			return nil, err
		}
	} else if list.Kind != List || t.closed[list] {
		return nil, t.fail(last.pos, "%q is set already and is not an array of tables", last.name)
	}
	list.Items = append(list.Items, item)
	return item, nil
}

func (t *tomlReader) keyValue(at *Node, e *unstable.Node, depth int) *Error {
	keys := t.keys(e)
	for i, k := range keys[:len(keys)-1] {
		next, err := t.step(at, k, depth+i)
		if err != nil {
			return err
		}
		at = next
	}
	last := keys[len(keys)-1]
	v, err := t.value(e.Value(), last.pos, depth+len(keys))
	if err != nil {
		return err
	}
	return t.add(at, Field{Key: last.name, Pos: last.pos, Value: v})
}

func (t *tomlReader) value(n *unstable.Node, near Pos, depth int) (*Node, *Error) {
	p := t.pos(n)
	if p == (Pos{}) {
		p = near // go-toml keeps no range for containers
	}
	if err := t.enter(p, depth); err != nil {
		return nil, err
	}
	out := &Node{Pos: p}
	switch n.Kind {
	case unstable.String, unstable.LocalDate, unstable.LocalTime, unstable.LocalDateTime, unstable.DateTime:
		out.Kind, out.Text = String, string(n.Data)
	case unstable.Bool:
		out.Kind, out.Bool = Bool, string(n.Data) == "true"
	case unstable.Integer:
		i, err := strconv.ParseInt(strings.ReplaceAll(string(n.Data), "_", ""), 0, 64)
		if err != nil {
			return nil, t.fail(p, "the number is too large")
		}
		out.Kind, out.Int = Int, i
	case unstable.Float:
		f, err := strconv.ParseFloat(strings.ReplaceAll(string(n.Data), "_", ""), 64)
		if err != nil || f != f || f-f != 0 {
			return nil, t.fail(p, "not a usable number")
		}
		out.Kind, out.Float = Float, f
	case unstable.Array:
		out.Kind = List
		t.closed[out] = true
		for it := n.Children(); it.Next(); {
			if it.Node().Kind == unstable.Comment {
				continue
			}
			item, err := t.value(it.Node(), p, depth+1)
			if err != nil {
				return nil, err
			}
			out.Items = append(out.Items, item)
		}
	case unstable.InlineTable:
		out.Kind = Map
		for it := n.Children(); it.Next(); {
			if it.Node().Kind != unstable.KeyValue {
				continue
			}
			if err := t.keyValue(out, it.Node(), depth+1); err != nil {
				return nil, err
			}
		}
		t.closed[out] = true
	default:
		return nil, t.fail(p, "%s is not allowed here", n.Kind)
	}
	return out, nil
}
