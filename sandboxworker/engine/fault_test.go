package engine

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bulkhead/ipc"
	"bulkhead/policy/seccomp"
	"bulkhead/sandboxworker/engine/native"
)

// faultEnv names the death a child test process is to die.
const faultEnv = "ENGINE_TEST_FAULT"

// deaths are ways for a process to end: JavaScript, or a signal of native code.
var deaths = map[string]struct {
	js     string
	native syscall.Signal
	signal syscall.Signal // what the process and the black box must show
	detail string         // what V8's reason must contain
	lives  bool           // V8 may also find a way to survive it
}{
	"fill":       {js: `new Array(1e8).fill(0)`, signal: unix.SIGTRAP, detail: "e"}, // two reasons, by the weather
	"spread":     {js: `[..."x".repeat(5e7)]`, signal: unix.SIGTRAP, detail: "e", lives: true},
	"split":      {js: `"a".repeat(2**28).split("")`, signal: unix.SIGTRAP, detail: "invalid size error"},
	"null write": {native: unix.SIGSEGV, signal: unix.SIGSEGV},
	"ud2":        {native: unix.SIGILL, signal: unix.SIGILL},
	"int3":       {native: unix.SIGTRAP, signal: unix.SIGTRAP},
	"abort":      {native: unix.SIGABRT, signal: unix.SIGABRT},
	"bus error":  {native: unix.SIGBUS, signal: unix.SIGBUS},
	"float":      {native: unix.SIGFPE, signal: unix.SIGFPE},
}

// Every fault ends the process by its true signal, with the tenant, the signal and V8's reason in the
// black box, without Go's traceback; also after Go recovered from a fault of its own.
func TestFaults(t *testing.T) {
	if name := os.Getenv(faultEnv); name != "" {
		die(t, name)
		t.Fatal("it lives: this test proves nothing")
	}
	for name, want := range deaths {
		t.Run(name, func(t *testing.T) {
			mem, f := sharedBox(t)
			cmd := exec.Command(os.Args[0], "-test.run=^TestFaults$")
			cmd.Env = append(os.Environ(), faultEnv+"="+name, "GOTRACEBACK=crash")
			cmd.ExtraFiles = []*os.File{f}
			began := time.Now()
			out, _ := cmd.CombinedOutput()
			took := time.Since(began)
			ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if want.lives && strings.Contains(string(out), "it lives") {
				return
			}
			if !ws.Signaled() || ws.Signal() != want.signal {
				t.Errorf("ended %v, want %v\n%.2000s", ws, want.signal, out)
			}
			got := ipc.ReadBlackBox(mem)
			if len(got) != 1 || got[0].Slot != 5 || got[0].Tenant != 77 || got[0].Stream != 99 || got[0].Fault != uint32(want.signal) || !strings.Contains(got[0].Detail, want.detail) {
				t.Fatalf("black box: %+v", got)
			}
			if strings.Contains(string(out), "goroutine ") {
				t.Errorf("Go printed a traceback:\n%.300s", out)
			}
			if d := got[0].Detail; !strings.Contains(string(out), d) {
				t.Errorf("V8's words are not on stderr:\n%.300s", out)
			}
			since := time.Since(time.Unix(0, began0(out))).Round(time.Millisecond)
			t.Logf("%v, %+v, whole process %v, from the call to the wait %v", ws.Signal(), got, took.Round(time.Millisecond), since)
		})
	}
}

// began0 finds the time at which the child began to die.
func began0(out []byte) int64 {
	_, s, _ := strings.Cut(string(out), "dying at ")
	s, _, _ = strings.Cut(s, "\n")
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

// sharedBox is a black box as the launcher makes one.
func sharedBox(t *testing.T) ([]byte, *os.File) {
	t.Helper()
	fd, err := unix.MemfdCreate("blackbox", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "blackbox")
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(ipc.BlackBoxBytes); err != nil {
		t.Fatal(err)
	}
	return mapBox(t, fd), f
}

func mapBox(t *testing.T, fd int) []byte {
	t.Helper()
	mem, err := syscall.Mmap(fd, 0, ipc.BlackBoxBytes, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	return mem
}

// recovered dereferences nil in Go and comes back.
func recovered() (what any) {
	defer func() { what = recover() }()
	var p *int
	*p = 1
	return nil
}

func die(t *testing.T, name string) {
	locked(t)
	if err := HandleFaults(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if what := recovered(); what == nil || !strings.Contains(fmt.Sprint(what), "nil pointer") {
			t.Fatalf("Go's own fault: %v", what)
		}
	}
	box, err := ipc.NewBlackBox(mapBox(t, 3))
	if err != nil {
		t.Fatal(err)
	}
	if len(box.Slot(5)) != blackBoxSlotBytes {
		t.Fatalf("a slot has %d bytes", len(box.Slot(5)))
	}
	BindBlackBox(box.Slot(5))
	d := deaths[name]
	i := load(t, `export default { fetch() { `+d.js+`; return "lives" } }`)
	if d.js != "" {
		denyNewfstatat(t) // the seal's rule that once hid a cause
	}
	box.Enter(5, 77, 99)
	fmt.Fprintf(os.Stderr, "dying at %d\n", time.Now().UnixNano())
	if d.native != 0 {
		native.FaultForTest(d.native)
	}
	get(i, 1)
}

// A fatal fault of Go code is Go's to explain.
func TestFaultOfGoIsExplained(t *testing.T) {
	if os.Getenv(faultEnv) != "" {
		if err := HandleFaults(); err != nil {
			t.Fatal(err)
		}
		done := make(chan bool)
		go func() { var p *int; *p = 1; close(done) }()
		<-done
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), faultEnv+"=go")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "nil pointer dereference") || !strings.Contains(string(out), "goroutine ") {
		t.Errorf("%v\n%.500s", err, out)
	}
}

// Wasm out of bounds is an exception, also after a nil dereference that Go recovered from.
func TestWasmOutOfBoundsAfterARecoveredFault(t *testing.T) {
	if inChild(t, seccomp.JITWasm) {
		return
	}
	locked(t)
	if err := HandleFaults(); err != nil {
		t.Fatal(err)
	}
	// (module (memory 1) (func (export "f") (param i32) (result i32) local.get 0 i32.load))
	i := loadBundle(t, one(`const m = new WebAssembly.Instance(new WebAssembly.Module(new Uint8Array([0,97,115,109,1,0,0,0,1,6,1,96,1,127,1,127,3,2,1,0,5,3,1,0,1,7,5,1,1,102,0,0,10,9,1,7,0,32,0,40,2,0,11])));
		export default { fetch() { try { return String(m.exports.f(-8)); } catch (e) { return e.constructor.name; } } }`),
		Limits{MemoryBytes: 64 << 20, WasmAllowed: true})
	for range 3 {
		if recovered() == nil {
			t.Fatal("no fault")
		}
		if got := ask(t, i); got != "RuntimeError" {
			t.Errorf("got %q", got)
		}
	}
}

// The first process of a pid namespace ignores what it sends itself: it must die all the same.
func TestFaultsAsFirstProcess(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a pid namespace needs root here; the end-to-end suites make one without")
	}
	for name, want := range deaths {
		if want.signal == unix.SIGABRT {
			want.signal = unix.SIGILL // see HandleFaults
		}
		if want.native == unix.SIGBUS {
			want.signal = unix.SIGSEGV // raised, not faulted: no instruction makes one without a file
		}
		if name == "fill" {
			continue // seconds of V8's, and no other way to die than split's
		}
		t.Run(name, func(t *testing.T) {
			mem, f := sharedBox(t)
			cmd := exec.Command(os.Args[0], "-test.run=^TestFaults$")
			cmd.Env = append(os.Environ(), faultEnv+"="+name)
			cmd.ExtraFiles = []*os.File{f}
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
			out, _ := cmd.CombinedOutput()
			ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if want.lives && strings.Contains(string(out), "it lives") {
				return
			}
			if !ws.Signaled() || ws.Signal() != want.signal {
				t.Errorf("ended %v, want %v\n%.2000s", ws, want.signal, out)
			}
			fault := want.signal
			if want.native != 0 {
				fault = want.native
			}
			if got := ipc.ReadBlackBox(mem); len(got) != 1 || got[0].Fault != uint32(fault) {
				t.Errorf("black box: %+v", got)
			}
		})
	}
}
