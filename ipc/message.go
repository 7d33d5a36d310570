package ipc

import (
	"unicode/utf8"

	"bulkhead/policy/limits"
	"bulkhead/schema/gen"
)

// StatusUpgrade is the status of a head that begins a WebSocket (RFC 9110 §15.2.2).
const StatusUpgrade = 101

// Opcodes of messages: those of RFC 6455 §5.2.
const (
	OpText   uint8 = 1
	OpBinary uint8 = 2
	OpClose  uint8 = 8
)

// Message is part of a WebSocket message, or a close.
type Message struct {
	Opcode uint8
	Last   bool
	Data   []byte
}

// MessageCost is what a part of n bytes takes of its receiver's window: what is kept of it until it is
// consumed is more than its bytes.
func MessageCost(n int) int { return n + 64 }

// maxCloseBytes is what a control frame can carry (RFC 6455 §5.5).
const maxCloseBytes = 125

// Message appends a part of a message.
func (b *Batch) Message(stream uint64, m *Message) {
	b.frame(stream, len(m.Data), func(f gen.Frame) error {
		p, err := f.NewMessage_()
		if err != nil {
			return err
		}
		p.SetOpcode(m.Opcode)
		p.SetLast(m.Last)
		return setData(p.SetData, m.Data)
	})
}

// DecodeMessage reads a message frame and checks it as Message.Check does. Data points into the frame.
func DecodeMessage(f gen.Frame, w *limits.Wire) (Message, error) {
	id := f.Stream()
	p, err := f.Message_()
	if err != nil || !p.IsValid() {
		return Message{}, Violation(KindEncoding, id, "message frame without its struct")
	}
	m := Message{Opcode: p.Opcode(), Last: p.Last()}
	d := fieldReader{stream: id}
	d.data(&m.Data, "message", w.ChunkBytes, p.Data)
	if d.err != nil {
		return Message{}, d.err
	}
	return m, onStream(m.Check(w), id)
}

// Check says what of m may not be on the wire. The error is a *ViolationError without a stream.
func (m *Message) Check(w *limits.Wire) error {
	switch {
	case len(m.Data) > w.ChunkBytes:
		return Violation(KindSize, 0, "message of %d bytes, limit %d", len(m.Data), w.ChunkBytes)
	case m.Opcode == OpClose:
		return checkClose(m)
	case m.Opcode != OpText && m.Opcode != OpBinary:
		return Violation(KindEncoding, 0, "message opcode %d", m.Opcode)
	case !m.Last && len(m.Data) == 0:
		return Violation(KindSize, 0, "an empty part of a message")
	}
	return nil
}

func checkClose(m *Message) error {
	switch {
	case !m.Last:
		return Violation(KindState, 0, "a close in parts")
	case len(m.Data) == 1 || len(m.Data) > maxCloseBytes:
		return Violation(KindSize, 0, "a close of %d bytes", len(m.Data))
	case len(m.Data) >= 2 && !utf8.Valid(m.Data[2:]):
		return Violation(KindEncoding, 0, "a close with a reason that is not UTF-8")
	}
	return nil
}

// CloseMessage is a close with a code and as much of a reason as fits.
func CloseMessage(code uint16, reason string) *Message {
	for len(reason) > maxCloseBytes-2 || !utf8.ValidString(reason) {
		reason = reason[:min(len(reason)-1, maxCloseBytes-2)]
	}
	return &Message{Opcode: OpClose, Last: true, Data: append([]byte{byte(code >> 8), byte(code)}, reason...)}
}

// CloseStatus is the code and the reason of a close; 1005 if it has none (RFC 6455 §7.1.5).
func (m *Message) CloseStatus() (code uint16, reason string) {
	if len(m.Data) < 2 {
		return 1005, ""
	}
	return uint16(m.Data[0])<<8 | uint16(m.Data[1]), string(m.Data[2:])
}

// SendableClose says whether an endpoint may send this code (RFC 6455 §7.4).
func SendableClose(code uint16) bool {
	switch {
	case code >= 1000 && code <= 1003, code >= 1007 && code <= 1014, code >= 3000 && code <= 4999:
		return true
	}
	return false
}
