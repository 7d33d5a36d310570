package launcher

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binaries built once for all tests of the package.
var built struct {
	dir, launcher, child, sabotage string
}

func TestMain(m *testing.M) {
	// Each process of a fuzzer comes by here, and needs no binaries.
	if slices.ContainsFunc(os.Args, func(a string) bool { return strings.HasPrefix(a, "-test.fuzz=") || a == "-test.fuzzworker" }) {
		os.Exit(m.Run())
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "bulkhead-launcher-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o755) // the rootless launcher is another user
	built.dir = dir
	for _, b := range []struct {
		out  *string
		args []string
	}{
		{&built.launcher, []string{"bulkhead/cmd/bulkhead-launcher"}},
		{&built.child, []string{"bulkhead/supervisor/launcher/testchild"}},
		{&built.sabotage, []string{"-tags", "bulkhead_sabotage", "bulkhead/supervisor/launcher/testchild"}},
	} {
		*b.out = filepath.Join(dir, strconv.Itoa(len(b.args))+filepath.Base(b.args[len(b.args)-1]))
		cmd := exec.Command("go", append([]string{"build", "-o", *b.out}, b.args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
			return 1
		}
	}
	return m.Run()
}

// mode is how the launcher is run.
type mode struct {
	name string
	uid  uint32
	args []string
}

// modes are root and rootless where the test runs as root, else rootless alone. A rootless
// launcher in this test is not started by a service manager, so it has no delegated cgroup.
func modes() []mode {
	rootless := mode{name: "rootless", uid: uint32(os.Getuid()), args: []string{"--accept", "cgroup"}}
	if os.Getuid() != 0 {
		return []mode{rootless}
	}
	rootless.uid = 12345
	return []mode{{name: "root"}, rootless}
}

func eachMode(t *testing.T, test func(*testing.T, mode)) {
	t.Helper()
	for _, m := range modes() {
		t.Run(m.name, func(t *testing.T) { test(t, m) })
	}
}

// running is a launcher under test.
type running struct {
	t    *testing.T
	cmd  *exec.Cmd
	dir  string
	sock string
	done chan error

	mu  sync.Mutex
	log bytes.Buffer // guarded by mu
}

func (r *running) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(p)
}

func (r *running) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.String()
}

// start runs a launcher whose children are the given binary.
func start(t *testing.T, m mode, child string, args ...string) *running {
	t.Helper()
	return startAs(t, m, child, nil, args...)
}

// startAs is start with the last word on how the command runs.
func startAs(t *testing.T, m mode, child string, adjust func(*exec.Cmd), args ...string) *running {
	t.Helper()
	dir, err := os.MkdirTemp(built.dir, "run")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // so that others reach the admin socket
		t.Fatal(err)
	}
	tenant := filepath.Join(dir, "tenants", "hello")
	if err := os.MkdirAll(tenant, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tenant, "index.js"), []byte("hi\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	chown(t, dir, m.uid)
	r := &running{t: t, dir: dir, sock: filepath.Join(dir, "s"), done: make(chan error, 1)}
	all := append([]string{"--listen", "unix:" + r.sock, "--admin", filepath.Join(dir, "admin"),
		"--tenants", filepath.Join(dir, "tenants"), "--data", filepath.Join(dir, "data"),
		"--gateway", child, "--worker", child, "--bundler", child}, m.args...)
	r.cmd = exec.Command(built.launcher, append(all, args...)...)
	r.cmd.Stderr = r
	r.cmd.Env = []string{"LANG=C"}
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if m.uid != uint32(os.Getuid()) {
		r.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: m.uid, Gid: m.uid}
	}
	if adjust != nil {
		adjust(r.cmd)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { r.done <- r.cmd.Wait() }()
	t.Cleanup(func() {
		r.cmd.Process.Kill()
		if t.Failed() {
			t.Logf("launcher's log:\n%s", r.text())
		}
	})
	return r
}

func chown(t *testing.T, dir string, uid uint32) {
	t.Helper()
	err := filepath.Walk(dir, func(p string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, int(uid), int(uid))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// wait returns how the launcher ended.
func (r *running) wait(d time.Duration) error {
	r.t.Helper()
	select {
	case err := <-r.done:
		r.done <- err
		return err
	case <-time.After(d):
		r.t.Fatalf("the launcher still runs after %v", d)
		return nil
	}
}

// conn is a conversation with the test's gateway.
type conn struct {
	t *testing.T
	net.Conn
	in *bufio.Reader
}

func (r *running) dial() *conn {
	r.t.Helper()
	var last error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial("unix", r.sock)
		if err == nil {
			r.t.Cleanup(func() { c.Close() })
			return &conn{t: r.t, Conn: c, in: bufio.NewReader(c)}
		}
		last = err
		select {
		case err := <-r.done:
			r.done <- err
			r.t.Fatalf("launcher ended: %v", err)
		default:
		}
	}
	r.t.Fatal(last)
	return nil
}

func (c *conn) ask(format string, args ...any) string {
	c.t.Helper()
	line, err := c.try(format, args...)
	if err != nil {
		c.t.Fatalf("%s: %v", fmt.Sprintf(format, args...), err)
	}
	return line
}

func (c *conn) try(format string, args ...any) (string, error) {
	c.SetDeadline(time.Now().Add(40 * time.Second))
	if _, err := fmt.Fprintf(c, format+"\n", args...); err != nil {
		return "", err
	}
	line, err := c.in.ReadString('\n')
	return strings.TrimSuffix(line, "\n"), err
}

// spawn asks for a child and returns its id and pid.
func (c *conn) spawn(format string, args ...any) (id, pid int) {
	c.t.Helper()
	answer := c.ask(format, args...)
	if n, err := fmt.Sscanf(answer, "child %d %d", &id, &pid); n != 2 || err != nil {
		c.t.Fatalf("%s: %s", fmt.Sprintf(format, args...), answer)
	}
	return id, pid
}

// alive reports whether a process exists and is no zombie.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	rest := b[bytes.LastIndexByte(b, ')')+1:]
	return !bytes.HasPrefix(rest, []byte(" Z")) && !bytes.HasPrefix(rest, []byte(" X"))
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("in 30 s not: %s", what)
}

// descendants of a process, by the kernel's own list.
func descendants(pid int) (all []int) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range files {
		b, _ := os.ReadFile(f)
		for _, s := range strings.Fields(string(b)) {
			n, _ := strconv.Atoi(s)
			all = append(append(all, n), descendants(n)...)
		}
	}
	return all
}

// cgroupsOf lists the cgroup directories that a launcher with this pid made.
func cgroupsOf(pid int) (dirs []string) {
	want := regexp.MustCompile(fmt.Sprintf(`/bulkhead-%d(\.|$)`, pid))
	filepath.WalkDir("/sys/fs/cgroup", func(p string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && want.MatchString(p) {
			dirs = append(dirs, p)
		}
		return nil
	})
	return dirs
}

// listenDatagrams is a service manager's end of sd_notify.
func listenDatagrams(path string) (*net.UnixConn, error) {
	return net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
}
