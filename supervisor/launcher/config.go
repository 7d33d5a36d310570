package launcher

import (
	"errors"
	"fmt"

	"bulkhead/supervisor/launcher/orders"

	"golang.org/x/sys/unix"
)

// orderConfig opens the policy document anew and hands it over to be read. The path is argv's: a
// gateway cannot name another. The launcher does not look into the file.
func (l *launcher) orderConfig(o orders.Order) error {
	switch {
	case o.Seq == 0:
		return fmt.Errorf("%w: config without a sequence number", errBreach)
	case l.config == nil:
		return fmt.Errorf("%w: config, and there is no --config", errBreach)
	}
	fd, err := openDocument(l.opt.Config)
	if err != nil {
		return l.turnDown(o, &stepError{step: "config", err: fmt.Errorf("%s: %w", l.opt.Config, err)})
	}
	defer unix.Close(fd)
	l.report(orders.Report{Kind: orders.ReportConfig, Seq: o.Seq, FDs: 1}, fd)
	return nil
}

// openDocument opens a regular file for reading and waits for nobody: a FIFO in its place would
// otherwise stop the launcher (open(2)).
func openDocument(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return -1, errors.New("is not a file")
	}
	return fd, nil
}
