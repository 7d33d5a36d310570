package doctree

import (
	"errors"
	"math"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// YAML reads one YAML 1.2 document.
func YAML(file string, src []byte) (*Doc, error) {
	return parse(file, src, func(b *builder) (*Node, *Error) {
		f, err := parser.ParseBytes(src, 0, parser.AllowDuplicateMapKey())
		if err != nil {
			return nil, b.yamlSyntax(err)
		}
		var body ast.Node
		for _, doc := range f.Docs {
			if doc.Body == nil {
				continue
			}
			if body != nil {
				return nil, b.fail(yamlPos(doc.Body), "a second document; one file holds one")
			}
			body = doc.Body
		}
		if body == nil {
			return &Node{}, nil
		}
		return b.yaml(body, 0)
	})
}

func (b *builder) yamlSyntax(err error) *Error {
	var syn *yaml.SyntaxError
	if errors.As(err, &syn) && syn.Token != nil && syn.Token.Position != nil {
		return b.fail(Pos{syn.Token.Position.Line, syn.Token.Position.Column}, "%s", Printable(syn.Message))
	}
	return b.fail(Pos{}, "%s", Printable(err.Error()))
}

func yamlPos(n ast.Node) Pos {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return Pos{t.Position.Line, t.Position.Column}
	}
	return Pos{}
}

func (b *builder) yaml(n ast.Node, depth int) (*Node, *Error) {
	p := yamlPos(n)
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 && !m.IsFlowStyle {
		p = yamlPos(m.Values[0].Key)
	}
	if err := b.enter(p, depth); err != nil {
		return nil, err
	}
	out := &Node{Pos: p}
	switch n := n.(type) {
	case *ast.NullNode:
	case *ast.BoolNode:
		out.Kind, out.Bool = Bool, n.Value
	case *ast.IntegerNode:
		switch v := n.Value.(type) {
		case int64:
			out.Kind, out.Int = Int, v
		case uint64:
			if v > math.MaxInt64 {
				return nil, b.fail(p, "the number is too large")
			}
			out.Kind, out.Int = Int, int64(v)
		default:
			return nil, b.fail(p, "the number is too large")
		}
	case *ast.FloatNode:
		out.Kind, out.Float = Float, n.Value
	case *ast.StringNode:
		out.Kind, out.Text = String, n.Value
	case *ast.LiteralNode:
		out.Kind, out.Text = String, n.Value.Value
	case *ast.MappingNode:
		out.Kind = Map
		for _, v := range n.Values {
			if err := b.yamlField(out, v, depth); err != nil {
				return nil, err
			}
		}
	case *ast.MappingValueNode:
		out.Kind = Map
		if err := b.yamlField(out, n, depth); err != nil {
			return nil, err
		}
	case *ast.SequenceNode:
		out.Kind = List
		for _, v := range n.Values {
			item, err := b.yaml(v, depth+1)
			if err != nil {
				return nil, err
			}
			out.Items = append(out.Items, item)
		}
	case *ast.AnchorNode, *ast.AliasNode:
		return nil, b.fail(p, "anchors and aliases are not allowed; write the value out")
	case *ast.TagNode:
		return nil, b.fail(p, "tags (!...) are not allowed; write the plain value")
	case *ast.InfinityNode, *ast.NanNode:
		return nil, b.fail(p, "not a usable number")
	default:
		return nil, b.fail(p, "%s is not allowed here", n.Type())
	}
	return out, nil
}

func (b *builder) yamlField(out *Node, v *ast.MappingValueNode, depth int) *Error {
	kp := yamlPos(v.Key)
	if v.Key.IsMergeKey() {
		return b.fail(kp, "merge keys (<<) are not allowed; write the values out")
	}
	var key string
	switch k := v.Key.(type) {
	case *ast.StringNode:
		key = k.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		key = v.Key.GetToken().Value
	default:
		return b.fail(kp, "a key must be plain text")
	}
	val, err := b.yaml(v.Value, depth+1)
	if err != nil {
		return err
	}
	if val.Pos == (Pos{}) {
		val.Pos = kp
	}
	return b.add(out, Field{Key: key, Pos: kp, Value: val})
}
