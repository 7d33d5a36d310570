package launcher

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// notify tells the service manager something, sd_notify(3): one datagram to the socket that
// NOTIFY_SOCKET names. Without that variable it does nothing.
func (l *launcher) notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	if err := notifyTo(path, state); err != nil {
		l.logf("telling the service manager %q: %v", state, err)
	}
}

func notifyTo(path, state string) error {
	if abstract, ok := strings.CutPrefix(path, "@"); ok {
		path = "\x00" + abstract
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	// Never wait for a stuck service manager.
	if err := unix.Sendto(fd, []byte(state), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, &unix.SockaddrUnix{Name: path}); err != nil {
		return fmt.Errorf("sendto: %w", err)
	}
	return nil
}
