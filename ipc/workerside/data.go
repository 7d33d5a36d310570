package workerside

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"syscall"

	"bulkhead/ipc"
	"bulkhead/policy/limits"
	"bulkhead/schema/gen"
)

// keepBuffer is the largest batch buffer kept between bursts.
const keepBuffer = 256 << 10

// Data is the data socket. Poll is for one goroutine at a time; the rest is safe for
// concurrent use.
type Data struct {
	fd int
	sc *ipc.Scanner

	flushMu sync.Mutex  // held around write(2), so that batches leave in order; taken before mu
	out     *ipc.Batch  // guarded by flushMu; being written
	writing atomic.Bool // somebody holds flushMu

	mu      sync.Mutex
	pending *ipc.Batch // guarded by mu
}

// NewData makes the worker's end of fd, a blocking stream socket. The caller keeps owning fd.
func NewData(fd int, w *limits.Wire) *Data {
	return &Data{fd: fd, sc: ipc.NewScanner(w), out: new(ipc.Batch), pending: new(ipc.Batch)}
}

// Poll blocks in one read(2) and hands every whole frame to each, together with its bytes;
// both are valid during the call only. io.EOF when the gateway is gone. An error of each, or a
// malformed frame, ends the channel.
//
// The reader is whichever executor has nothing better to do (see sandboxworker/scheduler), so
// that a request is read, run and answered by one thread without a wake-up between.
func (d *Data) Poll(each func(f gen.Frame, raw []byte) error) error {
	n, err := read(d.fd, d.sc.Free())
	if hungUp(err) {
		return io.EOF
	}
	if err != nil {
		return fmt.Errorf("data channel: read: %w", err)
	}
	if n == 0 {
		return io.EOF
	}
	d.sc.Fill(n)
	for {
		f, ok, err := d.sc.Next()
		if err != nil {
			return err
		}
		if !ok {
			return nil
		}
		if err := each(f, d.sc.Raw()); err != nil {
			return err
		}
	}
}

// Begin locks the batch for appending frames; End must follow.
func (d *Data) Begin() *ipc.Batch {
	d.mu.Lock()
	return d.pending
}

// End unlocks the batch and returns the number of bytes waiting for Flush.
func (d *Data) End() int {
	n := d.pending.Len()
	d.mu.Unlock()
	return n
}

// Pending is the number of bytes waiting for Flush.
func (d *Data) Pending() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pending.Len()
}

// Unwritten reports whether something waits for Flush and nobody is writing, perhaps held up by a
// gateway that does not read.
func (d *Data) Unwritten() bool { return d.Pending() > 0 && !d.writing.Load() }

// Flush writes what is pending in one write(2) where the socket takes it. It blocks while the
// gateway does not read. io.EOF when it is gone.
func (d *Data) Flush() error { return d.FlushWith(nil) }

// FlushWith is Flush, and writes one more frame, which is not copied.
func (d *Data) FlushWith(frame []byte) error {
	d.flushMu.Lock()
	defer d.flushMu.Unlock()
	d.writing.Store(true)
	defer d.writing.Store(false)
	d.mu.Lock()
	d.out, d.pending = d.pending, d.out
	d.mu.Unlock()
	defer d.out.Reset(keepBuffer)
	err := writeAll(d.fd, d.out.Bytes())
	if err == nil {
		err = writeAll(d.fd, frame)
	}
	if hungUp(err) {
		return io.EOF
	}
	if err != nil {
		return fmt.Errorf("data channel: write: %w", err)
	}
	return nil
}

// hungUp tells whether an error means that the gateway closed its end, perhaps with frames unread.
func hungUp(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func read(fd int, p []byte) (int, error) {
	for {
		n, err := syscall.Read(fd, p)
		if !errors.Is(err, syscall.EINTR) {
			return max(n, 0), err
		}
	}
}

func writeAll(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := syscall.Write(fd, p)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return err
		}
		p = p[max(n, 0):]
	}
	return nil
}
