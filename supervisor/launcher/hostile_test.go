package launcher

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bulkhead/supervisor/launcher/orders"

	"bulkhead/policy/limits"

	"golang.org/x/sys/unix"
)

// What native code in the gateway tries to leave behind for its successor, or to reach through
// what it shares with the launcher.

// A listener is the same socket for all generations: who spoils it would end the service for good.
func TestAGatewayCannotSpoilItsSuccessorsListeners(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		r := start(t, m, built.child, "--listen", "127.0.0.1:0")
		c := r.dial()
		var addr string
		// The launcher serves before what it has written has come through the pipe.
		eventually(t, "the launcher says where it listens", func() bool {
			for line := range strings.Lines(r.text()) {
				if _, a, ok := strings.Cut(line, "listening on 127."); ok && strings.HasSuffix(line, "\n") {
					addr = "127." + strings.TrimSpace(a)
				}
			}
			return addr != ""
		})
		const http, tcp = 8, 9 // setup.FDListen and the next
		if got := c.ask("native disconnect %d", tcp); got != "0" {
			t.Fatalf("the attack itself failed: errno %s", got)
		}
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			t.Fatal("the attack had no effect")
		}
		c.try("native syscall %d %d %d", unix.SYS_SHUTDOWN, http, unix.SHUT_RD)
		c.Close()
		eventually(t, "the next generation starts", func() bool { return strings.Contains(r.text(), "generation 2 started") })
		if got := r.dial().ask("pid"); got != "2" {
			t.Errorf("generation %s serves, want 2", got)
		}
		conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
		if err != nil {
			t.Fatalf("the listener was not mended: %v", err)
		}
		conn.Close()
	})
}

// Options of a socket outlive the process that set them; those that filter or redirect are not
// for the gateway, nor is any family or type of socket that an HTTP server has no use for.
func TestVerdictsOfTheGatewaysFilter(t *testing.T) {
	const nonblock, huge = unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_HUGETLB
	cases := []struct {
		name string
		call []any
		dies bool
	}{
		{"no-delay", []any{unix.SYS_SETSOCKOPT, 8, unix.IPPROTO_TCP, unix.TCP_NODELAY, 0, 0}, false},
		{"keep-alive", []any{unix.SYS_SETSOCKOPT, 8, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0, 0}, false},
		{"packet filter", []any{unix.SYS_SETSOCKOPT, 8, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, 0, 0}, true},
		{"bpf", []any{unix.SYS_SETSOCKOPT, 8, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, 0, 0}, true},
		{"netfilter", []any{unix.SYS_SETSOCKOPT, 8, unix.IPPROTO_IP, 64, 0, 0}, true},
		{"tls offload", []any{unix.SYS_SETSOCKOPT, 8, unix.IPPROTO_TCP, unix.TCP_ULP, 0, 0}, true},
		{"half close", []any{unix.SYS_SHUTDOWN, 99, unix.SHUT_WR}, false},
		{"shutdown", []any{unix.SYS_SHUTDOWN, 99, unix.SHUT_RDWR}, true},
		{"tcp", []any{unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM | nonblock, unix.IPPROTO_TCP}, false},
		{"udp", []any{unix.SYS_SOCKET, unix.AF_INET6, unix.SOCK_DGRAM | nonblock, 0}, false},
		{"unix", []any{unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM | nonblock, 0}, false},
		{"unix datagrams", []any{unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_DGRAM, 0}, true},
		{"raw", []any{unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP}, true},
		{"ping", []any{unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP}, true},
		{"sctp", []any{unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP}, true},
		{"netlink", []any{unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW, 0}, true},
		{"huge pages", []any{unix.SYS_MMAP, 0, 2 << 20, unix.PROT_READ, huge, -1, 0}, true},
	}
	var r *running
	for _, tc := range cases {
		if r == nil {
			r = start(t, modes()[len(modes())-1], built.child)
		}
		c := r.dial()
		before := c.ask("pid")
		answer, err := c.try("native syscall %s", strings.Trim(fmt.Sprint(tc.call), "[]"))
		if died := err != nil; died != tc.dies {
			t.Errorf("%s: answer %q, %v; want death %v", tc.name, answer, err, tc.dies)
		}
		c.Close()
		if tc.dies {
			r.cmd.Process.Kill() // a fresh launcher does not pause before its gateway
			r = nil
		} else if got := r.dial().ask("pid"); got != before {
			t.Errorf("%s: generation %s after %s", tc.name, got, before)
		}
	}
}

// Standard error may be the operator's terminal, open for reading too: what is typed there is
// not for the gateway, and its flags are not for it to set.
func TestTheGatewayCannotReadTheTerminal(t *testing.T) {
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	defer ptmx.Close()
	if err := unix.IoctlSetPointerInt(int(ptmx.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(ptmx.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	eachMode(t, func(t *testing.T, m mode) {
		pts := fmt.Sprintf("/dev/pts/%d", n)
		tty, err := os.OpenFile(pts, os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer tty.Close()
		if err := os.Chown(pts, int(m.uid), -1); err != nil && os.Getuid() == 0 {
			t.Fatal(err)
		}
		c := startAs(t, m, built.child, func(cmd *exec.Cmd) { cmd.Stderr = tty }).dial()
		if _, err := ptmx.WriteString("secret\n"); err != nil {
			t.Fatal(err)
		}
		if got := c.ask("native syscall %d 2 0 0", unix.SYS_READ); got != fmt.Sprintf("-1 %d", int(unix.EBADF)) {
			t.Errorf("read(2) of standard error answers %q, want EBADF", got)
		}
		c.ask("native syscall %d 2 %d %d", unix.SYS_FCNTL, unix.F_SETFL, unix.O_NONBLOCK)
		if flags, err := unix.FcntlInt(tty.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
			t.Errorf("the gateway changed the flags of the shell's terminal to %#x, %v", flags, err)
		}
	})
}

// Threads are bounded with a cgroup and, where that degradation was accepted, without.
func TestThreadsAreBounded(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		m.args = []string{"--accept", "cgroup"}
		c := start(t, m, built.child).dial()
		id, pid := c.spawn("shard jit %d", gigabyte)
		if got := c.ask("say %d threads 20", id); got != "started" {
			t.Fatalf("20 threads: %s", got)
		}
		most := limits.DefaultShard().PIDs
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
		if err != nil || !strings.Contains(string(text), fmt.Sprintf("Max processes             %-20d %-20d", most, most)) {
			t.Errorf("limits of a worker (%v):\n%s", err, text)
		}
		// The worker dies of it, after writing a traceback that nobody reads here.
		if _, err := fmt.Fprintf(c, "say %d threads 400\n", id); err != nil {
			t.Fatal(err)
		}
		threads := func() int {
			n, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
			return len(n)
		}
		eventually(t, "the limit is reached", func() bool { return threads() >= most*9/10 || !alive(pid) })
		time.Sleep(200 * time.Millisecond)
		if n := threads(); n > most {
			t.Errorf("a worker has %d threads, want %d at most", n, most)
		}
	})
}

func TestTheGatewaysThreadsAreBounded(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("no delegated cgroup without root here")
	}
	r := start(t, mode{}, built.child)
	r.dial().ask("pid")
	var found bool
	for _, dir := range cgroupsOf(r.cmd.Process.Pid) {
		v1, _ := filepath.Glob(filepath.Join(dir, "gateway-*", "pids.max"))
		v2, _ := filepath.Glob(filepath.Join(dir, "pids.max"))
		for _, file := range append(v1, v2...) {
			if !strings.Contains(file, "gateway-") {
				continue
			}
			found = true
			if b, err := os.ReadFile(file); err != nil || strings.TrimSpace(string(b)) == "max" {
				t.Errorf("%s is %q, %v", file, b, err)
			}
		}
	}
	if !found {
		t.Error("the gateway is in no pids cgroup")
	}
}

// The one who can write to --data, or to the directory of a socket, need not be root.
func TestRootFollowsNoLinkInTheDataDirectory(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("without root there is nobody to be tricked")
	}
	victim, err := os.MkdirTemp(built.dir, "victim")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.MkdirTemp(built.dir, "data")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(data, "gateway")); err != nil {
		t.Fatal(err)
	}
	r := start(t, mode{}, built.child, "--data", data)
	if err := r.wait(30 * time.Second); err == nil || !strings.Contains(r.text(), "--data") {
		t.Errorf("the launcher ended with %v", err)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(victim, &st); err != nil || st.Uid != 0 {
		t.Errorf("the link's target belongs to uid %d now (%v)", st.Uid, err)
	}
}

func TestAPathThatIsNoSocketIsLeftAlone(t *testing.T) {
	precious := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(precious, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if fd, err := bindUnix(precious, 0o600); err == nil {
		unix.Close(fd)
		t.Error("bound over a regular file")
	}
	if b, err := os.ReadFile(precious); err != nil || string(b) != "x" {
		t.Errorf("the file is gone: %q, %v", b, err)
	}
}

// The mode is there from the first moment, and is never given to whatever a path has come to
// mean meanwhile (chmod(2) follows links).
func TestSocketsAreBornWithTheirMode(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	for _, mode := range []uint32{0o600, 0o666} {
		path := filepath.Join(t.TempDir(), "s")
		fd, err := bindUnix(path, mode)
		if err != nil {
			t.Fatal(err)
		}
		var sock, name unix.Stat_t
		if err := unix.Lstat(path, &name); err != nil || name.Mode&0o777 != mode {
			t.Errorf("mode %#o, want %#o: %v", name.Mode&0o777, mode, err)
		}
		// The socket's own inode has it too: that is what bind(2) copies.
		if err := unix.Fstat(fd, &sock); err != nil || sock.Mode&0o777 != mode {
			t.Errorf("the unbound socket had mode %#o, want %#o: %v", sock.Mode&0o777, mode, err)
		}
		unix.Close(fd)
	}
}

// Heartbeats go to the service manager, which a hostile gateway must not be able to flood.
func TestHeartbeatsAreNotAFlood(t *testing.T) {
	m := modes()[0]
	dir, err := os.MkdirTemp(built.dir, "notify")
	if err != nil {
		t.Fatal(err)
	}
	manager, err := listenDatagrams(filepath.Join(dir, "n"))
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	c := startAs(t, m, built.child, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+filepath.Join(dir, "n")) }).dial()
	beat := heartbeat(t)
	for range 50 {
		c.ask("raw %s", beat)
	}
	// The first is awaited; those that came with it are there when it is read, or soon after.
	manager.SetReadDeadline(time.Now().Add(30 * time.Second))
	beats := 0
	for b := make([]byte, 256); ; {
		n, err := manager.Read(b)
		if err != nil {
			break
		}
		if strings.Contains(string(b[:n]), "WATCHDOG=1") {
			if beats++; beats == 1 {
				manager.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			}
		}
	}
	if beats == 0 || beats > 5 {
		t.Errorf("50 heartbeats at once arrived as %d, want one a second", beats)
	}
}

func heartbeat(t *testing.T) string {
	t.Helper()
	b, err := orders.Order{Kind: orders.KindHeartbeat}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", b[:])
}
