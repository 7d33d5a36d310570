package suites

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ptraceGetFilter copies one filter of a stopped thread into raw, or only counts its instructions if raw is
// empty (ptrace(2), PTRACE_SECCOMP_GET_FILTER).
func ptraceGetFilter(tid, index int, raw []byte) (instructions int, err error) {
	const getFilter = 0x420c
	n, _, errno := unix.Syscall6(unix.SYS_PTRACE, getFilter, uintptr(tid), uintptr(index), uintptr(unsafe.Pointer(unsafe.SliceData(raw))), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
