package launcher

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	dies  = -1 // SIGSYS
	lives = -2 // the call reached the kernel, whatever that said
)

// verdicts walks the worker's table with real calls in real workers: the right argument lives, a
// wrong one dies. A change of policy/seccomp that is not made here fails.
func verdicts() []verdict {
	const anon = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	const thread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM
	return []verdict{
		{name: "getpid", nr: unix.SYS_GETPID, want: lives},
		{name: "clock_gettime", nr: unix.SYS_CLOCK_GETTIME, want: lives},
		{name: "tgkill of itself", nr: unix.SYS_TGKILL, args: []int64{1, 999999, 0}, want: lives},
		{name: "tgkill of another process", nr: unix.SYS_TGKILL, args: []int64{2, 2, 9}, want: dies},
		{name: "tgkill of any process", nr: unix.SYS_TGKILL, args: []int64{-1, 2, 9}, want: dies},
		{name: "futex wake", nr: unix.SYS_FUTEX, args: []int64{0, 1 | 128, 0}, want: lives},
		{name: "futex wait bitset with the wall clock", nr: unix.SYS_FUTEX, args: []int64{0, 9 | 128 | 256, 0}, want: lives},
		{name: "futex requeue", nr: unix.SYS_FUTEX, args: []int64{0, 3}, want: dies},
		{name: "futex wake op", nr: unix.SYS_FUTEX, args: []int64{0, 5}, want: dies},
		{name: "futex lock pi", nr: unix.SYS_FUTEX, args: []int64{0, 6 | 128}, want: dies},
		{name: "futex cmp requeue pi", nr: unix.SYS_FUTEX, args: []int64{0, 12}, want: dies},
		{name: "clone of a process", nr: unix.SYS_CLONE, args: []int64{int64(unix.SIGCHLD)}, want: dies},
		{name: "clone as vfork", nr: unix.SYS_CLONE, args: []int64{unix.CLONE_VM | unix.CLONE_VFORK | int64(unix.SIGCHLD)}, want: dies},
		{name: "clone of a thread into namespaces", nr: unix.SYS_CLONE, args: []int64{thread | unix.CLONE_NEWNET}, want: dies},
		{name: "clone of a traced thread", nr: unix.SYS_CLONE, args: []int64{thread | unix.CLONE_PTRACE}, want: dies},
		{name: "clone3", nr: unix.SYS_CLONE3, want: int(unix.ENOSYS)},
		{name: "openat", nr: unix.SYS_OPENAT, want: int(unix.ENOSYS)},
		{name: "mremap", nr: unix.SYS_MREMAP, want: int(unix.ENOMEM)},
		{name: "set_robust_list", nr: unix.SYS_SET_ROBUST_LIST, want: int(unix.ENOSYS)},
		{name: "sched_getaffinity", nr: unix.SYS_SCHED_GETAFFINITY, want: int(unix.ENOSYS)},
		{name: "rseq with flags", nr: unix.SYS_RSEQ, args: []int64{0, 0, 1}, want: dies},
		{name: "mmap", nr: unix.SYS_MMAP, args: []int64{0, 4096, unix.PROT_READ | unix.PROT_WRITE, anon, -1, 0}, want: lives},
		{name: "mmap of a descriptor", nr: unix.SYS_MMAP, args: []int64{0, 4096, unix.PROT_READ, unix.MAP_SHARED, 5, 0}, want: dies},
		{name: "mmap shared", nr: unix.SYS_MMAP, args: []int64{0, 4096, unix.PROT_READ, unix.MAP_SHARED | unix.MAP_ANONYMOUS, -1, 0}, want: dies},
		{name: "mmap of huge pages", nr: unix.SYS_MMAP, args: []int64{0, 2 << 20, unix.PROT_READ, anon | unix.MAP_HUGETLB, -1, 0}, want: dies},
		{name: "mmap growing down", nr: unix.SYS_MMAP, args: []int64{0, 4096, unix.PROT_READ, anon | unix.MAP_GROWSDOWN, -1, 0}, want: dies},
		{name: "mmap executable", nr: unix.SYS_MMAP, args: []int64{0, 4096, unix.PROT_EXEC | unix.PROT_READ, anon, -1, 0}, want: dies, wasm: lives},
		{name: "mprotect", nr: unix.SYS_MPROTECT, args: []int64{0, 0, unix.PROT_READ}, want: lives},
		{name: "mprotect executable", nr: unix.SYS_MPROTECT, args: []int64{0, 0, unix.PROT_EXEC}, want: dies, wasm: lives},
		{name: "pkey_mprotect", nr: unix.SYS_PKEY_MPROTECT, args: []int64{0, 0, unix.PROT_EXEC, -1}, want: dies, wasm: lives},
		{name: "madvise dontneed", nr: unix.SYS_MADVISE, args: []int64{0, 0, unix.MADV_DONTNEED}, want: lives},
		{name: "madvise mergeable", nr: unix.SYS_MADVISE, args: []int64{0, 0, unix.MADV_MERGEABLE}, want: dies},
		{name: "madvise dodump", nr: unix.SYS_MADVISE, args: []int64{0, 0, unix.MADV_DODUMP}, want: dies},
		{name: "fcntl get flags", nr: unix.SYS_FCNTL, args: []int64{3, unix.F_GETFL}, want: lives},
		{name: "fcntl set flags", nr: unix.SYS_FCNTL, args: []int64{3, unix.F_SETFL, 0}, want: dies},
		{name: "fcntl dup", nr: unix.SYS_FCNTL, args: []int64{3, unix.F_DUPFD, 0}, want: dies},
		{name: "fcntl owner", nr: unix.SYS_FCNTL, args: []int64{3, unix.F_SETOWN, 1}, want: dies},
		{name: "recvmsg", nr: unix.SYS_RECVMSG, args: []int64{3}, want: dies},
		{name: "sendmsg", nr: unix.SYS_SENDMSG, args: []int64{3}, want: dies},
		{name: "prctl", nr: unix.SYS_PRCTL, want: dies},
		{name: "pread64", nr: unix.SYS_PREAD64, args: []int64{5}, want: dies},
		{name: "socket", nr: unix.SYS_SOCKET, args: []int64{1, 1}, want: dies},
		{name: "execve", nr: unix.SYS_EXECVE, want: dies},
		{name: "ptrace", nr: unix.SYS_PTRACE, want: dies},
		{name: "io_uring_setup", nr: unix.SYS_IO_URING_SETUP, want: dies},
		{name: "seccomp", nr: unix.SYS_SECCOMP, want: dies},
		{name: "unknown number", nr: 9999, want: dies},
		{name: "x32 getpid", nr: 0x40000000 | unix.SYS_GETPID, want: dies},
	}
}

type verdict struct {
	name string
	nr   int64
	args []int64
	want int // dies, lives, or an errno
	wasm int // the same for jit+wasm where it differs
}

func TestVerdictsOfTheWorkersFilter(t *testing.T) {
	c := start(t, modes()[len(modes())-1], built.child, "--allow-profile", "jitless", "--allow-profile", "jit", "--allow-profile", "jit+wasm").dial()
	for _, profile := range []string{"jitless", "jit", "jit+wasm"} {
		id := 0
		for _, v := range verdicts() {
			if id == 0 {
				id, _ = c.spawn("shard %s %d", profile, gigabyte)
			}
			want := v.want
			if profile == "jit+wasm" && v.wasm != 0 {
				want = v.wasm
			}
			got, survived := try(c, id, v)
			if !survived {
				id = 0
			}
			if got != want && !(want == lives && survived) {
				t.Errorf("%s: %s: got %d, want %d (%d: dies, %d: lives)", profile, v.name, got, want, dies, lives)
			}
		}
	}
}

// try has the worker make the call and returns the errno, or dies.
func try(c *conn, id int, v verdict) (result int, survived bool) {
	answer := c.ask("say %d syscall %d %s", id, v.nr, strings.Trim(fmt.Sprint(v.args), "[]"))
	var r int64
	var errno int
	if n, _ := fmt.Sscanf(answer, "%d %d", &r, &errno); n == 2 {
		return errno, true
	}
	if end := c.ask("exit %d", id); !strings.Contains(end, "signal=31 ") {
		c.t.Errorf("%s: the worker ended as %s", v.name, end)
	}
	return dies, false
}
