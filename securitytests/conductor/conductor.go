// Package conductor is the gateway of the security suites: a sealed child of the real launcher that
// orders workers and hands their descriptors to whoever runs the suite.
//
// It is part of `bulkhead`, which becomes it only when a launcher's argv names that binary as --gateway;
// `bulkhead securitytest` does. It has the rights of any gateway and runs no hostile step itself: those
// are for the workers it orders (securitytests/seat). Trust: its listener is a socket in the suite's own
// folder.
package conductor

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"bulkhead/policy/seccomp"
	"bulkhead/sandboxworker/lockdown"
	"bulkhead/supervisor/launcher/orders"
)

// patience bounds an order to the launcher.
const patience = 60 * time.Second

// conductor is the state of the gateway.
type conductor struct {
	client *orders.Client

	mu    sync.Mutex
	seats map[uint32]*orders.Child // guarded by mu; living or not yet asked how they ended
}

// Run seals the process and serves the suite's connections on the first listener until the launcher
// asks it to stop, which ends the process. It returns only an error.
func Run() error {
	if err := lockdown.Seal(); err != nil {
		return err
	}
	client, boot, err := orders.Inherit()
	if err != nil {
		return err
	}
	if len(boot.Listeners) == 0 {
		return fmt.Errorf("the launcher gave no listener")
	}
	f := os.NewFile(uintptr(boot.Listeners[0].FD), "suite")
	l, err := net.FileListener(f)
	if err != nil {
		return fmt.Errorf("the suite's listener: %w", err)
	}
	if err := client.Ready(); err != nil {
		return err
	}
	go func() {
		<-client.Drain()
		os.Exit(0)
	}()
	c := &conductor{client: client, seats: map[uint32]*orders.Child{}}
	for {
		conn, err := l.Accept()
		if err != nil {
			return fmt.Errorf("the suite's listener: %w", err)
		}
		go c.serve(conn.(*net.UnixConn))
	}
}

// serve answers each line with a line; descriptors of a new seat travel with theirs.
func (c *conductor) serve(conn *net.UnixConn) {
	defer conn.Close()
	for in := bufio.NewScanner(conn); in.Scan(); {
		text, files := c.do(strings.Fields(in.Text()))
		var rights []byte
		if len(files) > 0 {
			var fds []int
			for _, f := range files {
				fds = append(fds, int(f.Fd()))
			}
			rights = syscall.UnixRights(fds...)
		}
		_, _, err := conn.WriteMsgUnix([]byte(text+"\n"), rights, nil)
		for _, f := range files {
			f.Close()
		}
		if err != nil {
			return
		}
	}
}

func (c *conductor) do(args []string) (string, []*os.File) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch {
	case len(args) == 1 && args[0] == "ping":
		return "pong", nil
	case len(args) == 3 && args[0] == "sit":
		p, err := seccomp.ParseProfile(args[1])
		if err != nil {
			return "refused " + err.Error(), nil
		}
		memory, _ := strconv.ParseUint(args[2], 10, 64)
		child, err := c.client.SpawnShard(ctx, p, memory)
		if err != nil {
			return "refused " + err.Error(), nil
		}
		c.mu.Lock()
		c.seats[child.ID] = child
		c.mu.Unlock()
		return fmt.Sprintf("seat %d %d", child.ID, child.PID), []*os.File{child.Control, child.Data, child.BlackBox, child.Stderr}
	case len(args) == 2:
		id, _ := strconv.ParseUint(args[1], 10, 32)
		c.mu.Lock()
		child := c.seats[uint32(id)]
		c.mu.Unlock()
		if child == nil {
			return "refused: no such seat", nil
		}
		return c.about(ctx, child, args[0]), nil
	}
	return "refused: unknown order", nil
}

func (c *conductor) about(ctx context.Context, child *orders.Child, order string) string {
	switch order {
	case "kill":
		if err := child.Kill(); err != nil {
			return "refused " + err.Error()
		}
		return "done"
	case "end":
		select {
		case e := <-child.Exited():
			c.mu.Lock()
			delete(c.seats, child.ID)
			c.mu.Unlock()
			return fmt.Sprintf("ended %d %d %s", e.Code, int(e.Signal), e.Detail)
		case <-ctx.Done():
			return "refused: it still lives"
		}
	}
	return "refused: unknown order"
}
