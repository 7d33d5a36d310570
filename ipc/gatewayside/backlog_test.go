package gatewayside

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// Whatever the sizes, what is read and taken is what was added, in order, and nothing stays.
func TestBacklog(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	sizes := []int{1, 100, smallPiece - 1, smallPiece, smallPiece + 1, 64 << 10, pieceBytes, pieceBytes + 1}
	for round := range 200 {
		b := backlog{first: []byte("head")}
		in, out := []byte("head"), []byte(nil)
		for range 20 {
			p := make([]byte, sizes[r.IntN(len(sizes))])
			for i := range p {
				p[i] = byte(len(in) + i*7)
			}
			in = append(in, p...)
			b.add(p)
			clear(p) // it was copied
			if b.size() != len(in)-len(out) {
				t.Fatalf("round %d: it says that %d bytes are left of %d", round, b.size(), len(in)-len(out))
			}
			for !b.empty() && r.IntN(3) > 0 {
				if r.IntN(2) == 0 {
					piece := b.take()
					out = append(out, piece.Bytes...)
					piece.Free()
				} else {
					buf := make([]byte, sizes[r.IntN(len(sizes))])
					out = append(out, buf[:b.read(buf)]...)
				}
			}
		}
		for !b.empty() {
			piece := b.take()
			out = append(out, piece.Bytes...)
			piece.Free()
		}
		if !bytes.Equal(in, out) {
			t.Fatalf("round %d: %d bytes came out of %d, or others", round, len(out), len(in))
		}
	}
}

// A stream that says little at a time does not hold a large piece.
func TestBacklogSmall(t *testing.T) {
	var b backlog
	for range 8 {
		b.add(make([]byte, 1000))
	}
	if len(b.pieces) != 1 || cap(b.pieces[0].Bytes) > 2*smallPiece {
		t.Errorf("8 KB in %d pieces, the first of %d bytes", len(b.pieces), cap(b.pieces[0].Bytes))
	}
	b.drop()
	if !b.empty() {
		t.Error("not empty after drop")
	}
}
