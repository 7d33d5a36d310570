package ipc

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"bulkhead/schema/gen"

	capnp "capnproto.org/go/capnp/v3"
)

// Batch collects encoded frames for one write(2). The zero value is ready. Not safe for
// concurrent use. The buffer is kept across Reset.
type Batch struct {
	buf []byte
	msg capnp.Message
}

// Open, Head, Fetch, Done and Overdue are what the frames of these names carry, in Go's terms. Byte
// slices of decoded values point into the bytes that were decoded.
type (
	// Open starts an invocation; fields as in schema/frame.capnp.
	Open struct {
		Tenant     uint32
		Method     string
		URL        string
		Headers    []byte
		Body       []byte
		BodyMode   gen.BodyMode
		RequestID  string
		ReceivedMs float64
		Attempt    uint8
		Event      gen.Event
		Entrypoint string
		Name       string
		Upgrade    bool
		Props      string
		Carrier    uint64 // of a function event
		Function   uint16 // likewise
	}
	// Head is a response's beginning.
	Head struct {
		Status   uint16
		Headers  []byte
		Body     []byte
		BodyMode gen.BodyMode
		// In the answer to a subrequest only.
		URL        string
		StatusText string
		Redirected bool
	}
	// Fetch starts a subrequest of the invocation on stream Parent.
	Fetch struct {
		Parent   uint64
		Method   string
		URL      string
		Headers  []byte
		Body     []byte
		BodyMode gen.BodyMode
		Redirect gen.Fetch_Redirect
		Binding  uint16 // 0: it goes out
		Call     string // the RPC method asked for
		Upgrade  bool   // a WebSocket is asked for
		Function uint16 // with FunctionBinding
	}
	// Done is the end of an invocation.
	Done struct {
		Outcome   gen.Outcome
		Message   string
		CPUMicros uint64
	}
	// Overdue names a turn that has used up its CPU and cannot be stopped from inside.
	Overdue struct {
		Tenant      uint32
		CPUMicros   uint64 // of the turn so far
		LimitMicros uint64 // what the turn was allowed
	}
)

// frameFixed is the size of a frame's fixed parts: framing header, root pointer and Frame.
// The largest struct behind it (Open: four words of data, seven pointers) and the padding of
// its fields add at most structFixed.
const (
	frameFixed  = headerBytes + 6*wordBytes
	structFixed = 20 * wordBytes
)

// Bytes returns what is to be written. Valid until the next change of the batch.
func (b *Batch) Bytes() []byte { return b.buf }

// Len is the number of bytes collected.
func (b *Batch) Len() int { return len(b.buf) }

// Reset empties the batch and wipes it. A buffer that one burst made larger than keep bytes is given up.
func (b *Batch) Reset(keep int) {
	clear(b.buf)
	if cap(b.buf) > keep {
		release(b.buf)
		b.buf = nil
	}
	b.buf = b.buf[:0]
}

const (
	// smallBatch is up to what size a buffer grows as any slice does, for as long as its batch lives.
	smallBatch = 64 << 10
	// largeBatch holds a window of body and more. Such buffers are shared by all batches: each needs one
	// for as long as a burst lasts, and to make one costs more than to fill it.
	largeBatch = 512 << 10
)

// largeBatches holds buffers of largeBatch bytes, all zero.
var largeBatches sync.Pool

// grow makes room for n more bytes.
func (b *Batch) grow(n int) {
	want := len(b.buf) + n
	if want <= cap(b.buf) {
		return
	}
	if want <= smallBatch || want > largeBatch {
		old := b.buf
		b.buf = slices.Grow(b.buf, n)
		wipe(old)
		return
	}
	larger, _ := largeBatches.Get().(*[]byte)
	if larger == nil {
		p := make([]byte, 0, largeBatch)
		larger = &p
	}
	old := b.buf
	b.buf = append((*larger)[:0], old...)
	wipe(old)
}

// wipe clears a buffer that was left for a larger one.
func wipe(old []byte) {
	clear(old)
	release(old)
}

// release gives a wiped buffer to the next batch that needs one so large.
func release(buf []byte) {
	if cap(buf) == largeBatch {
		buf = buf[:0]
		largeBatches.Put(&buf)
	}
}

// frame appends one frame for stream, whose variable parts are at most payload bytes.
func (b *Batch) frame(stream uint64, payload int, fill func(gen.Frame) error) {
	start := len(b.buf)
	b.grow(frameFixed + structFixed + payload)
	room := b.buf[start+headerBytes : start+headerBytes : cap(b.buf)]
	_, seg, err := b.reset(room)
	if err == nil {
		var f gen.Frame
		if f, err = gen.NewRootFrame(seg); err == nil {
			f.SetStream(stream)
			err = fill(f)
		}
	}
	if err != nil {
		// Room was reserved for everything fill may allocate.
		panic(fmt.Sprintf("BUG: encode frame: %v", err))
	}
	n := len(seg.Data())
	b.buf = b.buf[:start+headerBytes+n]
	binary.LittleEndian.PutUint32(b.buf[start:], 0)
	binary.LittleEndian.PutUint32(b.buf[start+4:], uint32(n/wordBytes))
}

func (b *Batch) reset(room []byte) (*capnp.Message, *capnp.Segment, error) {
	seg, err := b.msg.Reset(capnp.SingleSegment(room))
	return &b.msg, seg, err
}

// Open appends an open frame.
func (b *Batch) Open(stream uint64, o *Open) {
	payload := len(o.Method) + len(o.URL) + len(o.Headers) + len(o.Body) + len(o.RequestID) + len(o.Entrypoint) + len(o.Name) + len(o.Props)
	b.frame(stream, payload, func(f gen.Frame) error {
		p, err := f.NewOpen()
		if err != nil {
			return err
		}
		p.SetTenant(o.Tenant)
		p.SetBodyMode(o.BodyMode)
		p.SetReceivedMs(o.ReceivedMs)
		p.SetAttempt(o.Attempt)
		p.SetEvent(o.Event)
		p.SetUpgrade(o.Upgrade)
		p.SetCarrier(o.Carrier)
		p.SetFunction(o.Function)
		return firstError(
			setText(p.SetEntrypoint, o.Entrypoint), setText(p.SetName, o.Name), setText(p.SetProps, o.Props),
			p.SetMethod(o.Method), p.SetUrl(o.URL), setData(p.SetHeaders, o.Headers),
			setData(p.SetBody, o.Body), p.SetRequestId(o.RequestID))
	})
}

// Head appends a head frame.
func (b *Batch) Head(stream uint64, h *Head) {
	b.frame(stream, len(h.Headers)+len(h.Body)+len(h.URL)+len(h.StatusText), func(f gen.Frame) error {
		p, err := f.NewHead()
		if err != nil {
			return err
		}
		p.SetStatus(h.Status)
		p.SetBodyMode(h.BodyMode)
		p.SetRedirected(h.Redirected)
		return firstError(setData(p.SetHeaders, h.Headers), setData(p.SetBody, h.Body),
			setText(p.SetUrl, h.URL), setText(p.SetStatusText, h.StatusText))
	})
}

// Fetch starts a subrequest.
func (b *Batch) Fetch(stream uint64, r *Fetch) {
	b.frame(stream, len(r.Method)+len(r.URL)+len(r.Headers)+len(r.Body)+len(r.Call), func(f gen.Frame) error {
		p, err := f.NewFetch()
		if err != nil {
			return err
		}
		p.SetParent(r.Parent)
		p.SetBodyMode(r.BodyMode)
		p.SetRedirect(r.Redirect)
		p.SetBinding(r.Binding)
		p.SetUpgrade(r.Upgrade)
		p.SetFunction(r.Function)
		return firstError(setText(p.SetCall, r.Call), p.SetMethod(r.Method), p.SetUrl(r.URL), setData(p.SetHeaders, r.Headers), setData(p.SetBody, r.Body))
	})
}

// Chunk appends a chunk of a body.
func (b *Batch) Chunk(stream uint64, data []byte) {
	b.frame(stream, len(data), func(f gen.Frame) error { return f.SetChunk(data) })
}

// ChunkRoom is what a chunk's frame has before its data.
const ChunkRoom = headerBytes + 5*wordBytes

// PutChunk makes the frame of a chunk of n bytes around them: b has ChunkRoom bytes before them, and
// zeros after them up to a multiple of eight. It is what Batch.Chunk appends, without a copy; n must not
// be 0.
func PutChunk(b []byte, stream uint64, n int) {
	words := (n + wordBytes - 1) / wordBytes
	if n <= 0 || len(b) != ChunkRoom+words*wordBytes {
		panic(fmt.Sprintf("BUG: a chunk of %d bytes in %d", n, len(b)))
	}
	le := binary.LittleEndian
	le.PutUint32(b, 0)
	le.PutUint32(b[4:], uint32(5+words))
	le.PutUint64(b[8:], 3<<32|1<<48) // the root: a struct of three words and one pointer, right behind
	le.PutUint64(b[16:], stream)
	le.PutUint64(b[24:], uint64(gen.Frame_Which_chunk))
	le.PutUint64(b[32:], 0)
	le.PutUint64(b[40:], 1|2<<32|uint64(n)<<35) // a list of n bytes, right behind
}

// End says that this direction's body is complete.
func (b *Batch) End(stream uint64) {
	b.frame(stream, 0, func(f gen.Frame) error { f.SetEnd(); return nil })
}

// Abort says that this direction's body will not be completed, or, with reason refused, that
// the other direction's is not wanted.
func (b *Batch) Abort(stream uint64, reason gen.Abort_Reason, message string) {
	b.frame(stream, len(message), func(f gen.Frame) error {
		p, err := f.NewAbort()
		if err != nil {
			return err
		}
		p.SetReason(reason)
		return p.SetMessage_(message)
	})
}

// Window grants n more bytes of a body.
func (b *Batch) Window(stream uint64, n uint32) {
	b.frame(stream, 0, func(f gen.Frame) error { f.SetWindow(n); return nil })
}

// Done ends a stream.
func (b *Batch) Done(stream uint64, d *Done) {
	b.frame(stream, len(d.Message), func(f gen.Frame) error {
		p, err := f.NewDone()
		if err != nil {
			return err
		}
		p.SetOutcome(d.Outcome)
		p.SetCpuMicros(d.CPUMicros)
		return p.SetMessage_(d.Message)
	})
}

// Overdue asks the gateway to kill this process: the turn that runs for stream (0: for none) is
// past its limit inside something that cannot be interrupted.
func (b *Batch) Overdue(stream uint64, o *Overdue) {
	b.frame(stream, 0, func(f gen.Frame) error {
		p, err := f.NewOverdue()
		if err != nil {
			return err
		}
		p.SetTenant(o.Tenant)
		p.SetCpuMicros(o.CPUMicros)
		p.SetLimitMicros(o.LimitMicros)
		return nil
	})
}

// Ping asks the shard's poller for a Pong of the same number.
func (b *Batch) Ping(n uint64) {
	b.frame(0, 0, func(f gen.Frame) error { f.SetPing(n); return nil })
}

// Pong answers a Ping.
func (b *Batch) Pong(n uint64) {
	b.frame(0, 0, func(f gen.Frame) error { f.SetPong(n); return nil })
}

// setData leaves an empty field null, which decodes to the same and costs nothing.
func setData(set func([]byte) error, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	return set(p)
}

// setText is setData for text.
func setText(set func(string) error, s string) error {
	if s == "" {
		return nil
	}
	return set(s)
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
