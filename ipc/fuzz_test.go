package ipc

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"bulkhead/schema/gen"

	capnp "capnproto.org/go/capnp/v3"
	"capnproto.org/go/capnp/v3/rpc/transport"
	rpccp "capnproto.org/go/capnp/v3/std/capnp/rpc"
)

// FuzzBlackBox: a page that a compromised shard has scribbled on yields at most a claim a slot, and
// nothing in it that a terminal or a log would take for more than text.
func FuzzBlackBox(f *testing.F) {
	f.Add(make([]byte, BlackBoxBytes))
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x0b\x00\x00\x00Fatal \x1b[31mred\x00hidden................"))
	f.Add(bytes.Repeat([]byte{0xff}, 3*BlackBoxSlotBytes+5))
	f.Fuzz(func(t *testing.T, mem []byte) {
		last := -1
		for _, r := range ReadBlackBox(mem) {
			if r.Slot <= last || r.Slot >= BlackBoxSlots {
				t.Fatalf("slot %d after %d", r.Slot, last)
			}
			last = r.Slot
			if r.Fault > 64 || len(r.Detail) > BlackBoxSlotBytes-slotDetail || r.Fault == 0 && r.Detail != "" {
				t.Errorf("%+v", r)
			}
			if strings.ContainsFunc(r.Detail, func(c rune) bool { return c < ' ' || c > '~' }) {
				t.Errorf("detail %q", r.Detail)
			}
		}
	})
}

// wireEnd is what a shard has written to its control socket.
type wireEnd struct{ io.Reader }

func (wireEnd) Write(p []byte) (int, error) { return len(p), nil }
func (wireEnd) Close() error                { return nil }

// FuzzControlCodec: bytes on the control socket become messages within the bounds, or a reason why
// not. What is read of a message is limited, however often its pointers lead back to the same words.
func FuzzControlCodec(f *testing.F) {
	seed := func(fill func(rpccp.Message) error) []byte {
		m, seg, err := capnp.NewMessage(capnp.SingleSegment(nil))
		if err != nil {
			f.Fatal(err)
		}
		root, err := rpccp.NewRootMessage(seg)
		if err != nil {
			f.Fatal(err)
		}
		if err := fill(root); err != nil {
			f.Fatal(err)
		}
		raw, err := m.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		return raw
	}
	f.Add(seed(func(m rpccp.Message) error { _, err := m.NewBootstrap(); return err }))
	f.Add(seed(func(m rpccp.Message) error {
		r, err := m.NewReturn()
		if err != nil {
			return err
		}
		e, err := r.NewException()
		if err != nil {
			return err
		}
		return e.SetReason("no")
	}))
	f.Add([]byte("\x01\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("\xff\xff\xff\xff"))
	const limit = 64 << 10
	f.Fuzz(func(t *testing.T, raw []byte) {
		c := NewControlCodec(wireEnd{bytes.NewReader(raw)}, limit)
		for n := 0; n < 16; n++ {
			m, err := c.Decode()
			if err != nil {
				var v *ViolationError
				if !errors.As(err, &v) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("%v is neither a violation nor an end", err)
				}
				return
			}
			if size, err := m.TotalSize(); err != nil || size > limit {
				t.Errorf("a message of %d bytes, limit %d: %v", size, limit, err)
			}
			walk(m)
			m.Release()
		}
	})
}

// walk reads what an RPC peer would read of a message.
func walk(m *capnp.Message) {
	root, err := rpccp.ReadRootMessage(m)
	if err != nil {
		return
	}
	switch root.Which() {
	case rpccp.Message_Which_return:
		r, err := root.Return()
		if err != nil {
			return
		}
		switch r.Which() { // the accessors of another member of the union panic
		case rpccp.Return_Which_exception:
			if e, err := r.Exception(); err == nil {
				_, _ = e.Reason()
			}
		case rpccp.Return_Which_results:
			if p, err := r.Results(); err == nil {
				_, _ = p.Content()
				_, _ = p.CapTable()
			}
		}
	case rpccp.Message_Which_call:
		c, err := root.Call()
		if err != nil {
			return
		}
		p, err := c.Params()
		if err != nil {
			return
		}
		content, err := p.Content()
		if err != nil {
			return
		}
		entries, err := gen.TenantHost_log_Params(content.Struct()).Entries()
		if err != nil {
			return
		}
		for i := range min(entries.Len(), 4096) {
			_, _ = entries.At(i).TextBytes()
		}
	}
}

var _ transport.Codec = (*ControlCodec)(nil)

// FuzzFetchCheck: whatever a shard asks to be fetched, what passes is a request that HTTP knows: no
// field of it can end a line, name credentials or smuggle a second request.
func FuzzFetchCheck(f *testing.F) {
	f.Add("GET", "https://a.example/x?y", []byte("a\nb\n"), []byte{}, uint16(0), uint16(0))
	f.Add("POST", "http://a", []byte("content-type\ntext/plain\n"), []byte("body"), uint16(1), uint16(2))
	f.Add("POST", "http://a", []byte("content-type\ntext/plain\n"), []byte("body"), uint16(1), uint16(0x701))
	f.Add("GET / HTTP/1.1\r\n", "http://u:p@a/#f", []byte("a\r\nb\n"), []byte("x"), uint16(9), uint16(9))
	f.Fuzz(func(t *testing.T, method, url string, headers, body []byte, mode, redirect uint16) {
		want := Fetch{Parent: 1, Method: method, URL: url, Headers: headers, Body: body,
			BodyMode: gen.BodyMode(mode), Redirect: gen.Fetch_Redirect(redirect & 0xff)}
		if want.Function = redirect >> 8; want.Function != 0 {
			want.Binding = FunctionBinding
		}
		verdict := want.Check(&wire)
		if verdict == nil {
			if strings.ContainsAny(method+url, "\r\n\x00 ") || !strings.HasPrefix(url, "http") || bytes.ContainsAny(headers, "\r\x00") {
				t.Errorf("passed: %q %q %q", method, url, headers)
			}
			if len(method)+len(url)+len(headers)+len(body) > wire.FrameBytes-1024 {
				t.Errorf("%d bytes passed", len(body))
			}
		} else {
			wantViolation(t, verdict)
		}
		// On the wire it is judged the same.
		if len(method)+len(url)+len(headers)+len(body) > 100<<10 {
			return
		}
		var b Batch
		b.Fetch(FetchBit|1, &want)
		err := feed(t, b.Bytes(), b.Len(), func(fr gen.Frame) {
			got, err := DecodeFetch(fr, &wire)
			if (err == nil) != (verdict == nil) {
				t.Errorf("direct %v, on the wire %v", verdict, err)
			}
			if err == nil && (got.Method != method || got.URL != url || !bytes.Equal(got.Headers, headers) || got.Function != want.Function || got.Binding != want.Binding) {
				t.Errorf("%+v came back as %+v", want, got)
			}
		})
		if err != nil {
			wantViolation(t, err)
		}
	})
}
