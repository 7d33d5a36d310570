package suites

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"bulkhead/policy/seccomp"
)

// Mode is how the launcher runs.
type Mode string

// The modes.
const (
	Root     Mode = "root"
	Rootless Mode = "rootless"
)

// rootlessID is whom a suite that runs as root becomes for rootless mode: an id no account of a usual
// system has.
const rootlessID = 29_991

// Binaries are the files under test.
type Binaries struct {
	Launcher string
	Bulkhead string // is the gateway (package conductor)
	Seat     string // bulkhead-securityseat, the workers
}

// Stand is a running launcher whose workers are attacker's seats.
type Stand struct {
	Mode Mode
	PID  int    // of the launcher
	Dir  string // its folder; the launcher's user owns it
	UID  int

	cmd  *exec.Cmd
	sock string
	done chan struct{} // closed when the launcher has ended

	mu  sync.Mutex
	log bytes.Buffer // guarded by mu
}

// lockedLog lets the launcher's log be read while it is written.
type lockedLog struct{ s *Stand }

func (l lockedLog) Write(p []byte) (int, error) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.s.log.Len() < 1<<20 {
		l.s.log.Write(p)
	}
	return len(p), nil
}

// Log is what the launcher has printed, its first MiB.
func (s *Stand) Log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// OpenStand starts a launcher and waits until its gateway answers. args are further flags of
// bulkhead-launcher. The caller closes the stand.
func OpenStand(ctx context.Context, bin Binaries, mode Mode, args ...string) (*Stand, error) {
	dir, err := os.MkdirTemp("", "bhsec") // short: a unix socket's path has 107 bytes
	if err != nil {
		return nil, fmt.Errorf("stand: %w", err)
	}
	s := &Stand{Mode: mode, Dir: dir, UID: os.Getuid(), sock: filepath.Join(dir, "s"), done: make(chan struct{})}
	all := []string{"--listen", "unix:" + s.sock, "--gateway", bin.Bulkhead, "--worker", bin.Seat, "--bundler", bin.Bulkhead, "--max-shards", "32"}
	for _, p := range seccomp.Profiles() {
		all = append(all, "--allow-profile", p.String())
	}
	s.cmd = exec.Command(bin.Launcher, append(all, args...)...)
	s.cmd.Env, s.cmd.Dir, s.cmd.Stderr = []string{"LANG=C"}, "/", lockedLog{s}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the terminal's ^C is for the suite, which then closes the stand
	if mode == Rootless {
		s.cmd.Args = append(s.cmd.Args, "--accept", "cgroup")
		if s.UID == 0 {
			s.UID = rootlessID
			s.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: rootlessID, Gid: rootlessID}
		}
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Lchown(dir, s.UID, s.UID)); err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("stand: %w", err)
	}
	if err := s.cmd.Start(); err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("stand: start the launcher as uid %d: %w", s.UID, err)
	}
	s.PID = s.cmd.Process.Pid
	go func() {
		_ = s.cmd.Wait() // how it ended stands in its log
		close(s.done)
	}()
	if err := s.awaitGateway(ctx); err != nil {
		s.Close()
		return nil, fmt.Errorf("stand: %w: %s", err, strings.TrimSpace(s.Log()))
	}
	return s, nil
}

func (s *Stand) awaitGateway(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		if text, _, err := s.order(ctx, "ping"); err == nil && text == "pong" {
			return nil
		}
		select {
		case <-s.done:
			return errors.New("the launcher ended")
		case <-ctx.Done():
			return fmt.Errorf("its gateway does not answer: %w", context.Cause(ctx))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Alive reports whether the launcher runs and its gateway answers.
func (s *Stand) Alive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, _, err := s.order(ctx, "ping"); err != nil {
		return fmt.Errorf("the host does not answer: %w", err)
	}
	return nil
}

// Close ends the launcher, which ends its children, and removes the folder.
func (s *Stand) Close() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(10 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.done
	}
	os.RemoveAll(s.Dir)
}

// order speaks one line with the stand's gateway.
func (s *Stand) order(ctx context.Context, format string, args ...any) (string, []int, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", s.sock)
	if err != nil {
		return "", nil, err
	}
	defer c.Close()
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(90 * time.Second)
	}
	if err := c.SetDeadline(deadline); err != nil {
		return "", nil, err
	}
	if _, err := fmt.Fprintf(c, format+"\n", args...); err != nil {
		return "", nil, err
	}
	buf, oob := make([]byte, 8192), make([]byte, 256)
	n, oobn, _, _, err := c.(*net.UnixConn).ReadMsgUnix(buf, oob)
	if err != nil {
		return "", nil, err
	}
	var fds []int
	if messages, err := syscall.ParseSocketControlMessage(oob[:oobn]); err == nil {
		for i := range messages {
			if got, err := syscall.ParseUnixRights(&messages[i]); err == nil {
				fds = append(fds, got...)
			}
		}
	}
	return strings.TrimSpace(string(buf[:n])), fds, nil
}

// Seat is one sealed worker that does what it is told.
type Seat struct {
	Stand    *Stand
	Profile  seccomp.Profile
	ID, PID  int
	Data     *os.File // the gateway's end of the data channel
	BlackBox *os.File

	control net.Conn
	in      *bufio.Reader
	stderr  *os.File
}

// defaultMemory is what a seat may use, bytes.
const defaultMemory = 1 << 30

// Sit makes a seat. The launcher has verified its seal when this returns.
func (s *Stand) Sit(ctx context.Context, p seccomp.Profile, memory uint64) (*Seat, error) {
	if memory == 0 {
		memory = defaultMemory
	}
	text, fds, err := s.order(ctx, "sit %v %d", p, memory)
	if err != nil {
		return nil, fmt.Errorf("seat: %w", err)
	}
	seat := &Seat{Stand: s, Profile: p}
	if n, _ := fmt.Sscanf(text, "seat %d %d", &seat.ID, &seat.PID); n != 2 || len(fds) != 4 {
		for _, fd := range fds {
			syscall.Close(fd)
		}
		return nil, fmt.Errorf("seat: %s", text)
	}
	control := os.NewFile(uintptr(fds[0]), "control")
	defer control.Close()
	seat.Data, seat.BlackBox, seat.stderr = os.NewFile(uintptr(fds[1]), "data"), os.NewFile(uintptr(fds[2]), "blackbox"), os.NewFile(uintptr(fds[3]), "stderr")
	if seat.control, err = net.FileConn(control); err != nil {
		seat.Leave()
		return nil, fmt.Errorf("seat: %w", err)
	}
	seat.in = bufio.NewReader(seat.control)
	return seat, nil
}

// End is how a seat ended.
type End struct {
	Code   int // -1 if a signal ended it
	Signal syscall.Signal
	Detail string
}

func (e End) String() string {
	if e.Signal != 0 {
		return strings.TrimSpace(fmt.Sprintf("killed by %v %s", e.Signal, e.Detail))
	}
	return strings.TrimSpace(fmt.Sprintf("exit code %d %s", e.Code, e.Detail))
}

// Answer is what a step led to. Exactly one of End and Text is set; Text "silent" means that the
// thread which made the call has not come back.
type Answer struct {
	Text  string
	Ret   int64         // of a call
	Errno syscall.Errno // of a call
	Out   [][]byte      // of a call, its out: arguments in order
	End   *End          // the seat died of it
}

// Step has the seat do one step (see securitytests/seat).
func (t *Seat) Step(ctx context.Context, format string, args ...any) (Answer, error) {
	if err := t.control.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		return Answer{}, err
	}
	_, err := fmt.Fprintf(t.control, format+"\n", args...)
	var line string
	if err == nil {
		line, err = t.in.ReadString('\n')
	}
	if err == nil {
		return Answer{Text: strings.TrimSpace(line)}, nil
	}
	if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		return Answer{}, fmt.Errorf("seat %d: no answer to %q: %w", t.ID, fmt.Sprintf(format, args...), err)
	}
	e, err := t.End(ctx)
	if err != nil {
		return Answer{}, err
	}
	return Answer{End: &e}, nil
}

// End waits for the seat's end and says how it was. Once.
func (t *Seat) End(ctx context.Context) (End, error) {
	text, _, err := t.Stand.order(ctx, "end %d", t.ID)
	if err != nil {
		return End{}, err
	}
	var e End
	if n, _ := fmt.Sscanf(text, "ended %d %d", &e.Code, &e.Signal); n != 2 {
		return End{}, fmt.Errorf("seat %d: %s", t.ID, text)
	}
	if f := strings.SplitN(text, " ", 4); len(f) == 4 {
		e.Detail = f[3]
	}
	return e, nil
}

// Call has the seat make one system call. Arguments are numbers, In and Out.
func (t *Seat) Call(ctx context.Context, nr int64, args ...any) (Answer, error) {
	words := []string{"call", strconv.FormatInt(nr, 10)}
	for _, a := range args {
		words = append(words, fmt.Sprint(a))
	}
	a, err := t.Step(ctx, "%s", strings.Join(words, " "))
	if err != nil || a.End != nil || a.Text == "silent" {
		return a, err
	}
	f := strings.Fields(a.Text)
	if len(f) < 2 {
		return a, fmt.Errorf("seat %d: %s", t.ID, a.Text)
	}
	ret, err := strconv.ParseInt(f[0], 10, 64)
	errno, err2 := strconv.Atoi(f[1])
	if err = errors.Join(err, err2); err != nil {
		return a, fmt.Errorf("seat %d: %q: %w", t.ID, a.Text, err)
	}
	a.Ret, a.Errno = ret, syscall.Errno(errno)
	for _, h := range f[2:] {
		b, err := hex.DecodeString(h)
		if err != nil {
			return a, fmt.Errorf("seat %d: %w", t.ID, err)
		}
		a.Out = append(a.Out, b)
	}
	return a, nil
}

// In is a pointer to these bytes and a zero.
type In []byte

func (i In) String() string { return "in:" + hex.EncodeToString(i) }

// Out is a pointer to so many zero bytes, whose content the answer shows.
type Out int

func (o Out) String() string { return "out:" + strconv.Itoa(int(o)) }

// Leave ends the seat, if it lives, and lets go of its descriptors.
func (t *Seat) Leave() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if t.control != nil {
		t.control.Close() // the seat ends of it
	}
	_, _, _ = t.Stand.order(ctx, "kill %d", t.ID) // a seat that is gone is what is wanted
	for _, f := range []*os.File{t.Data, t.BlackBox, t.stderr} {
		f.Close()
	}
}
