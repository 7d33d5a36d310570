package ipc

import (
	"encoding/binary"
	"errors"
	"reflect"
	"strings"
	"testing"

	"bulkhead/policy/limits"
	"bulkhead/schema/gen"

	"github.com/google/go-cmp/cmp"
)

var wire = limits.DefaultWire()

// feed puts raw into a fresh scanner in pieces of the given size and collects all frames.
func feed(t testing.TB, raw []byte, piece int, each func(gen.Frame)) error {
	t.Helper()
	s := NewScanner(&wire)
	for len(raw) > 0 {
		n := copy(s.Free(), raw[:min(piece, len(raw))])
		s.Fill(n)
		raw = raw[n:]
		for {
			f, ok, err := s.Next()
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			each(f)
		}
	}
	return nil
}

func sample(b *Batch) {
	b.Open(7, &Open{Tenant: 3, Method: "POST", URL: "https://a.localhost/x?y", Headers: []byte("host\na\n"),
		Body: []byte("body"), BodyMode: gen.BodyMode_streamed, RequestID: "r-1", ReceivedMs: 1234.5, Attempt: 1})
	b.Head(7, &Head{Status: 204, Headers: []byte("x\n1\n"), BodyMode: gen.BodyMode_none})
	b.Chunk(7, []byte(strings.Repeat("z", 64<<10)))
	b.End(7)
	b.Abort(7, gen.Abort_Reason_refused, "enough")
	b.Window(7, 99)
	b.Done(7, &Done{Outcome: gen.Outcome_ok, Message: "m", CPUMicros: 12})
	b.Ping(5)
	b.Pong(6)
	b.Overdue(7, &Overdue{Tenant: 3, CPUMicros: 151_000, LimitMicros: 50_000})
}

func TestRoundTripInAnyPieces(t *testing.T) {
	var b Batch
	sample(&b)
	for _, piece := range []int{1, 7, 8, 9, 4096, 1 << 20} {
		var got []string
		err := feed(t, b.Bytes(), piece, func(f gen.Frame) {
			got = append(got, f.Which().String())
			switch f.Which() {
			case gen.Frame_Which_open:
				o, err := DecodeOpen(f, &wire)
				if err != nil {
					t.Fatal(err)
				}
				want := Open{Tenant: 3, Method: "POST", URL: "https://a.localhost/x?y", Headers: []byte("host\na\n"),
					Body: []byte("body"), BodyMode: gen.BodyMode_streamed, RequestID: "r-1", ReceivedMs: 1234.5, Attempt: 1}
				if d := cmp.Diff(want, o); d != "" {
					t.Errorf("open (-want +got):\n%s", d)
				}
			case gen.Frame_Which_head:
				h, err := DecodeHead(f, &wire)
				if err != nil || h.Status != 204 || string(h.Headers) != "x\n1\n" {
					t.Errorf("head = %+v, %v", h, err)
				}
			case gen.Frame_Which_chunk:
				p, err := DecodeChunk(f, &wire)
				if err != nil || len(p) != 64<<10 || p[0] != 'z' {
					t.Errorf("chunk of %d bytes, %v", len(p), err)
				}
			case gen.Frame_Which_abort:
				r, m, err := DecodeAbort(f, &wire)
				if err != nil || r != gen.Abort_Reason_refused || m != "enough" {
					t.Errorf("abort = %v %q %v", r, m, err)
				}
			case gen.Frame_Which_done:
				d, err := DecodeDone(f, &wire)
				if err != nil || d != (Done{Outcome: gen.Outcome_ok, Message: "m", CPUMicros: 12}) {
					t.Errorf("done = %+v, %v", d, err)
				}
			case gen.Frame_Which_window:
				if f.Window() != 99 || f.Stream() != 7 {
					t.Errorf("window = %d on %d", f.Window(), f.Stream())
				}
			case gen.Frame_Which_overdue:
				o, err := DecodeOverdue(f)
				if err != nil || o != (Overdue{Tenant: 3, CPUMicros: 151_000, LimitMicros: 50_000}) {
					t.Errorf("overdue = %+v, %v", o, err)
				}
			}
		})
		if err != nil {
			t.Fatalf("pieces of %d: %v", piece, err)
		}
		want := "open head chunk end abort window done ping pong overdue"
		if strings.Join(got, " ") != want {
			t.Errorf("pieces of %d: got %v", piece, got)
		}
	}
}

// edited encodes one frame and changes its bytes.
func edited(fill func(*Batch), edit func([]byte) []byte) []byte {
	var b Batch
	fill(&b)
	return edit(b.Bytes())
}

func TestScannerRefuses(t *testing.T) {
	end := func(b *Batch) { b.End(1) }
	cases := []struct {
		name string
		raw  []byte
		kind Kind
	}{
		{"two segments", edited(end, func(p []byte) []byte { p[0] = 1; return p }), KindFraming},
		{"all segments", edited(end, func(p []byte) []byte { copy(p, "\xff\xff\xff\xff"); return p }), KindFraming},
		{"empty segment", make([]byte, 8), KindFraming},
		{"too large", edited(end, func(p []byte) []byte {
			binary.LittleEndian.PutUint32(p[4:], uint32(wire.FrameBytes/8))
			return p
		}), KindFraming},
		{"4 GiB words", edited(end, func(p []byte) []byte { copy(p[4:], "\xff\xff\xff\xff"); return p }), KindFraming},
		{"root out of bounds", edited(end, func(p []byte) []byte { p[8+1] = 0xff; return p }), KindEncoding},
		{"root is a list", edited(end, func(p []byte) []byte { p[8] |= 1; return p }), KindEncoding},
		{"root is a far pointer", edited(end, func(p []byte) []byte { p[8] = 2; p[12] = 9; return p }), KindEncoding},
		{"null root", []byte{0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, KindEncoding},
		{"a capability", []byte{0, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0}, KindEncoding},
		{"text", []byte("HTTP/1.1 400 Bad Request\r\n\r\n"), KindFraming},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			err := feed(t, c.raw, len(c.raw), func(gen.Frame) {})
			var v *ViolationError
			if !errors.As(err, &v) || v.Kind != c.kind {
				t.Errorf("got %v, want a violation of kind %v", err, c.kind)
			}
		})
	}
}

func TestHalfAFrameIsNoFrame(t *testing.T) {
	var b Batch
	sample(&b)
	s := NewScanner(&wire)
	s.Fill(copy(s.Free(), b.Bytes()[:20]))
	if _, ok, err := s.Next(); ok || err != nil {
		t.Errorf("Next = %v, %v on half a frame", ok, err)
	}
	if s.Buffered() != 20 {
		t.Errorf("Buffered = %d, want 20", s.Buffered())
	}
}

func TestDecodersRefuse(t *testing.T) {
	big := strings.Repeat("x", 65<<10)
	cases := []struct {
		name string
		fill func(*Batch)
		kind Kind
	}{
		{"chunk too large", func(b *Batch) { b.Chunk(1, []byte(big)) }, KindSize},
		{"empty chunk", func(b *Batch) { b.Chunk(1, nil) }, KindSize},
		{"head body too large", func(b *Batch) {
			b.Head(1, &Head{Status: 200, Body: []byte(big), BodyMode: gen.BodyMode_whole})
		}, KindSize},
		{"body without mode", func(b *Batch) { b.Head(1, &Head{Status: 200, Body: []byte("x")}) }, KindState},
		{"unknown mode", func(b *Batch) { b.Head(1, &Head{Status: 200, BodyMode: 7}) }, KindEncoding},
		{"status 0", func(b *Batch) { b.Head(1, &Head{}) }, KindHeaders},
		{"status 600", func(b *Batch) { b.Head(1, &Head{Status: 600}) }, KindHeaders},
		{"headers too large", func(b *Batch) {
			b.Head(1, &Head{Status: 200, Headers: []byte("a\n" + big + "\n")})
		}, KindSize},
		{"too many headers", func(b *Batch) {
			b.Head(1, &Head{Status: 200, Headers: []byte(strings.Repeat("a\nb\n", 129))})
		}, KindSize},
		{"CR in a value", func(b *Batch) { b.Head(1, &Head{Status: 200, Headers: []byte("a\nb\rc\n")}) }, KindHeaders},
		{"NUL in a value", func(b *Batch) { b.Head(1, &Head{Status: 200, Headers: []byte("a\nb\x00\n")}) }, KindHeaders},
		{"upper-case name", func(b *Batch) { b.Head(1, &Head{Status: 200, Headers: []byte("A\nb\n")}) }, KindHeaders},
		{"empty name", func(b *Batch) { b.Head(1, &Head{Status: 200, Headers: []byte("\nb\n")}) }, KindHeaders},
		{"name with colon", func(b *Batch) { b.Head(1, &Head{Status: 200, Headers: []byte("a:\nb\n")}) }, KindHeaders},
		{"half a pair", func(b *Batch) { b.Head(1, &Head{Status: 200, Headers: []byte("a\nb")}) }, KindHeaders},
		{"name alone", func(b *Batch) { b.Head(1, &Head{Status: 200, Headers: []byte("a\n")}) }, KindHeaders},
		{"outcome zero", func(b *Batch) { b.Done(1, &Done{}) }, KindOutcome},
		{"outcome 14", func(b *Batch) { b.Done(1, &Done{Outcome: 14}) }, KindOutcome},
		{"done message too large", func(b *Batch) { b.Done(1, &Done{Outcome: 1, Message: big}) }, KindSize},
		{"abort message too large", func(b *Batch) { b.Abort(1, 0, big) }, KindSize},
		{"abort reason 9", func(b *Batch) { b.Abort(1, 9, "") }, KindEncoding},
		{"url too large", func(b *Batch) { b.Open(1, &Open{URL: big}) }, KindSize},
		{"stream zero", func(b *Batch) { b.Open(0, &Open{}) }, KindStream},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var b Batch
			c.fill(&b)
			var err error
			if e := feed(t, b.Bytes(), b.Len(), func(f gen.Frame) { err = decodeAny(f) }); e != nil {
				t.Fatal(e)
			}
			var v *ViolationError
			if !errors.As(err, &v) || v.Kind != c.kind {
				t.Errorf("got %v, want a violation of kind %v", err, c.kind)
			}
		})
	}
}

// decodeAny runs the decoder for whatever frame this is.
func decodeAny(f gen.Frame) (err error) {
	switch f.Which() {
	case gen.Frame_Which_open:
		_, err = DecodeOpen(f, &wire)
	case gen.Frame_Which_head:
		_, err = DecodeHead(f, &wire)
		if _, other := DecodeAnswer(f, &wire); err == nil {
			err = other // what a shard may answer an upstream may, too
		}
	case gen.Frame_Which_fetch:
		_, err = DecodeFetch(f, &wire)
	case gen.Frame_Which_chunk:
		_, err = DecodeChunk(f, &wire)
	case gen.Frame_Which_abort:
		_, _, err = DecodeAbort(f, &wire)
	case gen.Frame_Which_done:
		_, err = DecodeDone(f, &wire)
	case gen.Frame_Which_overdue:
		_, err = DecodeOverdue(f)
	}
	return err
}

func TestHeadersYieldsPairs(t *testing.T) {
	flat := AppendHeader(AppendHeader(nil, "a", "1"), "b", "")
	var got []string
	for n, v := range Headers(flat) {
		got = append(got, string(n)+"="+string(v))
	}
	if strings.Join(got, ",") != "a=1,b=" {
		t.Errorf("got %q", got)
	}
}

func TestKindsHaveNames(t *testing.T) {
	for k := KindFraming; k <= KindControl; k++ {
		if strings.HasPrefix(k.String(), "kind(") {
			t.Errorf("kind %d has no name", k)
		}
	}
}

// FuzzScanner: arbitrary bytes, cut at an arbitrary place, never panic, never yield more than
// they hold, and every refusal is a ViolationError.
func FuzzScanner(f *testing.F) {
	var b Batch
	sample(&b)
	f.Add(b.Bytes()[:200], 3)
	for _, fill := range []func(*Batch){
		func(b *Batch) { b.End(1) },
		func(b *Batch) {
			b.Head(1, &Head{Status: 200, Headers: []byte("a\nb\n"), Body: []byte("x"), BodyMode: 1})
		},
		func(b *Batch) { b.Done(1, &Done{Outcome: 1, Message: "m"}) },
		func(b *Batch) { b.Abort(1, 1, "m") },
		func(b *Batch) { b.Chunk(1, []byte("abc")) },
		func(b *Batch) { b.Message(1, &Message{Opcode: OpText, Last: true, Data: []byte("abc")}) },
		func(b *Batch) { b.Message(1, &Message{Opcode: OpClose, Last: true, Data: []byte("\x03\xe8bye")}) },
		func(b *Batch) { b.Head(1, &Head{Status: 999, URL: "http://a/", StatusText: "Odd", Redirected: true}) },
		func(b *Batch) { b.Fetch(FetchBit|1, &Fetch{Parent: 1, Method: "GET", URL: "http://a/", Redirect: 2}) },
		func(b *Batch) { b.Open(1, &Open{Method: "GET", URL: "http://a/", Headers: []byte("a\nb\n")}) },
	} {
		var b Batch
		fill(&b)
		f.Add(b.Bytes(), 9)
	}
	f.Fuzz(func(t *testing.T, raw []byte, piece int) {
		if piece <= 0 || piece > 1<<16 {
			piece = 1 << 16
		}
		frames := 0
		err := feed(t, raw, piece, func(fr gen.Frame) {
			frames++
			if err := decodeAny(fr); err != nil {
				wantViolation(t, err)
			}
		})
		if err != nil {
			wantViolation(t, err)
		}
		if frames > len(raw)/16 {
			t.Errorf("%d frames from %d bytes", frames, len(raw))
		}
	})
}

func TestFetchReadsBack(t *testing.T) {
	want := Fetch{Parent: 7, Method: "POST", URL: "https://a.example/x?y", Headers: []byte("a\nb\n"), Body: []byte("body"),
		BodyMode: gen.BodyMode_streamed, Redirect: gen.Fetch_Redirect_manual}
	answer := Head{Status: 999, URL: "https://b.example/", StatusText: "Odd", Redirected: true, Headers: []byte("c\nd\n"), BodyMode: gen.BodyMode_streamed}
	var b Batch
	b.Fetch(FetchBit|3, &want)
	b.Head(FetchBit|3, &answer)
	n := 0
	err := feed(t, b.Bytes(), 1<<20, func(f gen.Frame) {
		n++
		if f.Stream() != FetchBit|3 {
			t.Errorf("stream %x", f.Stream())
		}
		if f.Which() == gen.Frame_Which_fetch {
			if got, err := DecodeFetch(f, &wire); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%+v, %v", got, err)
			}
			return
		}
		if got, err := DecodeAnswer(f, &wire); err != nil || got.Status != 999 || got.URL != answer.URL || got.StatusText != "Odd" || !got.Redirected || string(got.Headers) != "c\nd\n" {
			t.Errorf("%+v, %v", got, err)
		}
	})
	if err != nil || n != 2 {
		t.Errorf("%d frames, %v", n, err)
	}
}

// FuzzHeaders: what CheckHeaders accepts, Headers reads back whole.
func FuzzHeaders(f *testing.F) {
	f.Add([]byte("a\nb\n"))
	f.Add([]byte("a\nb\n\n"))
	f.Add([]byte("content-length\n12\nx\n\n"))
	f.Fuzz(func(t *testing.T, flat []byte) {
		if err := CheckHeaders(flat, &wire); err != nil {
			wantViolation(t, err)
			return
		}
		var again []byte
		for n, v := range Headers(flat) {
			again = AppendHeader(again, string(n), string(v))
		}
		if string(again) != string(flat) {
			t.Errorf("%q read back as %q", flat, again)
		}
	})
}

func wantViolation(t *testing.T, err error) {
	t.Helper()
	var v *ViolationError
	if !errors.As(err, &v) {
		t.Errorf("%v is not a violation", err)
	}
}

func BenchmarkEncodeOpen(b *testing.B) {
	var batch Batch
	o := &Open{Tenant: 3, Method: "GET", URL: "http://hello.localhost:8080/", RequestID: "0123456789abcdef",
		Headers: []byte(strings.Repeat("accept-encoding\ngzip, deflate\n", 6))}
	b.ReportAllocs()
	for b.Loop() {
		batch.Reset(1 << 20)
		batch.Open(1, o)
	}
}

func BenchmarkDecodeOpen(b *testing.B) {
	var batch Batch
	batch.Open(1, &Open{Tenant: 3, Method: "GET", URL: "http://hello.localhost:8080/", RequestID: "0123456789abcdef",
		Headers: []byte(strings.Repeat("accept-encoding\ngzip, deflate\n", 6))})
	s := NewScanner(&wire)
	b.ReportAllocs()
	for b.Loop() {
		s.Fill(copy(s.Free(), batch.Bytes()))
		f, ok, err := s.Next()
		if !ok || err != nil {
			b.Fatal(err)
		}
		if _, err := DecodeOpen(f, &wire); err != nil {
			b.Fatal(err)
		}
	}
}
