package ipc

import (
	"bytes"
	"io"
	"testing"

	"bulkhead/schema/gen"
)

// What was taken out of a buffer, or written from it, is not in it any more.
func TestBuffersKeepNothing(t *testing.T) {
	secret := bytes.Repeat([]byte("a tenant's secret "), 500)
	holds := func(b []byte) bool { return bytes.Contains(b[:cap(b)], []byte("tenant's")) }

	var b Batch
	b.Chunk(1, secret)
	b.Chunk(2, secret)
	raw := bytes.Clone(b.Bytes())
	b.Reset(1 << 20)
	if holds(b.buf) {
		t.Error("a batch that was reset")
	}

	for _, piece := range []int{1, 7, 1000, len(raw)} {
		s := NewScanner(&wire)
		frames := 0
		for in := raw; len(in) > 0; {
			n := copy(s.Free(), in[:min(piece, len(in))])
			s.Fill(n)
			in = in[n:]
			for {
				_, ok, err := s.Next()
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					break
				}
				frames++
			}
		}
		if frames != 2 || holds(s.buf) {
			t.Errorf("a scanner that took %d frames in pieces of %d bytes", frames, piece)
		}
	}

	// Unread bytes are moved to the front: none is left where they were.
	s := NewScanner(&wire)
	s.Fill(copy(s.Free(), raw[:len(raw)-1]))
	var last gen.Frame
	for ok := true; ok; {
		var err error
		if last, ok, err = s.Next(); err != nil {
			t.Fatal(err)
		}
	}
	_ = last
	s.buf = s.buf[:s.w:s.w] // full: Free has to move
	s.max = len(s.buf)
	s.Free()
	if holds(s.buf[s.w:]) || s.Buffered() == 0 {
		t.Error("a scanner that moved what is unread")
	}

	var wire bytes.Buffer
	w := newWipedWriter(&wire)
	for range 5 {
		if _, err := w.Write(secret); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil || holds(w.buf) {
		t.Errorf("a writer that was flushed: %v", err)
	}
	r := newWipedReader(&wire)
	got, err := io.ReadAll(io.LimitReader(r, int64(5*len(secret))))
	if err != nil || !bytes.Equal(got, bytes.Repeat(secret, 5)) || holds(r.buf) {
		t.Errorf("a reader that was read: %d bytes, %v", len(got), err)
	}
}
