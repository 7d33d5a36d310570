package ipctest

import (
	"bulkhead/schema/gen"

	capnp "capnproto.org/go/capnp/v3"
)

// EncodeBundle makes a Bundle message with one ES module, "/worker.js".
func EncodeBundle(source string) ([]byte, error) {
	msg, seg, err := capnp.NewMessage(capnp.SingleSegment(nil))
	if err != nil {
		return nil, err
	}
	b, err := gen.NewRootBundle(seg)
	if err != nil {
		return nil, err
	}
	if err := b.SetMain("/worker.js"); err != nil {
		return nil, err
	}
	mods, err := b.NewModules(1)
	if err != nil {
		return nil, err
	}
	m := mods.At(0)
	m.SetKind(gen.Module_Kind_esm)
	if err := m.SetName("/worker.js"); err != nil {
		return nil, err
	}
	if err := m.SetCode([]byte(source)); err != nil {
		return nil, err
	}
	return msg.Marshal()
}
