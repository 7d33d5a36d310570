package tenants

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"capnproto.org/go/capnp/v3"

	"bulkhead/policy/doctree"
	"bulkhead/schema/gen"
)

// Bounds on what a bundler may answer. The bundler ran hostile input through a large program, so
// its answer is as hostile as a shard's.
const (
	MaxResultBytes = 80 << 20 // the whole message: code, source maps, diagnostics
	maxModules     = 1024
	maxModuleName  = 1024    // bytes
	maxDiagnostics = 100     // of each kind
	maxMessage     = 4 << 10 // bytes of one text within a diagnostic
)

// BundleOutput is a bundler's answer after it was checked.
type BundleOutput struct {
	Main     string // name of the entry among Modules; "" if there are Errors
	Modules  []Module
	Errors   []Diagnostic
	Warnings []Diagnostic
}

// Module is one part of a bundle.
type Module struct {
	Name      string // absolute within the bundle, "/worker.js"
	Kind      gen.Module_Kind
	Code      []byte
	SourceMap []byte // JSON, may be empty
}

// DecodeResult checks a BundleResult message and copies what it holds. Nothing of raw is kept.
func DecodeResult(raw []byte) (BundleOutput, error) {
	var out BundleOutput
	if len(raw) > MaxResultBytes {
		return out, fmt.Errorf("the result has %d bytes, the limit is %d", len(raw), MaxResultBytes)
	}
	msg, err := capnp.Unmarshal(raw)
	if err != nil {
		return out, fmt.Errorf("result is not a message: %w", err)
	}
	// Every byte is read once. Pointers that lead to the same bytes again and again (an
	// amplification) run into the limit instead of into our memory.
	msg.ResetReadLimit(uint64(len(raw)) + 1<<20)
	res, err := gen.ReadRootBundleResult(msg)
	if err != nil {
		return out, fmt.Errorf("result has no root: %w", err)
	}
	if out.Errors, err = diagnostics(res.Errors); err != nil {
		return BundleOutput{}, fmt.Errorf("result's errors: %w", err)
	}
	if out.Warnings, err = diagnostics(res.Warnings); err != nil {
		return BundleOutput{}, fmt.Errorf("result's warnings: %w", err)
	}
	if len(out.Errors) > 0 {
		return out, nil
	}
	b, err := res.Bundle()
	if err != nil {
		return BundleOutput{}, fmt.Errorf("result's bundle: %w", err)
	}
	if err := out.bundle(b); err != nil {
		return BundleOutput{}, fmt.Errorf("result's bundle: %w", err)
	}
	return out, nil
}

func (out *BundleOutput) bundle(b gen.Bundle) (err error) {
	if out.Main, err = b.Main(); err != nil {
		return err
	}
	mods, err := b.Modules()
	if err != nil {
		return err
	}
	if mods.Len() == 0 || mods.Len() > maxModules {
		return fmt.Errorf("%d modules, must be 1 to %d", mods.Len(), maxModules)
	}
	seen := make(map[string]bool, mods.Len())
	mainFound := false
	for i := range mods.Len() {
		m, err := module(mods.At(i))
		if err != nil {
			return fmt.Errorf("module %d: %w", i, err)
		}
		if seen[m.Name] {
			return fmt.Errorf("module %d: the name is there twice", i)
		}
		seen[m.Name] = true
		mainFound = mainFound || (m.Name == out.Main && m.Kind == gen.Module_Kind_esm)
		out.Modules = append(out.Modules, m)
	}
	if !mainFound {
		return errors.New("the entry is not among the modules")
	}
	return nil
}

func module(g gen.Module) (m Module, err error) {
	if m.Name, err = g.Name(); err != nil {
		return m, err
	}
	if !validModuleName(m.Name) {
		return m, errors.New("the name is not an absolute path of printable characters")
	}
	if m.Kind = g.Kind(); m.Kind > gen.Module_Kind_wasm {
		return m, fmt.Errorf("unknown kind %d", m.Kind)
	}
	code, err := g.Code()
	if err != nil {
		return m, err
	}
	switch m.Kind {
	case gen.Module_Kind_esm, gen.Module_Kind_text, gen.Module_Kind_json:
		if !utf8.Valid(code) {
			return m, errors.New("text that is not UTF-8")
		}
	}
	sm, err := g.SourceMap()
	if err != nil {
		return m, err
	}
	m.Code, m.SourceMap = bytes.Clone(code), bytes.Clone(sm)
	return m, nil
}

func validModuleName(s string) bool {
	if len(s) < 2 || len(s) > maxModuleName || s[0] != '/' {
		return false
	}
	for part := range strings.SplitSeq(s[1:], "/") {
		if part == "" || part == "." || part == ".." {
			return false // a URL parser would make another name of it
		}
	}
	for i := range len(s) {
		if c := s[i]; c <= 0x20 || c >= 0x7f || c == '"' || c == '\'' || c == '\\' || c == '?' || c == '#' || c == '%' {
			return false
		}
	}
	return true
}

func diagnostics(list func() (gen.Diagnostic_List, error)) ([]Diagnostic, error) {
	l, err := list()
	if err != nil {
		return nil, err
	}
	var out []Diagnostic
	for i := range min(l.Len(), maxDiagnostics) {
		g := l.At(i)
		d := Diagnostic{Line: int(g.Line()), Column: int(g.Column())}
		for _, part := range []struct {
			dst *string
			get func() (string, error)
		}{{&d.File, g.File}, {&d.Excerpt, g.Excerpt}, {&d.Message, g.Message_}} {
			s, err := part.get()
			if err != nil {
				return nil, err
			}
			*part.dst = clean(s)
		}
		out = append(out, d)
	}
	return out, nil
}

// clean makes a text of the bundler fit for a terminal and a log, line breaks apart.
func clean(s string) string {
	if len(s) > maxMessage {
		s = s[:maxMessage] + "…"
	}
	lines := bytes.Split([]byte(s), []byte{'\n'})
	for i, l := range lines {
		lines[i] = []byte(doctree.Printable(string(bytes.ToValidUTF8(l, []byte("\uFFFD")))))
	}
	return string(bytes.Join(lines, []byte{'\n'}))
}

// EncodeBundle makes the message a shard is given. It is built anew from checked parts: no byte
// of the bundler's own encoding reaches a shard, nor do source maps.
func EncodeBundle(mainName string, modules []Module) ([]byte, error) {
	msg, seg, err := capnp.NewMessage(capnp.SingleSegment(nil))
	if err != nil {
		return nil, fmt.Errorf("bundle message: %w", err)
	}
	b, err := gen.NewRootBundle(seg)
	if err != nil {
		return nil, fmt.Errorf("bundle message: %w", err)
	}
	if err := FillBundle(b, mainName, modules); err != nil {
		return nil, fmt.Errorf("bundle message: %w", err)
	}
	out, err := msg.Marshal()
	if err != nil {
		return nil, fmt.Errorf("bundle message: %w", err)
	}
	return out, nil
}

// DecodeBundle reads what EncodeBundle has made. The code is part of raw.
func DecodeBundle(raw []byte) (mainName string, modules []Module, err error) {
	msg, err := capnp.Unmarshal(raw)
	if err != nil {
		return "", nil, fmt.Errorf("bundle message: %w", err)
	}
	msg.ResetReadLimit(uint64(4*len(raw)) + 1<<20)
	b, err := gen.ReadRootBundle(msg)
	if err != nil {
		return "", nil, fmt.Errorf("bundle message: %w", err)
	}
	mainName, err = b.Main()
	if err != nil {
		return "", nil, fmt.Errorf("bundle message: %w", err)
	}
	list, err := b.Modules()
	if err != nil {
		return "", nil, fmt.Errorf("bundle message: %w", err)
	}
	for i := range list.Len() {
		g := list.At(i)
		m := Module{Kind: g.Kind()}
		if m.Name, err = g.Name(); err != nil {
			return "", nil, fmt.Errorf("bundle message: %w", err)
		}
		if m.Code, err = g.Code(); err != nil {
			return "", nil, fmt.Errorf("bundle message: %w", err)
		}
		modules = append(modules, m)
	}
	return mainName, modules, nil
}

// FillBundle sets an empty Bundle's fields, source maps only where modules have them.
func FillBundle(b gen.Bundle, mainName string, modules []Module) error {
	if err := b.SetMain(mainName); err != nil {
		return err
	}
	list, err := b.NewModules(int32(len(modules)))
	if err != nil {
		return err
	}
	for i, m := range modules {
		g := list.At(i)
		g.SetKind(m.Kind)
		if err := g.SetName(m.Name); err != nil {
			return err
		}
		if err := g.SetCode(m.Code); err != nil {
			return err
		}
		if len(m.SourceMap) > 0 {
			if err := g.SetSourceMap(m.SourceMap); err != nil {
				return err
			}
		}
	}
	return nil
}
