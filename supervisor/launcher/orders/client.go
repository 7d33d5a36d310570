package orders

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"bulkhead/policy/seccomp"

	"golang.org/x/sys/unix"
)

// Client is the gateway's end of the order socket. All methods may be called at once.
type Client struct {
	sock *os.File
	raw  syscall.RawConn

	admin chan AdminConn
	drain chan struct{}
	gone  chan struct{} // closed when the socket failed; err says how

	mu       sync.Mutex
	err      error                  // guarded by mu; set once, before gone is closed
	seq      uint64                 // guarded by mu
	looks    map[uint64]chan Look   // guarded by mu; looks not yet answered
	waiting  map[uint64]chan answer // guarded by mu; spawns and configs not yet answered
	children map[uint32]*Child      // guarded by mu; spawned and not yet exited
	drained  bool                   // guarded by mu
}

type answer struct {
	child *Child   // of a spawn
	file  *os.File // of a config
	err   error
}

// drop lets go of what nobody waits for any more.
func (a answer) drop() {
	if a.child != nil {
		a.child.Kill()
		a.child.CloseFiles()
	}
	if a.file != nil {
		a.file.Close()
	}
}

// AdminConn is one connection to the admin socket. The launcher accepted it and checked with
// SO_PEERCRED (unix(7)) that its peer is root or the user bulkhead runs for.
type AdminConn struct {
	UID  uint32
	Conn *os.File
}

// Child is a process the launcher made and, for a shard or bundler, verified from outside.
// Files a kind does not have are nil. The receiver closes them.
type Child struct {
	ID      uint32
	PID     int // in the launcher's pid namespace: for people, never for kill(2)
	Profile seccomp.Profile

	Control, Data, BlackBox *os.File // shard
	Output                  *os.File // bundler
	Stderr                  *os.File // both

	client *Client
	exited chan Exit
	rss    atomic.Uint64
}

// RSS is the child's resident memory in bytes as the kernel last told the launcher, which reports
// it every few seconds; 0 before the first report.
func (c *Child) RSS() uint64 { return c.rss.Load() }

// DetailOutOfMemory is the Detail of an Exit by SIGKILL that the kernel's OOM killer sent because the
// child's cgroup had no memory left.
const DetailOutOfMemory = "killed by the kernel: out of memory in its cgroup"

// Exit says how a child ended, as the kernel told the launcher.
type Exit struct {
	Code          int            // exit code, -1 if Signal is set
	Signal        syscall.Signal // the true signal, 0 if it exited
	Syscall       int32          // for SIGSYS the forbidden syscall number, else -1
	SyscallReason string         // why Syscall is -1 although the signal is SIGSYS
	Detail        string         // for people: out of memory in the cgroup, found stopped, ...
	Stopped       bool           // it was found stopped (SIGSTOP) and killed for it
}

// SpawnError is the launcher's refusal to hand over a child, or its failure to make one.
type SpawnError struct {
	Step   string        // named step of docs/launcher.md, or "verify"
	Errno  syscall.Errno // 0 where no system call failed
	Detail string
}

func (e *SpawnError) Error() string {
	if e.Errno != 0 {
		return fmt.Sprintf("launcher: step %s: %v: %s", e.Step, e.Errno, e.Detail)
	}
	return fmt.Sprintf("launcher: step %s: %s", e.Step, e.Detail)
}

// Unwrap gives errors.Is the errno.
func (e *SpawnError) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

// ErrLauncherGone ends every wait when the order socket fails. The launcher's death kills this
// process too (parent-death signal), so it is mostly seen in tests.
var ErrLauncherGone = errors.New("launcher is gone")

// NewClient takes ownership of the order socket (fd 3 of the gateway), which must be in
// non-blocking mode, and starts reading it. See Inherit for the usual way.
func NewClient(f *os.File) *Client {
	c := &Client{
		sock:     f,
		admin:    make(chan AdminConn, 16),
		drain:    make(chan struct{}),
		gone:     make(chan struct{}),
		looks:    make(map[uint64]chan Look),
		waiting:  make(map[uint64]chan answer),
		children: make(map[uint32]*Child),
	}
	raw, err := f.SyscallConn()
	if err != nil {
		c.fail(fmt.Errorf("order socket: %w", err))
		close(c.admin)
		return c
	}
	c.raw = raw
	go c.read()
	return c
}

// Close lets go of the socket; the launcher then ends this gateway's generation.
func (c *Client) Close() error {
	c.fail(os.ErrClosed)
	return c.sock.Close()
}

// SpawnShard asks for a sealed worker and waits until the launcher has verified it twice. If
// ctx ends first, the child is killed as soon as it arrives.
func (c *Client) SpawnShard(ctx context.Context, p seccomp.Profile, memoryBytes uint64) (*Child, error) {
	return c.spawn(ctx, Order{Kind: KindSpawnShard, Profile: p, Memory: memoryBytes})
}

// SpawnBundler asks for a sealed bundler that sees the folder of one tenant, read-only.
// root is the index of the --tenants directory that holds it.
func (c *Client) SpawnBundler(ctx context.Context, root int, tenant string) (*Child, error) {
	return c.spawn(ctx, Order{Kind: KindSpawnBundler, Root: uint32(root), Tenant: tenant})
}

// Ready tells the service manager, through the launcher, that requests are served. Once.
func (c *Client) Ready() error { return c.send(Order{Kind: KindReady}) }

// Heartbeat says that the gateway makes progress. The launcher forwards it to the service
// manager's watchdog.
func (c *Client) Heartbeat() error { return c.send(Order{Kind: KindHeartbeat}) }

// AdminConns yields connections to the admin socket; it is closed when the launcher is gone.
func (c *Client) AdminConns() <-chan AdminConn { return c.admin }

// Drain is closed when the launcher was asked to stop: finish what runs, then exit 0.
func (c *Client) Drain() <-chan struct{} { return c.drain }

// Exited yields exactly one value, then is closed.
func (c *Child) Exited() <-chan Exit { return c.exited }

// Kill has the launcher send SIGKILL by pidfd. Killing a child that is gone is no error.
func (c *Child) Kill() error { return c.client.send(Order{Kind: KindKill, Child: c.ID}) }

// Look is what a child was doing, summed over its threads.
type Look struct {
	CPU      time.Duration // processor time had since its start, to the ms
	Delay    time.Duration // time spent waiting for a processor since its start, to the ms
	Runnable int           // threads that run or wait for a processor now
}

// Look asks the launcher what the child is doing: an unprivileged process cannot see others. The
// launcher answers at once; of a child that is gone, with zeros.
func (c *Child) Look(ctx context.Context) (Look, error) {
	wait := make(chan Look, 1)
	l := c.client
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return Look{}, l.err
	}
	l.seq++
	seq := l.seq
	l.looks[seq] = wait
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.looks, seq)
		l.mu.Unlock()
	}()
	if err := l.send(Order{Kind: KindLook, Child: c.ID, Seq: seq}); err != nil {
		return Look{}, err
	}
	select {
	case look := <-wait:
		return look, nil
	case <-l.gone:
		return Look{}, l.err
	case <-ctx.Done():
		return Look{}, fmt.Errorf("order %v: %w", KindLook, context.Cause(ctx))
	}
}

// CloseFiles closes whatever files of the child are still open.
func (c *Child) CloseFiles() {
	for _, f := range []*os.File{c.Control, c.Data, c.BlackBox, c.Output, c.Stderr} {
		if f != nil {
			f.Close()
		}
	}
}

// Config asks for the policy document of --config as it is now, opened anew: an editor replaces the
// file instead of rewriting it. The caller closes it. A file that cannot be opened is a *SpawnError.
func (c *Client) Config(ctx context.Context) (*os.File, error) {
	a := c.order(ctx, Order{Kind: KindConfig})
	return a.file, a.err
}

func (c *Client) spawn(ctx context.Context, o Order) (*Child, error) {
	a := c.order(ctx, o)
	return a.child, a.err
}

// order gives an order that is answered once.
func (c *Client) order(ctx context.Context, o Order) answer {
	wait := make(chan answer, 1)
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return answer{err: c.err}
	}
	c.seq++
	o.Seq = c.seq
	c.waiting[o.Seq] = wait
	c.mu.Unlock()

	if err := c.send(o); err != nil {
		c.forget(o.Seq)
		return answer{err: err}
	}
	select {
	case a := <-wait:
		return a
	case <-c.gone:
		return answer{err: c.err}
	case <-ctx.Done():
		// The order cannot be taken back: whoever arrives later is not wanted.
		go func() {
			select {
			case a := <-wait:
				a.drop()
			case <-c.gone:
			}
		}()
		return answer{err: fmt.Errorf("order %v: %w", o.Kind, context.Cause(ctx))}
	}
}

func (c *Client) forget(seq uint64) {
	c.mu.Lock()
	delete(c.waiting, seq)
	c.mu.Unlock()
}

func (c *Client) send(o Order) error {
	b, err := o.Encode()
	if err != nil {
		return err
	}
	if _, err := c.sock.Write(b[:]); err != nil {
		return fmt.Errorf("order %v: %w", o.Kind, err)
	}
	return nil
}

// fail ends every wait; the first cause wins.
func (c *Client) fail(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = fmt.Errorf("%w: %w", ErrLauncherGone, cause)
	close(c.gone)
	for id, child := range c.children {
		delete(c.children, id)
		child.exited <- Exit{Code: -1, Syscall: -1, Detail: c.err.Error()}
		close(child.exited)
	}
}

func (c *Client) read() {
	defer close(c.admin)
	for {
		r, fds, err := receive(c.raw)
		if err != nil {
			c.fail(err)
			return
		}
		if err := c.handle(r, fds); err != nil {
			closeAll(fds)
			c.fail(err)
			return
		}
	}
}

func (c *Client) handle(r Report, fds []*os.File) error {
	switch r.Kind {
	case ReportSpawned:
		return c.spawned(r, fds)
	case ReportRefused:
		c.answer(r.Seq, answer{err: &SpawnError{Step: r.Step, Errno: r.Errno, Detail: r.Detail}})
	case ReportExited:
		c.mu.Lock()
		child := c.children[r.Child]
		delete(c.children, r.Child)
		c.mu.Unlock()
		if child == nil {
			return nil // ended between verification and hand-over: the refusal told it
		}
		child.exited <- Exit{Code: int(r.Code), Signal: r.Signal, Syscall: r.Syscall,
			SyscallReason: r.Step, Detail: r.Detail, Stopped: r.Stopped}
		close(child.exited)
	case ReportUsage:
		c.mu.Lock()
		if child := c.children[r.Child]; child != nil {
			child.rss.Store(r.Seq)
		}
		c.mu.Unlock()
	case ReportLook:
		c.mu.Lock()
		if wait := c.looks[r.Seq]; wait != nil {
			wait <- Look{CPU: time.Duration(r.CPUMillis) * time.Millisecond, Delay: time.Duration(r.DelayMillis) * time.Millisecond, Runnable: int(r.Runnable)}
			delete(c.looks, r.Seq)
		}
		c.mu.Unlock()
	case ReportConfig:
		if len(fds) != 1 {
			return fmt.Errorf("%w: config with %d fds", ErrMalformed, len(fds))
		}
		c.answer(r.Seq, answer{file: fds[0]})
	case ReportAdminConn:
		if len(fds) != 1 {
			return fmt.Errorf("%w: admin connection with %d fds", ErrMalformed, len(fds))
		}
		select {
		case c.admin <- AdminConn{UID: r.UID, Conn: fds[0]}:
		default:
			fds[0].Close() // nobody takes them: better an operator's retry than a stalled reader
		}
	case ReportDrain:
		c.mu.Lock()
		if !c.drained {
			c.drained = true
			close(c.drain)
		}
		c.mu.Unlock()
	default:
		return fmt.Errorf("%w: report kind %d", ErrMalformed, r.Kind)
	}
	return nil
}

func (c *Client) spawned(r Report, fds []*os.File) error {
	child := &Child{ID: r.Child, PID: int(r.PID), Profile: r.Profile, client: c, exited: make(chan Exit, 1)}
	switch len(fds) {
	case 4:
		child.Control, child.Data, child.BlackBox, child.Stderr = fds[0], fds[1], fds[2], fds[3]
	case 2:
		child.Output, child.Stderr = fds[0], fds[1]
	default:
		return fmt.Errorf("%w: spawned child with %d fds", ErrMalformed, len(fds))
	}
	c.mu.Lock()
	c.children[r.Child] = child
	c.mu.Unlock()
	c.answer(r.Seq, answer{child: child})
	return nil
}

func (c *Client) answer(seq uint64, a answer) {
	c.mu.Lock()
	wait := c.waiting[seq]
	delete(c.waiting, seq)
	c.mu.Unlock()
	if wait != nil {
		wait <- a
	} else {
		a.drop()
	}
}

// receive reads one report with its descriptors.
func receive(raw syscall.RawConn) (Report, []*os.File, error) {
	var (
		buf  [ReportSize + 1]byte
		oob  [256]byte
		n, m int
		flag int
		err  error
	)
	waitErr := raw.Read(func(fd uintptr) bool {
		n, m, flag, _, err = unix.Recvmsg(int(fd), buf[:], oob[:], unix.MSG_CMSG_CLOEXEC)
		return err != unix.EAGAIN && err != unix.EINTR
	})
	if waitErr != nil {
		return Report{}, nil, waitErr
	}
	if err != nil {
		return Report{}, nil, fmt.Errorf("recvmsg: %w", err)
	}
	if n == 0 {
		return Report{}, nil, errors.New("order socket closed")
	}
	fds, err := rights(oob[:m])
	if err == nil && flag&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = fmt.Errorf("%w: report truncated", ErrMalformed)
	}
	var r Report
	if err == nil {
		r, err = DecodeReport(buf[:n])
	}
	if err == nil && int(r.FDs) != len(fds) {
		err = fmt.Errorf("%w: %d fds announced, %d came", ErrMalformed, r.FDs, len(fds))
	}
	if err != nil {
		closeAll(fds)
		return Report{}, nil, err
	}
	return r, fds, nil
}

// rights turns SCM_RIGHTS into files. They are made non-blocking so that Go's poller serves
// them; regular files and memfds do not mind.
func rights(oob []byte) ([]*os.File, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("%w: control message: %w", ErrMalformed, err)
	}
	var files []*os.File
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			closeAll(files)
			return nil, fmt.Errorf("%w: rights: %w", ErrMalformed, err)
		}
		for _, fd := range fds {
			if err := unix.SetNonblock(fd, true); err != nil {
				unix.Close(fd)
				continue
			}
			files = append(files, os.NewFile(uintptr(fd), "from launcher"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
