package launcher

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// kernelLog finds the system call of a seccomp kill: the wait status tells only SIGSYS, the
// kernel's audit line (type 1326, AUDIT_SECCOMP) the number.
type kernelLog struct {
	fd     int    // /dev/kmsg, -1 if it cannot be read
	reason string // why it cannot
	// seen keeps what was read and not yet asked for: children that die together are reaped one
	// after the other. It is emptied when it grows beyond maxSeen.
	seen map[int]int32
}

const maxSeen = 1024

func (l *launcher) stepKernelLog() error {
	l.kmsg = &kernelLog{fd: -1, seen: map[int]int32{}}
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		l.kmsg.reason = fmt.Sprintf("/dev/kmsg: %v", err)
		return nil // a convenience, no layer of the seal
	}
	if _, err := unix.Seek(fd, 0, unix.SEEK_END); err != nil {
		l.kmsg.reason = fmt.Sprintf("/dev/kmsg: seek: %v", err)
		unix.Close(fd)
		return nil
	}
	// Some kernels allow the open and refuse the read (dmesg_restrict).
	if _, err := unix.Read(fd, make([]byte, 8192)); err == unix.EPERM || err == unix.EACCES {
		l.kmsg.reason = "kernel.dmesg_restrict forbids this user to read the kernel log"
		unix.Close(fd)
		return nil
	}
	l.kmsg.fd = fd
	return nil
}

// find reads what was logged since the last call and returns the system call for which pid was
// killed, or -1 and the reason. Called only for children that died by SIGSYS, so that the log
// is read rarely; old records are passed over quickly.
func (k *kernelLog) find(pid int) (int32, string) {
	if k.fd < 0 {
		return -1, k.reason
	}
	for buf := make([]byte, 8192); ; { // a record is at most 8 KiB (kmsg documentation)
		n, err := unix.Read(k.fd, buf)
		if err == unix.EPIPE || err == unix.EINTR { // EPIPE: records were overwritten; the next read goes on
			continue
		}
		if err != nil || n == 0 {
			break
		}
		if victim, nr, ok := seccompRecord(string(buf[:n])); ok {
			if len(k.seen) >= maxSeen {
				clear(k.seen)
			}
			k.seen[victim] = nr
		}
	}
	nr, ok := k.seen[pid]
	if !ok {
		return -1, "not in the kernel log (auditd takes the records, or its rate limit dropped it)"
	}
	delete(k.seen, pid)
	return nr, ""
}

// seccompRecord reads a record such as
// "4,1034,5091,-;audit: type=1326 audit(...): auid=0 uid=7 ... pid=12 comm=... sig=31 arch=c000003e syscall=41 ...".
// comm is quoted by the kernel, or hexadecimal if it holds anything odd, so a process cannot
// forge fields in it.
func seccompRecord(record string) (pid int, nr int32, ok bool) {
	if !strings.Contains(record, "type=1326 ") {
		return 0, 0, false
	}
	pid, nr = -1, -1
	for _, f := range strings.Fields(record) {
		key, value, _ := strings.Cut(f, "=")
		if key != "pid" && key != "syscall" {
			continue
		}
		n, err := strconv.ParseInt(value, 10, 32)
		switch {
		case err != nil:
			return 0, 0, false
		case key == "pid":
			pid = int(n)
		default:
			nr = int32(n)
		}
	}
	return pid, nr, pid >= 0 && nr >= 0
}
