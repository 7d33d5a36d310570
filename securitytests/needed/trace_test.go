package needed

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tracer records the system calls of processes (ptrace(2)). One locked thread does all of it.
type tracer struct {
	attach chan int
	done   chan struct{}

	mu   sync.Mutex
	seen map[call]int // guarded by mu
	err  error        // guarded by mu; the first that was no thread's end
}

// call is a number with its arguments.
type call struct {
	nr   uint64
	args [6]uint64
}

// syscallInfo is struct ptrace_syscall_info up to the arguments of an entry.
type syscallInfo struct {
	op   uint8
	_    [3]uint8
	arch uint32
	ip   uint64
	sp   uint64
	nr   uint64
	args [6]uint64
}

const (
	getSyscallInfo = 0x420e // PTRACE_GET_SYSCALL_INFO
	infoEntry      = 1      // PTRACE_SYSCALL_INFO_ENTRY
	syscallStop    = syscall.SIGTRAP | 0x80
)

// newTracer is to be called before the host is started: the host then ends while its workers' tracer
// still waits for them, as it must, because one that nobody waits for stays a zombie to everybody else.
func newTracer(t *testing.T) *tracer {
	tr := &tracer{attach: make(chan int), done: make(chan struct{}), seen: map[call]int{}}
	go tr.run()
	t.Cleanup(func() {
		close(tr.attach)
		<-tr.done
	})
	return tr
}

// calls is what was seen so far.
func (tr *tracer) calls() (map[call]int, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	out := make(map[call]int, len(tr.seen))
	for c, n := range tr.seen {
		out[c] = n
	}
	return out, tr.err
}

func (tr *tracer) fail(err error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if tr.err == nil && !errors.Is(err, syscall.ESRCH) {
		tr.err = err
	}
}

// letGo is how long the tracer waits for the ends of processes once it is told to end.
const letGo = 20 * time.Second

// run never unlocks its thread: what is still traced is let go when the thread ends.
func (tr *tracer) run() {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The main thread does not end with its goroutine: it would hold what it traces for ever.
		go tr.run()
		<-tr.done
		runtime.UnlockOSThread()
		return
	}
	defer close(tr.done)
	traced, open := 0, true
	var by time.Time
	for open || traced > 0 && time.Now().Before(by) {
		if open {
			pid, more, some := tr.next(traced == 0)
			if !more {
				open, by = false, time.Now().Add(letGo)
				continue
			}
			if some {
				traced += tr.seize(pid)
				continue
			}
		}
		var ws unix.WaitStatus
		tid, err := unix.Wait4(-1, &ws, unix.WALL|unix.WNOHANG|unix.WNOTHREAD, nil)
		switch {
		case tid == 0 && err == nil:
			unix.Nanosleep(&unix.Timespec{Nsec: 20_000}, nil)
		case errors.Is(err, unix.ECHILD):
			traced = 0
		case err != nil:
			tr.fail(fmt.Errorf("wait4: %w", err))
			return
		case ws.Stopped():
			tr.stopped(tid, ws)
		}
	}
}

// next is the next process to attach to, if there is one; block: it is waited for. more is false once
// there will be none.
func (tr *tracer) next(block bool) (pid int, more, some bool) {
	if block {
		pid, more = <-tr.attach
		return pid, more, more
	}
	select {
	case pid, more = <-tr.attach:
		return pid, more, more
	default:
		return 0, true, false
	}
}

// seize takes every thread of a process.
func (tr *tracer) seize(pid int) (n int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*", pid))
	for _, task := range tasks {
		tid, _ := strconv.Atoi(filepath.Base(task))
		if err := ptrace(unix.PTRACE_SEIZE, tid, 0, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_TRACECLONE); err != nil {
			tr.fail(fmt.Errorf("seize %d: %w", tid, err))
			continue
		}
		if err := unix.PtraceInterrupt(tid); err != nil {
			tr.fail(fmt.Errorf("interrupt %d: %w", tid, err))
		}
		n++
	}
	return n
}

// stopped notes a system call and lets the thread go on to its next stop.
func (tr *tracer) stopped(tid int, ws unix.WaitStatus) {
	signal := 0
	switch {
	case ws.StopSignal() == syscallStop:
		var info syscallInfo
		if err := ptrace(getSyscallInfo, tid, unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info))); err != nil {
			tr.fail(fmt.Errorf("syscall info of %d: %w", tid, err))
		} else if info.op == infoEntry {
			tr.mu.Lock()
			tr.seen[call{info.nr, info.args}]++
			tr.mu.Unlock()
		}
	case ws.StopSignal() == syscall.SIGTRAP && ws.TrapCause() > 0, uint32(ws)>>16 != 0:
		// An event: a new thread, our own interruption.
	default:
		signal = int(ws.StopSignal())
	}
	if err := unix.PtraceSyscall(tid, signal); err != nil {
		tr.fail(fmt.Errorf("go on %d: %w", tid, err))
	}
}

func ptrace(request, tid int, addr, data uintptr) error {
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), addr, data, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
