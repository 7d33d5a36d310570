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
