package suites

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"bulkhead/policy/seccomp"
)

// FilterReport compares a filter with the policy of a profile.
type FilterReport struct {
	Allowed, Filtered int      // calls the policy allows; those of them only with listed arguments
	Conditions        int      // of rows on arguments, all found in the filter
	Decisions         int      // that were asked of both
	Wrong             []string // where they differ, the first 20
}

// seccompData is struct seccomp_data (seccomp(2)) as package bpf reads it: 32-bit words at the kernel's
// offsets, but in network order. The kernel's are the machine's, low half of an argument first on both of
// ours.
type seccompData [64]byte

func makeData(nr, arch uint32, args [6]uint64) (d seccompData) {
	binary.BigEndian.PutUint32(d[0:], nr)
	binary.BigEndian.PutUint32(d[4:], arch)
	for i, a := range args {
		binary.BigEndian.PutUint32(d[16+8*i:], uint32(a))
		binary.BigEndian.PutUint32(d[20+8*i:], uint32(a>>32))
	}
	return d
}

// architectures are this one, and another that the same kernel may be entered by.
func architectures() (own, other uint32) {
	if runtime.GOARCH == "arm64" {
		return unix.AUDIT_ARCH_AARCH64, unix.AUDIT_ARCH_ARM
	}
	return unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386
}

// comparison is a filter beside the rows that it was made of.
type comparison struct {
	FilterReport
	rules []seccomp.Rule
	vm    *bpf.VM
	arch  uint32
}

// CompareFilter runs a filter, as the kernel would, and the policy's own reading of its rows
// (seccomp.Decide) on the same calls: every number of every door, every trial, and for every row on
// arguments each bit of each argument it names, and some thousand more.
func CompareFilter(p seccomp.Profile, program []bpf.RawInstruction) (FilterReport, error) {
	instructions, known := bpf.Disassemble(program)
	if !known {
		return FilterReport{}, errors.New("the filter has instructions that package bpf does not know")
	}
	vm, err := bpf.NewVM(instructions)
	if err != nil {
		return FilterReport{}, fmt.Errorf("the filter: %w", err)
	}
	own, other := architectures()
	c := &comparison{rules: seccomp.Worker(p), vm: vm, arch: own}
	c.Allowed, c.Filtered = seccomp.Calls(c.rules)
	for nr := range int64(1024) {
		c.compare(nr, [6]uint64{})
		for name, at := range map[string][2]uint32{"another architecture": {uint32(nr), other}, "x32": {x32Bit | uint32(nr), own}} {
			if got := c.ask(at[0], at[1], [6]uint64{}); got != unix.SECCOMP_RET_KILL_PROCESS {
				c.wrong("number %d of %s: %#x", nr, name, got)
			}
		}
	}
	for _, t := range seccomp.Trials(p) {
		var args [6]uint64
		copy(args[:], t.Args)
		if nr, ok := seccomp.CallNumber(t.Call); ok {
			c.compare(nr, args)
		}
	}
	random := rand.New(rand.NewPCG(1, uint64(p))) // the same each time: a difference is to be found again
	for _, r := range c.rules {
		if nr, ok := seccomp.CallNumber(r.Call); ok && len(r.Args) > 0 {
			c.row(nr, r, random)
		}
	}
	return c.FilterReport, nil
}

// ask runs the filter; the answer is the kernel's SECCOMP_RET_….
func (c *comparison) ask(nr, arch uint32, args [6]uint64) uint32 {
	d := makeData(nr, arch, args)
	got, err := c.vm.Run(d[:])
	if err != nil {
		c.wrong("number %d: %v", nr, err)
	}
	c.Decisions++
	return uint32(got)
}

func (c *comparison) wrong(format string, args ...any) {
	if len(c.Wrong) < 20 {
		c.Wrong = append(c.Wrong, fmt.Sprintf(format, args...))
	}
}

// compare asks both about one call, and reports whether the filter kills.
func (c *comparison) compare(nr int64, args [6]uint64) (kills bool) {
	name := seccomp.CallName(nr)
	want := uint32(unix.SECCOMP_RET_KILL_PROCESS)
	switch verdict, errno, _ := seccomp.Decide(c.rules, name, args[:]); verdict {
	case seccomp.Lives:
		want = unix.SECCOMP_RET_ALLOW
	case seccomp.Refused:
		want = unix.SECCOMP_RET_ERRNO | uint32(errno)
	}
	got := c.ask(uint32(nr), c.arch, args)
	if got != want {
		c.wrong("%s(%#x), number %d: the filter says %#x, the policy %#x", name, args, nr, got, want)
	}
	return got == unix.SECCOMP_RET_KILL_PROCESS
}

// row looks for each condition of a row in the filter: from arguments that meet all of them, each bit of
// the argument is turned over, and one at least that the condition is about must be answered otherwise.
func (c *comparison) row(nr int64, r seccomp.Rule, random *rand.Rand) {
	var meets [6]uint64
	masks := [6]uint64{} // the bits that the row's conditions are about
	for _, a := range r.Args {
		meets[a.Index] |= a.Value
		masks[a.Index] = a.Mask
		if a.Op == seccomp.Equal {
			masks[a.Index] = ^uint64(0)
		}
	}
	if c.compare(nr, meets) {
		c.wrong("%v: the filter ends what the row is for", r)
	}
	for _, a := range r.Args {
		stops := 0
		for bit := range 64 {
			args := meets
			args[a.Index] ^= 1 << bit
			if c.compare(nr, args) && masks[a.Index]&(1<<bit) != 0 {
				stops++
			}
		}
		if stops == 0 {
			c.wrong("%v: nothing in the filter stops another argument %d", r, a.Index)
		}
		c.Conditions++
	}
	for range 500 {
		args := meets
		for i := range args {
			// What no condition is about may be anything; of the rest a few bits are turned over.
			args[i] ^= random.Uint64() &^ masks[i]
			for range random.IntN(3) {
				args[i] ^= 1 << random.IntN(64)
			}
		}
		c.compare(nr, args)
	}
}

// errNoFilter says why a filter could not be read back.
var errNoFilter = errors.New("the kernel does not show the filter")

// Filter is the seat's newest filter as the kernel has it, the same on every thread. Only root may ask, in
// no filter itself, of a kernel with CONFIG_CHECKPOINT_RESTORE.
func (t *Seat) Filter() (program []bpf.RawInstruction, threads int, err error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*", t.PID))
	if err != nil {
		return nil, 0, err
	}
	for _, task := range tasks {
		count, err := strconv.Atoi(statusOf(filepath.Join(task, "status"))["Seccomp_filters"])
		if err != nil {
			continue // the thread has ended
		}
		tid, _ := strconv.Atoi(filepath.Base(task))
		one, err := filterOfThread(tid, count-1)
		if errors.Is(err, unix.ESRCH) && tid != t.PID {
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		if program == nil {
			program = one
		}
		if !slices.Equal(program, one) {
			return nil, 0, fmt.Errorf("thread %d is under another filter than thread %s", tid, filepath.Base(tasks[0]))
		}
		threads++
	}
	if threads == 0 {
		return nil, 0, fmt.Errorf("process %d shows no threads", t.PID)
	}
	return program, threads, nil
}

// filterOfThread stops a thread and reads its filter, the oldest being 0.
func filterOfThread(tid, index int) (program []bpf.RawInstruction, err error) {
	runtime.LockOSThread() // ptrace(2) knows its tracer by thread
	defer runtime.UnlockOSThread()
	if err := unix.PtraceSeize(tid); err != nil {
		return nil, fmt.Errorf("%w: PTRACE_SEIZE: %w", errNoFilter, err)
	}
	defer func() { err = errors.Join(err, unix.PtraceDetach(tid)) }()
	if err := unix.PtraceInterrupt(tid); err != nil {
		return nil, fmt.Errorf("%w: PTRACE_INTERRUPT: %w", errNoFilter, err)
	}
	for {
		var ws unix.WaitStatus
		if _, err := unix.Wait4(tid, &ws, unix.WALL, nil); err != nil && err != unix.EINTR {
			return nil, fmt.Errorf("%w: wait: %w", errNoFilter, err)
		} else if err == nil && ws.Stopped() {
			break
		} else if err == nil {
			return nil, unix.ESRCH
		}
	}
	n, err := ptraceGetFilter(tid, index, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: PTRACE_SECCOMP_GET_FILTER: %w", errNoFilter, err)
	}
	raw := make([]byte, 8*n) // struct sock_filter: code, jt, jf, k
	if _, err := ptraceGetFilter(tid, index, raw); err != nil {
		return nil, fmt.Errorf("%w: PTRACE_SECCOMP_GET_FILTER: %w", errNoFilter, err)
	}
	for b := range slices.Chunk(raw, 8) {
		program = append(program, bpf.RawInstruction{Op: binary.NativeEndian.Uint16(b), Jt: b[2], Jf: b[3], K: binary.NativeEndian.Uint32(b[4:])})
	}
	return program, nil
}

// filtered reads the filter back and holds it against the policy.
func filtered(ctx context.Context, s *scene) finding {
	if os.Getuid() != 0 {
		return notShown("only root may read a filter back from the kernel (PTRACE_SECCOMP_GET_FILTER)")
	}
	seat, err := s.seat(ctx)
	if err != nil {
		return failedTry(err)
	}
	defer seat.Leave()
	program, threads, err := seat.Filter()
	if err != nil {
		if errors.Is(err, errNoFilter) {
			return notShown("%v", err)
		}
		return broken("%v", err)
	}
	r, err := CompareFilter(s.profile, program)
	if err != nil {
		return failedTry(err)
	}
	if len(r.Wrong) > 0 {
		return broken("%s", strings.Join(r.Wrong, "; "))
	}
	return held("%d calls are allowed, %d of them only with listed arguments, by %d conditions: each is in the filter of %d instructions that the kernel has for %d threads; %d decisions of it are the policy's",
		r.Allowed, r.Filtered, r.Conditions, len(program), threads, r.Decisions)
}
