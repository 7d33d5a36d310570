// Command testchild stands in for gateway, worker and bundler in the tests of package launcher:
// it seals itself by the production kit and then does what the test says, line by line. It is
// built by the tests only.
package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"bulkhead/policy/namespaces"
	"bulkhead/policy/seccomp"
	"bulkhead/sandboxworker/lockdown"
	"bulkhead/supervisor/launcher/orders"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "dial" {
		dial(os.Args[2])
		return
	}
	role := lockdown.Role()
	var control *os.File
	if role == namespaces.Worker {
		control = os.NewFile(3, "control") // before the seal: Go asks whether it blocks
	}
	if role == namespaces.Gateway {
		early()
	}
	if err := lockdown.Seal(); err != nil {
		fmt.Fprintln(os.Stderr, "testchild:", err)
		os.Exit(3)
	}
	switch role {
	case namespaces.Worker:
		serve(control, native)
	case namespaces.Bundler:
		bundle()
	case namespaces.Gateway:
		gateway()
	}
}

// early gives an order before this gateway is sealed, if its boot data says so anywhere.
func early() {
	boot := make([]byte, 4096)
	n, _ := syscall.Pread(4, boot, 0)
	if n > 0 && strings.Contains(string(boot[:n]), "too-early") {
		b, _ := orders.Order{Kind: orders.KindReady}.Encode()
		syscall.Write(3, b[:])
	}
}

// dial connects as whatever user the test made this process and shows what it is told.
func dial(path string) {
	c, err := net.Dial("unix", path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	io.Copy(os.Stdout, c)
}

// serve answers each line with a line.
func serve(rw io.ReadWriter, do func(args []string) string) {
	for in := bufio.NewScanner(rw); in.Scan(); {
		fmt.Fprintln(rw, do(strings.Fields(in.Text())))
	}
}

// native is an attacker's seat: it makes any system call.
func native(args []string) string {
	switch args[0] {
	case "echo":
		return strings.Join(args[1:], " ")
	case "exit":
		code, _ := strconv.Atoi(args[1])
		os.Exit(code)
	case "hog":
		n, _ := strconv.Atoi(args[1])
		b := make([]byte, n)
		for i := 0; i < n; i += 4096 {
			b[i] = 1
		}
		return "hogged"
	case "threads":
		n, _ := strconv.Atoi(args[1])
		var up sync.WaitGroup
		for range n {
			up.Add(1)
			go func() {
				runtime.LockOSThread()
				up.Done()
				select {}
			}()
		}
		up.Wait()
		return "started"
	case "disconnect": // connect(2) with AF_UNSPEC
		fd, _ := strconv.Atoi(args[1])
		var none syscall.RawSockaddr
		_, _, errno := syscall.Syscall(syscall.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&none)), unsafe.Sizeof(none))
		return strconv.Itoa(int(errno))
	case "syscall":
		var v [7]uintptr
		for i, a := range args[1:] {
			n, err := strconv.ParseInt(a, 0, 64)
			if err != nil {
				return err.Error()
			}
			v[i] = uintptr(n)
		}
		r, _, errno := syscall.Syscall6(v[0], v[1], v[2], v[3], v[4], v[5], v[6])
		return fmt.Sprintf("%d %d", int64(r), int(errno))
	}
	return "unknown"
}

// bundle lists /src on the output pipe.
func bundle() {
	out := os.NewFile(3, "output")
	entries, err := os.ReadDir("/src")
	fmt.Fprintln(out, err)
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join("/src", e.Name()))
		fmt.Fprintf(out, "%s %q %v\n", e.Name(), text, err)
	}
	err = os.WriteFile("/src/written", nil, 0o600)
	fmt.Fprintln(out, "write", err)
}

type host struct {
	client *orders.Client
	boot   orders.Boot

	mu       sync.Mutex
	children map[string]*orders.Child // guarded by mu
}

func gateway() {
	client, boot, err := orders.Inherit()
	if err != nil {
		fmt.Fprintln(os.Stderr, "testchild:", err)
		os.Exit(3)
	}
	h := &host{client: client, boot: boot, children: map[string]*orders.Child{}}
	if len(boot.Args) == 0 || boot.Args[0] != "silent" {
		_ = client.Ready()
	}
	go func() {
		<-client.Drain()
		os.Exit(0)
	}()
	go func() {
		for c := range client.AdminConns() {
			fmt.Fprintf(c.Conn, "admin %d\n", c.UID)
			c.Conn.Close()
		}
	}()
	for {
		fd, _, err := syscall.Accept4(boot.Listeners[0].FD, 0)
		if err == syscall.EAGAIN {
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "testchild: accept:", err)
			os.Exit(3)
		}
		go serve(os.NewFile(uintptr(fd), "client"), h.do)
	}
}

func (h *host) do(args []string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	switch args[0] {
	case "boot":
		return fmt.Sprintf("%+v", h.boot)
	case "pid":
		return strconv.Itoa(h.boot.Generation)
	case "read":
		b, err := os.ReadFile(args[1])
		return fmt.Sprintf("%q %v", b, err)
	case "write":
		return fmt.Sprint(os.WriteFile(args[1], []byte("x"), 0o600))
	case "config":
		f, err := h.client.Config(ctx)
		if err != nil {
			return err.Error()
		}
		defer f.Close()
		b, err := io.ReadAll(f)
		_, werr := f.WriteString("x")
		return fmt.Sprintf("%q %v, written to: %v", b, err, werr == nil)
	case "native":
		return native(args[1:])
	case "raw":
		b, _ := hex.DecodeString(args[1])
		_, err := syscall.Write(3, b)
		return fmt.Sprint(err)
	case "flood": // N times the same order, as fast as it goes
		n, _ := strconv.Atoi(args[1])
		b, _ := hex.DecodeString(args[2])
		for i := range n {
			for {
				_, err := syscall.Write(3, b)
				if err == nil {
					break
				}
				if err != syscall.EAGAIN {
					return fmt.Sprint(i, " ", err)
				}
				time.Sleep(100 * time.Microsecond)
			}
		}
		return "flooded"
	case "pass": // an order with a descriptor attached
		b, _ := hex.DecodeString(args[1])
		return fmt.Sprint(syscall.Sendmsg(3, b, syscall.UnixRights(2, 2, 2), nil, 0))
	case "shard":
		p, err := seccomp.ParseProfile(args[1])
		if err != nil {
			return err.Error()
		}
		memory, _ := strconv.ParseUint(args[2], 10, 64)
		c, err := h.client.SpawnShard(ctx, p, memory)
		return h.keep(c, err)
	case "bundler":
		root, _ := strconv.Atoi(args[1])
		c, err := h.client.SpawnBundler(ctx, root, args[2])
		return h.keep(c, err)
	}
	h.mu.Lock()
	c := h.children[args[1]]
	h.mu.Unlock()
	if c == nil {
		return "no child"
	}
	switch args[0] {
	case "say":
		fmt.Fprintln(c.Control, strings.Join(args[2:], " "))
		line, err := bufio.NewReader(c.Control).ReadString('\n')
		if err != nil {
			return err.Error()
		}
		return strings.TrimSpace(line)
	case "output":
		b, err := io.ReadAll(c.Output)
		return fmt.Sprintf("%q %v", b, err)
	case "kill":
		return fmt.Sprint(c.Kill())
	case "exit":
		select {
		case e := <-c.Exited():
			return fmt.Sprintf("code=%d signal=%d syscall=%d stopped=%v reason=%q detail=%q", e.Code, int(e.Signal), e.Syscall, e.Stopped, e.SyscallReason, e.Detail)
		case <-ctx.Done():
			return "still alive"
		}
	}
	return "unknown"
}

func (h *host) keep(c *orders.Child, err error) string {
	if err != nil {
		return "refused: " + err.Error()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.children[strconv.Itoa(int(c.ID))] = c
	return fmt.Sprintf("child %d %d", c.ID, c.PID)
}
