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
type plainFD struct {
	fd    int
	close sync.Once
}

func (p *plainFD) Read(b []byte) (int, error) {
	n, err := read(p.fd, b)
	if err == nil && n == 0 && len(b) > 0 {
		return 0, io.EOF
	}
	return n, err
}

func (p *plainFD) Write(b []byte) (int, error) {
	if err := writeAll(p.fd, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (p *plainFD) Close() (err error) {
	p.close.Do(func() { err = syscall.Close(p.fd) })
	return err
}
