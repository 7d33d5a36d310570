package ipc

import (
	"bytes"
	"testing"
)

// What PutChunk makes in place is what Chunk appends.
func TestPutChunk(t *testing.T) {
	for _, n := range []int{1, 7, 8, 9, 4096, 65535, 65536} {
		data := bytes.Repeat([]byte{0xa5}, n)
		var b Batch
		b.Chunk(0xfedcba9876543210, data)
		got := make([]byte, ChunkRoom+(n+7)/8*8)
		for i := range ChunkRoom {
			got[i] = 0xee // what was there before does not matter
		}
		copy(got[ChunkRoom:], data)
		PutChunk(got, 0xfedcba9876543210, n)
		if !bytes.Equal(got, b.Bytes()) {
			t.Errorf("a chunk of %d bytes: %x…, want %x…", n, got[:ChunkRoom+8], b.Bytes()[:ChunkRoom+8])
		}
	}
}

// A batch that grows keeps what it has, and no buffer that is given up holds any of it.
func TestBatchGrows(t *testing.T) {
	data := bytes.Repeat([]byte{0xa5}, 64<<10)
	for range 3 {
		var b Batch
		var want []byte
		for range 20 { // past the largest buffer that is shared
			var one Batch
			one.Chunk(7, data)
			want = append(want, one.Bytes()...)
			b.Chunk(7, data)
		}
		if !bytes.Equal(b.Bytes(), want) {
			t.Fatal("the batch has other bytes than its frames")
		}
		b.Reset(0)
		var first, second Batch
		first.Chunk(7, data)
		second.Chunk(7, data)
		for _, b := range []*Batch{&first, &second} {
			if rest := b.buf[len(b.buf):cap(b.buf)]; !bytes.Equal(rest, make([]byte, len(rest))) {
				t.Error("a buffer holds bytes of a batch before")
			}
			b.Reset(0)
		}
	}
}
