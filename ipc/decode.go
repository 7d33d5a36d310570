package ipc

import (
	"strings"
	"unsafe"

	"bulkhead/policy/limits"
	"bulkhead/schema/gen"
)

// maxMethodBytes bounds a request method; the longest registered one has 17.
const maxMethodBytes = 32

// MaxNameBytes bounds the names of entrypoints, of RPC methods and of cron expressions.
const MaxNameBytes = 128

// MaxPropsBytes bounds the JSON of a binding's props.
const MaxPropsBytes = 4 << 10

// maxRequestIDBytes bounds a request id, which the gateway makes.
const maxRequestIDBytes = 128

// DecodeOpen reads an open frame. Strings and slices of the result point into the frame.
// Headers are not checked: the gateway, which sends this frame, has done so.
func DecodeOpen(f gen.Frame, w *limits.Wire) (Open, error) {
	id := f.Stream()
	if id == 0 {
		return Open{}, Violation(KindStream, 0, "open of stream 0")
	}
	p, err := f.Open()
	if err != nil || !p.IsValid() {
		return Open{}, Violation(KindEncoding, id, "open frame without its struct")
	}
	o := Open{
		Tenant:     p.Tenant(),
		BodyMode:   p.BodyMode(),
		ReceivedMs: p.ReceivedMs(),
		Attempt:    p.Attempt(),
		Event:      p.Event(),
		Upgrade:    p.Upgrade(),
		Carrier:    p.Carrier(),
		Function:   p.Function(),
	}
	var method, url, requestID, entrypoint, name, props []byte
	d := fieldReader{stream: id}
	d.data(&method, "method", maxMethodBytes, p.MethodBytes)
	d.data(&url, "url", w.URLBytes, p.UrlBytes)
	d.data(&requestID, "request id", maxRequestIDBytes, p.RequestIdBytes)
	d.data(&entrypoint, "entrypoint", MaxNameBytes, p.EntrypointBytes)
	d.data(&name, "name", MaxNameBytes, p.NameBytes)
	d.data(&props, "props", MaxPropsBytes, p.PropsBytes)
	d.data(&o.Headers, "headers", w.HeaderBytes, p.Headers)
	d.data(&o.Body, "body", w.ChunkBytes, p.Body)
	if d.err != nil {
		return Open{}, d.err
	}
	if o.BodyMode > gen.BodyMode_streamed {
		return Open{}, Violation(KindEncoding, id, "body mode %d", o.BodyMode)
	}
	if o.BodyMode == gen.BodyMode_none && len(o.Body) != 0 {
		return Open{}, Violation(KindState, id, "a body in an open frame without one")
	}
	if o.Event > gen.Event_function {
		return Open{}, Violation(KindEncoding, id, "event %d", o.Event)
	}
	o.Method, o.URL, o.RequestID = viewString(method), viewString(url), viewString(requestID)
	o.Entrypoint, o.Name, o.Props = viewString(entrypoint), viewString(name), viewString(props)
	return o, nil
}

// DecodeHead reads and checks a head frame. Its slices point into the frame.
func DecodeHead(f gen.Frame, w *limits.Wire) (Head, error) {
	id := f.Stream()
	p, err := f.Head()
	if err != nil || !p.IsValid() {
		return Head{}, Violation(KindEncoding, id, "head frame without its struct")
	}
	h := Head{Status: p.Status(), BodyMode: p.BodyMode()}
	d := fieldReader{stream: id}
	d.data(&h.Headers, "headers", w.HeaderBytes, p.Headers)
	d.data(&h.Body, "body", w.ChunkBytes, p.Body)
	if d.err != nil {
		return Head{}, d.err
	}
	if h.BodyMode > gen.BodyMode_streamed {
		return Head{}, Violation(KindEncoding, id, "body mode %d", h.BodyMode)
	}
	if h.BodyMode == gen.BodyMode_none && len(h.Body) != 0 {
		return Head{}, Violation(KindState, id, "a body in a head frame without one")
	}
	if (h.Status < 200 || h.Status > 599) && (h.Status != StatusUpgrade || h.BodyMode != gen.BodyMode_none) {
		return Head{}, Violation(KindHeaders, id, "status %d", h.Status)
	}
	if err := CheckHeaders(h.Headers, w); err != nil {
		return Head{}, onStream(err, id)
	}
	return h, nil
}

// DecodeChunk reads a chunk frame: at least one and at most w.ChunkBytes bytes, which point
// into the frame.
func DecodeChunk(f gen.Frame, w *limits.Wire) ([]byte, error) {
	var data []byte
	d := fieldReader{stream: f.Stream()}
	d.data(&data, "chunk", w.ChunkBytes, f.Chunk)
	if d.err != nil {
		return nil, d.err
	}
	if len(data) == 0 {
		return nil, Violation(KindSize, f.Stream(), "empty chunk")
	}
	return data, nil
}

// DecodeAbort reads an abort frame. The message is valid UTF-8, at most 1 KiB, and a copy.
func DecodeAbort(f gen.Frame, w *limits.Wire) (gen.Abort_Reason, string, error) {
	id := f.Stream()
	p, err := f.Abort()
	if err != nil || !p.IsValid() {
		return 0, "", Violation(KindEncoding, id, "abort frame without its struct")
	}
	var msg []byte
	d := fieldReader{stream: id}
	d.data(&msg, "abort message", min(w.MessageBytes, 1<<10), p.Message_Bytes)
	if d.err != nil {
		return 0, "", d.err
	}
	if p.Reason() > gen.Abort_Reason_refused {
		return 0, "", Violation(KindEncoding, id, "abort reason %d", p.Reason())
	}
	return p.Reason(), cleanText(msg), nil
}

// DecodeDone reads a done frame; the outcome is a member of the enum other than unknown. The
// message is valid UTF-8 and a copy.
func DecodeDone(f gen.Frame, w *limits.Wire) (Done, error) {
	id := f.Stream()
	p, err := f.Done()
	if err != nil || !p.IsValid() {
		return Done{}, Violation(KindEncoding, id, "done frame without its struct")
	}
	var msg []byte
	d := fieldReader{stream: id}
	d.data(&msg, "done message", w.MessageBytes, p.Message_Bytes)
	if d.err != nil {
		return Done{}, d.err
	}
	o := p.Outcome()
	if o == gen.Outcome_unknown || o > gen.Outcome_internalError {
		return Done{}, Violation(KindOutcome, id, "outcome %d", o)
	}
	return Done{Outcome: o, Message: cleanText(msg), CPUMicros: p.CpuMicros()}, nil
}

// DecodeOverdue reads an overdue frame. What it says of the stream and the tenant is for the
// caller to check.
func DecodeOverdue(f gen.Frame) (Overdue, error) {
	p, err := f.Overdue()
	if err != nil || !p.IsValid() {
		return Overdue{}, Violation(KindEncoding, f.Stream(), "overdue frame without its struct")
	}
	return Overdue{Tenant: p.Tenant(), CPUMicros: p.CpuMicros(), LimitMicros: p.LimitMicros()}, nil
}

// fieldReader reads variable-length fields and remembers the first failure.
type fieldReader struct {
	stream uint64
	err    error
}

func (d *fieldReader) data(dst *[]byte, name string, limit int, get func() ([]byte, error)) {
	if d.err != nil {
		return
	}
	b, err := get()
	switch {
	case err != nil:
		d.err = Violation(KindEncoding, d.stream, "%s: %v", name, err)
	case len(b) > limit:
		d.err = Violation(KindSize, d.stream, "%s of %d bytes, limit %d", name, len(b), limit)
	default:
		*dst = b
	}
}

// cleanText copies text for people out of a frame; a peer's broken UTF-8 stays with the peer.
func cleanText(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	return strings.ToValidUTF8(string(b), "\uFFFD")
}

// viewString is a string over b's bytes: valid only as long as they are unchanged.
func viewString(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	return unsafe.String(&b[0], len(b))
}

// onStream puts the stream into a violation found by a check that does not know it.
func onStream(err error, id uint64) error {
	if v, ok := err.(*ViolationError); ok {
		v.Stream = id
	}
	return err
}
