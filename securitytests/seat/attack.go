package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// silence is how long a step may say nothing before the suite is told so. A call that ends the
// thread, or sleeps, never answers; one that does answer has it for the length of a busy machine's pause.
const silence = time.Second

// attacker does the suite's steps in a sealed worker.
type attacker struct {
	box  []byte
	keep [][]byte // memory that was eaten
}

// run reads steps from fd, one a line, and answers each with a line. It reads with plain system
// calls: what Go's poller would want is not for the seal to allow.
func (a *attacker) run(fd int) error {
	var in []byte
	for buf := make([]byte, 64<<10); ; {
		i := bytes.IndexByte(in, '\n')
		if i < 0 {
			n, err := syscall.Read(fd, buf)
			switch {
			case errors.Is(err, syscall.EINTR):
			case err != nil:
				return fmt.Errorf("read: %w", err)
			case n == 0:
				return nil // the suite is gone
			default:
				in = append(in, buf[:n]...)
			}
			continue
		}
		line := string(in[:i])
		in = append([]byte(nil), in[i+1:]...)
		for out := []byte(a.step(line) + "\n"); len(out) > 0; {
			n, err := syscall.Write(fd, out)
			if err != nil && !errors.Is(err, syscall.EINTR) {
				return fmt.Errorf("write: %w", err)
			}
			out = out[max(n, 0):]
		}
	}
}

// step has a thread of its own do one step. A thread that falls silent is left to itself.
func (a *attacker) step(line string) string {
	words := strings.Fields(line)
	if len(words) == 0 {
		return "bad step"
	}
	answer := make(chan string, 1)
	go func() {
		runtime.LockOSThread()
		s := a.do(words[0], words[1:])
		runtime.UnlockOSThread()
		answer <- s
	}()
	select {
	case s := <-answer:
		return s
	case <-time.After(patienceOf(words[0])):
		return "silent"
	}
}

// patienceOf: floods may take their time.
func patienceOf(step string) time.Duration {
	switch step {
	case "call", "int80", "peek", "poke":
		return silence
	}
	return 50 * time.Second
}

func (a *attacker) do(step string, args []string) string {
	switch step {
	case "call":
		return call(args)
	case "int80":
		v, err := numbers(args, 7)
		if err != nil {
			return err.Error()
		}
		return strconv.Itoa(int80(v))
	case "together":
		return together(args)
	case "peek":
		v, err := numbers(args, 2)
		if err != nil {
			return err.Error()
		}
		return hex.EncodeToString(unsafe.Slice((*byte)(pointer(v[0])), v[1]))
	case "poke":
		v, err := numbers(args[:1], 1)
		b, err2 := hex.DecodeString(args[1])
		if err = errors.Join(err, err2); err != nil {
			return err.Error()
		}
		copy(unsafe.Slice((*byte)(pointer(v[0])), len(b)), b)
		return "done"
	case "box":
		return fmt.Sprintf("%d %d", uintptr(unsafe.Pointer(&a.box[0])), len(a.box))
	case "self":
		return strconv.FormatUint(uint64(codeAddress()), 10)
	case "threads":
		v, err := numbers(args, 1)
		if err != nil {
			return err.Error()
		}
		return strconv.Itoa(threads(int(v[0])))
	case "eat":
		return a.eat(args)
	case "run":
		return runProgram(args)
	case "readchild":
		return readChild()
	}
	return "unknown step"
}

// call makes one system call. An argument is a number, in:HEX (a pointer to these bytes) or out:N (a
// pointer to N zeroes, shown in the answer).
func call(args []string) string {
	var v [7]uintptr
	var out [][]byte
	var pinned runtime.Pinner
	defer pinned.Unpin()
	if len(args) == 0 || len(args) > len(v) {
		return "bad call"
	}
	for i, a := range args {
		kind, rest, _ := strings.Cut(a, ":")
		var b []byte
		switch kind {
		case "in":
			var err error
			if b, err = hex.DecodeString(rest); err != nil {
				return err.Error()
			}
			b = append(b, 0)
		case "out":
			n, err := strconv.Atoi(rest)
			if err != nil || n < 1 {
				return "bad size"
			}
			b = make([]byte, n)
			out = append(out, b)
		default:
			n, err := number(a)
			if err != nil {
				return err.Error()
			}
			v[i] = n
			continue
		}
		pinned.Pin(&b[0])
		v[i] = uintptr(unsafe.Pointer(&b[0]))
	}
	r, _, errno := syscall.Syscall6(v[0], v[1], v[2], v[3], v[4], v[5], v[6])
	s := fmt.Sprintf("%d %d", int64(r), int(errno))
	for _, b := range out {
		s += " " + hex.EncodeToString(b)
	}
	return s
}

// together makes one call on N threads at the same moment and tells how many of them succeeded.
func together(args []string) string {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err.Error()
	}
	var ready, done sync.WaitGroup
	var good atomic.Int32
	begin := make(chan struct{})
	for range n {
		ready.Add(1)
		done.Add(1)
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			ready.Done()
			<-begin
			if !strings.HasPrefix(call(args[1:]), "-1 ") {
				good.Add(1)
			}
			done.Done()
		}()
	}
	ready.Wait()
	close(begin)
	done.Wait()
	return strconv.Itoa(int(good.Load()))
}

// eat maps and touches memory, 16 MiB at a time, up to so many MiB, and tells how many it got.
func (a *attacker) eat(args []string) string {
	v, err := numbers(args, 1)
	if err != nil {
		return err.Error()
	}
	const piece = 16
	got := 0
	for ; got < int(v[0]); got += piece {
		b, err := syscall.Mmap(-1, 0, piece<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
		if err != nil {
			break
		}
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		a.keep = append(a.keep, b)
	}
	return strconv.Itoa(got)
}

func number(s string) (uintptr, error) {
	if strings.HasPrefix(s, "-") {
		n, err := strconv.ParseInt(s, 0, 64)
		return uintptr(n), err
	}
	n, err := strconv.ParseUint(s, 0, 64)
	return uintptr(n), err
}

// numbers reads at most n numbers, the missing ones being 0.
func numbers(args []string, n int) ([]uintptr, error) {
	v := make([]uintptr, n)
	if len(args) > n {
		return nil, fmt.Errorf("too many arguments")
	}
	for i, a := range args {
		var err error
		if v[i], err = number(a); err != nil {
			return nil, err
		}
	}
	return v, nil
}
