package bundle

import (
	"fmt"
	"io"

	"capnproto.org/go/capnp/v3"

	"bulkhead/schema/gen"
	"bulkhead/supervisor/tenants"
)

// Write writes the result as one BundleResult message in the standard stream framing.
func Write(w io.Writer, out tenants.BundleOutput) error {
	msg, err := message(out)
	if err != nil {
		return fmt.Errorf("encode the bundle: %w", err)
	}
	if err := capnp.NewEncoder(w).Encode(msg); err != nil {
		return fmt.Errorf("write the bundle: %w", err)
	}
	return nil
}

func message(out tenants.BundleOutput) (*capnp.Message, error) {
	// Many segments: one would be copied each time it grows.
	msg, seg, err := capnp.NewMessage(capnp.MultiSegment(nil))
	if err != nil {
		return nil, err
	}
	res, err := gen.NewRootBundleResult(seg)
	if err != nil {
		return nil, err
	}
	for _, l := range []struct {
		from []tenants.Diagnostic
		make func(int32) (gen.Diagnostic_List, error)
	}{{out.Errors, res.NewErrors}, {out.Warnings, res.NewWarnings}} {
		list, err := l.make(int32(len(l.from)))
		if err != nil {
			return nil, err
		}
		for i, d := range l.from {
			if err := fill(list.At(i), d); err != nil {
				return nil, err
			}
		}
	}
	if len(out.Errors) > 0 {
		return msg, nil
	}
	b, err := res.NewBundle()
	if err != nil {
		return nil, err
	}
	return msg, tenants.FillBundle(b, out.Main, out.Modules)
}

func fill(g gen.Diagnostic, d tenants.Diagnostic) error {
	g.SetLine(uint32(max(0, d.Line)))
	g.SetColumn(uint32(max(0, d.Column)))
	if err := g.SetFile(d.File); err != nil {
		return err
	}
	if err := g.SetExcerpt(d.Excerpt); err != nil {
		return err
	}
	return g.SetMessage_(d.Message)
}
