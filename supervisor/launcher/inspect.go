//go:build linux && amd64

package launcher

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"bulkhead/policy/namespaces"

	"golang.org/x/sys/unix"
)

// inspectable: the registers of this architecture are known here.
const inspectable = true

// An inspection asks the kernel, with the child's only thread as its mouth, about what /proc
// does not show. It happens after the constructor's last step and before the Go runtime starts:
// the thread waits in a read(2), the launcher attaches (ptrace(2), PTRACE_SEIZE), lets it make a
// few system calls that only ask, compares the answers, and lets it go where it was. Whatever a
// later thread inherits was so checked on the one it comes from.
type inspection struct {
	pid   int
	saved unix.PtraceRegs
}

// question is one thing asked. docs/launcher.md is printed from the list.
type question struct {
	name string
	sees string
	ask  func(*inspection, *launcher, *child) error
}

func questions() []question {
	return []question{
		{"dumpable", "PR_GET_DUMPABLE is 0", (*inspection).dumpable},
		{"parent-death", "PR_GET_PDEATHSIG is SIGKILL", (*inspection).parentDeath},
		{"securebits", "PR_GET_SECUREBITS has NOROOT, NO_SETUID_FIXUP and their locks", (*inspection).securebits},
		{"mdwe", "PR_GET_MDWE is set in a jitless worker", (*inspection).mdwe},
		{"landlock", "opening the root directory for reading is refused (EACCES)", (*inspection).landlock},
		{"names", "uname(2) says the constant host and domain name", (*inspection).names},
		{"keyring", "the session keyring is an anonymous one, and not the launcher's", (*inspection).keyring},
	}
}

func (l *launcher) inspect(c *child) (err error) {
	in := &inspection{pid: c.pid}
	if err := in.attach(); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	defer func() { err = errors.Join(err, in.detach()) }()
	for _, q := range questions() {
		if leftOut("checks") || leftOut("check "+q.name) {
			continue
		}
		if err := q.ask(in, l, c); err != nil {
			return fmt.Errorf("check %s: %w", q.name, err)
		}
	}
	return nil
}

func (in *inspection) attach() error {
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(in.pid), 0, unix.PTRACE_O_EXITKILL, 0, 0); errno != 0 {
		return fmt.Errorf("PTRACE_SEIZE: %w", errno)
	}
	for range attachTries {
		if err := unix.PtraceInterrupt(in.pid); err != nil {
			return fmt.Errorf("PTRACE_INTERRUPT: %w", err)
		}
		if err := in.stopped(); err != nil {
			return err
		}
		if err := unix.PtraceGetRegs(in.pid, &in.saved); err != nil {
			return fmt.Errorf("PTRACE_GETREGS: %w", err)
		}
		// The thread must be where the constructor waits: in read(2), its instruction pointer
		// behind a syscall instruction. It may be on its way there, in the write before.
		if in.saved.Orig_rax == unix.SYS_READ {
			return nil
		}
		if err := unix.PtraceCont(in.pid, 0); err != nil {
			return fmt.Errorf("PTRACE_CONT: %w", err)
		}
		time.Sleep(50 * time.Microsecond)
	}
	return fmt.Errorf("the thread is not in read(2) but in system call %d", int64(in.saved.Orig_rax))
}

// attachTries times 50 microseconds is ample for the two instructions between the system calls,
// also on a machine where the child is not running just then.
const attachTries = 2000

// stopped waits for a ptrace stop of the child.
func (in *inspection) stopped() error {
	for {
		var ws unix.WaitStatus
		_, err := unix.Wait4(in.pid, &ws, unix.WALL, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait4: %w", err)
		}
		if ws.Stopped() {
			return nil
		}
		return fmt.Errorf("the child ended: status %#x", uint32(ws))
	}
}

// detach restarts the interrupted read(2) from its beginning.
func (in *inspection) detach() error {
	regs := in.saved
	regs.Rip -= 2 // the syscall instruction
	regs.Rax = unix.SYS_READ
	regs.Orig_rax = ^uint64(0)
	if err := unix.PtraceSetRegs(in.pid, &regs); err != nil {
		return fmt.Errorf("PTRACE_SETREGS: %w", err)
	}
	if err := unix.PtraceDetach(in.pid); err != nil {
		return fmt.Errorf("PTRACE_DETACH: %w", err)
	}
	return nil
}

// call has the thread make one system call.
func (in *inspection) call(nr uint64, args ...uint64) (uint64, syscall.Errno, error) {
	regs := in.saved
	regs.Rip -= 2
	regs.Rax, regs.Orig_rax = nr, ^uint64(0)
	for i, r := range []*uint64{&regs.Rdi, &regs.Rsi, &regs.Rdx, &regs.R10, &regs.R8} {
		*r = 0
		if i < len(args) {
			*r = args[i]
		}
	}
	if err := unix.PtraceSetRegs(in.pid, &regs); err != nil {
		return 0, 0, fmt.Errorf("PTRACE_SETREGS: %w", err)
	}
	if err := unix.PtraceSingleStep(in.pid); err != nil {
		return 0, 0, fmt.Errorf("PTRACE_SINGLESTEP: %w", err)
	}
	if err := in.stopped(); err != nil {
		return 0, 0, err
	}
	if err := unix.PtraceGetRegs(in.pid, &regs); err != nil {
		return 0, 0, fmt.Errorf("PTRACE_GETREGS: %w", err)
	}
	if v := int64(regs.Rax); v < 0 && v >= -4095 {
		return 0, syscall.Errno(-v), nil
	}
	return regs.Rax, 0, nil
}

// expect makes a call and compares the result.
func (in *inspection) expect(want uint64, nr uint64, args ...uint64) error {
	got, errno, err := in.call(nr, args...)
	if err != nil {
		return err
	}
	if errno != 0 {
		return errno
	}
	if got != want {
		return fmt.Errorf("is %d, want %d", got, want)
	}
	return nil
}

// scratch is memory below the stack pointer, past the red zone, that nobody uses meanwhile.
func (in *inspection) scratch() uint64 { return (in.saved.Rsp - 4096) &^ 15 }

func (in *inspection) peek(addr uint64, n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := unix.PtracePeekData(in.pid, uintptr(addr), b); err != nil {
		return nil, fmt.Errorf("PTRACE_PEEKDATA: %w", err)
	}
	return b, nil
}

func (in *inspection) dumpable(*launcher, *child) error {
	return in.expect(0, unix.SYS_PRCTL, unix.PR_GET_DUMPABLE)
}

func (in *inspection) parentDeath(*launcher, *child) error {
	if err := in.expect(0, unix.SYS_PRCTL, unix.PR_GET_PDEATHSIG, in.scratch()); err != nil {
		return err
	}
	b, err := in.peek(in.scratch(), 4)
	if err != nil {
		return err
	}
	if got := binary.LittleEndian.Uint32(b); got != uint32(unix.SIGKILL) {
		return fmt.Errorf("the signal is %d, want %d", got, unix.SIGKILL)
	}
	return nil
}

// securebits as set in lockdown.c: NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE with their
// locks, and the lock of KEEP_CAPS (capabilities(7)).
const wantSecurebits = 0x1 | 0x2 | 0x4 | 0x8 | 0x20 | 0x40 | 0x80

func (in *inspection) securebits(*launcher, *child) error {
	return in.expect(wantSecurebits, unix.SYS_PRCTL, unix.PR_GET_SECUREBITS)
}

func (in *inspection) mdwe(_ *launcher, c *child) error {
	if !c.want.mdwe {
		return nil
	}
	return in.expect(1, unix.SYS_PRCTL, prGetMDWE)
}

// landlock: without it the root directory, or in a room with mounts its empty part, could be
// opened for reading. The path "/" is written below the stack.
func (in *inspection) landlock(l *launcher, _ *child) error {
	if l.kernel.landlock == 0 {
		return nil
	}
	if _, err := unix.PtracePokeData(in.pid, uintptr(in.scratch()), []byte("/\x00\x00\x00\x00\x00\x00\x00")); err != nil {
		return fmt.Errorf("PTRACE_POKEDATA: %w", err)
	}
	fd, errno, err := in.call(unix.SYS_OPEN, in.scratch(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	switch {
	case err != nil:
		return err
	case errno == unix.EACCES:
		return nil
	case errno != 0:
		return fmt.Errorf("opening the root: %w, want %w", errno, unix.EACCES)
	}
	return fmt.Errorf("the root could be opened (descriptor %d)", fd)
}

func (in *inspection) names(*launcher, *child) error {
	if err := in.expect(0, unix.SYS_UNAME, in.scratch()); err != nil {
		return err
	}
	const field = 65 // struct new_utsname
	b, err := in.peek(in.scratch(), 6*field)
	if err != nil {
		return err
	}
	for name, index := range map[string]int{"host name": 1, "domain name": 5} {
		if got := unix.ByteSliceToString(b[index*field : (index+1)*field]); got != namespaces.Hostname {
			return fmt.Errorf("%s is %q, want %q", name, got, namespaces.Hostname)
		}
	}
	return nil
}

func (in *inspection) keyring(*launcher, *child) error {
	const session = ^uint64(2) // KEY_SPEC_SESSION_KEYRING, -3
	theirs, errno, err := in.call(unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, session, 0)
	if err != nil {
		return err
	}
	if errno == unix.ENOSYS {
		return nil // a kernel without keyrings
	}
	if errno != 0 {
		return fmt.Errorf("KEYCTL_GET_KEYRING_ID: %w", errno)
	}
	ours, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false)
	if err == nil && uint64(uint32(ours)) == theirs {
		return fmt.Errorf("the session keyring %d is the launcher's", ours)
	}
	// Without one of its own, the kernel names the keyring that all of a user's processes share.
	n, errno, err := in.call(unix.SYS_KEYCTL, unix.KEYCTL_DESCRIBE, session, in.scratch(), 256)
	if err != nil || errno != 0 {
		return fmt.Errorf("KEYCTL_DESCRIBE: %w", errors.Join(err, errnoOrNil(errno)))
	}
	b, err := in.peek(in.scratch(), int(min(n, 256)))
	if err != nil {
		return err
	}
	if text := unix.ByteSliceToString(b); !strings.HasSuffix(text, ";_ses") {
		return fmt.Errorf("the session keyring is %q, no anonymous one", text)
	}
	return nil
}

func errnoOrNil(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}
