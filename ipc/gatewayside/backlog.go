package gatewayside

import "sync"

const (
	// pieceBytes is what a piece of a body in hand may have: two chunks of the largest size, so that what
	// is waiting goes out in few writes.
	pieceBytes = 128 << 10
	// smallPiece is up to what size a piece is no pooled one: a stream that says little keeps little.
	smallPiece = 8 << 10
)

var piecePool = sync.Pool{New: func() any { return new([pieceBytes]byte) }}

// Piece is part of a body. Its bytes are the holder's until it frees it.
type Piece struct {
	Bytes  []byte
	pooled *[pieceBytes]byte
}

// Free gives the memory back. The bytes are not to be used any more.
func (p *Piece) Free() {
	if p.pooled != nil {
		piecePool.Put(p.pooled)
	}
	*p = Piece{}
}

// backlog is what has come of a body and was not read. It is bounded by the window of its stream. Not safe
// for concurrent use.
type backlog struct {
	first  []byte  // before all pieces; somebody else may read it too
	pieces []Piece // oldest first; none is empty
}

func (b *backlog) empty() bool { return len(b.first) == 0 && len(b.pieces) == 0 }

// size is the number of bytes.
func (b *backlog) size() int {
	n := len(b.first)
	for i := range b.pieces {
		n += len(b.pieces[i].Bytes)
	}
	return n
}

// add copies bytes to the end.
func (b *backlog) add(p []byte) {
	for len(p) > 0 {
		if n := len(b.pieces); n > 0 {
			last := &b.pieces[n-1]
			if last.pooled != nil {
				k := min(len(p), cap(last.Bytes)-len(last.Bytes))
				last.Bytes, p = append(last.Bytes, p[:k]...), p[k:]
			} else if len(last.Bytes)+len(p) <= smallPiece {
				last.Bytes, p = append(last.Bytes, p...), nil
			}
		}
		if len(p) == 0 {
			return
		}
		if len(p) <= smallPiece && len(b.pieces) == 0 {
			b.pieces = append(b.pieces, Piece{Bytes: append([]byte(nil), p...)})
			return
		}
		mem := piecePool.Get().(*[pieceBytes]byte)
		b.pieces = append(b.pieces, Piece{Bytes: mem[:0], pooled: mem})
	}
}

// read moves bytes from the front into p.
func (b *backlog) read(p []byte) (n int) {
	n = copy(p, b.first)
	b.first = b.first[n:]
	for n < len(p) && len(b.pieces) > 0 {
		first := &b.pieces[0]
		k := copy(p[n:], first.Bytes)
		n += k
		if first.Bytes = first.Bytes[k:]; len(first.Bytes) == 0 {
			first.Free()
			b.shift()
		}
	}
	return n
}

// take gives the oldest piece away. There must be one.
func (b *backlog) take() Piece {
	if len(b.first) > 0 {
		p := Piece{Bytes: b.first}
		b.first = nil
		return p
	}
	p := b.pieces[0]
	b.shift()
	return p
}

func (b *backlog) shift() {
	last := len(b.pieces) - 1
	copy(b.pieces, b.pieces[1:])
	b.pieces[last] = Piece{}
	b.pieces = b.pieces[:last]
}

// drop forgets everything.
func (b *backlog) drop() {
	for i := range b.pieces {
		b.pieces[i].Free()
	}
	b.first, b.pieces = nil, nil
}
