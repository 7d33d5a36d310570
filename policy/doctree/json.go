package doctree

import (
	"encoding/json"
	"strings"

	"github.com/tailscale/hujson"
)

// JSONC reads JSON (RFC 8259) in which // and /* */ comments and trailing commas are allowed.
func JSONC(file string, src []byte) (*Doc, error) {
	return parse(file, src, func(b *builder) (*Node, *Error) {
		if len(strings.TrimSpace(string(src))) == 0 {
			return &Node{}, nil
		}
		v, err := hujson.Parse(src)
		if err != nil {
			// hujson reports the place in its text only; what it had parsed ends at EndOffset.
			return nil, b.fail(hujsonPos(err), "%s", hujsonText(err))
		}
		return b.json(v, 0)
	})
}

func (b *builder) json(v hujson.Value, depth int) (*Node, *Error) {
	p := b.at(v.StartOffset)
	if err := b.enter(p, depth); err != nil {
		return nil, err
	}
	out := &Node{Pos: p}
	switch val := v.Value.(type) {
	case hujson.Literal:
		switch val.Kind() {
		case 'n':
		case 't', 'f':
			out.Kind, out.Bool = Bool, val.Bool()
		case '"':
			out.Kind, out.Text = String, val.String()
		case '0':
			n := json.Number(val)
			if i, err := n.Int64(); err == nil {
				out.Kind, out.Int = Int, i
			} else if f, err := n.Float64(); err == nil {
				out.Kind, out.Float = Float, f
			} else {
				return nil, b.fail(p, "the number is too large")
			}
		default:
			return nil, b.fail(p, "not a JSON value")
		}
	case *hujson.Object:
		out.Kind = Map
		for _, m := range val.Members {
			kp := b.at(m.Name.StartOffset)
			key, ok := m.Name.Value.(hujson.Literal)
			if !ok {
				return nil, b.fail(kp, "a key must be a string")
			}
			child, err := b.json(m.Value, depth+1)
			if err != nil {
				return nil, err
			}
			if err := b.add(out, Field{Key: key.String(), Pos: kp, Value: child}); err != nil {
				return nil, err
			}
		}
	case *hujson.Array:
		out.Kind = List
		for _, e := range val.Elements {
			child, err := b.json(e, depth+1)
			if err != nil {
				return nil, err
			}
			out.Items = append(out.Items, child)
		}
	}
	return out, nil
}

// hujsonPos reads the place out of "hujson: line L, column C: text", the only form in which the
// library gives it.
func hujsonPos(err error) Pos {
	rest, ok := strings.CutPrefix(err.Error(), "hujson: line ")
	if !ok {
		return Pos{}
	}
	line, rest, _ := strings.Cut(rest, ", column ")
	col, _, _ := strings.Cut(rest, ":")
	var p Pos
	for _, c := range line {
		p.Line = p.Line*10 + int(c-'0')
	}
	for _, c := range col {
		p.Column = p.Column*10 + int(c-'0')
	}
	return p
}

func hujsonText(err error) string {
	_, text, ok := strings.Cut(err.Error(), ": ")
	if _, after, ok2 := strings.Cut(text, ": "); ok && ok2 && strings.HasPrefix(text, "line ") {
		text = after
	}
	return Printable(text)
}
