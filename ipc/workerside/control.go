package workerside

import (
	"io"
	"sync"
	"syscall"

	"bulkhead/ipc"
	"bulkhead/schema/gen"

	capnp "capnproto.org/go/capnp/v3"
	"capnproto.org/go/capnp/v3/rpc"
)

// ServeControl offers shard to the gateway on fd, a blocking stream socket that the
// connection closes when it ends. The connection's Done says when that is.
func ServeControl(fd int, shard gen.Shard_Server) *rpc.Conn {
	codec := ipc.NewControlCodec(&plainFD{fd: fd}, ipc.ControlBytesToShard)
	return rpc.NewConn(rpc.NewTransport(codec), &rpc.Options{
		BootstrapClient: capnp.Client(gen.Shard_ServerToClient(shard)),
	})
}

// plainFD reads and writes a descriptor with read(2) and write(2) alone. An *os.File would do
// the same on most days, but asks fcntl and epoll_ctl first, and net.FileConn recvmsg.
//
// The descriptor is closed when the last call on it is over: until then its number is not somebody else's.
type plainFD struct {
	fd int

	mu     sync.Mutex
	calls  int  // guarded by mu; under way
	closed bool // guarded by mu
}

// enter begins a call on the descriptor; leave must follow unless it returns false.
func (p *plainFD) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.calls++
	return true
}

func (p *plainFD) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.calls--; p.closed && p.calls == 0 {
		syscall.Close(p.fd)
	}
}

func (p *plainFD) Read(b []byte) (int, error) {
	if !p.enter() {
		return 0, io.EOF
	}
	defer p.leave()
	n, err := read(p.fd, b)
	if err == nil && n == 0 && len(b) > 0 {
		return 0, io.EOF
	}
	return n, err
}

func (p *plainFD) Write(b []byte) (int, error) {
	if !p.enter() {
		return 0, io.ErrClosedPipe
	}
	defer p.leave()
	if err := writeAll(p.fd, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (p *plainFD) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	if p.calls > 0 {
		return nil // leave closes it
	}
	return syscall.Close(p.fd)
}
