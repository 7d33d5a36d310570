package launcher

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// listener is a socket that listens. The launcher never accepts from any but the admin one.
type listener struct {
	name string
	addr string // for people; the path of a unix socket
	fd   int
	unix bool // bound by us to a path that must go
	ours bool // bound by us, not by the service manager
}

func (s *listener) remove() {
	if s.unix {
		os.Remove(s.addr)
	}
}

// backlog holds connections while the gateway is restarted.
const backlog = 4096

// firstActivated is SD_LISTEN_FDS_START (sd_listen_fds(3)).
const firstActivated = 3

func (l *launcher) stepListeners() error {
	activated, err := activatedListeners()
	if err != nil {
		return err
	}
	l.listen = activated
	for _, a := range l.opt.Listen {
		s, err := bind(a)
		if err != nil {
			return fmt.Errorf("--listen %q: %w", a, err)
		}
		s.ours = true
		l.listen = append(l.listen, s)
		l.logf("listening on %s", s.addr)
	}
	if len(l.listen) == 0 {
		return errors.New("no listener: pass --listen ADDR or start by socket activation")
	}
	return nil
}

// activatedListeners takes over what the service manager bound (LISTEN_FDS).
func activatedListeners() ([]listener, error) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 0 || n > 64 {
		return nil, fmt.Errorf("LISTEN_FDS=%q: want a number up to 64", os.Getenv("LISTEN_FDS"))
	}
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	var list []listener
	for i := range n {
		fd := firstActivated + i
		if v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || v != 1 {
			return nil, fmt.Errorf("LISTEN_FDS: descriptor %d does not listen", fd)
		}
		name := "http"
		if i < len(names) && names[i] != "" {
			name = names[i]
		}
		addr, err := boundTo(fd)
		if err != nil {
			return nil, err
		}
		list = append(list, listener{name: name, addr: addr, fd: fd})
	}
	return list, nil
}

// mendListeners undoes what a dead gateway may have done to the sockets it shared with its
// successors: connect(2) with no address ends a TCP listener, shutdown(2) any.
func (l *launcher) mendListeners() error {
	for i := range l.listen {
		s := &l.listen[i]
		if err := unix.SetNonblock(s.fd, true); err != nil {
			return fmt.Errorf("listener %s: %w", s.addr, err)
		}
		if s.intact() {
			continue
		}
		l.logf("the listener on %s was spoilt by the last gateway", s.addr)
		if unix.Listen(s.fd, backlog) == nil && s.intact() {
			continue
		}
		if !s.ours {
			return fmt.Errorf("the listener on %s is beyond repair; restart the socket unit", s.addr)
		}
		unix.Close(s.fd)
		addr := s.addr
		if s.unix {
			addr = "unix:" + addr
		}
		fresh, err := bind(addr)
		if err != nil {
			return fmt.Errorf("the listener on %s: %w", s.addr, err)
		}
		fresh.ours, fresh.name = true, s.name
		*s = fresh
	}
	return nil
}

// intact: it listens, where it did at first, and has not been shut down.
func (s *listener) intact() bool {
	listens, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil || listens != 1 {
		return false
	}
	if addr, err := boundTo(s.fd); err != nil || addr != s.addr {
		return false
	}
	p := []unix.PollFd{{Fd: int32(s.fd)}}
	_, err = unix.Poll(p, 0)
	return err == nil && p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) == 0
}

// bind understands numbers only: the launcher resolves no names.
func bind(addr string) (listener, error) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		fd, err := bindUnix(path, 0o666)
		return listener{name: "http", addr: path, fd: fd, unix: true}, err
	}
	host, port, ok := cutLast(addr, ":")
	if !ok {
		return listener{}, errors.New("want IP:PORT, :PORT, localhost:PORT or unix:PATH")
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return listener{}, fmt.Errorf("port %q: %w", port, err)
	}
	switch host {
	case "localhost":
		host = "127.0.0.1"
	case "":
		host = "::"
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err != nil {
		return listener{}, fmt.Errorf("%q is no IP address (names are not resolved here): %w", host, err)
	}
	fd, err := bindTCP(netip.AddrPortFrom(ip, uint16(number)))
	if errors.Is(err, unix.EAFNOSUPPORT) && host == "::" {
		fd, err = bindTCP(netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(number)))
	}
	if err != nil {
		return listener{}, err
	}
	bound, err := boundTo(fd)
	return listener{name: "http", addr: bound, fd: fd}, err
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func bindTCP(ap netip.AddrPort) (int, error) {
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()})
	if ap.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil && family == unix.AF_INET6 && ap.Addr().IsUnspecified() {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err == nil {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bind: %w", err)
	}
	return fd, nil
}

// bindUnix replaces a socket that nobody listens on any more; a living one is left alone, and so
// is whatever is no socket. bind(2) copies the mode of the socket's own inode, less the umask:
// chmod(2) afterwards would follow a link put there meanwhile by the owner of the directory.
func bindUnix(path string, mode uint32) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	defer unix.Umask(unix.Umask(0))
	sa := &unix.SockaddrUnix{Name: path}
	if err = unix.Fchmod(fd, mode); err == nil {
		err = unix.Bind(fd, sa)
	}
	var st unix.Stat_t
	if err == unix.EADDRINUSE && unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		err = errors.New("exists and is no socket")
	}
	if err == unix.EADDRINUSE {
		if err = unix.Connect(fd, sa); err == unix.ECONNREFUSED {
			if err = os.Remove(path); err == nil {
				err = unix.Bind(fd, sa)
			}
		} else {
			err = fmt.Errorf("somebody serves on %s: %w", path, unix.EADDRINUSE)
		}
	}
	if err == nil {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bind %s: %w", path, err)
	}
	return fd, nil
}

func boundTo(fd int) (string, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return "", fmt.Errorf("getsockname: %w", err)
	}
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String(), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)).String(), nil
	case *unix.SockaddrUnix:
		return a.Name, nil
	}
	return "", fmt.Errorf("descriptor %d is no TCP or unix socket", fd)
}

// stepAdmin binds the admin socket. Everybody may connect to it, as far as its directory lets
// them; who they are is asked of the kernel at accept.
func (l *launcher) stepAdmin() error {
	if l.opt.Admin == "" {
		return nil
	}
	fd, err := bindUnix(l.opt.Admin, 0o600)
	if err != nil {
		return fmt.Errorf("--admin: %w", err)
	}
	l.admin = &listener{name: "admin", addr: l.opt.Admin, fd: fd, unix: true}
	return nil
}

// acceptAdmin passes on connections of root and of the launcher's own user.
func (l *launcher) acceptAdmin() {
	for {
		fd, _, err := unix.Accept4(l.admin.fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err != nil {
			return // EAGAIN, or a client that left already
		}
		cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err == nil && (cred.Uid == 0 || int(cred.Uid) == l.uid) && l.phase != phaseDown {
			err = l.handOverAdmin(fd, cred.Uid)
		}
		if err != nil {
			l.logf("admin connection: %v", err)
		}
		unix.Close(fd)
	}
}
