package engine

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sealedDeath marks the child of TestDeathByTheTrueCause.
const sealedDeath = "ENGINE_TEST_SEALED_DEATH"

// V8 says why it aborts before it does. In the sealed worker that must not end in SIGSYS first: the
// incident would blame a system call.
func TestDeathByTheTrueCause(t *testing.T) {
	if os.Getenv(sealedDeath) != "" {
		locked(t)
		i := load(t, `export default { fetch() { return "a".repeat(2 ** 28).split("").length } }`)
		denyNewfstatat(t)
		get(i, 1)
		t.Fatal("V8 did not abort: this test proves nothing")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), sealedDeath+"=1", "GOTRACEBACK=none")
	out, err := cmd.CombinedOutput() // a pipe: what glibc would ask about
	if err == nil || strings.Contains(string(out), "proves nothing") {
		t.Fatalf("%v\n%s", err, out)
	}
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() && ws.Signal() == syscall.SIGSYS {
		t.Errorf("died of SIGSYS\n%s", out)
	}
	if !strings.Contains(string(out), "Fatal JavaScript") {
		t.Errorf("V8's reason is missing:\n%s", out)
	}
}

// denyNewfstatat makes newfstatat deadly for the calling thread, as the worker's filter does.
func denyNewfstatat(t *testing.T) {
	t.Helper()
	const ret, load, jumpEq = 0x06, 0x20, 0x15 // BPF_RET|BPF_K, BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K
	prog := []unix.SockFilter{
		{Code: load, K: 0}, // seccomp_data.nr
		{Code: jumpEq, K: unix.SYS_NEWFSTATAT, Jt: 0, Jf: 1},
		{Code: ret, K: unix.SECCOMP_RET_KILL_PROCESS},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
	}
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&fprog)), 0, 0); err != nil {
		t.Fatal(err)
	}
}
