package ipc

import "io"

// wipedBuffer is the size of the buffers below, bytes.
const wipedBuffer = 16 << 10

// wipedReader reads ahead as a bufio.Reader does, and keeps nothing of what it has handed out: a
// control channel carries the code and the variables of one tenant after another.
type wipedReader struct {
	from io.Reader
	buf  []byte // what was read ahead is buf[r:w]; the rest is zero
	r, w int
}

func newWipedReader(from io.Reader) *wipedReader {
	return &wipedReader{from: from, buf: make([]byte, wipedBuffer)}
}

// await returns when there is something to read, or with the error of reading.
func (b *wipedReader) await() error {
	for b.r == b.w {
		n, err := b.from.Read(b.buf)
		b.r, b.w = 0, max(n, 0)
		if b.w == 0 && err != nil {
			return err
		}
	}
	return nil
}

// Read implements io.Reader. What does not fit the buffer is read past it.
func (b *wipedReader) Read(p []byte) (int, error) {
	if b.r == b.w {
		if len(p) >= len(b.buf) {
			return b.from.Read(p)
		}
		n, err := b.from.Read(b.buf)
		b.r, b.w = 0, max(n, 0)
		if b.w == 0 {
			return 0, err
		}
	}
	n := copy(p, b.buf[b.r:b.w])
	clear(b.buf[b.r : b.r+n])
	b.r += n
	return n, nil
}

// wipedWriter gathers writes as a bufio.Writer does, and keeps nothing of what it has written.
type wipedWriter struct {
	to  io.Writer
	buf []byte // zero up to its capacity
}

func newWipedWriter(to io.Writer) *wipedWriter {
	return &wipedWriter{to: to, buf: make([]byte, 0, wipedBuffer)}
}

// Write implements io.Writer. What does not fit the buffer is written past it.
func (b *wipedWriter) Write(p []byte) (int, error) {
	if len(b.buf)+len(p) > cap(b.buf) {
		if err := b.Flush(); err != nil {
			return 0, err
		}
	}
	if len(p) > cap(b.buf) {
		return b.to.Write(p)
	}
	b.buf = append(b.buf, p...)
	return len(p), nil
}

// Flush writes what was gathered.
func (b *wipedWriter) Flush() error {
	if len(b.buf) == 0 {
		return nil
	}
	_, err := b.to.Write(b.buf)
	clear(b.buf)
	b.buf = b.buf[:0]
	return err
}
