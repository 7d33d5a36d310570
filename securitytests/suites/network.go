package suites

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

func networkPromises() []Promise {
	const repair = "the network namespace or the filter does not hold: report it; until then firewall the host from itself (loopback, metadata service)"
	return []Promise{
		{Name: "cannot make a socket of any family", Suite: "network", try: makeSockets, Gain: "the network, and the protocol code of the kernel", Repair: repair},
		{Name: "cannot reach the host's ports or abstract sockets", Suite: "network", try: reachPorts, Gain: "services of the host that trust what comes from it: databases, metadata, D-Bus, X11", Repair: repair},
	}
}

// families is one more than the last address family of today (AF_MCTP is 45).
const families = 46

func makeSockets(ctx context.Context, s *scene) finding {
	notable := map[int]bool{unix.AF_UNIX: true, unix.AF_INET: true, unix.AF_INET6: true, unix.AF_NETLINK: true, unix.AF_PACKET: true, unix.AF_ALG: true, unix.AF_VSOCK: true}
	var list []attempt
	for f := range families {
		if notable[f] || s.turn(int64(f)) {
			list = append(list, dies(fmt.Sprintf("a socket of family %d", f), "socket", f, unix.SOCK_DGRAM, 0))
		}
	}
	return s.all(ctx, append(list,
		dies("a raw socket", "socket", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP),
		dies("a pair of sockets", "socketpair", unix.AF_UNIX, unix.SOCK_STREAM, 0, Out(8)),
		dies("io_uring, which makes sockets too", "io_uring_setup", 8, Out(120)),
	))
}

func reachPorts(ctx context.Context, s *scene) finding {
	var reached atomic.Int32
	name := fmt.Sprintf("\x00bulkhead-securitytest-%d-%v-%v", os.Getpid(), s.stand.Mode, s.profile)
	for _, where := range [][2]string{{"tcp", "127.0.0.1:0"}, {"unix", "@" + name[1:]}} {
		l, err := net.Listen(where[0], where[1])
		if err != nil {
			return failedTry(err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				reached.Add(1)
				c.Close()
			}
		}()
	}
	abstract := In("\x01\x00" + name)
	list := []attempt{
		dies("connect its control channel elsewhere", "connect", 3, abstract, len(abstract)),
		dies("bind its data channel", "bind", 4, abstract, len(abstract)),
		dies("listen on its data channel", "listen", 4, 1),
		dies("send to an address", "sendto", 4, In("x"), 1, 0, abstract, len(abstract)),
		dies("ask who is at the other end", "getsockopt", 3, unix.SOL_SOCKET, unix.SO_PEERCRED, Out(12), Out(4)),
		dies("ask for a descriptor of who is at the other end", "getsockopt", 3, unix.SOL_SOCKET, 77 /* SO_PEERPIDFD */, Out(4), Out(4)),
		dies("enter the host's namespace", "setns", 3, unix.CLONE_NEWNET),
	}
	f := s.all(ctx, list)
	if f.status == Held && reached.Load() != 0 {
		return broken("%d connections arrived", reached.Load())
	}
	seat, err := s.seat(ctx)
	if err != nil {
		return failedTry(err)
	}
	defer seat.Leave()
	dev, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", seat.PID))
	if err != nil || f.status != Held {
		return f
	}
	for i, line := range strings.Split(strings.TrimSpace(string(dev)), "\n") {
		if i >= 2 && !strings.HasPrefix(strings.TrimSpace(line), "lo:") && !strings.Contains(line, " 0 ") {
			return broken("its network has an interface: %s", line)
		}
	}
	return held("%s; no connection arrived; its own network has no interface that is up", f.detail)
}
